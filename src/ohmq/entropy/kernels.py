"""The loops over symbols in which coding spends its time, in numpy; `ohmq.entropy.kernels_numba` has the same compiled."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ohmq.entropy.range_coder import SymbolDecoder, SymbolEncoder

__all__ = [
    "LARGEST_NEIGHBOUR",
    "LEVEL_BITS",
    "NUMPY",
    "SPATIAL_LIMIT",
    "VALUE_BITS",
    "Decoder",
    "Encoder",
    "Kernels",
    "Levels",
]

Array = NDArray[Any]
Levels = tuple[tuple[int, int], tuple[int, int]]
"""Lowest and highest level of each of the two coefficients that choose a table."""

VALUE_BITS = 8
"""Fraction bits of the context networks' inputs, activations and outputs before the last shift."""
LEVEL_BITS = 2
"""Fraction bits of a coefficient's grid: quarters."""
SPATIAL_LIMIT = 8
"""Features of neighbours' symbols are clipped to so many steps."""
LARGEST_NEIGHBOUR = SPATIAL_LIMIT << VALUE_BITS
"""The same in integers; neighbours' symbols and hidden units of their networks are clipped to it as well."""


class Encoder(Protocol):
    """As `ohmq.entropy.SymbolEncoder`."""

    def encode(self, symbols: Array, tables: Array, index: Array | None = None, in_order: bool = False) -> None:
        """Append symbols."""

    def finish(self) -> bytes:
        """The bytes of all of them."""


class Decoder(Protocol):
    """As `ohmq.entropy.SymbolDecoder`."""

    def decode(self, tables: Array, index: Array | None, count: int, in_order: bool = False) -> NDArray[np.int32]:
        """The next symbols."""


class Kernels(NamedTuple):
    """What all kinds of kernels have: coders, and what the functions of this module do; all give the same, bit by bit."""

    encoder: Callable[[], Encoder]
    decoder: Callable[[bytes], Decoder]
    floored: Callable[[Array, float], Array]
    own_coefficients: Callable[[Array, Array, tuple[int, ...]], Array]
    neighbour_coefficients: Callable[[Array, Array, Array, Array, Array, Array, Array], Array]
    look_up: Callable[[Array, Array, Array], None]
    build_indexes: Callable[[Array, Array, Levels], NDArray[np.int32]]
    rdoq_symbols: Callable[[Array, Array, Array, Array, Array], NDArray[np.integer]]


def floored(x: Array, least: float) -> Array:
    """Round the numbers of (rows, columns) down in place, those below ``least`` to it; the largest magnitude of each column."""
    np.floor(np.maximum(x, x.dtype.type(least), out=x), out=x)
    return np.asarray(x.max(0) if least == 0 else np.maximum(x.max(0), -x.min(0)))


def own_coefficients(weights: Array, own: Array, shape: tuple[int, ...]) -> Array:
    """What channels' own coefficients add to the two that choose tables.

    Four features of each: its magnitude, that of its four neighbours, itself, its neighbours; each rounded down and clipped.

    Shape:
        weights: (channels, 2, 4). own: (channels, rows), integers, overwritten. shape: (tiles, h, w), of rows.
        Returns: (channels, 2, rows), as the weights.
    """
    one, two = 1 << VALUE_BITS, 2 << VALUE_BITS
    features: Array = np.empty((len(own), 4, own.shape[1]), weights.dtype)
    out = features.reshape(len(own), 4, *shape)
    grid = own.reshape(len(own), *shape)
    around = _quarter_of_neighbours(grid)
    np.clip(grid, -one, one, out=out[:, 2])
    np.clip(around, -one, one, out=out[:, 3])
    magnitude = np.abs(grid, out=grid)
    around = _quarter_of_neighbours(magnitude)
    np.clip(magnitude, 0, two, out=out[:, 0])
    np.clip(around, 0, two, out=out[:, 1])
    return np.asarray(weights @ features)


