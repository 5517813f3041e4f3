"""Damaged, truncated and crafted files are refused, with a message that says why."""

import dataclasses
import struct
import zlib
from dataclasses import replace

import pytest
from support.ohm_files import EXTRAS, FILE

from ohmq.bitstream.format import Extra
from ohmq.bitstream.reader import read_header, read_ohm, split_tiles
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.bitstream.writer import join_tiles, write_ohm
from ohmq.errors import (
    BitstreamError,
    ChecksumError,
    NotOhmFileError,
    TruncatedFileError,
    UnsupportedVersionError,
)


def test_bytes_like_objects_are_read() -> None:
    data = write_ohm(FILE)
    for kind in (bytearray, memoryview):
        assert read_ohm(kind(data)) == FILE  # type: ignore[arg-type]
        assert read_header(kind(data)) == read_header(data)  # type: ignore[arg-type]
        assert type(read_header(kind(data)).model_id) is bytes  # type: ignore[arg-type]
        assert truncate_ohm(kind(data), num_layers=2) == truncate_ohm(data, num_layers=2)  # type: ignore[arg-type]
    for other in (None, "a.ohm", 5):
        with pytest.raises(TypeError, match="expected the bytes of an .ohm file"):
            read_header(other)  # type: ignore[arg-type]


def test_header_alone_is_enough_for_the_header() -> None:
    data = write_ohm(FILE)
    size = read_header(data).header_bytes
    assert read_header(data[:size]) == read_header(data)


@pytest.mark.parametrize("extras", [(), EXTRAS])
def test_every_truncation(extras: tuple[Extra, ...]) -> None:
    data = write_ohm(replace(FILE, extras=extras))
    for length in range(len(data)):
        with pytest.raises(TruncatedFileError if length else NotOhmFileError):
            read_ohm(data[:length])


@pytest.mark.parametrize("extras", [(), EXTRAS])
def test_every_flipped_bit(extras: tuple[Extra, ...]) -> None:
    data = write_ohm(replace(FILE, extras=extras))
    for position in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(BitstreamError):
            read_ohm(bytes(flipped))


