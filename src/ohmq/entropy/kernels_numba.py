"""The kernels of `ohmq.entropy.kernels`, compiled by numba: the same symbols and the same bytes, in less time.

Nothing is compiled on import: `compile_kernels` does, or the first call. The compiled functions check no bounds:
`checked_symbols`, `checked_index` and the checks of the priors do.
"""

import math
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmq.entropy.kernels import (
    LARGEST_NEIGHBOUR,
    LEVEL_BITS,
    VALUE_BITS,
    Codebook,
    ContextRun,
    Decoder,
    Kernels,
    Levels,
    NeighbourNetworks,
    Neighbours,
)
from ohmq.entropy.range_coder import DAMAGED, checked_index, checked_symbols, probabilities, shortest_bytes
from ohmq.entropy.tables import PRECISION_BITS
from ohmq.errors import BitstreamError
from ohmq.utils.numba_cache import compiled

__all__ = ["COMPILED", "CompiledDecoder", "CompiledEncoder", "compile_kernels"]

Array = NDArray[Any]

_WORD, _HALF = np.uint64(32), np.uint64(1 << 32)
_BITS = np.uint64(PRECISION_BITS)
_ZERO, _ONE = np.uint64(0), np.uint64(1)
_LIKELY, _OTHERS = np.float32(0.5 - PRECISION_BITS), np.float32(1.7 - PRECISION_BITS)
"""Bits below which a symbol has a probability above 0.7, and bits that each of the others then exceeds; see `rdoq_symbols`."""
ROWS_AT_ONCE = 128
"""Rows of a latent that get all codewords while they are in the processor's cache."""
_GRID, _TO_LEVELS = 2.0 ** (VALUE_BITS - LEVEL_BITS - 1), 2.0 ** (LEVEL_BITS - VALUE_BITS)


class CompiledEncoder:
    """Compiled range encoder: the same bytes as `ohmq.entropy.SymbolEncoder`."""

    def __init__(self) -> None:
        self._state = np.array([0, 2**64 - 1], np.uint64)  # low, range
        self._words = np.empty(256, np.uint32)
        self._count = 0

    def encode(self, symbols: Array, tables: Array, index: Array | None = None, in_order: bool = False) -> None:
        """Append symbols; arguments and errors as in `ohmq.entropy.SymbolEncoder.encode`."""
        symbols = checked_symbols(symbols, tables)
        if len(symbols) == 0:
            return
        index = checked_index(len(symbols), tables, index)
        if index is not None and not in_order:
            order = np.argsort(index, kind="stable")
            symbols, index = symbols.take(order), index.take(order)
        room = self._count + len(symbols)  # a symbol completes one word at most
        if room > len(self._words):
            self._words = np.resize(self._words, max(room, 2 * len(self._words)))
        self._count = _encode(
            self._state, self._words, self._count, np.ascontiguousarray(symbols), *_rows(tables, index, len(symbols))
        )

    def finish(self) -> bytes:
        """Return the shortest bytes that decode to the symbols; a decoder reads zeros beyond the end."""
        low, width = self._state.tolist()
        words = int.from_bytes(self._words[: self._count].astype(">u4").tobytes(), "big")
        return shortest_bytes((words << 64) + low, width, 32 * self._count + 64)


