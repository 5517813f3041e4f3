"""Files of several codecs for one image at nearly equal sizes, to look at side by side."""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from ohmq.codec import Codec
from ohmq.evaluation.classic import CLASSIC_CODECS, Coded
from ohmq.evaluation.compare import Images, Pixels, code_named_image
from ohmq.evaluation.comparison import MODEL, CodecResult
from ohmq.evaluation.qualities import METRICS, Metric, measure_image

__all__ = ["Matched", "match_rates"]

MATCH_TOLERANCE = 0.25
"""Largest relative difference of two file sizes that are shown side by side."""


class Matched(NamedTuple):
    """A file of one image whose size is near a wanted size.

    Attributes:
        codec: name of the codec.
        setting: its setting, for people.
        file_bpp: rate of the whole file, in bits per pixel.
        psnr_db: PSNR in dB.
        ms_ssim: MS-SSIM; NaN for small images, or if it was not measured.
        pixels: decoded pixels, shaped as the original.
        close: whether the size is within a quarter of the wanted size.
        ssimulacra2: SSIMULACRA2 score; NaN if it was not measured.
        psnr_hvs_m_db: PSNR-HVS-M in dB; NaN if it was not measured.
    """

    codec: str
    setting: str
    file_bpp: float
    psnr_db: float
    ms_ssim: float
    pixels: Pixels
    close: bool
    ssimulacra2: float = math.nan
    psnr_hvs_m_db: float = math.nan


def match_rates(
    codec: Codec,
    images: Images,
    results: Sequence[CodecResult],
    number: int,
    wanted_bpp: Sequence[float],
    metrics: Collection[Metric] = METRICS,
) -> list[list[Matched]]:
    """Code one image with each codec at nearly equal file sizes.

    For each wanted rate the model's nearest file is taken, and of the other codecs the files nearest to its size.

    Args:
        codec: the model.
        images: images of `compare_codecs`.
        results: its results.
        number: index of the image.
        wanted_bpp: rates, in bits per pixel.
        metrics: metrics to measure beside PSNR.

    Returns:
        For each different file of the model that the wanted rates lead to: one `Matched` a codec, the model first.
    """
    name, pixels = images[number]
    area = pixels.shape[0] * pixels.shape[1]
    model = results[0]
    rows = [of_images[number] for of_images in model.rows]
    wanted = {
        min(range(len(rows)), key=lambda k, bpp=bpp: abs(math.log(rows[k].file_bpp / bpp)))  # type: ignore[misc]
        for bpp in wanted_bpp
    }
    matches = []
    for place in sorted(wanted):
        setting, value = rows[place].setting, model.values[place]
        target = {"quality": value} if setting.startswith("quality") else {"channels": int(value)}
        data = codec.compress(pixels, **target, layers=1, max_pixels=area)
        decoded = np.asarray(codec.decompress(data, max_pixels=area))
        group = [_matched(MODEL, setting, pixels, decoded, len(data), len(data), metrics)]
        for result in results[1:]:
            quality, coded = _nearest(result.name, name, pixels, len(data))
            setting = CLASSIC_CODECS[result.name].setting(quality)
            sizes_bytes = len(coded.data), len(data)
            group.append(_matched(result.name, setting, pixels, coded.pixels, *sizes_bytes, metrics))
        matches.append(group)
    return matches


def _matched(
    codec: str,
    setting: str,
    pixels: Pixels,
    decoded: Pixels,
    num_bytes: int,
    wanted_bytes: int,
    metrics: Collection[Metric],
) -> Matched:
    """Measure one file."""
    return Matched(
        codec=codec,
        setting=setting,
        file_bpp=8 * num_bytes / (pixels.shape[0] * pixels.shape[1]),
        pixels=decoded,
        close=abs(num_bytes / wanted_bytes - 1) <= MATCH_TOLERANCE,
        **measure_image(pixels, decoded, metrics)._asdict(),
    )


def _nearest(name: str, image: str, pixels: Pixels, size: int) -> tuple[float, Coded]:
    """Find the file of a classic codec whose size in bytes is nearest, by bisection of its quality."""
    if CLASSIC_CODECS[name].by_rate:
        quality = 8 * size / (pixels.shape[0] * pixels.shape[1])
        return quality, code_named_image(name, image, pixels, quality)
    low, high = 0, 100
    files = {}
    while low <= high:
        middle = (low + high) // 2
        files[middle] = code_named_image(name, image, pixels, middle)
        if len(files[middle].data) < size:
            low = middle + 1
        else:
            high = middle - 1
    best = min(files, key=lambda quality: abs(math.log(len(files[quality].data) / size)))
    return best, files[best]
