r"""Rate–distortion optimised quantization (RDOQ): symbols chosen by distortion and bits while they are coded.

A symbol minimises $|a_s| + \kappa\,b_s$, the distance of the activation plus a weight times the bits that the entropy coder
spends. This is the Lagrangian cost $D + \lambda R$ of neighbouring codewords: if these lie $\Delta$ apart on a line and the
value lies between them, $D_1 - D_0 = \Delta\,(|a_1| - |a_0|)$, so that $(D + \lambda R) / \Delta = |a| + \kappa b$ up to a
constant, with $\kappa = \lambda / \Delta$. A decoder need not know of it.

References: Sullivan and Wiegand, Rate-distortion optimization for video compression (1998); Karczewicz et al., Rate distortion
optimized quantization (VCEG-AH21, 2008).
"""

import itertools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ohmq.entropy.context_prior import Array, CodingStep, SymbolTables
from ohmq.entropy.kernels import NUMPY, Codebook, Kernels
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior

__all__ = ["Rdoq"]

SMALLEST_SPACING = 1e-6
"""Lower bound on codeword spacing when scaling λ; as in `ohmq.models.quantizers.directional`."""


class Rdoq:
    """Symbols of a batch of latents, chosen by RDOQ as coding goes on: a `ohmq.entropy.layers.SymbolSource`.

    The activations of a group see the latent minus the codewords chosen before it. The bits are those of the tables that code
    the symbol.

    Args:
        prior: prior whose tables code the symbols.
        quantizer: tensors "project" and "directions" (C, D), "centres" and "values" (C, S), "bit_price" (C,): the Lagrange
            multipliers; see `ohmq.models.quantizers.directional.DirectionalOneHotMax`.
        latent: (images, patches, h, w, D), left as it is.
        channels: the number of channels that are coded; each of them once, in order.
        lambda_scale: factor on the Lagrange multiplier.
        channel_weights: factor on the Lagrange multiplier for each channel, (C,); default: 1.
        place_weights: factor on the Lagrange multiplier for each position, broadcast to (images, patches, h, w); default: 1.
        kernels: inner loops; default: numpy.

    Raises:
        ValueError: quantizer tensors whose shapes do not fit the prior.

    Attributes:
        shape: (images, patches, h, w).
        symbols: symbols chosen so far, (channels, rows).
    """

    repeatable = False

    def __init__(
        self,
        prior: IntegerTabulatedPrior,
        quantizer: Mapping[str, Array],
        latent: Array,
        channels: int,
        *,
        lambda_scale: float = 1.0,
        channel_weights: Array | None = None,
        place_weights: Array | None = None,
        kernels: Kernels = NUMPY,
    ) -> None:
        self.shape = latent.shape[:-1]
        self._prior, self._kernels = prior, kernels
        self._starts = np.cumsum([0, *prior.group_sizes])
        self._quantizer = {
            name: np.asarray(quantizer[name], np.float32) for name in ("project", "directions", "centres", "values")
        }
        for name, value in self._quantizer.items():
            width = latent.shape[-1] if name in ("project", "directions") else prior.num_symbols
            if value.shape != (prior.num_channels, width):
                expected = prior.num_channels, width
                raise ValueError(f"the quantizer's {name} has shape {value.shape}; expected {expected}")
        self._lagrange_multiplier = lambda_scale * float(quantizer["bit_price"][channels - 1])
        self._channel_weights, self._row_weights = channel_weights, None
        if place_weights is not None:
            self._row_weights = np.broadcast_to(place_weights, self.shape).astype(np.float32).ravel()
        self._residual = np.array(latent.reshape(-1, latent.shape[-1]), np.float32, order="C")  # (rows, D)
        self.symbols: NDArray[np.int32] = np.zeros((channels, len(self._residual)), np.int32)
        self._channels = slice(0, 0)
        self._group = -1

    def channel_run(self, channels: slice) -> NDArray[np.int32]:
        """Return room for the symbols of a run of channels of one group, (channels, rows); `choose` fills it.

        Args:
            channels: the run, of one group.
        """
        group = int(np.searchsorted(self._starts, channels.start, "right")) - 1
        group_channels = slice(int(self._starts[group]), min(int(self._starts[group + 1]), len(self.symbols)))
        if group != self._group:
            if group:
                self._subtract(slice(int(self._starts[group - 1]), group_channels.start))
            self._group, self._first = group, group_channels.start
            self._projected = self._quantizer["project"][group_channels] @ self._residual.T
        self._channels = channels
        alphabet = self._prior.alphabets[channels.start]
        values, directions = (self._quantizer[name][channels] for name in ("values", "directions"))
        self._centres = self._quantizer["centres"][channels, :alphabet]
        middle = alphabet // 2
        spacing = np.square(directions).sum(1) * (values[:, middle + 1] - values[:, middle - 1]) / 2
        self._bit_weight = (self._lagrange_multiplier / np.maximum(spacing, SMALLEST_SPACING)).astype(np.float32)
        if self._channel_weights is not None:
            self._bit_weight *= self._channel_weights[channels]
        return self.symbols[channels]

    def choose(self, step: CodingStep, rows: NDArray[np.int64], tables: SymbolTables) -> None:
        """Choose the symbols of a coding step of the current run.

        Args:
            step: the coding step.
            rows: its rows, (m,).
            tables: the frequency tables that will code each symbol.
        """
        offset, start = self._channels.start - self._first, self._channels.start
        bits = self._prior.channel_bits(slice(start + step.channels.start, start + step.channels.stop))
        assert tables.rows is not None
        self._kernels.rdoq_symbols(
            self._projected[offset + step.channels.start : offset + step.channels.stop],
            self._centres[step.channels],
            self._bit_weight[step.channels],
            bits,
            tables.rows.reshape(step.channels.stop - step.channels.start, len(rows)),
            self._row_weights,
            None if len(rows) == self.symbols.shape[1] else rows,
            self.symbols[self._channels][step.channels],
        )

    def choose_without_context(self) -> NDArray[np.float32]:
        """Choose the symbols of all channels at once with one table a channel: nearly what coding chooses.

        Returns:
            The quantization error of the latent, (images, patches, h, w, D).
        """
        count = len(self.symbols)
        for group, (start, end) in enumerate(itertools.pairwise(self._starts.tolist())):
            if start >= count:
                break
            channels = slice(start, min(end, count))
            symbols = self.channel_run(channels)
            bits, index = self._prior.central_bits(group), np.arange(len(symbols), dtype=np.int32)[:, None]
            self._kernels.rdoq_symbols(
                self._projected, self._centres, self._bit_weight, bits, index, self._row_weights, None, symbols
            )
        self._subtract(channels)
        return self._residual.reshape(*self.shape, -1)

    def values(self) -> NDArray[np.int64]:
        """Return the symbols, (images, patches, h, w, channels)."""
        return self.symbols.T.astype(np.int64, order="C").reshape(*self.shape, -1)

    def _subtract(self, channels: slice) -> None:
        values, directions = -self._quantizer["values"][channels], self._quantizer["directions"][channels]
        codebook = Codebook.of(values, directions, self._prior.alphabets[channels])
        self._kernels.add_codewords(codebook, self.symbols[channels], self._residual)
