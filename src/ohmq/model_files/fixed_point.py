"""src/ohmq/model_files/fixed_point.py."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ohmq.entropy.context_prior import VALUE_BITS, WEIGHT_BITS


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    """As int16 where the values fit."""
    return values.astype(np.int16) if np.abs(values).max(initial=0) < 2**15 else values


def _numpy(tensor: Any) -> NDArray[np.float64]:
    return tensor.detach().cpu().double().numpy()


def _fixed(values: NDArray[Any], bits: int) -> NDArray[np.int32]:
    scaled = np.round(values * 2.0**bits)
    if not np.isfinite(scaled).all() or np.abs(scaled).max(initial=0) >= 2**31:
        raise ValueError("a value of the prior does not fit its fixed-point format; the training diverged")
    return scaled.astype(np.int32)


def _fixed_rows(
    rows: NDArray[np.float64], inputs: NDArray[Any], room: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Rows of weights in fixed point, each in steps so coarse that its products with some inputs sum to few bits.

    Args:
        rows: (out, in). inputs: the largest of each input, (in,). room: bits of a sum, in steps.

    Returns:
        The weights, multiples of their row's step, and the steps, powers of two, (out,).

    Raises:
        ValueError: weights that do not fit.
    """
    step = np.ones(len(rows), np.int64)
    while True:
        weights = _fixed(rows / step[:, None], WEIGHT_BITS) * step[:, None]
        wide = np.abs(weights) @ inputs >= 0.99 * 2**room * step  # what the reader computes may be a little more
        if not wide.any():
            return _fixed(weights, 0), step
        step[wide] *= 2


def _fixed_layer(
    rows: NDArray[np.float64], bias: torch.Tensor, inputs: NDArray[Any], room: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Weights as `_fixed_rows` gives them, and the biases of the rows, multiples of the same steps, (out,)."""
    weight, step = _fixed_rows(rows, inputs, room)
    return weight, _fixed(_fixed(_numpy(bias).reshape(-1) / step, WEIGHT_BITS + VALUE_BITS) * step, 0)