class CompiledDecoder:
    """Compiled range decoder: the same symbols as `ohmq.entropy.SymbolDecoder`.

    Args:
        data: the result of `finish` of an encoder.
    """

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(-len(data) % 4 + 8)
        self._words = np.frombuffer(padded, ">u4").astype(np.uint32)
        self._state = np.array([2**64 - 1, int.from_bytes(padded[:8], "big")], np.uint64)  # range; point - low
        self._read = 2

    def decode(self, tables: Array, index: Array | None, count: int, in_order: bool = False) -> NDArray[np.int32]:
        """Return the next symbols; arguments and errors as in `ohmq.entropy.SymbolDecoder.decode`."""
        symbols = np.empty(count, np.int32)
        if count == 0:
            return symbols
        index = checked_index(count, tables, index)
        order = None
        if index is not None and not in_order:
            order = np.argsort(index, kind="stable")
            index = index.take(order)
        self._read = _decode(self._state, self._words, self._read, *_rows(tables, index, count), symbols)
        if self._read < 0:
            raise BitstreamError(DAMAGED)
        if order is None:
            return symbols
        out = np.empty_like(symbols)
        out[order] = symbols
        return out

    def decode_run(self, run: ContextRun, out: NDArray[np.int32]) -> None:
        """Decode a run; see `ohmq.entropy.kernels.Kernels`."""
        kind = run.own.dtype
        no_rows, no_numbers = np.empty(0, np.int64), np.empty(0, kind)
        weights: list[Array] = [np.stack(part) for part in zip(*run.networks, strict=True)]
        self._read = _decode_run(
            self._state,
            self._words,
            self._read,
            run.tables,
            run.own,
            run.network,
            np.array(run.levels, np.int32).reshape(-1),
            np.cumsum([0, *(len(rows) for rows in run.passes)]),
            np.concatenate(run.passes),
            np.concatenate([no_rows, *(part.indexes.reshape(-1) for part in run.neighbours)]),
            np.concatenate([no_numbers, *(part.in_bounds.reshape(-1) for part in run.neighbours)]),
            np.concatenate([no_numbers, *(part.number for part in run.neighbours)]),
            *(weights or [np.empty((0, *(axes - 1) * [0]), kind) for axes in (4, 4, 3)]),
            kind.type(LARGEST_NEIGHBOUR),
            run.values,
            out,
        )
        if self._read < 0:
            raise BitstreamError(DAMAGED)


def _rows(tables: Array, index: Array | None, count: int) -> tuple[Array, Array]:
    """Return the tables and the table of each symbol, in the types that are compiled for."""
    rows = np.arange(count, dtype=np.int32) if index is None else index
    return np.ascontiguousarray(probabilities(tables)), np.ascontiguousarray(rows, np.int32)


@compiled("int64(uint64[::1], uint32[::1], int64, int32[::1], float32[:,::1], int32[::1])")
def _encode(state: Array, words: Array, count: int, symbols: Array, tables: Array, rows: Array) -> int:
    low, width = state[0], state[1]
    for i in range(len(symbols)):
        row, symbol = rows[i], symbols[i]
        before = _ZERO
        for s in range(symbol):
            before += np.uint64(np.uint32(tables[row, s])) + _ONE
        scale = width >> _BITS
        moved = low + scale * before
        if moved < low:  # beyond 64 bits: carry into the words that are written
            last = count - 1
            words[last] += np.uint32(1)
            while words[last] == 0:
                last -= 1
                words[last] += np.uint32(1)
        low = moved
        width = scale * (np.uint64(np.uint32(tables[row, symbol])) + _ONE)
        if width < _HALF:
            words[count] = np.uint32(low >> _WORD)
            count += 1
            low <<= _WORD
            width <<= _WORD
    state[0], state[1] = low, width
    return count


@compiled("int64(uint64[::1], uint32[::1], int64, float32[:,::1], int32[::1], int32[::1])")
def _decode(state: Array, words: Array, read: int, tables: Array, rows: Array, out: Array) -> int:
    width, offset = state[0], state[1]
    for i in range(len(rows)):
        row = rows[i]
        scale = width >> _BITS
        if offset >= scale << _BITS:
            return -1
        symbol, width = (
            0,
            scale * (np.uint64(np.uint32(tables[row, 0])) + _ONE),
        )  # compare multiples of the scale: no division
        while offset >= width:
            offset -= width
            symbol += 1
            width = scale * (np.uint64(np.uint32(tables[row, symbol])) + _ONE)
        out[i] = symbol
        if width < _HALF:
            width <<= _WORD
            offset <<= _WORD
            if read < len(words):
                offset |= np.uint64(words[read])
            read += 1
    state[0], state[1] = width, offset
    return read


