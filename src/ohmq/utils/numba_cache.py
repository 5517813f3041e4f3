"""Functions that numba compiles on demand and keeps on disk.

Importing this module needs no numba and compiles nothing.
"""

import functools
import importlib.util
import pickle
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

from ohmq.errors import ConfigError

__all__ = ["CompiledFunction", "compiled", "select_implementation"]

LOCK_TIMEOUT_S = 120
"""Seconds to wait for the lock of the numba cache while another process compiles."""

_Implementation = TypeVar("_Implementation")
_compiling = threading.RLock()


class CompiledFunction:
    """Function that numba compiles for fixed signatures, at the first call or by `compile`.

    The machine code is kept on disk and runs without the interpreter's lock. Other signatures are refused: processes
    that add different signatures to the cache at the same time would mix them up. A file lock lets only one process at
    a time compile, also where machines of several kinds share the cache.

    Args:
        function: written for numba; it may call other functions of this kind.
        signatures: numba signatures, such as "void(float32[:,::1])".
        fastmath: liberties of floating-point arithmetic, by LLVM's names. Default: none.
    """

    def __init__(
        self, function: Callable[..., Any], signatures: tuple[str, ...], fastmath: tuple[str, ...] = ()
    ) -> None:
        self._function, self._signatures, self._fastmath = function, signatures, fastmath
        self._dispatcher: Any = None
        functools.update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> Any:
        if self._dispatcher is None:
            self.compile()
        return self._dispatcher(*arguments)

    def compile(self) -> None:
        """Compile all signatures, or load them from the cache; once.

        Raises:
            ConfigError: numba is missing or unusable, or its cache cannot be written or read.
        """
        with _compiling:
            if self._dispatcher is None:
                self._dispatcher = _compile(self._function, self._signatures, self._fastmath)

    @property
    def cache_hits(self) -> int:
        """Signatures that were loaded from disk."""
        return 0 if self._dispatcher is None else sum(self._dispatcher.stats.cache_hits.values())


def compiled(*signatures: str, fastmath: tuple[str, ...] = ()) -> Callable[[Callable[..., Any]], CompiledFunction]:
    """Mark a function for numba; see `CompiledFunction`.

    Args:
        signatures: numba signatures.
        fastmath: liberties of floating-point arithmetic. Default: none.

    Returns:
        A decorator.
    """
    return lambda function: CompiledFunction(function, signatures, fastmath)


def select_implementation(
    compiled: bool | None, plain: _Implementation, compile: Callable[[], _Implementation], stacklevel: int = 1
) -> _Implementation:
    """Choose between a plain implementation and one that numba compiles.

    Args:
        compiled: whether to compile; None: if numba is installed and usable.
        plain: the implementation without numba.
        compile: compiles the other one and returns it.
        stacklevel: of the warning; 1 is the caller of this function.

    Returns:
        One of the two. If numba is installed but unusable and ``compiled`` is None: ``plain``, with a `RuntimeWarning`.

    Raises:
        ConfigError: ``compiled`` is True and numba is missing or unusable.
    """
    if compiled is False or (compiled is None and importlib.util.find_spec("numba") is None):
        return plain
    try:
        return compile()
    except ConfigError as error:
        if compiled:
            raise
        warnings.warn(f"{error}; coding goes on without it, slower", RuntimeWarning, stacklevel=stacklevel + 1)
        return plain


def _linked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile the functions that a function calls, and return it with what numba made of them in their place."""
    calls = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    linked = dict(function.__globals__)
    for name, called in calls.items():
        if isinstance(called, CompiledFunction):
            called.compile()
            linked[name] = called._dispatcher
    out = FunctionType(function.__code__, linked, function.__name__, function.__defaults__, function.__closure__)
    out.__module__, out.__qualname__ = function.__module__, function.__qualname__
    return out


def _compile(function: Callable[..., Any], signatures: tuple[str, ...], fastmath: tuple[str, ...]) -> Any:
    """Compile under the file lock; see `CompiledFunction.compile`."""
    try:
        import numba
        from filelock import FileLock
        from numba import config
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed; it comes with: pip install 'ohmq[compiled]'") from error
    except Exception as error:  # for example a numpy that is too new for numba, or a missing shared library
        raise ConfigError(f"numba cannot be used: {error}") from error
    if config.DISABLE_JIT:  # type: ignore[attr-defined]
        raise ConfigError("numba compiles nothing: NUMBA_DISABLE_JIT is set")
    advice = ""
    try:
        dispatcher = numba.njit(_linked(function), cache=True, nogil=True, fastmath=set(fastmath))
        folder = Path(str(dispatcher.stats.cache_path))
        advice = f"; if it is damaged, empty {folder}"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "ohmq.lock", timeout=LOCK_TIMEOUT_S):
            for signature in signatures:
                dispatcher.compile(signature)
    except (RuntimeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigError(
            f"what numba compiles cannot be kept or read ({error}){advice}; NUMBA_CACHE_DIR names a folder for it"
        ) from error
    dispatcher.disable_compile()
    return dispatcher
