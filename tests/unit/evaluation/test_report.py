"""Evaluating a set of images: measures, files, and reports of files that are skipped."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.small_models import make_model

from ohmq.codec import Codec
from ohmq.errors import ConfigError
from ohmq.evaluation.published import published_curve
from ohmq.evaluation.report import EvaluationOptions, channel_counts, evaluate_set, read_images, write_evaluation
from ohmq.evaluation.results import ResultFile
from ohmq.model_files.freeze import freeze


@pytest.fixture
def images() -> list[tuple[str, np.ndarray]]:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
    return [(f"{number}.png", image) for number, image in enumerate(pixels)]


def test_evaluate_and_write(images: list[tuple[str, np.ndarray]], tmp_path: Path) -> None:
    frozen = freeze(make_model("static"), "small")
    counts: list[int] = []
    options = EvaluationOptions(channels=(2, 5, 2), fixed_rate=True)
    evaluation = evaluate_set(frozen, images, options, data="noise", extra={"more": 1}, progress=counts.append)
    result = evaluation.result
    assert sum(counts) == 3
    assert (result.data, evaluation.title) == ("noise, 3 images", "noise, 3 images")
    assert [point.channels for point in result.points] == [2, 5] == list(evaluation.rows)
    assert result.extra == {
        "training": frozen.provenance,
        "transforms_id": frozen.transforms_id.hex(),
        "more": 1,
    }
    assert not list(tmp_path.iterdir())

    write_evaluation(evaluation, tmp_path / "plain", plot=False, per_image=False)
    assert sorted(path.name for path in (tmp_path / "plain").iterdir()) == [
        "rate_distortion.csv", "rate_distortion.json",
    ]  # fmt: skip
    write_evaluation(evaluation, tmp_path / "all", published=[published_curve("mnist-ohm-c0-16-lambda0.95-0.999")])
    fractions = [f"fraction_{point.fraction:.4f}.csv" for point in result.points]
    plots_and_tables = ["rate_distortion.csv", "rate_distortion.json", "rate_distortion.png"]
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == sorted([*fractions, *plots_and_tables])
    rows = list(csv.DictReader((tmp_path / "all" / fractions[0]).read_text().splitlines()))
    assert [row["image"] for row in rows] == ["0.png", "1.png", "2.png", "avg"]
    assert ResultFile.read(tmp_path / "all" / "rate_distortion.json").to_json() == result.to_json()


def test_options_that_a_model_does_not_have(images: list[tuple[str, np.ndarray]]) -> None:
    frozen = freeze(make_model("static"), "small")
    with pytest.raises(ConfigError, match="channels is 99"):
        evaluate_set(frozen, images, EvaluationOptions(channels=(99,)), data="noise")
    with pytest.raises(ConfigError, match=r"channel fraction 1\.5: it must lie in 0 to 1, or be -1 for all"):
        evaluate_set(frozen, images, EvaluationOptions(fractions=(1.5,)), data="noise")


def test_channel_counts_of_fractions() -> None:
    codec = Codec(freeze(make_model("static"), "small"))
    assert channel_counts(codec, [1, 0.5, 1]) == sorted({codec.config.channels_for(0.5), codec.num_channels})
    assert channel_counts(codec, [-1]) == sorted({*codec.cut_points, max(codec.config.channels_min, 1)})
    with pytest.raises(ConfigError, match="channel fraction nan"):
        channel_counts(codec, [math.nan])


def test_read_images_reports_each_file_that_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    Image.new("RGB", (9, 7), "red").save(tmp_path / "deep" / "red.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    lines: list[str] = []
    images, failed = read_images([str(tmp_path)], grey=True, report=lines.append)
    assert ([name for name, _ in images], failed) == (["deep/red.png"], 1)
    assert images[0][1].shape == (7, 9)
    assert lines[0].startswith("skipped: ") and "bad.png" in lines[0]
    assert lines[1].startswith(f"{tmp_path}/deep/red.png: ")
    with pytest.raises(ConfigError, match="no readable image in"):
        read_images([str(tmp_path / "bad.png")], grey=True, report=lines.append)
    with pytest.raises(ConfigError, match="no files found in"):
        read_images([str(tmp_path / "*.gif")], grey=True, report=lines.append)
