"""Loops over symbols in which coding spends its time, in numpy; `ohmq.entropy.kernels_numba` has them compiled."""

from collections.abc import Callable, Sequence
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
    "Codebook",
    "ContextRun",
    "Decoder",
    "Encoder",
    "Kernels",
    "Levels",
    "NeighbourNetworks",
    "Neighbours",
]

Array = NDArray[Any]
Levels = tuple[tuple[int, int], tuple[int, int]]
"""Lowest and highest level of each of the two coefficients that choose a table."""

VALUE_BITS = 8
"""Fraction bits of the context networks' inputs, activations and outputs before the last shift."""
LEVEL_BITS = 2
"""Fraction bits of a coefficient's grid: its step is a quarter."""
SPATIAL_LIMIT = 8
"""Limit of features of neighbours' symbols, in steps of the quantizer."""
LARGEST_NEIGHBOUR = SPATIAL_LIMIT << VALUE_BITS
"""The same limit in integers; it also clips neighbour values and hidden units of the neighbour networks."""


class Encoder(Protocol):
    """Symbol encoder, such as `ohmq.entropy.SymbolEncoder`."""

    def encode(self, symbols: Array, tables: Array, index: Array | None = None, in_order: bool = False) -> None:
        """Append symbols."""

    def finish(self) -> bytes:
        """Return the bytes of all symbols."""


class Decoder(Protocol):
    """Symbol decoder, such as `ohmq.entropy.SymbolDecoder`."""

    def decode(self, tables: Array, index: Array | None, count: int, in_order: bool = False) -> NDArray[np.int32]:
        """Return the next symbols."""


class NeighbourNetworks(NamedTuple):
    """Weights that turn neighbour values of checkerboard channels into coefficients, of one pass.

    Attributes:
        weights: of the features, (channels, 2, 4 + H).
        hidden_weights: of the H hidden units of each channel, (channels, H, 4).
        hidden_bias: (channels, H).
    """

    weights: Array
    hidden_weights: Array
    hidden_bias: Array


class Neighbours(NamedTuple):
    """Four neighbours of each position that one pass codes.

    Attributes:
        indexes: positions of the neighbours, (4, m); the number of positions stands for one beyond the border.
        in_bounds: 1, or 0 beyond the border, (4, m).
        number: neighbours in bounds, but at least 1, (m,).
    """

    indexes: NDArray[np.int64]
    in_bounds: Array
    number: Array


