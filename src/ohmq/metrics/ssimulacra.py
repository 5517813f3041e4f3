r"""SSIMULACRA2, a perceptual score of decoded images: 100 for equal images, about 90 where no difference can be seen.

Follows version 2.1 of the tool `ssimulacra2` of libjxl step by step. Scores up to 80 are those of the tool of libjxl 0.11.2
within 0.06; near 90 they are up to 0.3 higher, because the tool's recursive blur loses precision in smooth areas. The Python
package `ssimulacra2` 0.3.0 blurs with other taps and mirrors the image at its upper and lower borders, where libjxl has zeros:
its scores of photographs of half a megapixel differ by up to 1 above 60, by 3 to 7 near 0, and more for smaller images.

References: Sneyers, SSIMULACRA 2 (2022, weights of April 2023), https://github.com/cloudinary/ssimulacra2; Charalampidis,
Recursive implementation of the Gaussian filter using truncated cosine functions, 2016.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmq.metrics.fidelity import pixel_pair

__all__ = ["SSIMULACRA2_MIN_SIDE", "Ssimulacra2", "ssimulacra2"]

Floats = NDArray[np.float32]

SSIMULACRA2_MIN_SIDE = 8
"""Least side of an image that has a SSIMULACRA2 score, in pixels."""

SCALES = 6
"""Number of scales, each half the size of the one before."""
C2 = np.float32(0.0009)
"""Constant that stabilises the structure of SSIM."""
BLUR_TAPS = (0.2646211055, 0.2129285920, 0.1093353728, 0.0360111147, 0.0094143678)
"""Weights of the middle pixel and of those 1 to 4 pixels away in the blur: the exact impulse response of Charalampidis'
recursive filter for a standard deviation of 1.5, which libjxl runs."""
BAND_ROWS = 24
"""Rows blurred at a time, so that they stay in cache."""

OPSIN_ABSORBANCE = np.array(
    [
        [0.30, 0.622, 0.078],
        [0.23, 0.692, 0.078],
        [0.24342268924547819, 0.20476744424496821, 0.5518098665095536],
    ],
    np.float32,
)
"""Absorbance of the three receptors of XYB (rows) for linear red, green and blue."""
OPSIN_BIAS = np.float32(0.0037930732552754493)

WEIGHTS = (
    # X
    0.0, 0.0007376606707406586, 0.0, 0.0, 0.0007793481682867309, 0.0,
    0.0, 0.0004371155730107379, 0.0, 1.1041726426657346, 0.00066284834129271, 0.00015231632783718752,
    0.0, 0.0016406437456599754, 0.0, 1.8422455520539298, 11.441172603757666, 0.0,
    0.0007989109436015163, 0.000176816438078653, 0.0, 1.8787594979546387, 10.94906990605142, 0.0,
    0.0007289346991508072, 0.9677937080626833, 0.0, 0.00014003424285435884, 0.9981766977854967, 0.00031949755934435053,
    0.0004550992113792063, 0.0, 0.0, 0.0013648766163243398, 0.0, 0.0,
    # Y
    0.0, 0.0, 0.0, 7.466890328078848, 0.0, 17.445833984131262,
    0.0006235601634041466, 0.0, 0.0, 6.683678146179332, 0.00037724407979611296, 1.027889937768264,
    225.20515300849274, 0.0, 0.0, 19.213238186143016, 0.0011401524586618361, 0.001237755635509985,
    176.39317598450694, 0.0, 0.0, 24.43300999870476, 0.28520802612117757, 0.0004485436923833408,
    0.0, 0.0, 0.0, 34.77906344483772, 44.835625328877896, 0.0,
    0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
    # B - Y
    0.0, 0.0008680556573291698, 0.0, 0.0, 0.0, 0.0,
    0.0, 0.0005313191874358747, 0.0, 0.00016533814161379112, 0.0, 0.0,
    0.0, 0.0, 0.0, 0.0004179171803251336, 0.0017290828234722833, 0.0,
    0.0020827005846636437, 0.0, 0.0, 8.826982764996862, 23.19243343998926, 0.0,
    95.1080498811086, 0.9863978034400682, 0.9834382792465353, 0.0012286405048278493, 171.2667255897307, 0.9807858872435379,
    0.0, 0.0, 0.0, 0.0005130064588990679, 0.0, 0.00010854057858411537,
)  # fmt: skip
"""Weights by channel, scale (a line), norm (mean, 4-norm) and error (structure, ringing, blur)."""


def _linear_table() -> Floats:
    """Tabulate the linear light of the 256 values of sRGB."""
    values = np.arange(256) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


LINEAR = _linear_table()


def ssimulacra2(reference: Any, decoded: Any) -> float:
    r"""Measure the SSIMULACRA2 score of one image; 100 for equal images, and less, down to below 0, for worse ones.

    About 30 is low, 50 medium, 70 high and 90 very high quality. Errors of structure, of ringing and of blur in the
    colour space XYB at six scales, two norms of each, are summed with weights that fit the scores to people's opinions:

    $$ \mathrm{SSIMULACRA2} = 100 - 10\,f\Bigl(\sum_i w_i \lVert e_i \rVert_{p_i}\Bigr) $$

    Images of less than 256 pixels a side have fewer scales, as in libjxl. To score many decoded images of one original,
    `Ssimulacra2` is faster.

    Args:
        reference: original image in sRGB, numpy array or tensor.
        decoded: decoded image.

    Shape:
        reference, decoded: (H, W) or (H, W, 3), uint8.

    Returns:
        The score; NaN if a side is shorter than 8.

    Raises:
        TypeError: not uint8.
        ValueError: shapes differ, are empty, or have other axes.

    References: Sneyers, SSIMULACRA 2, 2022.

    Example:
        >>> grey = np.full((16, 16, 3), 128, np.uint8)
        >>> ssimulacra2(grey, grey)
        100.0
    """
    pixel_pair(reference, decoded)
    return Ssimulacra2(reference).score(decoded)


class Ssimulacra2:
    """The SSIMULACRA2 scores of decoded images of one original, whose part of the work is done once.

    Args:
        reference: original image in sRGB, numpy array or tensor. It takes about 32 bytes a pixel.

    Shape:
        reference: (H, W) or (H, W, 3), uint8.

    Raises:
        TypeError: not uint8.
        ValueError: the shape is empty, or has other axes.
    """

    def __init__(self, reference: Any) -> None:
        self._reference, _ = pixel_pair(reference, reference)
        if self._reference.ndim not in (2, 3) or (self._reference.ndim == 3 and self._reference.shape[2] != 3):
            raise ValueError(f"shape {self._reference.shape}; expected (H, W) or (H, W, 3)")
        self._scales = [(planes, _blur(planes)) for planes in _xyb_scales(self._reference)]

    def score(self, decoded: Any) -> float:
        """Measure the score of a decoded image; see `ssimulacra2`.

        Args:
            decoded: decoded image, of the shape of the original.

        Raises:
            TypeError: not uint8.
            ValueError: another shape than the original's.
        """
        _, pixels = pixel_pair(self._reference, decoded)
        if not self._scales:
            return float("nan")
        scales = zip(self._scales, _xyb_scales(pixels), strict=True)
        errors = np.stack([_scale_errors(*original, planes) for original, planes in scales], axis=1)
        return _score(float(errors.ravel() @ np.array(WEIGHTS[: errors.size])))


def _score(error: float) -> float:
    """Map the weighted sum of the errors to a score."""
    error *= 0.9562382616834844
    error = 2.326765642916932 * error - 0.020884521182843837 * error**2 + 6.248496625763138e-05 * error**3
    return 100 - 10 * error**0.6276336467831387 if error > 0 else 100.0


def _xyb_scales(pixels: NDArray[np.uint8]) -> list[Floats]:
    """Convert an image to positive XYB at each scale, (3, H, W); scales are averaged in linear light."""
    linear = LINEAR[np.broadcast_to(pixels, (3, *pixels.shape)) if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)]
    planes: list[Floats] = []
    while (
        len(planes) < SCALES and min(linear.shape[1:] if not planes else planes[-1].shape[1:]) >= SSIMULACRA2_MIN_SIDE
    ):
        if planes:
            linear = _halve(linear)
        planes.append(_positive_xyb(linear))
    return planes


def _halve(linear: Floats) -> Floats:
    """Average 2x2 pixels; an odd last row or column is repeated."""
    height, width = linear.shape[1:]
    if height % 2 or width % 2:
        linear = np.pad(linear, ((0, 0), (0, height % 2), (0, width % 2)), "edge")
    rows = linear[:, ::2] + linear[:, 1::2]
    return np.asarray((rows[..., ::2] + rows[..., 1::2]) * np.float32(0.25))


def _positive_xyb(linear: Floats) -> Floats:
    """Convert linear RGB to XYB, (3, H, W), scaled and shifted to about 0 to 1, with B - Y in the place of B."""
    mixed = np.empty_like(linear)
    for row, plane in zip(OPSIN_ABSORBANCE, mixed, strict=True):
        np.multiply(linear[0], row[0], out=plane)
        plane += linear[1] * row[1]
        plane += linear[2] * row[2]
    mixed += OPSIN_BIAS
    np.cbrt(mixed, out=mixed)
    mixed -= np.cbrt(OPSIN_BIAS)
    x, y = (mixed[0] - mixed[1]) / 2, (mixed[0] + mixed[1]) / 2
    mixed[0] = x * 14 + np.float32(0.42)
    mixed[2] += np.float32(0.55) - y
    mixed[1] = y + np.float32(0.01)
    return mixed


def _blur(planes: Floats) -> Floats:
    """Blur (..., H, W) with the Gaussian filter of nine taps; there are zeros beyond the borders."""
    reach = len(BLUR_TAPS) - 1
    taps = np.array(BLUR_TAPS, np.float32)
    height, width = planes.shape[-2:]
    blurred = np.empty_like(planes)
    for plane, target in zip(planes.reshape(-1, height, width), blurred.reshape(-1, height, width), strict=True):
        padded = np.zeros((height + 2 * reach, width), np.float32)
        padded[reach:-reach] = plane
        rows = np.zeros((BAND_ROWS, width + 2 * reach), np.float32)
        pair, product = np.empty((2, BAND_ROWS, width), np.float32)
        for top in range(0, height, BAND_ROWS):
            n = min(BAND_ROWS, height - top)
            inner = rows[:n, reach:-reach]
            np.multiply(padded[top + reach : top + reach + n], taps[0], out=inner)
            for k in range(1, reach + 1):
                first = top + reach
                np.add(padded[first - k : first - k + n], padded[first + k : first + k + n], out=pair[:n])
                inner += np.multiply(pair[:n], taps[k], out=product[:n])
            out = target[top : top + n]
            np.multiply(inner, taps[0], out=out)
            for k in range(1, reach + 1):
                left, right = rows[:n, reach - k : reach - k + width], rows[:n, reach + k : reach + k + width]
                np.add(left, right, out=pair[:n])
                out += np.multiply(pair[:n], taps[k], out=product[:n])
    return blurred


def _scale_errors(original: Floats, original_mean: Floats, decoded: Floats) -> NDArray[np.float64]:
    """Measure the errors of one scale, (3, 6): mean, then 4-norm, of structure, ringing and blur."""
    table = np.empty((3, 2, 3))
    for channel, (a, mean_a, b) in enumerate(zip(original, original_mean, decoded, strict=True)):
        mean_b, squares, product = _blur(b), _blur(a * a + b * b), _blur(a * b)
        means = mean_a * mean_b
        structure = 2 * (product - means) + C2
        structure /= squares - (mean_a * mean_a + mean_b * mean_b) + C2
        structure *= 1 - np.square(mean_a - mean_b)
        np.subtract(1, structure, out=structure)
        edges = (1 + np.abs(b - mean_b)) / (1 + np.abs(a - mean_a)) - 1
        for number, error in enumerate((structure, edges, -edges)):
            np.maximum(error, 0, out=error)
            table[channel, 0, number] = error.mean(dtype=np.float64)
            table[channel, 1, number] = np.square(np.square(error)).mean(dtype=np.float64) ** 0.25
    return table.reshape(3, 6)
