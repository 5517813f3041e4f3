"""Symbols that are chosen while they are coded, also by the bits that they cost: a matter of the encoder alone."""

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ohmq.entropy.frozen import Array, Portion, rows_as_slice

__all__ = ["PricedSymbols"]

LEAST_SCALE = 1e-6
"""As in `ohmq.quantizers`: codewords that lie closer together have the price of such."""


class PricedSymbols:
    """Symbols of scalar OHM channels with the least |activation| + price * bits, chosen as coding goes on.

    The activations of a group see the latent less the codewords chosen before it, the bits are those of the tables that code
    the symbol.

    Args:
        quantizer: its tensors "project", "directions" (C, D), "centres", "values" (C, S), "bit_price" (C,), see
            `ohmq.quantizers.DirectionalOneHotMax`. group_sizes: channels of each group. group_symbols: their alphabets.
        latent: (pictures, tiles, h, w, D), left as it is. channels: how many channels are coded; once, in their order.
        price: of a bit, times that of the quantizer.

    Attributes:
        symbols: what was chosen so far, (channels, rows).
    """

    def __init__(
        self,
        quantizer: Mapping[str, Array],
        group_sizes: Sequence[int],
        group_symbols: Sequence[int],
        latent: Array,
        channels: int,
        price: float = 1.0,
    ) -> None:
        self.shape = latent.shape[:-1]
        self._starts = np.cumsum([0, *group_sizes])
        self._alphabets = tuple(group_symbols)
        self._quantizer = {
            name: np.asarray(quantizer[name], np.float32) for name in ("project", "directions", "centres", "values")
        }
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
        alphabet = self._alphabets[group]
        values, directions = (self._quantizer[name][channels] for name in ("values", "directions"))
        self._centres = self._quantizer["centres"][channels, :alphabet]
        middle = alphabet // 2
        scale = np.square(directions).sum(1) * (values[:, middle + 1] - values[:, middle - 1]) / 2
        self._price = (self._bit_price / np.maximum(scale, LEAST_SCALE)).astype(np.float32)
        return self.symbols[channels]

    def choose_without_context(self, tables: Callable[[int], Array]) -> NDArray[np.float32]:
        """Choose the symbols of all channels at once as if each channel had one table: nearly what coding chooses.

        Args:
            tables: of each channel of a group, by its number: (channels, S), as `ohmq.entropy.prepare_tables` gives them.

        Shape:
            Returns: what the symbols leave of the latent, (pictures, tiles, h, w, D).
        """
        count = len(self.symbols)
        for group, (start, end) in enumerate(itertools.pairwise(self._starts.tolist())):
            if start >= count:
                break
            part = slice(start, min(end, count))
            chosen = self.run(part)
            costs = self._bits(tables(group)[: len(chosen)].T[..., None]) * self._price[:, None]
            chosen[:] = _cheapest(self._projected, self._centres, costs)
        self._subtract(part)
        return np.ascontiguousarray(self._rest.T).reshape(*self.shape, -1)

    def values(self) -> NDArray[np.int64]:
        """What was chosen, (pictures, tiles, h, w, channels)."""
        return self.symbols.T.astype(np.int64, order="C").reshape(*self.shape, -1)

    def _subtract(self, channels: slice) -> None:
        values = self._quantizer["values"][channels]
        first = np.arange(len(values), dtype=np.int32)[:, None] * values.shape[1]
        chosen = values.take(self.symbols[channels] + first)
        self._rest -= self._quantizer["directions"][channels].T @ chosen

    def choose(self, portion: Portion, rows: NDArray[np.int64], tables: Array) -> None:
        """Choose the symbols of a portion of the run in some rows, given the tables that will code each of them.

        Shape:
            rows: (m,). tables: (channels of the portion * m, S), as `ohmq.entropy.prepare_tables` gives them.
        """
        first = self._channels.start - self._first
        where = rows_as_slice(rows, self.symbols.shape[1])
        projected = self._projected[first + portion.channels.start : first + portion.channels.stop, where]
        centres, price = self._centres[portion.channels], self._price[portion.channels, None]
        # From here on the symbols are the first axis, and each operation runs along the rows.
        costs = self._bits(tables.T.reshape(-1, *projected.shape))
        costs *= price
        self.symbols[self._channels][portion.channels, where] = _cheapest(projected, centres, costs)

    @staticmethod
    def _bits(frequencies: Array) -> NDArray[np.float32]:
        """What symbols cost but for a constant, given their frequencies less 1."""
        bits = np.add(frequencies, 1, dtype=np.float32, order="C")
        np.log(bits, out=bits)
        bits *= np.float32(-1 / np.log(2))
        return bits


def _cheapest(projected: Array, centres: Array, costs: Array) -> NDArray[np.integer]:
    """The symbols whose distance and cost together are least, the first of equal ones.

    Shape:
        projected: (channels, m). centres: (channels, S). costs: (S, channels, m or 1). Returns: (channels, m).
    """
    kind = np.min_scalar_type(len(costs) - 1).type
    chosen = np.zeros(projected.shape, kind)
    least, cost = np.empty((2, *projected.shape), np.float32)
    for symbol, spent in enumerate(costs):
        np.subtract(projected, centres[:, symbol, None], out=cost)
        np.abs(cost, out=cost)
        np.add(cost, spent, out=cost)
        if symbol:
            np.maximum(chosen, (cost < least) * kind(symbol), out=chosen)
            np.minimum(least, cost, out=least)
        else:
            least[:] = cost
    return chosen
