"""src/ohmq/models/quantizers/directional.py."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ohmq.models.quantizers.one_hot_max import LOG_2

__all__ = ["DirectionalOneHotMax"]
SCALAR_BLOCK_ELEMENTS = 2**18
"""The same for scalar channels, all channels of a group together."""
LEAST_SCALE = 1e-6
"""Codewords that lie closer together than that have the price of such."""


class ScalarChoice(NamedTuple):
    """What `DirectionalOneHotMax.quantize` gives.

    Attributes:
        values: the codewords' places along their directions, shape (rows, channels).
        bits: ideal code length of each symbol, shape (rows, channels).
    """

    values: Tensor
    bits: Tensor


class _ScalarChoiceFunction(torch.autograd.Function):
    """Choose symbols of scalar channels and count their bits, block by block, the alphabet as the first axis.

    Inputs: projected (N, C), centres, values, logits (C, S), tau (C,), coefficients (N, C, 2) and features (C, S, 2), or
    None for the same table everywhere, and price (N, C), or None for nothing. The symbol with the least
    |projected - centre| + price * bits is chosen; the gradient is that of softmax(-tau (|projected - centre| + price * bits)),
    its bits held.
    """

    @staticmethod
    def forward(ctx, projected, centres, values, tau, logits, coefficients, features, price):  # type: ignore[no-untyped-def]
        chosen, bits = torch.empty_like(projected), torch.empty_like(projected)
        symbols, lengths = [], []
        for part in _scalar_blocks(*projected.shape, centres.shape[1]):
            log_p = logits.T[:, None]
            if coefficients is not None:
                first, second = features.permute(2, 1, 0)[:, :, None]
                log_p = torch.addcmul(log_p, coefficients[part, :, 0], first)
                log_p.addcmul_(coefficients[part, :, 1], second)
            log_p = torch.log_softmax(log_p, 0)
            cost = (projected[part] - centres.T[:, None]).abs_()
            if price is not None:
                cost.addcmul_(price[part], log_p, value=-1 / LOG_2)
            nearest = cost.argmin(0, keepdim=True)
            chosen[part] = values.T.gather(0, nearest[0])
            bits[part] = log_p.expand(-1, *nearest.shape[1:]).gather(0, nearest)[0]
            symbols.append(nearest)
            lengths.append(log_p)
        ctx.save_for_backward(projected, centres, values, tau, coefficients, features, price, *symbols, *lengths)
        return chosen, bits.mul_(-1 / LOG_2)

    @staticmethod
    def backward(ctx, grad_chosen, grad_bits):  # type: ignore[no-untyped-def]
        projected, centres, values, tau, coefficients, features, price, *blocks = ctx.saved_tensors
        symbols, lengths = blocks[: len(blocks) // 2], blocks[len(blocks) // 2 :]
        grad_projected, columns = torch.empty_like(projected), centres.T[:, None]
        grad_centres, grad_values, grad_logits, grad_first, grad_second = (
            torch.zeros_like(centres.T) for _ in range(5)
        )
        grad_coefficients = None if coefficients is None else torch.empty_like(coefficients)
        need_tau = ctx.needs_input_grad[3]
        grad_tau = torch.zeros_like(tau)
        grad_nats = grad_bits / LOG_2
        blocks = _scalar_blocks(*projected.shape, centres.shape[1])
        for part, nearest, log_p in zip(blocks, symbols, lengths, strict=True):
            through_value, through_bits = grad_chosen[part], grad_nats[part]
            distance = projected[part] - columns
            sign = distance.sign()
            scores = distance.abs_()
            if price is not None:
                scores.addcmul_(price[part], log_p, value=-1 / LOG_2)
            scores.mul_(-tau)
            choice = torch.softmax(scores, 0)
            gradient = torch.addcmul(through_value * values.T[:, None], log_p, through_bits, value=-1)
            gradient.sub_((choice * gradient).sum(0)).mul_(choice)
            if need_tau:
                grad_tau += (gradient * scores).sum((0, 1)) / tau
            gradient.mul_(sign).mul_(-tau)
            grad_projected[part] = gradient.sum(0)
            grad_centres -= gradient.sum(1)
            grad_values.scatter_add_(0, nearest[0], through_value)
            # bits = -log2 p[symbol]: the gradient of the logits is (p - one hot) / ln 2.
            of_logits = log_p.exp() * through_bits
            of_logits.scatter_add_(0, nearest, -through_bits[None])
            grad_logits += of_logits.sum(1)
            if coefficients is not None:
                for k, total in enumerate((grad_first, grad_second)):
                    total += (of_logits * coefficients[part, :, k]).sum(1)
                    grad_coefficients[part, :, k] = (of_logits * features[:, :, k].T[:, None]).sum(0)
        grad_features = None if features is None else torch.stack([grad_first.T, grad_second.T], -1)
        grads = (grad_centres.T, grad_values.T, grad_tau if need_tau else None, grad_logits.T)
        return (grad_projected, *grads, grad_coefficients, grad_features, None)


def _scalar_blocks(rows: int, channels: int, num_symbols: int) -> list[slice]:
    step = max(1, SCALAR_BLOCK_ELEMENTS // (channels * num_symbols))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


class DirectionalOneHotMax(nn.Module):
    r"""One-hot max whose activations and codewords lie along one direction a channel.

    $$ a_{c,s} = w_c \cdot z - t_{c,s}, \quad s^* = \arg\min_s |a_s|, \quad
       \partial\,\Omega \approx \partial\,\mathrm{softmax}_s(-\tau_c |a_s|), \quad
       \hat z = \beta + \textstyle\sum_{c < n} v_{c, s^*_c}\, d_c $$

    This is `OneHotMax` with the rows w of a channel tied and the codewords on a line: C (2 D + 2 S) parameters in place
    of C S (2 D + 1), and no product with D for each symbol. It is what one pass over one transform coefficient is. The
    latent has a sign: there is no ReLU.

    If it is priced, bits cost what they are worth when n channels are coded: $|a_s| + \kappa_{c,n} b_s$ is made small, with
    the symbol's bits b in its context and the price kappa of `price`. A decoder need not know of it.

    Args:
        num_channels: C. num_symbols: S >= 2. latent_channels: D. supports_rdoq: whether bits have a price.

    Shape:
        project (w), directions (d): (C, D). centres (t), values (v): (C, S). log_temperature (ln tau): (C,).
        bit_price, if supports_rdoq: (C,), squared units of the latent that a bit costs when n + 1 channels are coded.

    Raises:
        ValueError: num_symbols < 2 or num_channels < 1.

    References: Löhdefink et al., One-Hot Max (Ω) Quantization.
    """

    bit_price: Tensor

    def __init__(
        self, num_channels: int, num_symbols: int, latent_channels: int, *, supports_rdoq: bool = False
    ) -> None:
        super().__init__()
        if num_symbols < 2:
            raise ValueError(f"num_symbols is {num_symbols}; an alphabet has at least 2 symbols")
        if num_channels < 1:
            raise ValueError(f"num_channels is {num_channels}; at least 1 is needed")
        self.num_channels, self.num_symbols, self.latent_channels = num_channels, num_symbols, latent_channels
        self.project = nn.Parameter(nn.init.orthogonal_(torch.empty(num_channels, latent_channels)))
        self.directions = nn.Parameter(self.project.detach().clone())
        levels = [[float(symbol - num_symbols // 2) for symbol in range(num_symbols)]] * num_channels
        self.centres = nn.Parameter(torch.tensor(levels))
        self.values = nn.Parameter(torch.tensor(levels))
        self.log_temperature = nn.Parameter(torch.full((num_channels,), math.log(6.0)))
        self.output_bias = nn.Parameter(torch.zeros(latent_channels))
        self.supports_rdoq = supports_rdoq
        if supports_rdoq:
            self.register_buffer("bit_price", torch.zeros(num_channels))

    @torch.no_grad()
    def price(self, active: Tensor, channels: slice, num_symbols: int) -> Tensor:
        """What a bit of a symbol costs in each picture, on the scale of activations.

        Half of it, times the bits that two symbols differ in, moves the threshold between them.

        Args:
            active: how many channels are coded of each picture. channels: which. num_symbols: of their alphabet.

        Shape:
            active: (B,), int64, at least 1. Returns: (B, channels).
        """
        middle, values = num_symbols // 2, self.values[channels]
        spacing = (values[:, middle + 1] - values[:, middle - 1]) / 2
        scale = self.directions[channels].square().sum(1) * spacing
        return self.bit_price[active - 1][:, None] / scale.clamp_min(LEAST_SCALE)

    @torch.no_grad()
    def nearest(self, projected: Tensor, channels: slice, num_symbols: int | None = None) -> Tensor:
        """The symbols of the nearest centres among the first S, the argmin of |activations|; shape as projected, int64."""
        centres, order = self.centres[channels, :num_symbols].double().sort(-1)
        place = torch.zeros_like(projected, dtype=torch.uint8 if centres.shape[1] <= 256 else torch.int64)
        for middle in ((centres[:, 1:] + centres[:, :-1]) / 2).to(projected.dtype).T:
            place += projected > middle
        symbols = place.long()
        if (order.diff() > 0).all():
            return symbols
        return order.T.gather(0, symbols.flatten(0, -2)).view_as(symbols)

    @torch.no_grad()
    def nearest_values(self, projected: Tensor, channels: slice, num_symbols: int | None = None) -> Tensor:
        """The codewords' places that `quantize` would choose, without gradients; shape as projected."""
        symbols = self.nearest(projected, channels, num_symbols)
        return self.values[channels, :num_symbols].T.gather(0, symbols.flatten(0, -2)).view_as(projected)

    def quantize(
        self,
        projected: Tensor,
        channels: slice,
        logits: Tensor,
        coefficients: Tensor | None = None,
        features: Tensor | None = None,
        price: Tensor | None = None,
    ) -> ScalarChoice:
        """Choose among the first S symbols; gradients pass through the softmax.

        Args:
            projected: w · (what is to be quantized). channels: which.
            logits, coefficients, features: the tables, natural logarithms but for a constant:
                ``logits + coefficients · features``; without coefficients the same everywhere.
            price: what a bit of a symbol costs, in units of projected (see `DirectionalOneHotMax.price`); None: nothing.

        Shape:
            projected, price: (..., channels). logits: (channels, S). coefficients: (..., channels, 2).
            features: (channels, S, 2).
        """
        num_symbols = logits.shape[1]
        values, bits = _ScalarChoiceFunction.apply(
            projected.flatten(0, -2),
            self.centres[channels, :num_symbols],
            self.values[channels, :num_symbols],
            self.log_temperature[channels].exp(),
            logits,
            None if coefficients is None else coefficients.flatten(0, -3),
            features,
            None if price is None else price.flatten(0, -2),
        )
        return ScalarChoice(values.view_as(projected), bits.view_as(projected))

    @torch.no_grad()
    def codeword_sum(self, symbols: Tensor, channels: slice) -> Tensor:
        """The sum of the codewords of some channels, without the output bias.

        Shape:
            symbols: (..., channels), int64. Returns: (..., D).
        """
        values = self.values[channels].T.gather(0, symbols.flatten(0, -2)).view(symbols.shape)
        return values @ self.directions[channels]
