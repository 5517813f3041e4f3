"""``ohmq bulk``: code millions of images, in shards, in folders and object stores."""

import contextlib
import importlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from ohmq.cli.bulk_options import (
    engine_fields,
    engine_options,
    make_job,
    measure_option,
    output_options,
    places_argument,
    source_options,
)
from ohmq.cli.options import COMPILED, DEVICE, FRACTION, encoder_options, positive
from ohmq.cli.output import SECONDS_BETWEEN_LINES, echo_error, print_json

if TYPE_CHECKING:
    from ohmq.bulk.driver import BulkProgress, BulkSummary
    from ohmq.bulk.job import BulkJob

__all__ = ["command"]

STOPPED = 130
"""Exit code of a job that Ctrl-C or SIGTERM stopped."""
LINES_OF_FAULTS = 20
"""Largest number of faults that ``verify`` prints."""
_OTHER_MODULES = {"plan": "ohmq.cli.bulk_plan", "status": "ohmq.cli.bulk_status"}
_ORDER = ("plan", "compress", "decompress", "transcode", "truncate", "status", "verify", "retry")


class _BulkGroup(click.Group):
    """A group whose commands plan and status lie in modules of their own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_ORDER)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _OTHER_MODULES:
            return super().get_command(ctx, name)
        found = importlib.import_module(_OTHER_MODULES[name]).command
        assert isinstance(found, click.Command)
        return found


@click.group(cls=_BulkGroup)
def command() -> None:
    """Code millions of images: shards, object storage, processes or a Ray cluster.

    Sources are folders, files, glob and brace patterns and URLs (s3://, gs://, az://, hf://, https://), with single files,
    WebDataset tar shards or Parquet files. The target is a folder, a URL, or a pattern such as s3://lake/ohm/data-{}.tar.
    A job that was stopped goes on when the same command is given again.

    \b
    Example:
        ohmq bulk compress photos/ archive/ -j 8
        ohmq bulk status archive/
        ohmq bulk verify archive/ --against-sources
    """


_json = click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
_quiet = click.option("--quiet", is_flag=True, help="Show no progress.")


@command.command("compress", epilog="Example: ohmq bulk compress photos/ archive/ --bpp 0.3 -j 8")
@places_argument
@click.option("-m", "--model", default="photo", show_default=True, help="Shipped name, model file or checkpoint.")
@encoder_options
@measure_option
@source_options
@output_options
@engine_options
@_json
@_quiet
def _compress(places: tuple[str, ...], as_json: bool, quiet: bool, **values: Any) -> int:
    """Turn images into .ohm files."""
    return _run(make_job("compress", places, values), as_json, quiet)


@command.command("decompress", epilog="Example: ohmq bulk decompress archive/ images/ --format png")
@places_argument
@click.option(
    "-m",
    "--model",
    "decode_model",
    default="",
    help="Shipped name, model file or checkpoint.  [default: the shipped model that each file names]",
)
@click.option("--format", "image_format", default="png", show_default=True, help="Format of the images.")
@click.option(
    "--max-pixels", type=click.IntRange(1), default=2**27, show_default=True, help="Refuse images of more pixels."
)
@source_options
@output_options
@engine_options
@_json
@_quiet
def _decompress(places: tuple[str, ...], as_json: bool, quiet: bool, **values: Any) -> int:
    """Turn .ohm files into images."""
    from ohmq.imaging.files import SAVE_FORMATS

    values["image_format"] = values["image_format"].lower().lstrip(".")
    if f".{values['image_format']}" not in SAVE_FORMATS:
        formats = ", ".join(name.lstrip(".") for name in SAVE_FORMATS)
        raise click.BadParameter(
            f"cannot write {values['image_format']!r}; choose from {formats}", param_hint="--format"
        )
    return _run(make_job("decompress", places, values), as_json, quiet)


@command.command("transcode", epilog="Example: ohmq bulk transcode archive/ smaller/ --quality 50")
@places_argument
@click.option("-m", "--model", default="photo", show_default=True, help="Model of the new files.")
@click.option(
    "--decode-model",
    default="",
    help="Model of the files that are read.  [default: the shipped model that each file names]",
)
@encoder_options
@measure_option
@source_options
@output_options
@engine_options
@_json
@_quiet
def _transcode(places: tuple[str, ...], as_json: bool, quiet: bool, **values: Any) -> int:
    """Decode .ohm files and code them again, with another model or other options."""
    return _run(make_job("transcode", places, values), as_json, quiet)


@command.command("truncate", epilog="Example: ohmq bulk truncate archive/ previews/ --max-bytes 4000")
@places_argument
@click.option("--layers", "num_layers", type=click.IntRange(1), help="Keep this number of layers.")
@click.option("--channels", type=click.IntRange(1), help="Keep layers of at most this many channels.")
@click.option("--fraction", type=FRACTION, help="Keep layers of at most this fraction of the file's channels.")
@click.option("--max-bytes", type=click.IntRange(1), help="Keep layers up to a file of at most this many bytes.")
@click.option(
    "--bpp", type=float, callback=positive, help="Keep layers up to a file of at most this many bits per pixel."
)
@click.option(
    "--psnr",
    type=float,
    callback=positive,
    help="Keep the fewest layers that reach this PSNR in dB, by the file's table.",
)
@source_options
@output_options
@engine_options
@_json
@_quiet
def _truncate(places: tuple[str, ...], as_json: bool, quiet: bool, **values: Any) -> int:
    """Cut .ohm files to a lower bitrate, without a model. Give exactly one limit."""
    limits = ("num_layers", "channels", "fraction", "max_bytes", "bpp", "psnr")
    cut = {name: limit for name in limits if (limit := values.pop(name)) is not None}
    if len(cut) != 1:
        raise click.UsageError("give exactly one of --layers, --channels, --fraction, --max-bytes, --bpp and --psnr")
    return _run(make_job("truncate", places, {**values, "cut": cut}), as_json, quiet)


@command.command("retry", epilog="Example: ohmq bulk retry archive/")
@click.argument("target")
@click.option("--failed-only", is_flag=True, help="Leave out shards that are not finished yet.")
@engine_options
@_json
@_quiet
def _retry(target: str, failed_only: bool, as_json: bool, quiet: bool, **values: Any) -> int:
    """Try the images that failed again, and do the shards that are not finished.

    Shards with failures are written anew; what is good in them is copied, not coded again.
    """
    from ohmq.bulk.retry import retry

    with _progress(quiet) as (on_progress, _):
        summary = retry(target, on_progress=on_progress, failed_only=failed_only, **engine_fields(values))
    return _finish(summary, as_json)


def _percentage(context: click.Context, parameter: click.Parameter, value: str) -> float:
    try:
        sample = float(value[:-1]) / 100 if value.endswith("%") else float(value)
    except ValueError:
        sample = -1
    if not 0 <= sample <= 1:
        raise click.BadParameter(f"{value!r} is neither a percentage such as 1% nor a fraction of 1")
    return sample


@command.command("verify", epilog="Example: ohmq bulk verify archive/ --against-sources --sample 1%")
@click.argument("target")
@click.option(
    "--against-sources", is_flag=True, help="Read the sources of the sample too: same bytes as were coded, and PSNR."
)
@click.option(
    "--sample",
    default="100%",
    show_default=True,
    callback=_percentage,
    help="Images to decode: a percentage or a fraction of 1. All outputs are read, whatever it is.",
)
@DEVICE
@COMPILED
@_json
@_quiet
def _verify(
    target: str,
    against_sources: bool,
    sample: float,
    device: str,
    compiled: bool | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Check that outputs are there and unchanged, and decode to the symbols that were coded."""
    from ohmq.bulk.verify import verify

    last = time.monotonic()

    def tell(done: int, shards: int) -> None:
        nonlocal last
        if not quiet and time.monotonic() - last >= SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            echo_error(f"verify: {done} of {shards} shards")

    report = verify(
        target, against_sources=against_sources, sample=sample, device=device, compiled=compiled, on_progress=tell
    )
    if as_json:
        print_json({**report.__dict__, "faults": [fault.__dict__ for fault in report.faults]})
    else:
        for fault in report.faults[:LINES_OF_FAULTS]:
            echo_error(f"ohmq: shard {fault.shard:06d}, {_printable(fault.place)}: {_printable(fault.message)}")
        if len(report.faults) > LINES_OF_FAULTS:
            echo_error(f"ohmq: and {len(report.faults) - LINES_OF_FAULTS} faults more; --json lists all")
        click.echo(
            f"{report.shards} shards, {report.outputs} outputs, {report.images} images: {len(report.faults)} faults; "
            f"{report.decoded} decoded"
            + (f", {report.sources} sources compared" if against_sources else "")
            + (f", lowest PSNR {report.lowest_psnr_db:.2f} dB" if report.lowest_psnr_db is not None else "")
            + (f"; {report.failed} images failed in the job" if report.failed else "")
            + (f"; {report.unfinished} shards not finished" if report.unfinished else "")
        )
    return 1 if report.faults else 0


def _run(job: "BulkJob", as_json: bool, quiet: bool) -> int:
    from ohmq.bulk.driver import run

    with _progress(quiet) as (on_progress, on_plan):
        summary = run(job, on_progress=on_progress, on_plan=on_plan)
    return _finish(summary, as_json)


def _finish(summary: "BulkSummary", as_json: bool) -> int:
    """Print the summary; returns the exit code."""
    if as_json:
        print_json(summary.__dict__)
    else:
        done = summary.images - summary.failed
        text = f"{done} of {summary.images} images done, {summary.bytes_in:,} -> {summary.bytes_out:,} bytes"
        if summary.pixels:
            text += f", {8 * summary.bytes_out / summary.pixels:.3f} bpp"
        if summary.shards_run:
            text += f"; {summary.images_per_s:.1f} images/s"
        if summary.failed:
            text += f"; {summary.failed} failed (ohmq bulk status --failures FILE lists them)"
        if summary.shards_done < summary.shards:
            text += f"; {summary.shards - summary.shards_done} of {summary.shards} shards left"
        click.echo(text)
    if summary.stopped:
        echo_error("stopped; the same command goes on from here")
        return STOPPED
    return 1 if summary.failed else 0


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[tuple[Callable[["BulkProgress"], None] | None, Callable[[int], None] | None]]:
    """Show progress on standard error: a bar on a terminal, else a line each half minute."""
    if quiet:
        yield None, None
        return
    terminal = sys.stderr.isatty()
    last = time.monotonic()
    bars: list[Any] = []

    def due() -> bool:
        nonlocal last
        if time.monotonic() - last < SECONDS_BETWEEN_LINES:
            return False
        last = time.monotonic()
        return True

    def on_plan(count: int) -> None:
        if due():
            echo_error(f"bulk: {count} sources listed")

    def on_progress(progress: "BulkProgress") -> None:
        if not terminal:
            if due():
                echo_error(f"bulk: {progress}")
            return
        if not bars:
            bars.append(
                click.progressbar(
                    length=progress.shards, label="shards", file=sys.stderr, item_show_func=lambda item: item
                ).__enter__()
            )
        text = f"{progress.images_per_s:.1f} images/s, {progress.failed} failed"
        bars[0].update(progress.shards_done - bars[0].pos, text)

    try:
        yield on_progress, on_plan
    finally:
        if bars:
            bars[0].__exit__(None, None, None)


def _printable(text: str) -> str:
    """Return a text that any terminal takes: bytes that are not UTF-8 are written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()
