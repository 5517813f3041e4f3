"""Functions that numba compiles; whoever imports this needs numba."""

from collections.abc import Callable
from typing import TypeVar, cast

from ohmq.errors import ConfigError

try:
    from numba import njit
except ModuleNotFoundError as error:
    raise ConfigError("numba is not installed; it comes with: pip install 'ohmq[compiled]'") from error
except ImportError as error:  # as with a numpy that it does not know yet
    raise ConfigError(f"numba cannot be used: {error}") from error

__all__ = ["compiled"]

_Function = TypeVar("_Function", bound=Callable[..., object])


def compiled(function: _Function) -> _Function:
    """Compiled when it is first called, for the types of that call, and kept on disk; runs without the interpreter's lock."""
    try:
        return cast(_Function, njit(function, cache=True, nogil=True))
    except RuntimeError:  # there is no place on disk that may be written to
        return cast(_Function, njit(function, nogil=True))
