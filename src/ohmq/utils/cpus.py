"""Processors for threads that work on one image together.

Linux may wake a thread on the processor of the thread that wakes it, as was seen in virtual machines. Two threads then share one
processor for milliseconds while another is idle, which is as long as their work takes.
"""

import contextlib
import ctypes
import os

__all__ = ["other_cpus", "shares_of_cpus", "use_cpus"]


def other_cpus() -> set[int]:
    """Return the processors that the calling thread may use but for the one it runs on; empty: they are not known."""
    try:
        return os.sched_getaffinity(0) - {ctypes.CDLL(None).sched_getcpu()}
    except (AttributeError, OSError):  # not on Linux
        return set()


def shares_of_cpus(threads: int) -> list[set[int]]:
    """Divide the processors that the calling thread may use among threads; empty sets: there are too few, or not known.

    Args:
        threads: their number.
    """
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return [set(cpus[number::threads]) if len(cpus) >= threads else set() for number in range(threads)]


def use_cpus(cpus: set[int]) -> None:
    """Let the calling thread use these processors alone.

    Args:
        cpus: numbers of processors; empty: it uses those that it used before.
    """
    if cpus:
        with contextlib.suppress(OSError):  # they were taken from this process in the meantime
            os.sched_setaffinity(0, cpus)
