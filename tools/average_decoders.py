"""Average the weights of a decoder over several model files: the mean of two trainings is often better than either.

python tools/average_decoders.py best photo.safetensors 0.25 eighth.safetensors 0.25 ninth.safetensors 0.5 -o out.safetensors

The models must have the same bitstream id, and the decoder the same size in all. All else, but the post-filter of the decoder,
is that of the first model; the post-filter is that of the last.
"""

from pathlib import Path
from typing import Any

import click
import numpy as np

from ohmq.cli.output import echo_error
from ohmq.errors import ConfigError, OhmqError
from ohmq.model_files.frozen_model import FrozenModel, load_model, save_model, with_decoder
from ohmq.postfilter.filters import PostFilter
from ohmq.utils.provenance import command_line


def averaged(name: str, models: list[FrozenModel], shares: list[float]) -> FrozenModel:
    """Return the first model with the mean of a decoder.

    Args:
        name: of the decoder.
        models: two or more.
        shares: of each in the mean.

    Raises:
        ConfigError: models that do not fit together, or shares that do not sum to 1.
    """
    if abs(sum(shares) - 1) > 1e-6 or min(shares) <= 0:
        raise ConfigError(f"the shares are {shares}; they must be positive and sum to 1")
    first, last = models[0], models[-1]
    for model in models:
        if model.model_id != first.model_id:
            raise ConfigError(f"{model.name} has the bitstream id {model.model_id.hex()}, not {first.model_id.hex()}")
        if model.decoders.get(name) != first.decoders.get(name) or name not in model.decoders:
            raise ConfigError(f"{model.name} has no decoder {name!r} of the size of that of {first.name}")
    parts: list[dict[str, np.ndarray[Any, Any]]] = []
    for model in models:
        prefix = f"decoders.{name}."
        parts.append({key.removeprefix(prefix): model.tensors[key] for key in model.tensors if key.startswith(prefix)})
    filters = {key.removeprefix("filters."): value for key, value in parts[-1].items() if key.startswith("filters.")}
    weights = {
        key: np.tensordot(np.array(shares, np.float32), np.stack([part[key].astype(np.float32) for part in parts]), 1)
        for key in parts[0]
        if not key.startswith("filters.")
    }
    records = [dict(model.provenance["decoders"][name]) for model in models]
    provenance = {
        "command": command_line(),
        "mean_of": [{"share": share, **record} for share, record in zip(shares, records, strict=True)],
        "filters": records[-1].get("filters", {}),
    }
    return with_decoder(first, name, last.decoders[name], weights, provenance, PostFilter.from_tensors(filters))


@click.command()
@click.argument("decoder")
@click.argument("models", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Model file to write.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def command(decoder: str, models: tuple[str, ...], output: Path, force: bool) -> None:
    """Write a model with the mean of a DECODER; MODELS are files, each followed by its share."""
    if len(models) < 4 or len(models) % 2:
        raise click.UsageError("give two or more model files, each followed by its share")
    try:
        shares = [float(share) for share in models[1::2]]
        model = averaged(decoder, [load_model(Path(path)) for path in models[::2]], shares)
        save_model(model, output, force=force)
    except (OhmqError, ValueError) as error:
        echo_error(str(error))
        raise SystemExit(1) from error
    click.echo(f"{output}: transforms {model.transforms_id.hex()}")


if __name__ == "__main__":
    command()
