"""Classic codecs, most of them through Pillow, at their best usual settings, as curves to compare with."""

import importlib.metadata
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
from ohmq.evaluation.optional import require
from ohmq.evaluation.qualities import EXACT_DB
from ohmq.evaluation.results import Curve
from ohmq.imaging.pixel_limit import pixel_limit
from ohmq.metrics import psnr_db

__all__ = [
    "CLASSIC_CODECS",
    "DEFAULT_CODECS",
    "ClassicCodec",
    "Coded",
    "check_classic",
    "classic_curve",
    "code_classic",
    "library_versions",
]


class ClassicCodec(NamedTuple):
    """A codec and its settings.

    Attributes:
        label: name for people.
        settings: settings for people.
        format: Pillow's name of the format.
        feature: its name in `PIL.features`; empty: another package writes it.
        options: sets of options for `Image.save`, which must give the same image; the smallest file counts.
        qualities: qualities of the points of the curve.
        by_rate: whether a quality is a rate in bits per pixel, not a number from 0 to 100.
        package: package that adds the format to Pillow, or that codes in its place; empty: none.
    """

    label: str
    settings: str
    format: str
    feature: str
    options: tuple[Mapping[str, Any], ...]
    qualities: tuple[float, ...]
    by_rate: bool = False
    package: str = ""

    def setting(self, quality: float) -> str:
        """Format a quality for people.

        Args:
            quality: a number from 0 to 100, or a rate in bits per pixel.

        Example:
            >>> CLASSIC_CODECS["jpeg"].setting(30), CLASSIC_CODECS["jpeg2000"].setting(0.5)
            ('quality 30', 'rate 0.5')
        """
        return f"{'rate' if self.by_rate else 'quality'} {quality:.4g}"


def _jpeg(name: str, subsampling: int) -> ClassicCodec:
    # A progressive file is smaller for large images and high rates, a sequential file for small images.
    options = {"optimize": True, "subsampling": subsampling}
    return ClassicCodec(
        f"JPEG {name}",
        "optimised, progressive where that is smaller",
        "JPEG",
        "jpg",
        (options, {**options, "progressive": True}),
        (3, 5, 8, 12, 16, 20, 25, 30, 40, 50, 60, 70, 80, 88, 94),
    )


def _avif(subsampling: str, tune: str | None) -> ClassicCodec:
    # One thread and one tile give the same file on every machine.
    options: dict[str, Any] = {
        "speed": 4,
        "subsampling": subsampling,
        "max_threads": 1,
        "autotiling": False,
    }
    if tune:
        options["advanced"] = {"tune": tune}
    return ClassicCodec(
        f"AVIF {subsampling}, {tune.upper() if tune else 'default'} tuning",
        "speed 4, one tile, "
        + (f"tune={tune}" if tune else "tuned as Pillow does by default (from 13 on for looks, tune=iq)"),
        "AVIF",
        "avif",
        (options,),
        (0, 5, 10, 17, 25, 33, 41, 50, 58, 66, 75, 84, 92),
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
    "avif": _avif("4:2:0", None),
    "avif444": _avif("4:4:4", None),
    "avif-psnr": _avif("4:2:0", "psnr"),
    "avif444-psnr": _avif("4:4:4", "psnr"),
    "jxl": ClassicCodec(
        "JPEG XL",
        "effort 7, VarDCT",
        "JXL",
        "",
        ({"effort": 7, "num_threads": 1},),
        (0, 5, 10, 17, 25, 33, 41, 50, 58, 66, 75, 82, 88, 92, 95),
        package="pillow_jxl",
    ),
    "jpegli": ClassicCodec(
        "JPEG 4:2:0 by jpegli",
        "4:2:0, sequential, as pyjpegli writes it",
        "JPEG",
        "",
        ({},),
        (5, 8, 12, 16, 20, 25, 30, 40, 50, 60, 70, 80, 88, 94),
        package="pyjpegli",
    ),
}
"""The codecs, by name."""

DEFAULT_CODECS = ("jpeg", "jpeg444", "webp", "jpeg2000", "avif")
"""Codecs that `ohmq compare` runs by default, all of them in Pillow."""

DISTRIBUTIONS = {"pillow_jxl": "pillow-jxl-plugin", "pyjpegli": "pyjpegli"}
"""Distributions of the packages of codecs."""


class Coded(NamedTuple):
    """An image coded by a classic codec.

    Attributes:
        data: the whole file.
        pixels: decoded pixels, shaped as the original.
        encode_s: seconds to encode in memory, with all sets of options that were tried.
        decode_s: seconds to decode in memory.
    """

    data: bytes
    pixels: NDArray[np.uint8]
    encode_s: float
    decode_s: float


