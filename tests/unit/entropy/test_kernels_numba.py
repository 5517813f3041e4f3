"""What numba compiles gives the same as what numpy computes, and it is optional."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.small_models import make_codec, photo_picture, random_filters

from ohmq import load
from ohmq.cli.jobs import Job, compiled_for
from ohmq.codec import Codec
from ohmq.encoder.rdoq import Rdoq
from ohmq.entropy import kernels_numba as kernels
from ohmq.entropy.context_prior import IntegerContextPrior, neighbour_rows
from ohmq.entropy.kernels import LARGEST_NEIGHBOUR, NUMPY, NeighbourNetworks, Neighbours
from ohmq.entropy.kernels_numba import COMPILED
from ohmq.entropy.select_kernels import select_kernels
from ohmq.entropy.tabulated_prior import CHECKERBOARD_LEVELS, LEVELS, IntegerTabulatedPrior
from ohmq.errors import ConfigError
from ohmq.postfilter.select_kernel import select_kernel
from ohmq.utils import numba_cache

Array = NDArray[Any]
FLOATS = (np.float32, np.float64)
SHAPES = ((1, 1, 1), (1, 1, 7), (1, 5, 1), (2, 6, 9), (3, 2, 2))


def equal(one: Array, other: Array) -> bool:
    return one.shape == other.shape and bool((one == other).all())


@pytest.mark.parametrize("kind", FLOATS)
def test_rounding_down(kind: type) -> None:
    x = np.random.default_rng(0).normal(0, 900, (70, 13)).astype(kind)
    for least in (-np.inf, 0):
        one, other = x.copy(), x.copy()
        assert equal(NUMPY.floor_in_place(one, least), COMPILED.floor_in_place(other, least))
        assert equal(one, other)
        assert equal(one, np.floor(np.maximum(x, least)))
    assert COMPILED.floor_in_place(np.full((2, 3), -5.5, kind), -np.inf).tolist() == [6, 6, 6]


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("shape", SHAPES)
def test_coefficients_and_tables(kind: type, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(1)
    rows = shape[0] * shape[1] * shape[2]
    weights = (rng.integers(-(2**13), 2**13, (6, 2, 4)) / 2**12).astype(kind)
    grid = rng.integers(-1500, 1500, (6, rows)).astype(np.float32)
    own = NUMPY.own_coefficients(weights, grid.copy(), shape)
    assert own.dtype == kind
    assert equal(own, COMPILED.own_coefficients(weights, grid.copy(), shape))
    network = rng.integers(-900, 900, (6, 2, rows)).astype(np.float32)
    for levels in (LEVELS, CHECKERBOARD_LEVELS):
        numbers = NUMPY.build_indexes(own, network, levels)
        assert equal(numbers, COMPILED.build_indexes(own, network, levels))
        assert numbers.min() >= 0 and numbers.max() < np.prod([high - low + 1 for low, high in levels])


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("hidden_units", [0, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_neighbours(kind: type, hidden_units: int, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(2)
    rows = shape[0] * shape[1] * shape[2]
    values = np.zeros((5, rows + 1), kind)
    values[:, :-1] = rng.integers(-3 * LARGEST_NEIGHBOUR, 3 * LARGEST_NEIGHBOUR, (5, rows))
    index = np.ascontiguousarray(neighbour_rows(*shape)[:, [0, 2, 6, 8]].T)
    in_bounds: Array = (index < rows).astype(kind)
    neighbours = Neighbours(index, in_bounds, np.maximum(in_bounds.sum(0), 1))
    weights = (rng.integers(-(2**13), 2**13, (5, 2, 4 + hidden_units)) / 2**12).astype(kind)
    hidden = (rng.integers(-(2**13), 2**13, (5, hidden_units, 4)) / 2**12).astype(kind)
    bias = rng.integers(-900, 900, (5, hidden_units)).astype(kind)
    networks = NeighbourNetworks(weights, hidden, bias)
    one = NUMPY.neighbour_coefficients(networks, values, neighbours)
    assert one.dtype == kind
    assert equal(one, COMPILED.neighbour_coefficients(networks, values, neighbours))


def test_looking_up_and_choosing() -> None:
    rng = np.random.default_rng(3)
    values, symbols = rng.normal(0, 1, (4, 9)).astype(np.float32), rng.integers(0, 9, (4, 50)).astype(np.int32)
    outs = np.empty((2, 4, 51), np.float32)
    for kind, out in zip((NUMPY, COMPILED), outs, strict=True):
        kind.look_up(values, symbols, out)
    assert equal(outs[0, :, :-1], outs[1, :, :-1])
    assert outs[0, 2, 7] == values[2, symbols[2, 7]]
    projected, centres = (
        rng.normal(0, 2, (4, 50)).astype(np.float32),
        np.sort(rng.normal(0, 2, (4, 9))).astype(np.float32),
    )
    bits, price = rng.uniform(0, 9, (9, 12)).astype(np.float32), rng.uniform(0, 1, 4).astype(np.float32)
    bits[4:6, :3], centres[:, 4:6] = bits[4, 0], centres[:, 4:5]  # equal ones: the first
    for index in (rng.integers(0, 12, (4, 50)), np.arange(4)[:, None]):
        chosen = NUMPY.rdoq_symbols(projected, centres, price, bits, index.astype(np.int32))
        assert equal(chosen, COMPILED.rdoq_symbols(projected, centres, price, bits, index.astype(np.int32)))
        cost = (
            np.abs(projected[..., None] - centres[:, None])
            + price[:, None, None] * bits.T[np.broadcast_to(index, (4, 50))]
        )
        assert equal(chosen, cost.argmin(-1))


def test_a_carry_goes_through_all_words() -> None:
    """Against Python's integers, from states that coding reaches once in 2^64 times."""
    tables = np.array([[2**24 - 8, 7]], np.float32)  # frequencies less 1
    for words in ([7, 2**32 - 1, 2**32 - 1], [5, 9], [2**32 - 2, 2**32 - 1]):
        for low, width in ((2**64 - 2**20, 2**33), (2**64 - 1, 2**32), (2**63, 2**64 - 1)):
            state, room = np.array([low, width], np.uint64), np.array([*words, 0], np.uint32)
            count = kernels._encode(state, room, len(words), np.array([1], np.int32), tables, np.zeros(1, np.int32))
            number = int.from_bytes(np.array(words, ">u4").tobytes(), "big") << 64
            number += low + (width >> 24) * (2**24 - 7)
            range_ = (width >> 24) * 8
            if count > len(words):
                number, range_ = number << 32, range_ << 32
            found = int.from_bytes(room[:count].astype(">u4").tobytes(), "big") << 64
            assert (found + int(state[0]), int(state[1])) == (number, range_)


