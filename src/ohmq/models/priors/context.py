"""The context prior of one-hot max symbols: tables that depend on the channels decoded before."""

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohmq.models.priors.static import StaticPrior
from ohmq.models.priors.tables import GroupContext, GroupTables, TableFunction, check_prior_alphabet

__all__ = ["ContextPrior", "context_network", "neighbours"]


def context_network(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Build three linear layers with ReLU between, whose output is zero at the start.

    Args:
        inputs: features of the input.
        hidden: width of the two hidden layers.
        outputs: features of the output.

    Returns:
        The network, (..., inputs) -> (..., outputs).
    """
    last = nn.Linear(hidden, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), last)


class ContextPrior(nn.Module):
    r"""Prior of OHM symbols given the channels decoded before.

    Channels are coded in channel-conditional groups. The tables of a group depend on the codewords of all earlier groups
    at all positions, so any prefix of the channels is enough to decode it:

    $$ \log p_{c,s}(x) = \ell_{c,s} + \sum_k u_{c,k}(x)\,f_{c,s,k} + \mathrm{const}, \qquad
       u = \mathrm{CNN}_g\bigl(\textstyle\sum_{c' < g} e_{c', s_{c'}}\bigr) $$

    with static logits l, learned features f of the symbols and one small network a group, which sees the 3x3
    neighbourhood of a position (zero beyond the border).

    Args:
        num_channels: C, quantization channels.
        num_symbols: S, alphabet size of each channel.
        latent_channels: D, dimension of the codewords.
        group_sizes: channels of each channel-conditional group, sum C.
        hidden_channels: width of the context networks.
        num_features: K, features of each symbol.
        static_hidden_channels: width of the static prior's network.

    Shape:
        coefficients(group, partial, h, w): partial (h * w, batch, D) -> (h * w, batch, channels of the group, K).

    Raises:
        ValueError: group_sizes does not sum to C.

    References: Minnen and Singh, Channel-wise autoregressive entropy models (arXiv:2007.08739), for coding in groups of
        channels.
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
            context_network(9 * latent_channels, hidden_channels, num_features * size) for size in self.group_sizes[1:]
        )
        self.features = nn.Parameter(self.symbol_features(np.ones(num_channels, np.float32)))
        self.register_buffer("input_scale", torch.ones(()))
        self.input_scale: Tensor

    def symbol_features(self, spread: NDArray[np.float32]) -> Tensor:
        """Return the features to start from: value, square, magnitude, zero, sign and one, in units of each channel's spread.

        Args:
            spread: standard deviation of each channel's symbols, (C,).

        Returns:
            Features, (C, S, K).

        Raises:
            ValueError: more features than are defined.
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
            counts: number of times that each symbol occurred, (C, S).
            latent_scale: standard deviation of the sum of all codewords.
        """
        self.static.initialise_from_counts(counts)
        level = torch.arange(self.num_symbols, device=counts.device) - self.num_symbols // 2
        p = counts / counts.sum(-1, keepdim=True)
        spread = ((p * level.square()).sum(-1) - (p * level).sum(-1).square()).clamp_min(0).sqrt()
        self.features.copy_(self.symbol_features(spread.cpu().numpy()))
        self.input_scale.fill_(1 / max(latent_scale, 1e-6))

    def begin(self, height: int, width: int, num_symbols: int) -> TableFunction:
        """Prepare the tables for latents of one size; see `ohmq.models.priors.tables.TablePrior`."""
        check_prior_alphabet(self.num_symbols, num_symbols)
        logits = self.static.logits(height, width)

        def tables(context: GroupContext) -> GroupTables:
            channels = context.channels
            part = logits[:, channels]
            if context.group == 0:
                return GroupTables(part, code_lengths=part * (-1 / math.log(2)))
            batch, dim = len(context.codewords), context.codewords.shape[-1]
            partial = context.codewords.permute(1, 2, 0, 3).reshape(height * width, batch, dim)
            coefficients = self.coefficients(context.group, partial, height, width)
            coefficients = coefficients.view(height, width, *coefficients.shape[1:]).permute(2, 0, 1, 3, 4)
            return GroupTables(part, coefficients[..., : channels.stop - channels.start, :], self.features[channels])

        return tables

    def coefficients(self, group: int, partial: Tensor, height: int, width: int) -> Tensor:
        """Return the weights of the features for a group, from the codewords decoded before it.

        Args:
            group: number of the group, at least 1.
            partial: sum of the codewords of earlier groups, (h * w, batch, D).
            height: h of the latent.
            width: w of the latent.

        Returns:
            Coefficients, (h * w, batch, channels of the group, K).
        """
        positions, batch, dim = partial.shape
        padded = torch.cat([partial * self.input_scale, partial.new_zeros(1, batch, dim)])
        index = neighbours(height, width).to(partial.device)
        # On latents of a few positions, gathering neighbourhoods and one product beat a convolution by far.
        around = padded.index_select(0, index.flatten()).view(positions, 9, batch, dim).transpose(1, 2)
        out = self.networks[group - 1](around.reshape(-1, 9 * dim))
        return out.view(positions, batch, self.group_sizes[group], self.num_features)


def neighbours(height: int, width: int) -> Tensor:
    """Return the 3x3 neighbourhood of each position in raster order; ``height * width`` stands for beyond the border.

    Args:
        height: h of the latent.
        width: w of the latent.

    Returns:
        Indices of positions, (height * width, 9), int64.

    Example:
        >>> neighbours(1, 2)
        tensor([[2, 2, 2, 2, 0, 1, 2, 2, 2],
                [2, 2, 2, 0, 1, 2, 2, 2, 2]])
    """
    return torch.from_numpy(_neighbours(height, width))


@functools.cache
def _neighbours(height: int, width: int) -> NDArray[np.int64]:
    """Compute `neighbours`; in numpy, as a tensor would keep the grad mode and the device that were set at the first call."""
    inside = np.arange(height * width).reshape(height, width)
    padded = np.pad(inside, 1, constant_values=height * width)
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3)).reshape(height * width, 9)
