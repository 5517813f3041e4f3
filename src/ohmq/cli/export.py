"""``ohmq export``."""

from pathlib import Path

import click

__all__ = ["command"]


@click.command(epilog="Example: ohmq export runs/mnist-ohm/last.ckpt -o mnist-ohm.safetensors")
@click.argument("checkpoint")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The model file.")
@click.option("--onnx", type=click.Path(path_type=Path, file_okay=False), help="Or: a folder for --runtime onnx.")
@click.option(
    "--filters",
    metavar="DATA|MODEL",
    help="Photo models, with -o: fit filters after the synthesis to photos that lie where ohmq train --data finds them, or "
    "take those of a model that decodes alike.",
)
@click.option(
    "--filter-photos",
    "count",
    type=click.IntRange(min=1),
    help="How many of them, evenly spread.  [default: 240]",
)
@click.option("--force", is_flag=True, help="Overwrite existing files.")
def command(
    checkpoint: str, output: Path | None, onnx: Path | None, filters: str | None, count: int | None, force: bool
) -> int:
    """Freeze a checkpoint into one model file (weights, integer tables, provenance), or any model into an ONNX folder."""
    from ohmq.errors import ModelFileError
    from ohmq.model_files.frozen_model import save_model, with_post_filter_of
    from ohmq.model_files.resolve import resolve_model
    from ohmq.utils.atomic_write import check_output

    if (output is None) == (onnx is None):
        raise click.UsageError("give one of -o and --onnx")
    if output is None and filters is not None:
        raise click.UsageError("--filters goes into a model file: give -o, and export that with --onnx afterwards")
    if output is None:
        from ohmq.model_files.export_onnx import export_onnx
        from ohmq.model_files.onnx_folder import GRAPHS

        assert onnx is not None
        files = [onnx / name for name in (*(f"{graph}.onnx" for graph in GRAPHS), "model.safetensors")]
        for file in files:
            check_output(file, force=force)
        frozen = resolve_model(checkpoint)
        export_onnx(frozen, onnx, force=force)
        size = sum(file.stat().st_size for file in files)
        click.echo(f"{onnx}: model {frozen.model_id.hex()} for ONNX Runtime, {size:,} bytes")
        return 0
    if output.suffix != ".safetensors":
        raise ModelFileError(f"{output}: a model file ends in .safetensors")
    check_output(output, force=force)
    frozen = resolve_model(checkpoint)
    if filters is not None and not Path(filters).is_dir():
        if count is not None:
            raise click.UsageError(f"--filter-photos: {filters} is no folder of photos; leave it out")
        frozen = with_post_filter_of(frozen, resolve_model(filters))
    elif filters is not None:
        from ohmq.cli.output import progress_bar
        from ohmq.training.photo.fit_postfilter import PHOTOS, filter_photos, fit_filters

        photos = filter_photos(Path(filters), count or PHOTOS)
        with progress_bar(len(photos), "fitting filters") as progress:
            frozen = fit_filters(frozen, photos, progress)
    save_model(frozen, output, force=force)
    click.echo(f"{output}: {frozen.config.to_dict()['family']} model {frozen.model_id.hex()}, "
               f"{output.stat().st_size:,} bytes")  # fmt: skip
    return 0