@pytest.mark.parametrize("name", ["context", "static", "integer", "photo", "filters"])
def test_files_are_the_same(name: str) -> None:
    plain, fast = (Codec(make_codec(name).frozen, compiled=compiled) for compiled in (False, True))
    assert (plain.compiled, fast.compiled) == (False, True)
    grey = plain.grey
    for size in ((16, 16), (100, 72)):
        picture = photo_picture(*size, 4).convert("L" if grey else "RGB")
        # With feedback, what filters round differently could move a symbol: else it is there, as it is the default.
        options: dict[str, Any] = {"effort": 0} if name == "filters" else {}
        data = plain.compress(picture, **options)
        assert fast.compress(picture, **options) == data
        assert equal(plain.decode(data)[1].values, fast.decode(data)[1].values)
        one, other = (np.asarray(codec.decompress(data)).astype(int) for codec in (plain, fast))
        assert np.abs(one - other).max() <= (1 if name == "filters" else 0)
        assert (one != other).mean() < 0.01


def test_filters() -> None:
    filters = random_filters()
    picture = np.random.default_rng(6).uniform(0, 255, (3, 200, 230)).astype(np.float32)
    found = filters.with_kernel(select_kernel(True)).apply(picture, 9)
    assert np.abs(found - picture).max() > 1
    assert found == pytest.approx(filters.apply(picture, 9), abs=1e-3)
    assert equal(found, filters.with_kernel(select_kernel(True)).apply(picture, 9, threads=2))


def test_it_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = make_codec("photo").frozen
    assert Codec(frozen).compiled
    assert load("photo", compiled=False).compiled is False
    monkeypatch.setattr(numba_cache, "importlib", SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None)))
    assert not Codec(frozen).compiled


def test_selected_kernels() -> None:
    assert select_kernels(False) is NUMPY
    assert select_kernels() is select_kernels(True) is COMPILED


@pytest.mark.parametrize("codec_name", ["photo", "static"])
def test_a_prior_is_given_its_kernels(codec_name: str) -> None:
    prior = make_codec(codec_name).frozen.prior
    assert prior is not None and prior.kernels is NUMPY
    assert prior.begin(1, 3, 4).kernels is NUMPY
    assert prior.begin(1, 3, 4, kernels=COMPILED).kernels is COMPILED


def test_importing_compiles_nothing() -> None:
    script = "import sys, ohmq.entropy.kernels_numba, ohmq.postfilter.kernels_numba; print('numba' in sys.modules)"
    assert run(script) == "False"


WITHOUT = """
import builtins, sys, warnings
there = builtins.__import__
def without(name, *arguments, **more):
    if name == "numba":
        raise {error}
    return there(name, *arguments, **more)
builtins.__import__ = without
import ohmq
from ohmq.errors import ConfigError
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    print(ohmq.load("photo").compiled, [str(warning.message) for warning in found])
try:
    ohmq.load("photo", compiled=True)
except ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ('ImportError("Numba needs NumPy 2.4 or less")', "numba cannot be used: Numba needs NumPy 2.4 or less"),
        ('OSError("Could not find/load shared object file")', "numba cannot be used: Could not find/load shared object file"),
        ('ModuleNotFoundError("No module", name="numba")', "numba is not installed; it comes with: pip install 'ohmq[compiled]'"),
    ],
)  # fmt: skip
def test_where_it_cannot_be_imported(error: str, message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(error=error)], capture_output=True, text=True, check=True
    )
    auto, asked = done.stdout.splitlines()
    assert auto.startswith("False [") and f"{message}; coding goes on without it, slower" in auto
    assert asked.startswith(message)


def test_where_it_may_not_compile() -> None:
    script = "from ohmq.entropy.select_kernels import select_kernels; select_kernels(True)"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr.endswith("ConfigError: numba compiles nothing: NUMBA_DISABLE_JIT is set\n")


def run(script: str, **environment: str) -> str:
    """What Python prints, or the last line of its error."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **environment}
    )
    return (done.stdout if done.returncode == 0 else done.stderr.splitlines()[-1]).strip()


