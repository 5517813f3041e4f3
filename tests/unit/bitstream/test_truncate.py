"""Truncating a file to its leading layers."""

from dataclasses import replace

import pytest
from support.ohm_files import EXTRAS, FILE

from ohmq.bitstream.reader import read_ohm
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.bitstream.writer import write_ohm
from ohmq.errors import (
    TruncatedFileError,
)


def test_truncating_keeps_and_counts_extras() -> None:
    data = write_ohm(replace(FILE, extras=EXTRAS))
    one = truncate_ohm(data, num_layers=1)
    assert read_ohm(one) == replace(FILE, extras=EXTRAS, layers=FILE.layers[:1])
    assert truncate_ohm(data, max_bytes=len(one)) == one
    with pytest.raises(ValueError, match=f"{len(one)} bytes"):
        truncate_ohm(data, max_bytes=len(one) - 1)


def test_truncate_by_each_limit() -> None:
    data = write_ohm(FILE)
    assert read_ohm(truncate_ohm(data, num_layers=1)).layers == FILE.layers[:1]
    assert read_ohm(truncate_ohm(data, channels=7)).layers == FILE.layers[:2]
    assert truncate_ohm(data, channels=8) == data
    two = truncate_ohm(data, num_layers=2)
    assert truncate_ohm(data, max_bytes=len(data) - 1) == two
    assert truncate_ohm(data, max_bytes=len(two)) == two
    assert truncate_ohm(truncate_ohm(data, num_layers=2), num_layers=1) == truncate_ohm(data, num_layers=1)
    one = truncate_ohm(data, num_layers=1)
    with pytest.raises(ValueError, match="layers='all'"):
        truncate_ohm(one, max_bytes=len(one) - 1)
    smallest = len(one)
    with pytest.raises(ValueError, match=f"{smallest} bytes"):
        truncate_ohm(data, max_bytes=smallest - 1)
    with pytest.raises(ValueError, match="exactly one"):
        truncate_ohm(data)
    with pytest.raises(ValueError, match="3"):
        truncate_ohm(data, num_layers=4)
    with pytest.raises(TruncatedFileError):
        truncate_ohm(data[:-1], num_layers=1)
