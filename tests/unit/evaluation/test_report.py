"""Evaluating a set of images: measures, files, and reports of files that are skipped."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_models import make_codec, make_model

from ohmq.codec import Codec
from ohmq.errors import ConfigError
from ohmq.evaluation.evaluate import CodedImage
from ohmq.evaluation.published import published_curve
from ohmq.evaluation.report import (
    EvaluationOptions,
    ImageFiles,
    ImageReader,
    channel_counts,
    evaluate_set,
    read_images,
    write_evaluation,
)
from ohmq.evaluation.results import ResultFile
from ohmq.metrics import psnr_db
from ohmq.model_files.freeze import freeze
from ohmq.model_files.frozen_model import FrozenModel
from ohmq.models import MnistConfig, OpenImagesConfig, build_model


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


@pytest.mark.parametrize(
    ("config", "shapes"),
    [
        (MnistConfig(quantizer="none", channels_min=4, channels_max=4), [(28, 28), (28, 28), (30, 60)]),
        (OpenImagesConfig(quantizer="none", channels_max=4), [(40, 50, 3), (176, 180, 3)]),
    ],
)
def test_a_model_without_a_quantizer_has_quality_and_no_rate(
    config: MnistConfig | OpenImagesConfig, shapes: list[tuple[int, ...]], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = build_model(config)
    frozen = freeze(model, "free")
    rng = np.random.default_rng(0)
    images = [(f"{number}.png", rng.integers(0, 256, shape, np.uint8)) for number, shape in enumerate(shapes)]
    coded: list[CodedImage] = []
    evaluation = evaluate_set(frozen, iter(images), EvaluationOptions(), data="noise", on_coded=coded.append)
    (point,) = evaluation.result.points
    assert (point.channels, point.fraction, evaluation.result.extra["rate"]) == (4, 1.0, "no quantizer, no rate")
    assert all(math.isnan(value) for value in (point.estimated_bpp, point.payload_bpp, point.file_bpp))
    assert [one.pixels.shape for one in coded] == shapes
    assert {one.data for one in coded} == {b""}
    psnr = [psnr_db(pixels, one.pixels) for (_, pixels), one in zip(images, coded, strict=True)]
    assert point.psnr_db == pytest.approx(sum(psnr) / len(psnr))
    assert 0 < point.ssim < 1
    assert math.isnan(evaluation.rows[4][0].ms_ssim)
    if config.image_channels == 3:
        assert 0 < evaluation.rows[4][1].ms_ssim < 1
        with torch.no_grad():  # the image in one piece, its edge repeated to a multiple of 16 pixels
            padded = torch.from_numpy(np.pad(images[0][1], ((0, 8), (0, 14), (0, 0)), mode="edge")).permute(2, 0, 1)
            output = model.eval()(model.normalise(padded[None] / 255), torch.tensor([4])).reconstruction
            expected = model.denormalise(output)[0].permute(1, 2, 0)[:40, :50].clamp(0, 1) * 255
        np.testing.assert_allclose(coded[0].pixels, expected.numpy(), atol=0.51)
    write_evaluation(evaluation, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "fraction_1.0000.csv", "rate_distortion.csv", "rate_distortion.json",
    ]  # fmt: skip
    (all_channels,) = evaluate_set(frozen, images, EvaluationOptions(fractions=(0.25, 0.5)), data="noise").result.points
    assert all_channels._asdict() == pytest.approx(point._asdict(), nan_ok=True)
    with pytest.raises(ConfigError, match=r"channel fraction 1\.5"):
        evaluate_set(frozen, images, EvaluationOptions(fractions=(1.5,)), data="noise")
    for wrong in ({"effort": 1}, {"channels": (2,)}, {"cut": True}, {"fixed_rate": True}):
        with pytest.raises(ConfigError, match="free has no quantizer, so it has no"):
            evaluate_set(frozen, images, EvaluationOptions(**wrong), data="noise")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["static", "context", "integer", "photo"])
def test_measured_files_are_those_that_compressing_gives(name: str) -> None:
    codec = make_codec(name)
    rng = np.random.default_rng(1)
    shape = (28, 28) if codec.grey else (48, 40, 3)
    images = [(f"{number}.png", rng.integers(0, 256, shape, np.uint8)) for number in range(3)]
    coded: list[CodedImage] = []
    options = EvaluationOptions(channels=(2, codec.num_channels))
    frozen = cast(FrozenModel, codec.frozen)
    evaluation = evaluate_set(frozen, images, options, data="noise", on_coded=coded.append)
    pixels = dict(images)
    assert sorted((one.name, one.channels) for one in coded) == sorted(
        (image, channels) for image in pixels for channels in (2, codec.num_channels)
    )
    for one in coded:
        assert one.data == codec.compress(pixels[one.name], channels=one.channels, layers=1)
        np.testing.assert_array_equal(np.asarray(codec.decompress(one.data)), one.pixels)
        (row,) = [row for row in evaluation.rows[one.channels] if row.image == one.name]
        assert row.file_bpp == 8 * len(one.data) / (shape[0] * shape[1])


def test_images_are_read_as_they_are_coded() -> None:
    """Images that are not small are coded before the next one is read."""
    frozen = cast(FrozenModel, make_codec("photo").frozen)
    events: list[str] = []

    def images() -> Iterator[tuple[str, np.ndarray]]:
        for number in range(3):
            events.append(f"read {number}")
            yield str(number), np.random.default_rng(number).integers(0, 256, (1200, 1024, 3), np.uint8)

    evaluate_set(
        frozen,
        images(),
        EvaluationOptions(channels=(1,), effort=0),
        data="noise",
        on_coded=lambda coded: events.append(f"coded {coded.name}"),
    )
    assert events == ["read 0", "coded 0", "read 1", "coded 1", "read 2", "coded 2"]


def test_no_images() -> None:
    with pytest.raises(ConfigError, match="no images to evaluate in nothing"):
        evaluate_set(freeze(make_model("static"), "small"), [], EvaluationOptions(), data="nothing")


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
    reader = ImageReader([str(tmp_path)], grey=True, report=lines.append, limit=5)
    assert (len(reader), reader.names, reader.failed) == (2, ["bad.png", "deep/red.png"], 0)
    assert [[name for name, _ in reader] for _ in range(2)] == [["deep/red.png"]] * 2
    assert (reader.failed, len(lines)) == (1, 4)  # each file is reported once
    assert [name for name, _ in ImageReader([str(tmp_path)], grey=True, report=lines.append, limit=1)] == [
        "deep/red.png"
    ]
    files = ImageFiles(ImageReader([str(tmp_path)], grey=True, report=lines.append))
    assert (len(files), files[0][0], files[0][1].shape) == (1, "deep/red.png", (7, 9))
    Image.new("L", (3, 2)).save(tmp_path / "deep" / "red.png")
    assert files[0][1].shape == (2, 3)  # read when it is asked for
    assert len(files[:5]) == 1
    with pytest.raises(ConfigError, match="no readable image in"):
        ImageFiles(ImageReader([str(tmp_path / "bad.png")], grey=True, report=lines.append))
    with pytest.raises(ConfigError, match="no readable image in"):
        read_images([str(tmp_path / "bad.png")], grey=True, report=lines.append)
    with pytest.raises(ConfigError, match="no files found in"):
        read_images([str(tmp_path / "*.gif")], grey=True, report=lines.append)
