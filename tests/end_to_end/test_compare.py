"""``ohmq compare``: run as a user would, and its page used in a real browser."""

import base64
import csv
import io
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from support.browser import CHROMIUM, Browser
from support.small_models import make_model

from ohmq.cli import main
from ohmq.evaluation.bd_rate import bd_rate
from ohmq.evaluation.classic import CLASSIC_CODECS, DEFAULT_CODECS, code_classic
from ohmq.loading import load
from ohmq.metrics import psnr_db
from ohmq.model_files.freeze import freeze
from ohmq.model_files.frozen_model import save_model
from ohmq.utils.provenance import command_line

EXAMPLES = Path(__file__).parents[2] / "examples"
DIGITS = EXAMPLES / "digits"
FILES = {"comparison.html", "comparison.json", "images.csv", "points.csv"}
PLOTS = {f"{name}.{kind}" for name in ("psnr", "ms_ssim", "ssimulacra2", "psnr_hvs_m") for kind in ("png", "svg")}


class Result(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Result:
    with pytest.raises(SystemExit) as stop:
        main(["compare", *map(str, arguments)])
    captured = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return Result(stop.value.code, captured.out, captured.err)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three small photographs of different sizes and modes."""
    folder = tmp_path_factory.mktemp("photos")
    for name, mode, box in (
        ("a & <b>.png", "RGB", (100, 100, 292, 276)),
        ("grey.png", "L", (200, 100, 376, 290)),
        ("palette.png", "P", (60, 60, 240, 250)),
    ):
        with Image.open(EXAMPLES / "photos" / "coffee.png") as image:
            image.convert("RGB").crop(box).convert(mode).save(folder / name)
    return folder


@pytest.fixture(scope="module")
def done(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a comparison of the three photographs."""
    output = tmp_path_factory.mktemp("done") / "deep" / "comparison"
    with pytest.raises(SystemExit) as stop:
        main(["compare", str(photos), "-o", str(output), "--rates", "3", "--pictures", "2", "--match", "0.9"])
    assert stop.value.code == 0
    return output


@pytest.fixture(scope="module")
def digit_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of grey images."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(freeze(make_model("context"), "small"), path)
    return path


def test_files_hold_the_measures(done: Path, photos: Path) -> None:
    assert {path.name for path in done.iterdir()} == FILES | PLOTS
    content = json.loads((done / "comparison.json").read_text())
    codec = load("photo")
    assert content["model_id"] == codec.model_id.hex()
    assert content["command"] == command_line() and content["threads"] == 1
    assert {"ohmq", "torch", "pillow", "libavif", "libwebp", "openjpeg", "libjpeg-turbo"} <= set(content["versions"])
    assert [(image["width"], image["height"]) for image in content["images"]] == [(192, 176), (176, 190), (180, 190)]
    assert [entry["name"] for entry in content["codecs"]] == ["model", *DEFAULT_CODECS]
    assert all(len(entry["points"]) == 3 for entry in content["codecs"])
    rows = list(csv.DictReader((done / "images.csv").read_text().splitlines()))
    points = list(csv.DictReader((done / "points.csv").read_text().splitlines()))
    assert (len(rows), len(points)) == (6 * 3 * 3, 6 * 3)
    assert set(rows[0]) | set(points[0]) | {"image", "bd_rate_percent"} == {*content["definitions"], "image"}
    for point in points:
        parts = [row for row in rows if (row["codec"], row["setting"]) == (point["codec"], point["setting"])]
        for column in ("file_bpp", "psnr_db", "ms_ssim", "ssimulacra2", "psnr_hvs_m_db"):
            mean = np.mean([float(row[column]) for row in parts])
            assert float(point[column]) == pytest.approx(mean, rel=1e-4), (point, column)
        assert float(point["encode_s_per_mpixel"]) > 0 and float(point["decode_s_per_mpixel"]) > 0
    # One file of the model and one of a classic codec, made again.
    with Image.open(photos / "a & <b>.png") as image:
        pixels = np.asarray(image)
    count = codec.cut_points[-1]
    data = codec.compress(pixels, channels=count, layers=1)
    again = code_classic("webp", pixels, CLASSIC_CODECS["webp"].qualities[-1])
    for setting, size, decoded in (
        (f"{count} channels", len(data), np.asarray(codec.decompress(data))),
        ("quality 94", len(again.data), again.pixels),
    ):
        name = "model" if "channels" in setting else "webp"
        row = next(r for r in rows if (r["codec"], r["setting"], r["image"]) == (name, setting, "a & <b>.png"))
        assert int(row["file_bytes"]) == size
        assert float(row["psnr_db"]) == pytest.approx(psnr_db(pixels, decoded), rel=1e-5)


def test_bd_rates_are_those_of_the_points(done: Path) -> None:
    content = json.loads((done / "comparison.json").read_text())
    assert content["anchor"] == "jpeg"
    curves = {entry["name"]: entry for entry in content["codecs"]}
    for quality in ("psnr_db", "ms_ssim_db", "ssimulacra2", "psnr_hvs_m_db"):
        anchor, test = (
            ([p["file_bpp"] for p in curves[name]["points"]], [p[quality] for p in curves[name]["points"]])
            for name in ("jpeg", "avif")
        )
        difference = curves["avif"]["bd_rate"][quality]
        assert difference["percent"] == pytest.approx(bd_rate(*anchor, *test).percent)
        assert difference["low"] < difference["high"]
        assert curves["jpeg"]["bd_rate"][quality]["percent"] == pytest.approx(0, abs=1e-9)


def test_plots_are_images(done: Path) -> None:
    for name in ("psnr", "ms_ssim", "ssimulacra2", "psnr_hvs_m"):
        with Image.open(done / f"{name}.png") as image:
            assert image.width > 1000
        text = (done / f"{name}.svg").read_text()
        assert text.startswith("<?xml")


def test_the_page_makes_no_request(done: Path) -> None:
    text = (done / "comparison.html").read_text()
    assert "a &amp; &lt;b&gt;" in text or "a \\u0026 \\u003cb>" in text
    assert "a & <b>.png" not in text
    assert 'src="http' not in text and "@import" not in text and '<link rel="stylesheet"' not in text
    assert "default-src 'none'" in text
    assert "@" not in text.replace("@media", "").split("<script")[0]
    assert len(text.encode()) < 12_000_000


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_in_a_browser(done: Path, photos: Path, tmp_path: Path) -> None:
    content = json.loads((done / "comparison.json").read_text())
    page = done / "comparison.html"
    with Browser(tmp_path / "profile") as browser:
        browser.open(page)

        def value(name: str, entry: Any) -> None:
            kind = "input" if name == "split" else "change"
            element = f"document.getElementById('{name}')"
            browser.run(f"{element}.value = {json.dumps(entry)}; {element}.dispatchEvent(new Event('{kind}'))")

        def names() -> list[str]:
            return list(browser.run("[...document.querySelectorAll('#chart .curve')].map(e => e.dataset.name)"))

        # The table.
        cells = browser.run(
            "[...document.querySelectorAll('#summary tbody tr')].map(r => [...r.cells].map(c => c.innerText))"
        )
        assert len(cells) == 6
        for row, entry in zip(cells, content["codecs"], strict=True):
            assert row[0].startswith(entry["label"])
            if entry["name"] != "jpeg":
                assert row[1] == f"{entry['bd_rate']['psnr_db']['percent']:+.1f} %"
        assert cells[1][1:3] == ["anchor", "anchor"]

        # The curve: all codecs; a click hides one; the other quality; a tip at a mark.
        assert names() == [entry["name"] for entry in content["codecs"]]
        browser.run("document.querySelectorAll('#legend button')[3].click()")
        assert names() == ["model", "jpeg", "jpeg444", "jpeg2000", "avif"]
        browser.run("document.querySelectorAll('#legend button')[3].click()")
        before = browser.run("document.querySelector('#chart .curve').getAttribute('d')")
        value("quality", "ms_ssim_db")
        assert browser.run("document.querySelector('#chart .curve').getAttribute('d')") != before
        assert "MS-SSIM in dB" in browser.run("document.getElementById('chart').textContent")
        value("quality", "psnr_db")
        browser.run("document.getElementById('log').click()")
        assert browser.run("document.querySelector('#chart .curve').getAttribute('d')") != before
        browser.run("document.getElementById('log').click()")
        assert browser.run("document.querySelector('#chart .curve').getAttribute('d')") == before
        value("limit", "Infinity")
        line = browser.run("document.querySelector('#chart .curve[data-name=jpeg2000]').getAttribute('d')")
        mark = [float(number) for number in line[1:].split("L")[2].split()]
        left, top, width = browser.run(
            "(b => [b.left, b.top, b.width])(document.querySelector('#chart svg').getBoundingClientRect())"
        )
        place = left + mark[0] * width / 900, top + mark[1] * width / 900
        browser.mouse("mouseMoved", *place)
        tip = browser.run("document.getElementById('tip').textContent").splitlines()
        point = next(entry for entry in content["codecs"] if entry["name"] == "jpeg2000")["points"][2]
        assert tip[:3] == [
            f"JPEG 2000, {point['setting']}",
            f"{point['file_bpp']:.3f} bpp",
            f"{point['psnr_db']:.2f} dB PSNR",
        ]
        browser.mouse("mouseMoved", 5, 5)
        assert browser.run("document.getElementById('tip')") is None

        # The slider: by its handle, and by dragging on the image.
        clip = "document.getElementById('over').style.clipPath"
        assert browser.run(clip) == "inset(0px 50% 0px 0px)"
        value("split", 20)
        assert browser.run(clip) == "inset(0px 80% 0px 0px)"
        browser.run("document.getElementById('pair').scrollIntoView()")
        box = browser.run(
            "(b => [b.left, b.top, b.width, b.height])(document.getElementById('pair').getBoundingClientRect())"
        )
        middle = box[1] + box[3] / 2
        browser.mouse("mousePressed", box[0] + 0.75 * box[2], middle)
        browser.mouse("mouseReleased", box[0] + 0.75 * box[2], middle)
        assert browser.run(clip) == "inset(0px 25% 0px 0px)"

        # The images show the very pixels of the file that the caption names.
        options = "[...document.getElementById('image').options].map(o => o.text)"
        assert browser.run(options) == ["a & <b>.png", "palette.png"]
        value("image", 1)
        value("right", "webp")
        shown = browser.run(
            "Promise.all(['over', 'under'].map(async id => { const i = document.getElementById(id); await i.decode();"
            "const c = document.createElement('canvas'); c.width = i.naturalWidth; c.height = i.naturalHeight;"
            "c.getContext('2d').drawImage(i, 0, 0); return c.toDataURL('image/png'); }))"
        )
        left, right = (
            np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGB")) for uri in shown
        )
        with Image.open(photos / "palette.png") as image:
            original = np.asarray(image.convert("RGB"))
        assert np.array_equal(left, original)
        note = browser.run("document.getElementById('rightnote').textContent")
        quality = int(note.split("quality ")[1].split(":")[0])
        coded = code_classic("webp", original, quality)
        assert np.array_equal(right, coded.pixels)
        rate = float(note.split(": ")[1].split(" bpp")[0])
        assert rate == pytest.approx(8 * len(coded.data) / original[..., 0].size, abs=6e-4)
        rate = float(browser.run("document.getElementById('rate').selectedOptions[0].text").split()[0])
        assert abs(float(note.split(": ")[1].split(" bpp")[0]) / rate - 1) < 0.25

        # Nothing was asked for but the page; nothing went wrong.
        assert browser.run("document.documentElement.dataset.error ?? ''") == ""
        assert {address.split(":")[0] for address in browser.requests} <= {"file", "data"}
        assert [address for address in browser.requests if address.startswith("file")] == [page.resolve().as_uri()]
        assert browser.problems == []
        browser.screenshot(tmp_path / "page.png")
        with Image.open(tmp_path / "page.png") as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 100


def test_digits_of_a_grey_model(
    capsys: pytest.CaptureFixture[str], digit_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MS-SSIM is not defined for 28 pixels a side: there is no plot and no BD-rate, and a message says so."""
    monkeypatch.chdir(tmp_path)
    arguments = (DIGITS, "-m", digit_model, "--limit", 2, "--rates", 4, "-o", "out", "--anchor", "webp")
    result = run(capsys, *arguments)
    assert result.code == 0
    assert "JPEG 4:4:4 left out" in result.err
    assert (
        "no BD-rate by MS-SSIM of ohmq small.safetensors, JPEG 4:2:0, WebP, JPEG 2000, "
        "AVIF 4:2:0, default tuning: MS-SSIM needs images of at least 176" in (result.err)
    )
    assert {path.name for path in Path("out").iterdir()} == FILES | {"psnr.png", "psnr.svg"}
    content = json.loads(Path("out/comparison.json").read_text())
    assert content["codecs"][0]["points"][0]["ms_ssim"] is None
    before = Path("out/comparison.json").read_bytes()
    again = run(capsys, *arguments)
    assert (again.code, again.err.count("--force")) == (1, 1)
    assert Path("out/comparison.json").read_bytes() == before
    assert run(capsys, *arguments, "--force", "--pictures", 0, "--codec", "webp").code == 0
    assert [c["name"] for c in json.loads(Path("out/comparison.json").read_text())["codecs"]] == ["model", "webp"]


def test_one_rate_is_no_curve(capsys: pytest.CaptureFixture[str], digit_model: Path) -> None:
    result = run(capsys, DIGITS, "-m", digit_model, "--limit", 1, "--rates", 1, "--codec", "webp", "--json")
    assert result.code == 0
    content = json.loads(result.out)
    for entry in content["codecs"]:
        assert len(entry["points"]) == 1
        assert entry["bd_rate"]["psnr_db"]["percent"] is None
        assert "1 usable points of 1" in entry["bd_rate"]["psnr_db"]["refusal"]
        assert "code more rates, or choose another anchor" in entry["bd_rate"]["psnr_db"]["refusal"]
    arguments = ("--limit", 1, "--rates", 1, "--codec", "webp", "--metrics", "ssimulacra2")
    content = json.loads(run(capsys, DIGITS, "-m", digit_model, *arguments, "--json").out)
    assert content["codecs"][0]["points"][0]["ssimulacra2"] < 100
    assert content["codecs"][0]["points"][0]["psnr_hvs_m_db"] is None
    assert set(content["codecs"][0]["bd_rate"]) == {"psnr_db", "ssimulacra2"}
    table = run(capsys, DIGITS, "-m", digit_model, "--limit", 1, "--rates", 1, "--codec", "webp")
    assert table.out.count("refused") == 4
    assert "no BD-rate by PSNR of ohmq small.safetensors, WebP: the anchor curve has 1 usable points of 1" in table.err


def test_bad_input_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], digit_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("bad").mkdir()
    Path("bad/x.png").write_bytes(b"no image")
    Image.new("RGB", (20000, 4), "red").save("wide.png")
    coffee = EXAMPLES / "photos" / "coffee.png"
    cases: list[tuple[tuple[object, ...], int, tuple[str, ...]]] = [
        (("empty",), 1, ("no files found in empty",)),
        (("bad",), 1, ("no readable image in bad",)),
        (("nothing.png",), 1, ("no readable image in nothing.png",)),
        ((coffee, "-m", "nothing"), 1, ("nothing",)),
        ((coffee, "-m", digit_model), 1, ("small.safetensors (family mnist) codes grey images", "coffee.png", "--model photo")),
        (("wide.png", "-m", "photo", "--rates", 1, "--codec", "webp"), 1, ("wide.png", "20000x4", "leave the image or webp out")),
        ((coffee, "--reference", "kodak"), 1, ("24 Kodak images", "these are 1 image,", "leave --reference out")),
        ((coffee, "--reference", "kodak-nothing"), 2, ("no reference 'kodak-nothing'", "kodak-vtm")),
        ((coffee, "--codec", "gif"), 2, ("no codec 'gif'", "jpeg2000")),
        ((coffee, "--codec", "webp", "--anchor", "avif"), 2, ("--anchor avif is not compared", "model, webp")),
        ((coffee, "--metrics", "ssim,vmaf"), 2, ("no metric 'vmaf'", "psnr-hvs-m")),
        ((coffee, "--rates", 0), 2, ("--rates",)),
        ((coffee, "--match", 0), 2, ("--match",)),
        ((coffee, "--channels", 1001), 1, ("channels is 1001; photo has 1000",)),
        ((coffee, "--channels", "678:0"), 2, ("--channels", "0<x<=1000")),
        ((coffee, "--channels", "678:inf"), 2, ("--channels", "inf")),
        ((coffee, "--channels", "9", "--quality", 5), 2, ("--quality or --channels",)),
        ((), 2, ("INPUTS",)),
    ]  # fmt: skip
    for arguments, code, words in cases:
        result = run(capsys, *arguments)
        assert result.code == code, (arguments, result)
        lines = [
            line for line in result.err.splitlines() if not line.startswith(("skipped", "compare", "Usage", "Try"))
        ]
        assert len([line for line in lines if line.strip()]) == 1, (arguments, result.err)
        assert all(word in result.err for word in words), (words, result.err)
    for name, fix in (("bjontegaard", "pip install 'ohmq[evaluate]'"), ("matplotlib", "pip install 'ohmq[evaluate]'")):
        monkeypatch.setitem(sys.modules, name, None)
        result = run(capsys, DIGITS, "-m", digit_model, "-o", "out")
        assert (result.code, result.out) == (1, "")
        assert result.err == f"ohmq: {name} is not installed; it comes with: {fix}\n"
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("PIL.features.check", lambda feature: feature != "avif")
    result = run(capsys, DIGITS, "-m", digit_model)
    assert result.code == 1
    assert "built without AVIF; install Pillow 11.3 or later" in result.err and "leave avif out" in result.err
    assert not Path("out").exists()


def test_a_bad_file_among_good_ones(capsys: pytest.CaptureFixture[str], digit_model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    result = run(
        capsys, tmp_path, DIGITS / "digit_3_a.png", "-m", digit_model, "--rates", 2, "--codec", "jpeg", "--json"
    )
    assert result.code == 1
    assert "bad.png" in result.err
    assert [image["name"] for image in json.loads(result.out)["images"]] == ["digit_3_a.png"]
