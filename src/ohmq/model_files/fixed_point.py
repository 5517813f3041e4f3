"""Weights of a trained prior in fixed point, exact in the arithmetic that decodes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmq.entropy.context_prior import VALUE_BITS, WEIGHT_BITS

__all__ = ["as_float64", "fixed", "fixed_layer", "fixed_rows", "narrow"]


def narrow(values: NDArray[Any]) -> NDArray[Any]:
    """Return integers as int16 where they fit, else unchanged."""
    return values.astype(np.int16) if np.abs(values).max(initial=0) < 2**15 else values


def as_float64(tensor: Any) -> NDArray[np.float64]:
    """Return a tensor as a float64 array, detached and on the CPU."""
    return tensor.detach().cpu().double().numpy()


def fixed(values: NDArray[Any], bits: int) -> NDArray[np.int32]:
    """Round values to fixed point.

    Args:
        values: any shape.
        bits: fraction bits.

    Raises:
        ValueError: values that are not finite or do not fit 32 bits.
    """
    scaled = np.round(values * 2.0**bits)
    if not np.isfinite(scaled).all() or np.abs(scaled).max(initial=0) >= 2**31:
        raise ValueError("a value of the prior does not fit its fixed-point format; the training diverged")
    return scaled.astype(np.int32)


def fixed_rows(
    rows: NDArray[np.float64], inputs: NDArray[Any], room: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Round rows of weights to fixed point, each with a step so coarse that its sums of products fit.

    Args:
        rows: weights, (out, in).
        inputs: largest magnitude of each input, (in,).
        room: bits of a sum of products, in steps.

    Returns:
        The weights, (out, in), multiples of the step of their row; and the steps, powers of two, (out,).

    Raises:
        ValueError: weights that do not fit.
    """
    step = np.ones(len(rows), np.int64)
    while True:
        weights = fixed(rows / step[:, None], WEIGHT_BITS) * step[:, None]
        wide = (
            np.abs(weights) @ inputs >= 0.99 * 2**room * step
        )  # the sum that the reader computes may be a little larger
        if not wide.any():
            return fixed(weights, 0), step
        step[wide] *= 2


def fixed_layer(
    rows: NDArray[np.float64], bias: Any, inputs: NDArray[Any], room: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Round a linear layer to fixed point.

    Args:
        rows: weights, (out, in).
        bias: tensor of the biases of the rows, out values in any shape.
        inputs: largest magnitude of each input, (in,).
        room: bits of a sum of products, in steps.

    Returns:
        The weights as `fixed_rows` returns them, and the biases, (out,), multiples of the same steps.

    Raises:
        ValueError: values that do not fit.
    """
    weight, step = fixed_rows(rows, inputs, room)
    return weight, fixed(fixed(as_float64(bias).reshape(-1) / step, WEIGHT_BITS + VALUE_BITS) * step, 0)
