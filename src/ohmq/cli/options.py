"""Options that several commands share."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

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
    "METRICS",
    "OUTPUT",
    "SCALE",
    "SKIP_EXISTING",
    "TUNE",
    "NumberRange",
    "check_skip",
    "encoder_options",
    "positive",
]

_Function = TypeVar("_Function", bound=Callable[..., Any])


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


class _MetricList(click.ParamType):
    """Names of metrics with commas between them, or "none"; converted to a tuple."""

    name = "NAMES"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from ohmq.evaluation import qualities

        if not isinstance(value, str):
            return value
        names = [] if value == "none" else [name.strip() for name in value.split(",")]
        if unknown := [name for name in names if name not in qualities.METRICS]:
            self.fail(f"no metric {unknown[0]!r}; choose from {', '.join(qualities.METRICS)}, or none", param, ctx)
        return tuple(metric for metric in qualities.METRICS if metric in names)


METRICS = click.option(
    "--metrics",
    type=_MetricList(),
    help="Metrics to measure beside PSNR, with commas between them: ssim, ms-ssim, ssimulacra2, psnr-hvs-m; or none.  "
    "[default: all; for models of grey images ssim,ms-ssim]",
)
"""The option ``--metrics``; None if it was not given."""

OUTPUT = click.option(
    "-o",
    "--output",
    callback=_named,
    help="File, folder (with a slash at its end, or one that exists) or - for standard output.  [default: beside the input]",
)
"""The option ``--output``, for `ohmq.cli.jobs.place_outputs`; None if it was not given."""

SCALE = click.option(
    "--scale",
    type=click.Choice(["1", "8", "16"]),
    default="1",
    callback=lambda context, parameter, value: int(value),
    show_default=True,
    help="Thumbnails: width and height divided by this. Photo models need a fraction of the time for them.",
)
"""The option ``--scale``, an integer."""

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


class _LayerLimit(click.ParamType):
    """A number of layers from 1, or the word "all"."""

    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value in ("all", 1):
            return value
        return click.IntRange(1).convert(value, param, ctx)


def positive(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """Refuse a number that is not positive and finite; None: not given."""
    if value is not None and not 0 < value < math.inf:
        raise click.BadParameter(f"{value} is not a positive number")
    return value


TUNE = click.option(
    "--tune",
    type=click.Choice(["visual", "psnr"]),
    help="Spend bits where eyes see errors (visual), or for the highest PSNR. Decoding is the same.  "
    "[default: visual for photo models, but psnr with --psnr]",
)
"""The option ``--tune``."""

_ENCODER_OPTIONS = (
    click.option(
        "-q",
        "--quality",
        type=NumberRange(0, 100),
        help="Quality, 0 to 100; equal numbers look about equally good.  [default: 80; models without a quality scale: "
        "all channels]",
    ),
    click.option("--fraction", type=FRACTION, help="Or: the fraction of the adaptive range of channels, 0 to 1."),
    click.option("--channels", type=click.IntRange(1), help="Or: the number of channels."),
    click.option(
        "--bpp",
        type=float,
        callback=positive,
        help="Or: write the largest file of at most this rate, in bits per pixel.",
    ),
    click.option(
        "--max-bytes", type=click.IntRange(1), help="Or: write the largest file of at most this size, in bytes."
    ),
    click.option(
        "--psnr",
        type=float,
        callback=positive,
        help="Or: write the smallest file that decodes to at least this PSNR, in dB.",
    ),
    click.option(
        "--ssimulacra2",
        type=NumberRange(0, 100, min_open=True),
        help="Or: write the smallest file that decodes to at least this SSIMULACRA2 score, up to 100: 30 is low, 50 medium, 70 "
        "high, 90 very high quality.",
    ),
    click.option(
        "--residual",
        type=NumberRange(1, 255),
        metavar="STEP",
        help="Or: write all channels, and a residual with this quantization step in grey levels; 4 is about 41 dB. "
        "--bpp, --max-bytes, --psnr and --ssimulacra2 add a residual themselves where they need it.",
    ),
    click.option(
        "--effort",
        type=click.IntRange(0, 2),
        help="Number of full refinement passes of the encoder. More passes take longer and give more quality for the same "
        "bytes.  "
        "[default: 1 for photo models, else 0]",
    ),
    TUNE,
    click.option(
        "--layers",
        type=_LayerLimit(),
        metavar="N|all",
        default=1,
        show_default=True,
        help='Largest number of layers. Between layers a file can be cut; "all" ends one at each cut point of the model.',
    ),
    click.option(
        "--fixed-rate",
        is_flag=True,
        help="Code without an entropy coder: the size then depends on the image's dimensions and the number of channels only.",
    ),
    click.option(
        "--flatten", is_flag=True, help="Flatten transparent images onto white.  [default: keep their mask exactly]"
    ),
    click.option(
        "--keep-metadata",
        is_flag=True,
        help="Keep EXIF, XMP, an sRGB profile, the resolution and the file's time.  [default: drop them]",
    ),
    click.option(
        "--psnr-table",
        is_flag=True,
        help="Store the PSNR of each layer in the file, for ohmq truncate --psnr; goes with --layers.",
    ),
    MAX_PIXELS,
    click.option(
        "--tile",
        type=click.IntRange(0, 256),
        help="Code in tiles of N x N blocks of 16 x 16 pixels; 0 codes in one piece.  [default: 128 above 8 megapixels, else 0]",
    ),
)


def encoder_options(function: _Function) -> _Function:
    """Decorate a command with the options of `ohmq.encoder.options.EncodeOptions`, by the names of its attributes."""
    for option in reversed(_ENCODER_OPTIONS):
        function = option(function)
    return function
