"""``ohmq export``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ohmq.model_files.frozen_model import FrozenModel

__all__ = ["command"]


@click.command(epilog="Example: ohmq export runs/mnist-ohm/last.ckpt -o mnist-ohm.safetensors")
@click.argument("checkpoint")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Model file to write.")
@click.option(
    "--onnx",
    type=click.Path(path_type=Path, file_okay=False),
    help="Or: folder to write, which runs without torch (--runtime onnx).",
)
@click.option(
    "--filters",
    metavar="DATA|MODEL",
    help="For photo models, with -o: fit a post-filter to the training photos of a folder, laid out as for ohmq train --data, "
    "or take the post-filter of a model that decodes alike.  [default: keep the one that there is]",
)
@click.option(
    "--filter-photos",
    "count",
    type=click.IntRange(min=1),
    help="Number of photos to fit the post-filter to, evenly spread.  [default: 240]",
)
@click.option(
    "--thumbnails",
    metavar="DATA",
    help="For photo models, with -o: fit the maps that thumbnails are computed with to the training photos of a folder.  "
    "[default: keep those that there are]",
)
@click.option("--force", is_flag=True, help="Overwrite existing files.")
def command(
    checkpoint: str,
    output: Path | None,
    onnx: Path | None,
    filters: str | None,
    count: int | None,
    thumbnails: str | None,
    force: bool,
) -> int:
    """Freeze a checkpoint into one model file (weights, integer tables, provenance), or any model into an ONNX folder."""
    if (output is None) == (onnx is None):
        raise click.UsageError("give one of -o and --onnx")
    if onnx is not None:
        for option, value in (("--filters", filters), ("--thumbnails", thumbnails)):
            if value is not None:
                raise click.UsageError(
                    f"{option} goes into a model file: give -o, and export that with --onnx afterwards"
                )
        _export_folder(checkpoint, onnx, force=force)
    elif output is not None:
        _export_file(checkpoint, output, filters, count, thumbnails, force=force)
    return 0


def _export_folder(checkpoint: str, folder: Path, *, force: bool) -> None:
    from ohmq.cli.output import phase_progress
    from ohmq.model_files.export_onnx import export_onnx, graph_names
    from ohmq.model_files.resolve import resolve_model
    from ohmq.utils.atomic_write import check_output

    frozen = resolve_model(checkpoint)
    files = [folder / name for name in (*(f"{graph}.onnx" for graph in graph_names(frozen)), "model.safetensors")]
    for file in files:
        check_output(file, force=force)
    with phase_progress(sys.stderr.isatty()):
        export_onnx(frozen, folder, force=force)
    size = sum(file.stat().st_size for file in files)
    click.echo(f"{folder}: model {frozen.model_id.hex()} for ONNX Runtime, {size:,} bytes")


def _export_file(
    checkpoint: str, output: Path, filters: str | None, count: int | None, thumbnails: str | None, *, force: bool
) -> None:
    from ohmq.errors import ModelFileError
    from ohmq.model_files.frozen_model import save_model
    from ohmq.model_files.resolve import resolve_model
    from ohmq.utils.atomic_write import check_output

    if output.suffix != ".safetensors":
        raise ModelFileError(f"{output}: a model file ends in .safetensors")
    check_output(output, force=force)
    frozen = resolve_model(checkpoint)
    version = ""
    if filters is not None:
        frozen = _with_filters(frozen, filters, count)
    if thumbnails is not None:
        frozen = _with_thumbnails(frozen, thumbnails)
    if filters is not None or thumbnails is not None:
        version = f", transforms {frozen.transforms_id.hex()}"
    save_model(frozen, output, force=force)
    size = output.stat().st_size
    click.echo(f"{output}: {frozen.config.family} model {frozen.model_id.hex()}{version}, {size:,} bytes")


def _with_filters(frozen: "FrozenModel", filters: str, count: int | None) -> "FrozenModel":
    """Fit a post-filter to a folder of photos, or take that of another model."""
    if not Path(filters).is_dir():
        from ohmq.model_files.frozen_model import with_post_filter_of
        from ohmq.model_files.resolve import resolve_model

        if count is not None:
            raise click.UsageError(f"--filter-photos: {filters} is no folder of photos; leave it out")
        return with_post_filter_of(frozen, resolve_model(filters))
    from ohmq.cli.output import progress_bar
    from ohmq.training.photo.fit_postfilter import PHOTOS, filter_photos, fit_filters

    photos = filter_photos(Path(filters), count or PHOTOS)
    with progress_bar(len(photos), "fitting filters") as progress:
        return fit_filters(frozen, photos, progress)


def _with_thumbnails(frozen: "FrozenModel", folder: str) -> "FrozenModel":
    """Fit maps for thumbnails to a folder of photos."""
    from ohmq.cli.output import progress_bar
    from ohmq.training.photo.fit_postfilter import filter_photos
    from ohmq.training.photo.fit_thumbnails import PHOTOS, fit_thumbnails

    photos = filter_photos(Path(folder), PHOTOS)
    with progress_bar(len(photos), "fitting thumbnails") as progress:
        return fit_thumbnails(frozen, photos, progress)
