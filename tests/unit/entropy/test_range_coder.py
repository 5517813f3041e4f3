"""The range coder, on constriction and compiled."""

import numpy as np
import pytest
from support.reference_decoder import ReferenceRangeDecoder

from ohmq.entropy import (
    PRECISION_BITS,
    frequencies_from_weights,
    optimal_bits,
    quantize_probabilities,
)
from ohmq.entropy.kernels import NUMPY, Kernels
from ohmq.entropy.kernels_numba import COMPILED
from ohmq.errors import BitstreamError

both_coders = pytest.mark.parametrize("kernels", [NUMPY, COMPILED], ids=["constriction", "compiled"])


TOTAL = 1 << PRECISION_BITS


def random_case(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, bool]:
    """Make symbols, tables, an index and ``in_order``: one table for all symbols, one for each, or a few with an index."""
    rng = np.random.default_rng(seed)
    count, size = int(rng.integers(1, 200)), int(rng.integers(2, 300))
    number = (1, count, 5)[seed % 3]
    p = rng.dirichlet(np.full(size, 0.1), number) + 1e-9
    index = rng.integers(0, 5, count).astype(np.int32) if seed % 3 == 2 else None
    rows = index if index is not None else np.arange(count) % number
    symbols = np.array([rng.choice(size, p=p[row] / p[row].sum()) for row in rows])
    return symbols, quantize_probabilities(p), index, seed % 6 == 5


@both_coders
def test_round_trips_and_their_cost(kernels: Kernels) -> None:
    overhead = []
    for seed in range(300):
        symbols, tables, index, in_order = random_case(seed)
        encoder = kernels.encoder()
        encoder.encode(symbols, tables, index, in_order)
        data = encoder.finish()
        assert np.array_equal(kernels.decoder(data).decode(tables, index, len(symbols), in_order), symbols)
        overhead.append(8 * len(data) - optimal_bits(symbols, tables, index))
    assert max(overhead) <= 8.001
    assert np.mean(overhead) < 4


@both_coders
def test_a_decoder_written_from_the_format_page_reads_the_same_symbols(kernels: Kernels) -> None:
    for seed in range(60):
        symbols, tables, index, in_order = random_case(seed)
        encoder = kernels.encoder()
        encoder.encode(symbols, tables, index, in_order)
        decoder = ReferenceRangeDecoder(encoder.finish())
        if index is None:
            rows, order = np.arange(len(symbols)) % len(tables), np.arange(len(symbols))
        else:
            rows, order = index, np.arange(len(symbols)) if in_order else np.argsort(index, kind="stable")
        assert [decoder.symbol(tables[rows[i]].tolist()) for i in order] == symbols[order].tolist()


@both_coders
def test_the_bytes_are_fixed(kernels: Kernels) -> None:
    tables = frequencies_from_weights(np.array([[1, 5, 1000, 77, 0], [3, 3, 3, 3, 3]]))
    encoder = kernels.encoder()
    encoder.encode(np.array([2, 2, 1, 4, 0, 3, 2]), tables[:1])
    encoder.encode(np.array([0, 1, 2, 3, 4, 4]), tables, np.array([1, 1, 0, 1, 1, 0]))
    assert encoder.finish().hex() == GOLDEN


GOLDEN = "03efe9201e66881e7637"


@both_coders
def test_encoding_in_parts_is_encoding_at_once(kernels: Kernels) -> None:
    symbols, tables, *_ = random_case(1)
    whole, parts = kernels.encoder(), kernels.encoder()
    whole.encode(symbols, tables)
    for i in range(0, len(symbols), 7):
        parts.encode(symbols[i : i + 7], tables[i : i + 7])
    assert whole.finish() == parts.finish()


@both_coders
def test_nothing_takes_no_bytes(kernels: Kernels) -> None:
    assert kernels.encoder().finish() == b""
    encoder = kernels.encoder()
    encoder.encode(np.array([], np.int64), np.array([[TOTAL // 2, TOTAL // 2]]))
    assert encoder.finish() == b""
    tables = np.array([[TOTAL // 2, TOTAL // 2]])
    for tables_of_each in (tables, np.repeat(tables, 3, 0)):
        encoder.encode(np.array([], np.int64), tables_of_each)
        assert kernels.decoder(b"").decode(tables_of_each, None, 0).size == 0


@both_coders
def test_certain_symbols_take_at_most_a_byte(kernels: Kernels) -> None:
    tables = frequencies_from_weights(np.array([[2**20, 0, 0]]))
    encoder = kernels.encoder()
    encoder.encode(np.zeros(1000, int), tables)
    data = encoder.finish()
    assert len(data) <= 1
    assert not kernels.decoder(data).decode(tables, None, 1000).any()


@both_coders
def test_symbols_outside_the_alphabet_are_refused(kernels: Kernels) -> None:
    tables = np.array([[TOTAL - 1, 1]])
    for bad in (-1, 2):
        with pytest.raises(ValueError, match=r"\[0, 2\)"):
            kernels.encoder().encode(np.array([bad]), tables)
    tables_of_each, symbols = np.repeat(tables, 2, 0), np.array([0, 0, 0])
    with pytest.raises(ValueError, match="2 tables for 3"):
        kernels.encoder().encode(symbols, tables_of_each)
    with pytest.raises(ValueError, match="an index of 2 entries of int64 for 3"):
        kernels.encoder().encode(symbols, tables_of_each, np.array([0, 1]))
    with pytest.raises(ValueError, match=r"the index lies in \[0, 2\]; expected \[0, 2\)"):
        kernels.decoder(b"x").decode(tables_of_each, np.array([0, 1, 2]), 3, True)
    with pytest.raises(ValueError, match="of float64 for 3"):
        kernels.encoder().encode(symbols, tables_of_each, np.array([0.0, np.nan, 1.0]))
    with pytest.raises(TypeError, match="must be integers"):
        kernels.encoder().encode(np.array([0.5]), tables)


@both_coders
def test_bytes_that_no_encoder_writes_are_refused(kernels: Kernels) -> None:
    """The interval that symbols leave is a little smaller than what words can hold: behind it lies nothing."""
    tables = np.array([[TOTAL - 3, 1, 2]])
    with pytest.raises(BitstreamError, match="no encoder writes these bytes"):
        kernels.decoder(b"\xff" * 40).decode(tables, None, 100)


def test_random_bytes_decode_to_the_same_or_are_refused() -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for seed in range(300):
        symbols, tables, index, in_order = random_case(seed)
        data = rng.bytes(int(rng.integers(0, 60))) if seed % 4 else b"\xff" * 60
        found = []
        for kernels in (NUMPY, COMPILED):
            try:
                found.append(kernels.decoder(data).decode(tables, index, len(symbols), in_order).tolist())
            except BitstreamError:
                found.append(None)
        assert found[0] == found[1]
        if found[0] is None:
            refused += 1
        else:
            assert min(found[0]) >= 0 and max(found[0]) < tables.shape[1]
    assert 5 < refused < 295
