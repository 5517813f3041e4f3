"""Write a comparison as one HTML page that needs no server, no request and no other file."""

import base64
import html
import io
import json
import math
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from ohmq.evaluation.comparison import Comparison, Difference
from ohmq.evaluation.matching import Matched
from ohmq.evaluation.plots import COLOURS
from ohmq.evaluation.qualities import QUALITIES, Quality
from ohmq.utils.counting import counted

__all__ = ["CROP_SIDE", "MAX_PAGE_BYTES", "PageImage", "comparison_page", "percent"]

MAX_PAGE_BYTES = 12_000_000
"""Largest size of the page in bytes. Images that would exceed it are left out; the page says how many it shows."""

CROP_SIDE = 384
"""Longest side in pixels of an image on the page; larger ones are cropped to their middle."""

COLUMNS: dict[Quality, tuple[str, str, int]] = {
    "psnr_db": ("PSNR, dB", "psnr_db", 3),
    "ms_ssim_db": ("MS-SSIM", "ms_ssim", 4),
    "ssimulacra2": ("SSIMULACRA2", "ssimulacra2", 2),
    "psnr_hvs_m_db": ("PSNR-HVS-M, dB", "psnr_hvs_m_db", 3),
}
"""Heading, column of the points and digits that show each quality in a table."""


class PageImage(NamedTuple):
    """An image for the slider.

    Attributes:
        name: name of the image.
        pixels: pixels of the original, (H, W) or (H, W, 3).
        rates: matched files at each rate, from `match_rates`.
    """

    name: str
    pixels: NDArray[np.uint8]
    rates: Sequence[Sequence[Matched]]


def comparison_page(
    comparison: Comparison, images: Sequence[PageImage] = (), *, max_bytes: int = MAX_PAGE_BYTES
) -> bytes:
    """Build the page.

    Args:
        comparison: the comparison to show.
        images: images for the slider; as many as fit are shown.
        max_bytes: largest size of the page in bytes, images included.

    Returns:
        The page, in UTF-8.
    """
    template = (files("ohmq.evaluation") / "page.html").read_text(encoding="utf-8")
    series = [
        {"name": c.name, "label": c.label, "colour": COLOURS[n % len(COLOURS)], "dotted": False,
         "points": sorted(map(_tidy, c.points), key=lambda p: p["file_bpp"])}
        for n, c in enumerate(comparison.codecs)
    ] + [
        {"name": c.name, "label": c.label, "colour": COLOURS[n % len(COLOURS)], "dotted": True,
         "points": [{"file_bpp": r, "psnr_db": q} for r, q in sorted(zip(c.rates_bpp, c.psnr_db, strict=True))]}
        for n, c in enumerate(comparison.references, len(comparison.codecs))
    ]  # fmt: skip
    limit_bpp = float(f"{comparison.highest_rate():.2g}")
    drawn: dict[str, str] = {quality: QUALITIES[quality].axis for quality in comparison.drawn_qualities()}
    drawn |= {"ms_ssim": "MS-SSIM"} if "ms_ssim_db" in drawn else {}
    data: dict[str, Any] = {
        "series": series,
        "qualities": drawn,
        "limits": sorted({0.25, 0.5, 1.0, 2.0, limit_bpp}),
        "limit": limit_bpp,
        "images": [],
    }
    references = ""
    if comparison.references:
        sources = sorted({curve.source for curve in comparison.references})
        references = " Dotted: measured elsewhere on the same images; source: " + html.escape("; ".join(sources)) + "."
    fields = {
        "TITLE": html.escape(f"{comparison.codecs[0].label} and classic codecs"),
        "DATA": html.escape(
            f"{comparison.data}: {counted(len(comparison.sizes), 'image')}. Model id {comparison.model_id}."
        ),
        "TABLE": _table(comparison),
        "REFERENCES": references,
        "POINTS": str(sum(len(codec.points) for codec in comparison.codecs)),
        "ALL": _all_points(comparison),
        "ABOUT": _about(comparison),
    }

    def page() -> bytes:
        shown = (
            f"The page shows {len(data['images'])} of {counted(len(comparison.sizes), 'image')}, at most the middle "
            f"{CROP_SIDE}×{CROP_SIDE} pixels of each, without loss; it is kept below {max_bytes / 1e6:g} MB. Figures are of "
            "whole images; other codecs' files are those nearest in size to the model's."
        )
        content = {**fields, "IMAGES": shown, "JSON": _script(data)}
        return re.sub("@([A-Z]+)@", lambda match: content[match[1]], template).encode()

    room = max_bytes - len(page()) - 100
    for image in images:
        entry = _image_entry(image)
        room -= len(_script(entry)) + 1
        if room < 0:
            break
        data["images"].append(entry)
    return page()


