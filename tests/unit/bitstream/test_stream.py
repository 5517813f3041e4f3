"""A file that arrives piece by piece."""

import io
from dataclasses import replace

import pytest
from support.ohm_files import EXTRAS, FILE

from ohmq.bitstream.reader import read_extra, read_header, read_layer
from ohmq.bitstream.stream import StreamBuffer
from ohmq.bitstream.writer import write_ohm
from ohmq.errors import ChecksumError, TruncatedFileError


@pytest.mark.parametrize("kind", ["bytes", "file", "pieces"])
def test_a_file_is_read_part_by_part(kind: str) -> None:
    data = write_ohm(FILE)
    pieces = (data[start : start + 3] for start in range(0, len(data), 3))
    source = StreamBuffer({"bytes": data, "file": io.BytesIO(data), "pieces": pieces}[kind])
    header = source.header()
    assert header == read_header(data)
    layers = [read_layer(info, source.take(info.length), 1) for info in header.layers]
    assert tuple(layers) == FILE.layers
    assert (source.take(1), bytes(source.rest)) == (b"", b"")


def test_parts_are_checked() -> None:
    file = write_ohm(FILE)
    info = read_header(file).layers[0]
    with pytest.raises(TruncatedFileError, match="inside layer 7"):
        read_layer(info, b"ab", 7)
    with pytest.raises(ChecksumError, match="layer 7 is damaged"):
        read_layer(info, b"abd", 7)
    with pytest.raises(TruncatedFileError, match="inside its header"):
        StreamBuffer([file[:9]]).header()
    with_extras = read_header(write_ohm(replace(FILE, extras=EXTRAS)))
    assert read_extra(with_extras.extras[0], b"mask") == EXTRAS[0]