def check_classic(names: Iterable[str]) -> None:
    """Check that codecs can run here.

    Args:
        names: names of codecs, in `CLASSIC_CODECS`.

    Raises:
        ValueError: no such codec.
        ConfigError: Pillow was built without it, or its package is not installed.
    """
    for name in names:
        if name not in CLASSIC_CODECS:
            raise ValueError(f"no codec {name!r}; choose one of {', '.join(CLASSIC_CODECS)}")
        codec = CLASSIC_CODECS[name]
        if codec.package:
            require(codec.package, extra="rivals")
        elif not features.check(codec.feature):
            raise ConfigError(
                f"this Pillow ({PIL.__version__}) was built without {codec.format}; install Pillow 11.3 "
                f"or later from PyPI (pip install --upgrade pillow), or leave {name} out"
            )


def code_classic(name: str, pixels: NDArray[np.uint8], quality: float) -> Coded:
    """Code and decode one image.

    A colour image whose channels are equal is coded as a grey image, as these codecs are meant to be used.

    Args:
        name: name of the codec, in `CLASSIC_CODECS`.
        pixels: the image, (H, W) or (H, W, 3).
        quality: see `ClassicCodec`.

    Returns:
        The file, the decoded pixels, and the times.

    Raises:
        UnsupportedImageError: the codec cannot code it, such as WebP above 16383 pixels a side.
    """
    codec = CLASSIC_CODECS[name]
    grey = pixels.ndim == 3 and bool((pixels == pixels[..., :1]).all())
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0]) if grey else pixels)
    quality_options: dict[str, Any] = {"quality": int(quality)}
    if codec.by_rate:
        # Pillow takes a rate as a ratio to the bits of the original, and turns the colour transform off by default.
        ratio = max(8 * len(image.getbands()) / quality, 1)
        quality_options = {"quality_layers": [ratio], "mct": int(image.mode == "RGB")}
    files = []
    clock = time.perf_counter()
    for options in codec.options:
        try:
            files.append(_encode(codec, image, {**quality_options, **options}))
        except (OSError, ValueError, RuntimeError) as error:
            raise UnsupportedImageError(
                f"{codec.label} cannot code an image of {image.width}x{image.height} ({error})"
            ) from error
    encode_s = time.perf_counter() - clock
    data = min(files, key=len)
    clock = time.perf_counter()
    with pixel_limit(image.width * image.height), Image.open(io.BytesIO(data)) as decoded:
        converted = decoded.convert("L" if pixels.ndim == 2 else "RGB")
    decode_s = time.perf_counter() - clock
    return Coded(data, np.asarray(converted), encode_s, decode_s)


def _encode(codec: ClassicCodec, image: Image.Image, options: Mapping[str, Any]) -> bytes:
    """Write an image to memory."""
    if codec.package == "pyjpegli":
        import pyjpegli

        return bytes(pyjpegli.encode(image.convert("RGB").tobytes(), *image.size, max(options["quality"], 1)))
    if codec.package == "pillow_jxl":
        from pillow_jxl import JpegXLImagePlugin  # adds the format to Pillow

        JpegXLImagePlugin.DECODE_THREADS = 1  # as the other codecs do
    buffer = io.BytesIO()
    image.save(buffer, codec.format, **options)
    return buffer.getvalue()


def library_versions() -> dict[str, str]:
    """Get the versions of the codecs inside Pillow and of the packages that add others, by name."""
    names = {"libjpeg-turbo": "libjpeg_turbo", "libwebp": "webp", "openjpeg": "jpg_2000", "libavif": "avif"}
    versions = {name: features.version(feature) or "not there" for name, feature in names.items()}
    for distribution in DISTRIBUTIONS.values():
        try:
            versions[distribution] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            versions[distribution] = "not there"
    return versions


def classic_curve(name: str, images: Iterable[NDArray[np.uint8]]) -> Curve:
    """Measure mean rate (whole files) and mean PSNR of a codec at each of its qualities.

    Args:
        name: name of the codec, in `CLASSIC_CODECS`.
        images: images, (H, W) or (H, W, 3) each.

    Returns:
        The curve, a point a quality.

    Raises:
        ValueError: no such codec.
        ConfigError: Pillow was built without it.
        UnsupportedImageError: an image that the codec cannot code.
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
        source=f"{codec.settings}, measured in this run",
    )
