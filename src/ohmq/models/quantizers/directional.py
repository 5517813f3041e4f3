"""One-hot max along one direction a channel: the quantizer of the photo codec, with rate–distortion optimised choice."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ohmq.models.priors.tables import GroupContext, GroupTables, TableFunction, TablePrior, begin_prior
from ohmq.models.quantizers.one_hot_max import LOG_2
from ohmq.models.quantizers.quantized_latent import (
    QuantizedLatent,
    active_mask,
    check_active_channels,
    check_alphabet,
    groups_of,
    images_by_active,
)

__all__ = ["DirectionalOneHotMax", "ScalarChoice"]

SCALAR_BLOCK_ELEMENTS, ACCELERATOR_BLOCK_ELEMENTS = 2**18, 2**28
"""Activations worked on at a time, all channels of a group together: what a CPU's cache holds; on an accelerator, all."""
LEAST_SCALE = 1e-6
"""Lower bound on codeword spacing when scaling λ, in squared units of the latent."""
ROWS_AT_ONCE = 4096
"""Positions that are quantized at a time for coding."""


class ScalarChoice(NamedTuple):
    """Quantized values, bits and symbols of scalar channels.

    Attributes:
        values: places of the codewords along their directions, (rows, channels).
        bits: ideal code length of each symbol, (rows, channels).
        symbols: the symbols, (rows, channels), int64.
    """

    values: Tensor
    bits: Tensor
    symbols: Tensor


def _lagrange_cost(distance: Tensor, log_p: Tensor, weight: Tensor | None) -> Tensor:
    """Return |a| + κ b in place of the distance |a|: the one statement of the RDOQ cost in training.

    Args:
        distance: |a|, (S, rows, channels); overwritten.
        log_p: natural logarithm of each symbol's probability, shape as distance, or 1 in place of rows.
        weight: κ, (rows, channels); None: bits do not count.
    """
    return distance if weight is None else distance.addcmul_(weight, log_p, value=-1 / LOG_2)


