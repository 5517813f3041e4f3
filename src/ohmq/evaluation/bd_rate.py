r"""Bjøntegaard deltas: average difference of rate or quality between two rate–distortion curves.

Quality is PSNR or any other measure that rises with it, such as SSIMULACRA2.

Each curve is cleaned first: its points are sorted by rate; points of rate 0 are left out, because they have no
logarithm; of the others, a point is kept only if its quality exceeds that of every point of lower rate. A codec would never
be used at the points that are left out.

The package `bjontegaard` interpolates and integrates; this module decides which curves may be compared.

References: Bjøntegaard, VCEG-M33, 2001; Herglotz et al., The Bjøntegaard Bible, 2023.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmq.errors import ConfigError
from ohmq.evaluation.optional import require

__all__ = ["BDPsnrResult", "BDResult", "Method", "bd_psnr", "bd_rate", "clean_curve"]

Method = Literal["pchip", "akima", "cubic"]
"""A method of interpolation."""

MIN_POINTS = {"pchip": 2, "akima": 2, "cubic": 4}
"""Smallest number of usable points of a curve, by method."""

MIN_OVERLAP = 0.25
"""Smallest common range, as a fraction of the shorter curve's range."""

MIN_OVERLAP_QUALITY = 0.5
"""Smallest common range of quality, in its unit (dB, or points of a score)."""


class BDResult(NamedTuple):
    """A BD-rate.

    Attributes:
        percent: average difference of rate at equal quality, in percent; negative: the test curve needs less rate.
        low: lower end of the range of quality that both curves cover.
        high: upper end of that range.
    """

    percent: float
    low: float
    high: float


class BDPsnrResult(NamedTuple):
    """A BD-PSNR.

    Attributes:
        db: average difference of PSNR at equal rate, in dB; positive: the test curve is better.
        low_bpp: lower end of the range of rates that both curves cover, in bits per pixel.
        high_bpp: upper end of that range, in bits per pixel.
    """

    db: float
    low_bpp: float
    high_bpp: float


class CleanCurve(NamedTuple):
    """Points of a curve whose rate and quality both rise strictly, as float64 arrays.

    Attributes:
        rates: rates, in any unit.
        psnr: PSNR in dB, of the same length.
    """

    rates: NDArray[np.float64]
    psnr: NDArray[np.float64]


def clean_curve(rates: Sequence[float], psnr: Sequence[float]) -> CleanCurve:
    """Sort points by rate; drop rate 0 and every point that is no better than one of lower or equal rate.

    Args:
        rates: rates, in any unit.
        psnr: PSNR in dB, one a rate.

    Returns:
        The points that remain.

    Raises:
        ValueError: lengths differ, a negative rate, or a value that is infinite or NaN.

    Example:
        >>> clean_curve([0.3, 0.1, 0.2, 0.0], [31.0, 30.0, 29.0, 10.0]).rates.tolist()
        [0.1, 0.3]
    """
    points = np.array([rates, psnr], np.float64) if len(rates) == len(psnr) else np.empty(0)
    if points.ndim != 2:
        raise ValueError(f"{len(rates)} rates and {len(psnr)} PSNRs; expected as many of each")
    if not np.isfinite(points).all() or (points[0] < 0).any():
        raise ValueError("rates and PSNRs must be finite, and rates not negative")
    points = points[:, np.lexsort((-points[1], points[0]))]  # Among equal rates the best PSNR comes first.
    points = points[:, points[0] > 0]
    if points.size:
        best_before = np.maximum.accumulate(points[1])[:-1]
        points = points[:, np.concatenate(([True], points[1, 1:] > best_before))]
    return CleanCurve(points[0], points[1])


def _clean_pair(
    anchor_rates: Sequence[float],
    anchor_psnr: Sequence[float],
    test_rates: Sequence[float],
    test_psnr: Sequence[float],
    method: Method,
) -> tuple[CleanCurve, CleanCurve]:
    """Clean two curves, and refuse those that have too few points."""
    if method not in MIN_POINTS:
        raise ValueError(f"method is {method!r}; choose one of {', '.join(MIN_POINTS)}")
    curves = clean_curve(anchor_rates, anchor_psnr), clean_curve(test_rates, test_psnr)
    for name, curve, rates in zip(("anchor", "test"), curves, (anchor_rates, test_rates), strict=True):
        if len(curve.rates) < MIN_POINTS[method]:
            raise ConfigError(
                f"the {name} curve has {len(curve.rates)} usable points of {len(rates)} (quality must rise with rate); "
                f"method {method} needs {MIN_POINTS[method]}"
            )
    return curves