def _quarter_of_neighbours(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """A quarter of the sum of the left, right, upper and lower neighbour, zero beyond the border, rounded down; (..., h, w)."""
    out = np.zeros_like(x)
    out[..., 1:, :] = x[..., :-1, :]
    out[..., :-1, :] += x[..., 1:, :]
    out[..., :, 1:] += x[..., :, :-1]
    out[..., :, :-1] += x[..., :, 1:]
    out *= 0.25
    return np.floor(out, out=out)


def neighbour_coefficients(
    weights: Array, hidden_weights: Array, hidden_bias: Array, places: Array, near: Array, there: Array, count: Array
) -> Array:
    """What symbols at four neighbours add to the two coefficients that choose tables.

    Features of a channel at a position: a constant; of its neighbours' values the mean, the mean magnitude and the mean
    deviation from their mean; and H hidden units of a small network. Each is rounded down and clipped.

    Shape:
        weights: (channels, 2, 4 + H). hidden_weights: (channels, H, 4). hidden_bias: (channels, H). places: the values,
        (channels, positions + 1), the last one zero: beyond the border. near: the neighbours' positions, (4, m). there: 1, or
        0 beyond the border, (4, m). count: how many there are, at least 1, (m,). Returns: (channels, 2, m).
    """
    around = places.take(near, 1)  # (channels, neighbours, m)
    features: Array = np.empty((len(around), weights.shape[2], around.shape[2]), weights.dtype)
    features[:, 0] = 1 << VALUE_BITS
    mean, magnitude, deviation = (features[:, i] for i in (1, 2, 3))
    if weights.shape[2] > 4:
        seen = np.clip(around, -LARGEST_NEIGHBOUR, LARGEST_NEIGHBOUR)
        np.matmul(hidden_weights, seen, out=features[:, 4:])
        features[:, 4:] += hidden_bias[:, :, None]
        np.floor(features[:, 4:], out=features[:, 4:])
        np.clip(features[:, 4:], 0, LARGEST_NEIGHBOUR, out=features[:, 4:])
    # A quotient of such integers that is none itself is too far from the next one to be rounded to it.
    np.floor(np.divide(around.sum(1), count, out=mean), out=mean)
    np.floor(np.divide(np.abs(around).sum(1), count, out=magnitude), out=magnitude)
    around -= mean[:, None]
    np.abs(around, out=around)
    around *= there
    np.floor(np.divide(around.sum(1), count, out=deviation), out=deviation)
    np.clip(features[:, :4], -LARGEST_NEIGHBOUR, LARGEST_NEIGHBOUR, out=features[:, :4])
    return np.asarray(weights @ features)


def look_up(values: Array, symbols: Array, out: Array) -> None:
    """The values of symbols: (channels, S) and (channels, rows) to ``out``, (channels, at least rows)."""
    first = np.arange(len(values), dtype=np.int32)[:, None] * np.int32(values.shape[1])
    out[:, : symbols.shape[1]] = values.take(symbols + first, mode="clip")


def build_indexes(own: Array, network: Array, levels: Levels) -> NDArray[np.int32]:
    """The tables that two coefficients choose: their sums, rounded to the grid of levels.

    Shape:
        own, network: (channels, 2, rows). Returns: (channels, rows), numbers among the tables of each channel.
    """
    (low, high), (low_second, high_second) = levels
    x = np.floor(own)
    x += network
    x += 2.0 ** (VALUE_BITS - LEVEL_BITS - 1)
    x *= 2.0 ** (LEVEL_BITS - VALUE_BITS)
    np.floor(x, out=x)
    first, second = x[:, 0], x[:, 1]
    np.clip(first, low, high, out=first)
    np.clip(second, low_second, high_second, out=second)
    seconds = high_second - low_second + 1
    first *= seconds
    first += second
    first -= low * seconds + low_second
    return np.asarray(first, np.int32)


def rdoq_symbols(projected: Array, centres: Array, price: Array, bits: Array, index: Array) -> NDArray[np.integer]:
    """The symbols whose distance and cost together are least, the first of equal ones.

    Shape:
        projected: (channels, m), float32. centres: (channels, S). price: (channels,), of a bit. bits: (S, tables), of each
        symbol in each table. index: the table of each symbol, (channels, m or 1). Returns: (channels, m).
    """
    kind = np.min_scalar_type(len(bits) - 1).type
    chosen = np.zeros(projected.shape, kind)
    least, cost = np.empty((2, *projected.shape), np.float32)
    spent = np.empty(index.shape, np.float32)
    for symbol, of_tables in enumerate(bits):
        of_tables.take(index, out=spent, mode="clip")
        spent *= price[:, None]
        np.subtract(projected, centres[:, symbol, None], out=cost)
        np.abs(cost, out=cost)
        cost += spent
        if symbol:
            np.maximum(chosen, (cost < least) * kind(symbol), out=chosen)
            np.minimum(least, cost, out=least)
        else:
            least[:] = cost
    return chosen


NUMPY = Kernels(
    SymbolEncoder,
    SymbolDecoder,
    floored,
    own_coefficients,
    neighbour_coefficients,
    look_up,
    build_indexes,
    rdoq_symbols,
)
