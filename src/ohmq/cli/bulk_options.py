"""Options that the commands of ``ohmq bulk`` share, and the job that they describe."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ohmq.cli.options import COMPILED, DEVICE, NumberRange, positive

if TYPE_CHECKING:
    from ohmq.bulk.job import BulkJob

__all__ = [
    "engine_fields",
    "engine_options",
    "make_job",
    "measure_option",
    "output_options",
    "places_argument",
    "source_options",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])

_MINUTE_S = 60.0


def _all(options: tuple[Callable[[Any], Any], ...]) -> Callable[[_Function], _Function]:
    def decorate(function: _Function) -> _Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


places_argument = click.argument("places", nargs=-1, required=True, metavar="SOURCE... TARGET")
"""Sources and, last, the target."""

source_options = _all(
    (
        click.option(
            "--from-list",
            metavar="FILE",
            help="Also take the paths or URLs of this file, or of this URL, one a line.",
        ),
        click.option("--image-column", metavar="NAME", help="Column of Parquet sources that holds the images."),
        click.option(
            "--update",
            is_flag=True,
            help="List the sources again, and take what is new or changed since the last time.",
        ),
    )
)
"""Options that say which images a job takes."""

output_options = _all(
    (
        click.option(
            "--layout",
            type=click.Choice(["tar", "files", "parquet"]),
            help="Outputs: tar or Parquet shards, or a file an image.  [default: tar; Parquet for Parquet sources]",
        ),
        click.option(
            "--images-per-shard",
            type=click.IntRange(1, 100_000),
            default=1000,
            show_default=True,
            help="Largest number of single files in a shard.",
        ),
        click.option(
            "--bytes-per-shard",
            type=click.IntRange(1),
            default=256 * 2**20,
            show_default=True,
            help="Size in bytes at which a shard of single files is full.",
        ),
    )
)
"""Options that say how outputs are laid out."""

measure_option = click.option(
    "--measure", is_flag=True, help="Decode each image after coding, and note its PSNR in the manifest."
)
"""The option ``--measure``."""

engine_options = _all(
    (
        click.option(
            "--engine",
            type=click.Choice(["local", "ray"]),
            default="local",
            show_default=True,
            help="Processes of this machine, or Ray.",
        ),
        click.option(
            "-j", "--workers", type=click.IntRange(1), help="Number of shards done at once.  [default: one a core]"
        ),
        click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads of a worker."),
        click.option(
            "--address",
            help="Ray cluster: auto or HOST:PORT.  [default: the cluster of RAY_ADDRESS, else a Ray of this machine]",
        ),
        click.option(
            "--gpus-per-worker",
            type=NumberRange(0),
            default=0.0,
            show_default=True,
            help="GPUs of a worker of a Ray cluster; a fraction shares one.",
        ),
        DEVICE,
        COMPILED,
        click.option(
            "--image-timeout",
            type=float,
            callback=positive,
            default=600.0,
            show_default=True,
            help="Seconds after which an image is given up.",
        ),
        click.option(
            "--stall-timeout",
            type=float,
            callback=positive,
            default=30.0,
            show_default=True,
            help="Minutes without a finished shard after which the job ends.",
        ),
        click.option(
            "--max-attempts",
            type=click.IntRange(1),
            default=5,
            show_default=True,
            help="Number of times that a shard is tried.",
        ),
    )
)
"""Options that say where and how the work is done; none changes an output."""

_ENGINE = ("engine", "workers", "threads", "address", "gpus_per_worker", "device", "compiled", "max_attempts")


def engine_fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a job that `engine_options` set.

    Args:
        values: values of the options, by their names.
    """
    fields = {name: values[name] for name in _ENGINE}
    fields["image_timeout_s"] = values["image_timeout"]
    fields["stall_timeout_s"] = values["stall_timeout"] * _MINUTE_S
    return fields


def make_job(operation: str, places: tuple[str, ...], values: dict[str, Any]) -> "BulkJob":
    """Make a job of the values of a command's options; those of other commands may be missing.

    Args:
        operation: operation of the job.
        places: sources and, last, the target.
        values: values of the options, by their names.

    Raises:
        click.UsageError: an option out of range, or options that do not go together.
        ConfigError: places that cannot be.
    """
    from ohmq.bulk.job import BulkJob
    from ohmq.encoder.options import EncodeOptions

    if len(places) < 2 and not values.get("from_list"):
        raise click.UsageError("give at least one source, and last the target")
    names: tuple[str, ...] = (
        "model",
        "decode_model",
        "image_format",
        "cut",
        "layout",
        "images_per_shard",
        "bytes_per_shard",
    )
    names += ("image_column", "from_list", "update", "measure")
    fields = {name: values[name] for name in names if name in values}
    options = {name: values[name] for name in EncodeOptions.names() if name in values}
    try:
        return BulkJob(
            operation=operation,  # type: ignore[arg-type]
            sources=places[:-1],
            target=places[-1],
            options=EncodeOptions(**options),
            **fields,
            **engine_fields(values),
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
