"""src/ohmq/cli/output.py."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

__all__ = ["finish", "print_json", "progress_bar"]

SECONDS_BETWEEN_LINES = 30.0
"""Of a log that tells how far long work is."""


@contextlib.contextmanager
def progress_bar(length: int, label: str) -> Iterator[Callable[[int], Any]]:
    """How far long work is, on stderr: a bar on a terminal, elsewhere, as in a log, a line every half minute.

    Args:
        length: steps in all. label: what is done.

    Yields:
        To be called with the number of steps done since the last call.
    """
    if sys.stderr.isatty():
        with click.progressbar(length=length, label=label, file=sys.stderr) as bar:
            yield bar.update
        return
    start = told = time.monotonic()
    done = 0

    def update(count: int) -> None:
        nonlocal done, told
        done += count
        now = time.monotonic()
        if now - told >= SECONDS_BETWEEN_LINES or (done == length and told > start):
            told = now
            each = (now - start) / done
            left = each * (length - done)
            pace = f"{1 / each:.1f} a second" if each < 1 else f"{each:.1f} s each"
            click.echo(f"{label}: {done} of {length}, {pace}, {math.ceil(left / 60)} min left", err=True)

    yield update


@contextlib.contextmanager
def _progress_within(visible: bool) -> Iterator[None]:
    """Inside, each phase of the work on a picture in several windows or tiles has a progress bar."""
    from ohmq.utils.progress import watch

    bars: list[Any] = []

    def close() -> None:
        while bars:
            bars.pop().__exit__(None, None, None)

    def show(phase: str, done: int, of: int) -> None:
        if done == 0 and of > 1:
            close()
            bars.append(click.progressbar(length=of, label=phase, file=sys.stderr).__enter__())
        elif bars:
            bars[0].update(1)
            if done == of:
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
    """Print the outcome, as JSON with ``totals``; the exit code."""
    if as_json:
        print_json({"results": results, "failures": failures, **({"totals": totals} if totals else {})})
    elif len(results) + len(failures) > 1:
        failed = f"; {len(failures)} failed" if failures else ""
        click.echo(f"{len(results)} of {len(results) + len(failures)} files {summary}{failed}")
    return 1 if failures else 0


def print_json(value: Any) -> None:
    """As strict JSON on standard output."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))
