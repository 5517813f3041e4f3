"""How far long work is: whoever wants to know watches. Standard library alone."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

__all__ = ["Progress", "steps", "watch"]

_T = TypeVar("_T")

Progress = Callable[[str, int, int], None]
"""Called with the name of a phase, the steps done and the steps in all."""
_watcher: contextvars.ContextVar[Progress | None] = contextvars.ContextVar("_watcher", default=None)


@contextlib.contextmanager
def watch(progress: Progress) -> Iterator[None]:
    """Inside, and in this thread, long work on large pictures tells how far it is."""
    token = _watcher.set(progress)
    try:
        yield
    finally:
        _watcher.reset(token)


def steps(items: Sequence[_T], phase: str) -> Iterator[_T]:
    """The items; whoever watches is told when one is done."""
    for number, item in enumerate(items):
        if progress := _watcher.get():
            progress(phase, number, len(items))
        yield item
    if progress := _watcher.get():
        progress(phase, len(items), len(items))
