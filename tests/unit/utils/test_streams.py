"""Standard streams, pipes and devices are told from files, and read once."""

import os
from pathlib import Path

import pytest

from ohmq.errors import ConfigError
from ohmq.utils import streams
from ohmq.utils.streams import STDIN, STDOUT, is_stream, read_stream, write_stream


def test_what_is_a_stream(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for path in (STDIN, STDOUT, Path("/dev/fd/9"), Path("/proc/self/fd/63"), Path("/dev/null"), tmp_path / "pipe"):
        assert is_stream(path), path
    assert is_stream(tmp_path / "link")
    for path in (tmp_path, tmp_path / "file", tmp_path / "missing", Path("-"), Path("x" * 5000), Path("a\0b")):
        assert not is_stream(path), path


def test_an_open_file_is_read_and_written_by_its_number(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    write_stream(Path(f"/dev/fd/{writing}"), b"first")
    write_stream(Path(f"/proc/self/fd/{writing}"), b" second")  # the stream stays open
    os.close(writing)
    assert read_stream(Path(f"/dev/fd/{reading}")) == b"first second"
    os.close(reading)
    with pytest.raises(ConfigError, match="Bad file descriptor"):
        read_stream(Path(f"/dev/fd/{reading}"))


def test_a_stream_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_STREAM_BYTES", 1000)
    with pytest.raises(ConfigError, match="/dev/zero: more than 1,000 bytes"):
        read_stream(Path("/dev/zero"))
