"""A model beside classic codecs: the arithmetic, and the page's bounds."""

import base64
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import AvifImagePlugin, Image
from support.browser import CHROMIUM, Browser
from support.small_models import make_codec

from ohmq.cli.compare import _check_kodak, _references
from ohmq.errors import ConfigError
from ohmq.evaluation.classic import code_classic
from ohmq.evaluation.compare import (
    MODEL,
    CodecResult,
    CodedPoint,
    CodedRow,
    Comparison,
    Matched,
    compare_codecs,
    differences,
    match_rates,
    one_thread,
    spread,
    suited_images,
)
from ohmq.evaluation.page import CROP_SIDE, Picture, comparison_page
from ohmq.evaluation.published import published_curve

RATES = (0.1, 0.2, 0.4, 0.8)
PSNR = (28.0, 31.0, 34.0, 37.0)


def result(name: str, factor: float = 1.0, shift: float = 0.0, similarity: float = 0.9) -> CodecResult:
    """A codec with every rate times a factor and every PSNR plus a shift; MS-SSIM rises by 1 dB a point."""
    points, rows = [], []
    for n, (rate, psnr) in enumerate(zip(RATES, PSNR, strict=True)):
        s = 1 - (1 - similarity) * 10 ** (-n / 10)
        db = -10 * math.log10(1 - s) if not math.isnan(s) else s
        points.append(CodedPoint(name, f"quality {n}", factor * rate, psnr + shift, s, db, 0.1 * (n + 1), 0.01))
        rows.append((CodedRow(name, f"quality {n}", "a.png", 100, factor * rate, psnr + shift, s, 0.1, 0.01),))
    return CodecResult(name, name.upper(), "settings", (0, 1, 2, 3), tuple(rows), tuple(points))


def comparison(*codecs: CodecResult, **changes: Any) -> Comparison:
    fixed = {"command": "ohmq compare <x>", "model": "m", "model_id": "00112233", "data": "a & b", "anchor": "jpeg"}
    return Comparison(
        **{**fixed, "sizes": (("a.png", 80, 60),), "codecs": codecs, "versions": {"ohmq": "0"}, **changes}
    )


def test_bd_rates_by_hand() -> None:
    codecs = (result(MODEL, 0.8), result("jpeg"), result("webp", 1.25), result("avif", shift=20))
    by_psnr = differences(codecs, "jpeg", "psnr_db")
    assert by_psnr[MODEL].percent == pytest.approx(-20)
    assert by_psnr["webp"].percent == pytest.approx(25)
    assert by_psnr["jpeg"].percent == pytest.approx(0)
    assert (by_psnr[MODEL].low_db, by_psnr[MODEL].high_db) == (28, 37)
    assert by_psnr["avif"].percent is None
    assert re.search(r"share too little.*48\.00 to 57\.00 dB.*choose another anchor", by_psnr["avif"].refusal)
    by_similarity = differences(codecs, "webp", "ms_ssim_db")
    assert by_similarity[MODEL].percent == pytest.approx(100 * (0.8 / 1.25 - 1))
    assert by_similarity[MODEL].low_db == pytest.approx(10)
    assert by_similarity[MODEL].high_db == pytest.approx(13)
    with pytest.raises(ValueError, match="none of model, jpeg"):
        differences(codecs[:2], "avif", "psnr_db")


def test_no_similarity_of_small_images() -> None:
    made = comparison(result(MODEL, similarity=math.nan), result("jpeg", similarity=math.nan))
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
    assert list(data["qualities"]) == ["psnr_db"]


def test_highest_rate_reaches_every_codec() -> None:
    assert comparison(result(MODEL), result("jpeg")).highest_rate() == pytest.approx(1.2)
    assert comparison(result(MODEL), result("jpeg", 20)).highest_rate() == pytest.approx(2.4)


def test_references_by_name() -> None:
    names = [curve.name for curve in _references(("kodak", "kodak-vtm", "kodak-ohm"))]
    assert names[:5] == [
        f"kodak-{name}" for name in ("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", "bpg444", "vtm")
    ]
    assert names[5:] == ["kodak-ohm"]
    assert _references(("kodak-ohm",))[0].label.endswith(", payload")  # among rates of whole files
    _check_kodak([(512, 768)] * 18 + [(768, 512)] * 6)
    for shapes in ([(512, 768)] * 23, [(512, 768)] * 23 + [(512, 512)]):
        with pytest.raises(ConfigError, match="24 Kodak images"):
            _check_kodak(shapes)


