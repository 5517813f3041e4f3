"""Output files are whole or not there."""

import errno
import os
from pathlib import Path

import pytest

from ohmq.errors import OutputExistsError
from ohmq.files import write_atomically


@pytest.mark.parametrize("links", [True, False])
def test_existing_files_are_kept_unless_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    if not links:

        def refuse(*arguments: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    target = tmp_path / "new" / "a.bin"
    write_atomically(target, b"one")
    with pytest.raises(OutputExistsError, match="--force"):
        write_atomically(target, b"two")
    assert target.read_bytes() == b"one"
    write_atomically(target, b"two", force=True)
    assert target.read_bytes() == b"two"
    assert [path.name for path in target.parent.iterdir()] == ["a.bin"]
    with pytest.raises(OutputExistsError, match="folder"):
        write_atomically(target.parent, b"x", force=True)


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a"
    link = os.link

    def late(source: Path, destination: Path) -> None:
        target.write_bytes(b"other")
        link(source, destination)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(OutputExistsError):
        write_atomically(target, b"mine")
    assert target.read_bytes() == b"other"
    assert len(list(tmp_path.iterdir())) == 1
