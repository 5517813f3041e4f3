"""Range coding (Martin, Range encoding, 1979) with integer tables, on top of constriction.

constriction turns float probabilities p into fixed-point frequencies floor(cumsum * scale) + i with
scale = (2^24 - S) / sum(p). Given frequency - 1 as p, whose sum is 2^24 - S, the scale is exactly 1 and our integers
come back unchanged; float32 holds all of them. `docs/file-format.md` describes the bytes.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmq.entropy.tables import PRECISION_BITS
from ohmq.errors import BitstreamError

try:
    import constriction
except ModuleNotFoundError:  # There is no wheel for Linux on ARM: `select_kernels` chooses the compiled range coder.
    constriction = None  # type: ignore[assignment]

__all__ = [
    "DAMAGED",
    "HAS_CONSTRICTION",
    "SymbolDecoder",
    "SymbolEncoder",
    "checked_index",
    "checked_symbols",
    "prepare_tables",
    "probabilities",
    "shortest_bytes",
]

Array = NDArray[Any]
_Categorical: Any = constriction and constriction.stream.model.Categorical
_FAMILY: Any = constriction and _Categorical(perfect=False, lazy=False)
HAS_CONSTRICTION = constriction is not None
"""Whether `SymbolEncoder` and `SymbolDecoder` can be used."""
DAMAGED = "the entropy-coded payload is damaged: no encoder writes these bytes"
_ROWS_BELOW = 16
"""Symbols of a table below which one call with a row for each symbol is faster than one call for each table."""


class SymbolEncoder:
    """Range encoder: symbols to bytes.

    Example:
        >>> tables = np.array([[2**23, 2**22, 2**22]])
        >>> encoder = SymbolEncoder()
        >>> encoder.encode(np.array([0, 2, 1, 0]), tables)
        >>> encoder.finish()
        b'p'
        >>> SymbolDecoder(b"p").decode(tables, None, 4)
        array([0, 2, 1, 0], dtype=int32)
    """

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()

    def encode(self, symbols: Array, tables: Array, index: Array | None = None, in_order: bool = False) -> None:
        """Append symbols.

        Args:
            symbols: (n,), integers in [0, S).
            tables: (T, S), int64, positive, rows sum to 2^24; or float32, the result of `prepare_tables`, which is not
                checked again.
            index: (n,), the table of each symbol; coding goes table by table (ascending), symbols in order in each.
                None: T is 1 (for all symbols) or n (row i for symbol i), symbols in order.
            in_order: code symbol by symbol in their order, with an index as well. Default: False.

        Raises:
            ValueError: a symbol outside the alphabet, or tables or an index that do not fit; nothing is appended.
            TypeError: symbols that are not integers.
        """
        symbols = checked_symbols(symbols, tables)
        if len(symbols) == 0:
            return
        for positions, model, parameters in list(_steps(len(symbols), tables, index, in_order)):
            self._encoder.encode(np.ascontiguousarray(symbols[positions]), model, *parameters)

    def finish(self) -> bytes:
        """Return the shortest bytes that decode to the symbols; a decoder reads zeros beyond the end."""
        words = self._encoder.get_compressed()
        if len(words) == 0:
            return b""
        position, (lower, width) = self._encoder.pos()
        bits = 32 * position + 64
        point = int.from_bytes(words.astype(">u4").tobytes(), "big") << (bits - 32 * len(words))
        return shortest_bytes(point - (point - lower) % (1 << 64), width, bits)  # the point is less than 2^64 above low


class SymbolDecoder:
    """Range decoder: bytes to symbols, the inverse of `SymbolEncoder`.

    Args:
        data: the result of `SymbolEncoder.finish`.
    """

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(-len(data) % 4 + 8)
        self._decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))

    def decode(self, tables: Array, index: Array | None, count: int, in_order: bool = False) -> NDArray[np.int32]:
        """Return the next symbols.

        Args:
            tables: as in `SymbolEncoder.encode`.
            index: as in `SymbolEncoder.encode`.
            count: of symbols.
            in_order: as in `SymbolEncoder.encode`.

        Returns:
            (count,), int32.

        Raises:
            BitstreamError: bytes that no encoder writes.
            ValueError: tables or an index that do not fit.
        """
        out = np.empty(count, np.int32)
        if count == 0:
            return out
        for positions, model, parameters in _steps(count, tables, index, in_order):
            amount = () if parameters else (len(out[positions]),)
            try:
                out[positions] = self._decoder.decode(model, *parameters, *amount)
            except AssertionError as error:  # constriction raises it for a number outside every symbol's interval
                raise BitstreamError(DAMAGED) from error
        return out


def shortest_bytes(low: int, width: int, bits: int) -> bytes:
    """Return the number with the fewest bytes in the interval [low, low + width) of an encoder.

    Every number in the interval decodes to the same symbols.

    Args:
        low: lower end.
        width: of the interval.
        bits: number of bits of ``low``.

    Returns:
        The bytes, without zeros at the end.
    """
    for count in range((bits - width.bit_length()) // 8, bits // 8 + 1):
        shift = bits - 8 * count
        value = -(-low >> shift)
        if value << shift < low + width:
            return value.to_bytes(count, "big").rstrip(b"\0")
    raise AssertionError("the interval of a range coder always holds a number of its own precision")


def checked_symbols(symbols: Array, tables: Array) -> NDArray[np.int32]:
    """Check that tables can code these symbols; return them as int32. Errors as in `SymbolEncoder.encode`."""
    symbols = np.asarray(symbols)
    if len(symbols):
        if symbols.dtype.kind not in "iu":
            raise TypeError(f"symbols must be integers, not {symbols.dtype}")
        if symbols.min() < 0 or symbols.max() >= tables.shape[-1]:
            raise ValueError(f"symbols lie in [{symbols.min()}, {symbols.max()}]; expected [0, {tables.shape[-1]})")
    return symbols.astype(np.int32, copy=False)


def checked_index(count: int, tables: Array, index: Array | None) -> Array | None:
    """Check tables and index; return the table of each symbol (None: table i codes symbol i).

    Errors as in `SymbolEncoder.encode`.
    """
    if tables.ndim != 2 or tables.dtype.kind not in "iuf":
        raise ValueError(f"tables must be integers of shape (T, S), not {tables.dtype} of shape {tables.shape}")
    if index is None:
        if len(tables) not in (1, count):
            raise ValueError(f"{len(tables)} tables for {count} symbols: without an index give 1 table or one a symbol")
        return None if len(tables) == count else np.zeros(count, np.int32)
    if len(index) != count or index.dtype.kind not in "iu":
        raise ValueError(f"an index of {len(index)} entries of {index.dtype} for {count} symbols")
    if count and (index.min() < 0 or index.max() >= len(tables)):
        raise ValueError(f"the index lies in [{index.min()}, {index.max()}]; expected [0, {len(tables)})")
    return index


def _steps(
    count: int, tables: Array, index: Array | None, in_order: bool
) -> Iterator[tuple[Any, Any, tuple[Any, ...]]]:
    """Yield (positions, model, its parameters) in the order of coding; count >= 1."""
    index = checked_index(count, tables, index)
    if index is None:
        yield slice(None), _FAMILY, (probabilities(tables),)
        return
    if len(tables) == 1:
        yield slice(None), _model(tables), ()
        return
    if in_order:
        rows = np.empty((count, tables.shape[1]), np.float32)
        yield slice(None), _FAMILY, (probabilities(tables).take(index, 0, out=rows, mode="clip"),)
        return
    order = np.argsort(index, kind="stable")
    sorted_index = index.take(order)
    ends = np.flatnonzero(np.diff(sorted_index)) + 1 if count >= _ROWS_BELOW else ()
    if count < _ROWS_BELOW * (len(ends) + 1):
        yield order, _FAMILY, (probabilities(tables.take(sorted_index, 0)),)
    else:
        for positions in np.split(order, ends):
            row = index[positions[0]]
            yield positions, _model(tables[row : row + 1]), ()


def _model(table: Array) -> Any:
    return _Categorical(probabilities(table)[0], perfect=False, lazy=False)


def prepare_tables(tables: Array) -> NDArray[np.float32]:
    """Check frequency tables and convert them to the form that constriction takes; for tables that are used often.

    Args:
        tables: (T, S), int64, positive, rows sum to 2^24.

    Returns:
        Frequency - 1, (T, S), float32.

    Raises:
        ValueError: other tables.
    """
    size = tables.shape[1]
    if size < 2 or tables.min() < 1 or (tables.sum(-1) != 2**PRECISION_BITS).any():
        raise ValueError(f"frequency tables must have at least 2 symbols, be positive and sum to 2^{PRECISION_BITS}")
    return (tables - 1).astype(np.float32)


def probabilities(tables: Array) -> NDArray[np.float32]:
    """Return tables in the form of `prepare_tables`."""
    return tables if tables.dtype.kind == "f" else prepare_tables(tables)
