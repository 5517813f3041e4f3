"""``ohmq models``."""

import fnmatch
from typing import Any

import click

from ohmq.cli.output import print_json

__all__ = ["command"]


MADE_BY_EXPERIMENTS = ("mnist-ohm-c0-8-*", "mnist-ohm-c0-32-*", "mnist-published-*")
"""Patterns of experiments whose models a user of the shipped ones may want as well."""


@click.command(epilog="Example: ohmq models")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def command(as_json: bool) -> int:
    """List the models that come with this package, and the commands that make others."""
    from ohmq.experiments.catalogue import experiment_names, load_experiment
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
        return 0
    if not rows:
        click.echo("no models come with this installation")
    click.echo("made by one command each, `ohmq experiments list` shows more:")
    for name in experiment_names():
        if any(fnmatch.fnmatch(name, pattern) for pattern in MADE_BY_EXPERIMENTS):
            click.echo(f"  ohmq experiments run {name}  {load_experiment(name).description}")
    return 0
