"""Further synthesis transforms for the symbols of a photo model: the decoder ladder.

Symbols are exact and do not depend on the synthesis transform, so that one file can be decoded by several: a fast one, the
model's own, and a better one. Each is conditioned on the number of decoded channels (feature-wise linear modulation, Perez et
al., FiLM, 2018): the errors of a latent of few channels differ from those of one of many.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ohmq.errors import ConfigError
from ohmq.models.config import BLOCK, MAX_BLOCKS
from ohmq.models.photo import LATENT_SCALE, PhotoSynthesis, ResidualBlock, block_filters

__all__ = ["DecoderConfig", "LadderDecoder", "RateBlock"]

RATE_HIDDEN = 32
"""Hidden units of the network that computes scale and shift from the number of channels."""
RATE_CENTRE, RATE_SPREAD = math.log(150), 1.2
"""Mean and standard deviation of log(channels) in training."""


@dataclass(frozen=True)
class DecoderConfig:
    """Size of a decoder of the ladder.

    Attributes:
        widths: channels at a sixteenth, an eighth and a quarter of the resolution; the last 0: no layers at a quarter.
        blocks: residual blocks at each of them.
        up_kernel: 1: resolution is doubled by a 1x1 convolution and a pixel shuffle; 4: by a 4x4 transposed convolution.
        last_kernel: side of the last convolution, 1 or 3.
    """

    widths: tuple[int, int, int]
    blocks: tuple[int, int, int]
    up_kernel: int = 1
    last_kernel: int = 3

    def __post_init__(self) -> None:
        for name in ("widths", "blocks"):
            object.__setattr__(self, name, tuple(int(value) for value in getattr(self, name)))
            if len(getattr(self, name)) != 3:
                raise ConfigError(f"{name} of a decoder is {getattr(self, name)}; it must be three numbers")
        if min(self.widths[:2]) < 2 or self.widths[2] < 0 or max(self.widths) > 1024:
            raise ConfigError(f"widths of a decoder are {self.widths}; they must be 2 to 1024, the last may be 0")
        if min(self.blocks) < 0 or max(self.blocks) > MAX_BLOCKS or (self.blocks[2] and not self.widths[2]):
            raise ConfigError(f"blocks of a decoder are {self.blocks}; they must be 0 to {MAX_BLOCKS}")
        for name, sides in (("up_kernel", (1, 4)), ("last_kernel", (1, 3))):
            if getattr(self, name) not in sides:
                raise ConfigError(f"{name} of a decoder is {getattr(self, name)}; it must be {sides[0]} or {sides[1]}")

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration, JSON-ready."""
        sizes = {"widths": list(self.widths), "blocks": list(self.blocks)}
        return {**sizes, "up_kernel": self.up_kernel, "last_kernel": self.last_kernel}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DecoderConfig":
        """Build a configuration from what `to_dict` gave.

        Args:
            values: fields by name.

        Raises:
            ConfigError: unknown fields, or values out of range.
        """
        names = {field.name for field in fields(cls)}
        try:
            if not set(values) <= names:
                raise ConfigError(f"unknown fields {sorted(set(values) - names)}")
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"a decoder's configuration is damaged: {error}") from error


