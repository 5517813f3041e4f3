"""Priors: the probabilities of symbols that entropy coding needs.

In training a prior is a differentiable module. For coding it is frozen to integers (`ohmq.entropy.frozen`), so that
nothing between the bits and the symbols is floating point.
"""

import copy
import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ohmq.entropy.frozen_choice import FrozenChoicePrior
from ohmq.entropy.kernels import LEVEL_BITS, SPATIAL_LIMIT

__all__ = ["ChoicePrior", "ChosenTables", "ContextPrior", "FactorizedDensity", "StaticPrior"]

LIKELIHOOD_FLOOR = 1e-8
"""Added to a probability before its logarithm, as published."""


class StaticPrior(nn.Module):
    r"""Static prior of OHM symbols: a small CNN on a constant image, so that only the position matters.

    $$ p_{c,s} = \mathrm{softmax}_s(-\tau'_c\,|o_{c,s}|), \qquad o = \mathrm{CNN}(\mathbf 1) $$

    The dependence on the position comes from zero padding alone: the four borders make at most 16 classes
    (`num_classes`), whatever the size of the latent.

    Args:
        num_channels: C. num_symbols: S. hidden_channels: channels of the first layer.

    Attributes:
        positional: whether the network's padding tells positions apart; if not, one position stands for all.

    Shape:
        logits(height, width): (height * width, C, S), or (1, C, S) if not positional; natural logarithm, normalised.

    References: Löhdefink et al., One-Hot Max (Ω) Quantization.
    """

    def __init__(self, num_channels: int, num_symbols: int, hidden_channels: int = 32) -> None:
        super().__init__()
        self.num_channels, self.num_symbols = num_channels, num_symbols
        self.positional = True
        self.network = nn.Sequential(
            nn.Conv2d(1, hidden_channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden_channels, num_channels * num_symbols, 1),
        )
        self.inverse_temperature = nn.Parameter(torch.ones(num_channels))

    def logits(self, height: int, width: int) -> Tensor:
        """Log probabilities of every position of a latent; shape in the class."""
        if not self.positional:
            height = width = 1
        constant = self.inverse_temperature.new_ones(1, 1, height, width)
        out = self.network(constant).view(self.num_channels, self.num_symbols, height * width)
        scores = -out.abs() * self.inverse_temperature[:, None, None]
        return torch.log_softmax(scores, 1).permute(2, 0, 1)

    def code_lengths(self, height: int, width: int) -> Tensor:
        """-log2(p + 1e-8), in bits; shape as `logits`."""
        return -torch.log2(self.logits(height, width).exp() + LIKELIHOOD_FLOOR)

    @torch.no_grad()
    def class_logits(self) -> Tensor:
        """Log probabilities for each border class (see `ohmq.entropy.frozen.border_classes`), in float64.

        Shape:
            (16, C, S).
        """
        double = copy.deepcopy(self).double()
        out = torch.empty(16, self.num_channels, self.num_symbols, dtype=torch.float64)
        rows = {3: (0, 1, 2), 1: (3,)}  # first, middle, last; the only one
        for height in rows:
            for width in rows:
                classes = [4 * i + j for i in rows[height] for j in rows[width]]
                out[classes] = double.logits(height, width)
        return out

    @torch.no_grad()
    def initialise_from_counts(self, counts: Tensor) -> None:
        """Start from counted symbols, the same at every position.

        Shape:
            counts: (C, S), how often each symbol occurred.
        """
        probabilities = (counts + 0.05) / (counts + 0.05).sum(-1, keepdim=True)
        last = self.network[-1]
        assert isinstance(last, nn.Conv2d)
        last.weight.zero_()
        last.bias.copy_(-probabilities.log().flatten())  # type: ignore[union-attr]
        self.inverse_temperature.fill_(1.0)


