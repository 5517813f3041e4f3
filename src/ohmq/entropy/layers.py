"""Entropy coding of symbols in layers of channels.

A *layout* lists the channels at which the layers of a file end, ascending, such as (4, 8, 16). The channels of a latent are
coded in *runs* (channels coded together) and each run in *steps* (`CodingStep`): the symbols of a step need the symbols of
earlier steps only.
"""

import functools
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ohmq.entropy.context_prior import CodingStep, IntegerContextPrior, SymbolTables, rows_as_slice
from ohmq.entropy.kernels import NUMPY, Kernels
from ohmq.entropy.tables import symbol_bits
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior

__all__ = [
    "EncodedBatch",
    "IntegerPrior",
    "KnownSymbols",
    "LayerDecoder",
    "SymbolSource",
    "decode_layers",
    "encode_layers",
    "next_end",
    "symbols_by_channel",
]

Array = NDArray[Any]
IntegerPrior = IntegerContextPrior | IntegerTabulatedPrior
"""Priors in integers, which entropy coding takes its frequency tables from."""


class SymbolSource(Protocol):
    """Symbols of a batch of latents, known before coding or chosen on the way.

    Attributes:
        shape: (images, patches, h, w).
        repeatable: whether the symbols can be coded more than once.
    """

    shape: tuple[int, ...]
    repeatable: bool

    def channel_run(self, channels: slice) -> NDArray[np.int32]:
        """Return the symbols of a run of channels, (channels, rows); `choose` fills in those that are not known yet.

        Args:
            channels: the run.
        """

    def choose(self, step: CodingStep, rows: NDArray[np.int64], tables: SymbolTables) -> None:
        """Choose the symbols of a step in some rows, given the tables that will code them.

        Args:
            step: the coding step.
            rows: its rows, (m,).
            tables: frequency tables of the symbols.
        """

    def values(self) -> NDArray[np.int64]:
        """Return the symbols of all channels, (images, patches, h, w, C)."""


class KnownSymbols:
    """Symbols that are known before they are coded.

    Args:
        symbols: (images, patches, h, w, C), integers.

    Attributes:
        shape: (images, patches, h, w).
    """

    repeatable = True

    def __init__(self, symbols: Array) -> None:
        self.shape = symbols.shape[:-1]
        self._symbols = symbols

    def channel_run(self, channels: slice) -> NDArray[np.int32]:
        """Return the symbols of a run of channels, (channels, rows).

        Args:
            channels: the run.
        """
        return self._by_channel[channels]

    @functools.cached_property
    def _by_channel(self) -> NDArray[np.int32]:
        return symbols_by_channel(self._symbols)

    def choose(self, step: CodingStep, rows: NDArray[np.int64], tables: SymbolTables) -> None:
        """Nothing is left to choose.

        Args:
            step: the coding step.
            rows: its rows, (m,).
            tables: frequency tables of the symbols.
        """

    def values(self) -> Array:
        """Return the symbols as they were given."""
        return self._symbols


class EncodedBatch(NamedTuple):
    """Payloads and statistics of an encoded batch.

    Attributes:
        payloads: indexed ``[layout][image][layer]``.
        ideal_bits: -log2 p of the symbols of each image and channel, (images, channels), in bits; zero if not measured.
        seconds: time that each layout took for all images, tables included, (layouts,).
    """

    payloads: list[list[list[bytes]]]
    ideal_bits: Array
    seconds: Array


def encode_layers(
    prior: IntegerPrior,
    source: SymbolSource,
    layouts: Sequence[Sequence[int]],
    *,
    kernels: Kernels = NUMPY,
    measure: bool = False,
) -> EncodedBatch:
    """Entropy code the symbols of images of one size, with one or more layer layouts.

    Args:
        prior: the integer prior.
        source: symbols of at least as many channels as each layout has.
        layouts: for each, the channels at which its layers end, ascending.
        kernels: inner loops; default: numpy.
        measure: whether to sum the ideal code lengths; default: no.

    Returns:
        Payloads, ideal code lengths and times.

    Raises:
        ValueError: the layouts need more than one pass, and the source cannot repeat its symbols.
    """
    if len(layouts) > 1 and not all(prior.aligned(ends) for ends in layouts):
        if not source.repeatable:
            raise ValueError(f"layouts {layouts} need one pass each, and RDOQ chooses symbols in a single pass")
        parts = [encode_layers(prior, source, [ends], kernels=kernels, measure=measure) for ends in layouts]
        longest = max(parts, key=lambda part: part.ideal_bits.shape[1])
        seconds = np.concatenate([part.seconds for part in parts])
        return EncodedBatch([part.payloads[0] for part in parts], longest.ideal_bits, seconds)
    clock = time.perf_counter()
    last = max(ends[-1] for ends in layouts)
    images, patches, height, width = source.shape
    state = prior.begin(images * patches, height, width, kernels=kernels)
    out: list[list[list[bytes]]] = [[[] for _ in range(images)] for _ in layouts]
    encoders = [[kernels.encoder() for _ in range(images)] for _ in layouts]
    bits, seconds = np.zeros((images, last)), np.zeros(len(layouts))
    seconds += time.perf_counter() - clock
    while state.channel < last:
        channel = state.channel
        active = [layout for layout, ends in enumerate(layouts) if channel < ends[-1]]
        clock = time.perf_counter()
        run = slice(channel, channel + state.channel_run(next_end(layouts, channel) - channel))
        values = source.channel_run(run)
        for step in state.coding_steps(images, run.stop - run.start):
            for number, rows in enumerate(step.rows):
                image = step.first + number
                tables = step.tables(number)
                source.choose(step, rows, tables)
                chosen = values[step.channels, rows_as_slice(rows, values.shape[1])].reshape(-1)
                seconds[active] += time.perf_counter() - clock
                if measure:
                    ideal = symbol_bits(chosen, tables.tables, tables.rows).reshape(-1, len(rows))
                    bits[image, run][step.channels] += ideal.sum(1)
                for layout in active:
                    clock = time.perf_counter()
                    encoders[layout][image].encode(chosen, *tables)
                    seconds[layout] += time.perf_counter() - clock
                clock = time.perf_counter()
            state.observe(step, values)
        state.advance(values)
        seconds[active] += time.perf_counter() - clock
        for layout in active:
            clock = time.perf_counter()
            if run.stop in layouts[layout]:
                for image in range(images):
                    out[layout][image].append(encoders[layout][image].finish())
                    encoders[layout][image] = kernels.encoder()
            seconds[layout] += time.perf_counter() - clock
    return EncodedBatch(out, bits, seconds)


