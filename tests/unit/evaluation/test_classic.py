"""Classic codecs as curves."""

import io
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ohmq.errors import ConfigError, UnsupportedImageError
from ohmq.evaluation.classic import CLASSIC_CODECS, check_classic, classic_curve, code_classic
from ohmq.metrics import psnr_db


def need(name: str) -> None:
    """Skip the test if the package of a codec is not installed."""
    if CLASSIC_CODECS[name].package:
        pytest.importorskip(CLASSIC_CODECS[name].package)


PHOTO = Path(__file__).parents[3] / "examples" / "photos" / "coffee.png"


@pytest.mark.parametrize("name", sorted(set(CLASSIC_CODECS) - {"avif444", "avif444-psnr"}))  # as slow as avif
@pytest.mark.parametrize("grey", [True, False])
def test_curves_rise(name: str, grey: bool) -> None:
    need(name)
    y, x = np.mgrid[:64, :96]
    pixels = (127 + 100 * np.sin(x / 9) * np.cos(y / 7)).astype(np.uint8)
    if not grey:
        pixels = np.stack([pixels, pixels // 2, 255 - pixels], -1)
    curve = classic_curve(name, [pixels, pixels[::-1].copy()])
    assert len(curve.rates_bpp) == len(CLASSIC_CODECS[name].qualities)
    assert curve.rate == "file_bpp"
    assert curve.rates_bpp[-1] > curve.rates_bpp[0] > 0
    assert curve.psnr_db[-1] > curve.psnr_db[0] + 5


def test_a_point_is_the_size_of_the_smaller_file() -> None:
    """The sequential file is smaller for small images, the progressive file for a photograph at a high rate."""
    with Image.open(PHOTO) as image:
        photo = np.asarray(image.convert("RGB"))
    smaller = []
    for pixels in (photo[:40, :40], photo):
        for name, subsampling in (("jpeg", 2), ("jpeg444", 0)):
            sizes = []
            for progressive in (False, True):
                buffer = io.BytesIO()
                options: dict[str, Any] = {"optimize": True, "subsampling": subsampling, "progressive": progressive}
                Image.fromarray(pixels).save(buffer, "JPEG", quality=80, **options)
                sizes.append(buffer.tell())
            assert len(code_classic(name, pixels, 80).data) == min(sizes)
            smaller.append("progressive" if sizes[1] < sizes[0] else "sequential")
    assert smaller == ["sequential", "sequential", "progressive", "progressive"]


def test_a_point_of_a_curve() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    coded = code_classic("jpeg", pixels, CLASSIC_CODECS["jpeg"].qualities[4])
    curve = classic_curve("jpeg", [pixels])
    assert curve.rates_bpp[4] == 8 * len(coded.data) / 1600
    assert curve.psnr_db[4] == psnr_db(pixels, coded.pixels)


def test_settings_reach_the_files() -> None:
    y, x = np.mgrid[:96, :128]
    pixels = np.stack([x * 2, y * 2, 255 - x - y], -1).astype(np.uint8)
    pixels += np.random.default_rng(0).integers(0, 24, pixels.shape, np.uint8)
    for bpp in (0.5, 1.0, 2.0):
        assert 8 * len(code_classic("jpeg2000", pixels, bpp).data) / (96 * 128) == pytest.approx(bpp, rel=0.1)
    data = code_classic("jpeg2000", pixels, 1).data
    coding = data.index(b"\xff\x52")  # the COD segment: colour transform on, the 9/7 wavelet
    assert (data[coding + 8], data[coding + 13]) == (1, 0)
    for name, factors in (("jpeg", 0x22), ("jpeg444", 0x11)):  # sampling of the first component, in the frame header
        data = code_classic(name, pixels, 50).data
        frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        assert data[frame + 11] == factors
    assert code_classic("webp", pixels, 50).data[12:16] == b"VP8 "
    assert b"avif" in code_classic("avif", pixels, 50).data[:32]


def test_avif_tunings_and_subsamplings() -> None:
    with Image.open(PHOTO) as image:
        pixels = np.asarray(image.convert("RGB"))[100:292, 200:456]
    coded = {name: code_classic(name, pixels, 50) for name in ("avif", "avif444", "avif-psnr", "avif444-psnr")}
    for name, result in coded.items():
        configuration = result.data[result.data.index(b"av1C") + 6]  # bit 3 and 2: chroma subsampled in x and y
        assert configuration >> 2 & 3 == (0 if "444" in name else 3)
    # Tuned for PSNR, AVIF has more of it for its bytes, and less SSIMULACRA2.
    for rivals in (("avif", "avif-psnr"), ("avif444", "avif444-psnr")):
        by_default, by_psnr = (coded[name] for name in rivals)
        gain = psnr_db(pixels, by_psnr.pixels) - psnr_db(pixels, by_default.pixels)
        assert gain > 20 * math.log10(len(by_psnr.data) / len(by_default.data)) > 0


def test_jpeg_xl_is_the_plugins_file() -> None:
    need("jxl")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    coded = code_classic("jxl", pixels, 90)
    assert coded.data[:2] == b"\xff\x0a"
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JXL", quality=90, effort=7)
    assert buffer.getvalue() == coded.data


def test_jpegli_writes_jpeg_files() -> None:
    need("jpegli")
    with Image.open(PHOTO) as image:
        pixels = np.asarray(image.convert("RGB"))[:256, :256]
    coded = code_classic("jpegli", pixels, 75)
    frame = coded.data.index(b"\xff\xc0")  # sequential
    assert coded.data[frame + 11] == 0x22  # 4:2:0
    assert np.array_equal(coded.pixels, np.asarray(Image.open(io.BytesIO(coded.data)).convert("RGB")))


@pytest.mark.parametrize("name, package", [("jxl", "pillow_jxl"), ("jpegli", "pyjpegli")])
def test_codecs_of_other_packages(name: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"{package} is not installed; .* pip install 'ohmq\[rivals\]'"):
        check_classic(["jpeg", name])


@pytest.mark.parametrize("name", sorted(CLASSIC_CODECS))
def test_grey_images_pay_for_no_colour(name: str) -> None:
    need(name)
    grey = (np.mgrid[:64, :96].sum(0) + np.random.default_rng(1).integers(0, 60, (64, 96))).astype(np.uint8)
    quality = CLASSIC_CODECS[name].qualities[6]
    one, three = code_classic(name, grey, quality), code_classic(name, grey[..., None].repeat(3, -1), quality)
    assert one.data == three.data
    assert (one.pixels.shape, three.pixels.shape) == ((64, 96), (64, 96, 3))
    assert psnr_db(grey, one.pixels) == pytest.approx(psnr_db(grey[..., None].repeat(3, -1), three.pixels), abs=0.3)
    assert one.encode_s > 0 and one.decode_s > 0


def test_an_image_too_large_for_a_codec() -> None:
    with pytest.raises(UnsupportedImageError, match="WebP cannot code an image of 16384x2"):
        code_classic("webp", np.zeros((2, 16384, 3), np.uint8), 50)


def test_pillow_without_a_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.features.check", lambda feature: feature != "jpg_2000")
    check_classic(["jpeg", "avif"])
    with pytest.raises(ConfigError, match="built without JPEG2000; install Pillow.*leave jpeg2000 out"):
        check_classic(["jpeg", "jpeg2000"])


def test_unknown_codecs() -> None:
    with pytest.raises(ValueError, match="jpeg"):
        classic_curve("gif", [])
