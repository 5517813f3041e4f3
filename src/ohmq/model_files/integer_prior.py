"""The integer prior of a model from its tables; no torch."""

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from ohmq.entropy.context_prior import IntegerContextPrior
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior
from ohmq.errors import ModelFileError
from ohmq.models.config import ModelConfig

__all__ = ["integer_prior"]


def integer_prior(
    name: str, config: ModelConfig, tables: Mapping[str, NDArray[Any]]
) -> IntegerContextPrior | IntegerTabulatedPrior | None:
    """Build the integer prior from the tables of a model file; None if there are none.

    Args:
        name: of the model, for messages.
        config: its configuration.
        tables: tensors of the model file, names without "prior.".

    Raises:
        ModelFileError: tables that cannot be used.
    """
    if not tables:
        return None
    if config.quantizer == "none":
        raise ModelFileError(f"{name}: a model without a quantizer has no prior")
    try:
        make = _tabulated_prior if config.tabulated_prior else _context_prior
        prior = make(config, tables)
    except (KeyError, ValueError, IndexError) as error:
        raise ModelFileError(f"{name}: the prior's tables are not usable: {error}") from error
    if (prior.num_channels, prior.num_symbols) != (config.channels_max, config.num_symbols):
        raise ModelFileError(f"{name}: the prior's tables are for {prior.num_channels} channels")
    return prior


def _context_prior(config: ModelConfig, tables: Mapping[str, NDArray[Any]]) -> IntegerContextPrior:
    return IntegerContextPrior(tables, config.group_sizes)


def _tabulated_prior(config: ModelConfig, tables: Mapping[str, NDArray[Any]]) -> IntegerTabulatedPrior:
    prior = IntegerTabulatedPrior(
        tables, config.group_sizes, config.group_symbols, config.checkerboard_groups, config.cut_points
    )
    if prior.neighbour_hidden != config.neighbour_hidden:
        raise ValueError(f"networks of {prior.neighbour_hidden} hidden units, not {config.neighbour_hidden}")
    return prior
