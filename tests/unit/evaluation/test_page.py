"""The page of a comparison: its content, its bound, and names that could break it."""

import base64
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.browser import CHROMIUM, Browser
from support.comparisons import make_comparison, make_result

from ohmq.evaluation.comparison import MODEL
from ohmq.evaluation.matching import Matched
from ohmq.evaluation.page import CROP_SIDE, PageImage, comparison_page
from ohmq.evaluation.published import published_curve


def test_references_are_dotted_and_named() -> None:
    curve = published_curve("kodak-vtm")
    made = make_comparison(make_result(MODEL), make_result("jpeg"), references=(curve,))
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
    (tmp_path / "page.html").write_bytes(
        comparison_page(make_comparison(make_result(MODEL), make_result("jpeg"), references=curves))
    )
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
        assert browser.run("document.getElementById('images').hidden") is True
        assert browser.problems == []


def test_the_page_has_a_bound() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (500, 392, 3), np.uint8)
    matched = [
        [
            Matched(MODEL, "4 channels", 0.2, 30.0, 0.9, 255 - noise, True),
            Matched("jpeg", "quality 5", 0.9, 20.0, 0.5, noise, False),
        ]
    ]
    images = [PageImage(f"{n}.png", noise, matched) for n in range(4)]
    made = make_comparison(make_result(MODEL), make_result("jpeg"))
    sizes = [len(comparison_page(made, images[:n])) for n in range(3)]
    one = sizes[2] - sizes[1]
    for bound, count in ((sizes[0] + one // 2, 0), (sizes[0] + 3 * one // 2, 1), (sizes[0] + 7 * one // 2, 3)):
        page = comparison_page(made, images, max_bytes=bound)
        assert len(page) <= bound
        data = json.loads(re.search(r'id="data">(.*?)</script>', page.decode()).group(1))  # type: ignore[union-attr]
        assert len(data["images"]) == count
        assert f"The page shows {count} of 1 image," in page.decode()
    shown = data["images"][0]
    assert (shown["width"], shown["height"]) == (CROP_SIDE, CROP_SIDE)
    with Image.open(io.BytesIO(base64.b64decode(shown["rates"][0][0]["uri"].split(",")[1]))) as image:
        assert np.array_equal(np.asarray(image), 255 - noise[58:442, 4:388])
    assert shown["rates"][0][1]["uri"] is None  # too far from the wanted size to stand beside it
    assert shown["rates"][0][1]["file_bpp"] == 0.9


def test_names_cannot_break_the_page() -> None:
    name = "</script><b>@JSON@ & \u2028"
    pixels = np.zeros((4, 4, 3), np.uint8)
    made = make_comparison(make_result(MODEL), make_result("jpeg"), data=name, command=name)
    image = PageImage(name, pixels, [[Matched(MODEL, "1 channel", 0.2, 30.0, math.nan, pixels, True)]])
    page = comparison_page(made, [image]).decode()
    assert page.count("</script>") == 2
    assert "<b>" not in page
    data = json.loads(re.search(r'id="data">(.*?)</script>', page).group(1))  # type: ignore[union-attr]
    assert data["images"][0]["image"] == name
    assert data["images"][0]["rates"][0][0]["ms_ssim"] is None