class RateBlock(nn.Module):
    """Residual block whose hidden channels are scaled and shifted by the number of decoded channels.

    x + 1x1 conv(ReLU(3x3 conv(ReLU(scale * 1x1 conv(x) + shift)))) at half the width; x alone at the start.

    Args:
        channels: channels of x.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.reduce = nn.Conv2d(channels, half, 1)
        self.spatial = nn.Conv2d(half, half, 3, padding=1)
        self.expand = nn.Conv2d(half, channels, 1)
        self.rate = nn.Sequential(nn.Linear(1, RATE_HIDDEN), nn.SiLU(), nn.Linear(RATE_HIDDEN, 2 * half))
        for layer in (self.expand, self.rate[2]):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, rate: Tensor) -> Tensor:
        """Return the output, of the shape of x.

        Args:
            x: (B, C, h, w).
            rate: normalised logarithm of the number of channels, (B, 1), or (1, 1) for all images.
        """
        gain, shift = self.rate(rate).chunk(2, -1)
        if len(rate) == 1:  # one scale for all images: it goes into the weights
            weight = self.reduce.weight * (1 + gain[0])[:, None, None, None]
            assert self.reduce.bias is not None
            hidden = functional.conv2d(x, weight.to(x.dtype), (self.reduce.bias * (1 + gain[0]) + shift[0]).to(x.dtype))
        else:
            hidden = self.reduce(x) * (1 + gain)[:, :, None, None] + shift[:, :, None, None]
        out: Tensor = x + self.expand(functional.relu(self.spatial(functional.relu(hidden))))
        return out


class LadderDecoder(nn.Module):
    """Synthesis transform of the ladder: (B, D, h, w) -> (B, 3, 16 h, 16 w).

    An inverse block transform, plus residual blocks at a sixteenth, an eighth and perhaps a quarter of the resolution, with
    pixel shuffles (Shi et al., 2016) or transposed convolutions between them.

    Args:
        latent: D, channels of the latent.
        config: its size.

    Attributes:
        low_precision: the convolutions compute in bfloat16.
    """

    def __init__(self, latent: int, config: DecoderConfig) -> None:
        super().__init__()
        self.config, self.low_precision = config, False
        self.block = nn.Parameter(block_filters(latent)[0])
        low, middle, high = config.widths
        layers: list[nn.Module] = [nn.Conv2d(latent, low, 1) if low != latent else nn.Identity()]
        layers += [RateBlock(low) for _ in range(config.blocks[0])]
        layers += _doubling(low, middle, config.up_kernel)
        layers += [RateBlock(middle) for _ in range(config.blocks[1])]
        if high:
            layers += _doubling(middle, high, config.up_kernel)
            layers += [RateBlock(high) for _ in range(config.blocks[2])]
        factor = 4 if high else 8
        last = nn.Conv2d(high or middle, 3 * factor**2, config.last_kernel, padding=config.last_kernel // 2)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.path = nn.ModuleList([*layers, last, nn.PixelShuffle(factor)])

    @torch.no_grad()
    def start_from(self, synthesis: PhotoSynthesis) -> None:
        """Take over the weights of a synthesis transform: the decoder then computes the same.

        Residual blocks beyond those of the transform stay as they are, which is the identity at the start.

        Args:
            synthesis: the transform, of the same widths.

        Raises:
            ConfigError: other widths, fewer blocks, or no transposed convolutions.
        """
        self.block.copy_(synthesis.block)
        source = [layer for layer in synthesis.path if not isinstance(layer, nn.PixelShuffle)]
        position = 0
        for layer in source:
            kinds = RateBlock if isinstance(layer, ResidualBlock) else type(layer)
            while position < len(self.path) and not isinstance(self.path[position], kinds):
                position += 1
            target = self.path[position] if position < len(self.path) else None
            position += 1
            if isinstance(layer, ResidualBlock) and isinstance(target, RateBlock):
                pairs = zip((0, 2, 4), (target.reduce, target.spatial, target.expand), strict=True)
                parts: list[tuple[dict[str, Any], nn.Module]] = [
                    (layer.inner[index].state_dict(), part) for index, part in pairs
                ]
            elif isinstance(target, nn.Conv2d | nn.ConvTranspose2d):
                parts = [(layer.state_dict(), target)]
            else:
                raise ConfigError("the decoder has other layers than the synthesis transform that it starts from")
            for state, part in parts:
                if {name: value.shape for name, value in state.items()} != {
                    name: value.shape for name, value in part.state_dict().items()
                }:
                    raise ConfigError("the decoder has other widths than the synthesis transform that it starts from")
                part.load_state_dict(state)

    def forward(self, y: Tensor, channels: Tensor) -> Tensor:
        """Return the normalised image (B, 3, 16 h, 16 w).

        Args:
            y: latent, (B, D, h, w).
            channels: number of decoded channels of each image, (B,), or (1,) for all.
        """
        rate = (channels.to(y).log()[:, None] - RATE_CENTRE) / RATE_SPREAD
        blocks = (y.permute(0, 2, 3, 1) @ self.block.flatten(1)).permute(0, 3, 1, 2)
        with torch.autocast(y.device.type, torch.bfloat16, enabled=self.low_precision):
            x = y * LATENT_SCALE
            for layer in self.path:
                x = layer(x, rate) if isinstance(layer, RateBlock) else layer(x)
        return functional.pixel_shuffle(blocks, BLOCK) + x.float()


def _doubling(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    """Return layers that double the resolution."""
    if kernel == 1:
        return [nn.Conv2d(inputs, 4 * outputs, 1), nn.PixelShuffle(2)]
    return [nn.ConvTranspose2d(inputs, outputs, kernel, stride=2, padding=1)]
