"""Quantizers to compare one-hot max with: integer rounding, and none."""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from ohmq.models.quantizers.quantized_latent import (
    QuantizedLatent,
    active_mask,
    active_per_image,
    check_active_channels,
    check_alphabet,
)

__all__ = ["DensityPrior", "Identity", "IntegerRounding"]


class DensityPrior(Protocol):
    """A prior of integer latents that also knows the values between integers, such as `FactorizedPrior`."""

    def bits(self, latent: Tensor) -> Tensor:
        """Return the bits of each element of a latent (batch, C, h, w); same shape."""
        ...


class IntegerRounding(nn.Module):
    r"""Rounding to integers, the classic baseline: additive uniform noise in training.

    $$ \hat z = \mathrm{clamp}(z + U(-\tfrac12, \tfrac12)) \text{ (training)}, \qquad
       \hat z = \mathrm{clamp}(\mathrm{round}(z)) \text{ (coding)}, \qquad
       \text{range } [-(S/2 - 1), S/2] $$

    Args:
        num_channels: C, latent channels, each a quantization channel.
        num_symbols: S >= 2, alphabet size; symbol s stands for the integer s + minimum.

    Shape:
        latent: (batch, C, height, width). symbols: (batch, height, width, C), int64 in [0, S).

    Raises:
        ValueError: num_symbols < 2, num_channels < 1, or a number of active channels outside [0, C].

    References: Ballé et al., Variational image compression with a scale hyperprior (arXiv:1802.01436).

    Example:
        >>> latent_hat, symbols, bits = IntegerRounding(1, 8).eval()(torch.tensor([[[[0.6, -1.4]]]]))
        >>> latent_hat.flatten().tolist(), symbols.flatten().tolist(), bits.item()
        ([1.0, -1.0], [4, 2], 6.0)
    """

    def __init__(self, num_channels: int, num_symbols: int) -> None:
        super().__init__()
        check_alphabet(num_channels, num_symbols)
        self.num_channels, self.num_symbols = num_channels, num_symbols
        self.minimum = -(num_symbols // 2 - 1)
        self.maximum = self.minimum + num_symbols - 1

    def forward(
        self, latent: Tensor, active: int | Tensor | None = None, prior: DensityPrior | None = None
    ) -> QuantizedLatent:
        """Quantize a latent: with noise in training, by rounding in evaluation.

        Args:
            latent: (batch, C, h, w).
            active: active channels: one number for all images, or (batch,) in any order; None: all C.
            prior: a density that gives the bits; None: each symbol costs log2(S) bits.

        Returns:
            Noisy or rounded latent (batch, C, h, w), zero in inactive channels; symbols of the rounded latent (batch, h, w,
            C); bits (batch,), of the noisy latent in training.

        Raises:
            ValueError: active channels outside [0, C].
        """
        noisy = latent + torch.rand_like(latent) - 0.5 if self.training else latent.round()
        each = active_per_image(active, latent, self.num_channels)
        mask = active_mask(each, range(self.num_channels))[..., None, None]
        latent_hat = noisy.clamp(self.minimum, self.maximum) * mask
        symbols = self.symbols(latent) * mask.permute(0, 2, 3, 1)
        if prior is None:
            positions = latent.shape[2] * latent.shape[3]
            bits = each.to(latent.dtype) * (positions * math.log2(self.num_symbols))
        else:
            bits = (prior.bits(latent_hat) * mask).flatten(1).sum(1)
        return QuantizedLatent(latent_hat, symbols, bits)

    @torch.no_grad()
    def symbols(self, latent: Tensor) -> Tensor:
        """Return the symbols of a latent, rounded whatever the mode.

        Args:
            latent: (batch, C, h, w).

        Returns:
            Symbols, (batch, h, w, C), int64 in [0, S).
        """
        rounded = latent.round().clamp(self.minimum, self.maximum).long() - self.minimum
        return rounded.permute(0, 2, 3, 1).contiguous()

    @torch.no_grad()
    def dequantize(self, symbols: Tensor, num_active: int) -> Tensor:
        """Return the latent of the first ``num_active`` channels; the others are zero.

        Args:
            symbols: (batch, h, w, at least num_active), int64.
            num_active: active channels, 0 to C.

        Returns:
            Quantized latent, (batch, C, h, w), float32.

        Raises:
            ValueError: num_active outside [0, C].
        """
        check_active_channels(num_active, self.num_channels)
        batch, height, width, _ = symbols.shape
        shape = batch, self.num_channels, height, width
        latent = torch.zeros(shape, dtype=torch.float32, device=symbols.device)
        latent[:, :num_active] = (symbols[..., :num_active] + self.minimum).permute(0, 3, 1, 2).to(latent.dtype)
        return latent


class Identity(nn.Module):
    """No quantizer: the latent passes as it is. It has no symbols, and its rate counts as zero bits.

    Args:
        num_channels: C, latent channels.

    Shape:
        latent: (batch, C, height, width), returned unchanged but for inactive channels, which become zero.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels

    def forward(
        self, latent: Tensor, active: int | Tensor | None = None, prior: DensityPrior | None = None
    ) -> QuantizedLatent:
        """Pass a latent on.

        Args:
            latent: (batch, C, h, w).
            active: active channels: one number for all images, or (batch,) in any order; None: all C.
            prior: not used.

        Returns:
            The latent, symbols of no channel (batch, h, w, 0), and zero bits (batch,).

        Raises:
            ValueError: active channels outside [0, C].
        """
        batch, _, height, width = latent.shape
        symbols = torch.zeros(batch, height, width, 0, dtype=torch.int64, device=latent.device)
        bits = latent.new_zeros(batch)
        if active is not None:
            each = active_per_image(active, latent, self.num_channels)
            latent = latent * active_mask(each, range(self.num_channels))[..., None, None]
        return QuantizedLatent(latent, symbols, bits)

    def symbols(self, latent: Tensor) -> Tensor:
        """Refuse: there are no symbols.

        Raises:
            ValueError: always.
        """
        raise ValueError("a model without a quantizer has no symbols")

    def dequantize(self, symbols: Tensor, num_active: int) -> Tensor:
        """Refuse: there are no symbols.

        Raises:
            ValueError: always.
        """
        raise ValueError("a model without a quantizer has no symbols")
