"""The static prior of one-hot max symbols, as published: tables that depend on the position alone."""

import copy

import torch
from torch import Tensor, nn

from ohmq.models.priors.factorized import LIKELIHOOD_FLOOR
from ohmq.models.priors.tables import GroupContext, GroupTables, TableFunction, check_prior_alphabet

__all__ = ["StaticPrior"]


class StaticPrior(nn.Module):
    r"""Static prior of OHM symbols: a small CNN on a constant image, so that only the position matters.

    $$ p_{c,s} = \mathrm{softmax}_s(-\tau'_c\,|o_{c,s}|), \qquad o = \mathrm{CNN}(\mathbf 1) $$

    The dependence on the position comes from zero padding alone: the four borders make at most 16 classes
    (`num_classes`), whatever the size of the latent.

    Args:
        num_channels: C, quantization channels.
        num_symbols: S, alphabet size of each channel.
        hidden_channels: channels of the network's first layer.

    Attributes:
        positional: whether the network's padding tells positions apart; if not, one position stands for all.
        group_sizes: None, the tables depend on no decoded channel.

    Shape:
        logits(height, width): (height * width, C, S), or (1, C, S) if not positional; natural logarithm, normalised.

    References: Löhdefink et al., One-Hot Max (Ω) Quantization.
    """

    group_sizes: tuple[int, ...] | None = None

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
        """Return the log probabilities of every position of a latent.

        Args:
            height: h of the latent.
            width: w of the latent.

        Returns:
            Natural logarithms; shape in the class.
        """
        if not self.positional:
            height = width = 1
        constant = self.inverse_temperature.new_ones(1, 1, height, width)
        out = self.network(constant).view(self.num_channels, self.num_symbols, height * width)
        scores = -out.abs() * self.inverse_temperature[:, None, None]
        return torch.log_softmax(scores, 1).permute(2, 0, 1)

    def code_lengths(self, height: int, width: int) -> Tensor:
        """Return -log2(p + 1e-8), in bits, as published; arguments and shape as `logits`."""
        return _code_lengths(self.logits(height, width))

    def begin(self, height: int, width: int, num_symbols: int) -> TableFunction:
        """Prepare the tables for latents of one size; see `ohmq.models.priors.tables.TablePrior`."""
        check_prior_alphabet(self.num_symbols, num_symbols)
        logits = self.logits(height, width)
        code_lengths = _code_lengths(logits)

        def tables(context: GroupContext) -> GroupTables:
            return GroupTables(logits[:, context.channels], code_lengths=code_lengths[:, context.channels])

        return tables

    @torch.no_grad()
    def class_logits(self) -> Tensor:
        """Return the log probabilities of each border class, in float64.

        The classes are those of `ohmq.entropy.context_prior.border_classes`.

        Returns:
            Natural logarithms, (16, C, S).
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

        Args:
            counts: number of times that each symbol occurred, (C, S).
        """
        probabilities = (counts + 0.05) / (counts + 0.05).sum(-1, keepdim=True)
        last = self.network[-1]
        assert isinstance(last, nn.Conv2d)
        last.weight.zero_()
        last.bias.copy_(-probabilities.log().flatten())  # type: ignore[union-attr]
        self.inverse_temperature.fill_(1.0)


def _code_lengths(logits: Tensor) -> Tensor:
    return -torch.log2(logits.exp() + LIKELIHOOD_FLOOR)
