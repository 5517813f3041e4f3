"""Classified post-filter: each pixel after synthesis is corrected by its neighbours, with the filter of its class."""

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
    classify,
    clipped_differences,
    group_by_class,
)

__all__ = ["UNIT", "FilterKernel", "PostFilter", "apply_kernel", "filter_and_round"]

FilterKernel = Callable[[Array, Array, NDArray[Any]], None]
"""Filters a strip; see `apply_kernel`."""
STRIP_PIXELS = 2**15
"""Pixels that a thread filters at once."""
UNIT = 2.0**-13
"""Step that pixels are rounded to before they are filtered, in grey levels: kernels may hold them as integers."""
PRODUCT_PIXELS = 512
"""Pixels of a matrix product: few enough that the library computes it in the calling thread."""


def apply_kernel(padded: Array, weights: Array, out: NDArray[Any]) -> None:
    """Filter the pixels of a strip.

    Args:
        padded: the strip with `REACH` pixels more on each side, (3, H + 6, W + 6), contiguous.
        weights: of each class, (CLASSES, 3, FEATURES), contiguous.
        out: filtered pixels, (3, H, W), overwritten: float32, or uint8, to which they are rounded.
    """
    class_map = classify(padded)
    padded = np.floor(padded.clip(0, 255) / np.float32(UNIT) + np.float32(0.5)) * np.float32(UNIT)
    order, ends = group_by_class(class_map)
    features = clipped_differences(padded, class_map, order)
    correction = np.empty((3, class_map.size), np.float32)
    start = 0
    for weight, end in zip(weights, ends, strict=True):
        for first in range(start, end, PRODUCT_PIXELS):
            chunk = slice(first, min(first + PRODUCT_PIXELS, end))
            correction[:, order[chunk]] = weight @ features[:, chunk]
        start = end
    filtered = padded[:, REACH:-REACH, REACH:-REACH] + correction.reshape(out.shape)
    out[:] = filtered if out.dtype == np.float32 else filtered.round().clip(0, 255)


