"""Products of the choice prior in float32: they must be the integers that plain Python gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ohmq.entropy.frozen_choice import Affine


def by_hand(weight: NDArray[np.int64], bias: NDArray[np.int64], x: NDArray[np.int64]) -> list[list[int]]:
    """floor((W x + b) / 2^12) with Python's integers, one list for each row x."""
    return [
        [sum(a * b for a, b in zip(w, row, strict=True)) + c >> 12 for w, c in zip(weight.tolist(), bias.tolist(), strict=True)]
        for row in x.tolist()
    ]  # fmt: skip


@given(seed=st.integers(0, 2**32 - 1), dropped=st.integers(0, 8), reach=st.integers(1, 20), inputs=st.integers(1, 300))
def test_products_are_exact_in_whatever_type_they_choose(seed: int, dropped: int, reach: int, inputs: int) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.integers(-(2 ** (14 - dropped)), 2 ** (14 - dropped), (5, inputs)) << dropped
    bias = rng.integers(-(2**20), 2**20, 5) << dropped
    x = rng.integers(-(2**reach), 2**reach + 1, (7, inputs))
    affine = Affine(weight, bias)
    bound = affine.bound(np.abs(x).max(0).astype(np.float64))
    exact = by_hand(weight, bias, x)
    assert max(abs(value) for row in exact for value in row) <= bound + 1
    kind = affine.exact_type(bound)
    for floats in (x.astype(np.float64), x.astype(kind)):
        assert np.floor(affine(floats, bound)).tolist() == exact
        cut_off = np.clip(np.transpose(exact), -(2**20), 2**20)
        assert affine.integers(floats, bound).tolist() == cut_off.tolist()


def test_float32_is_chosen_to_its_last_bit_and_not_beyond() -> None:
    # 2^23 + 2^23 - 1 fits 24 bits; in the order (2^23, 2^23, 1) a sum beyond would lose the one.
    weight = np.array([[1, 1, 1]])
    affine = Affine(weight)
    assert affine.exact_type(2.0**-12 * (2**24 - 1)) is np.float32
    assert affine.exact_type(2.0**-12 * 2**24) is np.float64
    assert Affine(weight * 8).exact_type(2.0**-9 * (2**24 - 1)) is np.float32
    x = np.array([[2**24, 1, 0]], np.float64)
    assert affine(x, affine.bound(x[0])).tolist() == [[(2**24 + 1) / 2**12]]


def test_sums_beyond_the_exact_range_are_refused() -> None:
    with pytest.raises(ValueError, match="exact integers"):
        Affine(np.full((1, 4), 2**15)).bound(2.0**40)
