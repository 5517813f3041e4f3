import math

import bjontegaard
import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from ohmq.errors import ConfigError
from ohmq.evaluation.bd_rate import Method, bd_psnr, bd_rate, clean_curve
from ohmq.evaluation.published import published_curve

RATES = [0.1, 0.2, 0.4, 0.8, 1.6]
PSNR = [25.0, 27.5, 30.5, 33.0, 36.5]


@pytest.mark.parametrize("method", ["pchip", "akima", "cubic"])
@pytest.mark.parametrize("factor", [0.8, 1.0, 1.25, 3.0])
def test_every_rate_times_a_factor(method: Method, factor: float) -> None:
    result = bd_rate(RATES, PSNR, [factor * rate for rate in RATES], PSNR, method)
    assert result.percent == pytest.approx(100 * (factor - 1), abs=1e-9)
    assert (result.low, result.high) == (25.0, 36.5)


@pytest.mark.parametrize("method", ["pchip", "akima", "cubic"])
def test_every_psnr_plus_a_constant(method: Method) -> None:
    result = bd_psnr(RATES, PSNR, RATES, [psnr + 1.5 for psnr in PSNR], method)
    assert result.db == pytest.approx(1.5, abs=1e-9)
    assert (result.low_bpp, result.high_bpp) == pytest.approx((0.1, 1.6))


def test_a_saving_that_grows_with_quality() -> None:
    """The log of the rates' ratio runs from log 1 to log 1/2, so its mean is log sqrt(1/2)."""
    anchor_rates, psnr = [0.1, 0.2, 0.4, 0.8], [30.0, 32.0, 34.0, 36.0]
    test_rates = [rate * 0.5 ** ((p - 30) / 6) for rate, p in zip(anchor_rates, psnr, strict=True)]
    result = bd_rate(anchor_rates, psnr, test_rates, psnr)
    assert result.percent == pytest.approx(100 * (math.sqrt(0.5) - 1), abs=1e-9)


def test_curves_of_different_points_over_the_common_interval_only() -> None:
    """Straight lines over log rate, 3 dB a doubling, the test at 3/4 of the rate: -25 % on 32..37 dB."""
    anchor_psnr, test_psnr = np.array([25.0, 29.0, 33.0, 37.0]), np.array([32.0, 35.0, 38.0, 41.0, 44.0])
    result = bd_rate(
        list(0.1 * 2 ** ((anchor_psnr - 25) / 3)),
        list(anchor_psnr),
        list(0.075 * 2 ** ((test_psnr - 25) / 3)),
        list(test_psnr),
    )
    assert result.percent == pytest.approx(-25, abs=1e-9)
    assert (result.low, result.high) == (32.0, 37.0)
    back = bd_psnr([0.1, 0.8], [25, 34], [0.2, 1.6], [29, 38])
    assert back.db == pytest.approx(1.0)
    assert (back.low_bpp, back.high_bpp) == pytest.approx((0.2, 0.8))


def measured(name: str) -> tuple[list[float], list[float]]:
    curve = published_curve(name)
    return list(curve.rates_bpp), list(curve.psnr_db)


@pytest.mark.parametrize("method", ["pchip", "akima", "cubic"])
@pytest.mark.parametrize(
    "pair", [("kodak-jpeg", "kodak-webp"), ("kodak-av1", "kodak-vtm"), ("kodak-jpeg2000", "kodak-av1")]
)
def test_measured_curves_as_the_package_has_them(pair: tuple[str, str], method: Method) -> None:
    """These curves rise and overlap partly: nothing is cleaned, and nothing but the package is between."""
    anchor, test = map(measured, pair)
    options = {"require_matching_points": False, "min_overlap": 0}
    expected = bjontegaard.bd_rate(*anchor, *test, method, **options)
    assert bd_rate(*anchor, *test, method).percent == pytest.approx(expected)
    assert bd_psnr(*anchor, *test, method).db == pytest.approx(bjontegaard.bd_psnr(*anchor, *test, method, **options))


