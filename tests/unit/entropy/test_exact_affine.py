"""Products in float32 are the integers that plain Python gives."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.small_models import make_photo_model

from ohmq.entropy import exact_affine
from ohmq.entropy.exact_affine import Affine
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior
from ohmq.model_files.freeze import freeze
from ohmq.models.quantizers.directional import DirectionalOneHotMax


def by_hand(weight: NDArray[np.int64], bias: NDArray[np.int64], x: NDArray[np.int64]) -> list[list[int]]:
    """Return floor((W x + b) / 2^12) with Python's integers, one list for each row x."""
    return [
        [sum(a * b for a, b in zip(w, row, strict=True)) + c >> 12 for w, c in zip(weight.tolist(), bias.tolist(), strict=True)]
        for row in x.tolist()
    ]  # fmt: skip


@given(
    seed=st.integers(0, 2**32 - 1),
    dropped=st.lists(st.integers(0, 8), min_size=5, max_size=5),
    reach=st.integers(1, 20),
    inputs=st.integers(1, 300),
)
def test_products_are_exact_in_the_type_they_choose(seed: int, dropped: list[int], reach: int, inputs: int) -> None:
    rng = np.random.default_rng(seed)
    zeros = np.array(dropped)  # bits at the end of each row's weights
    weight = rng.integers(-(2**14), 2**14, (5, inputs)) >> zeros[:, None] << zeros[:, None]
    bias = rng.integers(-(2**20), 2**20, 5) << zeros
    x = rng.integers(-(2**reach), 2**reach + 1, (7, inputs))
    affine = Affine(weight, bias)
    largest = np.abs(x).max(0).astype(np.float64)
    bounds = affine.bounds(largest)
    exact = by_hand(weight, bias, x)
    assert (np.abs(exact).max(0) <= bounds + 1).all()  # rounded down
    for floats in (x.astype(np.float64), x.astype(affine.exact_type(bounds))):
        assert np.floor(affine(floats, largest)).tolist() == exact
        cut_off = np.clip(np.transpose(exact), -(2**20), 2**20)
        assert affine.integers(floats, largest).tolist() == cut_off.tolist()


def test_float32_is_chosen_to_its_last_bit_and_not_beyond() -> None:
    ones = np.array([[1, 1, 1], [8, 8, 8]])
    affine = Affine(ones)
    most = np.array([2**24 - 1, 8 * (2**24 - 1)]) / 2**12
    assert affine.exact_type(most) is np.float32
    for row in (0, 1):
        assert affine.exact_type(most + np.eye(2)[row] * ones[row, 0] / 2**12) is np.float64
    x = np.array([[2**24, 1, 0]], np.float64)  # float32 has no 2^24 + 1
    assert affine(x, x[0]).tolist() == [[(2**24 + 1) / 2**12, (2**24 + 1) / 2**9]]


def test_a_library_that_multiplies_in_fewer_bits_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert exact_affine.float32_products_are_exact()
    with monkeypatch.context() as patch, np.errstate(over="ignore", invalid="ignore"):
        patch.setattr(exact_affine, "np", SimpleNamespace(random=np.random, float32=np.float16))
        assert not exact_affine.float32_products_are_exact.__wrapped__()
    monkeypatch.setattr(exact_affine, "float32_products_are_exact", lambda: False)
    assert Affine(np.array([[1]])).exact_type(np.array([0.0])) is np.float64


def test_sums_beyond_the_exact_range_are_refused() -> None:
    with pytest.raises(ValueError, match="exact integers"):
        Affine(np.full((1, 4), 2**15)).bounds(2.0**40)


def test_frozen_weights_leave_room_for_float32() -> None:
    prior = freeze(make_photo_model()).prior
    assert isinstance(prior, IntegerTabulatedPrior)
    assert prior.latent_type is np.float32
    assert prior.feature_type is np.float32
    for network in prior.networks:
        if network.latent_limit is not None:
            bounds = network.own_projection.bounds(network.latent_limit)
            assert network.own_projection.exact_type(bounds) is np.float32


@pytest.mark.parametrize("ascending", [True, False])
def test_the_nearest_centre_is_the_argmin(ascending: bool) -> None:
    torch.manual_seed(4)
    quantizer = DirectionalOneHotMax(6, 9, 3)
    centres = torch.randint(-20, 20, (6, 9)).float() * 0.75 + torch.arange(9) * 40 * ascending
    quantizer.centres.data = centres
    projected = torch.cat([torch.randn(500, 6) * 90, centres.T, (centres[:, 1:] + centres[:, :-1]).T / 2])
    for alphabet in (9, 5, 2):
        found = quantizer.nearest(projected[:, 2:], slice(2, 6), alphabet)
        distances = (projected[:, 2:, None] - centres[2:, :alphabet]).abs()
        assert torch.equal(distances.gather(-1, found[..., None])[..., 0], distances.amin(-1))
        if ascending:
            assert torch.equal(found, distances.argmin(-1))  # of two, the lower one
