"""Counts with their nouns."""

from ohmq.utils.counting import counted


def test_the_noun_of_one_is_singular() -> None:
    assert [counted(count, "file") for count in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert [counted(count, "byte", thousands=True) for count in (1, 2000)] == ["1 byte", "2,000 bytes"]
