"""The one-hot max (OHM, Ω) quantizer: a layer that never stores its activations."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ohmq.models.priors.tables import GroupContext, TablePrior, begin_prior
from ohmq.models.quantizers.quantized_latent import (
    QuantizedLatent,
    check_active_channels,
    check_alphabet,
    groups_of,
    images_by_active,
)

__all__ = ["OneHotMax", "QuantizedGroup", "one_hot_to_symbols", "symbols_to_one_hot"]

BLOCK_ELEMENTS = 512 * 256
"""Activations worked on at a time: 512 KiB of float32, which stays in the second-level cache."""
LOG_2 = math.log(2)


class QuantizedGroup(NamedTuple):
    """Codewords, bits and symbols of a run of quantized channels.

    Attributes:
        latent: sum of their codewords, (positions, images, D).
        bits: ideal code length of their symbols, (positions, images), in bits.
        symbols: their symbols, (channels, positions, images), int64; 0 where a channel is not active.
    """

    latent: Tensor
    bits: Tensor
    symbols: Tensor


def symbols_to_one_hot(symbols: Tensor, num_symbols: int) -> Tensor:
    """Return symbols as one-hot vectors; the inverse of `one_hot_to_symbols`.

    Args:
        symbols: (..., C), int64 in [0, S).
        num_symbols: S, alphabet size.

    Returns:
        One-hot vectors, (..., C, S), float32.

    Example:
        >>> symbols_to_one_hot(torch.tensor([2, 0]), 3)
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """
    return nn.functional.one_hot(symbols, num_symbols).to(torch.float32)


def one_hot_to_symbols(one_hot: Tensor) -> Tensor:
    """Return one-hot vectors as symbols; the inverse of `symbols_to_one_hot`.

    Args:
        one_hot: (..., C, S).

    Returns:
        Symbols, (..., C), int64.
    """
    return one_hot.argmax(-1)


def _with_ones(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(*x.shape[:-1], 1)], -1)


def _one_hot_places(positions: int, count: int, table: Tensor) -> Tensor:
    """Return the row of the table that each row of a (positions * count) block uses, one-hot: a product then looks it up."""
    if table.shape[0] == 1:
        return table.new_ones(positions * count, 1)
    return torch.eye(positions, dtype=table.dtype, device=table.device).repeat_interleave(count, 0)


def _code_lengths(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits, -1).mul_(-1 / LOG_2)


class _OneHotMaxFunction(torch.autograd.Function):
    """Quantize, sum codewords and count bits, block by block, without storing activations.

    The backward pass computes the activations of a block again, and finishes with them while the block is in cache. With
    ``soft`` the softmax itself is the assignment (an exactly differentiable function, for tests).

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

    Channels are ordered: the first n of them are enough for a valid latent at a lower rate. Each image of a batch may have
    its own n.

    Args:
        num_channels: C, quantization channels.
        num_symbols: S >= 2, alphabet size. Fixed-length cost: log2(S) bits per symbol.
        latent_channels: D, channels of the latent before and after.
        learn_inverse_temperature: whether tau is trained (as published) or stays fixed.
        group_sizes: channels of each channel-conditional group, sum C; None: those of the prior, else one group.
        residual_quantization: whether the activations of a group see the latent minus the codewords of earlier groups,
            instead of the whole latent (as published). Decoding is the same.

    Shape:
        latent: (batch, D, height, width). symbols: (batch, height, width, C), int64 in [0, S).

    Raises:
        ValueError: num_symbols < 2, num_channels < 1, groups that do not sum to C, or a number of active channels outside
            [0, C].

    References: Löhdefink et al., One-Hot Max (Ω) Quantization.

    Example:
        >>> latent = torch.randn(2, 8, 3, 3)
        >>> latent_hat, symbols, bits = OneHotMax(num_channels=4, num_symbols=16, latent_channels=8)(latent)
        >>> latent_hat.shape, symbols.shape, bits.tolist()
        (torch.Size([2, 8, 3, 3]), torch.Size([2, 3, 3, 4]), [144.0, 144.0])
    """

    def __init__(
        self,
        num_channels: int,
        num_symbols: int,
        latent_channels: int,
        *,
        learn_inverse_temperature: bool = True,
        group_sizes: Sequence[int] | None = None,
        residual_quantization: bool = False,
    ) -> None:
        super().__init__()
        check_alphabet(num_channels, num_symbols)
        self.num_channels, self.num_symbols, self.latent_channels = num_channels, num_symbols, latent_channels
        self.group_sizes = None if group_sizes is None else groups_of(num_channels, tuple(group_sizes), None)
        self.residual_quantization = residual_quantization
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

    def forward(
        self,
        latent: Tensor,
        active: int | Tensor | None = None,
        prior: TablePrior | None = None,
        *,
        soft: bool = False,
    ) -> QuantizedLatent:
        """Quantize a latent; gradients follow the softmax.

        Args:
            latent: (batch, D, h, w).
            active: active channels: one number for all images, or (batch,) in any order; None: all C.
            prior: a prior whose tables give the bits of the symbols, such as `StaticPrior` or `ContextPrior`; None: each symbol
                costs log2(S) bits.
            soft: assign softly, as the gradient does (exactly differentiable; for tests and analysis). Symbols are then 0.

        Returns:
            Quantized latent (batch, D, h, w), symbols (batch, h, w, C) and bits (batch,).

        Raises:
            ValueError: active channels outside [0, C], or a prior with other groups or another alphabet.
        """
        batch, dim, height, width = latent.shape
        groups = groups_of(self.num_channels, self.group_sizes, None if prior is None else prior.group_sizes)
        images = images_by_active(active, latent, self.num_channels)
        # Positions first, and images with many active channels first: each channel works on a leading block of images.
        rows = images.sort(latent).relu().permute(2, 3, 0, 1).reshape(height * width, batch, dim)
        tables_of = begin_prior(prior, latent, self.num_symbols)
        total, bits = torch.zeros_like(rows), rows.new_zeros(height * width, batch)
        symbols = rows.new_zeros((self.num_channels, height * width, batch), dtype=torch.int64)
        start = 0
        for group, size in enumerate(groups):
            used = images.reaching(start)
            if used == 0:
                break
            channels = range(start, start + size)
            codewords = total[:, :used].view(height, width, used, dim)
            tables = tables_of(self._group_context(group, channels, codewords, rows[:, :used]))
            coefficients, table = tables.coefficients, tables.logits
            if table.shape[-1] != self.num_symbols:
                raise ValueError(f"the prior has {table.shape[-1]} symbols for a group of {self.num_symbols}")
            if coefficients is None:
                table = tables.bits()
            else:
                coefficients = coefficients.permute(1, 2, 0, 3, 4).flatten(0, 1)
            source = rows[:, :used] - total[:, :used] if self.residual_quantization else rows[:, :used]
            quantized = self.quantize_group(
                source, images.active[:used], channels, table, coefficients, tables.features, soft=soft
            )
            total = total + nn.functional.pad(quantized.latent, (0, 0, 0, batch - used))
            bits = bits + nn.functional.pad(quantized.bits, (0, batch - used))
            symbols[start : start + size, :, :used] = quantized.symbols
            start += size
        latent_hat = images.restore((total + self.output_bias).relu(), 1).view(height, width, batch, dim)
        symbols = images.restore(symbols, 2).view(self.num_channels, height, width, batch)
        return QuantizedLatent(
            latent_hat.permute(2, 3, 0, 1), symbols.permute(3, 1, 2, 0).contiguous(), images.restore(bits.sum(0))
        )

    def _group_context(self, group: int, channels: range, codewords: Tensor, rows: Tensor) -> GroupContext:
        """Return the decoded data of a group; codewords (h, w, images, D), rows of the latent (positions, images, D)."""
        part = slice(channels.start, channels.stop)
        height, width, images, _ = codewords.shape

        def own() -> Tensor:
            """Project on the mean of a channel's rows: where they are tied, as at a scalar start, on the row itself."""
            return codewords.permute(2, 0, 1, 3) @ self.weight[part].mean(1).T

        def values() -> Tensor:
            with torch.no_grad():
                source = rows - codewords.flatten(0, 1) if self.residual_quantization else rows
                levels = torch.stack([self._nearest(source.flatten(0, 1), c) for c in channels], -1)
                levels = levels.to(codewords.dtype) - self.num_symbols // 2
            return levels.view(height, width, images, -1).permute(2, 0, 1, 3)

        return GroupContext(group, part, codewords.permute(2, 0, 1, 3), own, values)

    def initialise_scalar(self, directions: Tensor, offsets: Tensor, codeword_directions: Tensor, bias: Tensor) -> None:
        """Start as a uniform scalar quantizer of step 1: symbol s of channel c stands for s - S // 2.

        The quantized value of channel c is ``directions[c] · ReLU(z) + offsets[c]``; its codewords lie on a line along
        ``codeword_directions[c]``. The inverse temperature becomes 6 a step: sharp enough that the softmax
        hardly reaches beyond the two nearest symbols.

        Args:
            directions: direction of each channel in the latent, (C, D).
            offsets: added to each channel's quantized value, (C,).
            codeword_directions: codeword of one step of each channel, (C, D).
            bias: output bias, (D,).
        """
        levels = (
            torch.arange(self.num_symbols, dtype=directions.dtype, device=directions.device) - self.num_symbols // 2
        )
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
        """Quantize a run of channels, the inner step of `forward`.

        Args:
            latent: ReLU(z), or its residual after earlier groups; positions first, (P, M, D) for P positions of M images.
            active: active channels of each image, (M,), in descending order.
            channels: the channels, a range of step 1.
            table: (P or 1, len(channels), S): code lengths in bits without a context, natural-log logits with one.
            coefficients: context coefficients, (P, M, len(channels), K), or None.
            features: features of the symbols, (len(channels), S, K), or None.
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

    def _nearest(self, rows: Tensor, channel: int) -> Tensor:
        """Return the symbols of a channel whose activations are nearest to zero; rows (n, D) to (n,)."""
        return torch.addmm(self.bias[channel], rows, self.weight[channel].T).abs_().argmin(-1)

    @torch.no_grad()
    def symbols(self, latent: Tensor, residual_groups: Sequence[int] | None = None) -> Tensor:
        """Return the symbols of a latent, all channels: the coding path, without gradients.

        Args:
            latent: (batch, D, h, w).
            residual_groups: channels of each group of residual quantization; empty: every channel sees the whole latent;
                None: as the layer was made.

        Returns:
            Symbols, (batch, h, w, C), int64 in [0, S).
        """
        batch, dim, height, width = latent.shape
        rows = latent.relu().permute(0, 2, 3, 1).reshape(-1, dim)
        out = torch.empty(rows.shape[0], self.num_channels, dtype=torch.int64, device=latent.device)
        block_rows = max(64, BLOCK_ELEMENTS // self.num_symbols)
        if residual_groups is None:
            residual_groups = self.group_sizes or () if self.residual_quantization else ()
        groups = tuple(residual_groups) or (self.num_channels,)
        for block in range(0, rows.shape[0], block_rows):
            part = slice(block, block + block_rows)
            residual, first = rows[part], 0
            for size in groups:
                channels = range(first, first + size)
                for c in channels:
                    out[part, c] = self._nearest(residual, c)
                first += size
                if first < self.num_channels:
                    for c in channels:
                        residual = residual - self.codewords[c].index_select(0, out[part, c])
        return out.view(batch, height, width, self.num_channels)

    @torch.no_grad()
    def dequantize(self, symbols: Tensor, num_active: int) -> Tensor:
        """Return the latent of the first ``num_active`` channels of the symbols.

        Args:
            symbols: (batch, h, w, at least num_active), int64.
            num_active: active channels, 0 to C.

        Returns:
            Quantized latent, (batch, D, h, w).

        Raises:
            ValueError: num_active outside [0, C].
        """
        check_active_channels(num_active, self.num_channels)
        batch, height, width, _ = symbols.shape
        offsets = torch.arange(num_active, device=symbols.device) * self.num_symbols
        index = symbols[..., :num_active].reshape(batch * height * width, num_active) + offsets
        total = self.output_bias.expand(index.shape[0], -1)
        if num_active:
            total = total + nn.functional.embedding_bag(index, self.codewords.flatten(0, 1), mode="sum")
        return total.relu().view(batch, height, width, -1).permute(0, 3, 1, 2)
