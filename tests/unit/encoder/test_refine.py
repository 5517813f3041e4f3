"""Feedback in the encoder: fewer bits for the same quality, the same decoder."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_models import make_codec, photo_picture

from ohmq.bitstream.reader import read_header
from ohmq.codec import Codec
from ohmq.encoder.options import DEFAULT_EFFORT, EncodeOptions
from ohmq.encoder.rate_control import LAMBDA_SCALES
from ohmq.encoder.refine import PASSES, block_coefficients, refine_latent
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior
from ohmq.errors import ConfigError, UnreachableTargetError
from ohmq.evaluation.bd_rate import bd_rate
from ohmq.evaluation.evaluate import evaluate_images
from ohmq.loading import load
from ohmq.metrics import psnr_db
from ohmq.models.config import GREY_LEVELS
from ohmq.models.photo import block_filters
from ohmq.runtime import windowed

PHOTOS = Path(__file__).parents[3] / "examples" / "photos"


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load("photo")


@pytest.fixture(scope="module")
def crop() -> Image.Image:
    """A piece of a photograph whose sides are no multiples of 16."""
    with Image.open(PHOTOS / "chelsea.png") as image:
        return image.convert("RGB").crop((100, 60, 289, 211))


def test_block_coefficients_are_the_transform_of_the_model() -> None:
    block, _ = block_filters(40)
    pixels = np.random.default_rng(0).integers(-90, 90, (2, 3, 32, 48)).astype(np.float32)
    found = block_coefficients(pixels, block.numpy())
    expected = torch.nn.functional.conv2d(torch.from_numpy(pixels) / GREY_LEVELS, block, stride=16)
    assert found.shape == (2, 2, 3, 40)
    assert found == pytest.approx(expected.permute(0, 2, 3, 1).numpy(), abs=1e-4)


def test_error_that_quantization_explains_moves_nothing() -> None:
    rng = np.random.default_rng(1)
    latent, left, other = rng.standard_normal((3, 4, 5, 6)).astype(np.float32)
    for part in (0.0, 0.8, -2.0):
        assert refine_latent(latent, left, np.float32(part) * left, 0.5) == pytest.approx(latent, abs=1e-6)
    assert np.array_equal(refine_latent(latent, np.zeros_like(left), np.zeros_like(left), 0.5), latent)
    other -= np.vdot(other, left) / np.vdot(left, left) * left  # what is left once that part is taken off
    moved = refine_latent(latent, left, np.float32(0.8) * left + other, 0.25)
    assert moved == pytest.approx(latent + 0.25 * other, abs=1e-5)


def test_choice_without_context_minimises_the_cost_with_one_table_a_channel() -> None:
    codec = make_codec("photo")
    prior = codec.prior
    assert isinstance(prior, IntegerTabulatedPrior)
    latent = codec.latent(photo_picture(48, 64, 4)).values[0]
    quantizer = {name: value.astype(np.float64) for name, value in codec.transforms.quantizer.items()}
    starts = np.cumsum([0, *prior.group_sizes])
    for count in (1, 10, 24):
        quick = codec.encoder.refiner.rdoq(latent[None, None], count)
        left = quick.choose_without_context()[0, 0]
        rest = latent.reshape(-1, latent.shape[-1]).astype(np.float64)
        for start, end in itertools.pairwise(starts):
            before = rest.copy()
            for c in range(start, min(end, count)):
                size = prior.alphabets[c]
                values = quantizer["values"][c]
                spacing = (values[size // 2 + 1] - values[size // 2 - 1]) / 2
                price = quantizer["bit_price"][count - 1] / (np.square(quantizer["directions"][c]).sum() * spacing)
                (low, _), (low_second, high_second) = prior.levels(c < prior.num_checkerboard_channels)
                central = -low * (high_second - low_second + 1) - low_second
                bits = 24 - np.log2(prior.channel_tables(slice(c, c + 1))[central].astype(np.float64) + 1)
                cost = (
                    np.abs((before @ quantizer["project"][c])[:, None] - quantizer["centres"][c, :size]) + price * bits
                )
                chosen = quick.symbols[c]
                assert (np.take_along_axis(cost, chosen[:, None], 1)[:, 0] <= cost.min(1) + 1e-4).all()
                rest -= values[chosen][:, None] * quantizer["directions"][c]
        assert left.reshape(rest.shape) == pytest.approx(rest, abs=1e-3)


def test_codewords_synthesise_to_the_image_of_their_symbols(codec: Codec, crop: Image.Image) -> None:
    latent = codec.latent(crop).values[None]
    for count in (41, 678):
        quick = codec.encoder.refiner.rdoq(latent, count)
        left = quick.choose_without_context()
        one = codec.transforms.pixels_from_codewords((latent - left)[0], count).astype(int)
        two = codec.transforms.pixels(quick.values()[0], count).astype(int)
        assert np.abs(one - two).max() <= 1
        assert (one != two).mean() < 0.001


def test_it_pays(codec: Codec, crop: Image.Image) -> None:
    """Every effort needs fewer bits than the one before it, over the whole range of rates."""
    curves = []
    for effort in (0, 1, 2):
        files = [codec.compress(crop, channels=n, layers=1, effort=effort, tune="psnr") for n in codec.cut_points[4::2]]
        bits = [8 * sum(layer.length for layer in read_header(data).layers) for data in files]
        curves.append((bits, [psnr_db(np.asarray(crop), np.asarray(codec.decompress(data))) for data in files]))
    first, second = (bd_rate(*one, *other).percent for one, other in itertools.pairwise(curves))
    assert first < -2
    assert second < 0


def test_an_estimated_pass_pays(codec: Codec, crop: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """Effort 1 gains by its second pass; a model without the decoder that it needs does without."""
    refiner = codec.encoder.refiner
    assert [len(refiner.passes(effort)) for effort in (0, 1, 2)] == [0, 2, 3]
    curves = []
    for estimator in (None, refiner._estimator):
        monkeypatch.setattr(refiner, "_estimator", estimator)
        files = [codec.compress(crop, channels=n, tune="psnr") for n in codec.cut_points[4::2]]
        psnr = [psnr_db(np.asarray(crop), np.asarray(codec.decompress(data))) for data in files]
        curves.append(([len(data) for data in files], psnr))
    assert bd_rate(*curves[0], *curves[1]).percent < -0.3
    monkeypatch.setattr(refiner, "_estimator", None)
    assert [len(refiner.passes(effort)) for effort in (0, 1, 2)] == [0, 1, 2]


def test_an_estimate_comes_close(codec: Codec, crop: Image.Image) -> None:
    """It is within half of what it estimates: how the image changes when the latent is refined."""
    refiner, latent = codec.encoder.refiner, codec.latent(crop, effort=2)
    images, estimates = [], []
    for source in (latent.values, refiner.refine(latent, 269)):
        _, codewords = refiner._choose(latent, source[0], 269)
        images.append(refiner._own.pixels_from_codewords(codewords, 269)[0].astype(float))
        estimates.append(refiner._estimate(codewords, 269).astype(float))
    change, estimated = images[1] - images[0], estimates[1] - estimates[0]
    assert np.abs(change).max() > 3
    assert np.square(estimated - change).mean() < 0.25 * np.square(change).mean()


def test_evaluation_measures_what_compress_writes(codec: Codec, crop: Image.Image) -> None:
    pixels, (count,) = np.asarray(crop), (codec.cut_points[8],)
    for effort in (0, 1, 2):
        data = codec.compress(crop, channels=count, layers=1, effort=effort)
        (row,) = evaluate_images(codec, [("crop", pixels)], [count], effort=effort)[count]
        assert row.file_bpp == pytest.approx(8 * len(data) / (crop.width * crop.height), rel=0.01)
        assert row.psnr_db == pytest.approx(psnr_db(pixels, np.asarray(codec.decompress(data))), abs=0.02)


def test_targets_are_kept(codec: Codec, crop: Image.Image) -> None:
    pixels = np.asarray(crop)
    for goal in (27.0, 31.0):
        found = codec.compress(crop, psnr=goal, effort=1)
        assert goal <= psnr_db(pixels, np.asarray(codec.decompress(found))) < goal + 0.4
    for bpp in (0.3, 0.6):
        found = codec.compress(crop, bpp=bpp, effort=1)
        assert 0.85 * bpp < 8 * len(found) / (crop.width * crop.height) <= bpp
    least, plain = (
        len(
            codec.encode(codec.latent(crop, effort=effort)._replace(lambda_scale=LAMBDA_SCALES[0]), codec.cut_points[0])
        )
        for effort in (1, 0)
    )
    assert plain < least  # feedback spends more bits
    assert len(codec.compress(crop, max_bytes=plain, effort=1)) == plain
    for target in ({"psnr": 70.0}, {"max_bytes": 40}):
        with pytest.raises(UnreachableTargetError):
            codec.compress(crop, effort=1, **target)  # type: ignore[arg-type]


def test_a_quality_that_only_refinement_reaches(codec: Codec, crop: Image.Image) -> None:
    plain, found = (codec.compress(crop, effort=effort) for effort in (0, 2))
    best, better = (psnr_db(np.asarray(crop), np.asarray(codec.decompress(data))) for data in (plain, found))
    goal = (best + better) / 2 + 0.1
    assert best < goal < better
    reached = codec.compress(crop, psnr=goal, effort=2)
    assert psnr_db(np.asarray(crop), np.asarray(codec.decompress(reached))) >= goal


def test_window_by_window(codec: Codec, crop: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows are refined nearly as the whole image: only the factor of the explained error is their own."""
    count = codec.cut_points[7]
    whole = codec.latent(crop, effort=1)
    moved = codec.encoder.refiner.refine(whole, count) - whole.values
    monkeypatch.setattr(windowed, "WINDOW", 4)
    for tile in (0, 5):
        if not tile:
            monkeypatch.setattr(windowed, "TILE_ABOVE", 1000)
        part = codec.latent(crop, effort=1, tile=tile)
        there = codec.encoder.refiner.refine(part, count) - part.values
        assert np.square(there - moved).mean() < 0.15 * np.square(moved).mean()
    data = codec.compress(crop, channels=count, tile=5, effort=2)
    assert codec.decompress(data).size == crop.size


