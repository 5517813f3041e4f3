"""The pretrained photo model on real photographs."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ohmq.codec import Codec
from ohmq.entropy import exact_affine
from ohmq.entropy.exact_affine import Affine
from ohmq.entropy.layers import KnownSymbols, encode_layers
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior
from ohmq.loading import load
from ohmq.model_files.frozen_model import load_model, save_model
from ohmq.models import PhotoConfig

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load("photo")


def photo(name: str) -> Image.Image:
    with Image.open(PHOTOS / name) as image:
        return image.convert("RGB").crop((20, 20, 276, 212))


def test_symbols_decode_alike_however_they_were_encoded(codec: Codec, tmp_path: Path) -> None:
    save_model(codec.frozen, tmp_path / "again.safetensors")
    reloaded = Codec(load_model(tmp_path / "again.safetensors"))
    symbols = [codec.analyse(photo(name)) for name in ("chelsea.png", "coffee.png")]
    layout = codec.config.layer_ends(codec.num_channels)
    together = encode_layers(codec.prior, KnownSymbols(np.stack([s.values for s in symbols])), [layout]).payloads[0]
    num_threads = torch.get_num_threads()
    try:
        for index, item in enumerate(symbols):
            data = codec.encode(item, codec.num_channels)
            for threads in (1, 2):
                torch.set_num_threads(threads)
                for reader in (codec, reloaded):
                    file, decoded = reader.decode(data)
                    assert np.array_equal(decoded.values, item.values)
                assert reloaded.encode(item, codec.num_channels) == data
            assert [layer.payload for layer in file.layers] == together[index]
    finally:
        torch.set_num_threads(num_threads)


def test_a_photo_beats_jpeg_at_its_size(codec: Codec, tmp_path: Path) -> None:
    image = photo("chelsea.png")
    for fraction in (0.05, 0.3):
        data = codec.compress(image, fraction=fraction)
        quality = 95
        while True:  # the best JPEG that is not larger by more than a tenth
            image.save(tmp_path / "p.jpg", quality=quality, optimize=True)
            if quality == 1 or (tmp_path / "p.jpg").stat().st_size <= 1.1 * len(data):
                break
            quality -= 1
        with Image.open(tmp_path / "p.jpg") as jpeg:
            jpeg_db = psnr_db(image, jpeg.convert("RGB"))
        assert psnr_db(image, codec.decompress(data)) > jpeg_db + 0.5


def psnr_db(first: Image.Image, second: Image.Image) -> float:
    error = np.square(np.asarray(first, float) - np.asarray(second, float)).mean()
    return float(10 * np.log10(255**2 / error)) if error else math.inf


@pytest.mark.parametrize(("size", "mode"), [((1, 1), "RGB"), ((5000, 3), "RGB"), ((3, 500), "L"), ((40, 30), "L")])
def test_odd_images(codec: Codec, size: tuple[int, int], mode: str) -> None:
    rng = np.random.default_rng(1)
    smooth = np.cumsum(rng.integers(-2, 3, (1, size[0])), 1) + 128 + np.arange(size[1])[:, None]
    image = Image.fromarray(smooth.clip(0, 255).astype(np.uint8)).convert(mode)
    decoded = codec.decompress(codec.compress(image, quality=100))
    assert (decoded.size, decoded.mode) == (size, "RGB")
    assert psnr_db(image.convert("RGB"), decoded) > 27


def test_the_pretrained_model_codes_in_float32_as_in_float64(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[type] = []
    choose = Affine.exact_type

    def watched(self: Affine, bound: float) -> type:
        chosen.append(choose(self, bound))
        return chosen[-1]

    symbols = codec.analyse(photo("coffee.png")).values[None]
    layouts = [codec.config.layer_ends(codec.num_channels)]
    with monkeypatch.context() as patch:
        patch.setattr(Affine, "exact_type", watched)
        narrow = encode_layers(codec.prior, KnownSymbols(symbols), layouts).payloads
    assert chosen.count(np.float32) >= 0.9 * len(chosen)
    monkeypatch.setattr(exact_affine, "FLOAT32_INTEGERS", 0)
    prior, config = codec.prior, codec.config
    assert isinstance(prior, IntegerTabulatedPrior)
    assert isinstance(config, PhotoConfig)
    wide = IntegerTabulatedPrior(
        prior.tensors, prior.group_sizes, config.group_symbols, prior.checkerboard_groups, config.cut_points
    )
    assert wide.latent_type is np.float64
    assert encode_layers(wide, KnownSymbols(symbols), layouts).payloads == narrow
