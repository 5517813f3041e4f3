"""Numbers of the documentation: paths into result files, numbers that differ, numbers that are not marked."""

import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("check_numbers", Path(__file__).parents[2] / "tools" / "check_numbers.py")
assert SPEC is not None and SPEC.loader is not None
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)

RESULTS = {"rows": [{"what": "a.b", "ratio": 1.5}, {"what": "c", "ratio": 2}], "points": [{"bpp": 0.25}]}


@pytest.mark.parametrize(
    ("path", "wanted"),
    [("rows[1].ratio", 2), ("rows[what=a.b].ratio", 1.5), ("points[0].bpp", 0.25), ("points", RESULTS["points"])],
)
def test_paths(path: str, wanted: object) -> None:
    assert tool.look_up(RESULTS, path) == wanted


@pytest.mark.parametrize(
    "path",
    ["rows[what=d].ratio", "rows[what=c|d]", "rows[2].ratio", "no", "rows.ratio", "rows[0]. ratio", "rows[0].what"],
)
def test_paths_that_lead_nowhere(path: str) -> None:
    with pytest.raises((KeyError, IndexError, TypeError)):
        tool.look_up(RESULTS, path)


def test_numbers_and_tables_of_the_shipped_results() -> None:
    points = "mnist-ohm/rate_distortion.json points"
    first = {"value": f"{points}[0].psnr_db", "format": "{:.2f} dB"}
    assert tool.render(first) == "14.12 dB"
    assert tool.render(first | {"scale": -1}) == "−14.12 dB"
    assert tool.render(first | {"minus": f"{points}[1].psnr_db", "inverse": True}) == "−0.36 dB"
    curve = f"{points} payload_bpp psnr_db"
    assert tool.render({"bd_rate": [curve, curve], "format": "{:.1f} %"}) == "0.0 %"
    at = {"curve": curve, "at_rate": 0.2, "format": "{:.1f}"}
    assert 21.1 < float(tool.render(at)) < 21.86  # between 6 channels, 0.19 bpp, and 8, 0.266 bpp
    with pytest.raises(IndexError, match="the curve has"):
        tool.render(at | {"at_rate": 2.0})
    columns = {"channels": ["channels", "{}"], "psnr_db": ["PSNR, dB", "{:.1f}"]}
    table = {"table": points, "rows": {"channels": [16, 1]}, "columns": columns}
    assert tool.render(table) == "\n\n| channels | PSNR, dB |\n|---|---|\n| 16 | 22.8 |\n| 1 | 14.1 |\n\n"


def test_counts_medians_quotients_and_tables_of_several_files(monkeypatch: pytest.MonkeyPatch) -> None:
    content = {
        "seconds": [3.0, 1.0, 2.0],
        "none": [],
        "rows": [{"what": "a-b", "value": -1.5, "met": True, "aim": None}],
        "more": [{"what": "c", "value": 2, "met": False, "aim": 1}],
        "commands": {"kill": {"wrong": []}},
        "curve": [{"score": -10, "quality": 0}, {"score": 10, "quality": 50}],
    }
    monkeypatch.setattr(tool, "_content", {"f.json": content}.__getitem__)
    assert tool.render({"value": "f.json seconds", "over": "f.json rows[0].value", "format": "{:.1f}"}) == "−1.3"
    assert tool.render({"count": "f.json none", "format": "{}"}) == "0"
    at = {"at": "f.json seconds", "curve": "f.json curve score quality", "format": "{:.0f}"}
    assert tool.render(at) == "30"
    columns = {"what": ["", "{}"], "value": ["", "{:.1f}"], "met": ["", "{}"], "aim": ["", "{}"]}
    table = tool.render({"table": ["f.json rows", "f.json more"], "columns": columns})
    assert table.splitlines()[4:6] == ["| a-b | −1.5 | yes |  |", "| c | 2.0 | no | 1 |"]
    named = tool.render({"table": "f.json commands", "columns": {"name": ["", "{}"], "wrong": ["", "{}"]}})
    assert named.splitlines()[4] == "| kill | 0 |"


def test_a_number_that_differs_is_named_and_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("One.\nIt needs <!--=rate-->5 %<!--/--> and <!--=gone-->1<!--/-->, in `<!--`.\n")
    texts = {"rate": "−5.1 %"}
    assert tool.check(page, texts, write=False) == [
        "page.md:2: rate is '−5.1 %' in the results, '5 %' in the page",
        "page.md:2: results/numbers.toml has no number gone",
    ]
    tool.check(page, texts, write=True)
    assert "needs <!--=rate-->−5.1 %<!--/--> and" in page.read_text()
    page.write_text("It needs <!--=rate-->−5.1\n%<!--/-->.\n")
    assert tool.check(page, texts, write=False) == []


def test_numbers_with_units_must_be_marked(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "A <!--=a-->5 %<!--/-->, `7 dB`, Python 3.11, 24 images of 16 bits, −1.5 % and 3 times.\n```\n9 bpp\n```\n"
    )
    assert tool.check(page, {"a": "5 %"}, write=False) == [
        "page.md: '−1.5 %' is not marked",
        "page.md: '3 times' is not marked",
    ]
    for name in ("CHANGELOG.md", "docs/experiments/rdoq.md"):
        assert tool.UNCHECKED.fullmatch(name)
    assert not tool.UNCHECKED.fullmatch("docs/faster.md")


def test_arguments_ranges_and_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [{"c": c, "bpp": c / 10, "ms_ssim": 1 - 10 ** (-c / 10)} for c in (1, 2, 4, 8)]
    content = {"rows": {"a": {"x": -1.5, "y": 3, "z": 2}}, "points": points, "note": {"of": "images, -2 to 3 %"}}
    monkeypatch.setattr(tool, "_content", {"f.json": content}.__getitem__)
    entry = {
        "values": ["f.json rows.$1.x", "min f.json rows.$1", "max f.json $2"],
        "format": "{:.1f} ({:.1f} to {:.0f})",
    }
    assert tool.render(tool.fill(entry, ["a", "rows.a"])) == "−1.5 (−1.5 to 3)"
    with pytest.raises(IndexError):
        tool.fill(entry, ["a"])
    text = {"text": "f.json note.of", "match": "images, (.*) to (.*) %", "format": "{} to {} %"}
    assert tool.render(text) == "−2 to 3 %"
    with pytest.raises(KeyError):
        tool.render(text | {"match": "(no)"})
    some, every = (f"f.json points{choice} bpp ms_ssim_db" for choice in ("[c=1|4]", ""))
    assert tool.render({"curve": some, "at_rate": 0.4, "format": "{:.2f}"}) == "4.00"
    assert tool.render({"bd_rate": [some, every], "format": "{:.1f}"}) != tool.render(
        {"bd_rate": [every, every], "format": "{:.1f}"}
    )
    assert tool.MARK.search("<!--=a;b c;d-->5<!--/-->")[1] == "a;b c;d"
