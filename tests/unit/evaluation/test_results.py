import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from ohmq.errors import ConfigError, OutputExistsError
from ohmq.evaluation.results import DEFINITIONS, Curve, ImageRow, RatePoint, ResultFile
from ohmq.evaluation.tables import average_row, write_fraction_csv, write_rate_distortion_csv, write_rows_csv
from ohmq.utils.provenance import software_versions

POINTS = (
    RatePoint(4, 0.25, 0.1, 0.11, 0.2, 25.5, 0.8, math.nan, 0.01, 0.02),
    RatePoint(16, 1.0, 0.4, 0.41, 0.5, math.inf),
)
ROWS = [
    ImageRow("a.png", 20.0, 0.5, math.nan, 0.1, 0.2, 0.3, 1.0, 2.0),
    ImageRow("b, 2.png", 30.0, 0.75, math.nan, 0.3, 0.4, 0.6, 2.0, 3.0),
]


def result(**changes: object) -> ResultFile:
    values: dict[str, object] = {
        "command": "ohmq evaluate x",
        "model": "mnist-ohm",
        "model_id": "0a1b2c3d",
        "data": "MNIST, 10,000 test images",
        "points": POINTS,
    }
    return ResultFile(**{**values, **changes})  # type: ignore[arg-type]


def test_columns_are_defined() -> None:
    assert set(DEFINITIONS) == set(RatePoint._fields)
    assert set(ImageRow._fields) - {"image"} <= set(DEFINITIONS)


def test_results_survive_writing_and_reading(tmp_path: Path) -> None:
    before = result(extra={"seed": 3, "note": "λ"})
    before.write(tmp_path / "new" / "x.json")
    after = ResultFile.read(tmp_path / "new" / "x.json")
    assert repr(after) == repr(before)  # as text: NaN differs from itself
    assert after.points[1].psnr_db == math.inf
    assert math.isnan(after.points[1].ssim)
    assert isinstance(after.points[0].channels, int)


def test_files_without_the_later_metrics_are_read(tmp_path: Path) -> None:
    content = json.loads(result().to_json())
    for point in content["points"]:
        del point["ssimulacra2"], point["psnr_hvs_m_db"]
    (tmp_path / "old.json").write_text(json.dumps(content))
    read = ResultFile.read(tmp_path / "old.json")
    assert repr(read.points) == repr(POINTS)
    with pytest.raises(ConfigError, match=r"has no SSIMULACRA2; measure it with .*--metrics ssimulacra2"):
        read.curve(quality="ssimulacra2")


def test_curves_of_other_qualities() -> None:
    points = tuple(point._replace(ms_ssim=0.99, ssimulacra2=-5.0 + n) for n, point in enumerate(POINTS))
    made = result(points=points)
    assert made.curve(quality="ms_ssim_db").psnr_db == pytest.approx((20, 20))
    assert made.curve("file_bpp", quality="ssimulacra2").psnr_db == (-5, -4)


def test_the_file_is_strict_json_and_explains_itself(tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    result().write(tmp_path / "x.json")
    content = json.loads((tmp_path / "x.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert content["format"] == 1
    assert content["command"] == "ohmq evaluate x"
    assert content["model_id"] == "0a1b2c3d"
    assert content["points"][0]["ms_ssim"] is None
    assert content["points"][1]["psnr_db"] == "inf"
    assert set(content["definitions"]) == set(content["points"][0])
    assert set(content["versions"]) == {"ohmq", "torch", "numpy", "numba", "pillow", "python", "platform"}


def test_versions() -> None:
    import torch

    import ohmq

    assert software_versions()["ohmq"] == ohmq.__version__
    assert software_versions()["torch"] == torch.__version__
    assert software_versions()["python"] == sys.version.split()[0]


def test_existing_results_are_kept_unless_forced(tmp_path: Path) -> None:
    result().write(tmp_path / "x.json")
    with pytest.raises(OutputExistsError):
        result().write(tmp_path / "x.json")
    result(data="other").write(tmp_path / "x.json", force=True)
    assert ResultFile.read(tmp_path / "x.json").data == "other"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "{",
        '{"format": 2}',
        '{"format": 1, "points": [{"speed": 1}]}',
        '{"format": 1, "points": []}',
        "3",
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ConfigError, match=r"x\.json"):
        ResultFile.read(tmp_path / "x.json")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.json"):
        ResultFile.read(tmp_path / "none.json")


def test_curves_of_each_rate() -> None:
    assert result().curve() == Curve(
        "mnist-ohm", "mnist-ohm", (0.11, 0.41), (25.5, math.inf), "payload_bpp", "ohmq evaluate x"
    )
    assert result().curve("file_bpp", "ours").rates_bpp == (0.2, 0.5)
    assert result().curve("estimated_bpp", "ours").label == "ours"


@pytest.mark.parametrize(("rates", "psnr"), [((0.1,), (1.0, 2.0)), ((), ())])
def test_impossible_curves(rates: tuple[float, ...], psnr: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="expected as many"):
        Curve("x", "x", rates, psnr)


def test_average_row() -> None:
    average = average_row(ROWS)
    assert average.image == "avg"
    assert math.isnan(average.ms_ssim)
    assert average[1:3] == (25.0, 0.625)
    assert average[4:9] == pytest.approx((0.2, 0.3, 0.45, 1.5, 2.5))
    assert all(map(math.isnan, average[9:]))
    with pytest.raises(ValueError, match="no rows"):
        average_row([])


def test_fraction_csv(tmp_path: Path) -> None:
    write_fraction_csv(tmp_path / "x.csv", ROWS)
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["a.png", "b, 2.png", "avg"]
    assert list(rows[0]) == list(ImageRow._fields)
    assert (rows[2]["psnr_db"], rows[2]["file_bpp"], rows[2]["ms_ssim"]) == ("25", "0.45", "nan")
    with pytest.raises(OutputExistsError):
        write_fraction_csv(tmp_path / "x.csv", ROWS)


def test_rate_distortion_csv(tmp_path: Path) -> None:
    write_rate_distortion_csv(tmp_path / "x.csv", POINTS)
    assert (tmp_path / "x.csv").read_text().splitlines() == [
        ",".join(RatePoint._fields),
        "4,0.25,0.1,0.11,0.2,25.5,0.8,nan,0.01,0.02,nan,nan",
        "16,1,0.4,0.41,0.5,inf,nan,nan,nan,nan,nan,nan",
    ]


def test_heavy_packages_are_not_imported() -> None:
    code = (
        "import sys, ohmq.evaluation.results, ohmq.evaluation.published, ohmq.evaluation.bd_rate, ohmq.metrics\n"
        "import ohmq.imaging.convert, ohmq.datasets.mnist\n"
        "ohmq.utils.provenance.software_versions()\n"
        "assert not {'torch', 'matplotlib', 'pooch', 'bjontegaard'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_rows_of_any_kind(tmp_path: Path) -> None:
    write_rows_csv(tmp_path / "x.csv", ROWS)
    rows = list(csv.DictReader((tmp_path / "x.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == ["a.png", "b, 2.png"]
    assert float(rows[1]["psnr_db"]) == 30
    with pytest.raises(ValueError, match="no rows"):
        write_rows_csv(tmp_path / "y.csv", [])
    with pytest.raises(OutputExistsError):
        write_rows_csv(tmp_path / "x.csv", ROWS)
