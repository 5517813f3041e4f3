"""Results of a comparison: BD-rates by hand, values that are not defined, the range of a plot."""

import dataclasses
import json
import math
import re

import pytest
from support.comparisons import make_comparison, make_result

from ohmq.evaluation.comparison import MODEL, differences
from ohmq.evaluation.page import comparison_page


def test_bd_rates_by_hand() -> None:
    codecs = (make_result(MODEL, 0.8), make_result("jpeg"), make_result("webp", 1.25), make_result("avif", shift=20))
    by_psnr = differences(codecs, "jpeg", "psnr_db")
    assert by_psnr[MODEL].percent == pytest.approx(-20)
    assert by_psnr["webp"].percent == pytest.approx(25)
    assert by_psnr["jpeg"].percent == pytest.approx(0)
    assert (by_psnr[MODEL].low, by_psnr[MODEL].high) == (28, 37)
    assert by_psnr["avif"].percent is None
    assert re.search(r"share too little.*48\.00 to 57\.00 dB.*choose another anchor", by_psnr["avif"].refusal)
    by_similarity = differences(codecs, "webp", "ms_ssim_db")
    assert by_similarity[MODEL].percent == pytest.approx(100 * (0.8 / 1.25 - 1))
    assert by_similarity[MODEL].low == pytest.approx(10)
    assert by_similarity[MODEL].high == pytest.approx(13)
    with pytest.raises(ValueError, match="none of model, jpeg"):
        differences(codecs[:2], "avif", "psnr_db")


def test_no_similarity_of_small_images() -> None:
    made = make_comparison(make_result(MODEL, similarity=math.nan), make_result("jpeg", similarity=math.nan))
    assert made.refusals() == [
        "no BD-rate by MS-SSIM of MODEL, JPEG: MS-SSIM needs images of at least 176 pixels a side; leave smaller ones out"
    ]
    content = json.loads(made.to_json())
    assert content["codecs"][0]["points"][0]["ms_ssim"] is None
    assert content["codecs"][0]["bd_rate"]["ms_ssim_db"]["percent"] is None
    assert content["codecs"][0]["encode_s_per_mpixel"] == pytest.approx(0.25)  # the median of 0.1, 0.2, 0.3, 0.4
    page = comparison_page(made).decode()
    assert "refused" in page and "No BD-rate by MS-SSIM" in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page).group(1))  # type: ignore[union-attr]
    assert list(data["qualities"]) == ["psnr_db", "ssimulacra2", "psnr_hvs_m_db"]


def test_bd_rates_by_scores_that_may_be_negative() -> None:
    codecs = (make_result(MODEL, 0.8), make_result("jpeg"))
    by_score = differences(codecs, "jpeg", "ssimulacra2")[MODEL]
    assert by_score.percent == pytest.approx(-20)
    assert (by_score.low, by_score.high) == (-10, 80)
    shifted = codecs[1].points[0]._replace(ssimulacra2=81), codecs[1].points[1]._replace(ssimulacra2=95)
    far = dataclasses.replace(codecs[1], points=shifted)
    assert "-10.00 to 80.00 points" in differences((codecs[0], far), MODEL, "ssimulacra2")["jpeg"].refusal


def test_qualities_that_were_not_measured_are_not_shown() -> None:
    made = make_comparison(make_result(MODEL), make_result("jpeg"), qualities=("psnr_db", "ssimulacra2"))
    assert set(made.differences()) == {"psnr_db", "ssimulacra2"} == set(made.drawn_qualities())
    page = comparison_page(made).decode()
    table = page[page.index("<table") : page.index("</table>")]
    assert "BD-rate<br>by SSIMULACRA2" in table and "-10.0 – 80.0" in table
    assert "MS-SSIM" not in table and "PSNR-HVS-M" not in table
    assert json.loads(made.to_json())["qualities"] == ["psnr_db", "ssimulacra2"]


def test_highest_rate_reaches_every_codec() -> None:
    assert make_comparison(make_result(MODEL), make_result("jpeg")).highest_rate() == pytest.approx(1.2)
    assert make_comparison(make_result(MODEL), make_result("jpeg", 20)).highest_rate() == pytest.approx(2.4)
