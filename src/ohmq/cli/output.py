"""Output of the commands: progress on standard error; summaries, tables and JSON on standard output."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from ohmq.utils.counting import counted

if TYPE_CHECKING:
    from ohmq.cli.jobs import Outcome
    from ohmq.evaluation.results import RatePoint

__all__ = [
    "echo_error",
    "echo_skipped",
    "finish",
    "phase_progress",
    "print_json",
    "print_rate_points",
    "progress_bar",
    "reserve_stdout",
]

SECONDS_BETWEEN_LINES = 30.0
"""Seconds between two lines of progress where standard error is no terminal."""


@contextlib.contextmanager
def progress_bar(length: int, label: str) -> Iterator[Callable[[int], Any]]:
    """Show the progress of long work on standard error: a bar on a terminal, else a line every half minute.

    Args:
        length: number of steps.
        label: name of the work.

    Yields:
        A function to call with the number of steps done since its last call.
    """
    if sys.stderr.isatty():
        with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
            yield bar.update
        return
    start = last_line = time.monotonic()
    done = 0

    def update(count: int) -> None:
        nonlocal done, last_line
        done += count
        now = time.monotonic()
        if now - last_line >= SECONDS_BETWEEN_LINES or (done == length and last_line > start):
            last_line = now
            step_s = (now - start) / done
            remaining_s = step_s * (length - done)
            pace = f"{1 / step_s:.1f} a second" if step_s < 1 else f"{step_s:.1f} s each"
            click.echo(f"{label}: {done} of {length}, {pace}, {math.ceil(remaining_s / 60)} min left", err=True)

    yield update


@contextlib.contextmanager
def phase_progress(visible: bool) -> Iterator[None]:
    """Show a progress bar for each phase of the work on an image in several windows or tiles.

    Args:
        visible: whether to show anything.
    """
    from ohmq.utils.progress import watch

    bars: dict[str, Any] = {}  # at most one: phases inside the phase that has a bar get none

    def close() -> None:
        while bars:
            bars.popitem()[1].__exit__(None, None, None)

    def show(phase: str, done: int, total: int) -> None:
        if done == 0 and total > 1 and not bars:
            bars[phase] = click.progressbar(length=total, label=phase, file=sys.stderr).__enter__()
        elif done and phase in bars:
            bars[phase].update(done - bars[phase].pos)
            if done == total:
                close()

    if not visible:
        yield
        return
    with watch(show):
        try:
            yield
        finally:
            close()


def finish(outcome: "Outcome", as_json: bool, summary: str, totals: dict[str, Any] | None = None) -> int:
    """Print the outcome of a command on several files.

    Args:
        outcome: outcome of the jobs.
        as_json: whether to print JSON instead of a summary.
        summary: end of the summary's line, such as "read".
        totals: sums over the files, for JSON.

    Returns:
        The exit code: 1 if there are failures, else 0.
    """
    count = sum(map(len, outcome))
    if as_json:
        print_json({**outcome._asdict(), **({"totals": totals} if totals else {})})
    elif count > 1 or outcome.skipped:
        skipped = f"; {len(outcome.skipped)} skipped, whose outputs exist" if outcome.skipped else ""
        failed = f"; {len(outcome.failures)} failed" if outcome.failures else ""
        click.echo(f"{len(outcome.results)} of {counted(count, 'file')} {summary}{skipped}{failed}")
    return 1 if outcome.failures else 0


def reserve_stdout() -> None:
    """Leave standard output to the bytes of a file: until the command ends, text goes to standard error."""
    if context := click.get_current_context(silent=True):
        context.with_resource(contextlib.redirect_stdout(sys.stderr))


def print_json(value: Any) -> None:
    """Print a value as strict JSON on standard output."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))


def echo_error(message: str) -> None:
    """Print a message on standard error."""
    click.echo(message, err=True)


def echo_skipped(count: int) -> None:
    """Print on standard error how many files could not be read, if there are any.

    Args:
        count: number of these files.
    """
    if count:
        echo_error(f"{counted(count, 'file')} skipped, which could not be read")


def print_rate_points(points: "Sequence[RatePoint]", name: str) -> None:
    """Print a table of rate-distortion points, a line each, below the name of the images.

    A model without a quantizer has no rates: the table shows a dash for each, and says why.

    Args:
        points: points of a `ResultFile`.
        name: name of the set of images.
    """
    click.echo(name)
    perceptual = [("SSIMULACRA2", "ssimulacra2"), ("PSNR-HVS-M", "psnr_hvs_m_db")]
    shown = [(name, field) for name, field in perceptual if not all(math.isnan(getattr(p, field)) for p in points)]
    names = "".join(f"{name}  " for name, _ in shown)
    click.echo(f"channels  estimated bpp  payload bpp  file bpp  PSNR dB    SSIM  MS-SSIM  {names}encode s  decode s")
    for p in points:
        numbers = [(p.estimated_bpp, 13, 4), (p.payload_bpp, 11, 4), (p.file_bpp, 8, 4), (p.psnr_db, 7, 3)]
        numbers += [(p.ssim, 6, 4), (p.ms_ssim, 7, 4), *((getattr(p, field), len(name), 3) for name, field in shown)]
        numbers += [(p.encode_s, 8, 4), (p.decode_s, 8, 4)]
        cells = ["-".rjust(width) if math.isnan(x) else f"{x:{width}.{digits}f}" for x, width, digits in numbers]
        click.echo("  ".join([f"{p.channels:8d}", *cells]))
    if all(math.isnan(p.file_bpp) for p in points):
        click.echo("no quantizer, no rate")
