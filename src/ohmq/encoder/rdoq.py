"""Symbols that are chosen while they are coded, also by the bits that they cost: a matter of the encoder alone."""

import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ohmq.entropy.context_prior import Array, CodingStep, SymbolTables, rows_as_slice
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior

__all__ = ["Rdoq"]

LEAST_SCALE = 1e-6
"""As in `ohmq.models.quantizers.rounding`: codewords that lie closer together have the price of such."""


class Rdoq:
    """Symbols of scalar OHM channels with the least |activation| + price * bits, chosen as coding goes on.

    The activations of a group see the latent less the codewords chosen before it, the bits are those of the tables that code
    the symbol.

    Args:
        prior: whose tables code the symbols. quantizer: its tensors "project", "directions" (C, D), "centres", "values"
            (C, S), "bit_price" (C,), see `ohmq.models.quantizers.directional.DirectionalOneHotMax`.
        latent: (pictures, tiles, h, w, D), left as it is. channels: how many channels are coded; once, in their order.
        price: of a bit, times that of the quantizer.

    Raises:
        ValueError: tensors of other shapes than the prior has.

    Attributes:
        symbols: what was chosen so far, (channels, rows).
    """

    def __init__(
        self,
        prior: IntegerTabulatedPrior,
        quantizer: Mapping[str, Array],
        latent: Array,
        channels: int,
        price: float = 1.0,
    ) -> None:
        self.shape = latent.shape[:-1]
        self._prior = prior
        self._starts = np.cumsum([0, *prior.group_sizes])
        self._quantizer = {
            name: np.asarray(quantizer[name], np.float32) for name in ("project", "directions", "centres", "values")
        }
        for name, value in self._quantizer.items():
            width = latent.shape[-1] if name in ("project", "directions") else prior.num_symbols
            if value.shape != (prior.num_channels, width):
                expected = prior.num_channels, width
                raise ValueError(f"the quantizer's {name} has shape {value.shape}; expected {expected}")
        self._bit_price = price * float(quantizer["bit_price"][channels - 1])
        self._rest = np.array(latent.reshape(-1, latent.shape[-1]).T, np.float32, order="C")  # (D, rows)
        self.symbols: NDArray[np.int32] = np.zeros((channels, self._rest.shape[1]), np.int32)
        self._channels = slice(0, 0)
        self._group = -1

    def run(self, channels: slice) -> NDArray[np.int32]:
        """Room for the symbols of some channels of one group, (channels, rows)."""
        group = int(np.searchsorted(self._starts, channels.start, "right")) - 1
        part = slice(int(self._starts[group]), min(int(self._starts[group + 1]), len(self.symbols)))
        if group != self._group:
            if group:
                self._subtract(slice(int(self._starts[group - 1]), part.start))
            self._group, self._first = group, part.start
            self._projected = self._quantizer["project"][part] @ self._rest
        self._channels = channels
        alphabet = self._prior.alphabets[channels.start]
        values, directions = (self._quantizer[name][channels] for name in ("values", "directions"))
        self._centres = self._quantizer["centres"][channels, :alphabet]
        middle = alphabet // 2
        scale = np.square(directions).sum(1) * (values[:, middle + 1] - values[:, middle - 1]) / 2
        self._price = (self._bit_price / np.maximum(scale, LEAST_SCALE)).astype(np.float32)
        return self.symbols[channels]

    def choose_without_context(self) -> NDArray[np.float32]:
        """Choose the symbols of all channels at once as if each channel had one table: nearly what coding chooses.

        Shape:
            Returns: what the symbols leave of the latent, (pictures, tiles, h, w, D).
        """
        count = len(self.symbols)
        for group, (start, end) in enumerate(itertools.pairwise(self._starts.tolist())):
            if start >= count:
                break
            part = slice(start, min(end, count))
            chosen = self.run(part)
            bits, index = self._prior.central_bits(group), np.arange(len(chosen), dtype=np.int32)[:, None]
            chosen[:] = self._prior.kernels.rdoq_symbols(self._projected, self._centres, self._price, bits, index)
        self._subtract(part)
        return np.ascontiguousarray(self._rest.T).reshape(*self.shape, -1)

    def values(self) -> NDArray[np.int64]:
        """What was chosen, (pictures, tiles, h, w, channels)."""
        return self.symbols.T.astype(np.int64, order="C").reshape(*self.shape, -1)

    def _subtract(self, channels: slice) -> None:
        values = self._quantizer["values"][channels]
        chosen = np.empty((len(values), self._rest.shape[1]), np.float32)
        self._prior.kernels.look_up(values, self.symbols[channels], chosen)
        self._rest -= self._quantizer["directions"][channels].T @ chosen

    def choose(self, coding_step: CodingStep, rows: NDArray[np.int64], tables: SymbolTables) -> None:
        """Choose the symbols of a coding_step of the run in some rows, (m,), given the tables that will code each of them."""
        part = coding_step.channels
        where = rows_as_slice(rows, self.symbols.shape[1])
        before = self._channels.start - self._first
        projected = self._projected[before + part.start : before + part.stop, where]
        bits = self._prior.channel_bits(slice(self._channels.start + part.start, self._channels.start + part.stop))
        assert tables.rows is not None
        self.symbols[self._channels][part, where] = self._prior.kernels.rdoq_symbols(
            projected, self._centres[part], self._price[part], bits, tables.rows.reshape(projected.shape)
        )
