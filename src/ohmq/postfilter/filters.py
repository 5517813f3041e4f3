"""Filters after the synthesis: each pixel is corrected by its neighbours, in a way that its surroundings choose."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmq.errors import ModelFileError
from ohmq.postfilter.classes import (
    CLASSES,
    FEATURES,
    LIMITS,
    REACH,
    Array,
    by_class,
    classes,
    features,
)

__all__ = ["FilterKernel", "PostFilter", "apply_kernel", "finished"]
FilterKernel = Callable[[Array, NDArray[np.uint8], Array], Array]
"""Corrections of the pixels of a strip; see `apply_kernel`."""
STRIP = 2**15
"""Pixels that a thread filters at a time."""
PRODUCT = 512
"""Pixels of a product: so few that the library for it stays in the thread, beside others."""


class PostFilter:
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

    def __init__(
        self,
        channels: NDArray[Any],
        weight: NDArray[Any],
        scale: NDArray[Any],
        kernel: "FilterKernel | None" = None,
    ) -> None:
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
        self.kernel: FilterKernel = kernel or apply_kernel

    @classmethod
    def rounded(cls, channels: Sequence[int], weights: NDArray[np.floating]) -> "PostFilter":
        """Filters whose weights, (sets, CLASSES, 3, FEATURES), are rounded to 8 bits for each class and limit."""
        parts = weights.reshape(*weights.shape[:2], 3, LIMITS, -1)
        scale = (np.abs(parts).max((2, 4)) / 127).astype(np.float32)
        units = np.where(scale > 0, scale, 1)[:, :, None, :, None]
        rounded = np.round(parts / units).clip(-127, 127).astype(np.int8)
        return cls(np.array(channels, np.int32), rounded.reshape(weights.shape), scale)

    @classmethod
    def of(cls, tensors: Mapping[str, NDArray[Any]]) -> "PostFilter | None":
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
        return cls(tensors["channels"], tensors["weight"], tensors["scale"])

    @property
    def tensors(self) -> dict[str, NDArray[Any]]:
        """As `of` takes them."""
        return {"channels": self.channels, "weight": self.weight, "scale": self.scale}

    def with_kernel(self, kernel: FilterKernel) -> "PostFilter":
        """Return the same filters with another kernel.

        Args:
            kernel: of `ohmq.postfilter.select_kernel.select_kernel`.

        Returns:
            A post-filter that shares the tensors of this one.
        """
        return PostFilter(self.channels, self.weight, self.scale, kernel)

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
            correction = self.kernel(part, kinds, weights).reshape(3, *kinds.shape)
            np.add(picture[:, here], correction, out=out[:, here])

        tops = range(0, height, rows)
        if threads == 1:
            for top in tops:
                correct(top)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(correct, tops))
        return out


def finished(decoded: Array, channels: int, filters: PostFilter | None, threads: int = 1) -> NDArray[np.uint8]:
    """Decoded pictures of so many channels, filtered in so many threads, and rounded.

    Shape:
        decoded: (T, image_channels, H, W), float32, 0 to 255. Returns: the same.
    """
    if filters is not None:
        decoded = np.stack([filters.apply(picture, channels, threads) for picture in decoded])
    return np.asarray(decoded.round().clip(0, 255), np.uint8)


def apply_kernel(padded: Array, kinds: NDArray[np.uint8], weights: Array) -> Array:
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
