"""Limits of an ``.ohm`` file."""

import math

import pytest
from support.ohm_files import FILE

from ohmq.bitstream.format import bytes_of_rate
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.bitstream.writer import write_ohm


def test_bytes_of_a_rate() -> None:
    assert bytes_of_rate(0.1, 28, 28) == 9
    assert bytes_of_rate(1e308, 65536, 65536) == bytes_of_rate(1e300, 1, 1) == 2**62
    assert truncate_ohm(write_ohm(FILE), bpp=1e308) == write_ohm(FILE)
    for wrong in (0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="bpp is"):
            bytes_of_rate(wrong, 8, 8)
