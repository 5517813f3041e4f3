"""Fixed-rate packing."""

import numpy as np
import pytest

from ohmq.entropy import (
    decode_fixed_rate,
    encode_fixed_rate,
    fixed_rate_bytes,
)
from ohmq.errors import BitstreamError


def test_fixed_rate() -> None:
    rng = np.random.default_rng(2)
    for count in (0, 1, 9, 255, 256, 257, 1000):
        sizes = rng.integers(2, 300, count)
        symbols = rng.integers(0, sizes) if count else np.array([], int)
        data = encode_fixed_rate(symbols, sizes)
        assert len(data) == fixed_rate_bytes(sizes)
        assert np.array_equal(decode_fixed_rate(data, sizes), symbols)
    assert fixed_rate_bytes(np.full(144, 256)) == 144
    assert fixed_rate_bytes(np.full(256, 3)) == 51  # ceil(256 * log2(3) / 8)
    with pytest.raises(ValueError):
        encode_fixed_rate(np.array([3]), np.array([3]))
    for bad in (b"", b"\x00\x00", b"\x09"):
        with pytest.raises(BitstreamError):
            decode_fixed_rate(bad, np.array([3, 3]))
