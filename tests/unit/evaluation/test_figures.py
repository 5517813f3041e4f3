import dataclasses
import json
from pathlib import Path

import pytest

from ohmq.cli import main
from ohmq.errors import ConfigError
from ohmq.evaluation.figures import FIGURES, MNIST_DATA, draw_figures, read_results
from ohmq.evaluation.results import RatePoint, ResultFile

RESULTS = Path(__file__).parents[3] / "results"
POINTS = tuple(
    RatePoint(n, n / 4, rate, rate, rate + 0.2, 12.0 + 3 * n) for n, rate in enumerate((0.05, 0.1, 0.2, 0.4), 1)
)


def write(
    folder: Path,
    quantizer: str,
    least: int,
    most: int,
    lambdas: tuple[float, float],
    fixed: bool = False,
    points: int = 4,
) -> None:
    model = {"family": "mnist", "quantizer": quantizer, "channels_min": least, "channels_max": most}
    result = ResultFile(
        command="ohmq experiments run x",
        model="x",
        model_id="00000000",
        data=MNIST_DATA,
        points=POINTS[:points],
        extra={
            "training": {"options": {"epochs": 3, "lambdas": list(lambdas), "model": model}},
            "experiment": {"fixed_rate": fixed, "epochs_of_the_file": 66},
        },
    )
    result.write(folder / "rate_distortion.json")


def test_shipped_results_are_recognised() -> None:
    runs = {run.path.parent.name: run for run in read_results([RESULTS])}
    ohm = runs["mnist-ohm"]
    assert (ohm.family, ohm.quantizer, ohm.channels_min, ohm.channels_max) == ("mnist", "ohm", 0, 16)
    assert ohm.lambdas == (0.95, 0.999)
    assert ohm.note == ""
    plan = FIGURES["lambda-c0"]([ohm])
    assert [curve.name for curve in plan.curves] == [
        "mnist-ohm-c0-16-lambda0.95-0.999",
        "published mnist-ohm-c0-16-lambda0.95-0.999",
    ]
    assert plan.curves[0].rates_bpp == ohm.result.curve().rates_bpp
    assert plan.missing == ["mnist-ohm-c0-16-lambda0.85-0.9", "mnist-ohm-c0-16-lambda0.9-0.999"]
    assert FIGURES["lambda-c8"]([ohm]).curves == []
    kodak = FIGURES["kodak"](list(runs.values()))
    assert [curve.name for curve in kodak.curves][:3] == ["photo", "photo, effort 0", "kodak-ohm"]
    assert kodak.missing == ["openimages-ohm-c0-480", "openimages-int-c0-480"]


def test_each_run_finds_its_figure(tmp_path: Path) -> None:
    wide = (0.95, 0.999)
    for most in (8, 16, 32):
        write(tmp_path / f"ohm{most}", "ohm", 0, most, wide)
        write(tmp_path / f"int{most}", "integer", 0, most, wide)
    write(tmp_path / "none", "none", 32, 32, (1.0, 1.0))
    for channels in (2, 4):
        write(tmp_path / f"fixed{channels}", "ohm", channels, channels, (1.0, 1.0), True, 1)
        write(tmp_path / f"variable{channels}", "ohm", channels, channels, (0.9, 0.9), False, 1)
    runs = read_results([tmp_path])
    quantizers = FIGURES["quantizers"](runs)
    assert len(quantizers.curves) == 6
    assert not quantizers.missing
    assert quantizers.level == ("no quantizer (3 epochs)", POINTS[-1].psnr_db)
    assert all(curve.label.endswith(" (3 epochs)") for curve in quantizers.curves)  # shorter than its file says
    assert len(quantizers.dashed) == 3
    bitrates = FIGURES["bitrates"](runs)
    assert [len(curve.rates_bpp) for curve in bitrates.curves] == [2, 2, 4]
    assert not bitrates.missing
    drawn = draw_figures(runs, ["quantizers", "bitrates", "lambda-c8"], tmp_path / "plots")
    assert [d.path is not None for d in drawn] == [True, True, False]
    assert (tmp_path / "plots" / "quantizers.png").stat().st_size > 10_000


def test_other_digits_are_not_mixed_in(tmp_path: Path) -> None:
    write(tmp_path / "ohm", "ohm", 0, 16, (0.95, 0.999))
    (run,) = read_results([tmp_path])
    few = run._replace(result=dataclasses.replace(run.result, data="MNIST test, 40 images"))
    assert FIGURES["lambda-c0"]([run]).curves
    assert not any(plan([few]).curves for plan in FIGURES.values())


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no rate_distortion\.json in .* `ohmq experiments run`"):
        read_results([tmp_path])
    with pytest.raises(ConfigError, match="no folder"):
        read_results([tmp_path / "missing"])
    with pytest.raises(ValueError, match="choose one of lambda-c0"):
        draw_figures([], ["nothing"], tmp_path)
    write(tmp_path, "ohm", 0, 16, (0.95, 0.999))
    content = json.loads((tmp_path / "rate_distortion.json").read_text())
    content["extra"] = {}
    (tmp_path / "rate_distortion.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="does not say how its model was trained"):
        read_results([tmp_path])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["plot", *arguments])
        streams = capsys.readouterr()
        return int(stop.value.code or 0), streams.out, streams.err

    command = (
        str(RESULTS / "mnist-ohm"),
        "-o",
        str(tmp_path / "plots"),
        "--figure",
        "lambda-c0",
        "--figure",
        "lambda-c8",
    )
    code, output, error = run(*command)
    assert code == 0
    assert "lambda-c8: not drawn" in output
    assert "lambda-c0: missing: mnist-ohm-c0-16-lambda0.85-0.9, " in error
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["lambda-c0.png"]
    assert run(*command)[0] == 1  # nothing is overwritten
    assert run(*command, "--force")[0] == 0
    assert run(*command[:3], "--figure", "nothing")[0] == 2
    code, _, error = run(*command[:3], "--figure", "lambda-c8")
    assert code == 1
    assert "nothing to draw" in error
