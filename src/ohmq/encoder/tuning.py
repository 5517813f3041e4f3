r"""Tuning of the encoder: for PSNR, or for looks.

RDOQ and analysis by synthesis minimise the squared error of colours, which weighs every frequency and every place alike. Eyes,
and the metrics that model them, see errors of low luma frequencies and of calm places best. The tuning "visual" therefore
scales λ

* by channel: a bit costs less where errors show, in low frequencies of luma and of green against magenta, and more in high ones,
  like the quantization matrices of JPEG;
* by place: a bit costs more where activity masks errors, $w \propto (E + E_0)^a$ with the luma energy E of a block, like the
  adaptive quantization of x264 (there a = 0.35), and less where it is dark, $w \propto (Y + Y_0)^b$ with the luminance Y,
  because eyes see ratios of light.

It also avoids numbers of channels that look poor for their bits, see `PoorRange`.

A decoder need not know of it.

References: Yeo, Tan and Tan, On rate distortion optimization using SSIM (2013).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmq.models.block_frequencies import Filter, block_frequencies
from ohmq.models.config import BLOCK, GREY_LEVELS
from ohmq.runtime.latents import Array, Latent, PerceptualWeights

__all__ = [
    "POOR_RANGES",
    "SENSITIVITY",
    "TUNINGS",
    "PoorRange",
    "Tuning",
    "luma_energy",
    "luminance",
    "sensitivity",
    "without_poor_ends",
]

SENSITIVITY: Mapping[int, tuple[tuple[float, float], ...]] = {
    0: ((0.0, 8.3), (1.7, 7.9), (3.5, 3.2), (5.5, 1.7), (7.5, 1.0), (9.5, 0.87), (12.0, 0.73), (15.0, 0.62)),
    1: ((0.0, 3.3), (1.5, 1.8), (3.5, 0.7), (6.0, 0.2)),
    2: ((0.0, 5.8), (1.5, 4.3), (3.5, 1.7), (6.0, 0.75)),
}
"""How much an error of a frequency shows, for each colour component (luma, red against blue, green against magenta): radius in
half periods a block, and SSIMULACRA2 points that its squared error costs, relative to luma of radius 7.5. Chosen on validation
photos after measurements like `results/sensitivity.json`; linear in the logarithm between, constant beyond the ends."""
LEAST_ENERGY = 4.0
"""Added to the luma energy of a block, in squared grey levels, so that flat blocks do not get all bits."""


LEAST_LUMINANCE = 0.01
"""Added to the luminance of a block, 0 to 1, so that black blocks do not get all bits."""
GAMMA = 2.2
"""Exponent of light over grey levels."""
MIDDLE_GREY = 127.5
"""Grey level at which a mean of zero stands in latents."""


class PoorRange(NamedTuple):
    """Numbers of channels between two ends that look worse for their bits than either end with another λ.

    The order of channels follows squared error: the third passes over low luma frequencies come only after the second ones
    over all high frequencies, which hardly show. A file that ends between the two has paid for the latter and lacks the former.

    Attributes:
        start: number of channels that ends before the poor ones.
        middle: largest number of channels that ``start`` with less than λ stands for.
        end: number of channels that ends after them.
        largest: factor on λ with which ``end`` stands for the next number after ``middle``.
    """

    start: int
    middle: int
    end: int
    largest: float

    @property
    def smallest(self) -> float:
        """Factor on λ with which ``start`` stands for ``middle``."""
        return SMALLEST_LAMBDA if self.middle > self.start else 1.0


POOR_RANGES: Mapping[str, tuple[PoorRange, ...]] = {
    "cf07d25e": (PoorRange(116, 116, 269, 7), PoorRange(402, 535, 678, 12), PoorRange(758, 830, 1000, 10)),
}
"""Poor ranges by model id, in hexadecimal; `docs/experiments/tuning.md` has their measurement."""
SMALLEST_LAMBDA = 0.5
"""Factor on λ with which the start of a poor range stands for its middle."""


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """Factors on λ and on errors; the defaults leave both as they are, for the best PSNR.

    Attributes:
        frequency_exponent: power of a frequency's `SENSITIVITY` in one over the factor on λ.
        activity_exponent: a, power of a block's luma energy in the factor on λ.
        luminance_exponent: b, power of a block's luminance in the factor on λ.
        error_exponent: power of a block's luma energy in the weight of its error in analysis by synthesis.
        avoids_poor_ranges: whether targets avoid numbers of channels that look poor for their bits.
    """

    frequency_exponent: float = 0.0
    activity_exponent: float = 0.0
    luminance_exponent: float = 0.0
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
        light = luminance(latent.values[0]) + np.float32(LEAST_LUMINANCE)
        places = energy**self.activity_exponent * light**self.luminance_exponent
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
        seen = [sensitivity(item) for item in main]
        return np.array(seen, np.float32) ** np.float32(-self.frequency_exponent)


def sensitivity(frequency: Filter) -> float:
    """Return how much an error of a frequency shows, relative to luma of radius 7.5.

    Args:
        frequency: the frequency and its colour component.
    """
    radii, values = zip(*SENSITIVITY[frequency.component], strict=True)
    return float(np.exp(np.interp(frequency.radius, radii, np.log(values))))


def luma_energy(latent: Array) -> NDArray[np.float32]:
    """Return the mean over pixels of each block's squared luma without its mean.

    Args:
        latent: (h, w, D).

    Returns:
        In squared grey levels, (h, w).
    """
    filters = block_frequencies(latent.shape[-1])
    textured = np.array([item.component == 0 and item.radius > 0 for item in filters], np.float32)
    rows = [np.square(row) @ textured for row in latent]  # row by row, in the processor's cache
    return np.asarray(np.stack(rows) * (GREY_LEVELS / BLOCK) ** 2, np.float32)


def luminance(latent: Array) -> NDArray[np.float32]:
    """Return the relative luminance of each block's mean colour, estimated from its mean of luma.

    Args:
        latent: (h, w, D).

    Returns:
        0 to 1, (h, w).
    """
    means = [
        k for k, item in enumerate(block_frequencies(latent.shape[-1])) if item.component == 0 and item.radius == 0
    ]
    grey = MIDDLE_GREY + latent[..., means[0]] * np.float32(GREY_LEVELS / BLOCK / math.sqrt(3))
    return np.asarray((grey.clip(0, 255) / 255) ** np.float32(GAMMA), np.float32)


def without_poor_ends(channels: int, ranges: Sequence[PoorRange]) -> tuple[int, float]:
    """Return the number of channels and the factor on λ that stand for a number of channels, which may be poor.

    Args:
        channels: the number of channels.
        ranges: poor ranges of the model.

    Returns:
        ``channels`` and 1, or for a poor one: the start of its range and a smaller λ, or the end and a larger one.
    """
    for poor in ranges:
        start, middle, end, largest = poor
        if start < channels <= middle:
            return start, 1 + (poor.smallest - 1) * (channels - start) / (middle - start)
        if middle < channels < end:
            return end, 1 + (largest - 1) * (end - channels) / (end - middle)
    return channels, 1.0


TUNINGS = {
    "psnr": Tuning(),
    "visual": Tuning(frequency_exponent=1.0, activity_exponent=0.5, luminance_exponent=0.25, avoids_poor_ranges=True),
}
"""Tunings by name."""
