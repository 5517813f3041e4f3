"""A compression model: analysis transform, quantizer, prior, synthesis transform."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ohmq.models.config import ModelConfig
from ohmq.models.priors.context import ContextPrior
from ohmq.models.priors.factorized import FactorizedPrior
from ohmq.models.priors.static import StaticPrior
from ohmq.models.priors.tabulated import TabulatedPrior
from ohmq.models.quantizers.directional import DirectionalOneHotMax
from ohmq.models.quantizers.one_hot_max import OneHotMax
from ohmq.models.quantizers.rounding import Identity, IntegerRounding

__all__ = ["CompressionModel", "ModelOutput", "published_bottleneck"]

Quantizer = OneHotMax | DirectionalOneHotMax | IntegerRounding | Identity
Prior = StaticPrior | ContextPrior | TabulatedPrior | FactorizedPrior


def published_bottleneck(
    config: ModelConfig, latent_channels: int, prior_hidden: int = 32
) -> tuple[Quantizer, Prior | None]:
    """The quantizer and the prior that a configuration names, with fresh weights.

    Args:
        config: the configuration. latent_channels: D. prior_hidden: width of the static prior's network.
    """
    channels, symbols = config.channels_max, config.num_symbols
    if config.quantizer == "integer":
        return IntegerRounding(channels, symbols), FactorizedPrior(channels)
    if config.quantizer == "none":
        return Identity(channels), None
    quantizer = OneHotMax(channels, symbols, latent_channels)
    if config.prior == "static":
        return quantizer, StaticPrior(channels, symbols, prior_hidden)
    sizes = (config.group_sizes, config.context_hidden, config.context_features, prior_hidden)
    return quantizer, ContextPrior(channels, symbols, latent_channels, *sizes)


class ModelOutput(NamedTuple):
    """What a forward pass gives.

    Attributes:
        reconstruction: normalised images, shape as the input.
        bits: estimated bits of each image, shape (batch,).
    """

    reconstruction: Tensor
    bits: Tensor


def _per_channel(value: float | tuple[float, ...], images: Tensor) -> Tensor:
    return images.new_tensor(value).reshape(-1, 1, 1)


class CompressionModel(nn.Module):
    """A compression model for normalised images.

        image -> analysis_transform -> latent -> quantizer -> latent -> synthesis_transform -> image
                                                    |
                                                  prior: the bits of the symbols

    A family gives the two transforms and the constants below.

    Args:
        config: the configuration.
        analysis_transform: (batch, image_channels, H, W) -> (batch, D, h, w).
        synthesis_transform: the way back.
        quantizer, prior: what lies between; `published_bottleneck` makes them.

    Attributes:
        mean, std: of the normalisation x -> (x - mean) / std, x in [0, 1].

    Shape:
        images: (batch, image_channels, H, W), normalised. active: (batch,), int64, active channels of each image.
    """

    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    analysis_transform: nn.Module
    synthesis_transform: nn.Module

    def __init__(
        self,
        config: ModelConfig,
        analysis_transform: nn.Module,
        synthesis_transform: nn.Module,
        quantizer: Quantizer,
        prior: Prior | None,
    ) -> None:
        super().__init__()
        self.config = config
        self.analysis_transform = analysis_transform
        self.synthesis_transform = synthesis_transform
        self.quantizer: Quantizer = quantizer
        self.prior: Prior | None = prior

    def normalise(self, images: Tensor) -> Tensor:
        """Images in [0, 1] to the model's space."""
        return (images - _per_channel(self.mean, images)) / _per_channel(self.std, images)

    def denormalise(self, images: Tensor) -> Tensor:
        """The inverse of `normalise`, not clamped."""
        return images * _per_channel(self.std, images) + _per_channel(self.mean, images)

    def forward(self, images: Tensor, active: Tensor) -> ModelOutput:
        """Reconstruct images from the first ``active`` channels of each; shapes in the class."""
        latent = self.analysis_transform(images)
        if isinstance(self.quantizer, OneHotMax):
            latent, bits = self._one_hot_max(latent, active)
        else:
            mask = torch.arange(latent.shape[1], device=latent.device)[None] < active[:, None]
            latent = self.quantizer(latent) * mask[..., None, None]
            bits = latent.new_zeros(latent.shape[0])
            if isinstance(self.prior, FactorizedPrior):
                bits = (self.prior.bits(latent) * mask[..., None, None]).flatten(1).sum(1)
        return ModelOutput(self.synthesis_transform(latent), bits)

    def _one_hot_max(self, latent: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        quantizer = self.quantizer
        prior = self.prior
        assert isinstance(quantizer, OneHotMax)
        assert isinstance(prior, StaticPrior | ContextPrior)
        batch, dim, height, width = latent.shape
        # Images with many active channels first: then each channel works on a leading block of them.
        active, order = active.sort(descending=True, stable=True)
        rows = latent[order].relu().permute(2, 3, 0, 1).reshape(height * width, batch, dim)
        context = prior if isinstance(prior, ContextPrior) else None
        table = (
            prior.static.logits(height, width) if isinstance(prior, ContextPrior) else prior.code_lengths(height, width)
        )
        total, bits = torch.zeros_like(rows), rows.new_zeros(height * width, batch)
        start = 0
        for group, size in enumerate(self.config.group_sizes):
            used = int((active > start).sum())
            if used == 0:
                break
            channels = range(start, start + size)
            lengths, coefficients, features = table[:, start : start + size], None, None
            if context is not None and group == 0:
                lengths = lengths * (-1 / math.log(2))
            elif context is not None:
                coefficients = context.coefficients(group, total[:, :used], height, width)
                features = context.features[start : start + size]
            source = rows[:, :used] - total[:, :used] if self.config.residual_quantization else rows[:, :used]
            part = quantizer.quantize_group(source, active[:used], channels, lengths, coefficients, features)
            total = total + nn.functional.pad(part.latent, (0, 0, 0, batch - used))
            bits = bits + nn.functional.pad(part.bits, (0, batch - used))
            start += size
        back = torch.empty_like(order).scatter_(0, order, torch.arange(batch, device=order.device))
        latent = (total + quantizer.output_bias).relu()[:, back].view(height, width, batch, dim).permute(2, 3, 0, 1)
        return latent, bits.sum(0)[back]

    @torch.no_grad()
    def symbols(self, images: Tensor) -> Tensor:
        """Symbols of normalised images, all channels.

        Shape:
            Returns: (batch, h, w, C), int64.
        """
        if isinstance(self.quantizer, Identity):
            raise ValueError("a model without a quantizer has no symbols")
        latent = self.analysis_transform(images)
        if isinstance(self.quantizer, OneHotMax):
            return self.quantizer.symbols(latent, self.config.group_sizes if self.config.residual_quantization else ())
        assert isinstance(self.quantizer, IntegerRounding)
        return self.quantizer.symbols(latent)

    @torch.no_grad()
    def reconstruct(self, symbols: Tensor, num_active: int) -> Tensor:
        """Images in [0, 1] from the first ``num_active`` channels of the symbols.

        Shape:
            symbols: (batch, h, w, at least num_active). Returns: (batch, image_channels, H, W).
        """
        if isinstance(self.quantizer, Identity):
            raise ValueError("a model without a quantizer has no symbols")
        assert isinstance(self.quantizer, OneHotMax | IntegerRounding)
        latent = self.quantizer.dequantize(symbols, num_active)
        return self.denormalise(self.synthesis_transform(latent)).clamp(0, 1)
