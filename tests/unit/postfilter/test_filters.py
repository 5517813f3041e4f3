"""The classified post-filter: against a literal formulation, in model files, and fitted to photos."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from support.small_models import make_codec, photo_picture, random_filters

from ohmq.codec import Codec
from ohmq.errors import ConfigError, ModelFileError
from ohmq.metrics import psnr_db
from ohmq.model_files.freeze import freeze, thaw
from ohmq.model_files.frozen_model import FrozenModel, load_model, save_model, with_post_filter
from ohmq.models import PhotoConfig, build_model
from ohmq.postfilter import filters as postfilter
from ohmq.postfilter.classes import CLASSES, FEATURES, REACH, classify
from ohmq.postfilter.filters import PostFilter
from ohmq.postfilter.select_kernel import select_kernel
from ohmq.training.photo.fit_postfilter import fit_filters, fitted_at


def decoded_image(height: int, width: int) -> NDArray[np.float32]:
    """Make an image like the output of a synthesis: not rounded, some values at the ends; waves in eight directions."""
    rng = np.random.default_rng(height)
    y, x = np.mgrid[:height, :width]
    angle = np.pi * np.floor(8 * x / width) / 8
    image = 128 + 150 * (y / height) ** 3 * np.sin(1.7 * (np.cos(angle) * x + np.sin(angle) * y))
    image = image + rng.normal(0, 3, (3, height, width)) * (x % 3 / 4)
    return image.clip(0, 255).astype(np.float32)


def literal_class(grey: NDArray[np.int64], y: int, x: int) -> int:
    """Compute the class of a pixel of integers with a border of 3, with Python's numbers."""
    sums = [0, 0, 0, 0]
    for v in range(y - 2, y + 3):
        for u in range(x - 2, x + 3):
            for k, (dy, dx) in enumerate([(0, 1), (1, 0), (1, 1), (1, -1)]):
                sums[k] += abs(2 * int(grey[v, u]) - int(grey[v + dy, u + dx]) - int(grey[v - dy, u - dx]))
    level = sum(sums[0] + sums[1] >= end for end in (45, 75, 120, 188, 300, 450, 675, 975, 1425, 2025, 2850))
    straight, diagonal = ((max(a, b) / (min(a, b) + 7.5)) for a, b in (sums[:2], sums[2:]))
    ratio = max(straight, diagonal)
    if ratio < 1.3:
        return int(level) * 9
    direction = (0 if sums[0] > sums[1] else 1) if straight > diagonal else (2 if sums[2] > sums[3] else 3)
    return int(level) * 9 + 1 + direction + (4 if ratio >= 2.2 else 0)


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_against_a_literal_formulation(compiled: bool) -> None:
    filters, image = random_filters(), decoded_image(28, 64)
    padded = np.pad(image, ((0, 0), (3, 3), (3, 3)), mode="reflect").astype(np.float64)
    grey = np.rint(padded).sum(0).astype(np.int64)
    filtered = filters.with_kernel(select_kernel(compiled)).apply(image, 7)
    low, high = (w * np.repeat(s, 36, axis=1)[:, None] for w, s in zip(filters.weight, filters.scale, strict=True))
    weights = low + (7 - 4) / (12 - 4) * (high - low)
    pairs = [(0, d) for d in (1, 2, 3)] + [(1, d) for d in range(-2, 3)] + [(2, d) for d in (-1, 0, 1)] + [(3, 0)]
    unit = [0.4, 0.8, 1.3, 2, 3.2, 5, 7.5, 11, 16, 23, 32, 50]
    class_map = classify(padded.astype(np.float32))
    for y in range(28):
        for x in range(64):
            number = literal_class(grey, y + 3, x + 3)
            assert class_map[y, x] == number
            features = []
            for factor in (1e9, 0.3, 1.2):
                limit = factor * unit[number // 9]
                for dy, dx in pairs:
                    for c in range(3):
                        centre = padded[c, y + 3, x + 3]
                        one, other = padded[c, y + 3 + dy, x + 3 + dx], padded[c, y + 3 - dy, x + 3 - dx]
                        features.append(sum(min(max(value - centre, -limit), limit) for value in (one, other)))
            expected = image[:, y, x] + weights[number] @ np.array(features)
            assert filtered[:, y, x] == pytest.approx(expected, abs=2e-3)
    assert len(np.unique(class_map // 9)) > 6 and len(np.unique(class_map % 9)) == 9  # the image has all directions


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_rounded_pixels_are_those_of_the_filter(compiled: bool) -> None:
    filters, image = random_filters(0.3).with_kernel(select_kernel(compiled)), decoded_image(70, 300)
    rounded, expected = filters.apply_and_round(image, 7, threads=2), filters.apply(image, 7)
    assert rounded.dtype == np.uint8 and expected.min() < 0 and expected.max() > 255
    assert np.array_equal(rounded, expected.round().clip(0, 255))


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_the_inside_of_a_part_is_that_of_the_whole(compiled: bool) -> None:
    filters, image = random_filters(0.3).with_kernel(select_kernel(compiled)), decoded_image(50, 70)
    whole = filters.apply_and_round(image, 9)
    pixels = np.zeros((50, 70, 3), np.uint8)  # colours side by side, as in images
    inside = pixels.transpose(2, 0, 1)[:, :30, 20:]
    filters.filter_inside(image[:, : 30 + REACH, 20 - REACH :], (0, REACH, REACH, 0), 9, inside)
    difference = np.abs(inside.astype(int) - whole[:, :30, 20:])
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # products of other shapes round differently
    assert not pixels[30:].any() and not pixels[:, :20].any()


def test_directions_and_levels() -> None:
    assert (classify(np.full((3, 20, 20), 77, np.float32)) == 0).all()
    stripes = np.tile(np.float32([100, 120]), (3, 30, 15))
    along = classify(stripes)
    assert np.unique(along).tolist() == [9 * 11 + 5]
    assert np.array_equal(classify(stripes.transpose(0, 2, 1)), along.T + 1)
    assert (classify(stripes / 20 + 50) < 9 * 11).all()


def test_a_correction_depends_on_near_pixels_only(monkeypatch: pytest.MonkeyPatch) -> None:
    filters, image = random_filters(), decoded_image(40, 52)
    whole = filters.apply(image, 9)
    monkeypatch.setattr(postfilter, "STRIP_PIXELS", 100)
    assert filters.apply(image, 9) == pytest.approx(whole, abs=1e-3)  # products of other shapes round differently
    assert np.array_equal(filters.apply(image, 9, threads=3), filters.apply(image, 9))
    changed = image.copy()
    changed[:, 20, 30] = 255 - changed[:, 20, 30]
    far = np.ones((40, 52), bool)
    far[20 - REACH : 20 + REACH + 1, 30 - REACH : 30 + REACH + 1] = False
    assert filters.apply(changed, 9)[:, far] == pytest.approx(whole[:, far], abs=1e-3)
    assert abs(filters.apply(changed, 9) - whole)[:, ~far].max() > 1
    assert filters.apply(image[:, :4, :4], 9).shape == (3, 4, 4)


def test_weights_between_two_sets() -> None:
    filters = random_filters()
    low, high = filters.weights_at(4), filters.weights_at(12)
    assert np.abs(low - np.random.default_rng(5).normal(0, 0.01, (2, CLASSES, 3, FEATURES))[0]).max() < 0.0003
    for channels, expected in ((1, low), (6, 0.75 * low + 0.25 * high), (90, high)):
        assert filters.weights_at(channels) == pytest.approx(expected, abs=1e-6)
    assert fitted_at((3, 6, 24)) == [3, 6, 24]
    assert fitted_at((5,)) == [5]


def test_wrong_tensors_are_refused() -> None:
    channels, weight, scale = random_filters().tensors.values()
    for wrong in (channels[::-1].copy(), channels.astype(np.int64), channels[:0], channels[None]):
        with pytest.raises(ModelFileError, match="ascend"):
            PostFilter(wrong, weight, scale)
    for wrong in (weight[:1], weight.astype(np.float16), weight[:, :, :2]):
        with pytest.raises(ModelFileError, match="weight is .*expected int8"):
            PostFilter(channels, wrong, scale)
    for wrong in (scale[:1], scale.astype(np.float16), scale[:, :, :2]):
        with pytest.raises(ModelFileError, match="scale is .*expected float32"):
            PostFilter(channels, weight, wrong)
    with pytest.raises(ModelFileError, match="not finite"):
        PostFilter(channels, weight, scale * np.inf)
    with pytest.raises(ModelFileError, match="expected channels, scale, weight"):
        PostFilter.from_tensors({"weight": weight})
    assert PostFilter.from_tensors({}) is None


def photo_model() -> FrozenModel:
    frozen = make_codec("photo").frozen
    assert isinstance(frozen, FrozenModel)
    return frozen


def test_a_model_with_filters_decodes_the_same_files(tmp_path: Path) -> None:
    plain = photo_model()
    frozen = with_post_filter(plain, random_filters(), {"photos": 3})
    # Filters change pixels, never symbols: the bitstream id stays, the version of the transforms is another.
    assert frozen.model_id == plain.model_id
    assert frozen.transforms_id != plain.transforms_id
    assert frozen.provenance["filters"] == {"photos": 3}
    save_model(frozen, tmp_path / "m.safetensors")
    again = load_model(tmp_path / "m.safetensors")
    assert (again.model_id, again.transforms_id) == (frozen.model_id, frozen.transforms_id)
    assert again.filters is not None and np.array_equal(again.filters.weight, random_filters().weight)
    image = photo_picture(33, 50, 1)
    one, two = Codec(plain), Codec(again)
    symbols = one.analyse(image)
    assert np.array_equal(two.analyse(image).values, symbols.values)
    assert np.array_equal(two.synthesise(symbols, 24), Codec(frozen).synthesise(symbols, 24))
    assert not np.array_equal(two.synthesise(symbols, 24), one.synthesise(symbols, 24))
    assert set(thaw(again).state_dict()) == set(thaw(plain).state_dict())  # training continues without filters
    replaced = with_post_filter(again, random_filters(0.02), {"photos": 4})
    assert replaced.model_id == plain.model_id
    assert replaced.transforms_id not in (plain.transforms_id, again.transforms_id)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(with_post_filter(photo_model(), random_filters(), {}), path)
    with safe_open(path, "np") as opened:
        metadata = opened.metadata()
    tensors = load_file(path)
    for changes, words in (
        ({"filters.weight": -tensors["filters.weight"]}, "damaged"),
        ({"filters.weight": tensors["filters.weight"][:1]}, "expected int8"),
        ({"filters.other": tensors["filters.channels"]}, "expected channels, scale, weight"),
    ):
        save_file({**tensors, **changes}, path, metadata)
        with pytest.raises(ModelFileError, match=words):
            load_model(path)


def test_only_photo_models_have_filters() -> None:
    frozen = make_codec("static").frozen
    assert isinstance(frozen, FrozenModel)
    with pytest.raises(ModelFileError, match="only photo models"):
        with_post_filter(frozen, random_filters(), {})
    with pytest.raises(ConfigError, match="no photo model"):
        fit_filters(frozen, [])


def test_the_integer_rounding_model_may_have_filters(tmp_path: Path) -> None:
    config = PhotoConfig(
        quantizer="integer", prior="static", residual_quantization=False, channels_max=12, latent_channels=12, num_symbols=64,
        wide=8, wider=12,
    )  # fmt: skip
    frozen = freeze(build_model(config))
    photo_picture(64, 80, 1).save(tmp_path / "a.png")
    fitted = fit_filters(frozen, [tmp_path / "a.png"])
    image = photo_picture(40, 50, 3)
    data = Codec(fitted).compress(image)
    assert Codec(fitted).decompress(data).size == image.size
    assert fitted.filters is not None and fitted.filters.channels.tolist() == fitted_at(config.cut_points)


def test_fitted_filters_raise_the_psnr(tmp_path: Path) -> None:
    frozen = photo_model()
    files = []
    for seed in range(6):
        files.append(tmp_path / f"{seed}.png")
        photo_picture(99, 140, seed).save(files[-1])
    done: list[int] = []
    fitted = fit_filters(frozen, files, done.append)
    assert done == [1] * 6
    assert fitted.filters is not None
    assert fitted.filters.channels.tolist() == fitted_at(frozen.config.cut_points)
    assert fitted.provenance["filters"]["photos"] == 6
    assert json.loads(json.dumps(fitted.provenance["filters"])) == fitted.provenance["filters"]
    unseen = photo_picture(120, 150, 77)
    for channels in fitted.filters.channels[-3:]:
        without, with_them = (
            psnr_db(np.asarray(unseen), np.asarray(codec.decompress(codec.compress(unseen, channels=int(channels)))))
            for codec in (Codec(frozen), Codec(fitted))
        )
        assert with_them > without + 0.02
    assert fit_filters(fitted, files).transforms_id == fitted.transforms_id  # filters of the model are ignored