class Codebook(NamedTuple):
    """Codewords of some channels: the value of a symbol times the direction of its channel.

    Most symbols of an image are the middle one of their channel, whose codewords are added up once for all positions.

    Attributes:
        middle: the middle symbol of each channel, (channels,), int32.
        differences: values of symbols less that of the middle one, (channels, S).
        directions: (channels, D).
        offset: sum of the codewords of the middle symbols, (D,).
    """

    middle: NDArray[np.int32]
    differences: Array
    directions: Array
    offset: Array

    @classmethod
    def of(cls, values: Array, directions: Array, alphabets: NDArray[Any]) -> "Codebook":
        """Prepare the codewords of some channels.

        Args:
            values: of each symbol of each channel, (channels, S).
            directions: of each channel, (channels, D), of the same type.
            alphabets: number of symbols of each channel, (channels,).

        Returns:
            The codewords.
        """
        middle = (alphabets // 2).astype(np.int32)
        middle_values = np.take_along_axis(values, middle[:, None], 1)
        differences = np.ascontiguousarray(values - middle_values)
        return cls(middle, differences, np.ascontiguousarray(directions), (middle_values * directions).sum(0))


class ContextRun(NamedTuple):
    """A run of channels whose symbols can be decoded at once, pass by pass and in each pass channel by channel.

    Attributes:
        tables: of the channels, one channel after the other, (channels * tables of a channel, S).
        own: coefficients of `own_coefficients`, (channels, 2, rows).
        network: coefficients of the context network, (channels, 2, rows).
        levels: grid of the coefficients.
        passes: rows of each pass, int64, (m,).
        neighbours: of each pass after the first.
        networks: weights of the neighbours, of each pass after the first.
        values: of each symbol of each channel, which later passes see, (channels, S); empty for a single pass.
    """

    tables: Array
    own: Array
    network: Array
    levels: Levels
    passes: Sequence[NDArray[np.int64]]
    neighbours: Sequence[Neighbours]
    networks: Sequence[NeighbourNetworks]
    values: Array


class Kernels(NamedTuple):
    """One implementation of the loops over symbols: coders, and the functions of this module.

    All implementations give the same, bit by bit. ``decode_run`` decodes a run into (channels, rows); without it the other
    functions do, step by step.
    """

    encoder: Callable[[], Encoder]
    decoder: Callable[[bytes], Decoder]
    floor_in_place: Callable[[Array, float], Array]
    own_coefficients: Callable[[Array, Array, tuple[int, ...]], Array]
    neighbour_coefficients: Callable[[NeighbourNetworks, Array, Neighbours], Array]
    look_up: Callable[[Array, Array, Array], None]
    build_indexes: Callable[[Array, Array, Levels, Array | None, Array | None], NDArray[np.int32]]
    rdoq_symbols: Callable[[Array, Array, Array, Array, Array, Array | None, Array | None, NDArray[np.int32]], None]
    add_codewords: Callable[[Codebook, Array, Array], None]
    decode_run: Callable[[Decoder, ContextRun, NDArray[np.int32]], None] | None = None


def floor_in_place(x: Array, lower: float) -> Array:
    """Clip numbers from below and round them down, in place.

    Args:
        x: (rows, columns), overwritten.
        lower: the least value that stays; 0 makes it a ReLU.

    Returns:
        The largest magnitude of each column, (columns,).
    """
    np.floor(np.maximum(x, x.dtype.type(lower), out=x), out=x)
    return np.asarray(x.max(0) if lower == 0 else np.maximum(x.max(0), -x.min(0)))


def own_coefficients(weights: Array, own: Array, shape: tuple[int, ...]) -> Array:
    """Compute the share of the channels' own projections in the two coefficients that choose tables.

    A channel has four features at each position, each rounded down and clipped: its magnitude, the mean magnitude of
    its four neighbours, its value, and the mean value of its neighbours.

    Args:
        weights: (channels, 2, 4).
        own: the projections, integers, (channels, rows); overwritten.
        shape: (tiles, h, w) of the rows.

    Returns:
        (channels, 2, rows), of the type of the weights.
    """
    one, two = 1 << VALUE_BITS, 2 << VALUE_BITS
    features: Array = np.empty((len(own), 4, own.shape[1]), weights.dtype)
    out = features.reshape(len(own), 4, *shape)
    grid = own.reshape(len(own), *shape)
    neighbour_mean = _neighbour_mean(grid)
    np.clip(grid, -one, one, out=out[:, 2])
    np.clip(neighbour_mean, -one, one, out=out[:, 3])
    magnitude = np.abs(grid, out=grid)
    neighbour_mean = _neighbour_mean(magnitude)
    np.clip(magnitude, 0, two, out=out[:, 0])
    np.clip(neighbour_mean, 0, two, out=out[:, 1])
    return np.asarray(weights @ features)


def _neighbour_mean(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of the four neighbours, zero beyond the border, rounded down; (..., h, w)."""
    out = np.zeros_like(x)
    out[..., 1:, :] = x[..., :-1, :]
    out[..., :-1, :] += x[..., 1:, :]
    out[..., :, 1:] += x[..., :, :-1]
    out[..., :, :-1] += x[..., :, 1:]
    out *= 0.25
    return np.floor(out, out=out)


def neighbour_coefficients(networks: NeighbourNetworks, values: Array, neighbours: Neighbours) -> Array:
    """Compute the share of neighbour values in the two coefficients that choose tables.

    A channel has these features at a position, each rounded down and clipped: a constant; of its neighbours' values the
    mean, the mean magnitude and the mean deviation from the mean; and the H hidden units of a small network.

    Args:
        networks: the weights of the pass.
        values: values of the symbols, (channels, positions + 1); the last column is zero and stands for beyond the
            border.
        neighbours: of the m positions that the pass codes.

    Returns:
        (channels, 2, m), of the type of the weights.
    """
    weights, hidden_weights, hidden_bias = networks
    around = values.take(neighbours.indexes, 1)  # (channels, neighbours, m)
    features: Array = np.empty((len(around), weights.shape[2], around.shape[2]), weights.dtype)
    features[:, 0] = 1 << VALUE_BITS
    mean, magnitude, deviation = (features[:, i] for i in (1, 2, 3))
    if weights.shape[2] > 4:
        clipped = np.clip(around, -LARGEST_NEIGHBOUR, LARGEST_NEIGHBOUR)
        np.matmul(hidden_weights, clipped, out=features[:, 4:])
        features[:, 4:] += hidden_bias[:, :, None]
        np.floor(features[:, 4:], out=features[:, 4:])
        np.clip(features[:, 4:], 0, LARGEST_NEIGHBOUR, out=features[:, 4:])
    # Rounding the quotient of such integers never carries it to the next integer.
    count = neighbours.number
    np.floor(np.divide(around.sum(1), count, out=mean), out=mean)
    np.floor(np.divide(np.abs(around).sum(1), count, out=magnitude), out=magnitude)
    around -= mean[:, None]
    np.abs(around, out=around)
    around *= neighbours.in_bounds
    np.floor(np.divide(around.sum(1), count, out=deviation), out=deviation)
    np.clip(features[:, :4], -LARGEST_NEIGHBOUR, LARGEST_NEIGHBOUR, out=features[:, :4])
    return np.asarray(weights @ features)


def look_up(values: Array, symbols: Array, out: Array) -> None:
    """Write the values of symbols to ``out``.

    Args:
        values: of each symbol of each channel, (channels, S).
        symbols: (channels, rows).
        out: (channels, at least rows).
    """
    first = np.arange(len(values), dtype=np.int32)[:, None] * np.int32(values.shape[1])
    out[:, : symbols.shape[1]] = values.take(symbols + first, mode="clip")


def add_codewords(codebook: Codebook, symbols: Array, out: Array) -> None:
    """Add the codewords of symbols to a latent, channel after channel.

    Args:
        codebook: of the channels.
        symbols: (channels, rows), int32; those beyond the ends of the alphabet count as the last at that end.
        out: (rows, at least D), of the codebook's type.
    """
    differences, depth = codebook.differences, codebook.directions.shape[1]
    out[:, :depth] += codebook.offset
    symbols = symbols.clip(0, differences.shape[1] - 1)
    for channel, direction in enumerate(codebook.directions):
        rows = np.flatnonzero(symbols[channel] != codebook.middle[channel])
        out[rows, :depth] += differences[channel].take(symbols[channel, rows])[:, None] * direction


def build_indexes(
    own: Array, network: Array, levels: Levels, rows: Array | None = None, neighbours: Array | None = None
) -> NDArray[np.int32]:
    """Choose a table for each symbol: sum the coefficients and round them to the grid of levels.

    Args:
        own: coefficients of `own_coefficients`, (channels, 2, all rows).
        network: coefficients of the context network, (channels, 2, all rows).
        levels: the grid.
        rows: the m rows whose tables are chosen, int64, (m,); None: all. Default: None.
        neighbours: coefficients of `neighbour_coefficients` of these rows, (channels, 2, m); None: zero. Default: None.

    Returns:
        Index of the table among those of the channel, (channels, m).
    """
    (low, high), (low_second, high_second) = levels
    if rows is not None:
        own, network = own.take(rows, 2), network.take(rows, 2)
    x = np.floor(own if neighbours is None else own + neighbours)
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


def rdoq_symbols(
    projected: Array,
    centres: Array,
    bit_cost: Array,
    bits: Array,
    index: Array,
    row_weights: Array | None,
    rows: Array | None,
    out: NDArray[np.int32],
) -> None:
    """Choose the symbols with the least rate-distortion cost, |projected - centre| + bit_cost * row_weight * bits.

    The first of equal ones is chosen.

    Args:
        projected: the latent in the channels' directions, float32, (channels, all rows).
        centres: of the symbols, (channels, S).
        bit_cost: distance that one bit is worth, (channels,).
        bits: -log2 of the frequency of each symbol in each table, (S, tables).
        index: the table of each symbol, (channels, m), or (channels, 1) if a channel has one.
        row_weights: factor on the bit cost of each row, float32, (all rows,); None: 1.
        rows: the m rows whose symbols are chosen, int64, (m,); None: all.
        out: symbols, (channels, all rows); those of ``rows`` are overwritten.
    """
    where = slice(None) if rows is None else rows
    projected = projected[:, where]
    weights = None if row_weights is None else row_weights[where]
    kind = np.min_scalar_type(len(bits) - 1).type
    chosen = np.zeros(projected.shape, kind)
    least, cost = np.empty((2, *projected.shape), np.float32)
    rate = np.empty(index.shape, np.float32)
    for symbol, table_bits in enumerate(bits):
        table_bits.take(index, out=rate, mode="clip")
        rate *= bit_cost[:, None]
        np.subtract(projected, centres[:, symbol, None], out=cost)
        np.abs(cost, out=cost)
        cost += rate if weights is None else rate * weights
        if symbol:
            np.maximum(chosen, (cost < least) * kind(symbol), out=chosen)
            np.minimum(least, cost, out=least)
        else:
            least[:] = cost
    out[:, where] = chosen


NUMPY = Kernels(
    encoder=SymbolEncoder,
    decoder=SymbolDecoder,
    floor_in_place=floor_in_place,
    own_coefficients=own_coefficients,
    neighbour_coefficients=neighbour_coefficients,
    look_up=look_up,
    build_indexes=build_indexes,
    rdoq_symbols=rdoq_symbols,
    add_codewords=add_codewords,
)
"""Kernels in numpy, with the range coder of constriction."""