def _overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> tuple[float, float, float]:
    """Intersect the ranges of two rising sequences: both ends, and the share of the shorter range."""
    low, high = max(a[0], b[0]), min(a[-1], b[-1])
    return float(low), float(high), float((high - low) / min(a[-1] - a[0], b[-1] - b[0]))


def bd_rate(
    anchor_rates: Sequence[float],
    anchor_psnr: Sequence[float],
    test_rates: Sequence[float],
    test_psnr: Sequence[float],
    method: Method = "pchip",
    *,
    unit: str = "dB",
) -> BDResult:
    r"""Compute the average difference of rate at equal quality, in percent of the anchor's rate.

    $$ \mathrm{BD} = 10^{\Delta} - 1, \qquad
    \Delta = \frac{1}{q_1 - q_0} \int_{q_0}^{q_1} \bigl(\log_{10} R_{test}(q) - \log_{10} R_{anchor}(q)\bigr) dq $$

    Args:
        anchor_rates: rates of the curve to compare with, in any unit and any order.
        anchor_psnr: its PSNR in dB, or another quality that may be negative, one a rate.
        test_rates: rates of the curve under test, in the same unit.
        test_psnr: its quality, of the same kind, one a rate.
        method: method of interpolation.
        unit: unit of quality, for messages.

    Returns:
        The difference, and the range of quality over which it is the average.

    Raises:
        ConfigError: too few usable points (2; cubic: 4), or a common interval of quality below 0.5 or a quarter of the
            shorter curve's range.
        ValueError: lengths differ, negative rates, non-finite values, unknown method.

    References: Bjøntegaard, VCEG-M33, 2001; Herglotz et al., The Bjøntegaard Bible, 2023.

    Example:
        >>> rates, psnr = [0.1, 0.2, 0.4, 0.8], [28.0, 31.0, 34.0, 37.0]
        >>> round(bd_rate(rates, psnr, [0.8 * rate for rate in rates], psnr).percent, 9)
        -20.0
    """
    anchor, test = _clean_pair(anchor_rates, anchor_psnr, test_rates, test_psnr, method)
    low, high, share = _overlap(anchor.psnr, test.psnr)
    if high - low < MIN_OVERLAP_QUALITY or share < MIN_OVERLAP:
        raise ConfigError(
            f"the curves share too little to compare: anchor {anchor.psnr[0]:.2f} to {anchor.psnr[-1]:.2f} {unit}, test "
            f"{test.psnr[0]:.2f} to {test.psnr[-1]:.2f} {unit}; expected {MIN_OVERLAP_QUALITY} {unit} and "
            f"{MIN_OVERLAP:.0%} of the shorter range in common"
        )
    require("bjontegaard")
    import bjontegaard

    percent = bjontegaard.bd_rate(
        anchor.rates, anchor.psnr, test.rates, test.psnr, method, require_matching_points=False, min_overlap=0
    )
    return BDResult(float(percent), low, high)


def bd_psnr(
    anchor_rates: Sequence[float],
    anchor_psnr: Sequence[float],
    test_rates: Sequence[float],
    test_psnr: Sequence[float],
    method: Method = "pchip",
) -> BDPsnrResult:
    """Compute the average difference of PSNR at equal rate, in dB, averaged over the logarithm of the rate.

    Args:
        anchor_rates: rates of the curve to compare with, in bits per pixel and any order.
        anchor_psnr: its PSNR in dB, one a rate.
        test_rates: rates of the curve under test, in bits per pixel.
        test_psnr: its PSNR in dB, one a rate.
        method: method of interpolation.

    Returns:
        The difference, and the range of rates over which it is the average.

    Raises:
        ConfigError: too few usable points, or the common interval of log rates is below a quarter of the shorter range.
        ValueError: as `bd_rate`.
    """
    anchor, test = _clean_pair(anchor_rates, anchor_psnr, test_rates, test_psnr, method)
    low, high, share = _overlap(np.log10(anchor.rates), np.log10(test.rates))
    if share < MIN_OVERLAP:
        raise ConfigError(
            f"the curves share too little to compare: anchor {anchor.rates[0]:.4g} to {anchor.rates[-1]:.4g} bpp, test "
            f"{test.rates[0]:.4g} to {test.rates[-1]:.4g} bpp; expected {MIN_OVERLAP:.0%} of the shorter range of log "
            "rates in common"
        )
    require("bjontegaard")
    import bjontegaard

    db = bjontegaard.bd_psnr(
        anchor.rates, anchor.psnr, test.rates, test.psnr, method, require_matching_points=False, min_overlap=0
    )
    return BDPsnrResult(float(db), 10**low, 10**high)