def test_measured_curves_by_an_integral_of_our_own() -> None:
    anchor, test = measured("kodak-jpeg"), measured("kodak-webp")
    logs = [PchipInterpolator(psnr, np.log(rates)) for rates, psnr in (anchor, test)]
    low, high = max(anchor[1][0], test[1][0]), min(anchor[1][-1], test[1][-1])
    grid = np.linspace(low, high, 20001)
    result = bd_rate(*anchor, *test)
    assert result.percent == pytest.approx(100 * (np.exp(np.mean(logs[1](grid) - logs[0](grid))) - 1), rel=1e-4)
    assert (result.low, result.high) == (low, high)


def test_swapping_the_curves_inverts_the_ratio() -> None:
    other = [0.09, 0.21, 0.33, 0.7, 1.2]
    forward, back = bd_rate(RATES, PSNR, other, PSNR).percent, bd_rate(other, PSNR, RATES, PSNR).percent
    assert (1 + forward / 100) * (1 + back / 100) == pytest.approx(1)


def test_points_in_any_order_and_useless_points() -> None:
    plain = bd_rate(RATES, PSNR, [0.8 * rate for rate in RATES], PSNR)
    rates = [2.0, 0.4, 0.1, 1.6, 0.0, 0.8, 0.3, 0.2, 0.2]
    psnr = [36.5, 30.5, 25.0, 36.5, 9.0, 33.0, 27.5, 27.5, 27.0]  # no gain at 2.0 and 0.3, twice 0.2, a rate of 0
    assert bd_rate(rates, psnr, [0.8 * rate for rate in RATES], PSNR) == plain


def test_clean_curve() -> None:
    cleaned = clean_curve([0.3, 0.1, 0.2, 0.4, 0.4, 0.0], [31, 30, 29, 31, 33, 8])
    assert cleaned.rates.tolist() == [0.1, 0.3, 0.4]
    assert cleaned.psnr.tolist() == [30, 31, 33]
    assert clean_curve([], []).rates.tolist() == []
    assert clean_curve([0.0], [9]).rates.tolist() == []


@pytest.mark.parametrize(
    "bad", [([0.1], [1, 2]), ([-0.1, 1], [1, 2]), ([0.1, 1], [1, math.inf]), ([math.nan, 1], [1, 2])]
)
def test_wrong_values(bad: tuple[list[float], list[float]]) -> None:
    for call in (bd_rate, bd_psnr):
        with pytest.raises(ValueError, match="expected as many|finite"):
            call(RATES, PSNR, *bad)


def test_unknown_method() -> None:
    with pytest.raises(ValueError, match="choose one of pchip, akima, cubic"):
        bd_rate(RATES, PSNR, RATES, PSNR, "linear")  # type: ignore[arg-type]


def test_too_few_points() -> None:
    with pytest.raises(ConfigError, match=r"the test curve has 1 usable points of 3.*pchip needs 2"):
        bd_rate(RATES, PSNR, [0.1, 0.2, 0.3], [30, 29, 28])
    with pytest.raises(ConfigError, match=r"the anchor curve has 3 usable points of 3.*cubic needs 4"):
        bd_rate(RATES[:3], PSNR[:3], RATES, PSNR, "cubic")
    assert bd_rate(RATES[:2], PSNR[:2], RATES[:2], PSNR[:2]).percent == pytest.approx(0)


@pytest.mark.parametrize(
    ("psnr", "fits"),
    [
        ([36.0, 40.0], False),  # 0.5 dB in common, an eighth of the range
        ([35.0, 40.0], True),  # 1.5 dB, three tenths
        ([36.6, 40.0], False),  # nothing
        ([10.0, 20.0], False),
        ([30.0, 30.4], False),  # all of the range, but 0.4 dB
        ([30.0, 30.5], True),
    ],
)
def test_overlap(psnr: list[float], fits: bool) -> None:
    if fits:
        assert math.isfinite(bd_rate(RATES, PSNR, [0.3, 0.6], psnr).percent)
    else:
        with pytest.raises(ConfigError, match=r"share too little.*25\.00 to 36\.50 dB"):
            bd_rate(RATES, PSNR, [0.3, 0.6], psnr)


def test_overlap_of_rates() -> None:
    with pytest.raises(ConfigError, match="share too little"):
        bd_psnr(RATES, PSNR, [1.5, 3.0], [30, 33])
    with pytest.raises(ConfigError, match="share too little"):
        bd_psnr(RATES, PSNR, [5, 6], [30, 33])