@compiled("void(float32[:,::1], float32, float32[::1])", "void(float64[:,::1], float64, float64[::1])")
def _floor_in_place(x: Array, lower: float, largest: Array) -> None:
    for row in range(x.shape[0]):
        for column in range(x.shape[1]):
            value = np.floor(max(x[row, column], lower))
            x[row, column] = value
            largest[column] = max(largest[column], abs(value))


def floor_in_place(x: Array, lower: float) -> Array:
    """Compiled version of `ohmq.entropy.kernels.floor_in_place`."""
    largest: Array = np.zeros(x.shape[1], x.dtype)
    _floor_in_place(x, x.dtype.type(lower), largest)
    return largest


@compiled(
    "void(float32[:,:,::1], float32[:,:,:,::1], float32[:,:,:,:,::1])",
    "void(float64[:,:,::1], float32[:,:,:,::1], float64[:,:,:,:,::1])",
)
def _own_coefficients(weights: Array, own: Array, out: Array) -> None:
    kind = weights.dtype.type
    one, two, zero = kind(1 << VALUE_BITS), kind(2 << VALUE_BITS), kind(0)
    channels, tiles, height, width = own.shape
    for channel in range(channels):
        a = weights[channel]
        for tile in range(tiles):
            for y in range(height):
                for x in range(width):
                    here = kind(own[channel, tile, y, x])
                    around, magnitude = zero, zero
                    if y > 0:
                        value = kind(own[channel, tile, y - 1, x])
                        around += value
                        magnitude += abs(value)
                    if y < height - 1:
                        value = kind(own[channel, tile, y + 1, x])
                        around += value
                        magnitude += abs(value)
                    if x > 0:
                        value = kind(own[channel, tile, y, x - 1])
                        around += value
                        magnitude += abs(value)
                    if x < width - 1:
                        value = kind(own[channel, tile, y, x + 1])
                        around += value
                        magnitude += abs(value)
                    around = min(max(np.floor(around * kind(0.25)), -one), one)
                    magnitude = min(np.floor(magnitude * kind(0.25)), two)
                    size, value = min(abs(here), two), min(max(here, -one), one)
                    for i in range(2):
                        out[channel, i, tile, y, x] = (
                            a[i, 0] * size + a[i, 1] * magnitude + a[i, 2] * value + a[i, 3] * around
                        )


def own_coefficients(weights: Array, own: Array, shape: tuple[int, ...]) -> Array:
    """Compiled version of `ohmq.entropy.kernels.own_coefficients`."""
    out: Array = np.empty((len(own), 2, *shape), weights.dtype)
    _own_coefficients(weights, own.reshape(len(own), *shape), out)
    return out.reshape(len(own), 2, -1)


@compiled(
    *(
        "void(f[:,:,::1], f[:,:,::1], f[:,::1], f[:,::1], int64[:,::1], f[:,::1], f[::1], f, f[:,:,::1])".replace(
            "f", kind
        )
        for kind in ("float32", "float64")
    )
)
def _neighbour_coefficients(
    weights: Array,
    hidden_weights: Array,
    hidden_bias: Array,
    values: Array,
    index: Array,
    in_bounds: Array,
    count: Array,
    limit: float,
    out: Array,
) -> None:
    kind = weights.dtype.type
    zero, one = kind(0), kind(1 << VALUE_BITS)
    positions = out.shape[2]
    around = np.empty((4, positions), weights.dtype)
    for channel in range(out.shape[0]):
        for k in range(4):
            for i in range(positions):
                around[k, i] = values[channel, index[k, i]]
        u, v = weights[channel, 0], weights[channel, 1]
        first, second = out[channel, 0], out[channel, 1]
        for i in range(positions):
            a, b, c, d = around[0, i], around[1, i], around[2, i], around[3, i]
            mean = np.floor((a + b + c + d) / count[i])
            magnitude = min(np.floor((abs(a) + abs(b) + abs(c) + abs(d)) / count[i]), limit)
            deviation = abs(a - mean) * in_bounds[0, i] + abs(b - mean) * in_bounds[1, i]
            deviation += abs(c - mean) * in_bounds[2, i] + abs(d - mean) * in_bounds[3, i]
            deviation = min(np.floor(deviation / count[i]), limit)
            mean = min(max(mean, -limit), limit)
            first[i] = u[0] * one + u[1] * mean + u[2] * magnitude + u[3] * deviation
            second[i] = v[0] * one + v[1] * mean + v[2] * magnitude + v[3] * deviation
            for k in range(4):
                around[k, i] = min(max(around[k, i], -limit), limit)
        for h in range(hidden_weights.shape[1]):
            w, bias = hidden_weights[channel, h], hidden_bias[channel, h]
            for i in range(positions):
                unit = w[0] * around[0, i] + w[1] * around[1, i] + w[2] * around[2, i] + w[3] * around[3, i] + bias
                unit = min(max(np.floor(unit), zero), limit)
                first[i] += u[4 + h] * unit
                second[i] += v[4 + h] * unit


