"""Recording of warnings, which Python 3.13 and earlier keep for the whole process: one thread at a time."""

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator

__all__ = ["recorded_warnings"]

_lock = threading.RLock()


def _renew_lock() -> None:
    """Give a forked process its own lock: the thread that held the old one is not there to release it."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@contextlib.contextmanager
def recorded_warnings() -> Iterator[list[str]]:
    """Record warnings in place of showing them.

    Yields:
        A list that has each text once, after the block.

    Example:
        >>> with recorded_warnings() as texts:
        ...     warnings.warn("odd file", stacklevel=1)
        >>> texts
        ['odd file']
    """
    texts: list[str] = []
    with _lock, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            yield texts
        finally:
            texts += dict.fromkeys(str(warning.message) for warning in caught)
