"""Repeat operations that fail for a while: exponential back-off with full jitter."""

import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ohmq.errors import ConfigError
from ohmq.storage.errors import TransientStorageError

__all__ = ["PATIENCE_VARIABLE", "Backoff", "default_backoff"]

Result = TypeVar("Result")

PATIENCE_VARIABLE = "OHMQ_STORAGE_PATIENCE_S"
"""Environment variable with the seconds after which an operation on a failing store is given up."""


@dataclass(frozen=True)
class Backoff:
    """Waiting times between attempts: after attempt n, a random time below ``first_s * 2**n``, evenly distributed.

    Many workers that a store throttles at once thus come back one by one.

    Attributes:
        first_s: seconds, bound on the first wait.
        longest_s: seconds, bound on each wait.
        patience_s: seconds from the first attempt to the start of the last one. 0: one attempt.

    References: Brooker, Exponential Backoff and Jitter, AWS Architecture Blog, 2015.
    """

    first_s: float = 0.5
    longest_s: float = 30.0
    patience_s: float = 300.0

    def call(self, function: Callable[[], Result]) -> Result:
        """Call a function until it does something else than fail for a while.

        Args:
            function: raises `TransientStorageError` for a failure that may pass.

        Raises:
            TransientStorageError: the last failure, with the number of attempts.
        """
        start = time.monotonic()
        attempts = 0
        while True:
            try:
                return function()
            except TransientStorageError as error:
                wait_s = random.uniform(0, min(self.longest_s, self.first_s * 2**attempts))
                attempts += 1
                spent_s = time.monotonic() - start
                if spent_s + wait_s > self.patience_s:
                    tried = f"tried {attempts} times in {spent_s:.0f} s" if attempts > 1 else "tried once"
                    raise TransientStorageError(f"{error} ({tried})") from error
            time.sleep(wait_s)


def default_backoff() -> Backoff:
    """Return the back-off of stores: 300 s, or the environment variable `PATIENCE_VARIABLE`.

    Raises:
        ConfigError: the variable is no number of seconds.
    """
    text = os.environ.get(PATIENCE_VARIABLE)
    if text is None:
        return Backoff()
    try:
        patience_s = float(text)
    except ValueError:
        patience_s = -1
    if not 0 <= patience_s < float("inf"):
        raise ConfigError(f"{PATIENCE_VARIABLE} is {text!r}; it must be a number of seconds")
    return Backoff(patience_s=patience_s)
