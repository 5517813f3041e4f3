"""Large pictures, window by window: which windows there are, and what each must see around it.

A transform that runs on a window with the true neighbours as far as it sees gives, inside, what it gives on the whole.
"""

from typing import NamedTuple

from torch import nn

from ohmq.models.photo import BLOCK, ChannelGain

__all__ = ["WINDOW", "Window", "analysis_halo", "synthesis_halo", "windows"]

WINDOW = 128
"""Latent positions of a window, each side: 2048 pixels."""
_POINTWISE = (nn.ReLU, nn.Identity, ChannelGain)


class Window(NamedTuple):
    """A rectangle of the latent grid, in positions: rows ``top`` to ``bottom`` - 1, columns ``left`` to ``right`` - 1."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def rows(self) -> slice:
        """Its rows."""
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        """Its columns."""
        return slice(self.left, self.right)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.bottom - self.top, self.right - self.left

    def widened(self, halo: int, height: int, width: int) -> "Window":
        """With ``halo`` positions more on each side, as far as the grid of height x width goes."""
        top, left = max(0, self.top - halo), max(0, self.left - halo)
        return Window(top, left, min(height, self.bottom + halo), min(width, self.right + halo))

    def within(self, outer: "Window") -> "Window":
        """The same rectangle, counted from the corner of an outer one."""
        rows, columns = outer.top, outer.left
        return Window(self.top - rows, self.left - columns, self.bottom - rows, self.right - columns)


def windows(height: int, width: int, side: int) -> list[Window]:
    """The windows of a grid, in raster order, ``side`` positions each side; the last ones are smaller.

    Example:
        >>> windows(2, 3, 2)
        [Window(top=0, left=0, bottom=2, right=2), Window(top=0, left=2, bottom=2, right=3)]
    """
    return [
        Window(top, left, min(height, top + side), min(width, left + side))
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]


def analysis_halo(transform: nn.Module) -> int:
    """How many positions around a window an analysis transform needs.

    Raises:
        TypeError: a layer of which it is not known how far it sees.
    """
    low, high = _seen(transform, 0, 0)
    return max(-(low // BLOCK), high // BLOCK)


def synthesis_halo(transform: nn.Module) -> int:
    """The same for a synthesis transform."""
    low, high = _seen(transform, 0, BLOCK - 1)
    return max(-low, high)


def _seen(transform: nn.Module, low: int, high: int) -> tuple[int, int]:
    """The first and the last input sample that output samples low to high depend on; layers follow each other."""
    for layer in reversed([layer for layer in transform.modules() if not list(layer.children())]):
        if isinstance(layer, nn.ConvTranspose2d):
            (size, _), (stride, _), padding = layer.kernel_size, layer.stride, int(layer.padding[0])
            low, high = -((size - 1 - padding - low) // stride), (high + padding) // stride
        elif isinstance(layer, nn.Conv2d):
            (size, _), (stride, _), padding = layer.kernel_size, layer.stride, int(layer.padding[0])
            low, high = low * stride - padding, high * stride - padding + size - 1
        elif isinstance(layer, nn.PixelShuffle):
            low, high = low // layer.upscale_factor, high // layer.upscale_factor
        elif not isinstance(layer, _POINTWISE):
            raise TypeError(f"how far a layer {type(layer).__name__} sees is not known")
    return low, high
