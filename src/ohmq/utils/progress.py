"""Progress reporting through a context variable. Standard library alone."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

__all__ = ["Progress", "phase", "steps", "watch"]

_T = TypeVar("_T")

Progress = Callable[[str, int, int], None]
"""Called with the name of a phase, the number of steps done and the number of all steps."""
_watcher: contextvars.ContextVar[Progress | None] = contextvars.ContextVar("_watcher", default=None)


@contextlib.contextmanager
def watch(progress: Progress) -> Iterator[None]:
    """Report the progress of long work inside this context, in this thread.

    Args:
        progress: called before the first step of a phase and after each step.
    """
    token = _watcher.set(progress)
    try:
        yield
    finally:
        _watcher.reset(token)


def steps(items: Sequence[_T], phase: str) -> Iterator[_T]:
    """Iterate over the items of a phase, and report each item that is done.

    Args:
        items: the steps.
        phase: name of the phase, such as "analysis".

    Yields:
        The items.
    """
    for number, item in enumerate(items):
        if progress := _watcher.get():
            progress(phase, number, len(items))
        yield item
    if progress := _watcher.get():
        progress(phase, len(items), len(items))


@contextlib.contextmanager
def phase(name: str, total: int) -> Iterator[Callable[[], None]]:
    """Report a phase whose steps may be fewer than expected; the phases inside its steps are not reported.

    Args:
        name: name of the phase, such as "search".
        total: largest number of steps.

    Yields:
        A function to call after each step.
    """
    progress = _watcher.get() or (lambda name, done, total: None)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if done < total:
            progress(name, done, total)

    progress(name, 0, total)
    token = _watcher.set(None)
    try:
        yield advance
    finally:
        _watcher.reset(token)
        progress(name, total, total)
