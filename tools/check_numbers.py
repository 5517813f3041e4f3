"""Check that the numbers in the documentation are those of the files in `results/`, or write them.

    python tools/check_numbers.py           # exit code 1 and one line for each number that differs
    python tools/check_numbers.py --write   # write the numbers of the result files into the pages

A page marks a number with the name of its entry in `results/numbers.toml`, in comments that no reader sees:

    needs <!--=photo-bd-jpeg-->55.4 %<!--/--> fewer bits than JPEG

The name may have arguments, which replace `$1`, `$2` and so on in the entry: `<!--=tuning;visual;psnr_db-->`. Every number
that has a unit of measurement must be marked, except in the pages of `UNCHECKED`.

Forms of an entry; FILE is below `results/`, PATH is a path of keys such as `codecs[name=jpeg].points[0].psnr_db`. The
condition `[channels=64|116]` keeps the items with one of these values, `["a key"]` is a key with other characters;
`min FILE PATH` and `max FILE PATH` take the least and the largest of several numbers:

    value = "FILE PATH"                a number, or the median of several; `minus = "FILE PATH"` is subtracted,
                                       `over = "FILE PATH"` divides it, `inverse = true` takes 1 / it
    values = ["FILE PATH", …]          several numbers for one `format`, such as "{:.1f} to {:.1f}"
    text = "FILE PATH"                 a text; `match` is a regular expression, whose groups fill the `format`
    count = "FILE PATH"                number of items of a list or an object
    bd_rate = ["CURVE", "CURVE"]       BD-rate of the first curve against the second, in percent; a curve is
                                       "FILE PATH RATE QUALITY" or "published NAME"
    at_rate = 0.3                      quality of the curve `curve = "CURVE"` at a rate, between its points by the logarithm
                                       of the rate
    at = "FILE PATH"                   quality of the curve `curve = "CURVE"` at another file's number, between its points,
                                       with `logarithm = true` by the logarithm of the rate
    table = "FILE PATH"                a Markdown table of a list of objects, or of several lists (["FILE PATH", …]), or of an
                                       object of objects, whose keys are then `name`: `columns` maps keys to
                                       [header, format], `rows = {KEY = [VALUES]}` picks objects
    given = "0.15 bits"                a number that no result file has; `reason` says where it comes from
    format = "{:.1f} %"                how a number is written, times `scale` (1); a minus sign replaces the hyphen
"""

import argparse
import json
import math
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ohmq.evaluation.bd_rate import bd_rate
from ohmq.evaluation.published import published_curve

ROOT = Path(__file__).parents[1]
ENTRIES = ROOT / "results" / "numbers.toml"
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "src").rglob("*.md")]
UNCHECKED = re.compile(r"CHANGELOG\.md|docs/file-format\.md|docs/experiments(/[\w-]+)?\.md")
"""Pages whose numbers need not be marked: history, constants of a format, and experiments whose results were not kept."""
MARK = re.compile(r"<!--=([\w-]+(?:;[^;>]*)*)-->(.*?)<!--/-->", re.DOTALL)
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
UNITS = r"%|dB|bpp|bits? per pixel|bits|bytes|kB|MB|MiB|GB|kFLOPs|times|ms|s|seconds|minutes|hours"
DEPTHS = r"(?:1|8|12|16|32) bits"
"""Bit depths of images, which are no measurements."""
MEASURED = re.compile(rf"[+−-]?(?<![\d.,])(?!{DEPTHS})\d[\d,]*(?:\.\d+)? ?(?:{UNITS})(?![\w-])")
STEP = re.compile(r"([\w-]+)|\[(\d+)\]|\[([\w-]+)=([^\]]*)\]|\[\"([^\"]+)\"\]")


@cache
def _content(file: str) -> Any:
    return json.loads((ROOT / "results" / file).read_text(encoding="utf-8"))


