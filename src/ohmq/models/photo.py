"""The photo codec: a block transform with convolutional paths, and one-hot max along one direction a channel."""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ohmq.models.base import CompressionModel
from ohmq.models.block_frequencies import Filter, block_frequencies
from ohmq.models.config import BLOCK, GREY_LEVELS, PhotoConfig
from ohmq.models.priors.factorized import FactorizedPrior
from ohmq.models.priors.tabulated import TabulatedPrior
from ohmq.models.quantizers.directional import DirectionalOneHotMax
from ohmq.models.quantizers.rounding import IntegerRounding

__all__ = ["BLOCK", "Filter", "PhotoIntegerModel", "PhotoModel", "block_filters"]

CONVOLUTION_SCALE = 0.25
"""Factor on the normalised image before the analysis convolutions."""
LATENT_SCALE = 0.15
"""Factor on the latent before the synthesis convolutions and the context networks."""


def block_filters(count: int) -> tuple[Tensor, list[Filter]]:
    """Return orthonormal filters of the 16x16 cosine transform with a colour rotation, from low to high frequency.

    Args:
        count: number of filters, 1 to 768.

    Returns:
        Filters (count, 3, 16, 16), and their colours and frequencies.
    """
    frequency, place = np.arange(BLOCK)[:, None], np.arange(BLOCK)  # not in torch: see `ohmq.model_files.frozen_model`
    cosine = np.cos(math.pi * (place + 0.5) * frequency / BLOCK) * math.sqrt(2 / BLOCK)
    cosine[0] /= math.sqrt(2)
    colours = np.array([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]])
    colours /= np.linalg.norm(colours, axis=1, keepdims=True)
    chosen = block_frequencies(count)
    bank = [colours[c][:, None, None] * (cosine[u][:, None] * cosine[v][None]) for c, u, v in chosen]
    return torch.tensor(np.stack(bank), dtype=torch.float32), chosen


