"""Output files are complete or absent."""

import errno
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ohmq.errors import OutputExistsError, OutputWriteError
from ohmq.utils.atomic_write import copy_time, write_atomically
from ohmq.utils.streams import STDOUT


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


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("step", ["open", "link", "replace"])
def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int) -> None:
    before, target = tmp_path / "before", tmp_path / "target"
    before.write_bytes(b"old")
    if step == "replace":
        target.write_bytes(b"old")

    def fail(*arguments: object, **named: object) -> None:
        raise OSError(number, os.strerror(number))

    place = os if step == "link" else Path
    with monkeypatch.context() as patched:
        patched.setattr(place, step, fail)
        with pytest.raises(OutputWriteError, match=r"target cannot be written: .*; .*choose another output") as caught:
            write_atomically(target, b"new", force=step == "replace")
    assert os.strerror(number) in str(caught.value)
    assert ("make room" in str(caught.value)) == (number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == dict.fromkeys(
        ["before", "target"] if step == "replace" else ["before"], b"old"
    )


def test_an_interrupt_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Path.open

    def stopped(self: Path, mode: str) -> None:
        make(self, mode).close()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", stopped)
        with pytest.raises(KeyboardInterrupt):
            write_atomically(tmp_path / "target", b"new")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_no_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "kept").mkdir()
    monkeypatch.setattr(os, "link", full)
    for name in ("new/deep/a", "kept/new/a"):
        with pytest.raises(OutputWriteError):
            write_atomically(tmp_path / name, b"x")
    assert [path.name for path in tmp_path.rglob("*")] == ["kept"]
    with pytest.raises(OutputWriteError, match="too long"):
        write_atomically(tmp_path / "new" / ("x" * 300) / "a", b"x")
    assert [path.name for path in tmp_path.rglob("*")] == ["kept"]


@pytest.mark.parametrize("force", [True, False])
def test_a_device_is_written_and_not_replaced(force: bool) -> None:
    before = os.stat("/dev/null")
    write_atomically(Path("/dev/null"), b"x", force=force)
    assert os.stat("/dev/null").st_rdev == before.st_rdev
    assert os.stat("/dev/null").st_ino == before.st_ino


def test_a_pipe_gets_the_bytes(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor() as pool:
        read = pool.submit((tmp_path / "pipe").read_bytes)
        write_atomically(tmp_path / "pipe", b"content")
        assert read.result() == b"content"
    write_atomically(STDOUT, b"\x93bytes")
    assert capfdbinary.readouterr().out == b"\x93bytes"


def test_a_pipe_without_a_reader() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        write_atomically(Path(f"/dev/fd/{writing}"), b"x")
    os.close(writing)


def test_a_file_that_does_not_fit(tmp_path: Path) -> None:
    """As on a disk that is full after 64 KiB: a limit on the size of files, in a process of its own."""
    resource = pytest.importorskip("resource")

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))

    program = (
        "import sys; from pathlib import Path; from ohmq.errors import OhmqError\n"
        "from ohmq.utils.atomic_write import write_atomically\n"
        "for name, size in (('small', 1 << 16), ('large', (1 << 16) + 1)):\n"
        "    try: write_atomically(Path(name), bytes(size))\n"
        "    except OhmqError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, preexec_fn=limited, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout == "large cannot be written: File too large; make room or choose another output\n"
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


def test_the_longest_names(tmp_path: Path) -> None:
    target = tmp_path / ("x" * 251 + ".ohm")
    write_atomically(target, b"x")
    assert target.read_bytes() == b"x"


def write_many(
    folder: Path, writer: int, force: bool, results: "multiprocessing.SimpleQueue[tuple[int, list[int]]]"
) -> None:
    """Write 40 files of this writer's byte; tell which ones this writer made."""
    made = []
    for number in range(40):
        try:
            write_atomically(folder / "new" / f"{number}.bin", bytes([writer]) * 50_000, force=force)
            made.append(number)
        except OutputExistsError:
            pass
    results.put((writer, made))


@pytest.mark.parametrize("force", [False, True])
def test_processes_that_write_the_same_files(tmp_path: Path, force: bool) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    writers = [context.Process(target=write_many, args=(tmp_path, writer, force, results)) for writer in range(4)]
    for process in writers:
        process.start()
    made = dict(results.get() for _ in writers)
    for process in writers:
        process.join(60)
        assert process.exitcode == 0
    files = {int(path.stem): path.read_bytes() for path in (tmp_path / "new").iterdir()}  # no other file is there
    assert sorted(files) == list(range(40))
    for number, data in files.items():
        assert data in [bytes([writer]) * 50_000 for writer in range(4)]
        owners = [writer for writer, numbers in made.items() if number in numbers]
        assert len(owners) == (4 if force else 1)
        assert data[0] in owners


def test_copy_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"1")
    target.write_bytes(b"2")
    os.utime(source, ns=(5 * 10**17, 10**18))
    assert copy_time(source, target) == ()
    assert target.stat().st_mtime_ns == 10**18
    os.mkfifo(tmp_path / "pipe")
    assert copy_time(tmp_path / "pipe", target) == copy_time(source, tmp_path / "pipe") == ()
    assert target.stat().st_mtime_ns == 10**18

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "utime", refuse)
    assert copy_time(source, target) == ("file time not kept (Operation not permitted)",)
