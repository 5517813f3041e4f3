"""A compression model: analysis transform, quantizer, prior, synthesis transform."""

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
    """Build the quantizer and the prior that a configuration names, with fresh weights.

    Args:
        config: the configuration.
        latent_channels: D, channels of the latent.
        prior_hidden: width of the static prior's network.

    Returns:
        The quantizer, and the prior or None.
    """
    channels, symbols = config.channels_max, config.num_symbols
    if config.quantizer == "integer":
        return IntegerRounding(channels, symbols), FactorizedPrior(channels)
    if config.quantizer == "none":
        return Identity(channels), None
    quantizer = OneHotMax(
        channels,
        symbols,
        latent_channels,
        group_sizes=config.group_sizes,
        residual_quantization=config.residual_quantization,
    )
    if config.prior == "static":
        return quantizer, StaticPrior(channels, symbols, prior_hidden)
    prior = ContextPrior(
        channels,
        symbols,
        latent_channels,
        config.group_sizes,
        hidden_channels=config.context_hidden,
        num_features=config.context_features,
        static_hidden_channels=prior_hidden,
    )
    return quantizer, prior


class ModelOutput(NamedTuple):
    """Reconstruction and rate of a forward pass.

    Attributes:
        reconstruction: normalised images, shape as the input.
        bits: estimated bits of each image, (batch,).
    """

    reconstruction: Tensor
    bits: Tensor


def _per_channel(value: float | tuple[float, ...], images: Tensor) -> Tensor:
    return torch.tensor(value, dtype=images.dtype).reshape(-1, 1, 1).to(images.device, non_blocking=True)


class CompressionModel(nn.Module):
    """A compression model for normalised images.

        image -> analysis_transform -> latent -> quantizer -> latent -> synthesis_transform -> image
                                                    |
                                                  prior: the bits of the symbols

    A family defines the two transforms and the constants below.

    Args:
        config: the configuration.
        analysis_transform: (batch, image_channels, H, W) -> (batch, D, h, w).
        synthesis_transform: (batch, D, h, w) -> (batch, image_channels, H, W).
        quantizer: layer between the two; see `published_bottleneck`.
        prior: prior of the quantizer's symbols; None: the fixed-length code.

    Attributes:
        mean: mean of the normalisation x -> (x - mean) / std, x in [0, 1].
        std: its divisor.

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
        """Normalise images in [0, 1], (batch, image_channels, H, W).

        Args:
            images: (batch, image_channels, H, W), values in [0, 1].
        """
        return (images - _per_channel(self.mean, images)) / _per_channel(self.std, images)

    def denormalise(self, images: Tensor) -> Tensor:
        """Invert `normalise`; the result is not clamped.

        Args:
            images: normalised images, (batch, image_channels, H, W).
        """
        return images * _per_channel(self.std, images) + _per_channel(self.mean, images)

    def forward(self, images: Tensor, active: Tensor) -> ModelOutput:
        """Reconstruct images from the first channels of each.

        Args:
            images: normalised images, (batch, image_channels, H, W).
            active: active channels of each image, (batch,), int64, in any order.

        Returns:
            Reconstructions and bits.
        """
        quantized = self.quantizer(self.analysis_transform(images), active, self.prior)
        return ModelOutput(self.synthesis_transform(quantized.latent_hat), quantized.bits)

    @torch.no_grad()
    def symbols(self, images: Tensor) -> Tensor:
        """Return the symbols of images, all channels, chosen without RDOQ.

        Args:
            images: normalised images, (batch, image_channels, H, W).

        Returns:
            Symbols, (batch, h, w, C), int64.

        Raises:
            ValueError: a model without a quantizer.
        """
        return self.quantizer.symbols(self.analysis_transform(images))

    @torch.no_grad()
    def reconstruct(self, symbols: Tensor, num_active: int) -> Tensor:
        """Reconstruct images from the first ``num_active`` channels of their symbols.

        Args:
            symbols: (batch, h, w, at least num_active), of any integer type.
            num_active: active channels, 0 to C.

        Returns:
            Images in [0, 1], (batch, image_channels, H, W).

        Raises:
            ValueError: num_active outside [0, C], or a model without a quantizer.
        """
        return self.decode_latent(self.dequantize(symbols, num_active))

    @torch.no_grad()
    def dequantize(self, symbols: Tensor, num_active: int) -> Tensor:
        """Return the latent of the first ``num_active`` channels of symbols, (batch, D, h, w); arguments as `reconstruct`.

        Args:
            symbols: (batch, h, w, at least num_active), of any integer type.
            num_active: active channels, 0 to C.

        Raises:
            ValueError: num_active outside [0, C], or a model without a quantizer.
        """
        return self.quantizer.dequantize(symbols.long(), num_active)

    @torch.no_grad()
    def decode_latent(self, latent: Tensor) -> Tensor:
        """Return the images in [0, 1] that a latent (batch, D, h, w) decodes to, (batch, image_channels, H, W).

        Args:
            latent: quantized latent, (batch, D, h, w).
        """
        return self.denormalise(self.synthesis_transform(latent)).clamp(0, 1)
