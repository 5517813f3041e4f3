"""The photo codec: a block transform with convolutional paths, quantized in passes of one coefficient each."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ohmq.models.base import CompressionModel, ModelOutput
from ohmq.models.config import BLOCK, GREY_LEVELS, PhotoConfig
from ohmq.models.priors.factorized import FactorizedPrior
from ohmq.models.priors.tabulated import SelectedTables, TabulatedPrior
from ohmq.models.quantizers.directional import DirectionalOneHotMax
from ohmq.models.quantizers.rounding import IntegerRounding

__all__ = ["BLOCK", "Filter", "PhotoIntegerModel", "PhotoModel", "block_filters"]

CONVOLUTION_SCALE = 0.25
LATENT_SCALE = 0.15
ROWS_AT_ONCE = 4096
"""Positions that are quantized at a time."""


class Filter(NamedTuple):
    """A separable filter of the block transform: colour component (0 luma), vertical and horizontal frequency."""

    component: int
    vertical: int
    horizontal: int


def block_filters(count: int) -> tuple[Tensor, list[Filter]]:
    """Orthonormal filters of the 16x16 cosine transform with a colour rotation, from low to high frequency.

    Shape:
        Returns: (count, 3, 16, 16), and what each filter is.
    """
    frequency, place = np.arange(BLOCK)[:, None], np.arange(BLOCK)  # not in torch: see `ohmq.model_files.frozen_model`
    cosine = np.cos(math.pi * (place + 0.5) * frequency / BLOCK) * math.sqrt(2 / BLOCK)
    cosine[0] /= math.sqrt(2)
    colours = np.array([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]])
    colours /= np.linalg.norm(colours, axis=1, keepdims=True)
    found = []
    for c in range(3):
        for u in range(BLOCK):
            for v in range(BLOCK):
                radius = math.hypot(u, v)
                cost = radius if c == 0 else 2.2 * radius + (1.5, 2.2)[c - 1]  # chroma is smoother
                found.append((cost, Filter(c, u, v)))
    chosen = [item for _, item in sorted(found)[:count]]
    bank = [colours[c][:, None, None] * (cosine[u][:, None] * cosine[v][None]) for c, u, v in chosen]
    return torch.tensor(np.stack(bank), dtype=torch.float32), chosen


class ResidualBlock(nn.Module):
    """x + 1x1 conv(ReLU(3x3 conv(ReLU(1x1 conv(x))))) at half the width; zero at the start."""

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
        """Same shape."""
        out: Tensor = x + self.inner(x)
        return out


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def _follow(path: nn.Module, x: Tensor, bfloat16: bool) -> Tensor:
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
    patches = config.distilled_channels
    last = nn.Conv2d(patches, config.latent_channels, 3, stride=2, padding=1)
    _zero(last)
    return nn.Sequential(
        nn.Conv2d(3, patches, BLOCK // 2, stride=BLOCK // 2),
        *(ResidualBlock(patches) for _ in range(config.analysis_blocks[1])),
        last,
    )


class PhotoAnalysis(nn.Module):
    """Block transform plus a convolutional path that starts at zero: (B, 3, H, W) -> (B, D, H / 16, W / 16).

    Attributes:
        low_precision: the path computes in bfloat16, for training where the hardware is faster at it; False for coding.
    """

    def __init__(self, config: PhotoConfig) -> None:
        super().__init__()
        self.low_precision = False
        self.block = nn.Parameter(block_filters(config.latent_channels)[0])
        self.path = _distilled_path(config) if config.distilled_channels else _full_path(config)

    def forward(self, x: Tensor) -> Tensor:
        """The latent, in units of `GREY_LEVELS`."""
        return functional.conv2d(x, self.block, stride=BLOCK) + _follow(
            self.path, x * CONVOLUTION_SCALE, self.low_precision
        )


class PhotoSynthesis(nn.Module):
    """The way back: (B, D, h, w) -> (B, 3, 16 h, 16 w); ``low_precision`` as in `PhotoAnalysis`."""

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
        """The normalised picture."""
        # A transposed convolution whose blocks do not overlap: as a product it takes a third of the time.
        blocks = y.permute(0, 2, 3, 1) @ self.block.flatten(1)
        return functional.pixel_shuffle(blocks.permute(0, 3, 1, 2), BLOCK) + _follow(
            self.path, y * LATENT_SCALE, self.low_precision
        )


class ChannelGain(nn.Module):
    """A learned factor for each channel; shape (B, C, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return x * self.log_gain.exp()[:, None, None]


class _PhotoFamily(CompressionModel):
    """What both photo models share: normalisation and geometry."""

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
        for each group of channels: symbols of w · (z - y) and of what they cost, tables chosen from y; y += their codewords
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
            DirectionalOneHotMax(channels, symbols, dim, supports_rdoq=config.supports_rdoq),
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

    def forward(self, images: Tensor, active: Tensor) -> ModelOutput:
        """Reconstruct images from the first ``active`` channels of each, (B,), in descending order."""
        return self.reconstructed(self.analysis_transform(images), active)

    def reconstructed(self, latent: Tensor, active: Tensor) -> ModelOutput:
        """What `forward` gives of images whose latent this is, (B, D, h, w); gradients reach it."""
        if (active.diff() > 0).any():
            raise ValueError("the photo model trains on batches in descending order of active channels")
        prior, quantizer = self.prior, self.quantizer
        assert prior is not None
        z = latent.permute(0, 2, 3, 1)
        y, start = torch.zeros_like(z), 0
        done: list[Tensor] = []  # latents of images whose channels are all used, the last first
        bits = []
        for group, (size, alphabet) in enumerate(zip(self.config.group_sizes, self.config.group_symbols, strict=True)):
            images_left = int((active > start).sum())
            if images_left < len(y):
                done.append(y[images_left:])
                y, z = y[:images_left], z[:images_left]
            if not images_left:
                break
            used = min(size, int(active[0]) - start)
            channels = slice(start, start + used)
            project = quantizer.project[channels]
            own = functional.linear(y, project)
            projected = functional.linear(z, project) - own
            seen = (
                quantizer.nearest_values(projected, channels, alphabet) if group < prior.checkerboard_groups else None
            )
            price = None
            if quantizer.supports_rdoq:
                price = quantizer.price(active[:images_left], channels, alphabet)[:, None, None].expand_as(projected)
                if seen is not None:  # tables depend on the symbols, and they on the tables: coding goes pass by pass
                    with torch.no_grad():
                        tables: SelectedTables = prior(group, y, own, seen)
                        seen = quantizer.quantize(projected, channels, *tables, price).values
            tables = prior(group, y, own, seen)
            values, spent = quantizer.quantize(projected, channels, *tables, price)
            if int(active[images_left - 1]) < start + used:  # some images end in the middle of the group
                inside = (torch.arange(start, start + used, device=z.device) < active[:images_left, None])[
                    :, None, None
                ]
                spent, values = spent * inside, values * inside
            bits.append(functional.pad(spent.flatten(1).sum(1), (0, len(active) - images_left)))
            y = y + values @ quantizer.directions[channels]
            start += size
        y = torch.cat([y, *reversed(done)])
        total = torch.stack(bits).sum(0) if bits else y.new_zeros(len(y))
        return ModelOutput(self.synthesis_transform((y + quantizer.output_bias).permute(0, 3, 1, 2)), total)

    @torch.no_grad()
    def symbols(self, images: Tensor) -> Tensor:
        """Symbols of normalised images, all channels, nothing priced; shape (batch, h, w, C), int64."""
        quantizer = self.quantizer
        z = self.analysis_transform(images).permute(0, 2, 3, 1)
        rows = z.reshape(-1, z.shape[-1])
        out = torch.empty(len(rows), self.config.channels_max, dtype=torch.int64)
        for begin in range(0, len(rows), ROWS_AT_ONCE):
            part, start = slice(begin, begin + ROWS_AT_ONCE), 0
            rest = rows[part].clone()
            for size, alphabet in zip(self.config.group_sizes, self.config.group_symbols, strict=True):
                channels = slice(start, start + size)
                projected = functional.linear(rest, quantizer.project[channels])
                chosen = quantizer.nearest(projected, channels, alphabet)
                out[part, channels] = chosen
                rest -= quantizer.codeword_sum(chosen, channels)
                start += size
        return out.view(*z.shape[:3], -1)

    @torch.no_grad()
    def reconstruct(self, symbols: Tensor, num_active: int) -> Tensor:
        """Images in [0, 1] from the first ``num_active`` channels of the symbols, (batch, 3, 16 h, 16 w)."""
        if not 0 <= num_active <= self.config.channels_max:
            raise ValueError(f"active channels: {num_active}; this model has {self.config.channels_max}")
        quantizer = self.quantizer
        return self.picture(quantizer.codeword_sum(symbols[..., :num_active], slice(0, num_active)))

    @torch.no_grad()
    def picture(self, codewords: Tensor) -> Tensor:
        """Images in [0, 1] from the sum of the chosen codewords, (batch, h, w, D) to (batch, 3, 16 h, 16 w)."""
        latent = (codewords + self.quantizer.output_bias).permute(0, 3, 1, 2)
        return self.denormalise(self.synthesis_transform(latent)).clamp(0, 1)
