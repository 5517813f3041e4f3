"""Object storage over HTTP: a server for the protocol, a proxy that fails on purpose, and a real store for races."""

import multiprocessing
import pickle
import secrets
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from support.s3_server import S3Server, make_bucket, s3_environment

from ohmq.errors import OhmqError
from ohmq.storage import remote
from ohmq.storage.backoff import Backoff
from ohmq.storage.errors import AccessError, NotFoundError, TargetLockedError, TransientStorageError
from ohmq.storage.lock import LOCK_PATH, TargetLock
from ohmq.storage.open_store import open_store
from ohmq.storage.probe import probe_source, probe_target
from ohmq.storage.remote import S3Store

pytest.importorskip("s3fs")

QUICK = Backoff(0.01, 0.02, 5)
ONCE = Backoff(0.01, 0.02, 0)
CONTENT = bytes(range(256)) * 400


@pytest.fixture(scope="module")
def proxy(moto: S3Server) -> Iterator[FaultyProxy]:
    """A proxy before the server, to which the environment points."""
    with faulty_proxy(moto) as proxy, s3_environment(proxy.server):
        yield proxy


@pytest.fixture(scope="module")
def bucket(proxy: FaultyProxy, moto: S3Server) -> str:
    """URL of a bucket for all tests here."""
    return make_bucket(moto, "storage-tests")


@pytest.fixture
def store(proxy: FaultyProxy, bucket: str) -> S3Store:
    """A prefix without objects; nothing fails or is counted yet."""
    proxy.faults.clear()
    proxy.requests.clear()
    store = open_store(f"{bucket}/{secrets.token_hex(4)}/", backoff=QUICK)
    assert isinstance(store, S3Store)
    return store


def test_round_trip(store: S3Store, tmp_path: Path) -> None:
    names = ["A.PNG", "a b/ü é.png", "a-b/c?d.png", "a/x+y#z%41.png", "a/x/empty.png"]
    (tmp_path / "file").write_bytes(CONTENT)
    for name in names:
        store.write(name, b"" if "empty" in name else tmp_path / "file")
    listed = list(store.list())
    assert [info.path for info in listed] == sorted(names, key=str.encode)
    assert [info.path for info in store.list("a/", suffixes=(".png",))] == names[3:]
    assert list(store.list("none/")) == []
    for info in listed:
        content = b"" if "empty" in info.path else CONTENT
        assert info.size == len(content) and store.info(info.path) == info
        assert store.read(info.path) == content
        with store.fetch(info.path) as file:
            assert file.read() == content
    assert [store.read("A.PNG", 250, 10), store.read("A.PNG", 102399, 9)] == [CONTENT[250:260], b"\xff"]
    assert [store.read("A.PNG", 102400, 9), store.read("a/x/empty.png", 0, 9)] == [b"", b""]
    store.delete("A.PNG")
    store.delete("A.PNG")
    assert store.info("A.PNG") is None
    assert pickle.loads(pickle.dumps(store)).read(names[1]) == CONTENT


def test_one_request_each(store: S3Store, proxy: FaultyProxy) -> None:
    store.write("a", CONTENT)
    store.read("a")
    store.read("a", 5, 5)
    store.info("a")
    store.delete("a")
    key = store.url.removeprefix("s3://") + "/a"
    assert proxy.requests == {("PUT", key): 1, ("GET", key): 2, ("HEAD", key): 1, ("DELETE", key): 1}


def test_listing_page_by_page(store: S3Store, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PAGE_OBJECTS", 3)
    for number in range(8):
        store.write(f"{number}", b"")
    listing = store.list()
    assert next(listing).path == "0" and proxy.count("LIST") == 1
    assert [info.path for info in listing] == list("1234567") and proxy.count("LIST") == 3


def test_no_names_of_other_bytes(store: S3Store) -> None:
    with pytest.raises(OhmqError, match="object stores take names in UTF-8 only"):
        store.write("bad\udcff.png", b"")


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        ("SlowDown", "PUT"),
        ("reset", "PUT"),
        ("lost", "PUT"),
        ("InternalError", "GET"),
        ("reset", "GET"),
        ("SlowDown", "HEAD"),
        ("reset", "LIST"),
        ("SlowDown", "DELETE"),
    ],
)
def test_failures_that_pass(kind: str, method: str, store: S3Store, proxy: FaultyProxy) -> None:
    proxy.faults.append(Fault(kind, method, times=2))
    store.write("a", CONTENT)
    assert store.read("a") == CONTENT
    assert store.read("a", 1000, 5000) == CONTENT[1000:6000]
    with store.fetch("a") as file:
        assert file.read() == CONTENT
    assert store.info("a") == next(store.list()) and store.info("a").size == len(CONTENT)  # type: ignore[union-attr]
    store.delete("a")
    assert store.info("a") is None
    assert proxy.faults[0].times == 0


def test_failures_that_do_not_pass(store: S3Store, proxy: FaultyProxy) -> None:
    store.write("a", b"old")
    for kind, method, use in (
        ("SlowDown", "PUT", lambda store: store.write("a", CONTENT)),
        ("reset", "PUT", lambda store: store.write("a", CONTENT)),
        ("reset", "GET", lambda store: store.read("a")),
        ("SlowDown", "LIST", lambda store: list(store.list())),
    ):
        proxy.faults[:] = [Fault(kind, method, times=99)]
        with pytest.raises(TransientStorageError, match=rf"^{store.url}.* cannot be .*\(tried once\)$"):
            use(open_store(store.url, backoff=ONCE))
        assert proxy.faults[0].times > 0
    proxy.faults.clear()
    assert store.read("a") == b"old"


