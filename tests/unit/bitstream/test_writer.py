"""Written files read back the same; impossible files are refused."""

import struct
import zlib
from dataclasses import replace

import pytest
from support.ohm_files import EXTRAS, FILE

from ohmq.bitstream.format import Extra, ExtraType, Layer, OhmFile
from ohmq.bitstream.reader import read_header, read_ohm
from ohmq.bitstream.writer import write_ohm


def test_round_trip() -> None:
    largest = OhmFile(b"idid", 1, 65536, False, True, (Layer(65536, b"\x00"),))
    for file in (FILE, largest, replace(FILE, extras=EXTRAS), replace(largest, extras=(Extra(2**35 - 1, b"x"),))):
        data = write_ohm(file)
        assert read_ohm(data) == file
        header = read_header(data)
        assert header.file_bytes == len(data)
        assert header.extras_bytes == sum(len(extra.body) for extra in file.extras)
        assert header.file_bytes - header.header_bytes == header.extras_bytes + file.payload_bytes
        assert [layer.channels for layer in header.layers] == [layer.channels for layer in file.layers]


def test_the_bytes_of_a_file_are_fixed() -> None:
    data = write_ohm(OhmFile(b"\xaa\xbb\xcc\xdd", 28, 200, True, True, (Layer(16, b"hi"),)))
    assert (
        data.hex()
        == "934f484d0103aabbccdd1cc801011002d8932aac" + struct.pack(">I", zlib.crc32(data[:20])).hex() + "6869"
    )


def test_extras_cost_their_index_and_nothing_else() -> None:
    extras = (Extra(ExtraType.XMP, b"<x/>"),)
    file = OhmFile(b"\xaa\xbb\xcc\xdd", 28, 200, True, True, (Layer(16, b"hi"),), extras=extras)
    crc = struct.pack(">I", zlib.crc32(b"<x/>")).hex()
    head = bytes.fromhex("934f484d0107aabbccdd1cc801011002d8932aac" + "010404" + crc)
    assert write_ohm(file) == head + struct.pack(">I", zlib.crc32(head)) + b"<x/>hi"


def test_overhead_of_one_digit_with_one_layer() -> None:
    payload = bytes(100)
    assert len(write_ohm(OhmFile(b"abcd", 28, 28, True, False, (Layer(16, payload),)))) - len(payload) <= 24


@pytest.mark.parametrize(
    "changes",
    [
        {"width": 0},
        {"height": 65537},
        {"model_id": b"abc"},
        {"tile": 257},
        {"tile": -1},
        {"layers": ()},
        {"layers": (Layer(0, b""),)},
        {"layers": (Layer(1, b""),) * 256},
        {"layers": (Layer(65536, b""), Layer(1, b""))},
        {"extras": (Extra(0, b""),)},
        {"extras": (Extra(63, b""),)},
        {"extras": (Extra(2**35, b""),)},
        {"extras": (Extra(4, b""), Extra(2, b""))},
        {"extras": (Extra(64, b""), Extra(64, b""))},
        {"extras": tuple(Extra(64 + n, b"") for n in range(17))},
        {"extras": (Extra(1, bytes(4096 + 2 * 300 * 28 + 1)),)},
        {"extras": (Extra(2, bytes(2**24 + 1)),)},
    ],
)
def test_impossible_files_are_not_written(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        write_ohm(replace(FILE, **changes))  # type: ignore[arg-type]
