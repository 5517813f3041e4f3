"""The kernel of the post-filter, compiled by numba: `ohmq.postfilter.filters.apply_kernel` in less time.

Nothing is compiled on import: `compile_kernel` does, or the first call.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmq.postfilter.classes import CLASSES, CLIPS, DIRECTIONS, FACTORS, PAIRS, REACH, group_by_class
from ohmq.postfilter.filters import FilterKernel
from ohmq.utils.numba_cache import compiled

__all__ = ["apply_compiled_kernel", "compile_kernel"]

Array = NDArray[Any]

BLOCK_PIXELS = 64
"""Pixels of one class that are filtered at once."""
_CLIP_LIMITS = CLIPS[np.arange(CLASSES) // DIRECTIONS, None] * np.array(FACTORS, np.float32)
"""Limits at which differences of each class are clipped, in grey levels, (CLASSES, 2)."""
_PAIRS = np.array(PAIRS, np.int64)


@compiled(
    "void(float32[:,:,::1], int64[::1], int64[::1], float32[:,:,::1], float32[:,::1], int64[:,::1], int64, float32[:,::1])"
)
def _apply(
    padded: Array, order: Array, ends: Array, weights: Array, limits: Array, pairs: Array, reach: int, out: Array
) -> None:
    """Compute the corrections of pixels.

    Args:
        padded: an image with ``reach`` pixels more on each side, (3, H + 2 reach, W + 2 reach).
        order: its pixels one class after the other, of `group_by_class`, (H * W,).
        ends: end of each class among them, (K,).
        weights: of each class, (K, 3, 3 * 3 P).
        limits: two clipping limits of each class, (K, 2).
        pairs: offset (rows, columns) of one of two opposite neighbours, (P, 2).
        reach: pixels of the border.
        out: corrections, (3, H * W), overwritten.
    """
    stride, count = padded.shape[2], 3 * len(pairs)
    width = stride - 2 * reach
    planes = padded.reshape(3, -1)
    corner = np.empty(BLOCK_PIXELS, np.int64)
    centre, (a, b, c) = np.empty((3, BLOCK_PIXELS), np.float32), np.empty((3, BLOCK_PIXELS), np.float32)
    start = 0
    for class_number in range(len(ends)):
        end, weight = ends[class_number], weights[class_number]
        low, high = limits[class_number, 0], limits[class_number, 1]
        for first in range(start, end, BLOCK_PIXELS):
            pixels = min(BLOCK_PIXELS, end - first)
            for i in range(pixels):
                pixel = order[first + i]
                corner[i] = (pixel // width + reach) * stride + pixel % width + reach
            for colour in range(3):
                for i in range(pixels):
                    centre[colour, i] = planes[colour, corner[i]]
            total = np.zeros((3, BLOCK_PIXELS), np.float32)
            for pair in range(len(pairs)):
                shift = pairs[pair, 0] * stride + pairs[pair, 1]
                for colour in range(3):
                    for i in range(pixels):
                        one = planes[colour, corner[i] + shift] - centre[colour, i]
                        other = planes[colour, corner[i] - shift] - centre[colour, i]
                        a[i] = one + other
                        b[i] = min(max(one, -low), low) + min(max(other, -low), low)
                        c[i] = min(max(one, -high), high) + min(max(other, -high), high)
                    feature = 3 * pair + colour
                    for target in range(3):
                        u, v, w = (
                            weight[target, feature],
                            weight[target, count + feature],
                            weight[target, 2 * count + feature],
                        )
                        for i in range(pixels):
                            total[target, i] += u * a[i] + v * b[i] + w * c[i]
            for target in range(3):
                for i in range(pixels):
                    out[target, order[first + i]] = total[target, i]
        start = end


def apply_compiled_kernel(padded: Array, class_map: NDArray[np.uint8], weights: Array) -> Array:
    """Compiled version of `ohmq.postfilter.filters.apply_kernel`; it sums in another order."""
    out = np.empty((3, class_map.size), np.float32)
    order, ends = (numbers.astype(np.int64, copy=False) for numbers in group_by_class(class_map))
    _apply(padded, order, ends, np.ascontiguousarray(weights), _CLIP_LIMITS, _PAIRS, REACH, out)
    return out


def compile_kernel() -> FilterKernel:
    """Compile the kernel, or load it from the cache of numba.

    Returns:
        `apply_compiled_kernel`.

    Raises:
        ConfigError: numba is missing or unusable, or its cache cannot be written or read.
    """
    _apply.compile()
    return apply_compiled_kernel
