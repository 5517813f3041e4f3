"""Entropy coding of the symbols of pictures, in layers of channels."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmq.encoder.rdoq import Rdoq
from ohmq.entropy.context_prior import CodingStep, IntegerContextPrior, SymbolTables, rows_as_slice
from ohmq.entropy.tables import symbol_bits
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior

__all__ = ["EncodedBatch", "decode_layers", "encode_layers"]

Array = NDArray[Any]


class EncodedBatch(NamedTuple):
    """What `encode_layers` gives.

    Attributes:
        payloads: indexed [plan][picture][layer].
        ideal_bits: -log2 of each picture's symbols, channel by channel, shape (pictures, channels); zero if not measured.
        seconds: what each plan took, tables included, for all pictures.
    """

    payloads: list[list[list[bytes]]]
    ideal_bits: Array
    seconds: Array


def encode_layers(
    prior: IntegerContextPrior | IntegerTabulatedPrior,
    symbols: Array | Rdoq,
    plans: Sequence[Sequence[int]],
    *,
    measure: bool = False,
) -> EncodedBatch:
    """Entropy code the symbols of pictures of one size, for one or more ways to divide channels into layers.

    Args:
        prior: the integer prior. symbols: (pictures, tiles, h, w, C), or what chooses them on the way, for as many channels
            as each plan has. plans: for each way, the channels at which its layers end, ascending, such as (4, 8, 16).
        measure: also sum the ideal code lengths.

    Raises:
        ValueError: symbols that are chosen on the way, and plans that do not cut at the same places as coding does.
    """
    if len(plans) > 1 and not all(prior.aligned(ends) for ends in plans):
        if isinstance(symbols, Rdoq):
            raise ValueError(f"plans {plans} need coding of their own, and symbols that are chosen once")
        parts = [encode_layers(prior, symbols, [ends], measure=measure) for ends in plans]
        longest = max(parts, key=lambda part: part.ideal_bits.shape[1])
        seconds = np.concatenate([part.seconds for part in parts])
        return EncodedBatch([part.payloads[0] for part in parts], longest.ideal_bits, seconds)
    clock = time.perf_counter()
    last = max(ends[-1] for ends in plans)
    source = symbols if isinstance(symbols, Rdoq) else _KnownSymbols(symbols, last)
    pictures, tiles, height, width = source.shape
    state = prior.begin(pictures * tiles, height, width)
    out: list[list[list[bytes]]] = [[[] for _ in range(pictures)] for _ in plans]
    encoders = [[prior.kernels.encoder() for _ in range(pictures)] for _ in plans]
    bits, seconds = np.zeros((pictures, last)), np.zeros(len(plans))
    seconds += time.perf_counter() - clock
    while state.channel < last:
        channel = state.channel
        wanted = [plan for plan, ends in enumerate(plans) if channel < ends[-1]]
        clock = time.perf_counter()
        run = slice(channel, channel + state.channel_run(_next_end(plans, channel) - channel))
        values = source.run(run)
        for coding_step in state.coding_steps(pictures, run.stop - run.start):
            for number, rows in enumerate(coding_step.rows):
                picture = coding_step.first + number
                tables = coding_step.tables(number)
                source.choose(coding_step, rows, tables)
                chosen = values[coding_step.channels, rows_as_slice(rows, values.shape[1])].reshape(-1)
                seconds[wanted] += time.perf_counter() - clock
                if measure:
                    ideal = symbol_bits(chosen, tables.tables, tables.rows).reshape(-1, len(rows))
                    bits[picture, run][coding_step.channels] += ideal.sum(1)
                for plan in wanted:
                    clock = time.perf_counter()
                    encoders[plan][picture].encode(chosen, *tables)
                    seconds[plan] += time.perf_counter() - clock
                clock = time.perf_counter()
            state.observe(coding_step, values)
        state.advance(values)
        seconds[wanted] += time.perf_counter() - clock
        for plan in wanted:
            clock = time.perf_counter()
            if run.stop in plans[plan]:
                for picture in range(pictures):
                    out[plan][picture].append(encoders[plan][picture].finish())
                    encoders[plan][picture] = prior.kernels.encoder()
            seconds[plan] += time.perf_counter() - clock
    return EncodedBatch(out, bits, seconds)


def decode_layers(
    prior: IntegerContextPrior | IntegerTabulatedPrior,
    payloads: Sequence[bytes],
    ends: Sequence[int],
    shape: Sequence[int],
    known: Array | None = None,
) -> Array:
    """Symbols of the layers of one picture: the inverse of `encode_layers`.

    Args:
        prior: the integer prior. payloads: of each layer. ends: the channels at which the layers end.
        shape: (tiles, h, w). known: the symbols of the channels before these layers, (tiles, h, w, channels); None: none.

    Shape:
        Returns: (tiles, h, w, ends[-1] - known channels), int64.

    Raises:
        BitstreamError: a payload that cannot be decoded.
    """
    tiles, height, width = shape
    state = prior.begin(tiles, height, width)
    first = 0 if known is None else known.shape[-1]
    if known is not None:
        before = _by_channel(known, first)
        while state.channel < first:
            state.advance(before[state.channel : state.channel + state.channel_run(first - state.channel)])
    out = np.empty((ends[-1] - first if ends else 0, tiles * height * width), np.int32)
    for payload, end in zip(payloads, ends, strict=True):
        decoder = prior.kernels.decoder(payload)
        while state.channel < end:
            values = out[state.channel - first :][: state.channel_run(end - state.channel)]
            for coding_step in state.coding_steps(1, len(values)):
                rows, channels = coding_step.rows[0], coding_step.channels
                tables, index, in_order = coding_step.tables(0)
                decoded = decoder.decode(tables, index, len(rows) * (channels.stop - channels.start), in_order)
                values[channels, rows_as_slice(rows, values.shape[1])] = decoded.reshape(-1, len(rows))
                state.observe(coding_step, values)
            state.advance(values)
    return out.T.astype(np.int64, order="C").reshape(tiles, height, width, -1)


class _KnownSymbols:
    """Symbols that were chosen before they are coded, where `Rdoq` chooses them."""

    def __init__(self, symbols: Array, channels: int) -> None:
        self.shape = symbols.shape[:-1]
        self._flat = _by_channel(symbols, channels)

    def run(self, channels: slice) -> NDArray[np.int32]:
        return self._flat[channels]

    def choose(self, coding_step: CodingStep, rows: NDArray[np.int64], tables: SymbolTables) -> None:
        """Nothing is left to choose."""


def _by_channel(symbols: Array, channels: int) -> NDArray[np.int32]:
    """The first channels of symbols (..., C), shape (channels, rows)."""
    return symbols.reshape(-1, symbols.shape[-1])[:, :channels].T.astype(np.int32, order="C")


def _next_end(plans: Sequence[Sequence[int]], channel: int) -> int:
    """The next channel at which a layer of any plan ends."""
    return min(end for ends in plans for end in ends if end > channel)
