"""Which metrics are measured, and what the mean takes of exact copies."""

import math

import numpy as np
import pytest
from support.images import distorted_pair
from support.small_models import make_codec

from ohmq.evaluation.evaluate import evaluate_images
from ohmq.evaluation.qualities import EXACT_DB, METRICS, QUALITIES, default_metrics, measure_image, qualities_of
from ohmq.evaluation.results import ImageRow
from ohmq.metrics import ms_ssim, psnr_db, psnr_hvs_m, ssimulacra2


def test_each_measure_is_its_metric() -> None:
    pair = distorted_pair("coffee", (0, 176, 0, 180), "noise")
    planes = [np.moveaxis(image, -1, 0)[None] for image in pair]
    expected = (psnr_db(*pair), float(ms_ssim(*planes)[0]), ssimulacra2(*pair), psnr_hvs_m(*pair))
    assert measure_image(*pair) == pytest.approx(expected)
    scores = measure_image(*pair, metrics=["ssimulacra2"])
    assert scores.ssimulacra2 == expected[2]
    assert math.isnan(scores.ms_ssim) and math.isnan(scores.psnr_hvs_m_db)


def test_exact_copies_have_finite_measures() -> None:
    pixels, _ = distorted_pair("coffee", (0, 20, 0, 16), "noise")
    measures = measure_image(pixels, pixels)
    assert (measures.psnr_db, measures.ssimulacra2, measures.psnr_hvs_m_db) == (EXACT_DB, 100, EXACT_DB)
    assert math.isnan(measures.ms_ssim)


def test_names() -> None:
    assert qualities_of(METRICS) == tuple(QUALITIES)
    assert qualities_of(()) == ("psnr_db",)
    assert default_metrics(grey=True) == ("ssim", "ms-ssim")
    assert {info.metric for info in QUALITIES.values()} == {None, *METRICS} - {"ssim"}


def measured(row: ImageRow) -> set[str]:
    fields = ("ssim", "ms_ssim", "ssimulacra2", "psnr_hvs_m_db")
    return {field for field in fields if not math.isnan(getattr(row, field))}


def test_an_evaluation_measures_what_was_asked_for() -> None:
    codec = make_codec("static")
    images = [("x", np.arange(28 * 28, dtype=np.uint8).reshape(28, 28))]

    def row(**options: object) -> ImageRow:
        return evaluate_images(codec, images, [5], **options)[5][0]  # type: ignore[arg-type]

    assert measured(row()) == {"ssim"}  # too small for MS-SSIM, and grey
    assert measured(row(metrics=())) == set()
    both = row(metrics=["ssimulacra2", "psnr-hvs-m"])
    assert measured(both) == {"ssimulacra2", "psnr_hvs_m_db"}
    decoded = np.asarray(codec.decompress(codec.compress(images[0][1], channels=5)))
    assert both.ssimulacra2 == ssimulacra2(images[0][1], decoded)
    assert both.psnr_hvs_m_db == psnr_hvs_m(images[0][1], decoded)
