import dataclasses
import json
import math
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
    *,
    prior: str = "context",
    refinement: bool = True,
    **options: object,
) -> None:
    """Write a result; a run has three epochs of warm start and three more unless the options say otherwise."""
    model = {"family": "mnist", "quantizer": quantizer, "channels_min": least, "channels_max": most}
    model |= {"prior": prior if quantizer == "ohm" else "static", "refinement": refinement and quantizer == "ohm"}
    start = {"ohm": "vector" if refinement else "published", "integer": "rounding", "none": "scalar"}[quantizer]
    settings = {"epochs": 3, "lambdas": list(lambdas), "model": model, "initialisation": start, "warm_start_epochs": 3}
    result = ResultFile(
        command="ohmq experiments run x",
        model="x",
        model_id="00000000",
        data=MNIST_DATA,
        points=POINTS[:points],
        extra={
            "training": {"options": settings | options},
            "experiment": {"fixed_rate": fixed, "epochs_of_the_file": 66},
        },
    )
    result.write(folder / "rate_distortion.json")


def test_shipped_results_are_recognised() -> None:
    runs = {run.path.parent.name: run for run in read_results([RESULTS])}
    ohm = runs["mnist-ohm"]
    assert (ohm.family, ohm.quantizer, ohm.channels_min, ohm.channels_max) == ("mnist", "ohm", 0, 16)
    assert ohm.lambdas == (0.95, 0.999)
    assert ohm.note == "91 epochs, context prior"  # 25 of the warm start, 66 with the quantizer
    assert (ohm.epochs, ohm.training) == (91, ("ohmq", "context"))
    grown = runs["mnist-ohm-c0-8-lambda0.95-0.999"]
    assert grown.note == "97 epochs, context prior"  # 12 of its own after 25 + 60 of the run that it starts from
    assert runs["mnist-int"].note == "66 epochs"
    plan = FIGURES["lambda-c0"]([ohm])
    assert [curve.name for curve in plan.curves] == [
        "mnist-ohm-c0-16-lambda0.95-0.999",
        "published mnist-ohm-c0-16-lambda0.95-0.999",
    ]
    assert plan.curves[0].rates_bpp == ohm.result.curve().rates_bpp
    assert plan.missing == ["mnist-ohm-c0-16-lambda0.85-0.9", "mnist-ohm-c0-16-lambda0.9-0.999"]
    assert FIGURES["lambda-c8"]([ohm]).curves == []
    kodak = FIGURES["kodak"](list(runs.values()))
    assert [curve.name for curve in kodak.curves][:2] == ["photo", "kodak-ohm"]
    assert kodak.missing == ["openimages-ohm-c0-480", "openimages-int-c0-480"]


def test_each_run_finds_its_figure(tmp_path: Path) -> None:
    wide = (0.95, 0.999)
    for most in (8, 16, 32):
        write(tmp_path / f"ohm{most}", "ohm", 0, most, wide)
        write(tmp_path / f"static{most}", "ohm", 0, most, wide, prior="static")
        write(tmp_path / f"int{most}", "integer", 0, most, wide)
    write(tmp_path / "none", "none", 32, 32, (1.0, 1.0))
    for channels in (2, 4):
        write(tmp_path / f"fixed{channels}", "ohm", channels, channels, (1.0, 1.0), True, 1, prior="static")
        write(tmp_path / f"variable{channels}", "ohm", channels, channels, (0.9, 0.9), False, 1)
    runs = read_results([tmp_path])
    quantizers = FIGURES["quantizers"](runs)
    assert [curve.label for curve in quantizers.curves][:3] == [
        "OHM, 8 channels (6 epochs, context prior)",
        "OHM, 8 channels (6 epochs, static prior)",
        "integer, 8 channels (6 epochs)",
    ]
    assert len(quantizers.curves) == 9
    assert not quantizers.missing
    assert quantizers.level == ("no quantizer (3 epochs)", POINTS[-1].psnr_db)
    assert (len(quantizers.dashed), len(quantizers.dotted), len(quantizers.like)) == (3, 3, 6)
    bitrates = FIGURES["bitrates"](runs)
    assert [len(curve.rates_bpp) for curve in bitrates.curves] == [2, 2, 4]
    assert [curve.label for curve in bitrates.curves] == [
        "fixed, one model a point (6 epochs)",
        "variable, one model a point (6 epochs, context prior)",
        "adaptive, one model (6 epochs, context prior)",
    ]
    assert not bitrates.missing
    drawn = draw_figures(runs, ["quantizers", "bitrates", "training", "lambda-c8"], tmp_path / "plots")
    assert [d.path is not None for d in drawn] == [True, True, True, False]
    assert (tmp_path / "plots" / "quantizers.png").stat().st_size > 10_000


