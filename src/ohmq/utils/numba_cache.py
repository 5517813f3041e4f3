"""Functions that numba compiles; whoever imports this needs numba."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from ohmq.errors import ConfigError

try:
    from filelock import FileLock
    from numba import config, njit
except ModuleNotFoundError as error:
    raise ConfigError(f"{error.name} is not installed; it comes with: pip install 'ohmq[compiled]'") from error
except Exception as error:  # as with a numpy that it does not know yet, or without a library that it needs
    raise ConfigError(f"numba cannot be used: {error}") from error

if config.DISABLE_JIT:  # type: ignore[attr-defined]
    raise ConfigError("numba compiles nothing: NUMBA_DISABLE_JIT is set")

__all__ = ["compiled"]

LONGEST_WAIT_S = 120
"""For another process that compiles."""

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(*signatures: str) -> Callable[[_Function], _Function]:
    """Compiles a function for some signatures, at once, and keeps the result on disk; it runs without the interpreter's lock.

    Never for others: several processes that add to what is kept at the same time, each another signature, would mix them up.
    Processes on machines of several kinds could do so as well, but for the lock.

    Raises:
        ConfigError: what is compiled cannot be kept or read.
    """

    def of(function: _Function) -> _Function:
        damaged = ""
        try:
            kept = njit(function, cache=True, nogil=True)
            folder = Path(str(kept.stats.cache_path))
            damaged = f"; if it is damaged, empty {folder}"
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / "ohmq.lock", timeout=LONGEST_WAIT_S):
                for signature in signatures:
                    kept.compile(signature)
        except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
            raise ConfigError(
                f"what numba compiles cannot be kept or read ({error}){damaged}; NUMBA_CACHE_DIR names a folder for it"
            ) from error
        kept.disable_compile()
        return cast(_Function, kept)

    return of