@pytest.mark.parametrize("size", [(1, 1), (300, 2)])
def test_any_size_transparency_and_flat_images(codec: Codec, size: tuple[int, int]) -> None:
    flat = Image.new("RGB", size, (120, 130, 140))
    noisy = photo_picture(size[1], size[0], 2)
    noisy.putalpha(photo_picture(size[1], size[0], 3).convert("L"))
    for image in (flat, noisy):
        decoded = codec.decompress(codec.compress(image, channels=40, effort=2))
        assert (decoded.size, decoded.mode) == (size, image.mode)
    assert np.array_equal(np.asarray(decoded)[..., 3], np.asarray(noisy)[..., 3])


def test_the_same_file_every_time(codec: Codec, crop: Image.Image) -> None:
    first = codec.compress(crop, channels=50, effort=2)
    assert load("photo").compress(crop, channels=50, effort=2) == first
    latent = codec.latent(crop, effort=2)
    kept = latent.values.copy()
    assert codec.encode(latent, 50, layers=1) == first
    assert np.array_equal(latent.values, kept)
    assert (
        codec.compress_prepared(
            Image.new("RGB", (32, 32), (10, 120, 200)), EncodeOptions(effort=1, quality=100)
        ).channels
        == codec.num_channels
    )


def test_one_step_is_the_default(codec: Codec, crop: Image.Image) -> None:
    """Wherever no effort is given; where none can be made, there is none."""
    found = codec.compress(crop, channels=50)
    assert (
        found == codec.compress(crop, channels=50, effort=DEFAULT_EFFORT) != codec.compress(crop, channels=50, effort=0)
    )
    assert codec.encode(codec.latent(crop), 50, layers=1) == found
    rows, ones = (evaluate_images(codec, [("crop", np.asarray(crop))], [50], **e) for e in ({}, {"effort": 1}))
    assert rows[50][0].psnr_db == ones[50][0].psnr_db
    assert [
        codec.effort_for(None),
        codec.effort_for(None, fixed_rate=True),
        codec.effort_for(0),
    ] == [1, 0, 0]
    assert make_codec("context").effort_for(None) == 0


def test_impossible_efforts_are_refused(codec: Codec, crop: Image.Image) -> None:
    for effort in (-1, len(PASSES)):
        with pytest.raises(ValueError, match=f"effort is {effort}; it must be 0 to 2"):
            codec.compress(crop, effort=effort)
    with pytest.raises(ValueError, match="fixed rate"):
        codec.compress(crop, effort=1, fixed_rate=True)
    with pytest.raises(ValueError, match="needs the image"):
        codec.encode(codec.latent(crop, effort=1)._replace(image=None), 50)
    digits, digit = make_codec("context"), np.zeros((28, 28), np.uint8)
    with pytest.raises(ConfigError, match="no photo model"):
        digits.compress(digit, effort=1)
    with pytest.raises(ConfigError, match="no photo model"):
        evaluate_images(digits, [("digit", digit)], [1], effort=1)
