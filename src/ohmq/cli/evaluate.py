"""``ohmq evaluate``: measure a model on images."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ohmq.cli.options import DECODER, DEVICE, FRACTION, MAX_PIXELS, METRICS, TUNE
from ohmq.cli.output import echo_error, echo_skipped, print_rate_points, progress_bar

if TYPE_CHECKING:
    from ohmq.evaluation.qualities import Metric

__all__ = ["command"]


@click.command(epilog="Example: ohmq evaluate --mnist test --model mnist-ohm -o results/mnist-ohm")
@click.argument("inputs", nargs=-1)
@click.option("-m", "--model", default="photo", show_default=True, help="Shipped name, model file or checkpoint.")
@click.option("--mnist", type=click.Choice(["train", "validation", "test"]), help="Evaluate on these digits.")
@click.option(
    "--data",
    "data_base_path",
    type=click.Path(path_type=Path),
    help="Folder of MNIST.  [default: $OHMQ_DATA, then ./data]",
)
@click.option("--limit", type=click.IntRange(1), help="Measure at most this many images.  [default: all]")
@click.option(
    "--fraction",
    "fractions",
    type=FRACTION,
    multiple=True,
    help="Fraction of the adaptive range, 0 to 1. Repeatable.  [default: all cut points]",
)
@click.option(
    "--channels",
    type=click.IntRange(1),
    multiple=True,
    help="Number of channels in place of a fraction, also fewer than the model's minimum. Repeatable.",
)
@click.option(
    "--against",
    multiple=True,
    help="Give the BD-rate by PSNR against a codec of ohmq compare, such as jpeg or avif-psnr (measured on the same images, "
    "whole files), or a published curve (payload), such as mnist-ohm-c0-16-lambda0.95-0.999. Repeatable.",
)
@click.option(
    "--cut",
    is_flag=True,
    help="Code each image once, with all channels and layers, and cut that file.  [default: code a file of one layer "
    "for each rate]",
)
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
@click.option(
    "-o",
    "--output-dir",
    type=click.Path(path_type=Path),
    help="Folder for tables and a plot.  [default: print the table only]",
)
@click.option("--force", is_flag=True, help="Overwrite earlier results.")
@click.option("--json", "as_json", is_flag=True, help="Print the means as JSON.")
def command(
    inputs: tuple[str, ...],
    model: str,
    mnist: str | None,
    data_base_path: Path | None,
    limit: int | None,
    fractions: tuple[float, ...],
    channels: tuple[int, ...],
    against: tuple[str, ...],
    cut: bool,
    effort: int | None,
    metrics: "tuple[Metric, ...] | None",
    tune: Literal["psnr", "visual"] | None,
    decoder: str | None,
    device: str,
    max_pixels: int,
    output_dir: Path | None,
    force: bool,
    as_json: bool,
) -> int:
    """Measure a model on images: code and decode each, and count the bytes.

    A model without a quantizer has no files: its row has no rates.
    """
    from ohmq.errors import ConfigError
    from ohmq.evaluation.bd_rate import bd_rate
    from ohmq.evaluation.classic import CLASSIC_CODECS, classic_curve
    from ohmq.evaluation.published import published_curve
    from ohmq.evaluation.report import EvaluationOptions, ImageReader, evaluate_set, write_evaluation
    from ohmq.model_files.resolve import resolve_model
    from ohmq.utils.atomic_write import check_output

    if bool(inputs) == bool(mnist):
        raise click.UsageError("give images, or --mnist")
    if fractions and channels:
        raise click.UsageError("give --fraction or --channels, not both")
    if output_dir is not None:
        check_output(output_dir / "rate_distortion.json", force=force)
    frozen = resolve_model(model)
    if against and frozen.config.quantizer == "none":
        raise ConfigError(f"{frozen.name} has no quantizer, so it has no rate to compare; leave --against out")
    published = {}
    for name in against:
        if name not in CLASSIC_CODECS:
            try:
                published[name] = published_curve(name)
            except ValueError as error:
                raise click.UsageError(f"{error}; or one of {', '.join(CLASSIC_CODECS)}") from error
    images: list[tuple[str, Any]] | ImageReader
    if mnist:
        from ohmq.datasets.mnist import load_mnist

        pixels = load_mnist(data_base_path, mnist)  # type: ignore[arg-type]
        images = [(f"{number:05d}", image) for number, image in enumerate(pixels[:limit])]
    else:
        grey = frozen.config.image_channels == 1
        images = ImageReader(inputs, grey=grey, report=echo_error, limit=limit, max_pixels=max_pixels)
    data = f"MNIST {mnist}" if mnist else ", ".join(inputs)
    options = EvaluationOptions(
        fractions=fractions or (-1,),
        channels=channels,
        cut=cut,
        effort=effort,
        metrics=metrics,
        tune=tune,
        device=device,
        decoder=decoder,
    )
    with progress_bar(len(images), "evaluate") as update:
        evaluation = evaluate_set(frozen, images, options, data=data, progress=update)
    result = evaluation.result
    if output_dir is not None:
        write_evaluation(evaluation, output_dir)
    if not as_json:
        print_rate_points(result.points, result.data)
    failed = images.failed if isinstance(images, ImageReader) else 0
    echo_skipped(failed)
    for name in against:
        anchor = published.get(name) or classic_curve(name, (pixels for _, pixels in images))
        curve = result.curve("file_bpp" if name in CLASSIC_CODECS else "payload_bpp")
        try:
            difference = bd_rate(anchor.rates_bpp, anchor.psnr_db, curve.rates_bpp, curve.psnr_db)
        except ConfigError as error:  # The other results are still worth showing.
            click.echo(f"BD-rate against {name}: refused: {error}", err=True)
            failed += 1
        else:
            click.echo(
                f"BD-rate against {name}: {difference.percent:+.1f} % "
                f"(PSNR, {curve.rate}, {difference.low:.2f} to {difference.high:.2f} dB)",
                err=as_json,
            )
        if name in CLASSIC_CODECS:
            points = ", ".join(f"{r:.3f}: {q:.2f}" for r, q in zip(anchor.rates_bpp, anchor.psnr_db, strict=True))
            click.echo(f"  {anchor.label} ({anchor.source}; file bpp: dB): {points}", err=as_json)
    if as_json:
        click.echo(result.to_json())
    return 1 if failed else 0