class PostFilter:
    r"""Classified post-filter of decoded images.

    Each pixel is corrected by the differences to its neighbours, with the filter of its class k:

    $$ x \leftarrow x + W_{k} f, \qquad f = \left(\mathrm{clip}_T(a - x) + \mathrm{clip}_T(b - x)\right)_{a, b, T} $$

    for all pairs of opposite neighbours a and b, and three limits T, one of them infinite. The class is a level of
    activity and a direction, by exact sums of pixels that are rounded first: two machines differ in it only where they
    round a pixel differently at the border of two classes.

    Args:
        channels: (sets,), int32, ascending: the number of channels at which each set of filters was fitted; between two
            of them the weights are interpolated.
        weight: (sets, CLASSES, 3, FEATURES), int8, in units of ``scale``.
        scale: (sets, CLASSES, LIMITS), float32: of the weights of a class that multiply features of one limit.
        kernel: computes the corrections; of `ohmq.postfilter.select_kernel.select_kernel`. Default: `apply_kernel`.

    Raises:
        ModelFileError: tensors of another shape or type.

    References: Karczewicz et al., VVC In-Loop Filters (the adaptive loop filter: classified filters in the decoder);
        Romano et al., RAISR (a filter for each class); Taquet et al., Non-Linear Adaptive Loop Filter (clipping).
    """

    def __init__(
        self,
        channels: NDArray[Any],
        weight: NDArray[Any],
        scale: NDArray[Any],
        kernel: FilterKernel = apply_kernel,
    ) -> None:
        if channels.ndim != 1 or channels.dtype != np.int32 or not len(channels) or (np.diff(channels) <= 0).any():
            raise ModelFileError("the filters' numbers of channels must be int32 and ascend")
        for name, tensor, kind, shape in (
            ("weight", weight, np.int8, (len(channels), CLASSES, 3, FEATURES)),
            ("scale", scale, np.float32, (len(channels), CLASSES, LIMITS)),
        ):
            if tensor.shape != shape or tensor.dtype != kind:
                raise ModelFileError(
                    f"the filters' {name} is {tensor.dtype} {tensor.shape}; expected {kind.__name__} {shape}"
                )
        if not np.isfinite(scale).all():
            raise ModelFileError("the filters' scale holds values that are not finite")
        self.channels, self.weight, self.scale = channels, weight, scale
        self.kernel = kernel
        self._latest: tuple[int, Array] | None = None

    @classmethod
    def rounded(cls, channels: Sequence[int], weights: NDArray[np.floating]) -> "PostFilter":
        """Make filters whose weights are rounded to 8 bits for each class and limit.

        Args:
            channels: the number of channels of each set.
            weights: (sets, CLASSES, 3, FEATURES).
        """
        by_limit = weights.reshape(*weights.shape[:2], 3, LIMITS, -1)
        scale = (np.abs(by_limit).max((2, 4)) / 127).astype(np.float32)
        units = np.where(scale > 0, scale, 1)[:, :, None, :, None]
        rounded = np.round(by_limit / units).clip(-127, 127).astype(np.int8)
        return cls(np.array(channels, np.int32), rounded.reshape(weights.shape), scale)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> "PostFilter | None":
        """Make the filters of a model from its tensors.

        Args:
            tensors: by name without "filters."; may be empty.

        Returns:
            The filters; None if there are no tensors.

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
        """Tensors by name, as `from_tensors` takes them."""
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
        """Floating-point operations of the products; clipping and classes add only additions and comparisons."""
        return 2 * 3 * FEATURES

    def weights_at(self, channels: int) -> Array:
        """Interpolate the weights for a number of channels; those of the last one are kept.

        Args:
            channels: that are decoded.

        Returns:
            (CLASSES, 3, FEATURES), float32.
        """
        latest = self._latest
        if latest is None or latest[0] != channels:
            latest = self._latest = channels, self._interpolated(channels)
        return latest[1]

    def _interpolated(self, channels: int) -> Array:
        position = float(np.interp(channels, self.channels, np.arange(len(self.channels))))
        low = int(position)
        high, fraction = min(low + 1, len(self.channels) - 1), np.float32(position - low)
        below, above = self._weights_of_set(low), self._weights_of_set(high)
        return np.ascontiguousarray(below + fraction * (above - below))

    def _weights_of_set(self, number: int) -> Array:
        by_limit = self.weight[number].reshape(CLASSES, 3, LIMITS, -1) * self.scale[number][:, None, :, None]
        return np.asarray(by_limit.reshape(CLASSES, 3, FEATURES), np.float32)

    def apply(self, image: Array, channels: int, threads: int = 1) -> Array:
        """Filter an image; the result is the same for any number of threads.

        Args:
            image: (3, H, W), float32, 0 to 255, at least 4 pixels each side.
            channels: that were decoded.
            threads: default 1.

        Returns:
            The filtered image, (3, H, W), not clipped.
        """
        return self._applied(image, channels, np.empty_like(image), threads)

    def apply_and_round(self, image: Array, channels: int, threads: int = 1) -> NDArray[np.uint8]:
        """Filter an image and round it to 8 bits; arguments as `apply`.

        Args:
            image: (3, H, W).
            channels: that were decoded.
            threads: default 1.

        Returns:
            (3, H, W), uint8.
        """
        return self._applied(image, channels, np.empty(image.shape, np.uint8), threads)

    def _applied(self, image: Array, channels: int, out: NDArray[Any], threads: int) -> NDArray[Any]:
        self.filter_inside(image, (0, 0, 0, 0), channels, out, threads)
        return out

    def filter_inside(
        self, image: Array, margins: tuple[int, int, int, int], channels: int, out: NDArray[Any], threads: int = 1
    ) -> None:
        """Filter the inside of a part of an image.

        Args:
            image: the inside and true neighbours around it, (3, H, W), float32, 0 to 255, at least 4 pixels each side.
            margins: pixels of the neighbours above, below, left and right, at most `REACH`. Neighbours that are missing are
                mirrored at the edge.
            channels: that were decoded.
            out: filtered pixels of the inside, overwritten: float32, or uint8, to which they are rounded.
            threads: default 1.
        """
        weights = self.weights_at(channels)
        above, below, left, right = (REACH - margin for margin in margins)
        padded = np.pad(image, ((0, 0), (above, below), (left, right)), mode="reflect")
        height, width = out.shape[1:]
        rows = max(1, STRIP_PIXELS // width)

        def correct(top: int) -> None:
            strip = out[:, top : top + rows]
            self.kernel(np.ascontiguousarray(padded[:, top : top + strip.shape[1] + 2 * REACH]), weights, strip)

        tops = range(0, height, rows)
        if threads == 1:
            for top in tops:
                correct(top)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(correct, tops))


def filter_and_round(decoded: Array, channels: int, filters: PostFilter | None, threads: int = 1) -> NDArray[np.uint8]:
    """Filter decoded images and round them to 8 bits.

    Args:
        decoded: (T, image_channels, H, W), float32, 0 to 255.
        channels: that were decoded.
        filters: the post-filter; None: only round.
        threads: of the post-filter. Default: 1.

    Returns:
        (T, image_channels, H, W), uint8.

    Raises:
        ModelFileError: pixels that are not finite: weights of the model are not, or are far too large.
    """
    if not np.isfinite(decoded.sum()):
        raise ModelFileError("the model decodes to pixels that are no numbers: its weights are damaged or diverged")
    if filters is not None:
        return np.stack([filters.apply_and_round(image, channels, threads) for image in decoded])
    return np.asarray(decoded.round().clip(0, 255), np.uint8)
