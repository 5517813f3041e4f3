"""Range coding with integer tables, on top of constriction.

constriction turns float probabilities p into fixed-point frequencies floor(cumsum * scale) + i with
scale = (2^24 - S) / sum(p). Given frequency - 1 as p, whose sum is 2^24 - S, the scale is exactly 1 and our integers
come back unchanged.
"""

from collections.abc import Iterator
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from ohmq.errors import BitstreamError

__all__ = ["SymbolDecoder", "SymbolEncoder"]

Array = NDArray[Any]
_Categorical = constriction.stream.model.Categorical
_FAMILY = _Categorical(perfect=False, lazy=False)


def _runs(count: int, tables: Array, index: Array | None) -> Iterator[tuple[Any, Any, Any]]:
    """(positions, model, model parameters) in the order of coding."""
    if index is None and len(tables) == count and count != 1:
        yield slice(None), _FAMILY, (np.asarray(tables - 1, np.float64),)
    elif index is None and len(tables) == 1:
        yield slice(None), _Categorical(np.asarray(tables[0] - 1, np.float64), perfect=False, lazy=False), ()
    elif index is None:
        raise ValueError(f"{len(tables)} tables for {count} symbols: without an index give 1 table or one a symbol")
    else:
        for table in np.unique(index):
            model = _Categorical(np.asarray(tables[table] - 1, np.float64), perfect=False, lazy=False)
            yield np.flatnonzero(index == table), model, ()


class SymbolEncoder:
    """Symbols to bytes.

    Example:
        >>> tables = np.array([[2**23, 2**22, 2**22]])
        >>> encoder = SymbolEncoder()
        >>> encoder.encode(np.array([0, 2, 1, 0]), tables)
        >>> SymbolDecoder(encoder.finish()).decode(tables, None, 4)
        array([0, 2, 1, 0], dtype=int32)
    """

    def __init__(self) -> None:
        self._encoder = constriction.stream.queue.RangeEncoder()

    def encode(self, symbols: Array, tables: Array, index: Array | None = None) -> None:
        """Append symbols.

        Args:
            symbols: shape (n,), integers in [0, S).
            tables: shape (T, S), int64, positive, rows sum to 2^24.
            index: shape (n,), which table codes which symbol; then coding goes table by table (ascending), symbols in
                order in each. None: T is 1 (for all) or n (row i for symbol i), symbols in order.

        Raises:
            ValueError: a symbol outside the alphabet, or tables that do not fit.
        """
        symbols = np.asarray(symbols, np.int32)
        if len(symbols) == 0:
            return
        if symbols.min() < 0 or symbols.max() >= tables.shape[-1]:
            raise ValueError(f"symbols must lie in [0, {tables.shape[-1]})")
        for positions, model, parameters in _runs(len(symbols), tables, index):
            self._encoder.encode(np.ascontiguousarray(symbols[positions]), model, *parameters)

    def finish(self) -> bytes:
        """The shortest byte string that decodes to what was encoded.

        A decoder reads zeros beyond the end. The encoder's interval [low, low + range) holds every number that
        decodes right; the answer is the number in it with the fewest bytes.
        """
        words = self._encoder.get_compressed()
        if len(words) == 0:
            return b""
        position, (lower, width) = self._encoder.pos()
        bits = 32 * position + 64
        point = int.from_bytes(words.astype(">u4").tobytes(), "big") << max(0, bits - 32 * len(words))
        point >>= max(0, 32 * len(words) - bits)
        low = point - (point - lower) % (1 << 64)  # the point lies less than 2^64 above low
        for count in range(max(0, (bits - width.bit_length()) // 8), bits // 8 + 1):
            shift = bits - 8 * count
            value = -(-low >> shift)
            if value << shift < low + width:
                return value.to_bytes(count, "big")
        raise AssertionError("the interval of a range coder always holds a number of its own precision")


class SymbolDecoder:
    """Bytes to symbols: the inverse of `SymbolEncoder`.

    Args:
        data: what `SymbolEncoder.finish` gave.
    """

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(-len(data) % 4 + 8)
        self._decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))

    def decode(self, tables: Array, index: Array | None, count: int) -> NDArray[np.int32]:
        """The next symbols; arguments as `SymbolEncoder.encode`.

        Returns:
            Shape (count,), int32.

        Raises:
            BitstreamError: bytes that no encoder writes.
        """
        out = np.empty(count, np.int32)
        if count == 0:
            return out
        try:
            for positions, model, parameters in _runs(count, tables, index):
                number = () if parameters else (len(range(count)[positions]) if isinstance(positions, slice)
                                                else len(positions),)  # fmt: skip
                out[positions] = self._decoder.decode(model, *parameters, *number)
        except (AssertionError, RuntimeError) as error:
            raise BitstreamError("the entropy-coded payload is damaged") from error
        return out
