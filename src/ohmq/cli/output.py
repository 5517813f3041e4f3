"""Output of the commands: progress on standard error; summaries, tables and JSON on standard output."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ohmq.evaluation.results import RatePoint

__all__ = ["echo_error", "finish", "phase_progress", "print_json", "print_rate_points", "progress_bar"]

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

    bars: list[Any] = []

    def close() -> None:
        while bars:
            bars.pop().__exit__(None, None, None)

    def show(phase: str, done: int, total: int) -> None:
        if done == 0 and total > 1:
            close()
            bars.append(click.progressbar(length=total, label=phase, file=sys.stderr).__enter__())
        elif bars:
            bars[0].update(done - bars[0].pos)
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


def finish(
    results: list[dict[str, Any]],
    failures: list[dict[str, Any]],
    as_json: bool,
    summary: str,
    totals: dict[str, Any] | None = None,
) -> int:
    """Print the outcome of a command on several files.

    Args:
        results: results of the files that were done.
        failures: the others, with the keys "input" and "error".
        as_json: whether to print JSON instead of a summary.
        summary: end of the summary's line, such as "read".
        totals: sums over the files, for JSON.

    Returns:
        The exit code: 1 if there are failures, else 0.
    """
    if as_json:
        print_json({"results": results, "failures": failures, **({"totals": totals} if totals else {})})
    elif len(results) + len(failures) > 1:
        failed = f"; {len(failures)} failed" if failures else ""
        click.echo(f"{len(results)} of {len(results) + len(failures)} files {summary}{failed}")
    return 1 if failures else 0


def print_json(value: Any) -> None:
    """Print a value as strict JSON on standard output."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))


def echo_error(message: str) -> None:
    """Print a message on standard error."""
    click.echo(message, err=True)


def print_rate_points(points: "Sequence[RatePoint]") -> None:
    """Print a table of rate-distortion points, a line each.

    Args:
        points: points of a `ResultFile`.
    """
    click.echo("channels  estimated bpp  payload bpp  file bpp  PSNR dB    SSIM  MS-SSIM  encode s  decode s")
    for p in points:
        click.echo(
            f"{p.channels:8d}  {p.estimated_bpp:13.4f}  {p.payload_bpp:11.4f}  {p.file_bpp:8.4f}  {p.psnr_db:7.3f}"
            f"  {p.ssim:6.4f}  {p.ms_ssim:7.4f}  {p.encode_s:8.4f}  {p.decode_s:8.4f}"
        )
