"""The PSNR table of a file."""

import math
from dataclasses import replace

import pytest
from support.ohm_files import FILE

from ohmq.bitstream.format import Extra, ExtraType, Layer
from ohmq.bitstream.psnr_table import psnr_extra, psnr_table
from ohmq.bitstream.reader import read_header
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.bitstream.writer import write_ohm
from ohmq.errors import (
    ChecksumError,
)


def test_psnr_table() -> None:
    layers = tuple(Layer(1, bytes([n])) for n in range(4))
    table = psnr_extra([20.0, 25.559, 31.0, math.inf])
    assert table.body.hex() == "07d009fb0c1cffff"
    data = write_ohm(replace(FILE, layers=layers, extras=(Extra(ExtraType.XMP, b"<x/>"), table)))
    assert psnr_table(data) == (20.0, 25.55, 31.0, math.inf)
    for goal, count in ((-1, 1), (20, 1), (20.01, 2), (25.55, 2), (25.56, 3), (99, 4)):
        cut = truncate_ohm(data, psnr=goal)
        assert cut == truncate_ohm(data, num_layers=count)
        assert psnr_table(cut) == (20.0, 25.55, 31.0, math.inf)[:count]
    assert psnr_table(truncate_ohm(data, num_layers=3)[:-2]) == (20.0, 25.55, 31.0)  # a file that ends early
    with pytest.raises(ValueError, match=r"reaches 31\.00 dB"):
        truncate_ohm(truncate_ohm(data, num_layers=3), psnr=31.01)
    with pytest.raises(ValueError, match="no PSNR table"):
        truncate_ohm(write_ohm(replace(FILE, layers=layers)), psnr=20)
    for goal in (math.nan, math.inf):
        with pytest.raises(ValueError, match="a number of dB"):
            truncate_ohm(data, psnr=goal)
    for body in (b"", b"\0\0", bytes(6), bytes(9), bytes(512)):
        with pytest.raises(ValueError, match="PSNR table"):
            write_ohm(replace(FILE, layers=layers, extras=(Extra(ExtraType.PSNR, body),)))
    damaged = bytearray(data)
    damaged[read_header(data).header_bytes + 5] ^= 1
    with pytest.raises(ChecksumError):
        psnr_table(bytes(damaged))