def _script(value: Any) -> str:
    """Convert to JSON that may stand inside a script element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("&", "\\u0026")


def _tidy(row: Any) -> dict[str, Any]:
    """Convert a row to JSON values: floats of six digits, None for NaN."""
    return {
        key: (None if math.isnan(value) else float(f"{value:.6g}")) if isinstance(value, float) else value
        for key, value in row._asdict().items()
        if key not in ("pixels", "close")
    }


def _image_entry(image: PageImage) -> dict[str, Any]:
    """Convert an image to JSON values: its crops as data URIs, with their measures."""
    height, width = image.pixels.shape[:2]
    side_y, side_x = min(height, CROP_SIDE), min(width, CROP_SIDE)
    top, left = (height - side_y) // 2, (width - side_x) // 2

    def uri(pixels: NDArray[np.uint8]) -> str:
        crop = Image.fromarray(np.ascontiguousarray(pixels[top : top + side_y, left : left + side_x]))
        kind, options = ("webp", {"lossless": True}) if features.check("webp") else ("png", {"optimize": True})
        buffer = io.BytesIO()
        crop.save(buffer, kind, **options)
        return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"

    return {
        "image": image.name,
        "width": side_x,
        "height": side_y,
        "original": uri(image.pixels),
        "rates": [
            [{**_tidy(coded), "uri": uri(coded.pixels) if coded.close else None} for coded in group]
            for group in image.rates
        ],
    }


def percent(difference: Difference) -> str:
    """Format a BD-rate for a table.

    Args:
        difference: the BD-rate.

    Example:
        >>> percent(Difference(-12.345)), percent(Difference(None, refusal="too far apart"))
        ('-12.3 %', 'refused')
    """
    return "refused" if difference.percent is None else f"{difference.percent:+.1f} %"


def _span(values: Sequence[float], digits: int) -> str:
    if any(math.isnan(value) for value in values):
        return "–"
    return f"{min(values):.{digits}f} – {max(values):.{digits}f}"


def _cell(value: float, digits: int) -> str:
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def _row(cells: Sequence[str], kind: str = "td") -> str:
    return "<tr>" + "".join(f"<{kind}>{cell}</{kind}>" for cell in cells) + "</tr>"


def _table(comparison: Comparison) -> str:
    differences = comparison.differences()
    anchor = next(codec.label for codec in comparison.codecs if codec.name == comparison.anchor)
    head = _row(
        [
            "codec",
            *(f"BD-rate<br>by {QUALITIES[quality].name}" for quality in comparison.qualities),
            *("encode,<br>s/MP", "decode,<br>s/MP", "whole file,<br>bpp"),
            *(COLUMNS[quality][0] for quality in comparison.qualities),
        ],
        "th",
    )
    lines = []
    for codec in comparison.codecs:
        encode, decode = codec.seconds_per_mpixel()
        cells = [f"{html.escape(codec.label)}<small>{html.escape(codec.settings)}</small>"]
        for by_codec in differences.values():
            difference = by_codec[codec.name]
            is_anchor = codec.name == comparison.anchor and not difference.refusal
            cells.append("anchor" if is_anchor else percent(difference))
        cells += [f"{encode:.3g}", f"{decode:.3g}"]
        cells.append(_span([p.file_bpp for p in codec.points], 3))
        for quality in comparison.qualities:
            _, column, digits = COLUMNS[quality]
            cells.append(_span([getattr(p, column) for p in codec.points], 4 if column == "ms_ssim" else digits - 1))
        lines.append(_row(cells))
    note = (
        f"<p class=note>BD-rate: mean difference of rate at equal quality against {html.escape(anchor)}; below zero: smaller "
        "files. MP: million pixels; one thread, medians. Ranges: over all points, means over the images.</p>"
    )
    refusals = "".join(
        f"<p class=note>{html.escape(text[0].upper() + text[1:])}.</p>" for text in comparison.refusals()
    )
    table = (
        f'<div class="scroll"><table id="summary"><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table></div>'
    )
    return table + note + refusals


def _all_points(comparison: Comparison) -> str:
    columns = [COLUMNS[quality] for quality in comparison.qualities]
    head = _row(["codec, setting", "file bpp", *(name for name, _, _ in columns), "encode, s/MP", "decode, s/MP"], "th")
    lines = []
    for codec in comparison.codecs:
        for p in codec.points:
            cells = [html.escape(f"{codec.label}, {p.setting}"), f"{p.file_bpp:.4f}"]
            cells += [_cell(getattr(p, column), digits) for _, column, digits in columns]
            lines.append(_row([*cells, f"{p.encode_s_per_mpixel:.3g}", f"{p.decode_s_per_mpixel:.3g}"]))
    return f'<div class="scroll"><table id="points"><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table></div>'


def _about(comparison: Comparison) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in comparison.versions.items())
    definitions = "".join(
        f"<p class=note><code>{name}</code> {html.escape(text)}</p>"
        for name, text in comparison.to_dict()["definitions"].items()
    )
    return (
        f"<p><code>{html.escape(comparison.command)}</code></p><p class=note>{html.escape(versions)}</p>{definitions}"
    )
