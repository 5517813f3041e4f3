"""Verification: decode payloads and compare them with the symbols that were encoded."""

import time
from collections.abc import Sequence

import numpy as np

from ohmq.entropy.context_prior import rows_as_slice
from ohmq.entropy.kernels import NUMPY, Decoder, Kernels
from ohmq.entropy.layers import Array, IntegerPrior, next_end, symbols_by_channel
from ohmq.errors import BitstreamError

__all__ = ["verify_layers"]


def verify_layers(
    prior: IntegerPrior,
    symbols: Array,
    layouts: Sequence[Sequence[int]],
    payloads: Sequence[Sequence[Sequence[bytes]]],
    *,
    kernels: Kernels = NUMPY,
) -> Array:
    """Decode payloads and compare with the symbols, channel by channel.

    A decoder's tables depend on earlier symbols. While decoded symbols equal the encoded ones, all layouts share tables.

    Args:
        prior: the integer prior.
        symbols: (images, patches, h, w, C).
        layouts: for each, the channels at which its layers end, ascending.
        payloads: from `ohmq.entropy.layers.encode_layers`, indexed ``[layout][image][layer]``.
        kernels: inner loops; default: numpy.

    Returns:
        Seconds that each layout took for all images, tables included, (layouts,).

    Raises:
        BitstreamError: a payload that does not decode to its symbols.
    """
    if len(layouts) > 1 and not all(prior.aligned(ends) for ends in layouts):
        parts = zip(layouts, payloads, strict=True)
        seconds = [verify_layers(prior, symbols, [ends], [part], kernels=kernels) for ends, part in parts]
        return np.concatenate(seconds)
    images, patches, height, width, _ = symbols.shape
    state = prior.begin(images * patches, height, width, kernels=kernels)
    seconds_taken = np.zeros(len(layouts))
    decoders: dict[tuple[int, int], Decoder] = {}
    last = max(ends[-1] for ends in layouts)
    by_channel = symbols_by_channel(symbols[..., :last])
    while state.channel < last:
        channel = state.channel
        active = [layout for layout, ends in enumerate(layouts) if channel < ends[-1]]
        for layout in active:
            if channel == 0 or channel in layouts[layout]:
                layer = sum(end <= channel for end in layouts[layout])
                decoders |= {(layout, i): kernels.decoder(payloads[layout][i][layer]) for i in range(images)}
        clock = time.perf_counter()
        run = slice(channel, channel + state.channel_run(next_end(layouts, channel) - channel))
        values = by_channel[run]
        for step in state.coding_steps(images, run.stop - run.start):
            for number, rows in enumerate(step.rows):
                image = step.first + number
                expected = values[step.channels, rows_as_slice(rows, values.shape[1])].reshape(-1)
                tables, index, in_order = step.tables(number)
                seconds_taken[active] += time.perf_counter() - clock
                for layout in active:
                    clock = time.perf_counter()
                    decoded = decoders[layout, image].decode(tables, index, len(expected), in_order)
                    seconds_taken[layout] += time.perf_counter() - clock
                    if not np.array_equal(decoded, expected):
                        raise BitstreamError(f"image {image}: channel {channel} did not decode to what was encoded")
                clock = time.perf_counter()
            state.observe(step, values)
        state.advance(values)
        seconds_taken[active] += time.perf_counter() - clock
    return seconds_taken
