"""src/ohmq/entropy/exact_affine.py."""

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmq.entropy.context_prior import WEIGHT_BITS, Array

EXACT_FLOAT64_LIMIT = 2**40
FLOAT32_INTEGERS = 2**24
CLIP_LIMIT = 2**20
"""What is larger than this is cut off to it: no grid and no feature reaches so far."""


@functools.cache
def float32_products_are_exact() -> bool:
    """Whether numpy multiplies matrices of float32 in float32: some libraries can be told to do it in fewer bits."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(-(2**14), 2**14, (96, 64)), rng.integers(-(2**3), 2**3, (64, 160))  # sums below 2^24
    return bool((x.astype(np.float32) @ y.astype(np.float32) == x @ y).all())


class Affine:
    """W x + b for many x, all of them integers, W and b divided by 2^12: sums need no division and are as exact.

    Args:
        weight: W, shape (out, in). bias: b, (out,); None: zero.
    """

    def __init__(self, weight: Array, bias: Array | None = None) -> None:
        self._weight = weight.astype(np.int32)
        self._bias = np.zeros(len(weight), np.int32) if bias is None else bias.astype(np.int32)
        self._magnitude = np.abs(self._scaled(self._weight, np.float32))
        self._bias_magnitude = np.abs(self._scaled(self._bias, np.float32))
        # What all weights of a row are multiples of, its sum is as well: it needs so many bits less.
        bits = np.bitwise_or.reduce(self._weight, 1).astype(np.int64) | self._bias
        self._float32_limits = FLOAT32_INTEGERS * np.maximum(bits & -bits, 1) * 2.0**-WEIGHT_BITS
        self._parts: dict[type, tuple[NDArray[Any], NDArray[Any]]] = {}

    @staticmethod
    def _scaled(integers: Array, kind: type) -> NDArray[Any]:
        return integers.astype(kind) * kind(2.0**-WEIGHT_BITS)

    @property
    def size(self) -> int:
        """The number of weights."""
        return self._weight.size

    def bounds(self, largest: NDArray[Any] | float) -> NDArray[Any]:
        """What no |W x + b| exceeds, shape (out,).

        Args:
            largest: of |x|, shape (in,), or for all.

        Raises:
            ValueError: sums might not be exact even in float64.
        """
        sums = self._magnitude @ largest if isinstance(largest, np.ndarray) else self._magnitude.sum(1) * largest
        bounds: NDArray[Any] = (sums + self._bias_magnitude) * 1.001  # the sums here are rounded
        # Multiples of 2^-12: exact below 2^40 as integers are below 2^52.
        if not bounds.max(initial=0) < EXACT_FLOAT64_LIMIT:
            raise ValueError("the choice prior could leave the range of exact integers")
        return bounds

    def exact_type(self, bounds: NDArray[Any]) -> type:
        """The smaller type in which sums up to such bounds are exact, in whatever order they are taken."""
        return np.float32 if (bounds < self._float32_limits).all() and float32_products_are_exact() else np.float64

    def weight(self, kind: type) -> NDArray[Any]:
        """W as such numbers."""
        return self._as(kind)[0]

    def _as(self, kind: type) -> tuple[NDArray[Any], NDArray[Any]]:
        if kind not in self._parts:
            self._parts[kind] = self._scaled(self._weight, kind), self._scaled(self._bias, kind)
        return self._parts[kind]

    def __call__(self, x: NDArray[Any], largest: NDArray[Any]) -> NDArray[Any]:
        """W x + b for each row x, ``largest`` as `bounds` takes it; shape (rows, in) -> (rows, out)."""
        weight, bias = self._as(self.exact_type(self.bounds(largest)))
        y = x.astype(weight.dtype, copy=False) @ weight.T
        y += bias
        return y

    def integers(self, x: NDArray[Any], largest: NDArray[Any]) -> NDArray[np.float32]:
        """The same, rounded down and cut off to 2^20, which float32 holds; shape (rows, in) -> (out, rows)."""
        bounds = self.bounds(largest)
        weight, bias = self._as(self.exact_type(bounds))
        y = weight @ x.astype(weight.dtype, copy=False).T
        if self._bias_magnitude.any():
            y += bias[:, None]
        np.floor(y, out=y)
        if bounds.max(initial=0) > CLIP_LIMIT:
            np.clip(y, -CLIP_LIMIT, CLIP_LIMIT, out=y)
        return y.astype(np.float32, copy=False)
