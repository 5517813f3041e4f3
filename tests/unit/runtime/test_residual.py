"""The residual's transform."""

import math

import numpy as np
import pytest

from ohmq.bitstream.format import ResidualInfo
from ohmq.geometry import Window, windows
from ohmq.metrics import psnr_db
from ohmq.runtime.residual import Residual, residual_levels


def _images(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    original = rng.integers(0, 256, (height, width, 3), np.uint8)
    decoded = np.clip(original + rng.normal(0, 6, original.shape), 0, 255).astype(np.uint8)
    return original, decoded


def _whole(height: int, width: int) -> Window:
    return Window(0, 0, -(-height // 16), -(-width // 16))


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (16, 16), (37, 51), (130, 70)])
def test_a_small_step_restores_the_image(size: tuple[int, int]) -> None:
    original, decoded = _images(*size)
    levels = residual_levels(original, decoded, 8, _whole(*size))
    residual = Residual(ResidualInfo(8, b"base"), levels)
    assert levels.shape == (192, *(2 * -(-side // 16) for side in size))
    corrected = residual.added_to(decoded, _whole(*size), 192)
    assert corrected.shape == original.shape and corrected.dtype == np.uint8
    assert np.abs(corrected.astype(int) - original).max() <= 8
    if min(size) > 16:
        assert psnr_db(original, corrected) > 44
        half = residual.added_to(decoded, _whole(*size), 96)
        assert psnr_db(original, decoded) < psnr_db(original, half) < psnr_db(original, corrected)


def test_no_channels_change_nothing() -> None:
    original, decoded = _images(20, 30)
    levels = residual_levels(original, decoded, 20, _whole(20, 30))
    residual = Residual(ResidualInfo(20, b"base"), levels)
    np.testing.assert_array_equal(residual.added_to(decoded, _whole(20, 30), 0), decoded)
    np.testing.assert_array_equal(residual_levels(decoded, decoded, 8, _whole(20, 30)), 0)


def test_steps_grow_with_frequency_and_in_colours() -> None:
    """A flat difference of the colours is one level: 8 times itself in that colour, in steps, rounded at 0.6."""
    base = np.full((16, 16, 3), 100, np.uint8)
    for colour, change, step in (
        (0, (10, 10, 10), 8.0),
        (1, (10, 0, -10), 12.0),
        (2, (10, -20, 10), 12.0),
    ):
        levels = residual_levels(base + np.array(change, np.int8).astype(np.uint8), base, 64, Window(0, 0, 1, 1))
        expected = math.floor(8 * math.sqrt(np.square(change).sum()) / step + 0.4)
        assert (levels[colour] == expected).all()
        assert (np.delete(levels, colour, 0) == 0).all()
    stripes = base + np.where(np.arange(16) % 2, 20, 0).astype(np.uint8)[None, :, None]
    levels = residual_levels(stripes, base, 8, Window(0, 0, 1, 1))
    corrected = Residual(ResidualInfo(8, b"base"), levels).added_to(base, Window(0, 0, 1, 1), 192)
    assert np.abs(corrected.astype(int) - stripes).max() <= 2


def test_windows_give_the_whole() -> None:
    size = (70, 45)
    original, decoded = _images(*size)
    levels = residual_levels(original, decoded, 24, _whole(*size))
    whole = Residual(ResidualInfo(24, b"base"), levels).added_to(decoded, _whole(*size), 150)
    for part in windows(5, 3, 2):
        pixels = slice(16 * part.top, min(70, 16 * part.bottom)), slice(16 * part.left, min(45, 16 * part.right))
        blocks = slice(2 * part.top, 2 * part.bottom), slice(2 * part.left, 2 * part.right)
        np.testing.assert_array_equal(
            residual_levels(original[pixels], decoded[pixels], 24, part), levels[:, blocks[0], blocks[1]]
        )
        corrected = Residual(ResidualInfo(24, b"base"), levels).added_to(decoded[pixels], part, 150)
        np.testing.assert_array_equal(corrected, whole[pixels])


def test_the_largest_difference_has_a_level() -> None:
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    levels = residual_levels(white, black, 8, Window(0, 0, 1, 1))
    assert levels.max() == math.floor(8 * 255 * math.sqrt(3) + 0.4)
    np.testing.assert_array_equal(
        Residual(ResidualInfo(8, b"base"), levels).added_to(black, Window(0, 0, 1, 1), 192), white
    )