def look_up(content: Any, path: str) -> Any:
    """Follow a path of keys, indices and conditions; several conditions may follow each other.

    Args:
        content: JSON content.
        path: such as `rows[part=start-up][what=ohmq info FILE][0].ratio`.

    Raises:
        KeyError, IndexError, TypeError: the path leads nowhere.
    """
    steps = list(STEP.finditer(path))
    if ".".join(step[0] for step in steps).replace(".[", "[") != path:
        raise KeyError(path)
    for step in steps:
        name, index, key, value, quoted = step.groups()
        name = name or quoted
        if key:
            wanted = value.split("|")
            content = [item for item in content if str(item[key]) in wanted]
            if {str(item[key]) for item in content} != set(wanted):
                raise KeyError(step[0])
            continue
        if name and isinstance(content, list) and len(content) == 1:
            content = content[0]
        content = content[name] if name else content[int(index)]
    if not isinstance(content, int | float | dict | list):
        raise KeyError(path)
    return content[0] if path.endswith("]") and isinstance(content, list) and len(content) == 1 else content


def _curve(source: str) -> tuple[list[float], list[float]]:
    file, _, rest = source.partition(" ")
    if file == "published":
        published = published_curve(rest)
        return list(published.rates_bpp), list(published.psnr_db)
    path, rate, quality = rest.rsplit(" ", 2)
    points = look_up(_content(file), path)
    if isinstance(points, Mapping):
        return points[rate], points[quality]
    if quality == "ms_ssim_db" and quality not in points[0]:
        return [point[rate] for point in points], [-10 * math.log10(1 - point["ms_ssim"]) for point in points]
    return [point[rate] for point in points], [point[quality] for point in points]


def _found(source: str) -> Any:
    file, _, path = source.partition(" ")
    return look_up(_content(file), path)


def _value(source: str) -> float:
    pick, _, rest = source.partition(" ")
    found = _found(rest if pick in ("min", "max") else source)
    if isinstance(found, dict):
        found = list(found.values())
    return float({"min": min, "max": max}.get(pick, median)(found) if isinstance(found, list) else found)


def _text(source: str, pattern: str) -> tuple[str, ...]:
    path, _, key = source.rpartition(".")
    match = re.search(pattern, _found(path)[key])
    if match is None:
        raise KeyError(f"{source} with {pattern}")
    return match.groups()


def fill(entry: Any, arguments: Sequence[str]) -> Any:
    """Replace `$1`, `$2` and so on in all texts of an entry.

    Args:
        entry: an entry of `results/numbers.toml`, or a part of one.
        arguments: the arguments of a mark.

    Raises:
        IndexError: the entry has more places than there are arguments.
    """
    if isinstance(entry, str):
        return re.sub(r"\$(\d)", lambda match: arguments[int(match[1]) - 1], entry)
    if isinstance(entry, dict):
        return {key: fill(value, arguments) for key, value in entry.items()}
    return [fill(item, arguments) for item in entry] if isinstance(entry, list) else entry


def _quality_at(rates: list[float], qualities: list[float], rate: float, *, logarithm: bool) -> float:
    points = sorted(zip(rates, qualities, strict=True))
    if not points[0][0] <= rate <= points[-1][0]:
        raise IndexError(f"rate {rate}: the curve has {points[0][0]:.3g} to {points[-1][0]:.3g}")
    rates, qualities = zip(*points, strict=True)  # type: ignore[assignment]
    return float(np.interp(*((np.log(rate), np.log(rates)) if logarithm else (rate, rates)), qualities))


def _objects(sources: str | list[str]) -> list[Mapping[str, Any]]:
    objects: list[Mapping[str, Any]] = []
    for source in [sources] if isinstance(sources, str) else sources:
        found = _found(source)
        objects += [{"name": name, **item} for name, item in found.items()] if isinstance(found, dict) else found
    return objects


