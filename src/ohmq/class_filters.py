"""Filters after the synthesis: each pixel is corrected by its neighbours, in a way that its surroundings choose."""

import copy
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmq.errors import ModelFileError

__all__ = ["CLASSES", "FEATURES", "LIMITS", "REACH", "ClassFilters", "by_class", "classes", "features", "finished"]

Array = NDArray[np.float32]
_Products = Callable[[Array, NDArray[np.uint8], Array], Array]

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
STRIP = 2**15
"""Pixels that a thread filters at a time."""
PRODUCT = 512
"""Pixels of a product: so few that the library for it stays in the thread, beside others."""
_LIMITS_OF = CLIPS[np.arange(CLASSES) // DIRECTIONS, None] * np.array(FACTORS, np.float32)
"""At which differences of each class are clipped, in grey levels, (CLASSES, 2)."""
_PAIRS = np.array(PAIRS, np.int64)
_LEVEL_OF = np.searchsorted(ACTIVITIES, np.arange(ACTIVITIES[-1] + 1), side="right").astype(np.uint8)


class ClassFilters:
    r"""Corrects a decoded picture: of each pixel, the differences to its neighbours, by the filter of its class.

    $$ x \leftarrow x + W_{k} f, \qquad f = \left(\mathrm{clip}_T(a - x) + \mathrm{clip}_T(b - x)\right)_{a, b, T} $$

    for all pairs of opposite neighbours a and b, and three widths T, one of them without end. The class k is a level of
    activity and a direction, by exact sums of pixels that are rounded first: machines differ in it only where a pixel that they
    round differently lies at the border of two classes.

    Args:
        channels: (sets,), int32, ascending: numbers of channels that each set of filters was fitted at; weights in between
            are between theirs.
        weight: (sets, CLASSES, 3, FEATURES), int8, in units of ``scale``.
        scale: (sets, CLASSES, LIMITS), float32: of the weights of a class that belong to features of one limit.

    Raises:
        ModelFileError: tensors of another shape or type.

    References: Romano et al., RAISR (a filter a class); Taquet et al., non-linear adaptive loop filter (clipping).
    """

    def __init__(self, channels: NDArray[Any], weight: NDArray[Any], scale: NDArray[Any]) -> None:
        if channels.ndim != 1 or channels.dtype != np.int32 or not len(channels) or (np.diff(channels) <= 0).any():
            raise ModelFileError("the filters' numbers of channels must be int32 and ascend")
        for name, found, kind, shape in (
            ("weight", weight, np.int8, (len(channels), CLASSES, 3, FEATURES)),
            ("scale", scale, np.float32, (len(channels), CLASSES, LIMITS)),
        ):
            if found.shape != shape or found.dtype != kind:
                raise ModelFileError(
                    f"the filters' {name} is {found.dtype} {found.shape}; expected {kind.__name__} {shape}"
                )
        if not np.isfinite(scale).all():
            raise ModelFileError("the filters' scale holds values that are not finite")
        self.channels, self.weight, self.scale = channels, weight, scale
        self._products: _Products = _products

    @classmethod
    def rounded(cls, channels: Sequence[int], weights: NDArray[np.floating]) -> "ClassFilters":
        """Filters whose weights, (sets, CLASSES, 3, FEATURES), are rounded to 8 bits for each class and limit."""
        parts = weights.reshape(*weights.shape[:2], 3, LIMITS, -1)
        scale = (np.abs(parts).max((2, 4)) / 127).astype(np.float32)
        units = np.where(scale > 0, scale, 1)[:, :, None, :, None]
        rounded = np.round(parts / units).clip(-127, 127).astype(np.int8)
        return cls(np.array(channels, np.int32), rounded.reshape(weights.shape), scale)

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[Any]]) -> "ClassFilters | None":
        """Those of a model, by names without "filters."; None if it has none.

        Raises:
            ModelFileError: some of the tensors are missing, or wrong.
        """
        if not tensors:
            return None
        if set(tensors) != {"channels", "weight", "scale"}:
            raise ModelFileError(
                f"the filters have tensors {', '.join(sorted(tensors))}; expected channels, scale, weight"
            )
        return cls(**tensors)

    @property
    def tensors(self) -> dict[str, NDArray[Any]]:
        """As `of` takes them."""
        return {"channels": self.channels, "weight": self.weight, "scale": self.scale}

    def compiled(self) -> "ClassFilters":
        """The same, compiled by numba: sooner, sums in another order.

        Raises:
            ConfigError: numba is not installed, or cannot be used.
        """
        from ohmq import compiled_filters  # noqa: F401

        filters = copy.copy(self)
        filters._products = _compiled_products
        return filters

    @property
    def flops_per_pixel(self) -> int:
        """Of the products; clipping and classes take additions and comparisons."""
        return 2 * 3 * FEATURES

    def weights_at(self, channels: int) -> Array:
        """The weights for so many channels, (CLASSES, 3, FEATURES), float32."""
        place = float(np.interp(channels, self.channels, np.arange(len(self.channels))))
        low = int(place)
        high, part = min(low + 1, len(self.channels) - 1), np.float32(place - low)
        below, above = self._weights(low), self._weights(high)
        return np.asarray(below + part * (above - below))

    def _weights(self, place: int) -> Array:
        parts = self.weight[place].reshape(CLASSES, 3, LIMITS, -1) * self.scale[place][:, None, :, None]
        return np.asarray(parts.reshape(CLASSES, 3, FEATURES), np.float32)

    def apply(self, picture: Array, channels: int, threads: int = 1) -> Array:
        """A picture of so many channels, corrected; the same for any number of threads.

        Shape:
            picture: (3, H, W), float32, 0 to 255, at least 4 pixels each side. Returns: the same, not clipped.
        """
        weights = self.weights_at(channels)
        height, width = picture.shape[1:]
        padded = np.pad(picture, ((0, 0), (REACH, REACH), (REACH, REACH)), mode="reflect")
        out = np.empty_like(picture)
        rows = max(1, STRIP // width)

        def correct(top: int) -> None:
            here = slice(top, top + rows)
            part = np.ascontiguousarray(padded[:, top : top + rows + 2 * REACH])
            kinds = classes(part)
            correction = self._products(part, kinds, weights).reshape(3, *kinds.shape)
            np.add(picture[:, here], correction, out=out[:, here])

        tops = range(0, height, rows)
        if threads == 1:
            for top in tops:
                correct(top)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(correct, tops))
        return out


