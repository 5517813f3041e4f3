"""Classes of pixels and features of the classified post-filter.

A pixel's class is a level of activity and a direction, from second differences around it, as in the adaptive loop
filter of VVC (Karczewicz et al., VVC In-Loop Filters, 2021). The features are differences to neighbours, as they are
and clipped (Taquet et al., Non-Linear Adaptive Loop Filter, 2019).
"""

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CLASSES",
    "CLIPS",
    "DIRECTIONS",
    "FACTORS",
    "FEATURES",
    "LIMITS",
    "PAIRS",
    "REACH",
    "classify",
    "clipped_differences",
    "group_by_class",
]

Array = NDArray[np.float32]

ACTIVITIES = (45, 75, 120, 188, 300, 450, 675, 975, 1425, 2025, 2850)
"""Ends of the levels of activity, in grey levels. Activity: absolute second differences along rows and columns of the sum
of the three colours, summed over 5x5 pixels."""
CLIPS = np.array([0.4, 0.8, 1.3, 2, 3.2, 5, 7.5, 11, 16, 23, 32, 50], np.float32)
"""A large difference of two pixels at each level of activity, in grey levels."""
FACTORS = (0.3, 1.2)
"""Clipping limits of differences, in units of `CLIPS`; a third kind of feature is not clipped."""
RATIOS = (1.3, 2.2)
"""Ratio of second differences across a direction to those along it, from which the direction is weak, or strong."""
CALM = 7.5
"""Added to second differences before division, in grey levels, so that noise in flat regions has no direction."""
DIRECTIONS = 9
"""None; weak: along columns, rows, the two diagonals; strong: the same four."""
CLASSES = len(CLIPS) * DIRECTIONS
"""Number of classes: level of activity * `DIRECTIONS` + direction."""
RADIUS = 3
"""Radius of the diamond of neighbours, in pixels."""
PAIRS = tuple(
    (dy, dx)
    for dy in range(RADIUS + 1)
    for dx in range(-RADIUS, RADIUS + 1)
    if (dy > 0 or dx > 0) and abs(dy) + abs(dx) <= RADIUS
)
"""Offset (rows, columns) of one neighbour of each pair of opposite neighbours."""
LIMITS = 1 + len(FACTORS)
"""Kinds of features of a pair: not clipped, and clipped at each limit."""
FEATURES = LIMITS * len(PAIRS) * 3
"""Features of a pixel: of each limit, pair and colour."""
REACH = 3
"""Pixels around one that its correction depends on: of the diamond, and of 5x5 second differences."""
_LEVEL_OF_ACTIVITY = np.searchsorted(ACTIVITIES, np.arange(ACTIVITIES[-1] + 1), side="right").astype(np.uint8)


def group_by_class(class_map: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order pixels by class.

    Args:
        class_map: the class of each pixel, (H, W).

    Returns:
        The pixels, numbered in raster order, one class after the other, (H * W,); and the end of each class among them,
        (CLASSES,).
    """
    order = np.argsort(class_map, axis=None, kind="stable")
    return order, np.cumsum(np.bincount(class_map.ravel(), minlength=CLASSES))


def classify(padded: Array) -> NDArray[np.uint8]:
    """Compute the class of each pixel of an image.

    Args:
        padded: the image with `REACH` pixels more on each side, (3, H + 6, W + 6), float32, 0 to 255.

    Returns:
        The class map, (H, W).
    """
    # Whole numbers below 2^24 here and in all that follows: float32 holds them exactly.
    grey = np.rint(padded).sum(0)
    twice, inside = 2 * grey[1:-1, 1:-1], slice(1, -1)
    differences = [
        _box_sums(np.abs(twice - one - other))
        for one, other in (
            (grey[inside, :-2], grey[inside, 2:]),
            (grey[:-2, inside], grey[2:, inside]),
            (grey[:-2, :-2], grey[2:, 2:]),
            (grey[:-2, 2:], grey[2:, :-2]),
        )
    ]
    activity = np.minimum(differences[0] + differences[1], np.float32(ACTIVITIES[-1])).astype(np.int32)
    straight, diagonal = (
        np.maximum(a, b) / (np.minimum(a, b) + np.float32(CALM)) for a, b in (differences[:2], differences[2:])
    )
    ratio = np.maximum(straight, diagonal)
    direction = np.where(
        straight > diagonal, 1 + (differences[0] <= differences[1]), 3 + (differences[2] <= differences[3])
    )
    weak, strong = (ratio >= np.float32(limit) for limit in RATIOS)
    direction = direction * weak + 4 * strong
    return np.asarray(_LEVEL_OF_ACTIVITY[activity] * DIRECTIONS + direction, np.uint8)


def _box_sums(values: Array) -> Array:
    """Return sums over 5x5: (H + 4, W + 4) to (H, W)."""
    two = values[:-1] + values[1:]
    five = two[:-3] + two[2:-1] + values[4:]
    two = five[:, :-1] + five[:, 1:]
    return two[:, :-3] + two[:, 2:-1] + five[:, 4:]


def clipped_differences(padded: Array, class_map: NDArray[np.uint8], pixels: NDArray[np.int64]) -> Array:
    """Compute the features of selected pixels: clipped differences to their neighbours.

    Args:
        padded: the image with `REACH` pixels more on each side, (3, H + 6, W + 6), contiguous.
        class_map: of `classify`, (H, W).
        pixels: n pixels, numbered in raster order.

    Returns:
        (FEATURES, n).
    """
    width, stride = class_map.shape[1], padded.shape[2]
    corner = pixels // width * stride + pixels % width
    planes = padded.reshape(3, -1)

    def neighbours(dy: int, dx: int, out: Array) -> Array:
        shift = (REACH + dy) * stride + REACH + dx
        for plane, plane_out in zip(planes, out, strict=True):
            plane[shift:].take(corner, out=plane_out, mode="clip")
        return out

    base = CLIPS[class_map.ravel()[pixels] // DIRECTIONS]
    limits = [(np.float32(-factor) * base, np.float32(factor) * base) for factor in FACTORS]
    out = np.empty((LIMITS, len(PAIRS), 3, len(pixels)), np.float32)
    centre, one, other, clipped = np.empty((4, 3, len(pixels)), np.float32)
    neighbours(0, 0, centre)
    for pair, (dy, dx) in enumerate(PAIRS):
        np.subtract(neighbours(dy, dx, one), centre, out=one)
        np.subtract(neighbours(-dy, -dx, other), centre, out=other)
        np.add(one, other, out=out[0, pair])
        for (low, high), sums in zip(limits, out[1:, pair], strict=True):
            np.minimum(np.maximum(one, low, out=sums), high, out=sums)
            np.minimum(np.maximum(other, low, out=clipped), high, out=clipped)
            np.add(sums, clipped, out=sums)
    return out.reshape(FEATURES, -1)