class _ScalarChoiceFunction(torch.autograd.Function):
    """Choose symbols of scalar channels and count their bits, block by block, the alphabet as the first axis.

    Inputs: projected (N, C), centres and values (C, S), tau (C,), logits (C, S) or (N, C, S), coefficients (N, C, K) and
    features (C, S, K), or None for tables that do not depend on the image, and rdoq_weight κ (N, C), or None for zero. The
    symbol with the least |projected - centre| + κ bits is chosen; the gradient is that of
    softmax(-tau (|projected - centre| + κ bits)), its bits held constant.
    """

    @staticmethod
    def forward(ctx, projected, centres, values, tau, logits, coefficients, features, rdoq_weight):  # type: ignore[no-untyped-def]
        chosen, bits = torch.empty_like(projected), torch.empty_like(projected)
        index = torch.empty(projected.shape, dtype=torch.int64, device=projected.device)
        symbols, lengths = [], []
        for part in _scalar_blocks(projected, centres.shape[1]):
            log_p = logits.T[:, None] if logits.dim() == 2 else logits[part].permute(2, 0, 1)
            if coefficients is not None:
                first, *others = features.permute(2, 1, 0)[:, :, None]
                log_p = torch.addcmul(log_p, coefficients[part, :, 0], first)
                for k, feature in enumerate(others, start=1):
                    log_p.addcmul_(coefficients[part, :, k], feature)
            log_p = torch.log_softmax(log_p, 0)
            distance = (projected[part] - centres.T[:, None]).abs_()
            weight = None if rdoq_weight is None else rdoq_weight[part]
            nearest = _lagrange_cost(distance, log_p, weight).argmin(0, keepdim=True)
            index[part] = nearest[0]
            chosen[part] = values.T.gather(0, nearest[0])
            bits[part] = log_p.expand(-1, *nearest.shape[1:]).gather(0, nearest)[0]
            symbols.append(nearest)
            lengths.append(log_p)
        ctx.save_for_backward(projected, centres, values, tau, coefficients, features, rdoq_weight, *symbols, *lengths)
        ctx.logits_shape = logits.shape
        ctx.mark_non_differentiable(index)
        return chosen, bits.mul_(-1 / LOG_2), index

    @staticmethod
    def backward(ctx, grad_chosen, grad_bits, _grad_symbols):  # type: ignore[no-untyped-def]
        projected, centres, values, tau, coefficients, features, rdoq_weight, *blocks = ctx.saved_tensors
        symbols, lengths = blocks[: len(blocks) // 2], blocks[len(blocks) // 2 :]
        grad_projected, columns = torch.empty_like(projected), centres.T[:, None]
        grad_centres, grad_values = torch.zeros_like(centres.T), torch.zeros_like(centres.T)
        grad_logits = projected.new_zeros(ctx.logits_shape)
        grad_features = None if features is None else torch.zeros_like(features)
        grad_coefficients = None if coefficients is None else torch.empty_like(coefficients)
        need_tau = ctx.needs_input_grad[3]
        grad_tau = torch.zeros_like(tau)
        grad_nats = grad_bits / LOG_2
        blocks = _scalar_blocks(projected, centres.shape[1])
        for part, nearest, log_p in zip(blocks, symbols, lengths, strict=True):
            through_value, through_bits = grad_chosen[part], grad_nats[part]
            distance = projected[part] - columns
            sign = distance.sign()
            weight = None if rdoq_weight is None else rdoq_weight[part]
            scores = _lagrange_cost(distance.abs_(), log_p, weight).mul_(-tau)
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
            through_logits = log_p.exp() * through_bits
            through_logits.scatter_add_(0, nearest, -through_bits[None])
            if grad_logits.dim() == 2:
                grad_logits += through_logits.sum(1).T
            else:
                grad_logits[part] = through_logits.permute(1, 2, 0)
            if coefficients is not None:
                for k in range(features.shape[-1]):
                    grad_features[:, :, k] += (through_logits * coefficients[part, :, k]).sum(1).T
                    grad_coefficients[part, :, k] = (through_logits * features[:, :, k].T[:, None]).sum(0)
        grads = (grad_centres.T, grad_values.T, grad_tau if need_tau else None, grad_logits)
        return (grad_projected, *grads, grad_coefficients, grad_features, None)


def _scalar_blocks(projected: Tensor, num_symbols: int) -> list[slice]:
    rows, channels = projected.shape
    elements = SCALAR_BLOCK_ELEMENTS if projected.device.type == "cpu" else ACCELERATOR_BLOCK_ELEMENTS
    step = max(1, elements // (channels * num_symbols))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


class DirectionalOneHotMax(nn.Module):
    r"""One-hot max whose activations and codewords lie along one direction a channel.

    $$ a_{c,s} = w_c \cdot z - t_{c,s}, \quad s^* = \arg\min_s |a_s|, \quad
       \partial\,\Omega \approx \partial\,\mathrm{softmax}_s(-\tau_c |a_s|), \quad
       \hat z = \beta + \textstyle\sum_{c < n} v_{c, s^*_c}\, d_c $$

    This is `OneHotMax` with the rows w of a channel tied and the codewords on a line: C (2 D + 2 S) parameters in place
    of C S (2 D + 1), and no product with D for each symbol. It is the same as one pass over one transform coefficient. The
    latent has a sign: there is no ReLU. Quantization is residual: a group sees the latent minus the codewords of earlier
    groups.

    **Rate–distortion optimised quantization (RDOQ).** With ``supports_rdoq`` the symbol with the least
    $|a_s| + \kappa_{c,n} b_s$ is chosen, b being the symbol's bits in its context. This is the Lagrange cost D + λR of RDOQ. Take
    two neighbouring codewords v and v + Δ along a direction of length 1 and a coefficient x between them, at u = x - v. Their
    squared errors are u² and (Δ - u)², which differ by Δ (2u - Δ); their |a| are u and Δ - u, which differ by 2u - Δ. So
    D + λR of the two compares as Δ times |a| + (λ/Δ) b does: |a| + κ b is D + λR divided by Δ, with κ = λ/Δ. (A direction
    d scales squared errors by ‖d‖², so that κ = λ / (‖d‖² Δ).) Between two neighbours, and only these compete for a
    coefficient unless bits differ by much, both choose the same symbol. A decoder need not know of it.

    Args:
        num_channels: C, quantization channels.
        num_symbols: S >= 2, largest alphabet size.
        latent_channels: D, channels of the latent.
        supports_rdoq: whether bits count in the choice of a symbol.
        group_sizes: channels of each channel-conditional group, sum C; None: those of the prior, else one group.
        alphabets: alphabet size of each group's channels, at most S; None: S for all.

    Attributes:
        lagrange_multiplier: λ, if supports_rdoq; kept as ``bit_price``, the name that it has in files.

    Shape:
        project (w), directions (d): (C, D). centres (t), values (v): (C, S). log_temperature (ln tau): (C,).
        bit_price, if supports_rdoq: (C,), squared units of the latent that a bit costs when n + 1 channels are coded.

    Raises:
        ValueError: num_symbols < 2, num_channels < 1, groups or alphabets that do not fit, or a number of active channels
            outside [0, C].

    References: Löhdefink et al., One-Hot Max (Ω) Quantization. Sullivan and Wiegand, Rate-distortion optimization for video
        compression (IEEE Signal Processing Magazine, 1998), for D + λR; Karczewicz, Ye and Chong, Rate distortion optimized
        quantization (ITU-T VCEG-AH21, 2008), for RDOQ.

    Example:
        >>> latent_hat, symbols, bits = DirectionalOneHotMax(4, 9, 6)(torch.randn(2, 6, 3, 5))
        >>> latent_hat.shape, symbols.shape, bits.shape
        (torch.Size([2, 6, 3, 5]), torch.Size([2, 3, 5, 4]), torch.Size([2]))
    """

    bit_price: Tensor

    def __init__(
        self,
        num_channels: int,
        num_symbols: int,
        latent_channels: int,
        *,
        supports_rdoq: bool = False,
        group_sizes: Sequence[int] | None = None,
        alphabets: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        check_alphabet(num_channels, num_symbols)
        self.num_channels, self.num_symbols, self.latent_channels = num_channels, num_symbols, latent_channels
        self.group_sizes = None if group_sizes is None else groups_of(num_channels, tuple(group_sizes), None)
        self.alphabets = None if alphabets is None else tuple(alphabets)
        if self.alphabets is not None and len(self.alphabets) != len(self.group_sizes or (num_channels,)):
            raise ValueError(f"alphabets {list(self.alphabets)} do not fit groups of {self.group_sizes} channels")
        if supports_rdoq and min(self.alphabets or (num_symbols,)) < 3:
            raise ValueError("RDOQ needs alphabets of at least 3 symbols")
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

    @property
    def lagrange_multiplier(self) -> Tensor:
        """λ when n + 1 channels are coded, (C,), in squared units of the latent a bit; the buffer ``bit_price``."""
        return self.bit_price

    def forward(
        self, latent: Tensor, active: int | Tensor | None = None, prior: TablePrior | None = None
    ) -> QuantizedLatent:
        """Quantize a latent, group after group; gradients follow the softmax.

        Args:
            latent: (batch, D, h, w).
            active: active channels: one number for all images, or (batch,) in any order; None: all C.
            prior: a prior whose tables give the bits of the symbols, such as `TabulatedPrior`; None: each symbol costs
                log2 of its alphabet in bits, and the symbols are the nearest.

        Returns:
            Quantized latent (batch, D, h, w), symbols (batch, h, w, C) and bits (batch,).

        Raises:
            ValueError: active channels outside [0, C], or a prior with other groups or another alphabet.
        """
        groups = groups_of(self.num_channels, self.group_sizes, None if prior is None else prior.group_sizes)
        images = images_by_active(active, latent, self.num_channels)
        active = images.active
        tables_of = begin_prior(prior, latent, self.num_symbols)
        z = images.sort(latent).permute(0, 2, 3, 1)
        symbols = torch.zeros(*z.shape[:3], self.num_channels, dtype=torch.int64, device=z.device)
        y, start = torch.zeros_like(z), 0
        complete: list[Tensor] = []  # latents of images whose active channels are all coded, the last first
        bits = []
        for group, size in enumerate(groups):
            num_images = images.reaching(start)
            if num_images < len(y):
                complete.append(y[num_images:])
                y, z = y[:num_images], z[:num_images]
            if not num_images:
                break
            count = min(size, images.counts[0] - start)
            values, code_lengths, chosen = self._quantize_group(
                group,
                slice(start, start + count),
                latent=z,
                codewords=y,
                active=active[:num_images],
                tables_of=tables_of,
                use_rdoq=self.supports_rdoq and prior is not None,
            )
            if images.counts[num_images - 1] < start + count:  # some images end in the middle of the group
                inside = active_mask(active[:num_images], range(start, start + count))[:, None, None]
                code_lengths, values, chosen = code_lengths * inside, values * inside, chosen * inside
            symbols[:num_images, ..., start : start + count] = chosen
            bits.append(functional.pad(code_lengths.flatten(1).sum(1), (0, len(active) - num_images)))
            y = y + values @ self.directions[start : start + count]
            start += size
        y = torch.cat([y, *reversed(complete)])
        total = torch.stack(bits).sum(0) if bits else y.new_zeros(len(y))
        latent_hat = images.restore(y + self.output_bias).permute(0, 3, 1, 2)
        return QuantizedLatent(latent_hat, images.restore(symbols), images.restore(total))

    def _quantize_group(
        self,
        group: int,
        channels: slice,
        latent: Tensor,
        codewords: Tensor,
        active: Tensor,
        tables_of: TableFunction,
        use_rdoq: bool,
    ) -> ScalarChoice:
        """Quantize the channels of a group; latent and the codewords of earlier groups (images, h, w, D)."""
        project = self.project[channels]
        own = functional.linear(codewords, project)
        projected = functional.linear(latent, project) - own
        alphabet = self.num_symbols if self.alphabets is None else self.alphabets[group]
        rdoq_weight = None
        if use_rdoq:
            rdoq_weight = self.rdoq_weight(active, channels, alphabet)[:, None, None].expand_as(projected)

        @torch.no_grad()
        def values() -> Tensor:
            nearest = self.nearest_values(projected, channels, alphabet)
            if rdoq_weight is None:
                return nearest
            # Tables depend on the symbols and RDOQ on the tables. Coding goes pass by pass; here the nearest symbols come first.
            tables = self._flat_tables(tables_of(context._replace(values=lambda: nearest)), projected, alphabet)
            return self.quantize(projected, channels, *tables, rdoq_weight=rdoq_weight).values

        context = GroupContext(group, channels, codewords, lambda: own, values)
        tables = self._flat_tables(tables_of(context), projected, alphabet)
        return self.quantize(projected, channels, *tables, rdoq_weight=rdoq_weight)

    @staticmethod
    def _flat_tables(
        tables: GroupTables, projected: Tensor, alphabet: int
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return logits, coefficients and features of the first symbols, as `quantize` takes them."""
        logits, coefficients, features, _ = tables
        if logits.shape[-1] < alphabet:
            raise ValueError(f"the prior has {logits.shape[-1]} symbols for a group of {alphabet}")
        if logits.shape[-1] > alphabet:
            logits, features = logits[..., :alphabet], None if features is None else features[:, :alphabet]
        if len(logits) == 1:
            return logits[0], coefficients, features
        images, height, width, _ = projected.shape
        logits = logits.view(1, height, width, *logits.shape[1:]).expand(images, -1, -1, -1, -1)
        return logits, coefficients, features

    @torch.no_grad()
    def rdoq_weight(self, active: Tensor, channels: slice, num_symbols: int) -> Tensor:
        """Return κ of each image, the Lagrange multiplier over the codeword spacing; see the class.

        Half of κ, times the bits in which two symbols differ, moves the threshold between them.

        Args:
            active: coded channels of each image, (images,), int64, at least 1.
            channels: the channels.
            num_symbols: their alphabet size.

        Returns:
            κ, (images, channels), in units of the activations a bit.
        """
        middle, values = num_symbols // 2, self.values[channels]
        spacing = (values[:, middle + 1] - values[:, middle - 1]) / 2
        scale = self.directions[channels].square().sum(1) * spacing
        return self.bit_price[active - 1][:, None] / scale.clamp_min(LEAST_SCALE)

    @torch.no_grad()
    def nearest(self, projected: Tensor, channels: slice, num_symbols: int | None = None) -> Tensor:
        """Return the symbols of the nearest centres, the argmin of |activations|, by comparison with thresholds.

        Args:
            projected: w · latent, (..., channels).
            channels: the channels.
            num_symbols: choose among the first S symbols only; None: all.

        Returns:
            Symbols, shape as projected, int64.
        """
        centres = self.centres[channels, :num_symbols]
        if centres.device.type == "mps":  # has no float64
            centres = centres.cpu()
        centres, order = centres.double().sort(-1)
        place = torch.zeros_like(projected, dtype=torch.uint8 if centres.shape[1] <= 256 else torch.int64)
        for middle in ((centres[:, 1:] + centres[:, :-1]) / 2).to(projected).T:
            place += projected > middle
        symbols = place.long()
        if order.device.type == "cpu" and (order.diff() > 0).all():  # elsewhere the question would wait for the device
            return symbols
        return order.T.to(symbols).gather(0, symbols.flatten(0, -2)).view_as(symbols)

    @torch.no_grad()
    def nearest_values(self, projected: Tensor, channels: slice, num_symbols: int | None = None) -> Tensor:
        """Return the places of the nearest codewords along their directions; arguments and shape as `nearest`."""
        return self._values_of(self.nearest(projected, channels, num_symbols), channels)

    def _values_of(self, symbols: Tensor, channels: slice) -> Tensor:
        return self.values[channels].T.gather(0, symbols.flatten(0, -2).long()).view(symbols.shape)

    def quantize(
        self,
        projected: Tensor,
        channels: slice,
        logits: Tensor,
        coefficients: Tensor | None = None,
        features: Tensor | None = None,
        *,
        rdoq_weight: Tensor | None = None,
    ) -> ScalarChoice:
        """Choose among the first S symbols of some channels, the inner step of `forward`.

        The tables are natural logarithms ``logits + coefficients · features``, up to a constant.

        Args:
            projected: w · (latent to quantize), (..., channels).
            channels: the channels.
            logits: (channels, S), or (..., channels, S).
            coefficients: (..., channels, K); None: the tables do not depend on the image.
            features: (channels, S, K); None without coefficients.
            rdoq_weight: κ of `rdoq_weight`, (..., channels); None: bits do not count in the choice.

        Returns:
            Values, bits and symbols, each of the shape of projected.
        """
        num_symbols = logits.shape[-1]
        values, bits, symbols = _ScalarChoiceFunction.apply(
            projected.flatten(0, -2),
            self.centres[channels, :num_symbols],
            self.values[channels, :num_symbols],
            self.log_temperature[channels].exp(),
            logits if logits.dim() == 2 else logits.flatten(0, -3),
            None if coefficients is None else coefficients.flatten(0, -3),
            features,
            None if rdoq_weight is None else rdoq_weight.flatten(0, -2),
        )
        return ScalarChoice(values.view_as(projected), bits.view_as(projected), symbols.view_as(projected))

    @torch.no_grad()
    def symbols(self, latent: Tensor) -> Tensor:
        """Return the nearest symbols of a latent, all channels, without RDOQ: the coding path, without gradients.

        Args:
            latent: (batch, D, h, w).

        Returns:
            Symbols, (batch, h, w, C), int64 in [0, S).
        """
        z = latent.permute(0, 2, 3, 1)
        rows = z.reshape(-1, z.shape[-1])
        out = torch.empty(len(rows), self.num_channels, dtype=torch.int64, device=z.device)
        groups = self.group_sizes or (self.num_channels,)
        for begin in range(0, len(rows), ROWS_AT_ONCE):
            part, start = slice(begin, begin + ROWS_AT_ONCE), 0
            residual = rows[part].clone()
            for size, alphabet in zip(groups, self.alphabets or (None,) * len(groups), strict=True):
                channels = slice(start, start + size)
                projected = functional.linear(residual, self.project[channels])
                chosen = self.nearest(projected, channels, alphabet)
                out[part, channels] = chosen
                residual -= self.codeword_sum(chosen, channels)
                start += size
        return out.view(*z.shape[:3], -1)

    @torch.no_grad()
    def dequantize(self, symbols: Tensor, num_active: int) -> Tensor:
        """Return the latent of the first ``num_active`` channels of the symbols.

        Args:
            symbols: (batch, h, w, at least num_active), integers.
            num_active: active channels, 0 to C.

        Returns:
            Quantized latent, (batch, D, h, w).

        Raises:
            ValueError: num_active outside [0, C].
        """
        check_active_channels(num_active, self.num_channels)
        codewords = self.codeword_sum(symbols[..., :num_active], slice(0, num_active))
        return (codewords + self.output_bias).permute(0, 3, 1, 2)

    @torch.no_grad()
    def codeword_sum(self, symbols: Tensor, channels: slice) -> Tensor:
        """Return the sum of the codewords of some channels, without the output bias.

        Args:
            symbols: symbols of these channels, (..., channels), integers.
            channels: the channels.

        Returns:
            Sum of codewords, (..., D).
        """
        return self._values_of(symbols, channels) @ self.directions[channels]