def neighbour_coefficients(networks: NeighbourNetworks, values: Array, neighbours: Neighbours) -> Array:
    """Compiled version of `ohmq.entropy.kernels.neighbour_coefficients`."""
    weights, hidden_weights, hidden_bias = (np.ascontiguousarray(x) for x in networks)
    index = neighbours.indexes.astype(np.int64, copy=False)
    out: Array = np.empty((len(weights), 2, index.shape[1]), weights.dtype)
    _neighbour_coefficients(
        weights,
        hidden_weights,
        hidden_bias,
        values,
        index,
        neighbours.in_bounds,
        neighbours.number,
        weights.dtype.type(LARGEST_NEIGHBOUR),
        out,
    )
    return out


@compiled(
    "void(float32[:,::1], int32[:,::1], float32[:,::1])",
    "void(float64[:,::1], int32[:,::1], float64[:,::1])",
)
def _look_up(values: Array, symbols: Array, out: Array) -> None:
    last = values.shape[1] - 1
    for channel in range(symbols.shape[0]):
        for row in range(symbols.shape[1]):
            out[channel, row] = values[channel, min(max(symbols[channel, row], 0), last)]


def look_up(values: Array, symbols: Array, out: Array) -> None:
    """Compiled version of `ohmq.entropy.kernels.look_up`."""
    _look_up(np.ascontiguousarray(values), np.ascontiguousarray(symbols, np.int32), out)


@compiled(
    *(
        "void(f[:,:,::1], float32[:,:,::1], int32[::1], int64[::1], f[:,:,::1], int32[:,::1])".replace("f[", kind + "[")
        for kind in ("float32", "float64")
    )
)
def _build_indexes(own: Array, network: Array, levels: Array, rows: Array, neighbours: Array, out: Array) -> None:
    kind = own.dtype.type
    half, to_levels = kind(_GRID), kind(_TO_LEVELS)
    seconds = levels[3] - levels[2] + 1
    selected, beside = len(rows) > 0, neighbours.shape[2] > 0
    for channel in range(out.shape[0]):
        for i in range(out.shape[1]):
            row = np.uint64(rows[i] if selected else i)
            one, other = own[channel, 0, row], own[channel, 1, row]
            if beside:
                one += neighbours[channel, 0, i]
                other += neighbours[channel, 1, i]
            first = np.floor((np.floor(one) + network[channel, 0, row] + half) * to_levels)
            second = np.floor((np.floor(other) + network[channel, 1, row] + half) * to_levels)
            first = min(max(first, kind(levels[0])), kind(levels[1]))
            second = min(max(second, kind(levels[2])), kind(levels[3]))
            out[channel, i] = (np.int32(first) - levels[0]) * seconds + np.int32(second) - levels[2]


