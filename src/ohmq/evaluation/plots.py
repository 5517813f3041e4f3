"""Draw rate–distortion plots, without matplotlib's global state."""

import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ohmq.errors import UnsupportedImageError
from ohmq.evaluation.optional import require
from ohmq.evaluation.results import Curve, RateName
from ohmq.utils.atomic_write import write_atomically

__all__ = ["COLOURS", "RATE_LABELS", "plot_rate_distortion"]

RATE_LABELS: dict[RateName, str] = {
    "estimated_bpp": "estimated rate",
    "payload_bpp": "payload",
    "file_bpp": "whole file",
}
"""Names of the three rates for people."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which colour-blind readers can tell apart; without yellow, which is too pale for lines."""

MARKERS = "osD^vPX"
"""Markers of matplotlib, one a curve."""

WIDTH_INCHES = 5.6
"""Width of a plot, in inches."""

FORMATS = (".png", ".svg", ".pdf")
"""Extensions of the files that can be written."""


def plot_rate_distortion(
    curves: Sequence[Curve],
    path: Path | str,
    *,
    title: str = "",
    x_label: str | None = None,
    y_label: str = "PSNR in dB",
    dotted: Collection[str] = (),
    dashed: Collection[str] = (),
    like: Mapping[str, str] | None = None,
    level: tuple[str, float] | None = None,
    force: bool = False,
) -> None:
    """Draw curves into a file, 5.6 inches wide, with text that stays readable at half a page's width.

    Points are joined in order of rate. Each curve has its own colour and marker; the legend stands below the axes and
    covers nothing.

    Args:
        curves: the curves.
        path: the file, .png, .svg or .pdf.
        title: title above the axes.
        x_label: label of the horizontal axis; None: the name of the curves' rate. Where these differ, the legend names that
            of each curve.
        y_label: label of the vertical axis.
        dotted: names of curves drawn dotted with hollow markers, such as published curves.
        dashed: names of curves drawn dashed.
        like: names of curves that take colour and marker of another curve, and the name of that curve.
        level: label and PSNR in dB of a horizontal line, for a model that has no rate.
        force: whether to replace an existing file.

    Raises:
        ValueError: no curves, or a name in dotted, dashed or like that is no curve's name.
        UnsupportedImageError: another extension.
        OutputExistsError: the file exists and force is not set.
    """
    extension = Path(path).suffix.lower()
    if extension not in FORMATS:
        raise UnsupportedImageError(f"{path}: plots are written as {', '.join(FORMATS)}, not {extension!r}")
    if not curves:
        raise ValueError("no curves to draw")
    like = like or {}
    styled = {"dotted": dotted, "dashed": dashed, "like": {*like, *like.values()}}
    for argument, names in styled.items():
        if unknown := set(names) - {curve.name for curve in curves}:
            raise ValueError(f"{argument} names no curve drawn: {', '.join(sorted(unknown))}")

    require("matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rates_shown = {curve.rate for curve in curves}
    names_rates = x_label is None and len(rates_shown) > 1
    if x_label is None:
        x_label = "bits per pixel" if names_rates else f"{RATE_LABELS[curves[0].rate]} in bits per pixel"
    figure = Figure(figsize=(WIDTH_INCHES, 3.8), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    leaders = [curve.name for curve in curves if curve.name not in like]
    for curve in curves:
        number = leaders.index(like.get(curve.name, curve.name))
        rates, psnr = zip(*sorted(zip(curve.rates_bpp, curve.psnr_db, strict=True)), strict=True)
        colour = COLOURS[number % len(COLOURS)]
        marker = MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]
        hollow = curve.name in dotted
        axes.plot(
            rates,
            psnr,
            label=f"{curve.label}, {RATE_LABELS[curve.rate]}" if names_rates else curve.label,
            color=colour,
            marker=marker,
            markersize=5,
            markerfacecolor="white" if hollow else colour,
            linestyle=":" if hollow else "--" if curve.name in dashed else "-",
            linewidth=1.6,
        )
    if level is not None:
        axes.axhline(level[1], label=level[0], color="0.45", linestyle="-.", linewidth=1.4)
    axes.set_title(title, fontsize=12)
    axes.set_xlabel(x_label, fontsize=12)
    axes.set_ylabel(y_label, fontsize=12)
    axes.tick_params(labelsize=11)
    axes.grid(True, color="0.88", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for columns in (2, 1):  # The labels stand in two columns if they fit.
        legend = figure.legend(loc="outside lower center", ncols=columns, fontsize=10, frameon=False)
        box = legend.get_window_extent()
        if columns == 1 or box.width <= 0.98 * figure.bbox.width:
            break
        legend.remove()
    figure.set_size_inches(WIDTH_INCHES, 3.8 + box.height / figure.dpi)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=extension[1:])
    write_atomically(Path(path), buffer.getvalue(), force=force)
