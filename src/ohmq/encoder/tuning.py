r"""Tuning of the encoder: for PSNR, or for looks.

RDOQ and analysis by synthesis minimise the squared error of colours, which weighs every frequency and every place alike. Eyes,
and the metrics that model them, see errors of low luma frequencies and of calm places best. The tuning "visual" therefore
scales λ

* by channel: a bit costs less for low luma frequencies, and more for high ones and for chroma, like the quantization matrices
  of JPEG;
* by place: a bit costs more where activity masks errors, $w \propto (E + E_0)^a$ with the luma energy E of a block, like the
  adaptive quantization of x264 (there a = 0.35).

It also avoids numbers of channels that look poor for their bits, see `PoorRange`.

A decoder need not know of it.

References: Yeo, Tan and Tan, On rate distortion optimization using SSIM (2013).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmq.models.block_frequencies import block_frequencies
from ohmq.models.config import BLOCK, GREY_LEVELS
from ohmq.runtime.latents import Array, Latent, PerceptualWeights

__all__ = ["POOR_RANGES", "TUNINGS", "PoorRange", "Tuning", "luma_energy", "without_poor_ends"]

LOW_RADIUS = 6.0
"""Luma frequencies below it are low, in half periods a block of 16 pixels."""
HIGH_RADIUS = 10.0
"""Luma frequencies above it are high."""
CHROMA_RADIUS = 3.0
"""Chroma frequencies above it count as chroma; those below carry the colours of areas."""
LEAST_ENERGY = 4.0
"""Added to the luma energy of a block, in squared grey levels, so that flat blocks do not get all bits."""


class PoorRange(NamedTuple):
    """Numbers of channels between two ends that look worse for their bits than either end with another λ.

    The order of channels follows squared error: the third passes over low luma frequencies come only after the second ones
    over all high frequencies, which hardly show. A file that ends between the two has paid for the latter and lacks the former.

    Attributes:
        start: number of channels that ends before the poor ones.
        middle: number of channels that looks about as good as ``end`` with `LARGEST_LAMBDA`.
        end: number of channels that ends after them.
    """

    start: int
    middle: int
    end: int


POOR_RANGES: Mapping[str, tuple[PoorRange, ...]] = {
    "cf07d25e": (PoorRange(535, 576, 678), PoorRange(920, 930, 1000)),
}
"""Poor ranges by model id, in hexadecimal; `docs/experiments/tuning.md` has their measurement."""
SMALLEST_LAMBDA, LARGEST_LAMBDA = 0.5, 6.0
"""Factors on λ that stand for the middle of a poor range: at its start, and at its end."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Factors on λ and on errors; the defaults leave both as they are, for the best PSNR.

    Attributes:
        low_luma: factor on λ for channels of low luma frequencies.
        high_luma: factor on λ for channels of high luma frequencies.
        chroma: factor on λ for channels of chroma, without its lowest frequencies.
        activity_exponent: a, power of a block's luma energy in the factor on λ.
        error_exponent: power of a block's luma energy in the weight of its error in analysis by synthesis.
        avoids_poor_ranges: whether targets avoid numbers of channels that look poor for their bits.
    """

    low_luma: float = 1.0
    high_luma: float = 1.0
    chroma: float = 1.0
    activity_exponent: float = 0.0
    error_exponent: float = 0.0
    avoids_poor_ranges: bool = False

    def poor_ranges(self, model_id: bytes) -> tuple[PoorRange, ...]:
        """Return the ranges of a model's numbers of channels that targets avoid.

        Args:
            model_id: bitstream id of the model.
        """
        return POOR_RANGES.get(model_id.hex(), ()) if self.avoids_poor_ranges else ()

    def apply(self, latent: Latent, project: Array) -> Latent:
        """Give a latent the weights of this tuning.

        Args:
            latent: the latent, not yet refined.
            project: directions of the channels in the latent, (C, D).
        """
        if self == Tuning(avoids_poor_ranges=self.avoids_poor_ranges):
            return latent._replace(weights=None)
        energy = luma_energy(latent.values[0]) + np.float32(LEAST_ENERGY)
        places = energy**self.activity_exponent
        errors = energy**self.error_exponent
        weights = PerceptualWeights(
            self.channel_weights(project),
            (places / np.exp(np.log(places).mean())).astype(np.float32),
            (errors / errors.mean()).astype(np.float32),
        )
        return latent._replace(weights=weights)

    def channel_weights(self, project: Array) -> NDArray[np.float32]:
        """Return the factor on λ for each channel, by the coefficient that most of its direction lies along.

        Args:
            project: directions of the channels in the latent, (C, D).

        Returns:
            (C,).
        """
        filters = block_frequencies(project.shape[1])
        main = [filters[number] for number in np.abs(project).argmax(1)]
        component, radius = np.array([item.component for item in main]), np.array([item.radius for item in main])
        weights = np.ones(len(main), np.float32)
        weights[(component == 0) & (radius < LOW_RADIUS)] = self.low_luma
        weights[(component == 0) & (radius > HIGH_RADIUS)] = self.high_luma
        weights[(component > 0) & (radius > CHROMA_RADIUS)] = self.chroma
        return weights


def luma_energy(latent: Array) -> NDArray[np.float32]:
    """Return the mean over pixels of each block's squared luma without its mean.

    Args:
        latent: (h, w, D).

    Returns:
        In squared grey levels, (h, w).
    """
    filters = block_frequencies(latent.shape[-1])
    textured = np.array([item.component == 0 and item.radius > 0 for item in filters], np.float32)
    rows = [
        np.square(row) @ textured for row in latent
    ]  # row by row: a copy of the latent leaves the processor's cache
    return np.asarray(np.stack(rows) * (GREY_LEVELS / BLOCK) ** 2, np.float32)


def without_poor_ends(channels: int, ranges: Sequence[PoorRange]) -> tuple[int, float]:
    """Return the number of channels and the factor on λ that stand for a number of channels, which may be poor.

    Args:
        channels: the number of channels.
        ranges: poor ranges of the model.

    Returns:
        ``channels`` and 1, or for a poor one: the start of its range and a smaller λ, or the end and a larger one.
    """
    for start, middle, end in ranges:
        if start < channels <= middle:
            return start, 1 + (SMALLEST_LAMBDA - 1) * (channels - start) / (middle - start)
        if middle < channels < end:
            return end, 1 + (LARGEST_LAMBDA - 1) * (end - channels) / (end - middle)
    return channels, 1.0


TUNINGS = {
    "psnr": Tuning(),
    "visual": Tuning(low_luma=0.4, high_luma=2.2, chroma=1.6, activity_exponent=0.5, avoids_poor_ranges=True),
}
"""Tunings by name."""
