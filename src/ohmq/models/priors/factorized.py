"""The factorized prior of integer latents: a learned density for each channel.

In training a prior is a differentiable module. For coding it is frozen to integers (`ohmq.entropy.context_prior`), so that
nothing between the bits and the symbols is floating point.
"""

import copy
import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ohmq.models.priors.tables import GroupContext, GroupTables, TableFunction

__all__ = ["LIKELIHOOD_FLOOR", "FactorizedPrior"]

LIKELIHOOD_FLOOR = 1e-8
"""Added to a probability before its logarithm, as published."""


class FactorizedPrior(nn.Module):
    r"""Non-parametric density of each latent channel, for integer rounding.

    $$ p(k) = c(k + \tfrac12) - c(k - \tfrac12), \qquad c = \sigma \circ f_K \circ \dots \circ f_1,\quad
       f_k(x) = g_k(H_k x + b_k),\ g_k(x) = x + \tanh(a_k) \tanh(x) $$

    Args:
        num_channels: C, channels of the latent.
        filters: widths of the hidden layers.
        init_scale: initial spread of the density.

    Attributes:
        group_sizes: None, the density depends on no decoded channel.

    Shape:
        bits(latent): (batch, C, h, w) -> same shape, bits of each element.

    References: Ballé et al. (arXiv:1802.01436), section 6.1.
    """

    group_sizes: tuple[int, ...] | None = None

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
        """Return the probability of the unit interval around each value.

        Args:
            values: values of each channel, (C, n).

        Returns:
            Probabilities, (C, n).
        """
        lower = self._cumulative_logits(values[:, None] - 0.5)
        upper = self._cumulative_logits(values[:, None] + 0.5)
        sign = -(lower + upper).sign().detach()  # on the side where the sigmoid keeps its precision
        return (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()[:, 0]

    def bits(self, latent: Tensor) -> Tensor:
        """Return the ideal code length of each element, -log2(p + 1e-8).

        Args:
            latent: noisy or rounded values, (batch, C, h, w).

        Returns:
            Bits of each element, shape as the latent.
        """
        channels = latent.movedim(1, 0)
        p = self.likelihood(channels.reshape(self.num_channels, -1))
        return -torch.log2(p + LIKELIHOOD_FLOOR).view(channels.shape).movedim(0, 1)

    def begin(self, height: int, width: int, num_symbols: int) -> TableFunction:
        """Prepare tables in which symbol s stands for the integer s - S // 2; see `ohmq.models.priors.tables.TablePrior`."""
        levels = torch.arange(num_symbols, device=self.biases[0].device) - num_symbols // 2
        values = levels.to(self.biases[0].dtype).expand(self.num_channels, -1)
        logits = torch.log(self.likelihood(values) + LIKELIHOOD_FLOOR)[None]

        def tables(context: GroupContext) -> GroupTables:
            return GroupTables(logits[:, context.channels])

        return tables

    @torch.no_grad()
    def probabilities(self, minimum: int, num_symbols: int) -> Tensor:
        """Return the probabilities of the integers from ``minimum`` on, the tails added to the outermost.

        Args:
            minimum: the first integer.
            num_symbols: number of integers.

        Returns:
            Probabilities, (C, num_symbols), float64, rows sum to 1.
        """
        double = copy.deepcopy(self).double()
        edges = torch.arange(num_symbols - 1, device=double.biases[0].device).double() + minimum + 0.5
        edges = edges.expand(self.num_channels, 1, -1)
        logits = double._cumulative_logits(edges)[:, 0]
        cumulative = torch.sigmoid(logits)
        zero, one = cumulative.new_zeros(self.num_channels, 1), cumulative.new_ones(self.num_channels, 1)
        return torch.cat([zero, cumulative, one], -1).diff(dim=-1).clamp_min(0)
