"""Options that several commands share."""

import math
from typing import Any

import click

from ohmq.cli.jobs import FEW_FILES
from ohmq.imaging.listing import IMAGE_EXTENSIONS

__all__ = [
    "COMPILED",
    "DECODER",
    "DEVICE",
    "FRACTION",
    "IMAGE_EXTENSIONS",
    "MAX_PIXELS",
    "OUTPUT",
    "SKIP_EXISTING",
    "NumberRange",
    "check_skip",
]


class NumberRange(click.FloatRange):
    """A range of floating-point numbers that refuses NaN, which click's own range accepts."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert an argument to a number in the range; anything else is wrong usage."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number


FRACTION = NumberRange(0, 1)
"""A fraction of the adaptive range of channels, 0 to 1."""

COMPILED = click.option(
    "--compiled/--no-compiled",
    default=None,
    help=f"Code with numba, if it is installed.  [default: for more than {FEW_FILES} files in a process]",
)
"""The option ``--compiled/--no-compiled``; `ohmq.cli.jobs.compiled_for` chooses its default."""


def _device(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value != "cpu":  # looking for others takes torch
        from ohmq.errors import ConfigError
        from ohmq.runtime.devices import find_device

        try:
            find_device(value)
        except ConfigError as error:
            raise click.BadParameter(str(error)) from error
    return value


DECODER = click.option(
    "--decoder",
    metavar="NAME",
    help="Decoder of the model: fast, standard or best, if it has them. All decode the same files.  [default: standard]",
)
"""The option ``--decoder``."""
DEVICE = click.option(
    "--device",
    default="cpu",
    callback=_device,
    show_default=True,
    help="Device that runs the transforms: cpu, cuda, cuda:1, mps, or auto for the first accelerator, if there is one.",
)
"""The option ``--device``."""


def _named(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value == "":
        raise click.BadParameter("an empty name")
    return value


MAX_PIXELS = click.option(
    "--max-pixels", type=click.IntRange(1), default=2**27, show_default=True, help="Refuse images of more pixels."
)
"""The option ``--max-pixels``; the default is `ohmq.bitstream.format.DEFAULT_MAX_PIXELS`."""

OUTPUT = click.option(
    "-o",
    "--output",
    callback=_named,
    help="File, folder (with a slash at its end, or one that exists) or - for standard output.  [default: beside the input]",
)
"""The option ``--output``, for `ohmq.cli.jobs.place_outputs`; None if it was not given."""

SKIP_EXISTING = click.option(
    "--skip-existing", is_flag=True, help="Skip files whose outputs exist, as when a stopped run is repeated."
)
"""The option ``--skip-existing``; see `check_skip`."""


def check_skip(skip_existing: bool, force: bool) -> None:
    """Refuse to skip outputs that exist and to overwrite them.

    Raises:
        click.UsageError: both options were given.
    """
    if skip_existing and force:
        raise click.UsageError("give --skip-existing or --force, not both")
