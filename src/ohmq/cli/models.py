"""``ohmq models``."""

from typing import Any

import click

from ohmq.cli.output import print_json

__all__ = ["command"]


@click.command(epilog="Example: ohmq models")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(as_json: bool) -> int:
    """List the models that come with this package."""
    from ohmq.model_files.frozen_model import load_model
    from ohmq.model_files.pretrained import pretrained_models

    rows: list[dict[str, Any]] = []
    for name, path in pretrained_models().items():
        frozen = load_model(path, name)
        config = frozen.config
        rows.append(
            {
                "name": name,
                "model_id": frozen.model_id.hex(),
                "transforms_id": frozen.transforms_id.hex(),
                "bytes": path.stat().st_size,
                "parameters": sum(p.numel() for p in frozen.model.parameters()),
                "config": config.to_dict(),
                "provenance": frozen.provenance,
            }
        )
        if not as_json:
            click.echo(
                f"{name}  id {rows[-1]['model_id']}  {config.family}  {config.quantizer}  "
                f"channels {config.channels_min} to {config.channels_max}, {config.num_symbols} symbols, "
                f"{config.prior} prior  {rows[-1]['bytes']:,} bytes"
            )
    if as_json:
        print_json(rows)
    elif not rows:
        click.echo("no models come with this installation")
    return 0