def test_messages_of_damaged_files() -> None:
    data = write_ohm(FILE)
    with pytest.raises(NotOhmFileError, match="empty"):
        read_header(b"")
    with pytest.raises(NotOhmFileError, match="signature"):
        read_header(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(UnsupportedVersionError, match="version 2"):
        read_header(data[:4] + b"\x02" + data[5:])
    for flags in (b"\x41", b"\x81", b"\x21"):
        with pytest.raises(UnsupportedVersionError, match="flags"):
            read_header(data[:5] + flags + data[6:])
    with pytest.raises(ChecksumError, match="header"):
        read_header(data[:6] + b"z" + data[7:])
    with pytest.raises(ChecksumError, match="layer 3"):
        read_ohm(data[:-1] + b"?")
    with pytest.raises(BitstreamError, match="1 bytes follow"):
        read_ohm(data + b"x")


def _with_header_checksum(head: bytes) -> bytes:
    return head + struct.pack(">I", zlib.crc32(head))


def test_fields_are_checked_under_a_right_checksum() -> None:
    start, tiled = b"\x93OHM\x01\x00abcd", b"\x93OHM\x01\x08abcd"
    layer = b"\x01\x00" + struct.pack(">I", 0)
    for body in (
        b"\x00\x01\x01" + layer,  # width 0
        b"\x81\x80\x04\x01\x01" + layer,  # width 65537
        b"\x01\x01\x00",  # no layers
        b"\x01\x01\x80\x02" + layer * 256,  # 256 layers
        b"\x01\x01\x01\x00\x00" + bytes(4),  # a layer without channels
        b"\x81\x00\x01\x01" + layer,  # a number not in its shortest form
        b"\xff\xff\xff\xff\xff\x01\x01\x01" + layer,  # a number too long
    ):
        with pytest.raises(BitstreamError):
            read_header(_with_header_checksum(start + body))
    assert read_header(_with_header_checksum(start + b"\x01\x01\x01" + layer)).width == 1
    for side, found in ((b"\x01", 1), (b"\x80\x02", 256)):
        assert read_header(_with_header_checksum(tiled + b"\x01\x01\x01" + layer + side)).tile == found
    for side in (b"\x00", b"\x81\x02", b"\xff\xff\xff\xff\x7f", b"\x80\x00"):
        with pytest.raises(BitstreamError):
            read_header(_with_header_checksum(tiled + b"\x01\x01\x01" + layer + side))
    with pytest.raises(BitstreamError):  # the flag alone: the check is taken for the side
        read_header(_with_header_checksum(tiled + b"\x01\x01\x01" + layer))


def test_the_extras_index_is_checked() -> None:
    start = b"\x93OHM\x01\x04abcd\x09\x09\x01\x01\x00" + bytes(4)

    def entry(kind: bytes, length: bytes = b"\x00") -> bytes:
        return kind + length + bytes(4)

    for body, error, words in (
        (b"\x00", BitstreamError, "0 extras; it must be 1 to 16"),
        (b"\x11" + b"".join(entry(bytes([64 + n])) for n in range(17)), BitstreamError, "17 extras"),
        (b"\x02" + entry(b"\x02") * 2, BitstreamError, "none comes twice"),
        (b"\x02" + entry(b"\x04") + entry(b"\x01"), BitstreamError, "types ascend"),
        (b"\x01" + entry(b"\x01", b"\xa3\x21"), BitstreamError, "4259 bytes; it has at most 4258"),
        (b"\x01" + entry(b"\x04", b"\x81\x80\x80\x08"), BitstreamError, "at most 16777216"),
        (b"\x01" + entry(b"\x00"), UnsupportedVersionError, "type 0"),
        (b"\x01" + entry(b"\x06"), UnsupportedVersionError, "type 6, which this release does not know"),
        (b"\x01" + entry(b"\x05"), BitstreamError, "a PSNR table of 0 bytes"),
        (b"\x01" + entry(b"\x05", b"\x03"), BitstreamError, "a PSNR table of 3 bytes"),
        (b"\x01" + entry(b"\x05", b"\x80\x04"), BitstreamError, "a PSNR table of 512 bytes"),
        (b"\x01" + entry(b"\x3f"), UnsupportedVersionError, "type 63"),
    ):
        with pytest.raises(error, match=words):
            read_header(_with_header_checksum(start + body))
    whole = tuple(Extra(64 + n, b"") for n in range(16))
    found = read_header(_with_header_checksum(start + b"\x10" + b"".join(entry(bytes([64 + n])) for n in range(16))))
    assert [extra.type for extra in found.extras] == [extra.type for extra in whole]
    assert not found.alpha
    limit = read_header(_with_header_checksum(start + b"\x01" + entry(b"\x01", b"\xa2\x21")))
    assert (limit.alpha, limit.extras_bytes) == (True, 4258)


def test_a_truncated_file_needs_all_extras() -> None:
    data = write_ohm(replace(FILE, extras=EXTRAS))
    header = read_header(data)
    first = header.header_bytes + header.extras_bytes + 3
    assert read_ohm(data[:first], allow_truncated=True) == replace(FILE, extras=EXTRAS, layers=FILE.layers[:2])
    with pytest.raises(TruncatedFileError, match="extra of type 70"):
        read_ohm(data[: first - 4], allow_truncated=True)
    with pytest.raises(ChecksumError, match="extra of type 1 is damaged"):
        read_ohm(data.replace(b"mask", b"mist"), allow_truncated=True)


def test_layers_before_a_damaged_one_are_kept() -> None:
    data = write_ohm(FILE)
    assert read_ohm(data[:-1], allow_truncated=True).layers == FILE.layers[:2]
    assert read_ohm(data[:-1] + b"?", allow_truncated=True).layers == FILE.layers[:2]
    with pytest.raises(TruncatedFileError):
        read_ohm(data[: read_header(data).header_bytes], allow_truncated=True)


def test_tiles() -> None:
    file = dataclasses.replace(FILE, tile=200)
    data = write_ohm(file)
    assert data[5] == 0b1010
    assert read_ohm(data) == file
    assert len(data) == len(write_ohm(FILE)) + 2
    assert read_ohm(truncate_ohm(data, num_layers=2)).tile == 200
    parts = [bytes(300), b"", b"x", b"y" * 127]
    joined = join_tiles(parts)
    assert joined[:5].hex() == "ac0200017f"
    assert split_tiles(joined, 4) == parts
    for count in (0, 3, 5, 10**9):
        with pytest.raises(BitstreamError, match="tiles"):
            split_tiles(joined, count)
    for damaged in (joined[:-1], joined + b"z", joined[:4], b"\x80" + joined, b"\xff\xff\xff\xff\xff" + joined, b""):
        with pytest.raises(BitstreamError, match="4 tiles"):
            split_tiles(damaged, 4)
