"""Fixed-rate packing: exact mixed radix in blocks, without an entropy coder; the size is known in advance."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmq.errors import BitstreamError

__all__ = ["decode_fixed_rate", "encode_fixed_rate", "fixed_rate_bytes"]

BLOCK_SYMBOLS = 256
"""Symbols packed into one integer."""

Array = NDArray[Any]


def fixed_rate_bytes(num_symbols: Array) -> int:
    """Return the number of bytes that symbols take.

    Args:
        num_symbols: alphabet size of each symbol, (n,).

    Example:
        >>> fixed_rate_bytes(np.full(144, 256)), fixed_rate_bytes(np.full(10, 3))
        (144, 2)
    """
    return sum(_block_bytes(sizes) for sizes in _blocks(num_symbols))


def encode_fixed_rate(symbols: Array, num_symbols: Array) -> bytes:
    """Pack symbols: each block is one big-endian integer, its first symbol the most significant digit.

    Args:
        symbols: integers, (n,).
        num_symbols: alphabet size of each symbol, (n,).

    Returns:
        `fixed_rate_bytes` bytes.

    Raises:
        ValueError: a symbol outside its alphabet, or an alphabet without symbols.
        TypeError: symbols that are not integers.
    """
    symbols, num_symbols = np.asarray(symbols), np.asarray(num_symbols)
    if symbols.shape != num_symbols.shape:
        raise ValueError(f"symbols of shape {symbols.shape} for alphabet sizes of shape {num_symbols.shape}")
    if symbols.dtype.kind not in "iu" and symbols.size:
        raise TypeError(f"symbols must be integers, not {symbols.dtype}")
    if (symbols < 0).any() or (symbols >= num_symbols).any():
        raise ValueError("each symbol must lie in [0, its alphabet size)")
    out = []
    for start, sizes in enumerate(_blocks(num_symbols)):
        value = 0
        block = symbols[start * BLOCK_SYMBOLS : (start + 1) * BLOCK_SYMBOLS].tolist()
        for symbol, size in zip(block, sizes, strict=True):
            value = value * size + symbol
        out.append(value.to_bytes(_block_bytes(sizes), "big"))
    return b"".join(out)


def decode_fixed_rate(data: bytes, num_symbols: Array) -> NDArray[np.int64]:
    """Unpack symbols: the inverse of `encode_fixed_rate`.

    Args:
        data: the packed symbols.
        num_symbols: alphabet size of each symbol, (n,).

    Returns:
        (n,), int64.

    Raises:
        BitstreamError: too few or too many bytes, or a block that no encoder writes.
    """
    if len(data) != fixed_rate_bytes(num_symbols):
        raise BitstreamError(f"a fixed-rate payload has {len(data)} bytes, expected {fixed_rate_bytes(num_symbols)}")
    out: list[int] = []
    start = 0
    for sizes in _blocks(num_symbols):
        end = start + _block_bytes(sizes)
        value = int.from_bytes(data[start:end], "big")
        block = []
        for size in reversed(sizes):
            value, symbol = divmod(value, size)
            block.append(symbol)
        if value:
            raise BitstreamError("the fixed-rate payload is damaged: a block holds more than its symbols can make")
        out.extend(reversed(block))
        start = end
    return np.array(out, np.int64)


def _blocks(num_symbols: Array) -> list[list[int]]:
    sizes = np.asarray(num_symbols).tolist()
    if min(sizes, default=1) < 1:
        raise ValueError(f"an alphabet of {min(sizes)} symbols; it must have at least 1")
    return [sizes[start : start + BLOCK_SYMBOLS] for start in range(0, len(sizes), BLOCK_SYMBOLS)]


def _block_bytes(sizes: list[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return ((product - 1).bit_length() + 7) // 8