def test_runs_of_equal_epochs_are_drawn_together(tmp_path: Path) -> None:
    wide = (0.95, 0.999)
    write(tmp_path / "ohm", "ohm", 0, 16, wide)
    write(tmp_path / "long", "ohm", 0, 16, wide, epochs=66)
    write(tmp_path / "static", "ohm", 0, 16, wide, prior="static")
    write(tmp_path / "int", "integer", 0, 16, wide, epochs=9)
    twin = "mnist-int-warm-c0-16-lambda0.95-0.999"
    plan = FIGURES["quantizers"](read_results([tmp_path]))
    assert [curve.label.partition("(")[2] for curve in plan.curves] == [
        "69 epochs, context prior)", "6 epochs, static prior)", "12 epochs)",
    ]  # fmt: skip
    assert twin in plan.missing  # its epochs are not those of the others
    write(tmp_path / "equal", "integer", 0, 16, wide)
    plan = FIGURES["quantizers"](read_results([tmp_path]))
    assert [curve.label.partition("(")[2] for curve in plan.curves] == [
        "6 epochs, context prior)", "6 epochs, static prior)", "6 epochs)",
    ]  # fmt: skip
    assert not any("c0-16" in name for name in plan.missing)

    write(tmp_path / "fixed", "ohm", 4, 4, (1.0, 1.0), True, 1)
    write(tmp_path / "variable", "ohm", 4, 4, (0.9, 0.9), False, 1)
    plan = FIGURES["bitrates"](read_results([tmp_path]))
    assert {curve.label.partition("(")[2].split()[0] for curve in plan.curves} == {"6"}
    (tmp_path / "ohm" / "rate_distortion.json").unlink()
    plan = FIGURES["bitrates"](read_results([tmp_path]))
    assert [curve.label.partition("(")[2].split()[0] for curve in plan.curves] == ["6", "6", "69"]
    assert plan.missing == ["mnist-ohm-c0-16-lambda0.95-0.999 with as many epochs as the others (6)"]


def test_the_published_training_beside_the_paper_and_ours(tmp_path: Path) -> None:
    wide = (0.95, 0.999)
    write(tmp_path / "ohm", "ohm", 0, 16, wide, epochs=97)
    write(tmp_path / "short", "ohm", 0, 16, wide)
    write(tmp_path / "static", "ohm", 0, 16, wide, prior="static", epochs=66)
    write(tmp_path / "p100", "ohm", 0, 16, wide, prior="static", refinement=False, epochs=100)
    write(tmp_path / "p300", "ohm", 0, 16, wide, prior="static", refinement=False, epochs=300)
    plan = FIGURES["training"](read_results([tmp_path]))
    assert [curve.label for curve in plan.curves] == [
        "ohmq (100 epochs, context prior)",
        "ohmq (69 epochs, static prior)",
        "the published training, repeated (100 epochs, static prior)",
        "the published training, repeated (300 epochs, static prior)",
        "the paper (1000 epochs, static prior)",
    ]
    assert list(plan.dotted) == [curve.name for curve in plan.curves[2:]]
    assert plan.missing == [
        "mnist-published-c0-16-lambda0.95-0.999 with as many epochs as mnist-ohm-static-c0-16-lambda0.95-0.999 (69)"
    ]
    assert not any(curve.name.startswith("mnist-published") for curve in FIGURES["lambda-c0"](
        read_results([tmp_path])).curves)  # fmt: skip
    assert FIGURES["training"]([]).curves == []


def test_epochs_are_those_that_were_done(tmp_path: Path) -> None:
    """A checkpoint of 1000 planned epochs that was tested after 300; a run that starts from itself."""
    write(tmp_path / "a", "ohm", 0, 16, (0.95, 0.999), prior="static", refinement=False, epochs=1000)
    path = tmp_path / "a" / "rate_distortion.json"
    content = json.loads(path.read_text())
    content["extra"]["experiment"]["options"] = content["extra"]["training"]["options"] | {"epochs": 300}
    path.write_text(json.dumps(content))
    write(tmp_path / "b", "ohm", 0, 16, (0.95, 0.999), start_from="b")
    runs = read_results([tmp_path])
    assert [run.note for run in runs] == ["300 epochs, static prior", "3 epochs after b, context prior"]
    assert [run.epochs for run in runs] == [300, None]


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


def test_the_figure_of_photos_by_another_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main(["plot", *map(str, arguments)])
        return int(stop.value.code or 0), capsys.readouterr().err

    before = ResultFile.read(RESULTS / "photo-kodak" / "rate_distortion.json")
    path = tmp_path / "without" / "rate_distortion.json"
    path.parent.mkdir()
    dataclasses.replace(before, points=tuple(point._replace(ssimulacra2=math.nan) for point in before.points)).write(
        path
    )
    options = ("-o", tmp_path / "plots", "--metric", "ssimulacra2")
    code, error = run(path.parent, *options)
    assert code == 1 and "has no SSIMULACRA2; measure it with ohmq evaluate --metrics ssimulacra2" in error
    path.unlink()
    points = tuple(point._replace(ssimulacra2=20.0 + n) for n, point in enumerate(before.points))
    dataclasses.replace(before, points=points).write(tmp_path / "rate_distortion.json")
    assert run(tmp_path, *options)[0] == 0
    assert [path.name for path in (tmp_path / "plots").iterdir()] == ["kodak-ssimulacra2.png"]
    code, error = run(tmp_path, *options, "--figure", "lambda-c0")
    assert code == 2 and "--metric ssimulacra2 is drawn in the figure kodak alone" in error
