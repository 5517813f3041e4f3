"""A quantizer and its prior as one layer, for a model of your own."""

from typing import Any

from torch import Tensor, nn

from ohmq.models.quantizers.quantized_latent import QuantizedLatent

__all__ = ["Bottleneck"]


class Bottleneck(nn.Module):
    """A quantizer together with the prior of its symbols, both trained.

    The models of `ohmq` keep the two apart, because their checkpoints name them so; a model of your own can use this layer.

    Args:
        quantizer: a quantizer layer, such as `OneHotMax`.
        prior: its prior, such as `StaticPrior`; None: the fixed-length code.

    Shape:
        latent: (batch, D, height, width). active: an int, (batch,), or None for all channels.

    Example:
        >>> import torch
        >>> from ohmq.models.priors.static import StaticPrior
        >>> from ohmq.models.quantizers.one_hot_max import OneHotMax
        >>> layer = Bottleneck(OneHotMax(4, 16, 8), StaticPrior(4, 16))
        >>> latent_hat, symbols, bits = layer(torch.randn(2, 8, 3, 3), active=torch.tensor([1, 4]))
        >>> latent_hat.shape, symbols.shape, bits.shape
        (torch.Size([2, 8, 3, 3]), torch.Size([2, 3, 3, 4]), torch.Size([2]))
    """

    def __init__(self, quantizer: nn.Module, prior: nn.Module | None = None) -> None:
        super().__init__()
        self.quantizer = quantizer
        self.prior = prior

    def forward(self, latent: Tensor, active: int | Tensor | None = None, **options: Any) -> QuantizedLatent:
        """Quantize a latent; gradients pass.

        Args:
            latent: (batch, D, h, w).
            active: active channels: one number for all images, or (batch,) in any order; None: all channels.
            options: further arguments of the quantizer.

        Returns:
            Quantized latent, symbols and bits.
        """
        result: QuantizedLatent = self.quantizer(latent, active, self.prior, **options)
        return result