def test_an_object_that_vanishes_after_the_listing(store: S3Store, proxy: FaultyProxy) -> None:
    store.write("a", b"1")
    (info,) = store.list()
    proxy.faults.append(Fault("NoSuchKey", "GET"))
    with pytest.raises(NotFoundError, match=f"^{store.url}/a does not exist$"):
        store.read(info.path)


def test_lost_reply_to_create(store: S3Store, proxy: FaultyProxy) -> None:
    proxy.faults.append(Fault("lost", "PUT"))
    assert store.create("a", b"mine")
    assert not store.create("a", b"another's")
    assert store.read("a") == b"mine"


@pytest.mark.parametrize(
    ("kind", "message"),
    [("InvalidAccessKeyId", "no credentials, or wrong ones"), ("AccessDenied", "no permission, or wrong credentials")],
)
def test_no_access(kind: str, message: str, store: S3Store, proxy: FaultyProxy) -> None:
    proxy.faults.append(Fault(kind, times=99))
    for use in (lambda: probe_source(store), lambda: probe_target(store), lambda: store.read("a")):
        with pytest.raises(AccessError, match=message) as caught:
            use()
        assert "\n" not in str(caught.value) and str(caught.value).startswith(store.url)


def test_no_such_bucket(proxy: FaultyProxy) -> None:
    proxy.faults.clear()
    store = open_store("s3://no-such-bucket/photos", backoff=ONCE)
    for use in (lambda: probe_source(store), lambda: probe_target(store), lambda: list(store.list())):
        with pytest.raises(NotFoundError, match="^s3://no-such-bucket: no such bucket$"):
            use()


def test_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_environment(S3Server("http://127.0.0.1:1")):
        with pytest.raises(TransientStorageError, match="Could not connect to the endpoint URL"):
            probe_source(open_store("s3://bucket/a", backoff=ONCE))


def test_no_credentials(moto: S3Server, tmp_path: Path) -> None:
    with s3_environment(moto) as _, pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(AccessError, match="no credentials, or wrong ones"):
            probe_source(open_store("s3://bucket/a", backoff=ONCE))


def test_probes_read_no_object(store: S3Store, proxy: FaultyProxy) -> None:
    with pytest.raises(NotFoundError, match="there is nothing"):
        probe_source(store)
    for number in range(3):
        store.write(f"{number}.png", CONTENT)
    proxy.requests.clear()
    assert probe_source(store).path == "0.png"
    probe_target(store)
    assert proxy.count("GET", f".*{store.url.removeprefix('s3://')}/[0-9]") == 0
    assert [info.path for info in store.list()] == ["0.png", "1.png", "2.png"]


def read_elsewhere(store: S3Store) -> bytes:
    return store.read("a")


def test_another_process(store: S3Store) -> None:
    store.write("a", CONTENT)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(read_elsewhere, (store,)) == CONTENT


def test_lock(store: S3Store) -> None:
    store.write(LOCK_PATH, b'{"host": "far", "pid": 7, "since": "2026", "machine": "m", "start": "1", "token": "a"}')
    with pytest.raises(TargetLockedError, match=rf"^{store.url}: another job .*\(far, process 7, since 2026"):
        TargetLock(store).__enter__()
    with TargetLock(store, expire_s=-2):  # older than that, by the server's clock of whole seconds
        with pytest.raises(TargetLockedError):
            TargetLock(store).__enter__()
    assert list(store.list()) == []


def test_races_on_a_real_store(seaweed: S3Server) -> None:
    url = make_bucket(seaweed, "races")
    with s3_environment(seaweed):
        store = open_store(f"{url}/target", backoff=QUICK)
        assert probe_target(store).creates_only
        gate = threading.Barrier(8)

        def create(writer: int) -> list[bool]:
            won = []
            for number in range(3):
                gate.wait()
                won.append(store.create(f"{number}", b"%d" % writer))
            return won

        with ThreadPoolExecutor(8) as threads:
            outcomes = list(threads.map(create, range(8)))
        for number, won in enumerate(zip(*outcomes, strict=True)):
            assert sum(won) == 1 and store.read(f"{number}") == b"%d" % won.index(True)

        refused, release = threading.Semaphore(0), threading.Event()

        def lock(_: int) -> str:
            gate.wait()
            try:
                with TargetLock(store):
                    release.wait(30)
                    return "held"
            except TargetLockedError:
                refused.release()
                return "refused"

        with ThreadPoolExecutor(8) as threads:
            outcome = threads.map(lock, range(8))
            for _ in range(7):
                assert refused.acquire(timeout=30)
            release.set()
            assert sorted(outcome) == ["held"] + ["refused"] * 7


def test_wrong_secret_on_a_real_store(seaweed: S3Server) -> None:
    with s3_environment(seaweed._replace(secret="wrong")):
        store = open_store("s3://races/target", backoff=ONCE)
        for use in (lambda: probe_source(store), lambda: probe_target(store)):
            with pytest.raises(AccessError, match="no credentials, or wrong ones") as caught:
                use()
            assert seaweed.secret not in str(caught.value)