def finished(decoded: Array, channels: int, filters: ClassFilters | None, threads: int = 1) -> NDArray[np.uint8]:
    """Decoded pictures of so many channels, filtered in so many threads, and rounded.

    Shape:
        decoded: (T, image_channels, H, W), float32, 0 to 255. Returns: the same.
    """
    if filters is not None:
        decoded = np.stack([filters.apply(picture, channels, threads) for picture in decoded])
    return np.asarray(decoded.round().clip(0, 255), np.uint8)


def _products(padded: Array, kinds: NDArray[np.uint8], weights: Array) -> Array:
    """What is added to the pixels of a strip, (3, H * W), that has `REACH` pixels more on each side here."""
    order, ends = by_class(kinds)
    found = features(padded, kinds, order)
    correction = np.empty((3, kinds.size), np.float32)
    start = 0
    for weight, end in zip(weights, ends, strict=True):
        for first in range(start, end, PRODUCT):
            chosen = slice(first, min(first + PRODUCT, end))
            correction[:, order[chosen]] = weight @ found[:, chosen]
        start = end
    return correction


def _compiled_products(padded: Array, kinds: NDArray[np.uint8], weights: Array) -> Array:
    """As `_products`, by numba."""
    from ohmq.compiled_filters import products

    out = np.empty((3, kinds.size), np.float32)
    order, ends = (places.astype(np.int64, copy=False) for places in by_class(kinds))
    products(padded, order, ends, np.ascontiguousarray(weights), _LIMITS_OF, _PAIRS, REACH, out)
    return out


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
