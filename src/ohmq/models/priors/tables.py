"""The tables that a prior gives to a quantizer layer, one channel-conditional group after the other.

Each prior has ``begin(height, width, num_symbols)``, which returns a function from a `GroupContext` to `GroupTables`; the
layers know nothing else about it. `UniformPrior` is the prior of a layer without one.
"""

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

__all__ = [
    "GroupContext",
    "GroupTables",
    "TableFunction",
    "TablePrior",
    "UniformPrior",
    "begin_prior",
    "check_prior_alphabet",
]


class GroupContext(NamedTuple):
    """Decoded data that the tables of a group may depend on.

    Attributes:
        group: number of the group.
        channels: channels of the group that are wanted, from the group's first one on.
        codewords: sum of the codewords of earlier groups, (batch, h, w, D).
        own: gives w · codewords for these channels, (batch, h, w, channels): each channel's coefficient in it.
        values: gives the levels of the nearest symbols of these channels, (batch, h, w, channels), without gradients. A
            checkerboard prior uses them at neighbours only that are decoded before.
    """

    group: int
    channels: slice
    codewords: Tensor
    own: Callable[[], Tensor]
    values: Callable[[], Tensor]


class GroupTables(NamedTuple):
    """Tables of a group of channels: natural logarithms ``logits + coefficients · features``, up to a constant.

    Attributes:
        logits: (positions or 1, channels, S), positions in raster order; 1: the same at every position.
        coefficients: (batch, h, w, channels, K); None: the tables do not depend on the image.
        features: (channels, S, K); None if there are no coefficients.
        code_lengths: where there are no coefficients, the bits of each symbol if the prior has a formula of its own for them,
            shape as logits; None: -log2 of the softmax of the logits.
    """

    logits: Tensor
    coefficients: Tensor | None = None
    features: Tensor | None = None
    code_lengths: Tensor | None = None

    def bits(self) -> Tensor:
        """Code lengths of tables without coefficients, in bits; shape as logits."""
        if self.code_lengths is not None:
            return self.code_lengths
        return torch.log_softmax(self.logits, -1) * (-1 / math.log(2))


TableFunction = Callable[[GroupContext], GroupTables]


class TablePrior(Protocol):
    """A prior that a one-hot max layer can use.

    Attributes:
        group_sizes: channels of each channel-conditional group; None: the tables do not depend on decoded channels.
    """

    @property
    def group_sizes(self) -> tuple[int, ...] | None: ...

    def begin(self, height: int, width: int, num_symbols: int) -> TableFunction:
        """Prepare the tables for latents of one size.

        Args:
            height: h of the latents.
            width: w of the latents.
            num_symbols: S, alphabet size of the layer.

        Returns:
            A function that gives the tables of a group.

        Raises:
            ValueError: the prior has another alphabet.
        """
        ...


class UniformPrior:
    """The fixed-length code: every symbol of an alphabet of S costs log2(S) bits. It has no parameters.

    Args:
        like: tensor whose device and type the tables get.
    """

    group_sizes = None

    def __init__(self, like: Tensor) -> None:
        self._like = like

    def begin(self, height: int, width: int, num_symbols: int) -> TableFunction:
        """As `TablePrior.begin`."""

        def tables(context: GroupContext) -> GroupTables:
            count = context.channels.stop - context.channels.start
            logits = self._like.new_zeros(1, count, num_symbols)
            return GroupTables(logits, code_lengths=torch.full_like(logits, math.log2(num_symbols)))

        return tables


def begin_prior(prior: TablePrior | None, latent: Tensor, num_symbols: int) -> TableFunction:
    """Prepare the tables of a prior, or of the fixed-length code, for a latent.

    Args:
        prior: the prior, or None.
        latent: (batch, D, h, w).
        num_symbols: S, alphabet size of the layer.

    Returns:
        A function that gives the tables of a group.
    """
    height, width = latent.shape[2:]
    return (UniformPrior(latent) if prior is None else prior).begin(height, width, num_symbols)


def check_prior_alphabet(prior_symbols: int, num_symbols: int) -> None:
    """Check that a prior and a layer have the same alphabet.

    Raises:
        ValueError: they do not.
    """
    if prior_symbols != num_symbols:
        raise ValueError(f"the prior has {prior_symbols} symbols and the quantizer {num_symbols}")
