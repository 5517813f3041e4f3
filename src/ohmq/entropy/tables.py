"""Frequency tables: positive integers that sum to 2^24."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PRECISION_BITS", "frequencies_from_weights", "optimal_bits", "quantize_probabilities", "symbol_bits"]

PRECISION_BITS = 24
"""Every frequency table sums to 2 to this power."""


def quantize_probabilities(probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """Convert probabilities to frequencies; done once, when a model is frozen.

    Args:
        probabilities: (..., S), not negative, any positive sum.

    Returns:
        (..., S), int64, at least 1, sums 2^24.

    Raises:
        ValueError: negative, not finite or all-zero probabilities, or S outside [2, 2^16].
    """
    p = np.asarray(probabilities, np.float64)
    _check_alphabet(p.shape[-1])
    if not np.isfinite(p).all() or (p < 0).any() or (p.sum(-1) <= 0).any():
        raise ValueError("probabilities must be finite, not negative and not all zero")
    weights = np.round(p / p.sum(-1, keepdims=True) * 2.0**29).astype(np.int64)
    return frequencies_from_weights(weights)


def frequencies_from_weights(weights: NDArray[np.int64]) -> NDArray[np.int64]:
    r"""Compute frequencies in proportion to integer weights, by integer arithmetic alone.

    $$ f_s = 1 + \lfloor w_s (2^{24} - S) / \textstyle\sum w \rfloor $$

    The difference of their sum to 2^24 is added to the first largest weight.

    Args:
        weights: (..., S), int64, not negative, sums in [1, 2^30].

    Returns:
        (..., S), int64, at least 1, sums 2^24.

    Raises:
        ValueError: weights out of range.
    """
    w = np.asarray(weights, np.int64)
    _check_alphabet(w.shape[-1])
    sums = w.sum(-1, keepdims=True)
    if (w < 0).any() or (sums < 1).any() or (sums > 2**30).any():
        raise ValueError("weights must not be negative and their sums must lie in [1, 2^30]")
    frequencies = 1 + w * (2**PRECISION_BITS - w.shape[-1]) // sums
    largest = w.argmax(-1)[..., None]
    missing = 2**PRECISION_BITS - frequencies.sum(-1, keepdims=True)
    np.put_along_axis(frequencies, largest, np.take_along_axis(frequencies, largest, -1) + missing, -1)
    return frequencies


def optimal_bits(symbols: NDArray[Any], tables: NDArray[np.int64], index: NDArray[np.int32] | None = None) -> float:
    """Return the ideal code length of all symbols together, in bits; arguments as in `symbol_bits`."""
    return float(symbol_bits(symbols, tables, index).sum())


def symbol_bits(symbols: NDArray[Any], tables: NDArray[Any], index: NDArray[Any] | None = None) -> NDArray[np.float64]:
    """Return the ideal code length of each symbol, -log2(frequency / 2^24), in bits.

    Args:
        symbols: (n,).
        tables: (T, S), frequencies, or the result of `ohmq.entropy.prepare_tables`.
        index: (n,), the table of each symbol; None: T is 1 or n.

    Returns:
        (n,).
    """
    rows = _table_rows(len(symbols), tables, index)
    prepared = tables.dtype.kind == "f"  # prepared tables hold frequency - 1
    return PRECISION_BITS - np.log2(tables[rows, symbols] + prepared)


def _table_rows(count: int, tables: NDArray[Any], index: NDArray[Any] | None) -> NDArray[np.int64]:
    if index is not None:
        return np.asarray(index, np.int64)
    if len(tables) not in (1, count):
        raise ValueError(f"{len(tables)} tables for {count} symbols: without an index give 1 table or one a symbol")
    return np.arange(count) if len(tables) == count else np.zeros(count, np.int64)


def _check_alphabet(num_symbols: int) -> None:
    if not 2 <= num_symbols <= 2**16:
        raise ValueError(f"an alphabet of {num_symbols} symbols; it must have 2 to 65536")
