"""The encoder's search: cheaper symbols for the same decoder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import make_codec, photo_picture

import ohmq.codec
from ohmq.codec import Codec, Latent, load
from ohmq.container import read_header
from ohmq.errors import ConfigError, UnreachableTargetError
from ohmq.metrics import psnr_db

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load("photo")


@pytest.fixture(scope="module")
def crop() -> Image.Image:
    """A piece of a photograph whose sides are no multiples of 16."""
    with Image.open(PHOTOS / "chelsea.png") as image:
        return image.convert("RGB").crop((100, 60, 219, 131))


def quality(codec: Codec, data: bytes, image: Image.Image) -> tuple[float, float]:
    """Bits per pixel of all layers, and mean squared error."""
    bits = 8 * sum(layer.length for layer in read_header(data).layers)
    error = np.square(np.asarray(codec.decompress(data), float) - np.asarray(image)).mean()
    return bits / (image.width * image.height), float(error)


def test_it_pays(codec: Codec, crop: Image.Image) -> None:
    channels = codec.cut_points[6]
    slope = codec._slope(crop, codec.latent(crop), channels)
    costs = []
    for effort in (0, 1, 2):
        data = codec.compress(crop, channels=channels, effort=effort)
        assert sum(layer.channels for layer in read_header(data).layers) == channels
        rate, error = quality(codec, data, crop)
        costs.append(rate + slope * error)
    assert max(costs[1:]) < 0.998 * costs[0]


def test_the_slope_is_that_of_the_curve_around(codec: Codec, crop: Image.Image) -> None:
    cuts = codec.cut_points
    for source in (codec.analyse(crop), codec.latent(crop)):
        curve = [quality(codec, codec.encode(source, end, layers=1), crop) for end in cuts]
        for place in (0, 5, len(cuts) - 1):
            first, last = max(0, place - 1), min(place + 1, len(cuts) - 1)
            expected = (curve[last][0] - curve[first][0]) / (curve[first][1] - curve[last][1])
            assert codec._slope(crop, source, cuts[place]) == pytest.approx(expected, rel=1e-6)


def test_targets_are_kept(codec: Codec, crop: Image.Image) -> None:
    pixels = np.asarray(crop)
    for goal in (27.0, 31.0):
        plain, found = (codec.compress(crop, psnr=goal, effort=effort) for effort in (0, 1))
        assert psnr_db(pixels, np.asarray(codec.decompress(found))) >= goal
        assert len(found) <= len(plain)
    limit = len(codec.compress(crop, channels=codec.cut_points[5])) + 3
    found = codec.compress(crop, max_bytes=limit, effort=1)
    assert len(found) <= limit
    assert 8 * len(codec.compress(crop, bpp=0.5, layers=2, effort=1)) <= 0.5 * crop.width * crop.height
    for target in ({"psnr": 70.0}, {"max_bytes": 40}):
        with pytest.raises(UnreachableTargetError):
            codec.compress(crop, effort=1, **target)  # type: ignore[arg-type]


@pytest.mark.parametrize("bpp", [0.3, 0.6])
def test_a_size_is_filled_at_least_as_well_as_without_a_search(codec: Codec, bpp: float) -> None:
    with Image.open(PHOTOS / "coffee.png") as image:
        picture = image.convert("RGB").resize((160, 112))
    limit = int(bpp * picture.width * picture.height / 8)
    plain, found = (codec.compress(picture, bpp=bpp, effort=effort) for effort in (0, 1))
    assert max(len(plain), len(found)) <= limit
    plain_db, found_db = (psnr_db(np.asarray(picture), np.asarray(codec.decompress(data))) for data in (plain, found))
    assert found_db >= plain_db
    # What was searched for at one price is not tied to it.
    latent = codec.latent(picture)
    assert codec.encode_within(latent._replace(price=0.5), limit).file == codec.encode_within(latent, limit).file


def test_without_a_target_all_channels_are_searched(codec: Codec) -> None:
    picture = Image.new("RGB", (32, 32), (10, 120, 200))
    assert codec.compress_picture(picture, effort=1).channels == codec.num_channels


def test_window_by_window(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ohmq.codec, "SEARCH_WINDOW", 4)
    with Image.open(PHOTOS / "coffee.png") as image:
        picture = image.convert("RGB").crop((60, 60, 150, 130))
    channels = codec.cut_points[7]
    slope = codec._slope(picture, codec.latent(picture), channels)
    costs = []
    for effort in (0, 1):
        data = codec.compress(picture, channels=channels, effort=effort)
        rate, error = quality(codec, data, picture)
        costs.append(rate + slope * error)
    assert costs[1] < costs[0]
    tiled = codec.search(picture, codec.analyse(picture, tile=3), 1, channels=channels)
    assert (tiled.tile, tiled.values.dtype) == (3, np.uint8)
    assert np.array_equal(codec.decode(codec.encode(tiled, channels))[1].values, tiled.values[..., :channels])
    latent = codec.search(picture, codec.latent(picture, tile=3), 1, channels=channels)
    assert (type(latent), latent.tile, latent.values.dtype) == (Latent, 3, np.float32)


@pytest.mark.parametrize("size", [(1, 1), (300, 2)])
def test_any_size_transparency_and_flat_pictures(codec: Codec, size: tuple[int, int]) -> None:
    flat = Image.new("RGB", size, (120, 130, 140))
    noisy = photo_picture(size[1], size[0], 2)
    noisy.putalpha(photo_picture(size[1], size[0], 3).convert("L"))
    for image in (flat, noisy):
        decoded = codec.decompress(codec.compress(image, channels=40, effort=1))
        assert (decoded.size, decoded.mode) == (size, image.mode)
    assert np.array_equal(np.asarray(decoded)[..., 3], np.asarray(noisy)[..., 3])


def test_the_same_file_every_time_and_no_settings_touched(codec: Codec, crop: Image.Image) -> None:
    first = codec.compress(crop, channels=50, effort=1)
    random = torch.get_rng_state()
    with torch.inference_mode():
        assert codec.compress(crop, channels=50, effort=1) == first
        assert torch.is_inference_mode_enabled()
    with torch.no_grad():
        assert load("photo").compress(crop, channels=50, effort=1) == first
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), random)


def test_what_cannot_be_searched(codec: Codec, crop: Image.Image) -> None:
    for effort in (-1, 3):
        with pytest.raises(ValueError, match=f"effort is {effort}; it must be 0 to 2"):
            codec.compress(crop, effort=effort)
    with pytest.raises(ValueError, match="fixed rate"):
        codec.compress(crop, effort=1, fixed_rate=True)
    digits = make_codec("context")
    with pytest.raises(ConfigError, match="no photo model"):
        digits.compress(Image.new("L", (28, 28)), effort=1)
