"""Threads in which torch computes with one thread each.

torch's own threads wait for each other in loops that spin: beside other busy processes they take many times as long. Threads
that share out windows of an image wait for nothing.
"""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from ohmq.utils.cpus import shares_of_cpus, use_cpus
from ohmq.utils.ordered import Workers

__all__ = ["file_workers", "map_windows"]

_Item = TypeVar("_Item")
_pools: dict[int, ThreadPoolExecutor] = {}
_lock = threading.Lock()


def map_windows(function: Callable[[_Item], None], items: Sequence[_Item]) -> None:
    """Call a function for each item, in as many threads as torch has in the calling thread.

    If that is one thread, the calling thread does all. Others keep torch's number of threads: it belongs to a thread.

    Args:
        function: called once for each item; it must not call `map_windows`.
        items: its arguments.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        for item in items:
            function(item)
        return
    futures = [_pool(threads).submit(function, item) for item in items]
    try:
        for future in futures:
            future.result()
    finally:  # an error in one, or Ctrl-C, ends the others early
        for future in futures:
            future.cancel()


def file_workers() -> Workers | None:
    """Return threads that share out files, as many as torch has in the calling thread; None: it has one.

    In each of them torch has one thread, so that `map_windows` works there too.
    """
    threads = torch.get_num_threads()
    return None if threads == 1 else Workers(_pool(threads), threads)


def _pool(threads: int) -> ThreadPoolExecutor:
    """Return the pool of a number of threads; it is made once, since each thread's setting passes through a global one."""
    with _lock:
        if threads not in _pools:
            before = torch.get_num_threads()
            started = threading.Barrier(threads)

            def start(cpus: set[int]) -> None:
                use_cpus(cpus)
                torch.get_num_threads()  # takes over the default, which a first use after the next line would
                torch.set_num_threads(1)  # of this thread, and the default of threads that use torch for the first time
                started.wait()

            pool = ThreadPoolExecutor(threads, "ohmq-window")
            try:
                for future in [pool.submit(start, cpus) for cpus in shares_of_cpus(threads)]:
                    future.result()
            finally:
                torch.set_num_threads(before)  # the default again; this thread had it all along
            _pools[threads] = pool
        return _pools[threads]


def _forget() -> None:
    """Start anew after a fork: the threads are not there any more, and one of them may have held the lock."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
