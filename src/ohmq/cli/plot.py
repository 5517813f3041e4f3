"""``ohmq plot``: draw figures from result files."""

from pathlib import Path

import click

__all__ = ["command"]


@click.command(epilog="Example: ohmq plot runs/experiments/results -o plots")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output-dir", type=click.Path(path_type=Path), required=True, help="Folder of the figures.")
@click.option(
    "--figure",
    "names",
    multiple=True,
    help="Figure to draw: lambda-c0, lambda-c8, quantizers, training, kodak or bitrates. Repeatable.  [default: all]",
)
@click.option(
    "--metric",
    type=click.Choice(["psnr", "ms-ssim", "ssimulacra2", "psnr-hvs-m"]),
    default="psnr",
    show_default=True,
    help="Quality to draw. Another one than psnr is drawn in the figure kodak alone, without published curves.",
)
@click.option("--format", "extension", type=click.Choice(["png", "svg", "pdf"]), default="png", show_default=True)
@click.option("--force", is_flag=True, help="Overwrite existing files.")
def command(
    folders: tuple[Path, ...], output_dir: Path, names: tuple[str, ...], metric: str, extension: str, force: bool
) -> int:
    """Draw figures from the result files in folders and below; published curves are dotted.

    A figure shows the results that there are; the missing ones are named, with the command that makes them.
    """
    from ohmq.errors import ConfigError
    from ohmq.evaluation.figures import FIGURES, draw_figures, read_results
    from ohmq.evaluation.qualities import QUALITIES

    if unknown := sorted(set(names) - set(FIGURES)):
        raise click.UsageError(f"no figure {', '.join(unknown)}; choose from {', '.join(FIGURES)}")
    if metric != "psnr" and set(names) - {"kodak"}:
        raise click.UsageError(f"--metric {metric} is drawn in the figure kodak alone")
    quality = next(quality for quality, info in QUALITIES.items() if (info.metric or "psnr") == metric)
    drawn = draw_figures(
        read_results(folders),
        names or (tuple(FIGURES) if metric == "psnr" else ("kodak",)),
        output_dir,
        quality=quality,
        extension=f".{extension}",
        force=force,
    )
    for figure in drawn:
        click.echo(f"{figure.figure}: {figure.path or 'not drawn: there is no result for it'}")
        if figure.missing:
            click.echo(f"{figure.figure}: missing: {', '.join(figure.missing)} (ohmq experiments run NAME)", err=True)
    if not any(figure.path for figure in drawn):
        raise ConfigError("nothing to draw: none of the results belongs to these figures")
    return 0
