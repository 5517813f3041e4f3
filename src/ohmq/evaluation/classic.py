"""Classic codecs through Pillow, at their best usual settings, as curves to compare with."""

import io
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, features

from ohmq.errors import ConfigError, UnsupportedImageError
from ohmq.evaluation.results import Curve
from ohmq.metrics import psnr_db

__all__ = ["CLASSIC_CODECS", "EXACT_DB", "ClassicCodec", "Coded", "check_classic", "classic_curve", "code_classic"]

EXACT_DB = 100.0
"""What an exact copy, whose PSNR is infinite, counts in a mean."""


class ClassicCodec(NamedTuple):
    """How Pillow runs a codec.

    Attributes:
        label, settings: for people. format: Pillow's name. feature: what `PIL.features` calls it.
        options: passed to `Image.save`; of several sets, which must give the same picture, the smallest file counts.
        qualities: points of the curve. by_rate: a quality is a rate in bits per pixel, not a number from 0 to 100.
    """

    label: str
    settings: str
    format: str
    feature: str
    options: tuple[Mapping[str, Any], ...]
    qualities: tuple[float, ...]
    by_rate: bool = False

    def setting(self, quality: float) -> str:
        """A quality in words.

        Example:
            >>> CLASSIC_CODECS["jpeg"].setting(30), CLASSIC_CODECS["jpeg2000"].setting(0.5)
            ('quality 30', 'rate 0.5')
        """
        return f"{'rate' if self.by_rate else 'quality'} {quality:.4g}"


def _jpeg(name: str, subsampling: int) -> ClassicCodec:
    # A progressive file is the smaller one of large pictures and high rates, a sequential one of small ones.
    options = {"optimize": True, "subsampling": subsampling}
    return ClassicCodec(
        f"JPEG {name}",
        "optimised, progressive where that is smaller",
        "JPEG",
        "jpg",
        (options, {**options, "progressive": True}),
        (3, 5, 8, 12, 16, 20, 25, 30, 40, 50, 60, 70, 80, 88, 94),
    )


CLASSIC_CODECS: dict[str, ClassicCodec] = {
    "jpeg": _jpeg("4:2:0", 2),
    "jpeg444": _jpeg("4:4:4", 0),
    "webp": ClassicCodec(
        "WebP", "method 6", "WEBP", "webp", ({"method": 6},), (0, 3, 6, 10, 15, 20, 30, 40, 50, 60, 70, 80, 88, 94)
    ),
    "jpeg2000": ClassicCodec(
        "JPEG 2000",
        "rate mode, colour transform, 9/7 wavelet",
        "JPEG2000",
        "jpg_2000",
        ({"quality_mode": "rates", "irreversible": True},),
        (0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.4, 2.0, 3.0),
        by_rate=True,
    ),
    # One thread and one tile: the same file on every machine.
    "avif": ClassicCodec(
        "AVIF",
        "speed 4, 4:2:0, one tile",
        "AVIF",
        "avif",
        ({"speed": 4, "max_threads": 1, "autotiling": False},),
        (0, 5, 10, 17, 25, 33, 41, 50, 58, 66, 75, 84, 92),
    ),
}
"""Codecs by name."""


class Coded(NamedTuple):
    """A picture coded by a classic codec.

    Attributes:
        data: the whole file. pixels: of the picture decoded from it, shaped as the original.
        encode_s, decode_s: seconds, in memory; encoding counts all sets of options that were tried.
    """

    data: bytes
    pixels: NDArray[np.uint8]
    encode_s: float
    decode_s: float


def check_classic(names: Iterable[str]) -> None:
    """Whether Pillow can write these codecs.

    Raises:
        ValueError: no such codec. ConfigError: Pillow was built without it.
    """
    for name in names:
        if name not in CLASSIC_CODECS:
            raise ValueError(f"no codec {name!r}; choose one of {', '.join(CLASSIC_CODECS)}")
        if not features.check(CLASSIC_CODECS[name].feature):
            raise ConfigError(
                f"this Pillow ({PIL.__version__}) was built without {CLASSIC_CODECS[name].format}; install Pillow 11.3 "
                f"or later from PyPI (pip install --upgrade pillow), or leave {name} out"
            )


def code_classic(name: str, pixels: NDArray[np.uint8], quality: float) -> Coded:
    """Code and decode one picture.

    A colour picture whose channels are equal is coded as a grey one, as these codecs are meant to be used.

    Args:
        name: of `CLASSIC_CODECS`. pixels: (H, W) or (H, W, 3). quality: see `ClassicCodec`.

    Raises:
        UnsupportedImageError: the codec cannot code it, such as WebP above 16383 pixels a side.
    """
    codec = CLASSIC_CODECS[name]
    grey = pixels.ndim == 3 and bool((pixels == pixels[..., :1]).all())
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0]) if grey else pixels)
    level: dict[str, Any] = {"quality": int(quality)}
    if codec.by_rate:  # as a ratio to the bits of the original; the colour transform is off unless asked for
        level = {"quality_layers": [max(8 * len(picture.getbands()) / quality, 1)], "mct": int(picture.mode == "RGB")}
    files = []
    clock = time.perf_counter()
    for options in codec.options:
        buffer = io.BytesIO()
        try:
            picture.save(buffer, codec.format, **level, **options)
        except (OSError, ValueError, RuntimeError) as error:
            raise UnsupportedImageError(
                f"{codec.label} cannot code a picture of {picture.width}x{picture.height} ({error})"
            ) from error
        files.append(buffer.getvalue())
    encode_s = time.perf_counter() - clock
    data = min(files, key=len)
    clock = time.perf_counter()
    with Image.open(io.BytesIO(data)) as decoded:
        found = decoded.convert("L" if pixels.ndim == 2 else "RGB")
    decode_s = time.perf_counter() - clock
    return Coded(data, np.asarray(found), encode_s, decode_s)


def classic_curve(name: str, images: Iterable[NDArray[np.uint8]]) -> Curve:
    """Mean rate (whole files) and mean PSNR of a codec at each of its qualities.

    Args:
        name: of `CLASSIC_CODECS`. images: (H, W) or (H, W, 3).

    Raises:
        ValueError: no such codec. ConfigError: Pillow was built without it.
        UnsupportedImageError: a picture that the codec cannot code.
    """
    check_classic([name])
    codec = CLASSIC_CODECS[name]
    rates: list[list[float]] = [[] for _ in codec.qualities]
    psnr: list[list[float]] = [[] for _ in codec.qualities]
    for pixels in images:
        for point, quality in enumerate(codec.qualities):
            coded = code_classic(name, pixels, quality)
            rates[point].append(8 * len(coded.data) / (pixels.shape[0] * pixels.shape[1]))
            psnr[point].append(min(psnr_db(pixels, coded.pixels), EXACT_DB))
    return Curve(
        name=name,
        label=codec.label,
        rates_bpp=tuple(math.fsum(values) / len(values) for values in rates),
        psnr_db=tuple(math.fsum(values) / len(values) for values in psnr),
        rate="file_bpp",
        source=f"Pillow, {codec.settings}, measured in this run",
    )
