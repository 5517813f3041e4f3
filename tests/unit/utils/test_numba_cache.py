"""The cache of compiled functions."""

from pathlib import Path
from typing import Any

import pytest
from support.processes import run_python

from ohmq.errors import ConfigError
from ohmq.utils import numba_cache

MODULE = """
from ohmq.utils.numba_cache import compiled
@compiled("int64(int64)")
def added(x):
    return x + x
@compiled("int64(int64)")
def doubled(x):
    return added(x)
print(doubled(21), doubled.cache_hits)
try:
    doubled("x")
except TypeError:
    print("nothing else is compiled")
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    """Return a script that imports a module with a compiled function."""
    (tmp_path / "keeping.py").write_text(MODULE)
    return f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import keeping"


def test_compiled_functions_are_loaded_from_the_cache(script: str, tmp_path: Path) -> None:
    kept = str(tmp_path / "kept")
    hits = [run_python(script, NUMBA_CACHE_DIR=kept).splitlines() for _ in range(2)]
    assert [first for first, _ in hits] == ["42 0", "42 1"]
    assert {last for _, last in hits} == {"nothing else is compiled"}


def test_a_damaged_cache_is_an_error(script: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    run_python(script, NUMBA_CACHE_DIR=str(kept))
    for index in kept.rglob("*.nbi"):
        index.write_bytes(b"")
    message = run_python(script, NUMBA_CACHE_DIR=str(kept))
    assert "ConfigError: what numba compiles cannot be kept" in message
    assert message.endswith("NUMBA_CACHE_DIR names a folder for it")


def test_a_cache_that_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def njit(function: Any, *, nogil: bool, cache: bool, fastmath: set[str]) -> Any:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr("numba.njit", njit)
    with pytest.raises(ConfigError, match="no locator available.*NUMBA_CACHE_DIR"):
        numba_cache.compiled("int64(int64)")(lambda x: x).compile()
