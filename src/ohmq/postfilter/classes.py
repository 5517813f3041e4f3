"""src/ohmq/postfilter/classes.py."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLASSES", "FEATURES", "LIMITS", "REACH", "by_class", "classes", "features"]

Array = NDArray[np.float32]

ACTIVITIES = (45, 75, 120, 188, 300, 450, 675, 975, 1425, 2025, 2850)
"""Where levels of activity end. Activity: of the sum of the three colours, the absolute second differences along rows and
columns, summed over 5x5 pixels."""
CLIPS = np.array([0.4, 0.8, 1.3, 2, 3.2, 5, 7.5, 11, 16, 23, 32, 50], np.float32)
"""A difference of two pixels, in grey levels, that is large at each level of activity."""
FACTORS = (0.3, 1.2)
"""Differences are taken as they are, and clipped at so many times that."""
RATIOS = (1.3, 2.2)
"""A direction is weak, or strong, where second differences across it are so many times those along it."""
CALM = 7.5
"""Added to second differences before they are divided."""
DIRECTIONS = 9
"""None; weak: along columns, rows, the two diagonals; strong: the same."""
CLASSES = len(CLIPS) * DIRECTIONS
RADIUS = 3
"""Of the diamond of neighbours, in pixels."""
PAIRS = tuple(
    (dy, dx)
    for dy in range(RADIUS + 1)
    for dx in range(-RADIUS, RADIUS + 1)
    if (dy > 0 or dx > 0) and abs(dy) + abs(dx) <= RADIUS
)
"""One of each two opposite neighbours."""
LIMITS = 1 + len(FACTORS)
FEATURES = LIMITS * len(PAIRS) * 3
REACH = 3
"""Pixels around one that its correction depends on: of the diamond, and of 5x5 second differences."""
_LEVEL_OF = np.searchsorted(ACTIVITIES, np.arange(ACTIVITIES[-1] + 1), side="right").astype(np.uint8)


def by_class(kinds: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The places of pixels, those of a class one after the other, and where each class ends among them, (CLASSES,)."""
    order = np.argsort(kinds, axis=None, kind="stable")
    return order, np.cumsum(np.bincount(kinds.ravel(), minlength=CLASSES))


def classes(padded: Array) -> NDArray[np.uint8]:
    """The class of each pixel of a picture with `REACH` pixels more on each side.

    Shape:
        padded: (3, H + 6, W + 6), float32, 0 to 255. Returns: (H, W).
    """
    grey = np.rint(padded).sum(0)  # whole numbers below 2^24 here and in all that follows: float32 holds them exactly
    twice, inside = 2 * grey[1:-1, 1:-1], slice(1, -1)
    across = [
        _box(np.abs(twice - one - other))
        for one, other in (
            (grey[inside, :-2], grey[inside, 2:]),
            (grey[:-2, inside], grey[2:, inside]),
            (grey[:-2, :-2], grey[2:, 2:]),
            (grey[:-2, 2:], grey[2:, :-2]),
        )
    ]
    activity = np.minimum(across[0] + across[1], np.float32(ACTIVITIES[-1])).astype(np.int32)
    straight, diagonal = (np.maximum(a, b) / (np.minimum(a, b) + np.float32(CALM)) for a, b in (across[:2], across[2:]))
    ratio = np.maximum(straight, diagonal)
    direction = np.where(straight > diagonal, 1 + (across[0] <= across[1]), 3 + (across[2] <= across[3]))
    weak, strong = (ratio >= np.float32(limit) for limit in RATIOS)
    direction = direction * weak + 4 * strong
    return np.asarray(_LEVEL_OF[activity] * DIRECTIONS + direction, np.uint8)


def _box(values: Array) -> Array:
    """Sums over 5x5: (H + 4, W + 4) to (H, W)."""
    two = values[:-1] + values[1:]
    five = two[:-3] + two[2:-1] + values[4:]
    two = five[:, :-1] + five[:, 1:]
    return two[:, :-3] + two[:, 2:-1] + five[:, 4:]


def features(padded: Array, kinds: NDArray[np.uint8], chosen: NDArray[np.int64]) -> Array:
    """What filters take of some pixels of a picture with `REACH` pixels more on each side.

    Shape:
        padded: (3, H + 6, W + 6), contiguous. kinds: its `classes`, (H, W). chosen: (n,), of H * W. Returns: (FEATURES, n).
    """
    width, across = kinds.shape[1], padded.shape[2]
    corner = chosen // width * across + chosen % width
    planes = padded.reshape(3, -1)

    def neighbours(dy: int, dx: int, out: Array) -> Array:
        shift = (REACH + dy) * across + REACH + dx
        for plane, taken in zip(planes, out, strict=True):
            plane[shift:].take(corner, out=taken, mode="clip")
        return out

    base = CLIPS[kinds.ravel()[chosen] // DIRECTIONS]
    limits = [(np.float32(-factor) * base, np.float32(factor) * base) for factor in FACTORS]
    out = np.empty((LIMITS, len(PAIRS), 3, len(chosen)), np.float32)
    centre, one, other, clipped = np.empty((4, 3, len(chosen)), np.float32)
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
