"""A function of many items, computed in worker processes that live as long as their owner needs them."""

import contextlib
import os
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from ohmq.errors import ConfigError, OhmqError

__all__ = ["ProcessMap", "worker_errors"]

OWNER_CHECK_S = 1.0
"""Seconds between two looks whether the owner of a worker process lives."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@contextlib.contextmanager
def worker_errors() -> Iterator[None]:
    """Turn the death of a worker process, which torch may notice at any moment, into a clear error.

    Raises:
        ConfigError: a worker process ended.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ConfigError(
            f"a process that reads images ended ({str(error).splitlines()[0].strip()}); if memory ran out, choose a "
            "smaller num_workers"
        ) from error


class _Results(Dataset[Any]):
    """The function as torch's loader takes it; expected errors are results, because torch would wrap them."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __getitem__(self, item: Any) -> Any:
        try:
            return self.function(item)
        except OhmqError as error:
            return error


class ProcessMap(Generic[_In, _Out]):
    """Results of a function, in the order of its items, computed ahead in processes.

    The processes start at the first iteration and stay until `close`, or until the object is not used any more. They
    ignore the signals that stop a run: the process that owns them handles these, and they end with it.

    Args:
        function: the function; it and its results can be pickled.
        items: items; iterated anew each time.
        num_workers: processes, at least 1.
        start_method: how they are started, as `multiprocessing` names it: "spawn" where the function opens connections,
            which a forked process must not inherit. Default: that of torch.

    Raises:
        ConfigError: a process ended (when iterated); errors of the function are raised as they are.
    """

    def __init__(
        self,
        function: Callable[[_In], _Out],
        items: Iterable[_In],
        num_workers: int,
        start_method: str | None = None,
    ) -> None:
        with _more_than_processors():
            self._loader: DataLoader[Any] = DataLoader(
                _Results(function),
                batch_size=None,
                sampler=items,
                num_workers=num_workers,
                collate_fn=_unchanged,
                worker_init_fn=partial(_start_worker, os.getpid()),
                persistent_workers=True,
                multiprocessing_context=start_method,
                generator=torch.Generator(),  # its own: the caller's random numbers stay as they are
            )
        # The finalizer keeps the loader alive: torch cannot end its processes once it is garbage itself.
        weakref.finalize(self, _end_processes, self._loader)

    def __iter__(self) -> Iterator[_Out]:
        """Iterate over the results."""
        with worker_errors():
            with _more_than_processors():
                results = iter(self._loader)
            for result in results:
                if isinstance(result, OhmqError):
                    raise result
                yield result

    def close(self) -> None:
        """End the processes."""
        _end_processes(self._loader)


def _end_processes(loader: DataLoader[Any]) -> None:
    if loader._iterator is not None:
        loader._iterator._shutdown_workers()  # type: ignore[attr-defined]
        loader._iterator = None


@contextlib.contextmanager
def _more_than_processors() -> Iterator[None]:
    """Silence torch's warning about more processes than processors: their number is the user's choice."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        yield


def _unchanged(result: Any) -> Any:
    return result


def _start_worker(owner: int, _worker: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()


def _end_with(owner: int) -> None:
    """End this process when its owner is gone.

    torch looks for that too, but then waits until the results are sent; nobody reads them any more, and the pipe is full.
    """
    while os.getppid() == owner:
        time.sleep(OWNER_CHECK_S)
    os._exit(1)
