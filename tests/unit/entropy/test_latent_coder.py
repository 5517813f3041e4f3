"""Symbols of an image to payloads and back: tiled or in one piece, entropy coded or at a fixed rate."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.small_models import make_codec, photo_picture

from ohmq.bitstream.reader import split_tiles
from ohmq.codec import Codec
from ohmq.entropy.kernels import NUMPY
from ohmq.entropy.latent_coder import LatentCoder
from ohmq.entropy.layers import KnownSymbols, encode_layers
from ohmq.entropy.tabulated_prior import TabulatedPriorState
from ohmq.errors import BitstreamError
from ohmq.geometry import Window

LAYOUTS = [(2, 9, 24), (24,)]


def coder_of(codec: Codec, tile: int, fixed_rate: bool) -> LatentCoder:
    alphabets = np.repeat(codec.config.group_symbols, codec.config.group_sizes)
    return LatentCoder(codec.prior, alphabets, kernels=NUMPY, tile=tile, fixed_rate=fixed_rate)


@pytest.fixture(scope="module")
def codec() -> Codec:
    return make_codec("photo")


@pytest.mark.parametrize("tile", [0, 2, 100])
@pytest.mark.parametrize("fixed_rate", [False, True])
def test_symbols_come_back(codec: Codec, tile: int, fixed_rate: bool) -> None:
    symbols = codec.analyse(photo_picture(50, 70, 3)).values
    coder = coder_of(codec, tile, fixed_rate)
    encoded = coder.encode(
        lambda window: KnownSymbols(symbols[None, :, window.rows, window.columns]),
        symbols.shape[:3],
        LAYOUTS,
        keep=True,
    )
    assert encoded.symbols is not None
    assert encoded.symbols.dtype == np.uint8
    assert np.array_equal(encoded.symbols, symbols)
    for payloads, ends in zip(encoded.payloads, LAYOUTS, strict=True):
        whole = coder.decoder(symbols.shape[:3], ends[-1])
        whole.decode(payloads, ends)
        assert np.array_equal(whole.values, symbols)
        growing = coder.decoder(symbols.shape[:3], ends[-1])
        for payload, end in zip(payloads, ends, strict=True):
            growing.decode([payload], [end])
            assert growing.channel == end
            assert np.array_equal(growing.values[..., :end], symbols[..., :end])


def test_a_tile_is_coded_as_if_it_were_alone(codec: Codec) -> None:
    symbols = codec.analyse(photo_picture(64, 64, 3)).values
    coder = coder_of(codec, 2, False)
    assert coder.blocks(4, 3)[-1] == Window(2, 2, 4, 3)
    ((payload,),), _ = coder.encode(
        lambda window: KnownSymbols(symbols[None, :, window.rows, window.columns]), symbols.shape[:3], [(24,)]
    )
    alone = KnownSymbols(symbols[None, :, :2, :2])
    assert split_tiles(payload, 4)[0] == encode_layers(codec.prior, alone, [(24,)]).payloads[0][0][0]


def test_a_fixed_rate_layer_of_another_size_is_refused(codec: Codec) -> None:
    decoder = coder_of(codec, 0, True).decoder((1, 2, 2), 24)
    with pytest.raises(BitstreamError, match="a fixed-rate layer has 3 bytes, expected"):
        decoder.decode([b"abc"], [24])


def test_a_second_thread_that_helps_changes_no_symbol(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = make_codec("photo")
    data = codec.compress(photo_picture(80, 112))
    expected = codec.decode(data)[1].values
    helped: list[str] = []
    start = TabulatedPriorState._start

    def counted(state: TabulatedPriorState, function: Callable[..., Any], *arguments: Any) -> Any:
        def work(*values: Any) -> Any:
            helped.append(threading.current_thread().name)
            return function(*values)

        return start(state, work, *arguments)

    monkeypatch.setattr(TabulatedPriorState, "_start", counted)
    monkeypatch.setattr("ohmq.entropy.tabulated_prior.HELPED_ABOVE", 1)
    monkeypatch.setattr(codec.decoder, "_threads", lambda: 2)
    assert np.array_equal(codec.decode(data)[1].values, expected)
    assert helped and threading.current_thread().name not in helped
    layers = list(codec.decompress_progressive(data))
    assert np.array_equal(np.asarray(layers[-1]), np.asarray(codec.decompress(data)))
