"""The tabulated context prior of scalar one-hot max symbols: at each position it chooses one of a channel's tables."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ohmq.entropy.kernels import LEVEL_BITS, SPATIAL_LIMIT
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior
from ohmq.models.priors.context import context_network
from ohmq.models.priors.tables import GroupContext, GroupTables, TableFunction, check_prior_alphabet

__all__ = [
    "NeighbourNetworks",
    "SelectedTables",
    "TabulatedPrior",
    "four_neighbour_mean",
    "gather_3x3",
    "passes",
    "shifted",
]


class SelectedTables(NamedTuple):
    """Tables that `TabulatedPrior` selects for a group of channels: ``logits + coefficients · features``.

    Attributes:
        logits: natural logarithms up to a constant, (channels, S).
        coefficients: on the grid, (B, h, w, channels, 2); None: the same table everywhere.
        features: features of the symbols, (channels, S, 2).
    """

    logits: Tensor
    coefficients: Tensor | None
    features: Tensor


class NeighbourNetworks(nn.Module):
    """Networks of one hidden layer, one for each checkerboard channel and for its second and third pass.

    `TabulatedPrior` adds their outputs to its coefficients.

    Args:
        num_channels: I, checkerboard channels.
        hidden: hidden units of each network.

    Shape:
        forward(values, channels): values of the symbols in steps (B, h, w, channels), and the channels among the I ->
            (B, h, w, channels, 2).
    """

    def __init__(self, num_channels: int, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_channels, 2, hidden, 4))
        self.bias = nn.Parameter(torch.zeros(num_channels, 2, hidden))
        self.out = nn.Parameter(torch.zeros(num_channels, 2, 2, hidden))
        nn.init.uniform_(self.weight, -0.5, 0.5)

    def forward(self, values: Tensor, channels: slice) -> Tensor:
        """Return the terms added to the two coefficients; shapes in the class."""
        batch, height, width, count = values.shape
        which = passes(height, width).flatten()
        values = values.clamp(-SPATIAL_LIMIT, SPATIAL_LIMIT)
        added = values.new_zeros(count, 2, batch, height * width)
        for number, offsets in enumerate((DIAGONAL, DIRECT)):  # all these neighbours belong to earlier passes
            rows = (which == number + 1).nonzero()[:, 0].to(values.device, non_blocking=True)
            around = shifted(values, offsets).view(4, batch, height * width, count)[:, :, rows]
            hidden = self.weight[channels, number] @ around.permute(3, 0, 1, 2).reshape(count, 4, -1)
            hidden = (hidden + self.bias[channels, number, :, None]).clamp(0, SPATIAL_LIMIT)
            out = self.out[channels, number] @ hidden
            added = added.index_copy(3, rows, out.view(count, 2, batch, -1))
        return added.permute(2, 3, 0, 1).reshape(batch, height, width, count, 2)


class TabulatedPrior(nn.Module):
    r"""Tabulated context prior of scalar OHM symbols: it chooses one of a channel's tables, given the decoded symbols.

    Channels are coded in channel-conditional groups; at each position two coefficients, rounded to a grid of 16 by 8 (16 by
    32 for checkerboard channels), choose the table:

    $$ \log p_{c,s} = \ell_{c,s} + u_{c,1} f_{c,s,1} + u_{c,2} f_{c,s,2} + \mathrm{const}, \qquad
       u_c = \mathrm{round}_{1/4}\bigl(\mathrm{CNN}_g(y)_c + A_c\,\varphi_c(y)\bigr) $$

    with y the sum of the codewords of earlier groups. The network of a group sees y at all its 3x3 neighbours through a
    projection to a few channels. The features phi are the channel's own coefficient in y: its magnitude and value, here
    and as a mean over the four neighbours, clipped. A table for each choice is frozen, so coding looks tables up.

    The channels of the first ``checkerboard_groups`` groups have a three-pass checkerboard context (`passes`). In the second
    and third pass, four features of the channel's own symbols at neighbours of earlier passes are added: one, their mean,
    mean magnitude and mean absolute deviation; and the output of a small network of the channel on these four symbols:

    $$ \sum_h o_{c,h}\,\min(8, \mathrm{ReLU}(\textstyle\sum_n w_{c,h,n} v_{c,n} + b_{c,h})) $$

    Args:
        num_channels: C, quantization channels.
        num_symbols: S, largest alphabet size.
        latent_channels: D, dimension of the codewords.
        group_sizes: channels of each group, sum C.
        projection: channels that a network sees of each neighbour.
        hidden_channels: width of a group's network.
        alphabets: alphabet size of each group's channels, at most num_symbols; None: num_symbols for all.
        checkerboard_groups: number of leading groups with a checkerboard context.
        neighbour_hidden: hidden units of a checkerboard channel's own network; 0: it has none.

    Shape:
        forward(group, latent, own, values): (B, h, w, D), (B, h, w, channels) twice -> `SelectedTables`.

    Raises:
        ValueError: group_sizes does not sum to C.

    References: He et al., Checkerboard context model for efficient learned image compression (CVPR 2021); Minnen and Singh,
        Channel-wise autoregressive entropy models (arXiv:2007.08739).
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
        checkerboard_groups: int = 0,
        neighbour_hidden: int = 0,
    ) -> None:
        super().__init__()
        if sum(group_sizes) != num_channels or min(group_sizes) < 1:
            raise ValueError(f"group_sizes {list(group_sizes)} must be positive and sum to {num_channels} channels")
        self.num_channels, self.num_symbols = num_channels, num_symbols
        self.group_sizes = tuple(group_sizes)
        self.alphabets = tuple(alphabets or (num_symbols,) * len(self.group_sizes))
        self.checkerboard_groups = checkerboard_groups
        features = np.zeros((num_channels, num_symbols, 2), np.float32)
        start = 0
        for size, alphabet in zip(self.group_sizes, self.alphabets, strict=True):
            level = (np.arange(alphabet) - alphabet // 2).clip(-4, 4)
            features[start : start + size, :alphabet] = np.stack([-0.7 * np.abs(level), 0.5 * level], -1)
            start += size
        self.logits = nn.Parameter(torch.zeros(num_channels, num_symbols))
        self.features = nn.Parameter(torch.tensor(features))
        self.own = nn.Parameter(torch.zeros(num_channels, 2, 4))
        checkerboard_channels = sum(self.group_sizes[:checkerboard_groups])
        self.spatial = nn.Parameter(torch.zeros(checkerboard_channels, 2, 2, 4))
        self.neighbours = NeighbourNetworks(checkerboard_channels, neighbour_hidden) if neighbour_hidden else None
        self.register_buffer("own_scale", torch.ones(num_channels))
        self.register_buffer("input_scale", torch.ones(()))
        self.own_scale: Tensor
        self.input_scale: Tensor
        self.projections = nn.ModuleList(nn.Linear(latent_channels, projection) for _ in self.group_sizes[1:])
        self.networks = nn.ModuleList(
            context_network(9 * projection, hidden_channels, 2 * size) for size in self.group_sizes[1:]
        )

    def begin(self, height: int, width: int, num_symbols: int) -> TableFunction:
        """Prepare the tables; see `ohmq.models.priors.tables.TablePrior`."""
        check_prior_alphabet(self.num_symbols, num_symbols)

        def tables(context: GroupContext) -> GroupTables:
            values = context.values() if context.group < self.checkerboard_groups else None
            logits, coefficients, features = self(context.group, context.codewords, context.own(), values)
            return GroupTables(logits[None], coefficients, None if coefficients is None else features)

        return tables

    def forward(self, group: int, latent: Tensor, own: Tensor, values: Tensor | None) -> SelectedTables:
        """Select the tables of a group's symbols.

        Args:
            group: number of the group.
            latent: sum of the codewords of earlier groups, (B, h, w, D).
            own: w · latent for the group's channels, (B, h, w, channels).
            values: values of the group's own codewords, (B, h, w, channels), if it has a checkerboard context; a channel uses
                those of neighbours in earlier passes only. Else None.

        Returns:
            The tables.
        """
        start = sum(self.group_sizes[:group])
        channels = slice(start, start + own.shape[-1])
        alphabet = self.alphabets[group]
        logits, features = self.logits[channels, :alphabet], self.features[channels, :alphabet]
        if not (group or self.checkerboard_groups):
            return SelectedTables(logits, None, features)
        u = self.coefficients(group, latent, own) if group else own.new_zeros(*own.shape, 2)
        if group < self.checkerboard_groups:
            assert values is not None
            values = values.detach() * self.own_scale[channels]
            u = u + self.spatial_coefficients(values, self.spatial[channels])
            if self.neighbours is not None:
                u = u + self.neighbours(values, channels)
        # No gradient beyond the grid: passed through there, it drives the networks' weights without bound.
        levels = IntegerTabulatedPrior.levels(group < self.checkerboard_groups)
        bounds = torch.tensor(levels, dtype=u.dtype).T / 2**LEVEL_BITS
        lowest, highest = bounds.to(u.device, non_blocking=True)
        u = u.clamp(lowest, highest)
        return SelectedTables(logits, u + ((u * 2**LEVEL_BITS).round() / 2**LEVEL_BITS - u).detach(), features)

    def coefficients(self, group: int, latent: Tensor, own: Tensor) -> Tensor:
        """Return the two coefficients of each channel before rounding; arguments as `forward`.

        Returns:
            Coefficients, (B, h, w, channels, 2).
        """
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
        """Return the terms that symbols of earlier passes add to the two coefficients of checkerboard channels.

        Args:
            values: values of the symbols in steps, (B, h, w, C).
            weights: (C, pass 1 or 2, coefficient, feature).

        Returns:
            Terms, (B, h, w, C, 2).
        """
        which = passes(values.shape[1], values.shape[2]).to(values.device, non_blocking=True)[..., None]
        out = torch.zeros(*values.shape, 2, dtype=values.dtype, device=values.device)
        for number, offsets in ((1, DIAGONAL), (2, DIRECT)):
            known = which < number
            in_bounds = shifted(known.to(values.dtype), offsets)[:, None]
            around = shifted(values * known, offsets)
            count = in_bounds.sum(0).clamp_min(1)
            mean = around.sum(0) / count
            magnitude = around.abs().sum(0) / count
            deviation = ((around - mean).abs() * in_bounds).sum(0) / count
            phi = torch.stack([torch.ones_like(mean), mean, magnitude, deviation], -1).clamp(
                -SPATIAL_LIMIT, SPATIAL_LIMIT
            )
            added = torch.einsum("...cj,ckj->...ck", phi, weights[:, number - 1])
            out = out + added * (which == number)[..., None]
        return out


DIAGONAL, DIRECT = ((-1, -1), (-1, 1), (1, -1), (1, 1)), ((-1, 0), (1, 0), (0, -1), (0, 1))
"""Offsets (row, column) of the neighbours that the second and the third pass of a checkerboard channel see."""


def passes(height: int, width: int) -> Tensor:
    """Return the pass in which a checkerboard channel is coded at each position.

    Args:
        height: h of the latent.
        width: w of the latent.

    Returns:
        (height, width), int64: 0 in even rows and columns, 1 in odd rows and columns, 2 elsewhere.

    Example:
        >>> passes(2, 3)
        tensor([[0, 2, 0],
                [2, 1, 2]])
    """
    return torch.from_numpy(_passes(height, width))


@functools.cache
def _passes(height: int, width: int) -> NDArray[np.int64]:
    """Compute `passes`; in numpy, as a tensor would keep the grad mode and the device that were set at the first call."""
    row, column = np.arange(height)[:, None] % 2, np.arange(width) % 2
    return np.where(row == column, row, 2)


def shifted(x: Tensor, offsets: Sequence[tuple[int, int]]) -> Tensor:
    """Return the neighbours at some offsets, zero beyond the border.

    Args:
        x: values on a grid, (..., h, w, C).
        offsets: (row, column) of each neighbour, each -1 to 1.

    Returns:
        (offsets, ..., h, w, C).
    """
    height, width = x.shape[-3:-1]
    padded = functional.pad(x, (0, 0, 1, 1, 1, 1))
    return torch.stack([padded[..., 1 + i : 1 + i + height, 1 + j : 1 + j + width, :] for i, j in offsets])


def gather_3x3(x: Tensor) -> Tensor:
    """Return the 3x3 neighbourhood of each position in raster order, zero beyond the border.

    Args:
        x: values on a grid, (B, h, w, P).

    Returns:
        (B, h, w, 9 P).
    """
    height, width = x.shape[1:3]
    padded = functional.pad(x, (0, 0, 1, 1, 1, 1))
    return torch.cat([padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], -1)


def four_neighbour_mean(x: Tensor) -> Tensor:
    """Return the mean of the left, right, upper and lower neighbour, zero beyond the border.

    Args:
        x: values on a grid, (B, h, w, C).

    Returns:
        Means, shape as x.
    """
    padded = functional.pad(x, (0, 0, 1, 1, 1, 1))
    return (padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]) / 4