def _context_network(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Three linear layers with ReLU between; answers zero at the start."""
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), last)


class ContextPrior(nn.Module):
    r"""Prior of OHM symbols given all that is decoded already.

    Channels are coded in groups. The tables of a group depend on the codewords of all earlier groups at all
    positions, so any prefix of the channels is enough to decode it:

    $$ \log p_{c,s}(x) = \ell_{c,s} + \sum_k u_{c,k}(x)\,f_{c,s,k} + \mathrm{const}, \qquad
       u = \mathrm{CNN}_g\bigl(\textstyle\sum_{c' < g} e_{c', s_{c'}}\bigr) $$

    with static logits l, learned features f of the symbols and one small network a group, which sees the 3x3
    neighbourhood of a position (zero beyond the border).

    Args:
        num_channels: C. num_symbols: S. latent_channels: D, dimension of the codewords.
        group_sizes: channels of each group, sum C.
        hidden_channels: width of the networks. num_features: K.
        static_hidden_channels: width of the static prior's network.

    Shape:
        coefficients(group, partial, h, w): partial (h * w, batch, D) -> (h * w, batch, channels of the group, K).

    Raises:
        ValueError: group_sizes does not sum to C.
    """

    def __init__(
        self,
        num_channels: int,
        num_symbols: int,
        latent_channels: int,
        group_sizes: Sequence[int],
        hidden_channels: int = 32,
        num_features: int = 6,
        static_hidden_channels: int = 32,
    ) -> None:
        super().__init__()
        if sum(group_sizes) != num_channels or min(group_sizes) < 1:
            raise ValueError(f"group_sizes {list(group_sizes)} must be positive and sum to {num_channels} channels")
        self.num_channels, self.num_symbols = num_channels, num_symbols
        self.group_sizes, self.num_features = tuple(group_sizes), num_features
        self.static = StaticPrior(num_channels, num_symbols, static_hidden_channels)
        self.networks = nn.ModuleList(
            _context_network(9 * latent_channels, hidden_channels, num_features * size) for size in self.group_sizes[1:]
        )
        self.features = nn.Parameter(self.symbol_features(np.ones(num_channels, np.float32)))
        self.register_buffer("input_scale", torch.ones(()))
        self.input_scale: Tensor

    def symbol_features(self, spread: NDArray[np.float32]) -> Tensor:
        """Features to start from: value, square, magnitude, zero, sign and one, in units of each channel's spread.

        Shape:
            spread: (C,), standard deviation of the symbols. Returns: (C, S, K).
        """
        level = (np.arange(self.num_symbols) - self.num_symbols // 2).astype(np.float32)
        scaled = (level / spread[:, None].clip(0.3)).clip(-4, 4)
        one_hot = [np.broadcast_to(level == i, scaled.shape) for i in (0, -1, 1)]
        columns = [
            scaled,
            np.square(scaled) / 4,
            np.abs(scaled) / 2,
            one_hot[0],
            np.broadcast_to(np.sign(level), scaled.shape),
        ]
        columns += [one_hot[1], one_hot[2], np.sin(scaled * 3), np.cos(scaled * 3)]
        if self.num_features > len(columns):
            raise ValueError(f"num_features is {self.num_features}; at most {len(columns)} are defined")
        return torch.tensor(np.stack(columns[: self.num_features], -1, dtype=np.float32, casting="unsafe"))

    @torch.no_grad()
    def initialise_from_counts(self, counts: Tensor, latent_scale: float) -> None:
        """Start as the static prior of counted symbols.

        Args:
            counts: shape (C, S). latent_scale: standard deviation of the sum of all codewords.
        """
        self.static.initialise_from_counts(counts)
        level = torch.arange(self.num_symbols) - self.num_symbols // 2
        p = counts / counts.sum(-1, keepdim=True)
        spread = ((p * level.square()).sum(-1) - (p * level).sum(-1).square()).clamp_min(0).sqrt()
        self.features.copy_(self.symbol_features(spread.cpu().numpy()))
        self.input_scale.fill_(1 / max(latent_scale, 1e-6))

    def coefficients(self, group: int, partial: Tensor, height: int, width: int) -> Tensor:
        """Weights of the features for a group (>= 1), from the codewords decoded before it; shape in the class."""
        positions, batch, dim = partial.shape
        padded = torch.cat([partial * self.input_scale, partial.new_zeros(1, batch, dim)])
        index = neighbours(height, width).to(partial.device)
        # On latents of a few positions, gathering neighbourhoods and one product beat a convolution by far.
        around = padded.index_select(0, index.flatten()).view(positions, 9, batch, dim).transpose(1, 2)
        out = self.networks[group - 1](around.reshape(-1, 9 * dim))
        return out.view(positions, batch, self.group_sizes[group], self.num_features)


class ChosenTables(NamedTuple):
    """What `ChoicePrior` gives for a group of channels: ``logits + coefficients · features``.

    Attributes:
        logits: natural logarithms but for a constant, shape (channels, S).
        coefficients: on the grid, shape (B, h, w, channels, 2); None: the same table everywhere.
        features: shape (channels, S, 2).
    """

    logits: Tensor
    coefficients: Tensor | None
    features: Tensor


class NeighbourNetworks(nn.Module):
    """A network of one hidden layer for each interlaced channel and for its second and third pass; see `ChoicePrior`.

    Args:
        num_channels: I, interlaced channels. hidden: units of each.

    Shape:
        forward(values, channels): symbols' values in steps (B, h, w, channels), and which of the I they are ->
            (B, h, w, channels, 2).
    """

    def __init__(self, num_channels: int, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_channels, 2, hidden, 4))
        self.bias = nn.Parameter(torch.zeros(num_channels, 2, hidden))
        self.out = nn.Parameter(torch.zeros(num_channels, 2, 2, hidden))
        nn.init.uniform_(self.weight, -0.5, 0.5)

    def forward(self, values: Tensor, channels: slice) -> Tensor:
        """What is added to the two coefficients."""
        batch, height, width, count = values.shape
        which = passes(height, width).to(values.device).flatten()
        values = values.clamp(-SPATIAL_LIMIT, SPATIAL_LIMIT)
        added = values.new_zeros(count, 2, batch, height * width)
        for number, offsets in enumerate((DIAGONAL, DIRECT)):  # all of them belong to earlier passes
            rows = (which == number + 1).nonzero()[:, 0]
            around = shifted(values, offsets).view(4, batch, height * width, count)[:, :, rows]
            hidden = self.weight[channels, number] @ around.permute(3, 0, 1, 2).reshape(count, 4, -1)
            hidden = (hidden + self.bias[channels, number, :, None]).clamp(0, SPATIAL_LIMIT)
            out = self.out[channels, number] @ hidden
            added = added.index_copy(3, rows, out.view(count, 2, batch, -1))
        return added.permute(2, 3, 0, 1).reshape(batch, height, width, count, 2)


class ChoicePrior(nn.Module):
    r"""Prior of scalar OHM symbols that chooses one of a channel's tables, given all that is decoded already.

    Channels are coded in groups; at each position two coefficients, rounded to a grid of 16 by 8 (16 by 32 for interlaced
    channels), choose the table:

    $$ \log p_{c,s} = \ell_{c,s} + u_{c,1} f_{c,s,1} + u_{c,2} f_{c,s,2} + \mathrm{const}, \qquad
       u_c = \mathrm{round}_{1/4}\bigl(\mathrm{CNN}_g(y)_c + A_c\,\varphi_c(y)\bigr) $$

    with y the sum of the codewords of earlier groups. The network of a group sees y at all its 3x3 neighbours through a
    projection to a few channels. The features phi are the channel's own coefficient in y: its magnitude and value, here
    and as a mean over the four neighbours, clipped. A table for each choice is frozen, so coding looks tables up.

    The channels of the first ``interlaced_groups`` groups are coded in three passes over the positions (`passes`); in the
    second and third, four features of the channel's own symbols at neighbours of earlier passes are added: one, their
    mean, mean magnitude and mean absolute deviation; and what a small network of the channel makes of these four symbols:

    $$ \sum_h o_{c,h}\,\min(8, \mathrm{ReLU}(\textstyle\sum_n w_{c,h,n} v_{c,n} + b_{c,h})) $$

    Args:
        num_channels: C. num_symbols: S. latent_channels: D. group_sizes: channels of each group, sum C.
        projection: channels that a network sees of each neighbour. hidden_channels: its width.
        alphabets: symbols of each group's channels, at most num_symbols; None: all. interlaced_groups: as above.
        neighbour_hidden: hidden units of an interlaced channel's own network; 0: it has none.

    Shape:
        forward(group, latent, own, values): (B, h, w, D), (B, h, w, channels) twice -> `ChosenTables`.

    Raises:
        ValueError: group_sizes does not sum to C.
    """

    def __init__(
        self,
        num_channels: int,
        num_symbols: int,
        latent_channels: int,
        group_sizes: Sequence[int],
        projection: int = 32,
        hidden_channels: int = 64,
        *,
        alphabets: Sequence[int] | None = None,
        interlaced_groups: int = 0,
        neighbour_hidden: int = 0,
    ) -> None:
        super().__init__()
        if sum(group_sizes) != num_channels or min(group_sizes) < 1:
            raise ValueError(f"group_sizes {list(group_sizes)} must be positive and sum to {num_channels} channels")
        self.group_sizes = tuple(group_sizes)
        self.alphabets = tuple(alphabets or (num_symbols,) * len(self.group_sizes))
        self.interlaced_groups = interlaced_groups
        features = np.zeros((num_channels, num_symbols, 2), np.float32)
        start = 0
        for size, alphabet in zip(self.group_sizes, self.alphabets, strict=True):
            level = (np.arange(alphabet) - alphabet // 2).clip(-4, 4)
            features[start : start + size, :alphabet] = np.stack([-0.7 * np.abs(level), 0.5 * level], -1)
            start += size
        self.logits = nn.Parameter(torch.zeros(num_channels, num_symbols))
        self.features = nn.Parameter(torch.tensor(features))
        self.own = nn.Parameter(torch.zeros(num_channels, 2, 4))
        interlaced = sum(self.group_sizes[:interlaced_groups])
        self.spatial = nn.Parameter(torch.zeros(interlaced, 2, 2, 4))
        self.neighbours = NeighbourNetworks(interlaced, neighbour_hidden) if neighbour_hidden else None
        self.register_buffer("own_scale", torch.ones(num_channels))
        self.register_buffer("input_scale", torch.ones(()))
        self.own_scale: Tensor
        self.input_scale: Tensor
        self.projections = nn.ModuleList(nn.Linear(latent_channels, projection) for _ in self.group_sizes[1:])
        self.networks = nn.ModuleList(
            _context_network(9 * projection, hidden_channels, 2 * size) for size in self.group_sizes[1:]
        )

    def forward(self, group: int, latent: Tensor, own: Tensor, values: Tensor | None) -> ChosenTables:
        """The tables of a group's symbols.

        Args:
            group: which. latent: the sum of earlier codewords. own: w · latent for the group's channels. values: of an
                interlaced group's own codewords, of which a channel sees what is decoded before; else None.
        """
        start = sum(self.group_sizes[:group])
        channels = slice(start, start + own.shape[-1])
        alphabet = self.alphabets[group]
        logits, features = self.logits[channels, :alphabet], self.features[channels, :alphabet]
        if not (group or self.interlaced_groups):
            return ChosenTables(logits, None, features)
        u = self.coefficients(group, latent, own) if group else own.new_zeros(*own.shape, 2)
        if group < self.interlaced_groups:
            assert values is not None
            values = values.detach() * self.own_scale[channels]
            u = u + self.spatial_coefficients(values, self.spatial[channels])
            if self.neighbours is not None:
                u = u + self.neighbours(values, channels)
        # No gradient beyond the grid: passed through there, it drives the networks' weights without bound.
        levels = FrozenChoicePrior.levels(group < self.interlaced_groups)
        lowest, highest = torch.tensor(levels, dtype=u.dtype, device=u.device).T / 2**LEVEL_BITS
        u = u.clamp(lowest, highest)
        return ChosenTables(logits, u + ((u * 2**LEVEL_BITS).round() / 2**LEVEL_BITS - u).detach(), features)

    def coefficients(self, group: int, latent: Tensor, own: Tensor) -> Tensor:
        """The two coefficients of each channel before rounding, shape (B, h, w, channels, 2)."""
        start = sum(self.group_sizes[:group])
        channels = slice(start, start + own.shape[-1])
        seen = self.projections[group - 1](latent * self.input_scale)
        network = self.networks[group - 1](gather_3x3(seen))
        u = network.view(*network.shape[:3], -1, 2)[..., : own.shape[-1], :]
        own = own * self.own_scale[channels]
        around = four_neighbour_mean(own)
        phi = torch.stack(
            [
                own.abs().clamp(max=2),
                four_neighbour_mean(own.abs()).clamp(max=2),
                own.clamp(-1, 1),
                around.clamp(-1, 1),
            ],
            -1,
        )
        return u + torch.einsum("...cj,ckj->...ck", phi, self.own[channels])

    @staticmethod
    def spatial_coefficients(values: Tensor, weights: Tensor) -> Tensor:
        """What the symbols of earlier passes add to the two coefficients of interlaced channels.

        Shape:
            values: (B, h, w, C), in steps. weights: (C, pass 1 or 2, coefficient, feature). Returns: (B, h, w, C, 2).
        """
        which = passes(values.shape[1], values.shape[2]).to(values.device)[..., None]
        out = torch.zeros(*values.shape, 2, dtype=values.dtype, device=values.device)
        for number, offsets in ((1, DIAGONAL), (2, DIRECT)):
            known = which < number
            there = shifted(known.to(values.dtype), offsets)[:, None]
            around = shifted(values * known, offsets)
            count = there.sum(0).clamp_min(1)
            mean = around.sum(0) / count
            magnitude = around.abs().sum(0) / count
            deviation = ((around - mean).abs() * there).sum(0) / count
            phi = torch.stack([torch.ones_like(mean), mean, magnitude, deviation], -1).clamp(
                -SPATIAL_LIMIT, SPATIAL_LIMIT
            )
            added = torch.einsum("...cj,ckj->...ck", phi, weights[:, number - 1])
            out = out + added * (which == number)[..., None]
        return out


DIAGONAL, DIRECT = ((-1, -1), (-1, 1), (1, -1), (1, 1)), ((-1, 0), (1, 0), (0, -1), (0, 1))
"""Neighbours that the second and the third pass of an interlaced channel see."""


@functools.cache
def passes(height: int, width: int) -> Tensor:
    """The pass over the positions in which an interlaced channel is coded at each position.

    Shape:
        Returns: (height, width), int64: 0 in even rows and columns, 1 in odd rows and columns, 2 elsewhere.

    Example:
        >>> passes(2, 3)
        tensor([[0, 2, 0],
                [2, 1, 2]])
    """
    row, column = torch.arange(height)[:, None] % 2, torch.arange(width) % 2
    return torch.where(row == column, row, torch.tensor(2))


def shifted(x: Tensor, offsets: Sequence[tuple[int, int]]) -> Tensor:
    """The neighbours at some offsets, zero beyond the border.

    Shape:
        x: (..., h, w, C). Returns: (offsets, ..., h, w, C).
    """
    height, width = x.shape[-3:-1]
    padded = functional.pad(x, (0, 0, 1, 1, 1, 1))
    return torch.stack([padded[..., 1 + i : 1 + i + height, 1 + j : 1 + j + width, :] for i, j in offsets])


def gather_3x3(x: Tensor) -> Tensor:
    """The 3x3 neighbourhood of each position in raster order, zero beyond the border.

    Shape:
        x: (B, h, w, P). Returns: (B, h, w, 9 P).
    """
    height, width = x.shape[1:3]
    padded = functional.pad(x, (0, 0, 1, 1, 1, 1))
    return torch.cat([padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], -1)


def four_neighbour_mean(x: Tensor) -> Tensor:
    """Mean of the left, right, upper and lower neighbour, zero beyond the border; shape (B, h, w, C)."""
    padded = functional.pad(x, (0, 0, 1, 1, 1, 1))
    return (padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]) / 4


@functools.cache
def neighbours(height: int, width: int) -> Tensor:
    """The 3x3 neighbourhood of each position in raster order; ``height * width`` stands for beyond the border.

    Shape:
        Returns: (height * width, 9), int64.

    Example:
        >>> neighbours(1, 2)
        tensor([[2, 2, 2, 2, 0, 1, 2, 2, 2],
                [2, 2, 2, 0, 1, 2, 2, 2, 2]])
    """
    inside = torch.arange(height * width).view(height, width)
    padded = functional.pad(inside, (1, 1, 1, 1), value=height * width)
    return padded.unfold(0, 3, 1).unfold(1, 3, 1).reshape(height * width, 9)


class FactorizedDensity(nn.Module):
    r"""Non-parametric density of each latent channel, for integer rounding.

    $$ p(k) = c(k + \tfrac12) - c(k - \tfrac12), \qquad c = \sigma \circ f_K \circ \dots \circ f_1,\quad
       f_k(x) = g_k(H_k x + b_k),\ g_k(x) = x + \tanh(a_k) \tanh(x) $$

    Args:
        num_channels: C. filters: widths of the hidden layers. init_scale: initial spread.

    Shape:
        bits(latent): (batch, C, h, w) -> same shape, bits of each element.

    References: Ballé et al. (arXiv:1802.01436), section 6.1.
    """

    def __init__(self, num_channels: int, filters: Sequence[int] = (3, 3, 3), init_scale: float = 10.0) -> None:
        super().__init__()
        self.num_channels = num_channels
        widths = (1, *filters, 1)
        scale = init_scale ** (1 / (len(filters) + 1))
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for before, after in itertools.pairwise(widths):
            start = math.log(math.expm1(1 / scale / after))
            self.matrices.append(torch.full((num_channels, after, before), start))
            self.biases.append(torch.empty(num_channels, after, 1).uniform_(-0.5, 0.5))
            self.factors.append(torch.zeros(num_channels, after, 1))

    def _cumulative_logits(self, x: Tensor) -> Tensor:
        """Logits of the cumulative distribution; x: (C, 1, n)."""
        for matrix, bias, factor in zip(self.matrices, self.biases, self.factors, strict=True):
            x = torch.baddbmm(bias, functional.softplus(matrix), x)
            x = x + factor.tanh() * x.tanh()
        return x

    def likelihood(self, values: Tensor) -> Tensor:
        """Probability of the unit interval around each value.

        Shape:
            values: (C, n). Returns: (C, n).
        """
        lower = self._cumulative_logits(values[:, None] - 0.5)
        upper = self._cumulative_logits(values[:, None] + 0.5)
        sign = -(lower + upper).sign().detach()  # on the side where the sigmoid keeps its precision
        return (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()[:, 0]

    def bits(self, latent: Tensor) -> Tensor:
        """Ideal code length of each element, -log2(p + 1e-8); shape in the class."""
        channels = latent.movedim(1, 0)
        p = self.likelihood(channels.reshape(self.num_channels, -1))
        return -torch.log2(p + LIKELIHOOD_FLOOR).view(channels.shape).movedim(0, 1)

    @torch.no_grad()
    def probabilities(self, minimum: int, num_symbols: int) -> Tensor:
        """Probabilities of the integers from ``minimum`` on, the tails added to the outermost.

        Shape:
            Returns: (C, num_symbols), float64, rows sum to 1.
        """
        edges = (torch.arange(num_symbols - 1) + minimum + 0.5).expand(self.num_channels, 1, -1)
        double = FactorizedDensity(self.num_channels, [m.shape[1] for m in self.matrices][:-1]).double()
        double.load_state_dict(self.state_dict())
        logits = double._cumulative_logits(edges.double())[:, 0]
        cumulative = torch.sigmoid(logits)
        zero, one = cumulative.new_zeros(self.num_channels, 1), cumulative.new_ones(self.num_channels, 1)
        return torch.cat([zero, cumulative, one], -1).diff(dim=-1).clamp_min(0)
