"""Large pictures, window by window.

A transform that runs on a window with the true neighbours as far as it sees gives, inside, what it gives on the whole.
"""

from typing import NamedTuple

__all__ = ["WINDOW", "Window", "windows"]

WINDOW = 128
"""Latent positions of a window, each side: 2048 pixels."""


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
