"""Windows of a grid of latent positions, for images that are processed window by window.

A transform that runs on a window widened by its receptive field gives, inside the window, the same as on the whole image.
"""

from typing import NamedTuple

__all__ = ["WINDOW", "Window", "windows"]

WINDOW = 128
"""Latent positions of a side of a window: 2048 pixels."""


class Window(NamedTuple):
    """Rectangle of the latent grid, in positions.

    Attributes:
        top: first row.
        left: first column.
        bottom: row after the last.
        right: column after the last.
    """

    top: int
    left: int
    bottom: int
    right: int

    @property
    def rows(self) -> slice:
        """Rows of the window."""
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        """Columns of the window."""
        return slice(self.left, self.right)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of columns."""
        return self.bottom - self.top, self.right - self.left

    def widened(self, halo: int, height: int, width: int) -> "Window":
        """Return the window with ``halo`` positions more on each side, clipped to a grid of height x width.

        Args:
            halo: positions to add on each side.
            height: of the grid, in positions.
            width: of the grid, in positions.
        """
        top, left = max(0, self.top - halo), max(0, self.left - halo)
        return Window(top, left, min(height, self.bottom + halo), min(width, self.right + halo))

    def within(self, outer: "Window") -> "Window":
        """Return the window in the coordinates of an outer window.

        Args:
            outer: a window that contains this one.
        """
        rows, columns = outer.top, outer.left
        return Window(self.top - rows, self.left - columns, self.bottom - rows, self.right - columns)


def windows(height: int, width: int, side: int) -> list[Window]:
    """Divide a grid into windows, in raster order; the last ones may be smaller.

    Args:
        height: positions.
        width: positions.
        side: positions of a side of a window.

    Example:
        >>> windows(2, 3, 2)
        [Window(top=0, left=0, bottom=2, right=2), Window(top=0, left=2, bottom=2, right=3)]
    """
    return [
        Window(top, left, min(height, top + side), min(width, left + side))
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]
