"""``ohmq export``."""

from pathlib import Path

import click

__all__ = ["command"]


@click.command(epilog="Example: ohmq export runs/mnist-ohm/last.ckpt -o mnist-ohm.safetensors")
@click.argument("checkpoint")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The model file.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def command(checkpoint: str, output: Path, force: bool) -> int:
    """Freeze a checkpoint into one model file: weights, integer tables, provenance."""
    from ohmq.errors import ModelFileError
    from ohmq.files import check_output
    from ohmq.model_file import resolve_model, save_model

    if output.suffix != ".safetensors":
        raise ModelFileError(f"{output}: a model file ends in .safetensors")
    check_output(output, force=force)
    frozen = resolve_model(checkpoint)
    save_model(frozen, output, force=force)
    click.echo(f"{output}: {frozen.config.to_dict()['family']} model {frozen.model_id.hex()}, "
               f"{output.stat().st_size:,} bytes")  # fmt: skip
    return 0
