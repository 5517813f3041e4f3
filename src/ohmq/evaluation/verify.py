"""src/ohmq/evaluation/verify.py."""

import time
from collections.abc import Sequence

import numpy as np

from ohmq.entropy.context_prior import IntegerContextPrior, rows_as_slice
from ohmq.entropy.kernels import Decoder
from ohmq.entropy.layers import Array, _by_channel, _next_end
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior
from ohmq.errors import BitstreamError

__all__ = ["verify_layers"]


def verify_layers(
    prior: IntegerContextPrior | IntegerTabulatedPrior,
    symbols: Array,
    plans: Sequence[Sequence[int]],
    payloads: Sequence[Sequence[Sequence[bytes]]],
) -> Array:
    """Decode payloads and compare with the symbols, channel by channel.

    A decoder's tables depend on what it decoded before; as long as that equals the symbols, all plans share tables.

    Args:
        prior, symbols, plans: as `encode_layers`. payloads: what it gave.

    Returns:
        Seconds that decoding took, tables included, for each plan and all pictures.

    Raises:
        BitstreamError: a payload that does not decode to its symbols.
    """
    if len(plans) > 1 and not all(prior.aligned(ends) for ends in plans):
        parts = zip(plans, payloads, strict=True)
        return np.concatenate([verify_layers(prior, symbols, [ends], [part]) for ends, part in parts])
    pictures, tiles, height, width, _ = symbols.shape
    state = prior.begin(pictures * tiles, height, width)
    seconds = np.zeros(len(plans))
    decoders: dict[tuple[int, int], Decoder] = {}
    last = max(ends[-1] for ends in plans)
    flat = _by_channel(symbols, last)
    while state.channel < last:
        channel = state.channel
        wanted = [plan for plan, ends in enumerate(plans) if channel < ends[-1]]
        for plan in wanted:
            if channel == 0 or channel in plans[plan]:
                layer = sum(end <= channel for end in plans[plan])
                decoders |= {(plan, p): prior.kernels.decoder(payloads[plan][p][layer]) for p in range(pictures)}
        clock = time.perf_counter()
        run = slice(channel, channel + state.channel_run(_next_end(plans, channel) - channel))
        values = flat[run]
        for coding_step in state.coding_steps(pictures, run.stop - run.start):
            for number, rows in enumerate(coding_step.rows):
                picture = coding_step.first + number
                expected = values[coding_step.channels, rows_as_slice(rows, values.shape[1])].reshape(-1)
                tables, index, in_order = coding_step.tables(number)
                seconds[wanted] += time.perf_counter() - clock
                for plan in wanted:
                    clock = time.perf_counter()
                    decoded = decoders[plan, picture].decode(tables, index, len(expected), in_order)
                    seconds[plan] += time.perf_counter() - clock
                    if not np.array_equal(decoded, expected):
                        raise BitstreamError(f"picture {picture}: channel {channel} did not decode to what was encoded")
                clock = time.perf_counter()
            state.observe(coding_step, values)
        state.advance(values)
        seconds[wanted] += time.perf_counter() - clock
    return seconds
