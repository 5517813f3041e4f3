"""Thumbnails: images at an eighth and a sixteenth of their size, straight from the latent."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from support.small_models import photo_picture

from ohmq.cli import main
from ohmq.codec import Codec
from ohmq.errors import ConfigError, ModelFileError
from ohmq.loading import load
from ohmq.metrics import psnr_db
from ohmq.model_files.frozen_model import FrozenModel, load_model, save_model, with_thumbnails
from ohmq.runtime.thumbnails import SCALES, ThumbnailMap, Thumbnails, reduced, thumbnail_channels
from ohmq.training.photo.fit_thumbnails import fit_thumbnails

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden"


def random_thumbnails(depth: int = 12) -> Thumbnails:
    rng = np.random.default_rng(4)
    maps = {}
    for scale in SCALES:
        side = 16 // scale
        weight = rng.normal(0, 9, (depth, 3, side, side)).astype(np.float32)
        maps[scale] = ThumbnailMap(weight, rng.normal(128, 9, (3, side, side)).astype(np.float32))
    return Thumbnails(maps, depth)


@pytest.fixture(scope="module")
def frozen() -> FrozenModel:
    return with_thumbnails(load_model(GOLDEN / "filters.safetensors"), random_thumbnails(), {"made": "here"})


@pytest.fixture(scope="module")
def codec(frozen: FrozenModel) -> Codec:
    return Codec(frozen)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_thumbnails_are_near_reduced_images(name: str) -> None:
    """Measured with the shipped model: 39.6 to 41.9 dB on Kodak."""
    codec = load("photo")
    with Image.open(ROOT / "examples" / "photos" / f"{name}.png") as opened:
        photo = opened.convert("RGB").crop((30, 50, 285, 251))
    data = codec.compress(photo, effort=0)
    whole = codec.decompress(data)
    for scale in SCALES:
        thumbnail = codec.decompress(data, scale=scale)
        assert thumbnail.size == (reduced(255, scale), reduced(201, scale)) == whole.reduce(scale).size
        inside = (slice(0, 192 // scale), slice(0, 240 // scale))  # blocks at the edge are larger than the image
        assert psnr_db(pixels(whole.reduce(scale))[inside], pixels(thumbnail)[inside]) > 37


def test_a_thumbnail_is_a_linear_map_of_the_latent(frozen: FrozenModel, codec: Codec) -> None:
    data = codec.compress(photo_picture(40, 61), layers="all")
    file, symbols = codec.decode(data)
    for scale in SCALES:
        count = thumbnail_channels(codec.config, scale)
        assert count < file.num_channels
        latent = codec.transforms.dequantized(symbols.values[..., :count], count)[0]
        assert frozen.thumbnails is not None
        weight, bias = frozen.thumbnails.maps[scale]
        levels = np.einsum("hwd,dcij->hiwjc", latent, weight) + bias.transpose(1, 2, 0)[:, None]
        side = 16 // scale
        expected = levels.reshape(3 * side, 4 * side, 3)[: reduced(40, scale), : reduced(61, scale)]
        thumbnail = codec.decompress(data, scale=scale)
        np.testing.assert_allclose(pixels(thumbnail), expected.clip(0, 255), atol=0.51)
        *_, last = codec.decompress_progressive(data, scale=scale)
        assert last.size == thumbnail.size and last != thumbnail  # all channels
        cut = codec.decompress(data, scale=scale, channels=codec.cut_points[0])
        assert cut == codec.decompress(codec.encode(symbols, codec.cut_points[0]), scale=scale)


def test_decoding_stops_within_a_layer(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    data = codec.compress(photo_picture(40, 61))
    count = thumbnail_channels(codec.config, 16)
    symbols = codec.decode(data)[1].values
    monkeypatch.setattr(codec.windowed, "synthesise", None)  # not used
    monkeypatch.setattr("ohmq.runtime.torch_transforms.TorchTransforms.pixels", None)
    decoded = []
    thumbnail = codec.windowed.thumbnail
    monkeypatch.setattr(
        codec.windowed, "thumbnail", lambda *arguments: decoded.append(arguments[0]) or thumbnail(*arguments)
    )
    codec.decompress(data, scale=16)
    assert np.array_equal(decoded[0].values, symbols[..., :count])
    fixed = codec.compress(photo_picture(40, 61), fixed_rate=True)
    assert codec.decompress(fixed, scale=16).size == (4, 3)


def test_tiles_give_the_same_thumbnail(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = photo_picture(100, 170)
    symbols = codec.analyse(picture)
    whole = codec.encode(symbols, 24)
    tiled = codec.encode(symbols._replace(tile=4), 24)
    monkeypatch.setattr("ohmq.runtime.windowed.WINDOW", 3)
    for scale in SCALES:
        assert codec.decompress(tiled, scale=scale) == codec.decompress(whole, scale=scale)


@pytest.mark.parametrize("tile", [0, 2])
def test_models_without_maps_reduce_the_image(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = load(GOLDEN / "photo.safetensors")
    data = codec.encode(codec.analyse(photo_picture(70, 90))._replace(tile=tile), 24)
    monkeypatch.setattr("ohmq.runtime.windowed.WINDOW", 3)
    for scale in SCALES:
        difference = pixels(codec.decompress(data).reduce(scale)).astype(int) - pixels(
            codec.decompress(data, scale=scale)
        )
        assert np.abs(difference).max() <= 1
    digits = load("mnist-ohm")
    with Image.open(ROOT / "examples" / "digits" / "digit_3_a.png") as image:
        digit = digits.compress(image)
    assert digits.decompress(digit, scale=8) == digits.decompress(digit).reduce(8)


def test_masks_and_metadata_are_kept(codec: Codec) -> None:
    picture = photo_picture(50, 70).convert("RGBA")
    mask = Image.new("L", picture.size, 255)
    mask.paste(0, (0, 0, 24, 50))
    picture.putalpha(mask)
    picture.info["dpi"] = (72, 72)
    data = codec.compress(picture, keep_metadata=True)
    whole, thumbnail = codec.decompress(data), codec.decompress(data, scale=16)
    assert thumbnail.mode == "RGBA" and thumbnail.size == (5, 4)
    assert np.array_equal(pixels(thumbnail.getchannel("A")), pixels(mask.reduce(16)))
    assert thumbnail.info == whole.info and thumbnail.info["exif"]


def test_scales_that_there_are_not(codec: Codec, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = codec.compress(photo_picture(32, 32))
    for scale in (0, 2, 4, 32, -8):
        with pytest.raises(ValueError, match=rf"scale is {scale}; it must be 1, 8 or 16"):
            codec.decompress(data, scale=scale)
        with pytest.raises(ValueError, match="it must be 1, 8 or 16"):
            next(codec.decompress_progressive(data, scale=scale))
    with pytest.raises(SystemExit) as stopped:
        main(["decompress", "x.ohm", "--scale", "4"])
    assert stopped.value.code == 2 and "'4' is not one of" in capsys.readouterr().err


def test_the_command_line_writes_thumbnails(
    frozen: FrozenModel, codec: Codec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(frozen, tmp_path / "m.safetensors")
    data = codec.compress(photo_picture(40, 61), layers="all")
    (tmp_path / "a.ohm").write_bytes(data)
    model = ["-m", str(tmp_path / "m.safetensors"), "--scale", "8"]
    with pytest.raises(SystemExit) as stopped:
        main(["decompress", str(tmp_path / "a.ohm"), "-o", str(tmp_path / "a.png"), *model])
    assert stopped.value.code == 0 and "a.png: 8x5" in capsys.readouterr().out
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(pixels(image), pixels(codec.decompress(data, scale=8)))
    with pytest.raises(SystemExit):
        main(["decompress", str(tmp_path / "a.ohm"), "--progressive", str(tmp_path / "layers"), *model])
    images = sorted((tmp_path / "layers" / "a").iterdir())
    assert len(images) == len(codec.cut_points)
    with Image.open(images[-1]) as image:
        assert image.size == (8, 5)


def test_maps_are_stored_in_a_model_file(frozen: FrozenModel, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_model(frozen, path)
    again = load_model(path)
    assert again.thumbnails is not None and frozen.thumbnails is not None
    for name, tensor in frozen.thumbnails.tensors.items():
        assert np.array_equal(again.thumbnails.tensors[name], tensor)
    with safe_open(path, "np") as opened:
        header = json.loads(opened.metadata()["ohmq"])
    assert header["format"] == 3 and header["provenance"]["thumbnails"] == {"made": "here"}
    assert again.model_id == frozen.model_id and again.transforms_id == frozen.transforms_id
    assert again.transforms_id != load_model(GOLDEN / "filters.safetensors").transforms_id


def test_damaged_maps_are_refused() -> None:
    tensors = random_thumbnails().tensors
    for change, message in (
        ({"8.bias": np.full((3, 2, 2), np.nan, np.float32)}, "thumbnails.8.bias holds values that are not finite"),
        ({"8.weight": np.zeros((12, 3, 1, 1), np.float32)}, r"expected float32 \(12, 3, 2, 2\)"),
        ({"8.bias": np.zeros((3, 2, 2))}, "is float64"),
        ({"4.bias": np.zeros((3, 4, 4), np.float32)}, "have tensors .*; expected 16.bias"),
    ):
        with pytest.raises(ModelFileError, match=message):
            Thumbnails.from_tensors(tensors | change, 12)
    with pytest.raises(ModelFileError, match=r"expected float32 \(11, 3"):
        Thumbnails.from_tensors(tensors, 11)
    with pytest.raises(ModelFileError, match="only photo models have maps"):
        with_thumbnails(load_model(GOLDEN / "static.safetensors"), random_thumbnails(), {})


def test_fitted_maps_give_the_means_of_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos" / "train"
    folder.mkdir(parents=True)
    for seed in range(6):
        photo_picture(140, 150, seed).save(folder / f"{seed}.png")
    arguments = ["export", str(GOLDEN / "photo.safetensors"), "--thumbnails", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "-o", str(tmp_path / "m.safetensors")])
    assert stopped.value.code == 0 and "transforms" in capsys.readouterr().out
    codec = load(tmp_path / "m.safetensors")
    picture = photo_picture(96, 112, seed=9)
    data = codec.compress(picture)
    for scale, least in ((8, 21), (16, 24)):  # a small model with random weights
        assert psnr_db(pixels(picture.reduce(scale)), pixels(codec.decompress(data, scale=scale))) > least
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--onnx", str(tmp_path / "onnx")])
    assert stopped.value.code == 2 and "--thumbnails goes into a model file" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="only these have maps"):
        fit_thumbnails(load_model(GOLDEN / "static.safetensors"), [])


def test_thumbnails_of_random_maps_are_clipped() -> None:
    entry = random_thumbnails().maps[16]
    latent: Any = np.full((2, 3, 12), 100, np.float32)
    assert set(np.unique(entry.apply(latent))) <= {0, 255}
