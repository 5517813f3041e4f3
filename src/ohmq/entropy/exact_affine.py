"""Affine maps of integers, exact in floating point."""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmq.entropy.context_prior import WEIGHT_BITS, Array

__all__ = ["FLOAT32_INTEGERS", "Affine", "float32_products_are_exact"]

EXACT_FLOAT64_LIMIT = 2**40
"""Multiples of 2^-12 below this limit are exact in float64."""
FLOAT32_INTEGERS = 2**24
"""Integers below this limit are exact in float32."""
CLIP_LIMIT = 2**20
"""Magnitude to which integer results are clipped; no grid of levels and no feature reaches it."""


@functools.cache
def float32_products_are_exact() -> bool:
    """Say whether numpy multiplies float32 matrices in float32: some libraries can be configured to use fewer bits."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(-(2**14), 2**14, (96, 64)), rng.integers(-(2**3), 2**3, (64, 160))  # sums below 2^24
    return bool((x.astype(np.float32) @ y.astype(np.float32) == x @ y).all())


class Affine:
    """Exact affine map W x + b of integer vectors x, with integer W and b divided by 2^12.

    The scaled weights make a later division unnecessary; sums of multiples of 2^-12 are as exact as sums of integers.

    Args:
        weight: 2^12 W, integers, (out, in).
        bias: 2^12 b, integers, (out,); None: zero.

    Raises:
        ValueError: other shapes.
    """

    def __init__(self, weight: Array, bias: Array | None = None) -> None:
        if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
            raise ValueError(f"an affine map of shape {weight.shape} and a bias of another")
        self._weight = weight.astype(np.int32)
        self._bias = np.zeros(len(weight), np.int32) if bias is None else bias.astype(np.int32)
        self._magnitude = np.abs(self._scaled(self._weight, np.float32))
        self._bias_magnitude = np.abs(self._scaled(self._bias, np.float32))
        # If all weights of a row are multiples of a power of two, so is its sum, which then needs fewer bits.
        bits = np.bitwise_or.reduce(self._weight, 1).astype(np.int64) | self._bias
        self._float32_limits = FLOAT32_INTEGERS * np.maximum(bits & -bits, 1) * 2.0**-WEIGHT_BITS
        self._cache: dict[type, tuple[NDArray[Any], NDArray[Any]]] = {}

    @staticmethod
    def _scaled(integers: Array, kind: type) -> NDArray[Any]:
        return integers.astype(kind) * kind(2.0**-WEIGHT_BITS)

    @property
    def size(self) -> int:
        """The number of weights."""
        return self._weight.size

    def bounds(self, largest: NDArray[Any] | float) -> NDArray[Any]:
        """Bound |W x + b|.

        Args:
            largest: bound of |x|, (in,), or one for all inputs.

        Returns:
            Bounds, (out,).

        Raises:
            ValueError: sums might not be exact even in float64.
        """
        sums = self._magnitude @ largest if isinstance(largest, np.ndarray) else self._magnitude.sum(1) * largest
        bounds: NDArray[Any] = (sums + self._bias_magnitude) * 1.001  # the sums here are rounded
        # Multiples of 2^-12: exact below 2^40 as integers are below 2^52.
        if not bounds.max(initial=0) < EXACT_FLOAT64_LIMIT:
            raise ValueError("the tabulated context prior could leave the range of exact integers")
        return bounds

    def exact_type(self, bounds: NDArray[Any]) -> type:
        """Return the smallest float type in which sums within these bounds are exact in any order."""
        return np.float32 if (bounds < self._float32_limits).all() and float32_products_are_exact() else np.float64

    def weight(self, kind: type) -> NDArray[Any]:
        """Return W as numbers of a float type."""
        return self._converted(kind)[0]

    def _converted(self, kind: type) -> tuple[NDArray[Any], NDArray[Any]]:
        if kind not in self._cache:
            self._cache[kind] = self._scaled(self._weight, kind), self._scaled(self._bias, kind)
        return self._cache[kind]

    def __call__(self, x: NDArray[Any], largest: NDArray[Any]) -> NDArray[Any]:
        """Compute W x + b.

        Args:
            x: integers, (rows, in).
            largest: bound of |x|, (in,).

        Returns:
            (rows, out).
        """
        weight, bias = self._converted(self.exact_type(self.bounds(largest)))
        y = x.astype(weight.dtype, copy=False) @ weight.T
        y += bias
        return y

    def integers(self, x: NDArray[Any], largest: NDArray[Any]) -> NDArray[np.float32]:
        """Compute W x + b, rounded down and clipped to `CLIP_LIMIT`, which float32 holds.

        Args:
            x: integers, (rows, in).
            largest: bound of |x|, (in,).

        Returns:
            (out, rows).
        """
        bounds = self.bounds(largest)
        weight, bias = self._converted(self.exact_type(bounds))
        y = weight @ x.astype(weight.dtype, copy=False).T
        if self._bias_magnitude.any():
            y += bias[:, None]
        np.floor(y, out=y)
        if bounds.max(initial=0) > CLIP_LIMIT:
            np.clip(y, -CLIP_LIMIT, CLIP_LIMIT, out=y)
        return y.astype(np.float32, copy=False)
