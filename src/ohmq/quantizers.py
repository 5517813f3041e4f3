"""Quantizers: one-hot max (OHM, Ω), integer rounding, and none.

A quantizer stands between the analysis and the synthesis transform. Each has ``forward`` for training (gradients
pass) and ``symbols`` / ``dequantize`` for coding. The channels of a latent are ordered: a picture coded with the
first ``n`` of them is a valid picture at a lower rate.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ohmq.channels import active_channels

__all__ = [
    "DirectionalOneHotMax",
    "Identity",
    "IntegerRounding",
    "OneHotMax",
    "QuantizedGroup",
    "active_channels",
    "one_hot_to_symbols",
    "symbols_to_one_hot",
]

BLOCK_ELEMENTS = 512 * 256
"""Activations worked on at a time: 512 KiB of float32, which stays in the second-level cache."""
SCALAR_BLOCK_ELEMENTS = 2**18
"""The same for scalar channels, all channels of a group together."""
LOG_2 = math.log(2)
LEAST_SCALE = 1e-6
"""Codewords that lie closer together than that have the price of such."""


class QuantizedGroup(NamedTuple):
    """What quantizing some channels gives.

    Attributes:
        latent: their sum of codewords, shape (positions, images, D).
        bits: ideal code length of their symbols, shape (positions, images), in bits.
        symbols: the symbols chosen, shape (channels, positions, images), int64; 0 where a channel is not active.
    """

    latent: Tensor
    bits: Tensor
    symbols: Tensor


def symbols_to_one_hot(symbols: Tensor, num_symbols: int) -> Tensor:
    """Symbols as one-hot vectors; the inverse of `one_hot_to_symbols`.

    Shape:
        symbols: (..., C), int64 in [0, S). Returns: (..., C, S), float32.

    Example:
        >>> symbols_to_one_hot(torch.tensor([2, 0]), 3)
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """
    return nn.functional.one_hot(symbols, num_symbols).to(torch.float32)


def one_hot_to_symbols(one_hot: Tensor) -> Tensor:
    """One-hot vectors as symbols; the inverse of `symbols_to_one_hot`.

    Shape:
        one_hot: (..., C, S). Returns: (..., C), int64.
    """
    return one_hot.argmax(-1)


def _with_ones(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(*x.shape[:-1], 1)], -1)


def _one_hot_places(positions: int, count: int, table: Tensor) -> Tensor:
    """Which row of the table each row of a (positions * count) block uses, one-hot: so that a product looks it up."""
    if table.shape[0] == 1:
        return table.new_ones(positions * count, 1)
    return torch.eye(positions, dtype=table.dtype, device=table.device).repeat_interleave(count, 0)


def _code_lengths(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits, -1).mul_(-1 / LOG_2)


class _OneHotMaxFunction(torch.autograd.Function):
    """Quantize, sum codewords and count bits, block by block, without ever storing an activation.

    The backward pass computes the activations of a block again and does everything that needs them while the block
    is in cache. With ``soft`` the softmax itself is the assignment (an exactly differentiable function, for tests).

    Inputs: latent (P, M, D), weight (C, S, D + 1; last column the bias), tau (C,), codewords (C, S, D),
    table (P or 1, C, S; bits, or natural-log logits with a context), coefficients (P, M, C, K) and features (C, S, K)
    or None, counts (C entries: images [0, counts[c]) use channel c).
    """

    @staticmethod
    def forward(ctx, latent, weight, tau, codewords, table, coefficients, features, counts, soft):  # type: ignore[no-untyped-def]
        positions, images, dim = latent.shape
        num_channels, num_symbols, _ = weight.shape
        total = latent.new_zeros(latent.shape)
        bits = latent.new_zeros(positions, images)
        symbols = torch.zeros(num_channels, positions, images, dtype=torch.int64, device=latent.device)
        augmented = _with_ones(latent)
        block_rows = max(64, BLOCK_ELEMENTS // num_symbols)
        for c, count in enumerate(counts):
            rows = augmented[:, :count].reshape(-1, dim + 1)
            place = _one_hot_places(positions, count, table)
            context = None if coefficients is None else torch.cat([coefficients[:, :count, c].flatten(0, 1), place], -1)
            values = table[:, c].T if context is None else torch.cat([features[c], table[:, c].T], -1)
            chosen, cost = [], []
            for block in range(0, rows.shape[0], block_rows):
                part = slice(block, block + block_rows)
                magnitude = (rows[part] @ weight[c].T).abs_()
                if soft:
                    assignment = torch.softmax(magnitude.mul_(-tau[c]), -1)
                    chosen.append(assignment @ codewords[c])
                    lengths = place[part] @ values.T if context is None else _code_lengths(context[part] @ values.T)
                    cost.append((assignment * lengths).sum(-1))
                    continue
                chosen.append(magnitude.argmin(-1))
                if context is not None:
                    lengths = _code_lengths(context[part] @ values.T)
                    cost.append(lengths.gather(1, chosen[-1][:, None])[:, 0])
            if not chosen:
                continue
            if soft:
                total[:, :count] += torch.cat(chosen).view(positions, count, dim)
            else:
                index = torch.cat(chosen)
                symbols[c, :, :count] = index.view(positions, count)
                total[:, :count] += codewords[c].index_select(0, index).view(positions, count, dim)
                if context is None:
                    cost.append(table[:, c].expand(positions, -1).gather(1, index.view(positions, count)).flatten())
            bits[:, :count] += torch.cat(cost).view(positions, count)
        ctx.save_for_backward(augmented, weight, tau, codewords, table, coefficients, features, symbols)
        ctx.counts, ctx.soft = counts, soft
        ctx.mark_non_differentiable(symbols)
        return total, bits, symbols

    @staticmethod
    def backward(ctx, grad_total, grad_bits, _grad_symbols):  # type: ignore[no-untyped-def]
        augmented, weight, tau, codewords, table, coefficients, features, symbols = ctx.saved_tensors
        soft, need_tau = ctx.soft, ctx.needs_input_grad[2]
        positions, _, dim = grad_total.shape
        num_symbols = weight.shape[1]
        num_features = 0 if features is None else features.shape[-1]
        grad_augmented, grad_weight = torch.zeros_like(augmented), torch.zeros_like(weight)
        grad_tau, grad_codewords, grad_table = (torch.zeros_like(x) for x in (tau, codewords, table))
        grad_coefficients = None if coefficients is None else torch.zeros_like(coefficients)
        grad_features = None if features is None else torch.zeros_like(features)
        block_rows = max(64, BLOCK_ELEMENTS // num_symbols)
        for c, count in enumerate(ctx.counts):
            if count == 0:
                continue
            rows = augmented[:, :count].reshape(-1, dim + 1)
            place = _one_hot_places(positions, count, table)
            grad_sum = grad_total[:, :count].reshape(-1, dim)
            grad_cost = grad_bits[:, :count].reshape(-1, 1)
            index = symbols[c, :, :count].reshape(-1)
            if coefficients is None:
                # One product gives a symbol's gradient through its codeword and through its code length.
                gradient = torch.cat([grad_sum, place * grad_cost], -1)
                values = torch.cat([codewords[c], table[:, c].T], -1)
            else:
                gradient, values = grad_sum, codewords[c]
                context = torch.cat([coefficients[:, :count, c].flatten(0, 1), place], -1)
                context_values = torch.cat([features[c], table[:, c].T], -1)
                grad_context, grad_context_values = torch.empty_like(context), torch.zeros_like(context_values)
            grad_values = torch.zeros_like(values)
            grad_rows = []
            for block in range(0, rows.shape[0], block_rows):
                part = slice(block, block + block_rows)
                activation = rows[part] @ weight[c].T
                sign = activation.sign()
                scores = activation.abs_().mul_(-tau[c])
                choice = torch.softmax(scores, -1)
                grad_choice = gradient[part] @ values.T
                if coefficients is not None:
                    log_p = torch.log_softmax(context[part] @ context_values.T, -1)
                    scale = grad_cost[part] * (1 / LOG_2)
                    grad_choice.addcmul_(log_p, scale, value=-1)
                    # bits = -log2 p[symbol]: the gradient of the logits is (p - choice) / ln 2.
                    grad_logits = log_p.exp_().sub_(choice).mul_(scale) if soft else log_p.exp_().mul_(scale)
                    if not soft:
                        grad_logits.scatter_add_(1, index[part, None], -scale)
                    torch.mm(grad_logits, context_values, out=grad_context[part])
                    grad_context_values.addmm_(grad_logits.T, context[part])
                if soft:
                    grad_values.addmm_(choice.T, gradient[part])
                # Backward through the softmax, in place: p * (g - <p, g>).
                inner = torch.linalg.vecdot(choice, grad_choice)[:, None]
                grad_scores = grad_choice.sub_(inner).mul_(choice)
                if need_tau:
                    grad_tau[c] += torch.dot(grad_scores.view(-1), scores.view(-1)) / tau[c]
                grad_activation = grad_scores.mul_(sign).mul_(-tau[c])
                grad_rows.append(grad_activation @ weight[c])
                grad_weight[c].addmm_(grad_activation.T, rows[part])
            grad_augmented[:, :count] += torch.cat(grad_rows).view(positions, count, dim + 1)
            if not soft:
                grad_values.index_add_(0, index, gradient)
            grad_codewords[c] = grad_values[:, :dim]
            if coefficients is None:
                grad_table[:, c] = grad_values[:, dim:].T
            else:
                grad_coefficients[:, :count, c] = grad_context[:, :num_features].view(positions, count, -1)
                grad_features[c] = grad_context_values[:, :num_features]
                grad_table[:, c] = grad_context_values[:, num_features:].T
        return (
            grad_augmented[..., :-1],
            grad_weight,
            grad_tau if need_tau else None,
            grad_codewords,
            grad_table,
            grad_coefficients,
            grad_features,
            None,
            None,
        )


class OneHotMax(nn.Module):
    r"""One-hot max (OHM, Ω) quantizer: one of S symbols per latent channel and position.

    The activation nearest zero wins; gradients follow a softmax; the latent is the sum of one codeword a channel:

    $$ a = W\,\mathrm{ReLU}(z) + b, \quad s^* = \arg\min_s |a_s|, \quad
       \partial\,\Omega \approx \partial\,\mathrm{softmax}_s(-\tau_c |a_s|), \quad
       \hat z = \mathrm{ReLU}(\beta + \textstyle\sum_{c < n} e_{c, s^*_c}) $$

    Args:
        num_channels: C, quantization channels.
        num_symbols: S >= 2, alphabet size. Fixed-length cost: log2(S) bits per symbol.
        latent_channels: D, channels of the latent before and after.
        learn_inverse_temperature: whether tau is trained (as published) or stays fixed.

    Shape:
        latent: (batch, D, height, width). symbols: (batch, height, width, C), int64 in [0, S).

    Raises:
        ValueError: num_symbols < 2, num_channels < 1, or a number of active channels outside [0, C].

    References: Löhdefink et al., One-Hot Max (Ω) Quantization.
    """

    def __init__(
        self, num_channels: int, num_symbols: int, latent_channels: int, *, learn_inverse_temperature: bool = True
    ) -> None:
        super().__init__()
        if num_symbols < 2:
            raise ValueError(f"num_symbols is {num_symbols}; an alphabet has at least 2 symbols")
        if num_channels < 1:
            raise ValueError(f"num_channels is {num_channels}; at least 1 is needed")
        self.num_channels, self.num_symbols, self.latent_channels = num_channels, num_symbols, latent_channels
        # As two 1x1 convolutions would start (PyTorch's default): uniform within 1 / sqrt(fan in).
        bound_in = 1 / math.sqrt(latent_channels)
        bound_out = 1 / math.sqrt(num_channels * num_symbols)
        self.weight = nn.Parameter(
            torch.empty(num_channels, num_symbols, latent_channels).uniform_(-bound_in, bound_in)
        )
        self.bias = nn.Parameter(torch.empty(num_channels, num_symbols).uniform_(-bound_in, bound_in))
        self.inverse_temperature = nn.Parameter(
            torch.full((num_channels,), 100.0), requires_grad=learn_inverse_temperature
        )
        self.codewords = nn.Parameter(
            torch.empty(num_channels, num_symbols, latent_channels).uniform_(-bound_out, bound_out)
        )
        self.output_bias = nn.Parameter(torch.empty(latent_channels).uniform_(-bound_out, bound_out))

    def initialise_scalar(self, directions: Tensor, offsets: Tensor, codeword_directions: Tensor, bias: Tensor) -> None:
        """Start as a uniform scalar quantizer of step 1: symbol s of channel c stands for s - S // 2.

        The quantized value of channel c is ``directions[c] · ReLU(z) + offsets[c]``; its codewords lie on a line along
        ``codeword_directions[c]``. The inverse temperature becomes 6 a step: sharp enough that the softmax
        hardly reaches beyond the two nearest symbols.

        Shape:
            directions, codeword_directions: (C, D). offsets: (C,). bias: (D,).
        """
        levels = torch.arange(self.num_symbols, dtype=directions.dtype) - self.num_symbols // 2
        with torch.no_grad():
            self.weight.copy_(directions[:, None, :].expand_as(self.weight))
            self.bias.copy_(offsets[:, None] - levels)
            self.codewords.copy_(codeword_directions[:, None, :] * levels[None, :, None])
            self.output_bias.copy_(bias)
            self.inverse_temperature.fill_(6.0)

    def quantize_group(
        self,
        latent: Tensor,
        active: Tensor,
        channels: range,
        table: Tensor,
        coefficients: Tensor | None = None,
        features: Tensor | None = None,
        *,
        soft: bool = False,
    ) -> QuantizedGroup:
        """Quantize a run of channels: the fast training path.

        Args:
            latent: ReLU(z), positions first, shape (P, M, D) for P positions of M images.
            active: number of active channels of each image, shape (M,), in descending order.
            channels: which channels, a range of step 1.
            table: shape (P or 1, len(channels), S): code lengths in bits without a context, natural-log logits with.
            coefficients: context coefficients, shape (P, M, len(channels), K), or None.
            features: features of the symbols, shape (len(channels), S, K), or None.
            soft: assign softly, as the gradient does (exactly differentiable; for tests and analysis).

        Returns:
            Codeword sums, bits and symbols of these channels.
        """
        part = slice(channels.start, channels.stop)
        counts = [int((active > c).sum()) for c in channels]
        weight = torch.cat([self.weight[part], self.bias[part, :, None]], -1)
        result = _OneHotMaxFunction.apply(
            latent,
            weight,
            self.inverse_temperature[part],
            self.codewords[part],
            table,
            coefficients,
            features,
            counts,
            soft,
        )
        return QuantizedGroup(*result)

    @torch.no_grad()
    def symbols(self, latent: Tensor, refine_groups: Sequence[int] = ()) -> Tensor:
        """The symbols of a latent, one a channel and position.

        Args:
            latent: shape (batch, D, h, w).
            refine_groups: channels of each group where a group sees what earlier ones left; empty: all see all of it.

        Shape:
            Returns: (batch, h, w, C), int64 in [0, S).
        """
        batch, dim, height, width = latent.shape
        rows = latent.relu().permute(0, 2, 3, 1).reshape(-1, dim)
        out = torch.empty(rows.shape[0], self.num_channels, dtype=torch.int64)
        block_rows = max(64, BLOCK_ELEMENTS // self.num_symbols)
        groups = tuple(refine_groups) or (self.num_channels,)
        for block in range(0, rows.shape[0], block_rows):
            part = slice(block, block + block_rows)
            residual, first = rows[part], 0
            for size in groups:
                channels = range(first, first + size)
                for c in channels:
                    out[part, c] = torch.addmm(self.bias[c], residual, self.weight[c].T).abs_().argmin(-1)
                first += size
                if first < self.num_channels:
                    for c in channels:
                        residual = residual - self.codewords[c].index_select(0, out[part, c])
        return out.view(batch, height, width, self.num_channels)

    @torch.no_grad()
    def dequantize(self, symbols: Tensor, num_active: int) -> Tensor:
        """The latent that the first ``num_active`` channels of the symbols stand for.

        Shape:
            symbols: (batch, h, w, at least num_active), int64. Returns: (batch, D, h, w).

        Raises:
            ValueError: num_active outside [0, C].
        """
        _check_active(num_active, self.num_channels)
        batch, height, width, _ = symbols.shape
        offsets = torch.arange(num_active) * self.num_symbols
        index = symbols[..., :num_active].reshape(batch * height * width, num_active) + offsets
        total = self.output_bias.expand(index.shape[0], -1)
        if num_active:
            total = total + nn.functional.embedding_bag(index, self.codewords.flatten(0, 1), mode="sum")
        return total.relu().view(batch, height, width, -1).permute(0, 3, 1, 2)


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
        num_channels: C. num_symbols: S >= 2. latent_channels: D. priced: whether bits have a price.

    Shape:
        project (w), directions (d): (C, D). centres (t), values (v): (C, S). log_temperature (ln tau): (C,).
        bit_price, if priced: (C,), squared units of the latent that a bit costs when n + 1 channels are coded.

    Raises:
        ValueError: num_symbols < 2 or num_channels < 1.

    References: Löhdefink et al., One-Hot Max (Ω) Quantization.
    """

    bit_price: Tensor

    def __init__(self, num_channels: int, num_symbols: int, latent_channels: int, *, priced: bool = False) -> None:
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
        self.priced = priced
        if priced:
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


def _check_active(num_active: int, num_channels: int) -> None:
    if not 0 <= num_active <= num_channels:
        raise ValueError(f"active channels: {num_active}; this quantizer has {num_channels}")


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
