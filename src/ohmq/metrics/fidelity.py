r"""Fidelity to the original: PSNR, SSIM and MS-SSIM of 8-bit images, one value an image.

SSIM and MS-SSIM follow their papers: an 11x11 Gaussian window of deviation 1.5, only windows that lie inside the image,
biased variances, K = (0.01, 0.03), data range 255. SSIM equals `skimage.metrics.structural_similarity(...,
gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)`. Libraries that pad the borders give
other values, much higher ones for digits on a black ground.

Plain numpy in float64: the values do not depend on the number of threads, and no second thread pool competes with the
model's.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["MS_SSIM_MIN_SIDE", "SSIM_MIN_SIDE", "ms_ssim", "psnr_db", "psnr_db_batch", "ssim"]

Pixels = Any
"""A uint8 numpy array or torch tensor."""
Floats = NDArray[np.float64]

WINDOW, SIGMA = 11, 1.5
"""Side and standard deviation of the Gaussian window, in pixels."""
SSIM_MIN_SIDE = WINDOW
"""Least side of an image that has an SSIM, in pixels."""
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the scales of MS-SSIM, the full resolution first."""
MS_SSIM_MIN_SIDE = WINDOW * 2 ** (len(MS_SSIM_WEIGHTS) - 1)
"""Least side of an image that has an MS-SSIM, 176 pixels: the window must fit into the smallest scale."""
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
"""Constants that stabilise SSIM, squared grey levels."""
CHUNK_VALUES = 1 << 18
"""Values of small images processed at once: 2 MB a map, about the size of a cache."""


