"""PSNR-HVS-M: PSNR of luma whose errors are masked by texture and weighted by the sensitivity of the eye."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmq.metrics.fidelity import pixel_pair

__all__ = ["PSNR_HVS_M_MIN_SIDE", "psnr_hvs_m"]

Floats = NDArray[np.float64]

BLOCK = 8
"""Side of a block, in pixels."""
PSNR_HVS_M_MIN_SIDE = BLOCK
"""Least side of an image that has a PSNR-HVS-M, in pixels."""
LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue (ITU-R BT.601)."""

JPEG_LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
"""Quantization table of JPEG for luma, by vertical and horizontal frequency."""
SENSITIVITY = 25.73509 / JPEG_LUMA
"""Contrast sensitivity of the eye by frequency."""
MASKING = 100 / JPEG_LUMA**2
"""Weight of the energy of a frequency in masking; the mean masks nothing."""


def _dct_matrix() -> Floats:
    """Build the orthonormal DCT of 8 values, a basis function a row."""
    frequency, place = np.arange(BLOCK)[:, None], np.arange(BLOCK)
    matrix = np.cos(math.pi / BLOCK * (place + 0.5) * frequency) * math.sqrt(2 / BLOCK)
    matrix[0] /= math.sqrt(2)
    return np.asarray(matrix)


DCT = _dct_matrix()


def psnr_hvs_m(reference: Any, decoded: Any) -> float:
    r"""Measure the PSNR-HVS-M of one image, in dB; infinite for equal images.

    The DCT of the error of each 8x8 block of luma is reduced by the threshold that the block's texture masks, then
    weighted by the contrast sensitivity of the eye. Nothing in `ohmq` is fitted to this metric. Blocks that are not whole,
    at the right and the lower border, are left out. Luma has the full range, 0 to 255, and is not rounded; with luma from
    16 to 235, as in the authors' figures of TID2013, values are 1.3 dB higher.

    Args:
        reference: original image in sRGB, numpy array or tensor.
        decoded: decoded image.

    Shape:
        reference, decoded: (H, W) or (H, W, 3), uint8.

    Returns:
        PSNR-HVS-M in dB; NaN if a side is shorter than 8.

    Raises:
        TypeError: not uint8.
        ValueError: shapes differ, are empty, or have other axes.

    References: Ponomarenko et al., On between-coefficient contrast masking of DCT basis functions, 2007.

    Example:
        >>> black, grey = np.zeros((8, 8), np.uint8), np.full((8, 8), 51, np.uint8)
        >>> round(psnr_hvs_m(black, grey), 4)
        9.8513
    """
    pair = pixel_pair(reference, decoded)
    if pair[0].ndim not in (2, 3) or (pair[0].ndim == 3 and pair[0].shape[2] != 3):
        raise ValueError(f"shape {pair[0].shape}; expected (H, W) or (H, W, 3)")
    if min(pair[0].shape[:2]) < PSNR_HVS_M_MIN_SIDE:
        return math.nan
    x, y = (_blocks(pixels @ LUMA if pixels.ndim == 3 else pixels.astype(np.float64)) for pixels in pair)
    x_dct, y_dct = DCT @ x @ DCT.T, DCT @ y @ DCT.T
    mask = np.maximum(_mask(x, x_dct), _mask(y, y_dct))
    thresholds = mask[:, None, None] / MASKING
    thresholds[:, 0, 0] = 0
    errors = np.maximum(np.abs(x_dct - y_dct) - thresholds, 0) * SENSITIVITY
    mean = float(np.square(errors).mean())
    return 10 * math.log10(255**2 / mean) if mean else math.inf


def _blocks(luma: Floats) -> Floats:
    """Divide luma (H, W) into whole blocks, (n, 8, 8)."""
    height, width = (side // BLOCK for side in luma.shape)
    rows = luma[: height * BLOCK, : width * BLOCK].reshape(height, BLOCK, width, BLOCK)
    return rows.swapaxes(1, 2).reshape(-1, BLOCK, BLOCK)


def _mask(blocks: Floats, dct: Floats) -> Floats:
    """Measure how much blocks mask, (n,): their energy, less where one edge holds most of it."""
    energy = np.square(dct).reshape(-1, BLOCK**2)[:, 1:] @ MASKING.ravel()[1:]
    half = BLOCK // 2
    quarters = blocks.reshape(-1, 2, half, 2, half)
    whole = blocks.var((1, 2), ddof=1) * BLOCK**2
    parts = (quarters.var((2, 4), ddof=1) * half**2).sum((1, 2))
    share = np.divide(parts, whole, out=np.zeros_like(whole), where=whole != 0)
    return np.asarray(np.sqrt(energy * share) / 32)
