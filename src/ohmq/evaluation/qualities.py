"""Metrics that are measured beside PSNR, and the qualities that curves and BD-rates refer to."""

import math
from collections.abc import Collection
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ohmq.metrics import (
    MS_SSIM_MIN_SIDE,
    PSNR_HVS_M_MIN_SIDE,
    SSIMULACRA2_MIN_SIDE,
    ms_ssim,
    psnr_db,
    psnr_hvs_m,
    ssimulacra2,
)

__all__ = [
    "EXACT_DB",
    "METRICS",
    "QUALITIES",
    "Measures",
    "Metric",
    "Quality",
    "QualityInfo",
    "at_most_exact",
    "default_metrics",
    "measure_image",
    "ms_ssim_to_db",
    "qualities_of",
]

EXACT_DB = 100.0
"""PSNR in dB that an exact copy counts in a mean; its PSNR is infinite."""

Metric = Literal["ssim", "ms-ssim", "ssimulacra2", "psnr-hvs-m"]
"""Name of a metric that can be left out; PSNR is always measured."""

METRICS: tuple[Metric, ...] = get_args(Metric)

Quality = Literal["psnr_db", "ms_ssim_db", "ssimulacra2", "psnr_hvs_m_db"]
"""Name of a quality that curves and BD-rates refer to: a column of the results."""


class QualityInfo(NamedTuple):
    """A quality, for people.

    Attributes:
        name: its name.
        axis: label of its axis.
        unit: its unit.
        metric: the metric it comes from; None: it is always measured.
        min_side: least side of an image that has it, in pixels.
    """

    name: str
    axis: str
    unit: str
    metric: Metric | None
    min_side: int = 1


QUALITIES: dict[Quality, QualityInfo] = {
    "psnr_db": QualityInfo("PSNR", "PSNR in dB", "dB", None),
    "ms_ssim_db": QualityInfo("MS-SSIM", "MS-SSIM in dB, −10 log₁₀(1 − MS-SSIM)", "dB", "ms-ssim", MS_SSIM_MIN_SIDE),
    "ssimulacra2": QualityInfo("SSIMULACRA2", "SSIMULACRA2", "points", "ssimulacra2", SSIMULACRA2_MIN_SIDE),
    "psnr_hvs_m_db": QualityInfo("PSNR-HVS-M", "PSNR-HVS-M in dB", "dB", "psnr-hvs-m", PSNR_HVS_M_MIN_SIDE),
}
"""The qualities, by name."""


def qualities_of(metrics: Collection[Metric]) -> tuple[Quality, ...]:
    """List the qualities that metrics give, PSNR first.

    Args:
        metrics: names of metrics.

    Example:
        >>> qualities_of(["ssim", "ssimulacra2"])
        ('psnr_db', 'ssimulacra2')
    """
    return tuple(quality for quality, info in QUALITIES.items() if info.metric is None or info.metric in metrics)


def default_metrics(*, grey: bool) -> tuple[Metric, ...]:
    """Choose the metrics to measure: all for images in colour; SSIM and MS-SSIM alone for grey ones, such as digits.

    Args:
        grey: whether the model codes grey images.
    """
    return METRICS[:2] if grey else METRICS


class Measures(NamedTuple):
    """Quality of one decoded image; NaN where it was not asked for, or the image is too small.

    Attributes:
        psnr_db: PSNR in dB; `EXACT_DB` for an exact copy.
        ms_ssim: MS-SSIM.
        ssimulacra2: SSIMULACRA2 score.
        psnr_hvs_m_db: PSNR-HVS-M in dB; `EXACT_DB` for an exact copy.
    """

    psnr_db: float
    ms_ssim: float = math.nan
    ssimulacra2: float = math.nan
    psnr_hvs_m_db: float = math.nan


def measure_image(
    pixels: NDArray[np.uint8], decoded: NDArray[np.uint8], metrics: Collection[Metric] = METRICS
) -> Measures:
    """Measure the quality of one decoded image.

    Args:
        pixels: pixels of the original, (H, W) or (H, W, 3).
        decoded: decoded pixels, of the same shape.
        metrics: names of the metrics to measure beside PSNR; "ssim" is ignored.
    """
    planes = [np.moveaxis(np.atleast_3d(array), -1, 0)[None] for array in (pixels, decoded)]
    return Measures(
        psnr_db=min(psnr_db(pixels, decoded), EXACT_DB),
        ms_ssim=float(ms_ssim(*planes)[0]) if "ms-ssim" in metrics else math.nan,
        ssimulacra2=ssimulacra2(pixels, decoded) if "ssimulacra2" in metrics else math.nan,
        psnr_hvs_m_db=at_most_exact(psnr_hvs_m(pixels, decoded)) if "psnr-hvs-m" in metrics else math.nan,
    )


def at_most_exact(decibels: float) -> float:
    """Bound a PSNR by `EXACT_DB`; NaN stays NaN.

    Args:
        decibels: the PSNR, in dB.
    """
    return decibels if math.isnan(decibels) else min(decibels, EXACT_DB)


def ms_ssim_to_db(similarity: float) -> float:
    """Convert an MS-SSIM to dB, at most `EXACT_DB`; NaN stays NaN.

    Args:
        similarity: the MS-SSIM.

    Example:
        >>> round(ms_ssim_to_db(0.99), 9)
        20.0
    """
    return similarity if math.isnan(similarity) else -10 * math.log10(max(1 - similarity, 10 ** (-EXACT_DB / 10)))
