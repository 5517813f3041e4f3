"""src/ohmq/runtime/windowed.py."""

import numpy as np

from ohmq.geometry import Window
from ohmq.models.config import BLOCK
from ohmq.runtime.latents import Array

__all__ = ["DEFAULT_TILE", "TILE_ABOVE"]

TILE_ABOVE = 2**23
"""Pictures of more pixels are coded in tiles; compressing one of so many in one piece takes 1.7 GiB, twice as many twice that."""
DEFAULT_TILE = 128
"""Latent positions of a tile, each side: 2048 pixels."""


def _box(window: Window, width: int, height: int) -> tuple[int, int, int, int]:
    """The pixels of a window of a picture of this size: left, upper, right, lower."""
    right, lower = min(width, window.right * BLOCK), min(height, window.bottom * BLOCK)
    return window.left * BLOCK, window.top * BLOCK, right, lower


def _tiles(pixels: Array, tile: tuple[int, int]) -> Array:
    """A picture (H, W) or (H, W, 3) as tiles (T, channels, th, tw), the edge repeated to fill the last ones."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    height, width, channels = pixels.shape
    padded = np.pad(pixels, ((0, -height % tile[0]), (0, -width % tile[1]), (0, 0)), mode="edge")
    rows, columns = padded.shape[0] // tile[0], padded.shape[1] // tile[1]
    blocks = padded.reshape(rows, tile[0], columns, tile[1], channels).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(blocks).reshape(rows * columns, channels, *tile)
