"""Bulk coding from and to object storage, through a proxy that fails on purpose and counts requests."""

import contextlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from support.s3_server import S3Server, make_bucket, s3_environment
from support.small_models import make_model

from ohmq.bulk.manifest import read_manifest
from ohmq.cli import main
from ohmq.imaging.files import open_image
from ohmq.loading import load
from ohmq.model_files.freeze import freeze
from ohmq.model_files.frozen_model import save_model
from ohmq.storage.backoff import PATIENCE_VARIABLE
from ohmq.storage.lock import LOCK_PATH
from ohmq.storage.open_store import open_store

pytest.importorskip("s3fs")

DIGITS = sorted((Path(__file__).parents[2] / "examples" / "digits").glob("*.png"))[:4]


@pytest.fixture(scope="module")
def proxy(moto: S3Server) -> Iterator[FaultyProxy]:
    """A proxy before the server, to which the environment points."""
    with faulty_proxy(moto) as proxy, s3_environment(proxy.server, **{PATIENCE_VARIABLE: "60"}):
        yield proxy


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model file."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(freeze(make_model("static"), "small"), path)
    return path


class Done(NamedTuple):
    """What a command did."""

    exit_code: int
    output: str


def bulk(command: str, *arguments: object) -> Done:
    """Run ``ohmq bulk COMMAND``, in this process."""
    output = io.StringIO()
    code = 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            main(["bulk", command, *map(str, arguments)])
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, output.getvalue())


def test_a_job_on_object_storage(moto: S3Server, proxy: FaultyProxy, model: Path) -> None:
    source = open_store(f"{make_bucket(moto, 'bulk-source')}/raw")
    target = open_store(f"{make_bucket(moto, 'bulk-target')}/ohm")
    names = ["a/1.png", "a/ü 2.PNG", "b/3.png", "b/4.png", "b/empty.png", "b/gone.png"]
    for name, path in zip(names, [*DIGITS, None, DIGITS[0]], strict=True):
        source.write(name, path.read_bytes() if path else b"")
    proxy.requests.clear()
    proxy.faults[:] = [
        Fault("NoSuchKey", "GET", "bulk-source/raw/b/gone", times=99),
        Fault("SlowDown", "GET", "bulk-source/raw/a/1"),
        Fault("reset", "GET", "bulk-source/raw/b/3"),
        Fault("SlowDown", "LIST", "bulk-source"),
        Fault("InternalError", "PUT", "bulk-target/ohm/shard-000000.tar"),
        Fault("lost", "PUT", "bulk-target/ohm/_ohmq/markers/000000"),
    ]
    arguments = ["compress", f"{source.url}/", f"{target.url}/", "-m", model, "-j", 1, "--images-per-shard", 4]
    done = bulk(*arguments)
    assert done.exit_code == 1, done.output  # two images failed
    assert [fault.times for fault in proxy.faults[1:]] == [0] * 5
    rows = {row.source: row for row in read_manifest(target)}
    failed = [name for name in rows if rows[name].error]
    assert sorted(failed) == [f"{source.url}/b/empty.png", f"{source.url}/b/gone.png"]
    codec = load(model)
    with tarfile.open(fileobj=io.BytesIO(target.read("shard-000000.tar"))) as shard:
        coded = {member.name: shard.extractfile(member).read() for member in shard}  # type: ignore[union-attr]
    assert list(coded) == ["a/1.ohm", "a/ü 2.ohm", "b/3.ohm", "b/4.ohm"]
    for data, path in zip(coded.values(), DIGITS, strict=True):
        assert data == codec.compress(open_image(path).image)

    proxy.requests.clear()
    again = bulk(*arguments)
    assert again.exit_code == 1, again.output
    assert not any(key.startswith("bulk-source") for _, key in proxy.requests), proxy.requests
    assert proxy.count("PUT", "bulk-target/ohm/shard") == 0

    proxy.faults.clear()
    retried = bulk("retry", target.url, "-j", 1)  # the object has come back; the empty one stays a failure
    assert retried.exit_code == 1, retried.output
    assert proxy.count("GET", "bulk-source/raw/a/") == 0  # shard 0 had no failure
    assert [row.source for row in read_manifest(target) if row.error] == [f"{source.url}/b/empty.png"]
    with tarfile.open(fileobj=io.BytesIO(target.read("shard-000001.tar"))) as shard:
        assert shard.getnames() == ["b/gone.ohm"]
    verified = bulk("verify", target.url)
    assert verified.exit_code == 0 and "5 images: 0 faults; 5 decoded" in verified.output, verified.output
    assert "5 done, 1 failed" in bulk("status", target.url).output


