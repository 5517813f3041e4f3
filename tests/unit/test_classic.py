"""Classic codecs as curves."""

import io

import numpy as np
import pytest
from PIL import Image

from ohmq.evaluation.classic import CLASSIC_CODECS, classic_curve


@pytest.mark.parametrize("name", sorted(CLASSIC_CODECS))
@pytest.mark.parametrize("grey", [True, False])
def test_curves_rise(name: str, grey: bool) -> None:
    y, x = np.mgrid[:64, :96]
    pixels = (127 + 100 * np.sin(x / 9) * np.cos(y / 7)).astype(np.uint8)
    if not grey:
        pixels = np.stack([pixels, pixels // 2, 255 - pixels], -1)
    curve = classic_curve(name, [pixels, pixels[::-1].copy()])
    assert len(curve.rates_bpp) == len(CLASSIC_CODECS[name].qualities)
    assert curve.rate == "file_bpp"
    assert curve.rates_bpp[-1] > curve.rates_bpp[0] > 0
    assert curve.psnr_db[-1] > curve.psnr_db[0] + 5


def test_a_point_is_the_size_of_the_file() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    curve = classic_curve("jpeg", [pixels])
    buffer = io.BytesIO()
    quality = CLASSIC_CODECS["jpeg"].qualities[4]
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, optimize=True, subsampling=2)
    assert curve.rates_bpp[4] == 8 * buffer.tell() / 1600


def test_unknown_codecs() -> None:
    with pytest.raises(ValueError, match="jpeg"):
        classic_curve("gif", [])
