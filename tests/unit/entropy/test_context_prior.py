"""The context prior in integers, and layers coded with it."""

import numpy as np
import pytest
import torch
from support.reference_decoder import ReferenceRangeDecoder, context_coefficients, context_frequencies
from support.small_models import make_codec, make_model

from ohmq.codec import Codec
from ohmq.entropy.context_prior import IntegerContextPrior, border_classes
from ohmq.entropy.layers import KnownSymbols, decode_layers, encode_layers
from ohmq.errors import BitstreamError
from ohmq.evaluation.verify import verify_layers


def random_symbols(codec: Codec, images: int, tiles: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (images, tiles, 3, 3, codec.num_channels)
    return rng.integers(0, codec.config.num_symbols, shape)


def test_layers_round_trip_in_every_layout(codec: Codec) -> None:
    symbols = random_symbols(codec, 3, 2)
    last = codec.num_channels
    plans = [(last,), tuple(range(1, last + 1)), (2, last), (1,)]
    encoded = encode_layers(codec.prior, KnownSymbols(symbols), plans, measure=True)
    assert (verify_layers(codec.prior, symbols, plans, encoded.payloads) > 0).all()
    for plan, payloads in zip(plans, encoded.payloads, strict=True):
        for image in range(3):
            decoded = decode_layers(codec.prior, payloads[image], plan, symbols.shape[1:4])
            assert np.array_equal(decoded, symbols[image, ..., : plan[-1]])
            size = 8 * sum(map(len, payloads[image]))
            assert 0 <= size - encoded.ideal_bits[image, : plan[-1]].sum() + 7.2 * len(plan) <= 15.3 * len(plan)


def test_batches_threads_and_chunks_give_the_same_bytes(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = random_symbols(codec, 4, 3)
    plan = [(codec.num_channels,)]
    together = encode_layers(codec.prior, KnownSymbols(symbols), plan).payloads[0]
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            alone = [encode_layers(codec.prior, KnownSymbols(image[None]), plan).payloads[0][0] for image in symbols]
            assert alone == together
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr("ohmq.entropy.context_prior.CHUNK_ROWS", 5)
    assert encode_layers(codec.prior, KnownSymbols(symbols), plan).payloads[0] == together
    decoded = decode_layers(codec.prior, together[1], plan[0], symbols.shape[1:4])
    assert np.array_equal(decoded, symbols[1])


def test_verification_notices_a_wrong_payload(context_codec: Codec) -> None:
    symbols = random_symbols(context_codec, 1, 1)
    plan = [(6,)]
    payloads = encode_layers(context_codec.prior, KnownSymbols(symbols), plan).payloads
    wrong = bytes([payloads[0][0][0][0] ^ 255]) + payloads[0][0][0][1:]
    with pytest.raises(BitstreamError, match="channel"):
        verify_layers(context_codec.prior, symbols, plan, [[[wrong]]])


def test_integer_context_prior_follows_the_trained_one() -> None:
    codec, model = make_codec("context"), make_model("context")
    with torch.no_grad():
        images = model.normalise(torch.rand(40, 1, 28, 28))
        bits = model(images, torch.full((40,), 6)).bits.numpy()
    symbols = codec.transforms.model.symbols(images).numpy()[:, None]
    ideal = encode_layers(codec.prior, KnownSymbols(symbols), [(6,)], measure=True).ideal_bits.sum(1)
    assert np.abs(ideal - bits).max() < 1.0
    assert np.ptp(bits) > 5  # images differ, so the agreement is meaningful


def test_a_second_implementation_decodes_a_context_coded_image(context_codec: Codec) -> None:
    """Plain Python integers, from the format page alone: tables, networks and range decoder."""
    prior, symbols = context_codec.prior, random_symbols(context_codec, 1, 2, seed=5)
    payload = encode_layers(prior, KnownSymbols(symbols), [(6,)]).payloads[0][0][0]
    tensors = {name: value.tolist() for name, value in prior.tensors.items()}
    decoder = ReferenceRangeDecoder(payload)
    tiles, side, dim = 2, 3, prior.tensors["codewords"].shape[2]
    partial = [[[0] * dim for _ in range(side * side)] for _ in range(tiles)]
    found = np.empty((tiles, side * side, 6), int)
    channel = 0
    for group, size in enumerate(prior.group_sizes):
        known = [[list(vector) for vector in tile] for tile in partial]
        for c in range(channel, channel + size):
            for t in range(tiles):
                for y in range(side):
                    for x in range(side):
                        border = 4 * (0, 1, 2)[y] + (0, 1, 2)[x]
                        logits = tensors["logits"][border][c]
                        if group:
                            around = [
                                value
                                for dy in (-1, 0, 1)
                                for dx in (-1, 0, 1)
                                for value in (
                                    known[t][(y + dy) * side + x + dx]
                                    if 0 <= y + dy < side and 0 <= x + dx < side
                                    else [0] * dim
                                )
                            ]
                            layers = [
                                (tensors[f"network.{group}.{i}.weight"], tensors[f"network.{group}.{i}.bias"])
                                for i in range(3)
                            ]
                            count = len(tensors["features"][c][0])
                            u = context_coefficients(around, layers)[(c - channel) * count : (c - channel + 1) * count]
                            logits = [
                                value + (sum(a * b for a, b in zip(u, feature, strict=True)) >> 12)
                                for value, feature in zip(logits, tensors["features"][c], strict=True)
                            ]
                        symbol = decoder.symbol(context_frequencies(logits, tensors["exp2"]))
                        found[t, y * side + x, c] = symbol
                        word = tensors["codewords"][c][symbol]
                        partial[t][y * side + x] = [a + b for a, b in zip(partial[t][y * side + x], word, strict=True)]
        channel += size
    assert np.array_equal(found.reshape(2, 3, 3, 6), symbols[0])


def test_border_classes() -> None:
    assert border_classes(1, 1).tolist() == [15]
    assert border_classes(1, 2).tolist() == [12, 14]
    assert border_classes(4, 1).tolist() == [3, 7, 7, 11]


def test_impossible_tables_are_refused(context_codec: Codec, codec: Codec) -> None:
    tensors = dict(context_codec.prior.tensors)
    with pytest.raises(ValueError, match="groups"):
        IntegerContextPrior(tensors, (6, 1))
    huge = {**tensors, "codewords": np.full_like(tensors["codewords"], 2**31 - 1)}
    huge["network.1.0.weight"] = np.full_like(tensors["network.1.0.weight"], 2**31 - 1)
    with pytest.raises(ValueError, match="exact integers"):
        IntegerContextPrior(huge, context_codec.prior.group_sizes)
    with pytest.raises(ValueError, match="sum to"):
        IntegerContextPrior({"frequencies": np.ones((1, 2, 4), np.int32)}, (2,))