def test_two_jobs_into_one_target(moto: S3Server, proxy: FaultyProxy, model: Path) -> None:
    proxy.faults.clear()
    store = open_store(f"{make_bucket(moto, 'bulk-locked')}/ohm")
    holder = {"host": "far", "pid": 7, "since": "2026", "machine": "m", "start": "1", "token": "a"}
    store.write(LOCK_PATH, json.dumps(holder).encode())
    done = bulk("compress", DIGITS[0], store.url, "-m", model)
    assert done.exit_code == 1
    assert f"{store.url}: another job works on this target (far, process 7, since 2026" in one_line(done)
    assert [info.path for info in store.list()] == [LOCK_PATH]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("s3://no-such-bucket/ohm", "s3://no-such-bucket: no such bucket"),
        ("https://host/ohm", "https:// can be read only; choose another target"),
        ("memory://ohm", "memory:// is seen by one process only"),
        ("s3://key:secret@bucket/ohm", "holds a URL with a password or a signature"),
    ],
)
def test_targets_that_cannot_be(target: str, message: str, proxy: FaultyProxy, model: Path) -> None:
    proxy.faults.clear()
    done = bulk("compress", DIGITS[0], target, "-m", model)
    assert done.exit_code == 1 and message in one_line(done) and "secret" not in done.output


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("s3://no-such-bucket/raw/", "s3://no-such-bucket: no such bucket"),
        ("memory://raw/", "memory:// is seen by one process only"),
    ],
)
def test_sources_that_cannot_be(source: str, message: str, proxy: FaultyProxy, model: Path, tmp_path: Path) -> None:
    proxy.faults.clear()
    done = bulk("compress", source, tmp_path / "ohm", "-m", model)
    assert done.exit_code == 1 and message in one_line(done)


def test_no_access(moto: S3Server, proxy: FaultyProxy, model: Path) -> None:
    url = make_bucket(moto, "bulk-forbidden")
    proxy.faults[:] = [Fault("InvalidAccessKeyId", times=999)]
    done = bulk("compress", DIGITS[0], f"{url}/ohm", "-m", model)
    assert done.exit_code == 1 and "no credentials, or wrong ones" in one_line(done)
    proxy.faults.clear()


def test_a_source_that_can_be_listed_but_not_read(
    moto: S3Server, proxy: FaultyProxy, model: Path, tmp_path: Path
) -> None:
    source = open_store(f"{make_bucket(moto, 'bulk-unreadable')}/raw")
    source.write("a.png", DIGITS[0].read_bytes())
    proxy.faults[:] = [Fault("AccessDenied", method, "bulk-unreadable", times=999) for method in ("GET", "HEAD")]
    done = bulk("compress", f"{source.url}/", tmp_path / "ohm", "-m", model)
    proxy.faults.clear()
    assert done.exit_code == 1
    assert f"{source.url}/a.png cannot be read: no permission, or wrong credentials" in one_line(done)
    assert not list((tmp_path / "ohm").rglob("*.tar"))


def one_line(done: Done) -> str:
    """Return the error of a command, which must be one line."""
    errors = [line for line in done.output.splitlines() if line.startswith("ohmq: ")]
    assert len(errors) == 1 and "Traceback" not in done.output, done.output
    return errors[0]
