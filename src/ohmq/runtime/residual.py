"""Residual of a decoded image: what it lacks of the original, as quantized levels of a block transform.

The transform is the cosine transform of blocks of 8x8 pixels in three orthogonal colours. Its steps grow with the frequency, so
that the error is where eyes see it least; for squared error this costs next to nothing (docs/experiments/residual.md).
"""

import math
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmq.bitstream.format import STEPS_A_LEVEL, ResidualInfo
from ohmq.entropy.residual_coder import BLOCKS, CHANNELS, LARGEST_LEVEL, SIDE
from ohmq.geometry import Window

__all__ = ["Residual", "residual_levels"]

ROUNDING = 0.4
"""Added to a magnitude in steps before it is rounded down: smaller levels take fewer bits than rounding to the nearest gains."""
GROWTH = 2 / 7
"""Growth of the step with the sum of both frequencies, relative to the lowest."""
COLOUR = 1.5
"""Factor on the step of the two colour differences."""
STRIP = 8
"""Rows of blocks that are transformed at once: they stay in cache."""

_COLOURS = (np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3.0], [2.0], [6.0]])).astype(np.float32)
"""Orthonormal colours: sum, red minus blue, red and blue minus green; (3, RGB)."""


@cache
def _basis() -> NDArray[np.float32]:
    """Return the cosine transform of a block, (64 frequencies, 64 pixels), orthonormal."""
    places = np.arange(SIDE)
    cosines = np.sqrt(2 / SIDE) * np.cos(np.pi * np.outer(places, 2 * places + 1) / (2 * SIDE))
    cosines[0] /= math.sqrt(2)
    return np.kron(cosines, cosines).astype(np.float32)


@cache
def _order() -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return for each channel its place among 3 · 64 coefficients (colour, frequency), and its step relative to the lowest."""
    places = [SIDE * SIDE * channel.colour + SIDE * channel.row + channel.column for channel in CHANNELS]
    steps = [(1 + GROWTH * channel.diagonal) * (COLOUR if channel.colour else 1) for channel in CHANNELS]
    return np.array(places), np.array(steps, np.float32)


class Residual(NamedTuple):
    """The residual of an image.

    Attributes:
        info: its step, and the decoder whose image it corrects.
        levels: (channels, 2 h, 2 w), int16, of the blocks of the image's h x w latent positions; at least the channels that
            are used.
    """

    info: ResidualInfo
    levels: NDArray[np.int16]

    def added_to(self, pixels: NDArray[np.uint8], place: Window, channels: int) -> NDArray[np.uint8]:
        """Correct a decoded part of the image.

        Args:
            pixels: (height, width, 3), decoded; they end where the window or the image ends.
            place: window of the latent grid that the pixels are of.
            channels: the number of leading channels that count.

        Returns:
            (height, width, 3).
        """
        places, steps = _order()
        scale = steps[:channels, None, None] * np.float32(self.info.step / STEPS_A_LEVEL)
        out = np.empty_like(pixels)
        for window, rows, columns in _strips(place, pixels.shape[:2]):
            levels = self.levels[:channels, window.top : window.bottom, window.left : window.right]
            height, width = levels.shape[1:]
            coefficients = np.zeros((3 * SIDE * SIDE, height, width), np.float32)
            coefficients[places[:channels]] = levels * scale
            blocks = coefficients.reshape(3, SIDE * SIDE, -1).transpose(0, 2, 1) @ _basis()
            image = (
                (blocks.reshape(3, -1).T @ _COLOURS)
                .reshape(height, width, SIDE, SIDE, 3)
                .swapaxes(1, 2)
                .reshape(height * SIDE, width * SIDE, 3)
            )
            part = image[: rows.stop - rows.start, : columns.stop - columns.start]
            part += pixels[rows, columns]
            out[rows, columns] = np.clip(np.rint(part, out=part), 0, 255)
        return out


def residual_levels(
    original: NDArray[np.uint8], decoded: NDArray[np.uint8], step: int, place: Window
) -> NDArray[np.int16]:
    """Transform and quantize the residual of a part of an image.

    Args:
        original: (height, width, 3); it ends where the window or the image ends.
        decoded: the same part as the decoder gives it.
        step: as in `ResidualInfo`.
        place: window of the latent grid.

    Returns:
        Levels of all channels, (192, 2 h, 2 w).
    """
    places, steps = _order()
    scale = 1 / (steps[:, None, None] * np.float32(step / STEPS_A_LEVEL))
    levels = np.zeros((len(CHANNELS), *(BLOCKS * side for side in place.shape)), np.int16)
    for window, rows, columns in _strips(place, original.shape[:2]):
        difference = original[rows, columns].astype(np.float32) - decoded[rows, columns]
        # Blocks beyond the image stay zero; those at its border continue its last pixels.
        padding = [(0, -side % SIDE) for side in difference.shape[:2]]
        padded = np.pad(difference, (*padding, (0, 0)), mode="edge")
        height, width = window.shape
        blocks = padded.reshape(height, SIDE, width, SIDE, 3).transpose(4, 0, 2, 1, 3)
        colours = (_COLOURS @ blocks.reshape(3, -1)).reshape(3, -1, SIDE * SIDE)
        coefficients = (colours @ _basis().T).transpose(0, 2, 1).reshape(3 * SIDE * SIDE, height, width)
        scaled = coefficients[places] * scale
        magnitudes = np.minimum(np.floor(np.abs(scaled) + np.float32(ROUNDING)), LARGEST_LEVEL)
        top, left = window.top - BLOCKS * place.top, window.left - BLOCKS * place.left
        levels[:, top : top + height, left : left + width] = np.copysign(magnitudes, scaled)
    return levels


def _strips(place: Window, shape: tuple[int, ...]) -> Iterator[tuple[Window, slice, slice]]:
    """Divide a part of an image into strips.

    Yields the window of blocks in the image, and the rows and columns of pixels in the part.
    """
    top, left = BLOCKS * place.top, BLOCKS * place.left
    for row in range(0, -(-shape[0] // SIDE), STRIP):
        rows = slice(row * SIDE, min((row + STRIP) * SIDE, shape[0]))
        bottom = top + -(-rows.stop // SIDE)
        yield Window(top + row, left, bottom, left + -(-shape[1] // SIDE)), rows, slice(0, shape[1])
