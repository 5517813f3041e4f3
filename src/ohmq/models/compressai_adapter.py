"""One-hot max where CompressAI's ``EntropyBottleneck`` stands; CompressAI itself is not needed.

    y ─► OneHotMaxBottleneck ─► y_hat, likelihoods          (as EntropyBottleneck)
           └ OneHotMax + prior

In a CompressAI model, put it in place of ``self.entropy_bottleneck = EntropyBottleneck(N)``:

    self.entropy_bottleneck = OneHotMaxBottleneck(OneHotMax(C, S, N), StaticPrior(C, S))

Its interface beside that of ``compressai.entropy_models.EntropyBottleneck`` (CompressAI 1.2):

| EntropyBottleneck                        | here                                                                       |
|------------------------------------------|----------------------------------------------------------------------------|
| ``y_hat, likelihoods = module(y)``       | the same; likelihoods have the C quantization channels, not those of y     |
| ``module(y, training)``                  | accepted; one-hot max quantizes alike in training and evaluation           |
| ``update(force, update_quantiles)``      | the same: makes the integer tables; True if it did                         |
| ``compress(y)``                          | the same: a list with the bytes of each image                              |
| ``decompress(strings, size)``            | the same: y_hat                                                            |
| ``loss()``                               | the same; always 0, for there are no quantiles to fit                      |
| ``quantize``, ``dequantize``, ``*_cdf``  | absent: the alphabet is finite, without offsets and tails                  |

``CompressionModel.update`` and ``aux_loss`` of CompressAI find modules by the class ``EntropyBottleneck``, which this module is
not: call its ``update()`` yourself before ``compress``. The integer tables are part of its state_dict.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohmq.entropy import SymbolDecoder, SymbolEncoder, quantize_probabilities
from ohmq.entropy.context_prior import BORDER_CLASSES, border_classes
from ohmq.models.priors.static import StaticPrior
from ohmq.models.quantizers.one_hot_max import OneHotMax
from ohmq.models.quantizers.quantized_latent import QuantizedLatent

__all__ = ["BottleneckOutput", "OneHotMaxBottleneck"]


class BottleneckOutput(NamedTuple):
    """Quantized latent and likelihoods, as an entropy bottleneck of CompressAI returns them.

    Attributes:
        y_hat: quantized latent, (batch, D, h, w).
        likelihoods: (batch, C, h, w), in (0, 1]. Each is the geometric mean of the probabilities of the image's symbols, so that
            the sum of -log2 over an image is its ideal code length, with its gradient.
    """

    y_hat: Tensor
    likelihoods: Tensor


class OneHotMaxBottleneck(nn.Module):
    """One-hot max with the call of CompressAI's ``EntropyBottleneck``.

    Args:
        quantizer: the one-hot max layer.
        prior: prior of its symbols. ``compress`` needs a `StaticPrior` or None, whose tables depend on no decoded channel.

    Shape:
        y: (batch, D, h, w). likelihoods: (batch, C, h, w).

    References: Bégaint et al., CompressAI (arXiv:2011.03029).

    Example:
        >>> module = OneHotMaxBottleneck(OneHotMax(4, 16, 8), StaticPrior(4, 16))
        >>> y_hat, likelihoods = module(torch.randn(2, 8, 3, 3))
        >>> module.update()
        True
        >>> strings = module.compress(torch.randn(2, 8, 3, 3))
        >>> module.decompress(strings, (3, 3)).shape
        torch.Size([2, 8, 3, 3])
    """

    frequencies: Tensor

    def __init__(self, quantizer: OneHotMax, prior: StaticPrior | None = None) -> None:
        super().__init__()
        self.quantizer, self.prior = quantizer, prior
        # All zero: not made yet. As a buffer, the tables travel in the state_dict: decode with the tables of the encoder.
        shape = (BORDER_CLASSES, quantizer.num_channels, quantizer.num_symbols)
        self.register_buffer("frequencies", torch.zeros(shape, dtype=torch.int64))

    def forward(
        self, y: Tensor, training: bool | None = None, *, active: int | Tensor | None = None
    ) -> BottleneckOutput:
        """Quantize a latent; gradients pass.

        Args:
            y: latent, (batch, D, h, w).
            training: not used; there for the call of CompressAI.
            active: active channels: one number for all images, or (batch,) in any order; None: all C.

        Returns:
            Quantized latent and likelihoods.
        """
        quantized: QuantizedLatent = self.quantizer(y, active, self.prior)
        shape = (len(y), self.quantizer.num_channels, *y.shape[2:])
        mean_bits = quantized.bits / max(1, shape[1] * shape[2] * shape[3])
        likelihoods = torch.exp2(-mean_bits)[:, None, None, None].expand(shape)
        return BottleneckOutput(quantized.latent_hat, likelihoods)

    def loss(self) -> Tensor:
        """Return the auxiliary loss, 0: one-hot max has no quantiles to fit."""
        return self.quantizer.output_bias.new_zeros(())

    @torch.no_grad()
    def update(self, force: bool = False, update_quantiles: bool = False) -> bool:
        """Make the integer tables that `compress` and `decompress` use.

        Args:
            force: make them even if they are there, as after more training.
            update_quantiles: not used; there for the call of CompressAI.

        Returns:
            Whether they were made.

        Raises:
            ValueError: a prior whose tables depend on decoded channels.
        """
        if not force and bool(self.frequencies.any()):
            return False
        if self.prior is None:
            probabilities = np.ones(self.frequencies.shape)
        elif self.prior.group_sizes is not None:
            raise ValueError(
                "compress needs tables that depend on no decoded channel: use a StaticPrior, or a codec of ohmq"
            )
        else:
            logits = self.prior.class_logits()
            probabilities = logits.exp().cpu().numpy()
        self.frequencies.copy_(torch.from_numpy(quantize_probabilities(probabilities)))
        return True

    def compress(self, y: Tensor) -> list[bytes]:
        """Entropy code the symbols of a latent.

        Args:
            y: latent, (batch, D, h, w).

        Returns:
            The bytes of each image.

        Raises:
            ValueError: there are no tables yet.
        """
        symbols = self.quantizer.symbols(y).flatten(1, 2).cpu().numpy()
        tables, index = self._tables(y.shape[2:])
        strings = []
        for image in symbols:
            encoder = SymbolEncoder()
            for channel in range(self.quantizer.num_channels):
                encoder.encode(image[:, channel], tables[:, channel], index)
            strings.append(encoder.finish())
        return strings

    def decompress(self, strings: Sequence[bytes], size: Sequence[int]) -> Tensor:
        """Decode the bytes of `compress`.

        Args:
            strings: the bytes of each image.
            size: height and width of the latent.

        Returns:
            Quantized latent, (batch, D, h, w).

        Raises:
            ValueError: there are no tables yet.
            BitstreamError: bytes that no encoder writes.
        """
        height, width = size
        tables, index = self._tables(size)
        symbols = np.empty((len(strings), height * width, self.quantizer.num_channels), np.int64)
        for image, string in zip(symbols, strings, strict=True):
            decoder = SymbolDecoder(string)
            for channel in range(self.quantizer.num_channels):
                image[:, channel] = decoder.decode(tables[:, channel], index, height * width)
        on_grid = torch.from_numpy(symbols).view(len(strings), height, width, -1).to(self.frequencies.device)
        return self.quantizer.dequantize(on_grid, self.quantizer.num_channels)

    def _tables(self, size: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return the tables (classes, C, S) and the class of each position."""
        if not bool(self.frequencies.any()):
            raise ValueError("there are no tables yet: call update() first")
        height, width = size
        return self.frequencies.cpu().numpy(), border_classes(height, width)