KEEPING = """
from ohmq.utils.numba_cache import compiled
@compiled("int64(int64)")
def doubled(x):
    return 2 * x
print(doubled(21), doubled.cache_hits)
try:
    doubled("x")
except TypeError:
    print("nothing else is compiled")
"""


@pytest.fixture
def script(tmp_path: Path) -> str:
    """One that imports a module with a compiled function, which is kept in a folder of its own."""
    (tmp_path / "keeping.py").write_text(KEEPING)
    return f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import keeping"


def test_what_was_compiled_is_used_again(script: str, tmp_path: Path) -> None:
    kept = str(tmp_path / "kept")
    hits = [run(script, NUMBA_CACHE_DIR=kept).splitlines() for _ in range(2)]
    assert [first for first, _ in hits] == ["42 0", "42 1"]
    assert {last for _, last in hits} == {"nothing else is compiled"}


def test_what_was_kept_is_damaged(script: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    run(script, NUMBA_CACHE_DIR=str(kept))
    (index,) = kept.rglob("*.nbi")
    index.write_bytes(b"")
    message = run(script, NUMBA_CACHE_DIR=str(kept))
    assert "ConfigError: what numba compiles cannot be kept" in message
    assert message.endswith("NUMBA_CACHE_DIR names a folder for it")


def test_nowhere_to_keep_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def njit(function: Any, *, nogil: bool, cache: bool) -> Any:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr("numba.njit", njit)
    with pytest.raises(ConfigError, match="no locator available.*NUMBA_CACHE_DIR"):
        numba_cache.compiled("int64(int64)")(abs).compile()


@pytest.mark.parametrize("name", ["static", "filters"])
def test_a_codec_goes_to_another_process(name: str) -> None:
    codec = make_codec(name)
    picture = photo_picture(48, 40, 1).convert("L" if codec.grey else "RGB")
    again = pickle.loads(pickle.dumps(codec))
    assert again.compiled
    assert again.compress(picture) == codec.compress(picture)


def test_many_files_are_worth_it(tmp_path: Path) -> None:
    jobs = [Job(tmp_path, tmp_path)] * 12
    assert [compiled_for(None, jobs[:count], 1) for count in (1, 5, 6)] == [False, False, None]
    assert [compiled_for(None, jobs[:count], 2) for count in (10, 11)] == [False, None]
    assert [compiled_for(wanted, jobs[:1], 1) for wanted in (True, False)] == [True, False]


@pytest.mark.parametrize("codec_name", ["photo", "static"])
def test_crafted_tensors_are_refused(codec_name: str) -> None:
    """They would be read beyond their ends, as compiled functions check no bounds."""
    prior = make_codec(codec_name).prior
    assert prior is not None

    def altered(**tensors: Array) -> None:
        changed = {**prior.tensors, **{name.replace("_", "."): value for name, value in tensors.items()}}
        if isinstance(prior, IntegerContextPrior):
            IntegerContextPrior(changed, prior.group_sizes)
        else:
            IntegerTabulatedPrior(changed, prior.group_sizes, [9] * len(prior.group_sizes), prior.checkerboard_groups)

    if codec_name == "static":
        with pytest.raises(ValueError, match="frequencies is int64"):
            altered(frequencies=prior.tensors["frequencies"].astype(np.int64))
        return
    altered()
    for name in ("own", "places", "neighbour_bias"):
        with pytest.raises(ValueError, match="is float32; expected int16 or int32"):
            altered(**{name: np.full(prior.tensors[name.replace("_", ".")].shape, np.nan, np.float32)})
    for name in ("own", "values", "directions", "features"):
        with pytest.raises(ValueError, match=f"{name} has shape"):
            altered(**{name: prior.tensors[name][:-1]})
    with pytest.raises(ValueError, match="values has shape"):
        altered(values=prior.tensors["values"][:, :1])
    with pytest.raises(ValueError, match="exp2 has shape"):
        altered(exp2=prior.tensors["exp2"][:-1])
    quantizer = dict(make_codec("photo").transforms.quantizer)
    quantizer["centres"] = quantizer["centres"][:4]
    assert isinstance(prior, IntegerTabulatedPrior)
    with pytest.raises(ValueError, match="the quantizer's centres has shape"):
        Rdoq(prior, quantizer, np.zeros((1, 1, 2, 2, 12), np.float32), 24)