def build_indexes(
    own: Array, network: Array, levels: Levels, rows: Array | None = None, neighbours: Array | None = None
) -> NDArray[np.int32]:
    """Compiled version of `ohmq.entropy.kernels.build_indexes`."""
    out = np.empty((len(own), own.shape[2] if rows is None else len(rows)), np.int32)
    if out.size:
        rows = np.empty(0, np.int64) if rows is None else rows
        neighbours = np.empty((len(own), 2, 0), own.dtype) if neighbours is None else neighbours
        _build_indexes(own, network, np.array(levels, np.int32).reshape(-1), rows, neighbours, out)
    return out


_DECODE_RUN = (
    "int64(uint64[::1], uint32[::1], int64, float32[:,::1], f[:,:,::1], float32[:,:,::1], int32[::1], int64[::1], "
    "int64[::1], int64[::1], f[::1], f[::1], f[:,:,:,::1], f[:,:,:,::1], f[:,:,::1], f, f[:,::1], int32[:,::1])"
)


@compiled(*(re.sub(r"\bf\b", kind, _DECODE_RUN) for kind in ("float32", "float64")))
def _decode_run(
    state: Array,
    words: Array,
    read: int,
    tables: Array,
    own: Array,
    network: Array,
    levels: Array,
    ends: Array,
    rows: Array,
    index: Array,
    in_bounds: Array,
    count: Array,
    weights: Array,
    hidden_weights: Array,
    hidden_bias: Array,
    limit: float,
    values: Array,
    out: Array,
) -> int:
    each = np.int32(len(tables) // len(out))
    seen = np.zeros((len(values), out.shape[1] + 1), own.dtype)  # the last is beyond the border
    for step in range(len(ends) - 1):
        selected = rows[ends[step] : ends[step + 1]]
        positions = len(selected)
        indexes, symbols = np.empty((1, positions), np.int32), np.empty(positions, np.int32)
        beside = np.empty((1, 2, positions if step else 0), own.dtype)
        first, end = ends[step] - ends[1], ends[step + 1] - ends[1]
        for channel in range(len(out)):
            this = slice(channel, channel + 1)
            if step:
                _neighbour_coefficients(
                    weights[step - 1, this],
                    hidden_weights[step - 1, this],
                    hidden_bias[step - 1, this],
                    seen[this],
                    index[4 * first : 4 * end].reshape(4, positions),
                    in_bounds[4 * first : 4 * end].reshape(4, positions),
                    count[first:end],
                    limit,
                    beside,
                )
            _build_indexes(own[this], network[this], levels, selected, beside, indexes)
            for i in range(positions):
                indexes[0, i] += channel * each
            read = _decode(state, words, read, tables, indexes[0], symbols)
            if read < 0:
                return read
            for i in range(positions):
                out[channel, selected[i]] = symbols[i]
                if len(values):
                    seen[channel, selected[i]] = values[channel, symbols[i]]
    return read


def decode_run(decoder: Decoder, run: ContextRun, out: NDArray[np.int32]) -> None:
    """Decode a run; see `ohmq.entropy.kernels.Kernels`."""
    assert isinstance(decoder, CompiledDecoder)
    decoder.decode_run(run, out)


@compiled(
    "void(f[:,::1], f[:,::1], f[::1], f[:,::1], int32[:,::1], f[::1], int64[::1], int32[:,::1])".replace(
        "f[", "float32["
    )
)
def _rdoq_symbols(
    projected: Array,
    centres: Array,
    bit_cost: Array,
    bits: Array,
    index: Array,
    row_weights: Array,
    rows: Array,
    out: Array,
) -> None:
    per_symbol, count = index.shape[1] > 1, len(rows) if len(rows) else out.shape[1]
    middle, last = bits.shape[0] // 2, bits.shape[0] - 1
    for channel in range(out.shape[0]):
        centre, each = centres[channel], bit_cost[channel]
        below, above = centre[max(middle - 1, 0)], centre[min(middle + 1, last)]
        for symbol in range(last):
            if centre[symbol] > centre[symbol + 1]:
                below = above = centre[middle]  # not in order: all costs are compared
        for i in range(count):
            row = np.uint64(rows[i] if len(rows) else i)
            table = np.uint64(index[channel, i if per_symbol else 0])
            value, weight = projected[channel, row], row_weights[row]
            middle_bits, nearest = bits[middle, table], min(value - below, above - value)
            middle_cost = abs(value - centre[middle]) + middle_bits * each * weight
            # The others are farther, and take more than _OTHERS. One branch, which is nearly always predicted.
            likely = middle_bits < _LIKELY
            if likely & (nearest >= 0) & (middle_cost < nearest + _OTHERS * each * weight):
                out[channel, row] = middle
                continue
            least, chosen = np.float32(math.inf), 0
            for symbol in range(bits.shape[0]):
                rate = bits[symbol, table] * each * weight
                cost = abs(value - centre[symbol]) + rate
                if cost < least:
                    least, chosen = cost, symbol
            out[channel, row] = chosen


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
    """Compiled version of `ohmq.entropy.kernels.rdoq_symbols`."""
    if rows is not None and len(rows) == 0:
        return
    rows = np.empty(0, np.int64) if rows is None else rows
    projected, centres, bits = (np.ascontiguousarray(x) for x in (projected, centres, bits))
    if row_weights is None:
        row_weights = np.ones(projected.shape[1], np.float32)
    bit_cost, index = np.ascontiguousarray(bit_cost), np.ascontiguousarray(index, np.int32)
    _rdoq_symbols(projected, centres, bit_cost, bits, index, row_weights, rows, out)


@compiled(
    *(
        "void(int32[::1], f[:,::1], f[:,::1], f[::1], int32[:,::1], int64, f[:,::1])".replace("f", kind)
        for kind in ("float32", "float64")
    )
)
def _add_codewords(
    middle: Array, differences: Array, directions: Array, offset: Array, symbols: Array, rows_at_once: int, out: Array
) -> None:
    depth, last = directions.shape[1], differences.shape[1] - 1
    others = np.empty(rows_at_once, np.int32)  # rows with another symbol than the middle one
    for first in range(0, len(out), rows_at_once):
        rows = out[first : first + rows_at_once]
        for row in range(len(rows)):
            for k in range(depth):
                rows[row, k] += offset[k]
        for channel in range(len(symbols)):
            chosen, direction = symbols[channel, first : first + len(rows)], directions[channel]
            count = 0
            for row in range(len(rows)):
                others[count] = row
                count += 1 if chosen[row] != middle[channel] else 0
            for i in range(count):
                latent = rows[others[i]]
                difference = differences[channel, min(max(chosen[others[i]], 0), last)]
                for k in range(depth):
                    latent[k] += difference * direction[k]


def add_codewords(codebook: Codebook, symbols: Array, out: Array) -> None:
    """Compiled version of `ohmq.entropy.kernels.add_codewords`."""
    _add_codewords(*codebook, np.ascontiguousarray(symbols, np.int32), ROWS_AT_ONCE, out)


COMPILED = Kernels(
    encoder=CompiledEncoder,
    decoder=CompiledDecoder,
    floor_in_place=floor_in_place,
    own_coefficients=own_coefficients,
    neighbour_coefficients=neighbour_coefficients,
    look_up=look_up,
    build_indexes=build_indexes,
    rdoq_symbols=rdoq_symbols,
    add_codewords=add_codewords,
    decode_run=decode_run,
)
"""Kernels that are compiled at their first call; `compile_kernels` compiles all of them at once."""


def compile_kernels() -> Kernels:
    """Compile all kernels, or load them from the cache of numba.

    Returns:
        `COMPILED`.

    Raises:
        ConfigError: numba is missing or unusable, or its cache cannot be written or read.
    """
    for function in (
        _encode,
        _decode,
        _floor_in_place,
        _own_coefficients,
        _neighbour_coefficients,
        _look_up,
        _build_indexes,
        _decode_run,
        _rdoq_symbols,
        _add_codewords,
    ):
        function.compile()
    return COMPILED
