"""The kernel of the post-filter, compiled by numba: `ohmq.postfilter.filters.apply_kernel` in less time.

Strips of an image go through classes, features and products while they are in the processor's cache. Nothing is compiled on
import: `compile_kernel` does, or the first call.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmq.postfilter.classes import ACTIVITIES, CALM, CLASSES, CLIPS, DIRECTIONS, FACTORS, PAIRS, RATIOS, REACH
from ohmq.postfilter.filters import UNIT, FilterKernel
from ohmq.utils.numba_cache import compiled

__all__ = ["apply_compiled_kernel", "compile_kernel"]

Array = NDArray[Any]

STRIP_PIXELS = 2**14
"""Pixels of a strip."""
BLOCK_PIXELS = 64
"""Pixels of one class that are filtered at once."""
VECTOR = 16
"""Numbers of the longest vectors of processors."""
COLOUR_BITS = 21
"""Bits of a colour in a packed pixel, in steps of `UNIT`: three fit into 64 bits."""
_CLIP_LIMITS = CLIPS[np.arange(CLASSES) // DIRECTIONS, None] * np.array(FACTORS, np.float32)
"""Limits at which differences of each class are clipped, in grey levels, (CLASSES, 2)."""
_PAIRS = np.array(PAIRS, np.int64)
_ACTIVITIES = np.array(ACTIVITIES, np.float32)
_RATIOS = np.array(RATIOS, np.float32)
_CALM, _DIRECTIONS, _REACH, _NUM_PAIRS = float(CALM), int(DIRECTIONS), int(REACH), len(PAIRS)
_UNIT, _BITS, _TWICE, _MASK = (
    np.float32(UNIT),
    np.uint64(COLOUR_BITS),
    np.uint64(2 * COLOUR_BITS),
    np.uint64(2**COLOUR_BITS - 1),
)


@compiled("void(float32[:,:,::1], float32[::1], float32[::1], int64, int64, uint8[::1])")
def _classify(padded: Array, activities: Array, ratios: Array, top: int, rows: int, classes: Array) -> None:
    """Compute the classes of some rows of an image, by the same sums of whole numbers as `ohmq.postfilter.classes.classify`.

    Args:
        padded: the image with 3 pixels more on each side, (3, H + 6, W + 6).
        activities: ends of the levels of activity.
        ratios: from which a direction is weak, or strong.
        top: the first row.
        rows: their number.
        classes: (rows * W,), overwritten.
    """
    width = padded.shape[2] - 6
    grey = np.empty((rows + 6, width + 6), np.float32)
    for y in range(rows + 6):
        a, b, c, out = padded[0, top + y], padded[1, top + y], padded[2, top + y], grey[y]
        for x in range(width + 6):
            out[x] = np.rint(a[x]) + np.rint(b[x]) + np.rint(c[x])
    sums = np.empty((4, rows + 4, width), np.float32)  # of five differences along a row
    differences = np.empty((4, width + 4), np.float32)
    for y in range(rows + 4):
        above, here, below = grey[y], grey[y + 1], grey[y + 2]
        d0, d1, d2, d3 = differences[0], differences[1], differences[2], differences[3]
        for x in range(width + 4):
            twice = here[x + 1] + here[x + 1]
            d0[x] = abs(twice - here[x] - here[x + 2])
            d1[x] = abs(twice - above[x + 1] - below[x + 1])
            d2[x] = abs(twice - above[x] - below[x + 2])
            d3[x] = abs(twice - above[x + 2] - below[x])
        for k in range(4):
            d, out = differences[k], sums[k, y]
            for x in range(width):
                out[x] = d[x] + d[x + 1] + d[x + 2] + d[x + 3] + d[x + 4]
    weak, strong, calm = ratios[0], ratios[1], np.float32(_CALM)
    one, none = np.int32(1), np.int32(0)
    box = np.empty((4, width), np.float32)
    level = np.empty(width, np.int32)
    for y in range(rows):
        for k in range(4):
            s0, s1, s2, s3, s4, out = (
                sums[k, y],
                sums[k, y + 1],
                sums[k, y + 2],
                sums[k, y + 3],
                sums[k, y + 4],
                box[k],
            )
            for x in range(width):
                out[x] = s0[x] + s1[x] + s2[x] + s3[x] + s4[x]
        b0, b1, b2, b3 = box[0], box[1], box[2], box[3]
        level[:] = 0
        for k in range(len(activities)):
            end = activities[k]
            for x in range(width):
                level[x] += one if b0[x] + b1[x] >= end else none
        out_row = classes[y * width : (y + 1) * width]
        for x in range(width):
            straight = max(b0[x], b1[x]) / (min(b0[x], b1[x]) + calm)
            diagonal = max(b2[x], b3[x]) / (min(b2[x], b3[x]) + calm)
            ratio = max(straight, diagonal)
            first = np.int32(1) + (one if b0[x] <= b1[x] else none)
            second = np.int32(3) + (one if b2[x] <= b3[x] else none)
            direction = first if straight > diagonal else second
            direction = direction if ratio >= weak else none
            direction += np.int32(4) if ratio >= strong else none
            out_row[x] = np.uint8(level[x] * np.int32(_DIRECTIONS) + direction)


@compiled("void(float32[:,:,::1], uint64[:,::1])")
def _pack(padded: Array, out: Array) -> None:
    """Pack the colours of each pixel into one number, in steps of `UNIT`.

    Args:
        padded: as for `_classify`.
        out: (H + 6, W + 6), overwritten.
    """
    half, least, most = np.float32(0.5), np.float32(0), np.float32(255)
    for y in range(out.shape[0]):
        a, b, c, row = padded[0, y], padded[1, y], padded[2, y], out[y]
        for x in range(out.shape[1]):
            first = np.uint64(np.int64(min(max(a[x], least), most) / _UNIT + half))
            second = np.uint64(np.int64(min(max(b[x], least), most) / _UNIT + half))
            third = np.uint64(np.int64(min(max(c[x], least), most) / _UNIT + half))
            row[x] = first | second << _BITS | third << _TWICE


@compiled(
    "void(uint64[:,::1], uint8[::1], float32[:,:,::1], float32[:,::1], int64[:,::1], int64, float32[:,::1])",
    fastmath=("nnan", "ninf", "nsz", "contract"),
)
def _filter(packed: Array, classes: Array, weights: Array, limits: Array, pairs: Array, top: int, out: Array) -> None:
    """Filter some rows of an image.

    Args:
        packed: of `_pack`.
        classes: of the rows, (rows * W,).
        weights: of each class, (K, 3, 3 * 3 P).
        limits: two clipping limits of each class, (K, 2).
        pairs: offset (rows, columns) of one of two opposite neighbours, (P, 2).
        top: the first row.
        out: filtered pixels at the start of rows as wide as those of ``packed``, (3, rows * (W + 6)), overwritten.
    """
    stride, count = packed.shape[1], 3 * _NUM_PAIRS
    width = stride - 2 * _REACH
    flat = packed.reshape(-1)
    ends = np.zeros(len(weights) + 1, np.int64)
    for i in range(len(classes)):
        ends[classes[i] + np.uint32(1)] += 1
    for k in range(len(weights)):
        ends[k + 1] += ends[k]
    order = np.empty(len(classes), np.uint32)
    place = ends.copy()
    for y in range(len(classes) // width):
        for x in range(width):
            number = np.uint32(classes[y * width + x])
            order[np.uint64(place[number])] = y * stride + x
            place[number] += 1
    # Neighbours of a block of pixels, one after the other: (two of each pair and the pixel itself, colours, pixels). Loading
    # packed pixels one by one takes less time here than the processor's instructions that collect numbers.
    around = np.empty((2 * _NUM_PAIRS + 1, 3, BLOCK_PIXELS), np.float32)
    pixel_lines = np.zeros((len(around), BLOCK_PIXELS), np.uint64)
    shifts = np.empty(len(around), np.uint64)
    for k in range(len(around)):
        sign = 0 if k == 2 * _NUM_PAIRS else 1 - 2 * (k % 2)
        pair = min(k // 2, _NUM_PAIRS - 1)
        shifts[k] = (top + _REACH + sign * pairs[pair, 0]) * packed.shape[1] + _REACH + sign * pairs[pair, 1]
    total = np.empty((3, BLOCK_PIXELS), np.float32)
    for class_number in range(len(weights)):
        weight = weights[class_number]
        low, high = limits[class_number, 0] / _UNIT, limits[class_number, 1] / _UNIT
        for first in range(ends[class_number], ends[class_number + 1], BLOCK_PIXELS):
            pixels = min(BLOCK_PIXELS, ends[class_number + 1] - first)
            members = order[first : first + pixels]
            lanes = (pixels + VECTOR - 1) // VECTOR * VECTOR
            for i in range(pixels):
                corner = np.uint64(members[i])
                for k in range(2 * _NUM_PAIRS + 1):
                    pixel_lines[k, i] = flat[corner + shifts[k]]
            for k in range(2 * _NUM_PAIRS + 1):
                line, first_colour, second_colour, third_colour = (
                    pixel_lines[k],
                    around[k, 0],
                    around[k, 1],
                    around[k, 2],
                )
                for i in range(lanes):  # those beyond the last pixel are of no use, and of no harm
                    first_colour[i] = np.float32(np.int32(line[i] & _MASK))
                    second_colour[i] = np.float32(np.int32(line[i] >> _BITS & _MASK))
                    third_colour[i] = np.float32(np.int32(line[i] >> _TWICE))
            total[:] = around[2 * _NUM_PAIRS]
            t0, t1, t2 = total[0], total[1], total[2]
            for pair in range(_NUM_PAIRS):
                for colour in range(3):
                    x, y, c = around[2 * pair, colour], around[2 * pair + 1, colour], around[2 * _NUM_PAIRS, colour]
                    f = 3 * pair + colour
                    u0, v0, w0 = weight[0, f], weight[0, count + f], weight[0, 2 * count + f]
                    u1, v1, w1 = weight[1, f], weight[1, count + f], weight[1, 2 * count + f]
                    u2, v2, w2 = weight[2, f], weight[2, count + f], weight[2, 2 * count + f]
                    for i in range(lanes):
                        one, other = x[i] - c[i], y[i] - c[i]
                        a = one + other
                        b = min(max(one, -low), low) + min(max(other, -low), low)
                        d = min(max(one, -high), high) + min(max(other, -high), high)
                        t0[i] += u0 * a + v0 * b + w0 * d
                        t1[i] += u1 * a + v1 * b + w1 * d
                        t2[i] += u2 * a + v2 * b + w2 * d
            for target in range(3):
                row, t = out[target], total[target]
                for i in range(pixels):
                    row[members[i]] = t[i] * _UNIT


@compiled("void(float32[:,:,::1], uint8[:,:,:])")
def _round(filtered: Array, out: Array) -> None:
    """Round pixels (3, rows, at least W) to 8 bits, (3, rows, W)."""
    least, most = np.float32(0), np.float32(255)
    for y in range(out.shape[1]):
        for x in range(out.shape[2]):
            for colour in range(3):
                out[colour, y, x] = np.uint8(min(max(np.rint(filtered[colour, y, x]), least), most))


def apply_compiled_kernel(padded: Array, weights: Array, out: Array) -> None:
    """Compiled version of `ohmq.postfilter.filters.apply_kernel`; it sums in another order."""
    height, width = out.shape[1:]
    rows = max(1, STRIP_PIXELS // width)
    classes, filtered = np.empty(rows * width, np.uint8), np.empty((3, rows, padded.shape[2]), np.float32)
    packed = np.empty(padded.shape[1:], np.uint64)
    _pack(padded, packed)
    for top in range(0, height, rows):
        count = min(rows, height - top)
        part = classes[: count * width]
        result = filtered if count == rows else np.empty((3, count, padded.shape[2]), np.float32)
        _classify(padded, _ACTIVITIES, _RATIOS, top, count, part)
        _filter(packed, part, weights, _CLIP_LIMITS, _PAIRS, top, result.reshape(3, -1))
        if out.dtype == np.uint8:
            _round(result, out[:, top : top + count])
        else:
            out[:, top : top + count] = result[:, :, :width]


def compile_kernel() -> FilterKernel:
    """Compile the kernel, or load it from the cache of numba.

    Returns:
        `apply_compiled_kernel`.

    Raises:
        ConfigError: numba is missing or unusable, or its cache cannot be written or read.
    """
    for function in (_classify, _pack, _filter, _round):
        function.compile()
    return apply_compiled_kernel