def test_references_are_dotted_and_named() -> None:
    curve = published_curve("kodak-vtm")
    made = comparison(result(MODEL), result("jpeg"), references=(curve,))
    page = comparison_page(made).decode()
    assert "InterDigitalInc/CompressAI" in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page).group(1))  # type: ignore[union-attr]
    assert [series["dotted"] for series in data["series"]] == [False, False, True]
    assert data["series"][2]["points"][0] == {"file_bpp": 0.048, "psnr_db": 26.14}
    assert json.loads(made.to_json())["references"][0]["source"] == curve.source


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_references_in_a_browser(tmp_path: Path) -> None:
    """One of them begins at rate 0, which has no logarithm."""
    curves = (published_curve("kodak-ohm"), published_curve("kodak-vtm"))
    assert curves[0].rates_bpp[0] == 0
    (tmp_path / "page.html").write_bytes(comparison_page(comparison(result(MODEL), result("jpeg"), references=curves)))
    drawn = (
        "[...document.querySelectorAll('#chart .curve')].map(e => [e.dataset.name, e.getAttribute('stroke-dasharray')])"
    )
    with Browser(tmp_path / "profile") as browser:
        browser.open(tmp_path / "page.html")
        expected = [[MODEL, "none"], ["jpeg", "none"], ["kodak-ohm", "2 5"], ["kodak-vtm", "2 5"]]
        assert browser.run(drawn) == expected
        browser.run("document.getElementById('log').click()")
        assert browser.run(drawn) == expected
        assert "Infinity" not in browser.run("document.getElementById('chart').innerHTML")
        assert browser.run("document.getElementById('pictures').hidden") is True
        assert browser.problems == []


def test_the_page_has_a_bound() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (500, 392, 3), np.uint8)
    matched = [
        [
            Matched(MODEL, "4 channels", 0.2, 30.0, 0.9, 255 - noise, True),
            Matched("jpeg", "quality 5", 0.9, 20.0, 0.5, noise, False),
        ]
    ]
    pictures = [Picture(f"{n}.png", noise, matched) for n in range(4)]
    made = comparison(result(MODEL), result("jpeg"))
    sizes = [len(comparison_page(made, pictures[:n])) for n in range(3)]
    one = sizes[2] - sizes[1]
    for bound, count in ((sizes[0] + one // 2, 0), (sizes[0] + 3 * one // 2, 1), (sizes[0] + 7 * one // 2, 3)):
        page = comparison_page(made, pictures, max_bytes=bound)
        assert len(page) <= bound
        data = json.loads(re.search(r'id="data">(.*?)</script>', page.decode()).group(1))  # type: ignore[union-attr]
        assert len(data["pictures"]) == count
        assert f"The page shows {count} of 1 images" in page.decode()
    shown = data["pictures"][0]
    assert (shown["width"], shown["height"]) == (CROP_SIDE, CROP_SIDE)
    with Image.open(io.BytesIO(base64.b64decode(shown["rates"][0][0]["uri"].split(",")[1]))) as image:
        assert np.array_equal(np.asarray(image), 255 - noise[58:442, 4:388])
    assert shown["rates"][0][1]["uri"] is None  # too far from the wanted size to stand beside it
    assert shown["rates"][0][1]["file_bpp"] == 0.9


def test_names_cannot_break_the_page() -> None:
    name = "</script><b>@JSON@ & \u2028"
    pixels = np.zeros((4, 4, 3), np.uint8)
    made = comparison(result(MODEL), result("jpeg"), data=name, command=name)
    picture = Picture(name, pixels, [[Matched(MODEL, "1 channels", 0.2, 30.0, math.nan, pixels, True)]])
    page = comparison_page(made, [picture]).decode()
    assert page.count("</script>") == 2
    assert "<b>" not in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page).group(1))  # type: ignore[union-attr]
    assert data["pictures"][0]["image"] == name
    assert data["pictures"][0]["rates"][0][0]["ms_ssim"] is None


