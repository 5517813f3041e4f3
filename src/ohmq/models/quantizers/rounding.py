"""Quantizers: one-hot max (OHM, Ω), integer rounding, and none.

A quantizer stands between the analysis and the synthesis transform. Each has ``forward`` for training (gradients
pass) and ``symbols`` / ``dequantize`` for coding. The channels of a latent are ordered: a picture coded with the
first ``n`` of them is a valid picture at a lower rate.
"""

import torch
from torch import Tensor, nn

from ohmq.models.quantizers.one_hot_max import _check_active

__all__ = ["Identity", "IntegerRounding"]


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
        ValueError: num_symbols < 2.

    References: Ballé et al., Variational image compression with a scale hyperprior (arXiv:1802.01436).
    """

    def __init__(self, num_channels: int, num_symbols: int) -> None:
        super().__init__()
        if num_symbols < 2:
            raise ValueError(f"num_symbols is {num_symbols}; an alphabet has at least 2 symbols")
        self.num_channels, self.num_symbols = num_channels, num_symbols
        self.minimum = -(num_symbols // 2 - 1)
        self.maximum = self.minimum + num_symbols - 1

    def forward(self, latent: Tensor) -> Tensor:
        """The noisy (training) or rounded (evaluation) latent, clamped; same shape."""
        noisy = latent + torch.rand_like(latent) - 0.5 if self.training else latent.round()
        return noisy.clamp(self.minimum, self.maximum)

    @torch.no_grad()
    def symbols(self, latent: Tensor) -> Tensor:
        """Symbols of a latent; shapes as in the class."""
        rounded = latent.round().clamp(self.minimum, self.maximum).long() - self.minimum
        return rounded.permute(0, 2, 3, 1).contiguous()

    @torch.no_grad()
    def dequantize(self, symbols: Tensor, num_active: int) -> Tensor:
        """The latent of the first ``num_active`` channels; the others are zero.

        Shape:
            symbols: (batch, h, w, at least num_active). Returns: (batch, C, h, w).
        """
        _check_active(num_active, self.num_channels)
        batch, height, width, _ = symbols.shape
        latent = torch.zeros(batch, self.num_channels, height, width)
        latent[:, :num_active] = (symbols[..., :num_active] + self.minimum).permute(0, 3, 1, 2).to(latent.dtype)
        return latent


class Identity(nn.Module):
    """No quantizer: the latent passes as it is. Its rate is not defined (counted as zero bits).

    Shape:
        latent: (batch, C, height, width), returned unchanged.
    """

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels

    def forward(self, latent: Tensor) -> Tensor:
        """The latent, unchanged."""
        return latent