class ResidualBlock(nn.Module):
    """Residual block: x + 1x1 conv(ReLU(3x3 conv(ReLU(1x1 conv(x))))) at half the width; x alone at the start.

    Args:
        channels: channels of x.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.inner = nn.Sequential(
            nn.Conv2d(channels, half, 1),
            nn.ReLU(),
            nn.Conv2d(half, half, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(half, channels, 1),
        )
        _zero(self.inner[4])

    def forward(self, x: Tensor) -> Tensor:
        """Return the output, of the shape of x."""
        out: Tensor = x + self.inner(x)
        return out


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _follow(path: nn.Module, x: Tensor, bfloat16: bool) -> Tensor:
    if not bfloat16 and not torch.amp.is_autocast_available(x.device.type):
        return torch.as_tensor(path(x))
    with torch.autocast(x.device.type, torch.bfloat16, enabled=bfloat16):
        out: Tensor = path(x)
    return out.float()


def _full_path(config: PhotoConfig) -> nn.Sequential:
    """(B, 3, H, W) -> (B, D, H / 16, W / 16), the first convolutions at a half and a quarter of the resolution."""
    wide, wider = config.wide, config.wider
    last = nn.Conv2d(wider, config.latent_channels, 3, stride=2, padding=1)
    _zero(last)
    return nn.Sequential(
        nn.Conv2d(3, wide // 2, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(wide // 2, wide, 3, stride=2, padding=1),
        *(ResidualBlock(wide) for _ in range(config.analysis_blocks[0])),
        nn.Conv2d(wide, wider, 3, stride=2, padding=1),
        *(ResidualBlock(wider) for _ in range(config.analysis_blocks[1])),
        last,
        ResidualBlock(config.latent_channels),
    )


def _distilled_path(config: PhotoConfig) -> nn.Sequential:
    """(B, 3, H, W) -> (B, D, H / 16, W / 16), all convolutions at an eighth of the resolution."""
    channels = config.distilled_channels
    last = nn.Conv2d(channels, config.latent_channels, 3, stride=2, padding=1)
    _zero(last)
    return nn.Sequential(
        nn.Conv2d(3, channels, BLOCK // 2, stride=BLOCK // 2),
        *(ResidualBlock(channels) for _ in range(config.analysis_blocks[1])),
        last,
    )


class PhotoAnalysis(nn.Module):
    """Block transform plus a convolutional path that starts at zero: (B, 3, H, W) -> (B, D, H / 16, W / 16).

    Args:
        config: the configuration.

    Attributes:
        low_precision: the path computes in bfloat16, for training where the hardware is faster at it; False for coding.
    """

    def __init__(self, config: PhotoConfig) -> None:
        super().__init__()
        self.low_precision = False
        self.block = nn.Parameter(block_filters(config.latent_channels)[0])
        self.path = _distilled_path(config) if config.distilled_channels else _full_path(config)

    def forward(self, x: Tensor) -> Tensor:
        """Return the latent (B, D, H / 16, W / 16), in units of `GREY_LEVELS`."""
        return functional.conv2d(x, self.block, stride=BLOCK) + _follow(
            self.path, x * CONVOLUTION_SCALE, self.low_precision
        )


class PhotoSynthesis(nn.Module):
    """Inverse block transform plus a convolutional path: (B, D, h, w) -> (B, 3, 16 h, 16 w).

    Args:
        config: the configuration.

    Attributes:
        low_precision: as in `PhotoAnalysis`.
    """

    def __init__(self, config: PhotoConfig) -> None:
        super().__init__()
        latent, wide, wider = config.latent_channels, config.wide, config.wider
        self.low_precision = False
        self.block = nn.Parameter(block_filters(latent)[0])
        last = nn.Conv2d(wide, 48, 3, padding=1)
        _zero(last)
        self.path = nn.Sequential(
            ResidualBlock(latent),
            nn.ConvTranspose2d(latent, wider, 4, stride=2, padding=1),
            *(ResidualBlock(wider) for _ in range(config.synthesis_blocks[1])),
            nn.ConvTranspose2d(wider, wide, 4, stride=2, padding=1),
            *(ResidualBlock(wide) for _ in range(config.synthesis_blocks[0])),
            last,
            nn.PixelShuffle(4),
        )

    def forward(self, y: Tensor) -> Tensor:
        """Return the normalised image (B, 3, 16 h, 16 w)."""
        # A transposed convolution whose blocks do not overlap: as a product it takes a third of the time.
        blocks = y.permute(0, 2, 3, 1) @ self.block.flatten(1)
        return functional.pixel_shuffle(blocks.permute(0, 3, 1, 2), BLOCK) + _follow(
            self.path, y * LATENT_SCALE, self.low_precision
        )


class ChannelGain(nn.Module):
    """A learned factor for each channel of a latent (B, C, h, w).

    Args:
        channels: C, channels of the latent.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output, of the shape of x."""
        return x * self.log_gain.exp()[:, None, None]


class _PhotoFamily(CompressionModel):
    """Base of both photo models: the normalisation."""

    mean = 0.5
    std = GREY_LEVELS / 255


class PhotoIntegerModel(_PhotoFamily):
    """The photo codec's twin with integer rounding: the same transforms, each coefficient rounded after a gain of its own.

        image -> 16x16 block transform + convolutions -> gains -> rounding -> gains -> block transform back + convolutions

    Args:
        config: the configuration, its quantizer "integer".
    """

    def __init__(self, config: PhotoConfig) -> None:
        channels = config.channels_max
        super().__init__(
            config,
            nn.Sequential(PhotoAnalysis(config), ChannelGain(channels)),
            nn.Sequential(ChannelGain(channels), PhotoSynthesis(config)),
            IntegerRounding(channels, config.num_symbols),
            FactorizedPrior(channels),
        )


class PhotoModel(_PhotoFamily):
    """The photo codec.

        image -> 16x16 block transform + convolutions -> latent z (D)
        for each group of channels: symbols of w · (z - y) by RDOQ, tables chosen from y; y += their codewords
        y -> block transform back + convolutions -> image

    Args:
        config: the configuration.
    """

    quantizer: DirectionalOneHotMax
    prior: TabulatedPrior | None
    analysis_transform: PhotoAnalysis
    synthesis_transform: PhotoSynthesis

    def __init__(self, config: PhotoConfig) -> None:
        dim, channels, symbols = config.latent_channels, config.channels_max, config.num_symbols
        super().__init__(
            config,
            PhotoAnalysis(config),
            PhotoSynthesis(config),
            DirectionalOneHotMax(
                channels,
                symbols,
                dim,
                supports_rdoq=config.supports_rdoq,
                group_sizes=config.group_sizes,
                alphabets=config.group_symbols,
            ),
            TabulatedPrior(
                channels,
                symbols,
                dim,
                config.group_sizes,
                config.context_projection,
                config.context_hidden,
                alphabets=config.group_symbols,
                checkerboard_groups=config.checkerboard_groups,
                neighbour_hidden=config.neighbour_hidden,
            ),
        )

    @torch.no_grad()
    def latent_of_codewords(self, codewords: Tensor) -> Tensor:
        """Return the latents of sums of codewords.

        Args:
            codewords: sum of the chosen codewords, (batch, h, w, D).

        Returns:
            (batch, D, h, w).
        """
        return (codewords + self.quantizer.output_bias).permute(0, 3, 1, 2)
