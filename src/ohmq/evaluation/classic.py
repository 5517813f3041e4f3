"""Classic codecs through Pillow, at their best usual settings, as curves to compare with."""

import io
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ohmq.evaluation.results import Curve
from ohmq.metrics import psnr_db

__all__ = ["CLASSIC_CODECS", "ClassicCodec", "classic_curve"]


class ClassicCodec(NamedTuple):
    """How Pillow runs a codec.

    Attributes:
        label: for people. format: Pillow's name. options: passed to `Image.save`. qualities: points of the curve.
    """

    label: str
    format: str
    options: Mapping[str, Any]
    qualities: tuple[int, ...]


CLASSIC_CODECS: dict[str, ClassicCodec] = {
    "jpeg": ClassicCodec(
        "JPEG 4:2:0, optimised",
        "JPEG",
        {"optimize": True, "subsampling": 2},
        (3, 5, 8, 12, 16, 20, 25, 30, 40, 50, 60, 70, 80, 88, 94),
    ),
    "webp": ClassicCodec(
        "WebP, method 6", "WEBP", {"method": 6}, (0, 3, 6, 10, 15, 20, 30, 40, 50, 60, 70, 80, 88, 94)
    ),
}
"""Codecs by name."""


def classic_curve(name: str, images: Iterable[NDArray[np.uint8]]) -> Curve:
    """Mean rate (whole files) and mean PSNR of a codec at each of its qualities.

    Args:
        name: of `CLASSIC_CODECS`. images: (H, W) or (H, W, 3).

    Raises:
        ValueError: no such codec.
    """
    if name not in CLASSIC_CODECS:
        raise ValueError(f"no codec {name!r}; choose one of {', '.join(CLASSIC_CODECS)}")
    codec = CLASSIC_CODECS[name]
    rates: list[list[float]] = [[] for _ in codec.qualities]
    psnr: list[list[float]] = [[] for _ in codec.qualities]
    for pixels in images:
        picture = Image.fromarray(pixels)
        for point, quality in enumerate(codec.qualities):
            buffer = io.BytesIO()
            picture.save(buffer, codec.format, quality=quality, **codec.options)
            with Image.open(buffer) as decoded:
                found = np.asarray(decoded.convert(picture.mode))
            rates[point].append(8 * buffer.tell() / (picture.width * picture.height))
            psnr[point].append(min(psnr_db(pixels, found), 100.0))  # an exact copy has no finite PSNR
    return Curve(
        name=name,
        label=codec.label,
        rates_bpp=tuple(math.fsum(values) / len(values) for values in rates),
        psnr_db=tuple(math.fsum(values) / len(values) for values in psnr),
        rate="file_bpp",
        source="Pillow, measured in this run",
    )