def pixel_pair(reference: Pixels, decoded: Pixels) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Convert both images to numpy arrays.

    Raises:
        TypeError: not 8 bits.
        ValueError: shapes differ, or no pixel.
    """
    pair = tuple(array if isinstance(array, np.ndarray) else np.asarray(array.cpu()) for array in (reference, decoded))
    for array in pair:
        if array.dtype != np.uint8:
            raise TypeError(f"pixels are {array.dtype}; metrics are defined on 8-bit images (uint8)")
    if pair[0].shape != pair[1].shape or pair[0].size == 0:
        raise ValueError(f"shapes {pair[0].shape} and {pair[1].shape} must be equal and not empty")
    return pair[0], pair[1]


def psnr_db(reference: Pixels, decoded: Pixels) -> float:
    r"""Measure the peak signal-to-noise ratio of one image, in dB; infinite for equal images.

    $$ \mathrm{PSNR} = 10 \log_{10} \frac{255^2}{\mathrm{MSE}} $$

    Args:
        reference: original image, numpy array or tensor.
        decoded: decoded image, numpy array or tensor.

    Shape:
        reference, decoded: any, equal, uint8; the error is averaged over all values.

    Raises:
        TypeError: not uint8.
        ValueError: shapes differ, or are empty.

    Example:
        >>> black, grey = np.zeros((8, 8), np.uint8), np.full((8, 8), 51, np.uint8)
        >>> round(psnr_db(black, grey), 4)
        13.9794
    """
    reference, decoded = pixel_pair(reference, decoded)
    return float(psnr_db_batch(reference[None], decoded[None])[0])


def psnr_db_batch(reference: Pixels, decoded: Pixels) -> Floats:
    """Measure the PSNR of each image of a batch, in dB; infinite where images are equal. See `psnr_db`.

    Args:
        reference: original images.
        decoded: decoded images.

    Shape:
        reference, decoded: (N, ...), uint8.
        Returns: (N,), float64.

    Raises:
        TypeError: not uint8.
        ValueError: shapes differ, or are empty.
    """
    reference, decoded = pixel_pair(reference, decoded)
    errors = [np.square(a.astype(np.int32) - b).mean() for a, b in zip(reference, decoded, strict=True)]
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 / np.array(errors, np.float64))


FILTER_ROWS = 16
"""Rows filtered at a time, so that they stay in cache."""


def _filter(maps: Floats) -> Floats:
    """Average over the Gaussian windows inside each map, (H, W, ...) to (H - 10, W - 10, ...)."""
    weights = np.exp(-np.square(np.arange(WINDOW) - WINDOW // 2) / (2 * SIGMA**2))
    weights /= weights.sum()
    height, width = maps.shape[0] - WINDOW + 1, maps.shape[1] - WINDOW + 1
    means = np.empty((height, width, *maps.shape[2:]))
    rows = np.empty((FILTER_ROWS, *maps.shape[1:]))
    product = np.empty_like(rows)
    for start in range(0, height, FILTER_ROWS):
        count = min(FILTER_ROWS, height - start)
        for shift, weight in enumerate(weights):
            _add(maps[start + shift : start + shift + count], weight, rows[:count], product, first=shift == 0)
        for shift, weight in enumerate(weights):
            target = means[start : start + count]
            _add(rows[:count, shift : shift + width], weight, target, product, first=shift == 0)
    return means


def _add(values: Floats, weight: float, total: Floats, product: Floats, *, first: bool) -> None:
    """Add weight * values to total, or set total to it; product is a work buffer."""
    if first:
        np.multiply(values, weight, out=total)
    else:
        total += np.multiply(values, weight, out=product[: values.shape[0], : values.shape[1]])


class _Similarity(NamedTuple):
    """Means over the windows of each channel: SSIM, and its contrast-structure factor, both (N, C)."""

    ssim: Floats
    contrast_structure: Floats


def _similarity(x: Floats, y: Floats) -> _Similarity:
    """Measure the structural similarity of images in 0..255, (H, W, N, C), over the windows inside the image."""
    mean_x, mean_y, squares, xy = (_filter(maps) for maps in (x, y, x * x + y * y, x * y))
    means, mean_squares = mean_x * mean_y, mean_x**2 + mean_y**2
    contrast_structure = (2 * (xy - means) + C2) / (squares - mean_squares + C2)
    luminance = (2 * means + C1) / (mean_squares + C1)
    return _Similarity((luminance * contrast_structure).mean((0, 1)), contrast_structure.mean((0, 1)))


def _per_image(
    reference: Pixels, decoded: Pixels, min_side: int, measure: Callable[[Floats, Floats], Floats]
) -> Floats:
    """Apply `measure` in chunks to (N, H, W) or (N, C, H, W) images; NaN where a side is shorter than `min_side`."""
    reference, decoded = pixel_pair(reference, decoded)
    if reference.ndim not in (3, 4):
        raise ValueError(f"shape {reference.shape}; expected (N, H, W) or (N, C, H, W)")
    if min(reference.shape[-2:]) < min_side:
        return np.full(len(reference), np.nan)
    if reference.ndim == 3:
        reference, decoded = reference[:, None], decoded[:, None]
    step = max(1, CHUNK_VALUES // reference[0].size)
    values = []
    for i in range(0, len(reference), step):  # batch and channels innermost: long loops for digits, too
        x, y = (images[i : i + step].transpose(2, 3, 0, 1).astype(np.float64, "C") for images in (reference, decoded))
        values.append(measure(x, y))
    return np.concatenate(values)


def ssim(reference: Pixels, decoded: Pixels) -> Floats:
    r"""Measure the structural similarity of each image, the mean over windows and channels; 1 for equal images.

    $$ \mathrm{SSIM} = \frac{(2\mu_x\mu_y + C_1)(2\sigma_{xy} + C_2)}
    {(\mu_x^2 + \mu_y^2 + C_1)(\sigma_x^2 + \sigma_y^2 + C_2)} $$

    Args:
        reference: original images.
        decoded: decoded images.

    Shape:
        reference, decoded: (N, H, W) or (N, C, H, W), uint8.
        Returns: (N,), float64; NaN if a side is shorter than 11.

    Raises:
        TypeError: not uint8.
        ValueError: shapes differ, are empty, or have other axes.

    References: Wang, Bovik, Sheikh, Simoncelli, Image quality assessment: from error visibility to structural
        similarity, 2004.
    """
    return _per_image(reference, decoded, SSIM_MIN_SIDE, lambda x, y: _similarity(x, y).ssim.mean(1))


def ms_ssim(reference: Pixels, decoded: Pixels) -> Floats:
    r"""Measure the multi-scale structural similarity of each image: five scales, each half the size of the one before.

    $$ \mathrm{MS\text{-}SSIM} = \mathrm{SSIM}_5^{w_5} \prod_{j=1}^{4} \mathrm{CS}_j^{w_j} $$

    CS is SSIM without its luminance factor; negative factors count as 0. Taken in each channel, then averaged. The
    published figures of the OHM paper raise SSIM_5 to 4 w_5 and are therefore lower: they do not compare with these.

    Args:
        reference: original images.
        decoded: decoded images.

    Shape:
        reference, decoded: (N, H, W) or (N, C, H, W), uint8.
        Returns: (N,), float64; NaN if a side is shorter than 176.

    Raises:
        TypeError: not uint8.
        ValueError: shapes differ, are empty, or have other axes.

    References: Wang, Simoncelli, Bovik, Multi-scale structural similarity for image quality assessment, 2003.
    """
    return _per_image(reference, decoded, MS_SSIM_MIN_SIDE, _ms_ssim)


def _ms_ssim(x: Floats, y: Floats) -> Floats:
    product = np.ones(x.shape[2:])
    for weight in MS_SSIM_WEIGHTS[:-1]:
        product *= _similarity(x, y).contrast_structure.clip(0) ** weight
        x, y = _halve(x), _halve(y)
    return (product * _similarity(x, y).ssim.clip(0) ** MS_SSIM_WEIGHTS[-1]).mean(1)


def _halve(images: Floats) -> Floats:
    """Average 2x2 pixels; an odd last row or column is left out."""
    images = images[: len(images) // 2 * 2, : images.shape[1] // 2 * 2]
    rows = images[::2] + images[1::2]
    return (rows[:, ::2] + rows[:, 1::2]) / 4