class LayerDecoder:
    """Decodes the layers of one latent one after the other: the inverse of `encode_layers`.

    Args:
        prior: the integer prior.
        shape: (patches, h, w).
        known: symbols of the leading channels, (patches, h, w, channels); default: none.
        kernels: inner loops; default: numpy.
        helper: as for `ohmq.entropy.tabulated_prior.IntegerTabulatedPrior.begin`; default: none.
    """

    def __init__(
        self,
        prior: IntegerPrior,
        shape: Sequence[int],
        known: Array | None = None,
        *,
        kernels: Kernels = NUMPY,
        helper: Executor | None = None,
    ) -> None:
        self._kernels = kernels
        self._rows = int(np.prod(shape))
        self._state = prior.begin(*shape, kernels=kernels, helper=helper)
        if known is not None:
            values = symbols_by_channel(known)
            while self.channel < len(values):
                run = self._state.channel_run(len(values) - self.channel)
                self._state.advance(values[self.channel : self.channel + run])

    @property
    def channel(self) -> int:
        """The number of channels decoded so far."""
        return self._state.channel

    def decode(self, payloads: Sequence[bytes], ends: Sequence[int]) -> NDArray[np.int32]:
        """Decode the next layers.

        Args:
            payloads: one for each layer.
            ends: the channels at which these layers end, ascending.

        Returns:
            Symbols of the channels of these layers, (channels, rows), rows patch by patch.

        Raises:
            BitstreamError: a payload that cannot be decoded.
        """
        state, first = self._state, self.channel
        out = np.empty((ends[-1] - first if ends else 0, self._rows), np.int32)
        for payload, end in zip(payloads, ends, strict=True):
            decoder = self._kernels.decoder(payload)
            while state.channel < end:
                values = out[state.channel - first :][: state.channel_run(end - state.channel)]
                for step in () if state.decode_run(decoder, values) else state.coding_steps(1, len(values)):
                    rows, channels = step.rows[0], step.channels
                    tables, index, in_order = step.tables(0)
                    decoded = decoder.decode(tables, index, len(rows) * (channels.stop - channels.start), in_order)
                    values[channels, rows_as_slice(rows, values.shape[1])] = decoded.reshape(-1, len(rows))
                    state.observe(step, values)
                state.advance(values)
        return out


def decode_layers(
    prior: IntegerPrior,
    payloads: Sequence[bytes],
    ends: Sequence[int],
    shape: Sequence[int],
    known: Array | None = None,
    *,
    kernels: Kernels = NUMPY,
) -> NDArray[np.int64]:
    """Decode the layers of one latent.

    Args:
        prior: the integer prior.
        payloads: one for each layer.
        ends: the channels at which the layers end, ascending.
        shape: (patches, h, w).
        known: symbols of the channels before these layers, (patches, h, w, channels); default: none.
        kernels: inner loops; default: numpy.

    Returns:
        Symbols of the channels of these layers, (patches, h, w, channels).

    Raises:
        BitstreamError: a payload that cannot be decoded.
    """
    decoded = LayerDecoder(prior, shape, known, kernels=kernels).decode(payloads, ends)
    return decoded.T.astype(np.int64, order="C").reshape(*shape, -1)


def symbols_by_channel(symbols: Array) -> NDArray[np.int32]:
    """Reorder symbols (..., C) channel by channel, (C, rows).

    Args:
        symbols: (..., C), integers.

    Returns:
        (C, rows), int32.
    """
    return symbols.reshape(-1, symbols.shape[-1]).T.astype(np.int32, order="C")


def next_end(layouts: Sequence[Sequence[int]], channel: int) -> int:
    """Return the next channel at which a layer of any layout ends.

    Args:
        layouts: for each layout, the channels at which its layers end.
        channel: a channel below the last end.
    """
    return min(end for ends in layouts for end in ends if end > channel)
