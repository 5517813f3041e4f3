"""Measuring a model beside classic codecs."""

import numpy as np
import pytest
import torch
from PIL import AvifImagePlugin, Image
from support.small_models import make_codec

from ohmq import load
from ohmq.errors import ConfigError
from ohmq.evaluation.compare import compare_codecs, one_thread, spread, suited_images
from ohmq.evaluation.comparison import MODEL
from ohmq.evaluation.matching import match_rates
from ohmq.metrics import psnr_db


def test_one_thread_and_back() -> None:
    before = torch.get_num_threads(), AvifImagePlugin.DEFAULT_MAX_THREADS

    def work() -> None:
        with one_thread():
            assert (torch.get_num_threads(), AvifImagePlugin.DEFAULT_MAX_THREADS) == (1, 1)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert (torch.get_num_threads(), AvifImagePlugin.DEFAULT_MAX_THREADS) == before


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12, 13])
def test_spread_keeps_both_ends(count: int) -> None:
    values = list(range(12))
    chosen = spread(values, count)
    assert len(chosen) == min(count, 12) == len(set(chosen))
    assert chosen == sorted(chosen)
    if count > 1:
        assert (chosen[0], chosen[-1]) == (0, 11)


def test_grey_models_refuse_colour_images() -> None:
    codec = make_codec("static")
    grey = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)[..., :1].repeat(3, -1)
    ((name, pixels),) = suited_images(codec, [("g", grey)])
    assert (name, pixels.shape) == ("g", (4, 4))
    colour = grey.copy()
    colour[0, 0, 0] += 1
    with pytest.raises(
        ConfigError, match=r"static \(family mnist\) codes grey images and c is in colour.*--model photo"
    ):
        suited_images(codec, [("g", grey), ("c", colour)])


def test_a_comparison_of_digits(digits: list[Image.Image]) -> None:
    codec = make_codec("static")
    images = [(str(n), np.asarray(image)) for n, image in enumerate(digits[:3])]
    images.append(("wide", np.concatenate([images[0][1], images[1][1][:, :9]], 1)))
    done: list[int] = []
    model, webp = compare_codecs(codec, images, [2, 5], ["webp"], rates=3, progress=done.append)
    assert sum(done) == 8
    assert (model.values, len(webp.values)) == ((2, 5), 3)
    for value, rows in zip(model.values, model.rows, strict=True):
        for (name, pixels), row in zip(images, rows, strict=True):
            data = codec.compress(pixels, channels=int(value), layers=1)
            assert (row.image, row.file_bytes) == (name, len(data))
            assert row.file_bpp == pytest.approx(8 * len(data) / pixels.size)
    for point, rows in zip(webp.points, webp.rows, strict=True):
        assert point.file_bpp == pytest.approx(sum(row.file_bpp for row in rows) / 4)
        assert point.psnr_db == pytest.approx(sum(row.psnr_db for row in rows) / 4)
        times = sorted(row.encode_s / (pixels.size / 1e6) for row, (_, pixels) in zip(rows, images, strict=True))
        assert point.encode_s_per_mpixel == pytest.approx((times[1] + times[2]) / 2)
    groups = match_rates(codec, images, [model, webp], 3, [0.01, 0.02, 50])
    assert [group[0].setting for group in groups] == ["2 channels", "5 channels"]  # each file once
    for group in groups:
        assert [matched.codec for matched in group] == [MODEL, "webp"]
        ratio = group[1].file_bpp / group[0].file_bpp
        assert group[1].close == (abs(ratio - 1) <= 0.25)
        assert group[1].pixels.shape == images[3][1].shape


def test_nothing_to_compare() -> None:
    codec = make_codec("static")
    image = ("x", np.zeros((28, 28), np.uint8))
    for images, channels in (([], [5]), ([image], []), ([image], [0, 5])):
        with pytest.raises(ValueError, match="at least one"):
            compare_codecs(codec, images, channels, ["webp"])
    with pytest.raises(ValueError, match="no codec 'gif'"):
        compare_codecs(codec, [image], [5], ["gif"])


def test_a_model_is_measured_at_its_qualities() -> None:
    """Files are those of `Codec.compress`, also on the page."""
    codec = load("photo")
    with Image.open("examples/photos/coffee.png") as image:
        pixels = np.asarray(image.convert("RGB").crop((0, 0, 96, 80)))
    model, _ = results = compare_codecs(codec, [("x", pixels)], [], ["webp"], qualities=[20, 70], rates=2, metrics=())
    files = [codec.compress(pixels, quality=quality) for quality in (20, 70)]
    assert [(rows[0].setting, rows[0].file_bytes) for rows in model.rows] == [
        ("quality 20", len(files[0])),
        ("quality 70", len(files[1])),
    ]
    assert [rows[0].psnr_db for rows in model.rows] == [
        psnr_db(pixels, np.asarray(codec.decompress(file))) for file in files
    ]
    ((shown, _),) = match_rates(codec, [("x", pixels)], results, 0, [model.points[1].file_bpp], metrics=())
    assert (shown.setting, round(shown.file_bpp * pixels.shape[0] * pixels.shape[1] / 8)) == (
        "quality 70",
        len(files[1]),
    )
    with pytest.raises(ConfigError, match="no quality scale"):
        compare_codecs(make_codec("static"), [("g", pixels[..., 0])], [], ["webp"], qualities=[50])
