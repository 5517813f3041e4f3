"""One thread for numpy's matrix products.

The threads of BLAS libraries wait for work in loops that spin: small products then take several times the processor time, and
beside other busy processes much more time as well. Coding shares out tiles among threads of its own.
"""

import functools
import os
import threading
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = ["one_blas_thread"]


@functools.cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


class _OneThread:
    """Context in which BLAS libraries use one thread, from the first thread that enters it to the last that leaves it."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew, as after a fork, when a thread that is not there any more may hold the lock."""
        self._lock, self._users, self._limiter = threading.Lock(), 0, None

    _limiter: Any

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._limiter = _controller().limit(limits=1, user_api="blas")

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._limiter.restore_original_limits()


_one_thread = _OneThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_one_thread.forget)


def one_blas_thread() -> _OneThread:
    """Return a context in which numpy's products use one thread.

    The number belongs to the process: other threads see it while any thread is in the context. It comes back at the end.

    Example:
        >>> import numpy as np
        >>> with one_blas_thread():
        ...     np.ones((2, 2)) @ np.ones(2)
        array([2., 2.])
    """
    return _one_thread
