r"""Quality from 0 to 100: a number of channels for each image, so that equal numbers look about equally good.

The scale is that of SSIMULACRA2, a perceptual score: quality q aims at q % of the score that files of all channels have on
average. An encoder has no time to measure that score, so it decodes a plain choice of symbols once, as a probe, and predicts
the score $s_n$ at n channels from two errors of the probe, the structure error e and the squared error d:

$$ s_n = a_n + b_n \log e + c_n \log d $$

`tools/calibrate_quality.py` fits the coefficients to training photographs.

References: Sneyers, SSIMULACRA 2 (2022), https://github.com/cloudinary/ssimulacra2.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmq.metrics.fidelity import C1, C2

__all__ = ["ProbeErrors", "QualityScale", "measure_probe"]

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue (ITU-R BT.601)."""
CELL, CELLS = 4, 4
"""Side in pixels of a cell, and side in cells of a block, whose structure is compared."""
LEAST_ERROR = 1e-6
"""Lower bound of an error before its logarithm."""


class ProbeErrors(NamedTuple):
    """Errors of a decoded probe.

    Attributes:
        structure: mean over blocks of 16x16 pixels of $\\sqrt{1 - \\mathrm{SSIM}}$ of luma, averaged over cells of 4x4 pixels.
        squared: mean squared error of the colours, in squared grey levels.
    """

    structure: float
    squared: float


def measure_probe(parts: Iterable[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> ProbeErrors:
    """Measure the errors of a probe.

    Args:
        parts: original and decoded pixels of the parts of an image, (3, H, W) each; sides are multiples of 16.
    """
    structure = squared = 0.0
    blocks = pixels = 0
    for original, decoded in parts:
        x, y = original.astype(np.float32), decoded.astype(np.float32)
        squared += float(np.square(x - y).sum(dtype=np.float64))
        errors = np.sqrt(np.maximum(1 - _block_ssim(_cells(x), _cells(y)), 0))
        structure += float(errors.sum(dtype=np.float64))
        pixels, blocks = pixels + x.size, blocks + errors.size
    return ProbeErrors(structure / blocks, squared / pixels)


def _cells(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Average the luma of cells: (3, H, W) to (H / 16, 4, W / 16, 4)."""
    luma = np.tensordot(LUMA, pixels, 1)
    height, width = luma.shape
    cells = luma.reshape(height // CELL, CELL, width // CELL, CELL).mean((1, 3))
    return cells.reshape(cells.shape[0] // CELLS, CELLS, cells.shape[1] // CELLS, CELLS)


def _block_ssim(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the SSIM of each block of cells, without a window: (h, 4, w, 4) to (h, w)."""
    mean_x, mean_y = x.mean((1, 3)), y.mean((1, 3))
    centred_x, centred_y = x - mean_x[:, None, :, None], y - mean_y[:, None, :, None]
    variances = np.square(centred_x).mean((1, 3)) + np.square(centred_y).mean((1, 3))
    covariance = (centred_x * centred_y).mean((1, 3))
    luminance = (2 * mean_x * mean_y + C1) / (np.square(mean_x) + np.square(mean_y) + C1)
    return np.asarray(luminance * (2 * covariance + C2) / (variances + C2), np.float32)


@dataclass(frozen=True)
class QualityScale:
    """The quality scale of one model.

    Args:
        probe_channels: the number of channels of the probe.
        best_score: the mean SSIMULACRA2 score of files of all channels; quality 100.
        ranges: least and largest logarithm of either error that calibration saw, (2, 2); others are clipped.
        channels: numbers of channels whose score is predicted, ascending, (n,); the last one is all channels.
        coefficients: a, b and c of each, (n, 3).
    """

    probe_channels: int
    best_score: float
    ranges: NDArray[np.float64]
    channels: NDArray[np.int64]
    coefficients: NDArray[np.float64]

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "QualityScale":
        """Build the scale from the table that ``tools/calibrate_quality.py`` writes.

        Args:
            table: content of the JSON file.
        """
        return cls(
            table["probe_channels"],
            table["best_score"],
            np.asarray(table["ranges"]),
            np.asarray([point["channels"] for point in table["points"]]),
            np.asarray([point["coefficients"] for point in table["points"]]),
        )

    def score(self, quality: float) -> float:
        """Return the SSIMULACRA2 score at which a quality aims.

        Args:
            quality: 0 to 100.
        """
        return quality / 100 * self.best_score

    def predicted_scores(self, errors: ProbeErrors) -> NDArray[np.float64]:
        """Predict the SSIMULACRA2 scores of an image at the numbers of channels of the scale, not descending.

        Args:
            errors: of its probe.

        Returns:
            (n,).
        """
        logs = np.clip([math.log(max(error, LEAST_ERROR)) for error in errors], self.ranges[:, 0], self.ranges[:, 1])
        return np.asarray(np.maximum.accumulate(self.coefficients @ np.array([1.0, *logs])))

    def channel_count(self, quality: float, errors: ProbeErrors) -> int:
        """Return the number of channels that an image needs for a quality; more quality never gives fewer channels.

        Args:
            quality: 0 to 100; 100 gives all channels.
            errors: of its probe.
        """
        if quality == 100:
            return int(self.channels[-1])
        scores = self.predicted_scores(errors) + np.arange(len(self.channels)) * 1e-9  # ascending, for np.interp
        return math.ceil(np.interp(self.score(quality), scores, self.channels) - 1e-6)
