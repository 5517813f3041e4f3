"""Compiled kernels give the same as those in numpy."""

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.small_models import make_codec, photo_picture, random_filters

from ohmq.codec import Codec
from ohmq.entropy import kernels_numba as kernels
from ohmq.entropy.context_prior import neighbour_rows
from ohmq.entropy.kernels import LARGEST_NEIGHBOUR, NUMPY, Codebook, NeighbourNetworks, Neighbours
from ohmq.entropy.kernels_numba import COMPILED
from ohmq.entropy.tabulated_prior import CHECKERBOARD_LEVELS, LEVELS
from ohmq.postfilter.select_kernel import select_kernel

Array = NDArray[Any]


FLOATS = (np.float32, np.float64)


SHAPES = ((1, 1, 1), (1, 1, 7), (1, 5, 1), (2, 6, 9), (3, 2, 2))


def equal(one: Array, other: Array) -> bool:
    return one.shape == other.shape and bool((one == other).all())


@pytest.mark.parametrize("kind", FLOATS)
def test_floor_in_place(kind: type) -> None:
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
        selected = np.arange(0, rows, 2)
        beside = rng.integers(-900, 900, (6, 2, len(selected))).astype(kind)
        whole = own.copy()
        whole[:, :, selected] += beside
        numbers = NUMPY.build_indexes(whole, network, levels)[:, selected]
        for kernel in (NUMPY, COMPILED):
            assert equal(numbers, kernel.build_indexes(own, network, levels, selected, beside))


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


@pytest.mark.parametrize("kind", FLOATS)
def test_add_codewords(kind: type) -> None:
    rng = np.random.default_rng(4)
    values, directions = rng.normal(0, 2, (6, 9)).astype(kind), rng.normal(0, 1, (6, 11)).astype(kind)
    alphabets = np.array([9, 9, 5, 5, 3, 3])
    symbols = np.where(rng.random((6, 300)) < 0.7, alphabets[:, None] // 2, rng.integers(0, 3, (6, 300))).astype(
        np.int32
    )
    symbols[0, :2] = -4, 77
    before = rng.normal(0, 1, (300, 13)).astype(kind)
    outs = [before.copy(), before.copy()]
    for kernel, out in zip((NUMPY, COMPILED), outs, strict=True):
        kernel.add_codewords(Codebook.of(values, directions, alphabets), symbols, out)
    assert equal(*outs)
    assert equal(outs[0][:, 11:], before[:, 11:])
    chosen = np.take_along_axis(values, symbols.clip(0, 8), 1)
    np.testing.assert_allclose(outs[0][:, :11], before[:, :11] + chosen.T @ directions, rtol=0, atol=1e-4)


def test_look_up_and_rdoq() -> None:
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
    bits[4:6, :3], centres[:, 4:6] = bits[4, 0], centres[:, 4:5]  # ties go to the first
    weights = rng.uniform(0.2, 3, 50).astype(np.float32)
    weights[:20] = 1
    indexes = rng.integers(0, 12, (4, 50)), np.arange(4)[:, None]
    selections = None, np.array([3, 4, 9, 49]), np.zeros(0, np.int64)
    for index, factors, rows in itertools.product(indexes, (None, weights), selections):
        where = slice(None) if rows is None else rows
        part = index if rows is None or index.shape[1] == 1 else np.ascontiguousarray(index[:, rows])
        chosen = np.full((2, 4, 50), -1, np.int32)
        for kernel, out in zip((NUMPY, COMPILED), chosen, strict=True):
            kernel.rdoq_symbols(projected, centres, price, bits, part.astype(np.int32), factors, rows, out)
        assert equal(*chosen)
        cost = np.abs(projected[..., None] - centres[:, None]) + price[:, None, None] * bits.T[
            np.broadcast_to(index, (4, 50))
        ] * (1 if factors is None else factors[:, None])
        assert equal(chosen[0][:, where], cost.argmin(-1)[:, where])
        assert (chosen[0] >= 0).sum() == chosen[0][:, where].size


@pytest.mark.parametrize("sorted_centres", [True, False])
def test_rdoq_where_the_middle_symbol_is_likely(sorted_centres: bool) -> None:
    rng = np.random.default_rng(5)
    others = rng.dirichlet(np.ones(4), 40) * rng.uniform(0.01, 0.6, (40, 1))
    shares = np.insert(others, 2, 1 - others.sum(1), axis=1)
    bits = np.ascontiguousarray((-24 - np.log2(shares)).T.astype(np.float32))
    centres = rng.normal(0, 1, (3, 5)).astype(np.float32)
    if sorted_centres:
        centres.sort(axis=1)
    projected, index = rng.normal(0, 2, (3, 4000)).astype(np.float32), rng.integers(0, 40, (3, 4000)).astype(np.int32)
    prices, weights = np.array([0, 0.02, 0.5], np.float32), rng.uniform(0, 3, 4000).astype(np.float32)
    outs = np.empty((2, 3, 4000), np.int32)
    for kernel, out in zip((NUMPY, COMPILED), outs, strict=True):
        kernel.rdoq_symbols(projected, centres, prices, bits, index, weights, None, out)
    assert equal(*outs)
    assert 0.1 < (outs[0] == 2).mean() < 0.9


def test_a_carry_goes_through_all_words() -> None:
    """Compare with Python's integers, from states that coding reaches once in 2^64 times."""
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
        image = photo_picture(*size, 4).convert("L" if grey else "RGB")
        # Filters round differently, which could change a symbol when the latent is refined; other models use the default.
        options: dict[str, Any] = {"effort": 0} if name == "filters" else {}
        data = plain.compress(image, **options)
        assert fast.compress(image, **options) == data
        assert equal(plain.decode(data)[1].values, fast.decode(data)[1].values)
        one, other = (np.asarray(codec.decompress(data)).astype(int) for codec in (plain, fast))
        assert np.abs(one - other).max() <= 1  # sums of codewords round differently
        assert (one != other).mean() < 0.01


def test_post_filter() -> None:
    filters = random_filters()
    image = np.random.default_rng(6).uniform(0, 255, (3, 200, 230)).astype(np.float32)
    filtered = filters.with_kernel(select_kernel(True)).apply(image, 9)
    assert np.abs(filtered - image).max() > 1
    assert filtered == pytest.approx(filters.apply(image, 9), abs=1e-3)
    assert equal(filtered, filters.with_kernel(select_kernel(True)).apply(image, 9, threads=2))
