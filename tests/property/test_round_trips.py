"""Properties of every input: round trips, truncation, and that damage is always noticed."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.reference_decoder import ReferenceRangeDecoder, reference_file, reference_mask

from ohmq.bitstream.format import Extra, Layer, OhmFile
from ohmq.bitstream.reader import read_header, read_ohm
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.bitstream.writer import write_ohm
from ohmq.codec import Codec
from ohmq.entropy import (
    decode_fixed_rate,
    encode_fixed_rate,
    fixed_rate_bytes,
    quantize_probabilities,
)
from ohmq.entropy.kernels import NUMPY
from ohmq.entropy.kernels_numba import COMPILED
from ohmq.errors import BitstreamError, ChecksumError
from ohmq.imaging.extras import decode_mask, encode_mask

few = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])

files = st.builds(
    OhmFile,
    model_id=st.binary(min_size=4, max_size=4),
    width=st.integers(1, 65536),
    height=st.integers(1, 65536),
    grey=st.booleans(),
    fixed_rate=st.booleans(),
    layers=st.lists(st.builds(Layer, st.integers(1, 200), st.binary(max_size=200)), min_size=1, max_size=12).map(tuple),
    tile=st.sampled_from([0, 0, 1, 127, 128, 256]),
    extras=st.dictionaries(
        st.one_of(st.integers(1, 4), st.integers(64, 2**35 - 1)), st.binary(max_size=100), max_size=16
    ).map(lambda bodies: tuple(Extra(*item) for item in sorted(bodies.items()))),
)


@few
@given(files)
def test_every_file_reads_back_and_truncates(file: OhmFile) -> None:
    data = write_ohm(file)
    assert read_ohm(data) == file
    reference = reference_file(data)
    assert (reference["width"], reference["height"], reference["flags"] & 3) == (
        file.width,
        file.height,
        file.fixed_rate + 2 * file.grey,
    )
    assert reference["layers"] == [(layer.channels, layer.payload) for layer in file.layers]
    assert reference["extras"] == [(extra.type, extra.body) for extra in file.extras]
    for count in range(1, len(file.layers) + 1):
        cut = truncate_ohm(data, num_layers=count)
        assert read_ohm(cut).layers == file.layers[:count]
        assert read_ohm(cut).extras == file.extras
        assert truncate_ohm(data, max_bytes=len(cut)) == cut


@few
@given(files, st.data())
def test_every_damage_is_noticed(file: OhmFile, draw: st.DataObject) -> None:
    data = bytearray(write_ohm(file))
    for length in {0, 1, 4, len(data) // 2, len(data) - 1}:
        with pytest.raises(BitstreamError):
            read_ohm(bytes(data[:length]))
    position = draw.draw(st.integers(0, 8 * len(data) - 1))
    data[position // 8] ^= 1 << position % 8
    with pytest.raises(BitstreamError):
        read_ohm(bytes(data))


@few
@given(files, st.binary(min_size=1, max_size=30), st.integers(0, 40))
def test_forged_headers_with_a_right_checksum(file: OhmFile, noise: bytes, place: int) -> None:
    data = write_ohm(file)
    header = bytearray(data[: read_header(data).header_bytes - 4])
    place = min(place, len(header))
    header[place : place + len(noise)] = noise
    bodies = b"".join([*(x.body for x in file.extras), *(x.payload for x in file.layers)])
    forged = bytes(header) + struct.pack(">I", zlib.crc32(header)) + bodies
    try:
        parsed = read_ohm(forged)
    except BitstreamError:
        return
    assert write_ohm(parsed) == forged  # a file has one encoding


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    """Draw masks of one level, of two, of hard edges, of noise."""
    shape = draw(st.integers(1, 70)), draw(st.integers(1, 70))
    levels = draw(st.lists(st.sampled_from([0, 255, *range(256)]), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if draw(st.booleans()):
        return rng.choice(np.uint8(levels), shape)
    return np.uint8(levels)[np.add.outer(np.arange(shape[0]), np.arange(shape[1])) // 9 % len(levels)]


@few
@given(masks())
def test_every_mask_round_trips_here_and_by_the_format_page(mask: np.ndarray) -> None:
    height, width = mask.shape
    data = encode_mask(Image.fromarray(mask))
    assert np.array_equal(np.asarray(decode_mask(data, width, height)), mask)
    assert reference_mask(data, width, height) == mask.tolist()
    assert len(data) <= 4096 + 2 * width * height


@few
@given(masks(), st.data())
def test_forged_masks_with_right_checksums(mask: np.ndarray, draw: st.DataObject) -> None:
    """A change inside a chunk, with a corrected checksum, gives another mask of the same size or is refused."""
    height, width = mask.shape
    data = bytearray(encode_mask(Image.fromarray(mask)))
    place = draw.draw(st.integers(8, len(data) - 1))
    data[place : place + draw.draw(st.integers(1, 4))] = draw.draw(st.binary(max_size=6))
    position = 8
    while position + 12 <= len(data):
        end = position + 8 + int.from_bytes(data[position : position + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[position + 4 : end]))
        position = end + 4
    try:
        decoded = decode_mask(bytes(data), width, height)
    except BitstreamError:
        return
    assert (decoded.mode, decoded.size) == ("L", (width, height))
    assert reference_mask(bytes(data), width, height) == np.asarray(decoded).tolist()


@st.composite
def coded_symbols(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw tables, an index and symbols, often of very unequal probabilities."""
    size, count = draw(st.integers(2, 40)), draw(st.integers(0, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    sharpness = draw(st.sampled_from([0.02, 0.3, 5.0]))
    tables = quantize_probabilities(rng.dirichlet(np.full(size, sharpness), draw(st.integers(1, 5))) + 1e-12)
    index = rng.integers(0, len(tables), count).astype(np.int32)
    likely = draw(st.booleans())
    symbols = tables[index].argmax(1) if likely else rng.integers(0, size, count)
    return tables, index, symbols.astype(np.int32)


@few
@given(coded_symbols())
def test_every_symbol_decodes_here_and_by_the_format_page(
    case: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    tables, index, symbols = case
    written = []
    for kernels in (NUMPY, COMPILED):
        encoder = kernels.encoder()
        encoder.encode(symbols, tables, index)
        written.append(encoder.finish())
        assert np.array_equal(kernels.decoder(written[0]).decode(tables, index, len(symbols)), symbols)
    data = written[0]
    assert written[1] == data
    reference = ReferenceRangeDecoder(data)
    order = np.argsort(index, kind="stable")
    assert [reference.symbol(tables[index[i]].tolist()) for i in order] == symbols[order].tolist()


@few
@given(st.lists(st.tuples(st.integers(2, 70000), st.integers(0, 2**40)), max_size=600))
def test_fixed_rate_round_trips(pairs: list[tuple[int, int]]) -> None:
    sizes = np.array([size for size, _ in pairs], np.int64)
    symbols = np.array([value % size for size, value in pairs], np.int64)
    data = encode_fixed_rate(symbols, sizes)
    assert len(data) == fixed_rate_bytes(sizes)
    assert np.array_equal(decode_fixed_rate(data, sizes), symbols)


@settings(few, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 6), st.booleans(), st.integers(0, 2**32))
def test_every_image(context_codec: Codec, width: int, height: int, channels: int, fixed_rate: bool, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    symbols = context_codec.analyse(image)
    data = context_codec.encode(symbols, channels, fixed_rate=fixed_rate)
    file, decoded = context_codec.decode(data)
    assert (file.width, file.height, file.num_channels) == (width, height, channels)
    assert np.array_equal(decoded.values, symbols.values[..., :channels])
    assert context_codec.decompress(data).size == (width, height)
    damaged = bytearray(data)
    damaged[-1] ^= 1 + seed % 255
    if read_header(data).layers[-1].length:
        with pytest.raises(ChecksumError):
            context_codec.decompress(bytes(damaged))
