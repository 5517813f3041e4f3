"""Frequency tables."""

import numpy as np
import pytest

from ohmq.entropy import (
    PRECISION_BITS,
    frequencies_from_weights,
    quantize_probabilities,
)

TOTAL = 1 << PRECISION_BITS


def test_frequencies() -> None:
    rng = np.random.default_rng(1)
    for size in (2, 3, 256, 5000):
        weights = rng.integers(0, 2**30 // size, (20, size))
        frequencies = frequencies_from_weights(weights)
        assert (frequencies >= 1).all()
        assert (frequencies.sum(-1) == TOTAL).all()
        assert (frequencies.argmax(-1) == weights.argmax(-1)).all()
    p = rng.dirichlet(np.ones(40), 3)
    assert np.abs(quantize_probabilities(p) / TOTAL - p).max() < 1e-5
    for bad in ([[0, 0]], [[-1, 2]], [[2**30, 1]]):
        with pytest.raises(ValueError):
            frequencies_from_weights(np.array(bad))
    for bad_p in ([[np.nan, 1.0]], [[0.0, 0.0]], [[1.0]]):
        with pytest.raises(ValueError):
            quantize_probabilities(np.array(bad_p))
