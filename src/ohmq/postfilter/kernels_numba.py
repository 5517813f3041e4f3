"""`ohmq.postfilter.filters.apply_kernel`, compiled by numba; nothing is compiled on import."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmq.postfilter.classes import CLASSES, CLIPS, DIRECTIONS, FACTORS, PAIRS, REACH, by_class
from ohmq.postfilter.filters import FilterKernel
from ohmq.utils.numba_cache import compiled

__all__ = ["apply_compiled_kernel", "compile_kernel"]

Array = NDArray[Any]

_CLIP_LIMITS = CLIPS[np.arange(CLASSES) // DIRECTIONS, None] * np.array(FACTORS, np.float32)
"""Limits at which differences of each class are clipped, in grey levels, (CLASSES, 2)."""
_PAIRS = np.array(PAIRS, np.int64)

AT_ONCE = 64
"""Pixels of one class that are worked on at a time."""


@compiled(
    "void(float32[:,:,::1], int64[::1], int64[::1], float32[:,:,::1], float32[:,::1], int64[:,::1], int64, float32[:,::1])"
)
def _corrections(
    padded: Array, order: Array, ends: Array, weights: Array, limits: Array, pairs: Array, reach: int, out: Array
) -> None:
    """What is added to pixels.

    Args:
        padded: a picture with ``reach`` pixels more on each side. order, ends: its pixels, as `ohmq.postfilter.classes.by_class`.
        weights: of each class. limits: two of each class, at which differences are clipped. pairs: down and right to one of
            two opposite neighbours. out: filled.

    Shape:
        padded: (3, H + 2 reach, W + 2 reach). order: (H * W,). ends: (K,). weights: (K, 3, 3 * 3 P). limits: (K, 2).
        pairs: (P, 2). out: (3, H * W).
    """
    across, count = padded.shape[2], 3 * len(pairs)
    width = across - 2 * reach
    planes = padded.reshape(3, -1)
    corner = np.empty(AT_ONCE, np.int64)
    here, (a, b, c) = np.empty((3, AT_ONCE), np.float32), np.empty((3, AT_ONCE), np.float32)
    start = 0
    for kind in range(len(ends)):
        end, weight = ends[kind], weights[kind]
        low, high = limits[kind, 0], limits[kind, 1]
        for first in range(start, end, AT_ONCE):
            several = min(AT_ONCE, end - first)
            for i in range(several):
                place = order[first + i]
                corner[i] = (place // width + reach) * across + place % width + reach
            for colour in range(3):
                for i in range(several):
                    here[colour, i] = planes[colour, corner[i]]
            total = np.zeros((3, AT_ONCE), np.float32)
            for pair in range(len(pairs)):
                shift = pairs[pair, 0] * across + pairs[pair, 1]
                for colour in range(3):
                    for i in range(several):
                        one = planes[colour, corner[i] + shift] - here[colour, i]
                        other = planes[colour, corner[i] - shift] - here[colour, i]
                        a[i] = one + other
                        b[i] = min(max(one, -low), low) + min(max(other, -low), low)
                        c[i] = min(max(one, -high), high) + min(max(other, -high), high)
                    feature = 3 * pair + colour
                    for of in range(3):
                        u, v, w = weight[of, feature], weight[of, count + feature], weight[of, 2 * count + feature]
                        for i in range(several):
                            total[of, i] += u * a[i] + v * b[i] + w * c[i]
            for of in range(3):
                for i in range(several):
                    out[of, order[first + i]] = total[of, i]
        start = end


def apply_compiled_kernel(padded: Array, kinds: NDArray[np.uint8], weights: Array) -> Array:
    """As `ohmq.postfilter.filters.apply_kernel`; sums in another order."""
    out = np.empty((3, kinds.size), np.float32)
    order, ends = (places.astype(np.int64, copy=False) for places in by_class(kinds))
    _corrections(padded, order, ends, np.ascontiguousarray(weights), _CLIP_LIMITS, _PAIRS, REACH, out)
    return out


def compile_kernel() -> FilterKernel:
    """Compile the kernel, or load it from the cache of numba.

    Returns:
        `apply_compiled_kernel`.

    Raises:
        ConfigError: numba is missing or unusable, or its cache cannot be written or read.
    """
    _corrections.compile()
    return apply_compiled_kernel
