import functools
import http.server
import pickle
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ohmq.errors import OutputWriteError
from ohmq.storage.backoff import Backoff
from ohmq.storage.errors import NotFoundError, StorageError, TransientStorageError
from ohmq.storage.open_store import open_store
from ohmq.storage.probe import probe_source, probe_target
from ohmq.storage.remote import FsspecStore

pytest.importorskip("fsspec")
ONCE = Backoff(0.01, 0.01, 0)


@pytest.fixture
def memory(request: pytest.FixtureRequest) -> Iterator[FsspecStore]:
    """An empty store in memory."""
    store = open_store(f"memory://{request.node.name}/root")
    assert isinstance(store, FsspecStore)
    yield store
    for info in list(store.list()):
        store.delete(info.path)


def test_listing_folder_by_folder(memory: FsspecStore) -> None:
    names = ["a/x", "a.png", "a-b/c", "B", "a/x.y/z", "ü/é.png"]
    for name in names:
        memory.write(name, name.encode())
    assert [info.path for info in memory.list()] == sorted(names, key=str.encode)
    assert [info.path for info in memory.list("a")] == ["a-b/c", "a.png", "a/x", "a/x.y/z"]
    assert [info.path for info in memory.list("a/")] == ["a/x", "a/x.y/z"]
    assert [info.path for info in memory.list(suffixes=(".png",))] == ["a.png", "ü/é.png"]
    assert list(memory.list("none/")) == []
    assert memory.info("a.png") == next(memory.list("a.png"))
    assert memory.info("a") is None


def test_read_write_and_delete(memory: FsspecStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    memory.write("a/b", tmp_path / "file")
    assert memory.read("a/b") == b"0123456789"
    assert [memory.read("a/b", 2, 3), memory.read("a/b", 8, 9), memory.read("a/b", 3, 0)] == [b"234", b"89", b""]
    with memory.fetch("a/b") as file:
        assert file.seek(5) == 5 and file.read() == b"56789"
    assert memory.create("new", b"1") and not memory.create("new", b"2") and memory.create("new", b"1")
    memory.delete("a/b")
    memory.delete("a/b")
    assert memory.info("a/b") is None
    with pytest.raises(NotFoundError, match=r"^memory://.*/root/a/b does not exist$"):
        memory.read("a/b")
    memory.delete("new")


def test_probes_and_age(memory: FsspecStore) -> None:
    with pytest.raises(NotFoundError, match="there is nothing"):
        probe_source(memory)
    assert not probe_target(memory).creates_only
    assert list(memory.list()) == []
    memory.write("a", b"1")
    assert probe_source(memory).path == "a"
    age_s = memory.age_s("a")
    assert age_s is not None and 0 <= age_s < 60
    assert memory.age_s("b") is None
    assert [info.path for info in memory.list()] == ["a"]


def test_stores_are_small_to_pickle(memory: FsspecStore) -> None:
    memory.write("a", b"1")
    text = pickle.dumps(memory)
    assert len(text) < 1000
    assert pickle.loads(text).read("a") == b"1"


def test_no_folder_for_temporary_files(memory: FsspecStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    memory.write("a", b"1")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(OutputWriteError, match="no folder for temporary files: .*; set TMPDIR"), memory.fetch("a"):
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """URL of a web server that knows no ranges, over a folder with one file; /busy answers 503."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.path.startswith("/busy"):
                self.send_error(503, "Busy")
            else:
                super().do_GET()

        do_HEAD = do_GET

    (tmp_path / "a b.bin").write_bytes(b"0123456789")
    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_web_servers(web: str) -> None:
    store = open_store(web, backoff=ONCE)
    assert store.read("a%20b.bin") == b"0123456789"
    assert store.read("a%20b.bin", 2, 3) == b"234"
    with store.fetch("a%20b.bin") as file:
        assert file.read() == b"0123456789"
    assert probe_source(store, "a%20b.bin").size == 10
    with pytest.raises(StorageError, match="http:// has no listing; give a list of URLs or a brace pattern"):
        next(store.list())
    with pytest.raises(NotFoundError, match=r"none\.bin does not exist$"):
        store.read("none.bin?token=secret")
    with pytest.raises(NotFoundError, match=r"none\.bin does not exist$"):
        probe_source(store, "none.bin?token=secret")


def test_failing_web_servers(web: str) -> None:
    store = open_store(web, backoff=ONCE)
    for use in (store.read, store.info):
        with pytest.raises(TransientStorageError) as caught:
            use("busy?token=secret")
        assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
    gone = open_store("http://127.0.0.1:1", backoff=ONCE)
    for use in (gone.read, gone.info):
        with pytest.raises(TransientStorageError, match="tried once"):
            use("a")