def test_one_thread_and_back() -> None:
    before = torch.get_num_threads(), AvifImagePlugin.DEFAULT_MAX_THREADS

    def work() -> None:
        with one_thread():
            assert (torch.get_num_threads(), AvifImagePlugin.DEFAULT_MAX_THREADS) == (1, 1)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert (torch.get_num_threads(), AvifImagePlugin.DEFAULT_MAX_THREADS) == before


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12, 13])
def test_spread_keeps_both_ends(count: int) -> None:
    values = list(range(12))
    found = spread(values, count)
    assert len(found) == min(count, 12) == len(set(found))
    assert found == sorted(found)
    if count > 1:
        assert (found[0], found[-1]) == (0, 11)


def test_grey_models_take_grey_pictures_alone() -> None:
    codec = make_codec("static")
    grey = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)[..., :1].repeat(3, -1)
    ((name, pixels),) = suited_images(codec, [("g", grey)])
    assert (name, pixels.shape) == ("g", (4, 4))
    colour = grey.copy()
    colour[0, 0, 0] += 1
    with pytest.raises(
        ConfigError, match=r"static \(family mnist\) codes grey pictures and c is in colour.*--model photo"
    ):
        suited_images(codec, [("g", grey), ("c", colour)])


def test_a_comparison_of_digits(digits: list[Image.Image]) -> None:
    codec = make_codec("static")
    images = [(str(n), np.asarray(image)) for n, image in enumerate(digits[:3])]
    images.append(("wide", np.concatenate([images[0][1], images[1][1][:, :9]], 1)))
    done: list[int] = []
    model, webp = compare_codecs(codec, images, [2, 5], ["webp"], rates=3, progress=done.append)
    assert sum(done) == 8
    assert (model.values, len(webp.values)) == ((2, 5), 3)
    for value, rows in zip(model.values, model.rows, strict=True):
        for (name, pixels), row in zip(images, rows, strict=True):
            data = codec.compress(pixels, channels=int(value), layers=1)
            assert (row.image, row.file_bytes) == (name, len(data))
            assert row.file_bpp == pytest.approx(8 * len(data) / pixels.size)
    for point, rows in zip(webp.points, webp.rows, strict=True):
        assert point.file_bpp == pytest.approx(sum(row.file_bpp for row in rows) / 4)
        assert point.psnr_db == pytest.approx(sum(row.psnr_db for row in rows) / 4)
        times = sorted(row.encode_s / (pixels.size / 1e6) for row, (_, pixels) in zip(rows, images, strict=True))
        assert point.encode_s_per_mpixel == pytest.approx((times[1] + times[2]) / 2)
    groups = match_rates(codec, images, [model, webp], 3, [0.01, 0.02, 50])
    assert [group[0].setting for group in groups] == ["2 channels", "5 channels"]  # each file once
    for group in groups:
        assert [matched.codec for matched in group] == [MODEL, "webp"]
        ratio = group[1].file_bpp / group[0].file_bpp
        assert group[1].close == (abs(ratio - 1) <= 0.25)
        assert group[1].pixels.shape == images[3][1].shape


def test_the_nearest_file_is_found() -> None:
    codec = make_codec("static")
    pixels = np.random.default_rng(0).integers(0, 256, (28, 56), np.uint8)  # the model's file is within WebP's reach
    results = compare_codecs(codec, [("x", pixels)], [5], ["webp", "jpeg2000"], rates=2)
    ((model, *others),) = match_rates(codec, [("x", pixels)], results, 0, [1])
    sizes = {quality: len(code_classic("webp", pixels, quality).data) for quality in range(101)}
    wanted = model.file_bpp * pixels.size / 8
    best = min(abs(math.log(size / wanted)) for size in sizes.values())
    assert abs(math.log(others[0].file_bpp / model.file_bpp)) == pytest.approx(best, abs=0.05)


def test_nothing_to_compare() -> None:
    codec = make_codec("static")
    image = ("x", np.zeros((28, 28), np.uint8))
    for images, channels in (([], [5]), ([image], []), ([image], [0, 5])):
        with pytest.raises(ValueError, match="at least one"):
            compare_codecs(codec, images, channels, ["webp"])
    with pytest.raises(ValueError, match="no codec 'gif'"):
        compare_codecs(codec, [image], [5], ["gif"])