def _written(form: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    value = len(value) if isinstance(value, list) else value
    return re.sub(r"(?<!\w)-(?=\d)", "−", form.format(*value) if isinstance(value, tuple) else form.format(value))


def render(entry: Mapping[str, Any]) -> str:
    """Return the text of an entry.

    Args:
        entry: as in `results/numbers.toml`.

    Raises:
        KeyError, IndexError, TypeError, FileNotFoundError: the result files do not have it.
    """
    if "given" in entry:
        return str(entry["given"]) if entry["reason"] else ""
    if "table" in entry:
        objects = _objects(entry["table"])
        for key, values in entry.get("rows", {}).items():
            objects = [item for value in values for item in objects if item[key] == value]
        headers, formats = zip(*entry["columns"].values(), strict=True)
        lines = ["| " + " | ".join(headers) + " |", "|---" * len(headers) + "|"]
        for item in objects:
            cells = (_written(form, item[key]) for key, form in zip(entry["columns"], formats, strict=True))
            lines.append("| " + " | ".join(cells) + " |")
        return "\n\n" + "\n".join(lines) + "\n\n"
    if "values" in entry:
        return _written(entry["format"], tuple(map(_value, entry["values"])))
    if "text" in entry:
        return _written(entry["format"], _text(entry["text"], entry["match"]))
    if "at_rate" in entry:
        number = _quality_at(*_curve(entry["curve"]), entry["at_rate"], logarithm=True)
    elif "at" in entry:
        number = _quality_at(*_curve(entry["curve"]), _value(entry["at"]), logarithm=entry.get("logarithm", False))
    elif "count" in entry:
        number = len(_found(entry["count"]))
    elif "bd_rate" in entry:
        test, anchor = map(_curve, entry["bd_rate"])
        number = bd_rate(*anchor, *test).percent
    else:
        number = _value(entry["value"]) - (_value(entry["minus"]) if "minus" in entry else 0)
        number /= _value(entry["over"]) if "over" in entry else 1
        number = 1 / number if entry.get("inverse") else number
    return _written(entry["format"], number * entry.get("scale", 1))


def check(page: Path, texts: Mapping[str, str], *, write: bool) -> list[str]:
    """Compare or replace the numbers of a page.

    Args:
        page: a Markdown file.
        texts: text of each entry, by name.
        write: replace numbers that differ.

    Returns:
        Complaints, one line each.
    """
    content, complaints = page.read_text(encoding="utf-8"), []
    name = page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name

    def replace(match: re.Match[str]) -> str:
        line = f"{name}:{content.count(chr(10), 0, match.start()) + 1}"
        if match[1] not in texts:
            complaints.append(f"{line}: results/numbers.toml has no number {match[1]}")
            return match[0]
        if match[2].split() == texts[match[1]].split():
            return match[0]  # a line may end within a number and its unit
        if not write:
            complaints.append(f"{line}: {match[1]} is {texts[match[1]]!r} in the results, {match[2]!r} in the page")
        return f"<!--={match[1]}-->{texts[match[1]]}<!--/-->"

    written = MARK.sub(replace, content)
    if write and written != content:
        page.write_text(written, encoding="utf-8")
    if not UNCHECKED.fullmatch(name):
        plain = re.sub(r"<!--.*?-->", "", CODE.sub("", MARK.sub("", content)), flags=re.DOTALL)
        complaints += [f"{name}: {match[0]!r} is not marked" for match in MEASURED.finditer(plain)]
    return complaints


def main() -> int:
    """Check or write all pages; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the numbers of the result files into the pages")
    options = parser.parse_args()
    entries = tomllib.loads(ENTRIES.read_text(encoding="utf-8"))
    texts, complaints = {}, []
    marks = {match[1] for page in PAGES for match in MARK.finditer(page.read_text(encoding="utf-8"))}
    for mark in sorted(marks):
        name, *arguments = mark.split(";")
        if name not in entries:
            continue  # `check` names the page
        try:
            texts[mark] = render(fill(entries[name], arguments))
        except (KeyError, IndexError, TypeError, ValueError, FileNotFoundError) as error:
            complaints.append(f"results/numbers.toml: {mark}: the results have no {error}")
    used = {mark.partition(";")[0] for mark in marks}
    complaints += [f"results/numbers.toml: no page uses {name}" for name in sorted(set(entries) - used)]
    for page in sorted(PAGES):
        complaints += check(page, texts, write=options.write)
    print("\n".join(complaints) or f"{len(texts)} numbers and tables are those of results/")
    return bool(complaints)


if __name__ == "__main__":
    sys.exit(main())
