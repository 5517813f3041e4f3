import errno
import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from ohmq.errors import OutputWriteError
from ohmq.storage.errors import AccessError, NotFoundError, StorageError
from ohmq.storage.local import LocalStore
from ohmq.storage.open_store import open_store


def fill(folder: Path, *names: str) -> LocalStore:
    """Make files that hold their names."""
    store = LocalStore(folder)
    for name in names:
        store.write(name, os.fsencode(name))
    return store


def test_listing_is_sorted_by_the_bytes_of_paths(tmp_path: Path) -> None:
    names = ["a/x", "a.png", "a-b/c", "ab", "B", "a/x.y/z", "ü/é.png", "a b", "bad\udcff.jpg", "d\udce9r/x.JPG"]
    listed = list(fill(tmp_path, *names).list())
    assert [info.path for info in listed] == sorted(names, key=os.fsencode)
    assert [info.size for info in listed] == [len(os.fsencode(info.path)) for info in listed]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    store = fill(tmp_path, "bad\udcff.jpg")
    assert os.listdir(os.fsencode(tmp_path)) == [b"bad\xff.jpg"]
    assert store.read("bad\udcff.jpg") == b"bad\xff.jpg"
    assert store.info("bad\udcff.jpg") == next(store.list())


def test_prefix_and_suffixes(tmp_path: Path) -> None:
    store = fill(tmp_path, "ab/c.PNG", "ab/d.txt", "abc.png", "b/ab.png")
    assert [info.path for info in store.list("ab")] == ["ab/c.PNG", "ab/d.txt", "abc.png"]
    assert [info.path for info in store.list("ab/")] == ["ab/c.PNG", "ab/d.txt"]
    assert [info.path for info in store.list("ab/d")] == ["ab/d.txt"]
    assert [info.path for info in store.list(suffixes=(".png", ".jpg"))] == ["ab/c.PNG", "abc.png", "b/ab.png"]
    assert list(store.list("none/")) == [] == list(LocalStore(tmp_path / "none").list())


def test_listing_is_lazy(tmp_path: Path) -> None:
    listing = fill(tmp_path, "a/1", "b/1").list()
    assert next(listing).path == "a/1"
    (tmp_path / "b" / "2").write_bytes(b"")  # not yet searched
    assert [info.path for info in listing] == ["b/1", "b/2"]


def test_links_and_special_files(tmp_path: Path) -> None:
    store = fill(tmp_path / "root", "real.png")
    fill(tmp_path / "elsewhere", "in.png")
    root = tmp_path / "root"
    (root / "file.png").symlink_to("real.png")
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    (root / "nowhere.png").symlink_to("missing.png")
    (root / ".ohmq-0123456789abcdef.part").write_bytes(b"half")
    os.mkfifo(root / "pipe.png")
    assert [info.path for info in store.list(suffixes=(".png",))] == ["file.png", "nowhere.png", "real.png"]
    assert [info.path for info in store.list()] == ["file.png", "nowhere.png", "real.png"]
    with pytest.raises(NotFoundError, match=r"nowhere\.png does not exist"):
        store.read("nowhere.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may search every folder")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    store = fill(tmp_path, "a/x", "b/x")
    (tmp_path / "b").chmod(0)
    try:
        listing = store.list()
        assert next(listing).path == "a/x"
        with pytest.raises(AccessError, match="b cannot be searched: Permission denied"):
            next(listing)
        with pytest.raises(AccessError, match="Permission denied"):
            store.read("b/x")
    finally:
        (tmp_path / "b").chmod(0o700)


def test_a_folder_that_cannot_be_searched_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fill(tmp_path, "a/x", "b/x")
    scandir = os.scandir

    def refuse(path: bytes) -> object:
        if path.endswith((b"/b", b"/lost+found")):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (tmp_path / "aa" / "lost+found").mkdir(parents=True)  # nobody's files
    listing = store.list()
    assert next(listing).path == "a/x"
    with pytest.raises(AccessError, match="b cannot be searched: Permission denied"):
        next(listing)


def test_read_write_and_delete(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/new")
    assert store.info("a/b") is None
    store.write("a/b", b"0123456789")
    store.write("a/b", b"012345")
    (tmp_path / "big").write_bytes(b"from a file")
    store.write("a/c", tmp_path / "big")
    assert store.read("a/c") == b"from a file"
    assert store.read("a/b") == b"012345"
    assert [store.read("a/b", 2, 2), store.read("a/b", 4), store.read("a/b", 9, 5)] == [b"23", b"45", b""]
    with store.fetch("a/b") as file:
        assert file.seek(3) == 3 and file.read() == b"345"
    assert sorted(path.name for path in (tmp_path / "new" / "a").iterdir()) == ["b", "c"]
    store.delete("a/b")
    store.delete("a/b")
    store.delete("a/c/d")
    assert store.info("a/b") is None
    for read in (store.read, store.fetch):
        with pytest.raises(NotFoundError, match="a/b does not exist"):
            read("a/b")


def test_version_changes_with_the_content(tmp_path: Path) -> None:
    store = fill(tmp_path, "a")
    before = store.info("a")
    store.write("a", b"other")
    after = store.info("a")
    assert before is not None and after is not None and before.version != after.version


def test_create(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert store.create("x/a", b"1") and not store.create("x/a", b"2")
    assert store.read("x/a") == b"1"


def test_paths_stay_below_the_root(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "root")
    for path in ("../a", "a/../../b", "/etc/passwd", "a\0b"):
        for use in (store.read, store.info, store.delete, lambda name: store.write(name, b"")):
            with pytest.raises(StorageError, match="is no path below"):
                use(path)


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(5000))
    script = """
import sys
from pathlib import Path
from ohmq.errors import OutputWriteError
from ohmq.storage.local import LocalStore
store = LocalStore(sys.argv[1] + "/target")
store.write("a", b"first")
for data in (bytes(5000), Path(sys.argv[1], "source")):
    try:
        store.write("a", data)
    except OutputWriteError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert [line.rpartition(": ")[0] for line in done.stdout.splitlines()] == [
        f"{tmp_path}/target/a cannot be written"
    ] * 2
    assert "File too large" in done.stdout
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["a"]
    assert (tmp_path / "target" / "a").read_bytes() == b"first"


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    store = fill(tmp_path, "a")
    with pytest.raises(OutputWriteError, match="a/b cannot be written"):
        store.write("a/b", b"")
    with pytest.raises(OutputWriteError, match="a/b cannot be written"):
        store.write("a/b", tmp_path / "a")
    with pytest.raises(StorageError, match="a cannot be searched: Not a directory"):
        list(LocalStore(tmp_path / "a").list())


def test_age(tmp_path: Path) -> None:
    store = fill(tmp_path, "a")
    os.utime(tmp_path / "a", (1, 1))
    age_s = store.age_s("a")
    assert age_s is not None and age_s > 1e9
    assert store.age_s("b") is None
    assert os.listdir(tmp_path) == ["a"]


def test_relative_folders_are_fixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = pickle.loads(pickle.dumps(open_store("photos")))
    monkeypatch.chdir("/")
    store.write("a", b"1")
    assert (tmp_path / "photos" / "a").read_bytes() == b"1"
