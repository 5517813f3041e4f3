"""``ohmq compare``: a model beside classic codecs on the same images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ohmq.cli.options import DECODER, DEVICE, MAX_PIXELS, METRICS, TUNE, NumberRange
from ohmq.cli.output import echo_error, echo_skipped, progress_bar
from ohmq.utils.counting import counted

if TYPE_CHECKING:
    from ohmq.codec import Codec
    from ohmq.encoder.options import EncodeOptions
    from ohmq.evaluation.compare import Images
    from ohmq.evaluation.comparison import CodecResult, Comparison
    from ohmq.evaluation.page import PageImage
    from ohmq.evaluation.qualities import Metric
    from ohmq.evaluation.results import Curve

__all__ = ["check_kodak_sizes", "command", "reference_curves"]

FILES = ("comparison.json", "comparison.html", "points.csv", "images.csv")
PLOTS = {
    "psnr_db": "psnr",
    "ms_ssim_db": "ms_ssim",
    "ssimulacra2": "ssimulacra2",
    "psnr_hvs_m_db": "psnr_hvs_m",
}
"""Names of the plots, without their extensions, by quality."""
PLOT_FILES = tuple(f"{name}.{extension}" for name in PLOTS.values() for extension in ("png", "svg"))
KODAK = ("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", "bpg444", "vtm")
"""Codecs whose published curves ``--reference kodak`` draws."""


class _ChannelsAndScale(click.ParamType):
    """A number of channels, or N:F with a factor on λ; converted to both."""

    name = "N[:F]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, float]:
        texts: tuple[Any, ...] = str(value).partition(":")
        factor = NumberRange(0, 1000, min_open=True).convert(texts[2], param, ctx) if texts[1] else 1.0
        return click.IntRange(1).convert(texts[0], param, ctx), factor


@click.command(epilog="Example: ohmq compare examples/photos -o comparison")
@click.argument("inputs", nargs=-1, required=True)
@click.option("-m", "--model", default="photo", show_default=True, help="Shipped name, model file or checkpoint.")
@click.option(
    "--codec",
    "names",
    multiple=True,
    help="jpeg, jpeg444, jpegli, webp, jpeg2000, jxl, avif, avif444, avif-psnr or avif444-psnr; or all of them. Repeatable.  "
    "[default: jpeg, jpeg444, webp, jpeg2000, avif]",
)
@click.option(
    "--anchor", help="Codec that BD-rates refer to: model or one of the codecs.  [default: jpeg, or the first --codec]"
)
@click.option(
    "--quality",
    "qualities",
    type=click.FloatRange(0, 100),
    multiple=True,
    help="Quality of the model's files. Repeatable.",
)
@click.option(
    "--channels",
    "counts",
    type=_ChannelsAndScale(),
    multiple=True,
    help="Number of channels of the model's files, or N:F with a factor F on λ, the price of a bit. Repeatable.  [default: cut "
    "points, without those that targets such as --bpp avoid]",
)
@click.option(
    "--residual",
    "steps",
    type=NumberRange(1, 255),
    multiple=True,
    metavar="STEP",
    help="Measure also files of all channels and a residual with this step, in grey levels. Repeatable.",
)
@click.option("--rates", type=click.IntRange(1), help="Measure at most this many rates of each codec.  [default: all]")
@click.option(
    "--effort",
    type=click.IntRange(0, 2),
    help="Number of full refinement passes of the encoder.  [default: 1 for photo models, else 0]",
)
@METRICS
@TUNE
@DECODER
@DEVICE
@MAX_PIXELS
@click.option("--limit", type=click.IntRange(1), help="Measure at most this many images.  [default: all]")
@click.option("--match", type=NumberRange(0, min_open=True), multiple=True, default=(0.15, 0.4), show_default=True,
              help="Rate of the images on the page, in bits per pixel. Repeatable.")  # fmt: skip
@click.option("--pictures", "shown", type=click.IntRange(0), default=4, show_default=True,
              help="Number of images on the page.")  # fmt: skip
@click.option(
    "--reference",
    "references",
    multiple=True,
    help="Draw a published Kodak curve dotted, such as kodak-vtm, or kodak for five of them; the images must be these 24. "
    "Repeatable.",
)
@click.option(
    "-o",
    "--output-dir",
    type=click.Path(path_type=Path),
    help="Folder for tables, plots and the page.  [default: print the table only]",
)
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    inputs: tuple[str, ...],
    model: str,
    names: tuple[str, ...],
    anchor: str | None,
    qualities: tuple[float, ...],
    counts: "tuple[tuple[int, float], ...]",
    steps: tuple[float, ...],
    rates: int | None,
    effort: int | None,
    metrics: "tuple[Metric, ...] | None",
    tune: Literal["psnr", "visual"] | None,
    decoder: str | None,
    device: str,
    max_pixels: int,
    limit: int | None,
    match: tuple[float, ...],
    shown: int,
    references: tuple[str, ...],
    output_dir: Path | None,
    force: bool,
    as_json: bool,
) -> int:
    """Code images with a model and with JPEG, WebP, JPEG XL, AVIF and others: rate, quality, time, BD-rate.

    With -o: comparison.html (one page: table, curve, images side by side), comparison.json, points.csv, images.csv
    (a row an image) and plots.
    """
    from ohmq.codec import Codec
    from ohmq.encoder.options import EncodeOptions
    from ohmq.errors import ConfigError
    from ohmq.evaluation.classic import check_classic
    from ohmq.evaluation.compare import ModelSetting, compare_codecs, default_settings, spread, suited_images
    from ohmq.evaluation.comparison import Comparison
    from ohmq.evaluation.optional import require
    from ohmq.evaluation.qualities import default_metrics, qualities_of
    from ohmq.evaluation.report import ImageFiles, ImageReader
    from ohmq.model_files.resolve import resolve_model
    from ohmq.utils.atomic_write import check_output
    from ohmq.utils.provenance import command_line

    if qualities and counts:
        raise click.UsageError("give --quality or --channels, not both")
    classic, anchor = _codecs_and_anchor(names, anchor)
    curves = reference_curves(references)
    require("bjontegaard", *(["matplotlib"] if output_dir else []))
    check_classic(classic)
    if output_dir:
        for file in (*FILES, *PLOT_FILES):
            check_output(output_dir / file, force=force)
    frozen = resolve_model(model)
    codec = Codec(frozen, device=device, decoder=decoder)
    options = EncodeOptions(effort=effort, tune=tune)
    codec.check_options(options)  # What the model does not have is refused before any work.
    for step in steps:
        codec.check_options(EncodeOptions(residual=step))
    if counts and max(counts)[0] > codec.num_channels:
        raise ConfigError(f"channels is {max(counts)[0]}; {codec.name} has {codec.num_channels}")
    reader = ImageReader(inputs, grey=False, report=echo_error, limit=limit, max_pixels=max_pixels)
    images = suited_images(codec, ImageFiles(reader))
    sizes = tuple((name, pixels.shape[1], pixels.shape[0]) for name, pixels in images)
    if curves:
        check_kodak_sizes([(height, width) for _, width, height in sizes])
    if codec.grey and "jpeg" in classic and "jpeg444" in classic and anchor != "jpeg444":
        classic = tuple(name for name in classic if name != "jpeg444")
        echo_error("JPEG 4:4:4 left out: without colour it gives the same files as 4:2:0")
    if metrics is None:
        metrics = default_metrics(grey=codec.grey)
    settings = [ModelSetting(quality) for quality in qualities]
    settings += [ModelSetting(channels=count, lambda_scale=scale) for count, scale in counts]
    settings = settings or spread(default_settings(codec, options), rates)
    settings += [ModelSetting(residual=step) for step in sorted(steps, reverse=True)]
    with progress_bar(len(images) * (1 + len(classic)), "compare") as update:
        codecs = compare_codecs(
            codec, images, settings, classic, rates=rates, effort=effort, metrics=metrics, tune=tune, progress=update
        )
    comparison = Comparison(
        command=command_line(),
        model=frozen.name,
        model_id=frozen.model_id.hex(),
        data=", ".join(Path(text).name if Path(text).is_absolute() else text for text in inputs),
        sizes=sizes,
        codecs=codecs,
        anchor=anchor,
        references=curves,
        qualities=qualities_of(metrics),
        extra={"training": frozen.provenance, **({} if decoder is None else {"decoder": codec.decoder_name})},
    )
    if output_dir:
        chosen = spread(range(len(images)), shown) if shown else []
        page_images = _page_images(codec, images, codecs, chosen, match, metrics, options)
        _write(comparison, page_images, output_dir, force)
    if as_json:
        click.echo(comparison.to_json(), nl=False)
    else:
        _print(comparison)
    if output_dir:
        click.echo(f"the page is {output_dir / 'comparison.html'}", err=as_json)
    echo_skipped(reader.failed)
    return 1 if reader.failed else 0


def _codecs_and_anchor(names: Sequence[str], anchor: str | None) -> tuple[tuple[str, ...], str]:
    """Choose the classic codecs, each once, and the anchor, from the options."""
    from ohmq.evaluation.classic import CLASSIC_CODECS, DEFAULT_CODECS
    from ohmq.evaluation.comparison import MODEL

    classic = tuple(CLASSIC_CODECS) if "all" in names else tuple(dict.fromkeys(names)) or DEFAULT_CODECS
    for name in classic:
        if name not in CLASSIC_CODECS:
            raise click.UsageError(f"no codec {name!r}; choose from {', '.join(CLASSIC_CODECS)}")
    if anchor is None:
        anchor = "jpeg" if "jpeg" in classic else classic[0]
    if anchor not in (MODEL, *classic):
        raise click.UsageError(f"--anchor {anchor} is not compared; choose from {', '.join((MODEL, *classic))}")
    return classic, anchor


def _page_images(
    codec: "Codec",
    images: "Images",
    codecs: "Sequence[CodecResult]",
    chosen: Sequence[int],
    rates_bpp: Sequence[float],
    metrics: "tuple[Metric, ...]",
    options: "EncodeOptions",
) -> "list[PageImage]":
    """Code the chosen images again at nearly equal sizes, to show them side by side."""
    from ohmq.evaluation.compare import one_thread
    from ohmq.evaluation.matching import match_rates
    from ohmq.evaluation.page import PageImage

    page_images = []
    with one_thread(), progress_bar(len(chosen), "images of the page") as update:
        for number in chosen:
            groups = match_rates(codec, images, codecs, number, rates_bpp, metrics, options)
            page_images.append(PageImage(*images[number], groups))
            update(1)
    return page_images


def reference_curves(names: Sequence[str]) -> "tuple[Curve, ...]":
    """Look up the published Kodak curves that ``--reference`` names, each once.

    Args:
        names: names of curves, or "kodak" for those of `KODAK`.

    Raises:
        click.UsageError: no such curve.
    """
    from ohmq.evaluation.published import published_curve, published_names

    known = [name for name in published_names() if name.startswith("kodak-")]
    curve_names: list[str] = []
    for name in names:
        if name not in ("kodak", *known):
            raise click.UsageError(f"no reference {name!r}; choose from kodak, {', '.join(known)}")
        curve_names += [f"kodak-{codec}" for codec in KODAK] if name == "kodak" else [name]
    curves = [published_curve(name) for name in dict.fromkeys(curve_names)]
    return tuple(c if c.rate == "file_bpp" else replace(c, label=f"{c.label}, payload") for c in curves)


def check_kodak_sizes(shapes: Sequence[tuple[int, int]]) -> None:
    """Check that images have the sizes of the 24 Kodak images.

    Args:
        shapes: height and width of each image, in pixels.

    Raises:
        ConfigError: another number of images, or another size.
    """
    from ohmq.errors import ConfigError

    other = sum(sorted(shape) != [512, 768] for shape in shapes)
    if len(shapes) != 24 or other:
        raise ConfigError(
            f"--reference draws curves of the 24 Kodak images (768x512); these are {counted(len(shapes), 'image')}, {other} of "
            "another size; compare on those 24 or leave --reference out"
        )


def _write(comparison: "Comparison", page_images: "Sequence[PageImage]", output_dir: Path, force: bool) -> None:
    """Write plots, tables, the page and the JSON file."""
    from ohmq.evaluation.page import comparison_page
    from ohmq.evaluation.tables import write_rows_csv
    from ohmq.utils.atomic_write import write_atomically

    _write_plots(comparison, output_dir, force)
    points = [point for codec in comparison.codecs for point in codec.points]
    write_rows_csv(output_dir / "points.csv", points, force=force)
    rows = [row for codec in comparison.codecs for value_rows in codec.rows for row in value_rows]
    write_rows_csv(output_dir / "images.csv", rows, force=force)
    write_atomically(output_dir / "comparison.json", comparison.to_json().encode(), force=force)
    page = comparison_page(comparison, page_images)
    write_atomically(output_dir / "comparison.html", page, force=force)


def _write_plots(comparison: "Comparison", output_dir: Path, force: bool) -> None:
    """Draw each quality that was measured on every image over the rate."""
    from ohmq.evaluation.plots import plot_rate_distortion
    from ohmq.evaluation.qualities import QUALITIES

    drawn = comparison.drawn_qualities()
    for quality, name in PLOTS.items():
        if quality not in drawn:  # These would be files of an earlier comparison.
            for extension in ("png", "svg"):
                (output_dir / f"{name}.{extension}").unlink(missing_ok=True)
    limit_bpp = comparison.highest_rate()
    for quality in drawn:
        curves = [codec.curve(quality) for codec in comparison.codecs]
        if quality == "psnr_db":
            curves += comparison.references
        cropped = [curve for curve in (_up_to_rate(curve, limit_bpp) for curve in curves) if curve]
        for extension in ("png", "svg"):
            plot_rate_distortion(
                cropped,
                output_dir / f"{PLOTS[quality]}.{extension}",
                title=f"{comparison.data}, {counted(len(comparison.sizes), 'image')}",
                x_label="whole file in bits per pixel",
                y_label=QUALITIES[quality].axis,
                dotted={curve.name for curve in cropped} & {curve.name for curve in comparison.references},
                force=force,
            )


def _up_to_rate(curve: "Curve", limit_bpp: float) -> "Curve | None":
    """Keep the points of a curve up to a rate; None if there are none."""
    points = [(r, q) for r, q in zip(curve.rates_bpp, curve.psnr_db, strict=True) if r <= limit_bpp]
    if not points:
        return None
    rates_bpp, psnr_db = zip(*points, strict=True)
    return replace(curve, rates_bpp=rates_bpp, psnr_db=psnr_db)


COLUMNS = {
    "psnr_db": ("PSNR dB", "psnr_db", 3),
    "ms_ssim_db": ("MS-SSIM", "ms_ssim", 4),
    "ssimulacra2": ("SSIMULACRA2", "ssimulacra2", 3),
    "psnr_hvs_m_db": ("PSNR-HVS-M dB", "psnr_hvs_m_db", 3),
}
"""Heading, column of the points and digits that show each quality in the printed table."""


def _print(comparison: "Comparison") -> None:
    """Print all points, then a line a codec; reasons for missing BD-rates go to standard error."""
    from ohmq.evaluation.page import percent
    from ohmq.evaluation.qualities import QUALITIES

    width = max(len(codec.label) for codec in comparison.codecs)
    columns = [COLUMNS[quality] for quality in comparison.qualities]
    headings = "  ".join(name for name, _, _ in columns)
    click.echo(f"{'':{width}}  setting          file bpp  {headings}  encode s/MP  decode s/MP")
    for codec in comparison.codecs:
        for p in codec.points:
            cells = "  ".join(f"{getattr(p, column):{len(name)}.{digits}f}" for name, column, digits in columns)
            click.echo(
                f"{codec.label:{width}}  {p.setting:15s}  {p.file_bpp:8.4f}  {cells}"
                f"  {p.encode_s_per_mpixel:11.4f}  {p.decode_s_per_mpixel:11.4f}"
            )
    differences = comparison.differences()
    anchor = next(codec.label for codec in comparison.codecs if codec.name == comparison.anchor)
    click.echo(
        f"\n{counted(len(comparison.sizes), 'image')}; BD-rates against {anchor}, whole files; times: one thread, medians"
    )
    names = [f"BD-rate {QUALITIES[quality].name}" for quality in comparison.qualities]
    click.echo(f"{'':{width}}  {'  '.join(names)}  encode s/MP  decode s/MP")
    for codec in comparison.codecs:
        cells = "  ".join(
            f"{percent(by_codec[codec.name]):>{len(name)}s}"
            for name, by_codec in zip(names, differences.values(), strict=True)
        )
        encode, decode = codec.seconds_per_mpixel()
        click.echo(f"{codec.label:{width}}  {cells}  {encode:11.4f}  {decode:11.4f}")
    click.echo()
    for codec in comparison.codecs:
        click.echo(f"{codec.label:{width}}  {codec.settings}")
    for line in comparison.refusals():
        echo_error(line)
