"""Entropy coding of residuals."""

import hashlib
import itertools
import json
from importlib.resources import files

import numpy as np
import pytest
from support.reference_decoder import reference_residual

from ohmq.entropy.latent_coder import LatentCoder
from ohmq.entropy.residual_coder import (
    CHANNELS,
    CUTS,
    LARGEST_LEVEL,
    ResidualDecoder,
    TileDecoder,
    encode_residual,
    encode_tile,
    residual_contexts,
)
from ohmq.entropy.select_kernels import select_kernels
from ohmq.errors import BitstreamError

NUMPY, COMPILED = select_kernels(False), select_kernels(True)


def _levels(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Make levels that are small at high frequencies, with a few large ones."""
    rng = np.random.default_rng(seed)
    spread = np.array([4 / (1 + channel.diagonal) for channel in CHANNELS])[:, None, None]
    levels = np.round(rng.laplace(0, 1, (192, height, width)) * spread).astype(np.int16)
    levels[5, 0, 0], levels[7, -1, -1], levels[190, 0, 0] = LARGEST_LEVEL, -LARGEST_LEVEL, -16
    return levels


def _coder(tile: int, threads: int = 1) -> LatentCoder:
    return LatentCoder(None, np.array([2]), kernels=COMPILED, tile=tile, fixed_rate=True, threads=threads)  # type: ignore[arg-type]


def test_channels_go_from_low_frequencies_to_high_ones() -> None:
    assert len(set(CHANNELS)) == 192
    assert CHANNELS[:4] == ((0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0))
    assert CHANNELS[-1] == (7, 7, 2)
    assert all(first.diagonal <= second.diagonal for first, second in itertools.pairwise(CHANNELS))
    for cut in CUTS[:-1]:  # a layer ends where a diagonal does
        assert CHANNELS[cut].diagonal == CHANNELS[cut - 1].diagonal + 1


def test_levels_come_back_from_both_implementations() -> None:
    levels = _levels(5, 4)
    payloads = encode_tile(levels, CUTS, COMPILED)
    assert payloads == encode_tile(levels, CUTS, NUMPY)
    for kernels in (COMPILED, NUMPY):
        decoder = TileDecoder((5, 4), kernels)
        decoded = [decoder.decode(payload, end) for payload, end in zip(payloads, CUTS, strict=True)]
        np.testing.assert_array_equal(np.concatenate(decoded), levels)


def test_the_bytes_stay_the_same() -> None:
    """These bytes are in files: a change of weights, tables or order is a new format."""
    payloads = encode_tile(_levels(6, 8, 1), CUTS, COMPILED)
    assert hashlib.sha256(b"".join(payloads)).hexdigest()[:16] == "f2f07644a0baa6be"
    contexts = residual_contexts()
    assert contexts.tables.shape == (36, 33)
    assert (contexts.tables.sum(1, dtype=np.float64) + 33 == 2**24).all()


def test_the_format_page_describes_the_decoder() -> None:
    levels = _levels(3, 4, 2)
    payloads = encode_tile(levels, (9, 45, 192), COMPILED)
    numbers = json.loads((files("ohmq.entropy") / "residual_tables.json").read_text())
    decoded = reference_residual(list(zip((9, 36, 147), payloads, strict=True)), 3, 4, numbers)
    np.testing.assert_array_equal([decoded[channel] for channel in CHANNELS], levels)


@pytest.mark.parametrize(("tile", "threads"), [(0, 1), (2, 1), (2, 2)])
def test_an_image_in_tiles(tile: int, threads: int) -> None:
    levels, grid = _levels(10, 6, 3), (1, 5, 3)
    coder = _coder(tile, threads)
    payloads = encode_residual(levels, CUTS, grid, coder, COMPILED)
    decoder = ResidualDecoder(coder, grid, 108, COMPILED)
    for payload, end in zip(payloads[:3], CUTS, strict=False):
        decoder.decode(payload, end)
    np.testing.assert_array_equal(decoder.levels, levels[:108])


def test_damaged_payloads_decode_to_something_or_are_refused() -> None:
    payload = encode_tile(_levels(4, 4), (192,), COMPILED)[0]
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(50):
        damaged = bytearray(payload)
        damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
        try:
            levels = TileDecoder((4, 4), COMPILED).decode(bytes(damaged), 192)
            assert np.abs(levels.astype(int)).max() <= LARGEST_LEVEL
        except BitstreamError:
            refused += 1
    assert refused < 50
    assert TileDecoder((4, 4), NUMPY).decode(b"", 192).shape == (192, 4, 4)  # a decoder reads zeros beyond the end
