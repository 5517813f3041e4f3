"""Shards from sources to outputs: names, layouts, failing images, retry and verify; without processes."""

import dataclasses
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.bulk import (
    MODEL,
    InlineEngine,
    assert_equal_targets,
    digit,
    digits_folder,
    manifest,
    outputs,
    tar_content,
)

from ohmq.bitstream.truncate import truncate_ohm
from ohmq.bulk.driver import BulkError, BulkSummary, run
from ohmq.bulk.image_watch import MAX_DEATHS, Crumb, ImageWatch, crumb_path, read_crumb
from ohmq.bulk.job import BulkJob
from ohmq.bulk.operations import make_operation
from ohmq.bulk.retry import retry
from ohmq.bulk.shard_work import do_shard
from ohmq.bulk.sinks import ShardBuffer
from ohmq.bulk.tasks import ShardOutcome, ShardTask
from ohmq.bulk.verify import verify
from ohmq.encoder.options import EncodeOptions
from ohmq.errors import ConfigError, OutputWriteError
from ohmq.loading import named_codec
from ohmq.storage.errors import TargetLockedError, TransientStorageError
from ohmq.storage.local import LocalStore
from ohmq.storage.lock import TargetLock
from ohmq.storage.tar_shards import TarWriter


def job(source: Path | str, target: Path, **fields: Any) -> BulkJob:
    return BulkJob(
        **{"operation": "compress", "sources": (str(source),), "target": str(target), "model": MODEL} | fields
    )


def do(source: Path | str, target: Path, **fields: Any) -> BulkSummary:
    return run(job(source, target, **fields), start_engine=InlineEngine)


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, TarWriter(file) as tar:
        for name, content in members.items():
            tar.add(name, content)


def test_shard_holds_the_bytes_of_compress_in_a_loop(tmp_path: Path) -> None:
    digits_folder(tmp_path / "in", 5)
    summary = do(tmp_path / "in", tmp_path / "out", images_per_shard=3, measure=True)
    codec = named_codec(MODEL)
    expected = [codec.compress(Image.open(io.BytesIO(digit(number)))) for number in range(5)]
    found = tar_content(tmp_path / "out/shard-000000.tar") | tar_content(tmp_path / "out/shard-000001.tar")
    assert found == {f"{number:04d}.ohm": data for number, data in enumerate(expected)}
    assert (summary.shards, summary.images, summary.failed) == (2, 5, 0)
    assert summary.bytes_out == sum(map(len, expected))
    for row, data in zip(manifest(tmp_path / "out"), expected, strict=True):
        file, symbols = codec.decode(data)
        assert row.symbols_sha256 == symbols.sha256(file.num_channels)
        assert row.bpp == 8 * len(data) / 28**2
        assert row.psnr_db is not None and 5 < row.psnr_db < 100


def test_names_of_folders(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(
        [b"a.jpg", b"a.png", b"IMG.v2.PNG", b"sub/a.png", "sub/ü.png".encode(), b"sub/\xff.png"]
    ):
        (folder / os.fsdecode(name)).write_bytes(digit(number))
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("no image")
    summary = do(folder, tmp_path / "out")
    assert (summary.images, summary.failed) == (8, 2)
    names = ["IMG_v2.ohm", "a.ohm", "a_png.ohm", "sub/a.ohm", "sub/ü.ohm", os.fsdecode(b"sub/\xff.ohm")]
    assert list(tar_content(tmp_path / "out/shard-000000.tar")) == names
    errors = {row.source.rpartition("/")[2]: row.error for row in manifest(tmp_path / "out") if row.error}
    assert errors == {
        "empty.png": "the file is empty",
        "text.jpg": "not an image, or of a format that Pillow cannot read",
    }
    do(folder, tmp_path / "files", layout="files")
    assert sorted(outputs(tmp_path / "files")) == sorted(
        ["IMG.v2.PNG.ohm", "a.jpg.ohm", "a.png.ohm", "sub/a.png.ohm", "sub/ü.png.ohm", os.fsdecode(b"sub/\xff.png.ohm")]
    )
    assert verify(str(tmp_path / "files"), against_sources=True).faults == []
    assert verify(str(tmp_path / "out"), against_sources=True).faults == []


def test_tar_to_tar_passes_other_members_on_and_comes_back(tmp_path: Path) -> None:
    members = {"x/1.LEFT.png": digit(1), "x/1.right.png": digit(2), "x/1.json": b"{}", "2.jpg": digit(3), "2.png": digit(4),
               "3.txt": b"words", "README": b"?"}  # fmt: skip
    write_tar(tmp_path / "in/birds.tar", members)
    summary = do(tmp_path / "in", tmp_path / "out")
    assert (summary.images, summary.failed) == (5, 1)
    found = tar_content(tmp_path / "out/birds.tar")
    assert list(found) == ["x/1.left.ohm", "x/1.right.ohm", "x/1.json", "2.jpg.ohm", "2.png.ohm", "3.txt"]
    assert found["x/1.json"] == b"{}" and found["3.txt"] == b"words"
    assert [row.error for row in manifest(tmp_path / "out")] == [None] * 4 + ["a name without an extension"]
    run(
        BulkJob(operation="decompress", sources=(str(tmp_path / "out"),), target=str(tmp_path / "back")),
        start_engine=InlineEngine,
    )
    back = tar_content(tmp_path / "back/birds.tar")
    assert list(back) == ["x/1.left.png", "x/1.right.png", "x/1.json", "2.jpg.png", "2.png", "3.txt"]
    codec = named_codec(MODEL)
    assert Image.open(io.BytesIO(back["x/1.left.png"])).tobytes() == codec.decompress(found["x/1.left.ohm"]).tobytes()
    assert verify(str(tmp_path / "back"), against_sources=True).faults == []


@pytest.mark.parametrize("damage", ["cut", "apart"])
def test_damaged_tar_is_one_row_and_no_output(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "in/a.tar"
    write_tar(path, {"1.png": digit(1), "2.png": digit(2), **({"1.txt": b""} if damage == "apart" else {})})
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10_400])
    write_tar(tmp_path / "in/b.tar", {"1.png": digit(1)})
    summary = do(tmp_path / "in", tmp_path / "out")
    assert (summary.images, summary.failed) == (2, 1)
    assert list(outputs(tmp_path / "out")) == ["b.tar"]
    error = next(row.error for row in manifest(tmp_path / "out") if row.error)
    assert ("damaged or incomplete tar" if damage == "cut" else "'1.txt' does not lie beside") in error
    write_tar(path, {"1.png": digit(1), "2.png": digit(2)})
    again = do(tmp_path / "in", tmp_path / "out", update=True)  # the old row stays, but counts no more
    assert (again.failed, again.images) == (0, 3)
    assert sorted(outputs(tmp_path / "out")) == ["a.tar", "b.tar"]


def test_parquet_to_parquet_and_tar(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "in").mkdir()
    images = [digit(1), None, b"no image", digit(2)]
    pq.write_table(pa.table({"image": images, "label": [4, 5, 6, 7]}), tmp_path / "in/x.parquet")
    summary = do(tmp_path / "in", tmp_path / "out")
    assert (summary.images, summary.failed) == (4, 2)
    table = pq.read_table(tmp_path / "out/x.parquet")
    assert table.column("label").to_pylist() == [4, 5, 6, 7]
    found = table.column("image").to_pylist()
    codec = named_codec(MODEL)
    expected = [codec.compress(Image.open(io.BytesIO(digit(seed)))) for seed in (1, 2)]
    assert found == [expected[0], None, None, expected[1]]
    assert verify(str(tmp_path / "out"), against_sources=True).faults == []
    do(tmp_path / "in", tmp_path / "tar", layout="tar")
    assert tar_content(tmp_path / "tar/x.tar") == {"00000000.ohm": expected[0], "00000003.ohm": expected[1]}
    assert verify(str(tmp_path / "tar"), against_sources=True).faults == []
    digits_folder(tmp_path / "digits", 2)
    do(tmp_path / "digits", tmp_path / "table-{}.parquet")
    table = pq.read_table(tmp_path / "table-000000.parquet")
    assert table.column("key").to_pylist() == ["0000", "0001"]
    assert verify(str(tmp_path / "table-{}.parquet")).images == 2
    assert retry(str(tmp_path / "out"), start_engine=InlineEngine).failed == 2
    assert pq.read_table(tmp_path / "out/x.parquet").column("image").to_pylist() == found


def test_vanished_and_changed_sources_are_rows(tmp_path: Path) -> None:
    folder = digits_folder(tmp_path / "in", 4)

    def disturb(task: ShardTask) -> ShardOutcome:
        (folder / "0001.png").unlink(missing_ok=True)
        (folder / "0002.png").write_bytes(digit(9) + b" ")
        return do_shard(task)

    summary = run(job(folder, tmp_path / "out"), start_engine=lambda job: InlineEngine(job, disturb))
    assert (summary.images, summary.failed) == (4, 2)
    errors = [row.error for row in manifest(tmp_path / "out")]
    assert errors[0] is None and errors[3] is None
    assert "does not exist" in str(errors[1]) and str(errors[2]).endswith("changed since it was planned; run --update")


def test_retry_keeps_what_is_good_and_equals_an_undisturbed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = digits_folder(tmp_path / "in", 6)
    run(job(folder, tmp_path / "whole", images_per_shard=3), start_engine=InlineEngine)
    real_read = LocalStore.read

    def lose(self: LocalStore, path: str, *arguments: Any) -> bytes:
        return real_read(self, "missing.png" if path == "0001.png" else path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "read", lose)
        assert run(job(folder, tmp_path / "out", images_per_shard=3), start_engine=InlineEngine).failed == 1
    second = (tmp_path / "out/shard-000001.tar").stat()
    read: list[str] = []

    def count(self: LocalStore, path: str, *arguments: Any) -> bytes:
        read.append(path)
        return real_read(self, path, *arguments)

    monkeypatch.setattr(LocalStore, "read", count)
    summary = retry(str(tmp_path / "out"), start_engine=InlineEngine)
    assert (summary.failed, summary.shards_run, summary.images) == (0, 1, 6)
    assert [path for path in read if path.endswith(".png")] == ["0001.png"]
    assert (tmp_path / "out/shard-000001.tar").stat() == second
    assert_equal_targets(tmp_path / "out", tmp_path / "whole")
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="layout changes outputs"):
        retry(str(tmp_path / "out"), layout="files")


def test_rerun_reads_no_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = digits_folder(tmp_path / "in", 4)
    first = do(folder, tmp_path / "out", images_per_shard=2)
    read: list[str] = []
    real_read, real_fetch = LocalStore.read, LocalStore.fetch
    monkeypatch.setattr(LocalStore, "read", lambda self, path, *a: read.append(path) or real_read(self, path, *a))
    monkeypatch.setattr(LocalStore, "fetch", lambda self, path: read.append(path) or real_fetch(self, path))
    again = do(folder, tmp_path / "out", images_per_shard=2)
    assert again.shards_run == 0
    assert (again.images, again.bytes_out, again.shards_done) == (first.images, first.bytes_out, 2)
    assert read and all(path.startswith("_ohmq/") for path in read)


def test_update_takes_what_is_new(tmp_path: Path) -> None:
    folder = digits_folder(tmp_path / "in", 2)
    do(folder, tmp_path / "out", layout="files")
    (folder / "0000.png").write_bytes(digit(7))
    (folder / "new.png").write_bytes(digit(8))
    summary = do(folder, tmp_path / "out", layout="files", update=True)
    assert (summary.planned, summary.shards_run) == (2, 1)
    codec = named_codec(MODEL)
    assert outputs(tmp_path / "out") == {
        f"{name}.png.ohm": codec.compress(Image.open(io.BytesIO(digit(seed))))
        for name, seed in (("0000", 7), ("0001", 1), ("new", 8))
    }
    report = verify(str(tmp_path / "out"), against_sources=True)
    assert report.faults == [] and report.images == 3


def test_verify_finds_damage(tmp_path: Path) -> None:
    folder = digits_folder(tmp_path / "in", 3)
    do(folder, tmp_path / "out")
    shard = tmp_path / "out/shard-000000.tar"
    content = tar_content(shard)
    data = bytearray(shard.read_bytes())
    data[data.index(content["0001.ohm"]) + len(content["0001.ohm"]) // 2] ^= 1
    shard.write_bytes(data)
    messages = [fault.message for fault in verify(str(tmp_path / "out")).faults]
    assert messages == ["not the bytes that the job wrote", "0001.ohm is not the one that the job wrote"]
    shard.unlink()
    assert [fault.message for fault in verify(str(tmp_path / "out")).faults] == ["missing"]
    do(folder, tmp_path / "other")
    (folder / "0002.png").write_bytes(digit(9))
    assert [fault.message for fault in verify(str(tmp_path / "other"), against_sources=True).faults] == [
        "the source is not the one that was coded"
    ]
    assert verify(str(tmp_path / "other"), sample=0).decoded == 0


def test_truncate_and_transcode(tmp_path: Path) -> None:
    digits_folder(tmp_path / "in", 3)
    do(tmp_path / "in", tmp_path / "out", options=EncodeOptions(layers="all"))
    full = tar_content(tmp_path / "out/shard-000000.tar")
    cut = {"operation": "truncate", "cut": {"num_layers": 1}}
    do(tmp_path / "out", tmp_path / "cut", **cut)
    expected = {name: truncate_ohm(data, num_layers=1) for name, data in full.items()}
    assert tar_content(tmp_path / "cut/shard-000000.tar") == expected
    do(tmp_path / "out", tmp_path / "again", operation="transcode", options=EncodeOptions(fraction=0.1))
    codec = named_codec(MODEL)
    assert tar_content(tmp_path / "again/shard-000000.tar") == {
        name: codec.compress(codec.decompress(data), fraction=0.1) for name, data in full.items()
    }
    summary = do(tmp_path / "out", tmp_path / "tiny", operation="truncate", cut={"max_bytes": 1})
    assert summary.failed == 3


# -- errors of the job --


def test_other_options_and_two_jobs_are_refused(tmp_path: Path) -> None:
    folder = digits_folder(tmp_path / "in", 1)
    do(folder, tmp_path / "out")
    with pytest.raises(ConfigError, match="fraction is None there and 0.5 here"):
        do(folder, tmp_path / "out", options=EncodeOptions(fraction=0.5))
    with pytest.raises(ConfigError, match="the model is mnist-ohm"):
        do(folder, tmp_path / "out", model="mnist-int")
    with TargetLock(LocalStore(tmp_path / "out")), pytest.raises(TargetLockedError, match="another job works on this"):
        do(folder, tmp_path / "out")
    with pytest.raises(ConfigError, match="quality"):
        do(folder, tmp_path / "fresh", options=EncodeOptions(quality=50))
    assert not (tmp_path / "fresh").exists()


def test_full_disk_ends_the_job_and_the_same_call_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = digits_folder(tmp_path / "in", 4)
    real_write = LocalStore.write

    def write(self: LocalStore, path: str, data: Any) -> None:
        if path == "shard-000001.tar":
            raise OutputWriteError("shard-000001.tar cannot be written: No space left on device")
        real_write(self, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "write", write)
        with pytest.raises(BulkError, match="No space left on device"):
            do(folder, tmp_path / "out", images_per_shard=2)
    assert list(outputs(tmp_path / "out")) == ["shard-000000.tar"]
    assert do(folder, tmp_path / "out", images_per_shard=2).shards_run == 1


def outcomes(job: BulkJob, kinds: Iterator[Any]) -> InlineEngine:
    return InlineEngine(
        job, lambda task: do_shard(task) if (kind := next(kinds)) == "done" else ShardOutcome(task.shard, kind, "no")
    )


def test_attempts_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ohmq.bulk.driver.FIRST_WAIT_S", 0.001)
    folder = digits_folder(tmp_path / "in", 1)
    kinds = iter(["transient", "died", "done"])
    assert run(job(folder, tmp_path / "out"), start_engine=lambda job: outcomes(job, kinds)).shards_done == 1
    assert manifest(tmp_path / "out")[0].attempt == 3
    many = iter(["died"] * 5)
    with pytest.raises(BulkError, match="shard 000000 failed 5 times, the last time because no"):
        run(job(folder, tmp_path / "fails"), start_engine=lambda job: outcomes(job, many))
    with pytest.raises(BulkError, match="no"):
        run(job(folder, tmp_path / "fails"), start_engine=lambda job: outcomes(job, iter(["mismatch"])))


def test_storage_that_fails_for_now_is_no_error_of_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ohmq.bulk.driver.FIRST_WAIT_S", 0.001)
    folder = digits_folder(tmp_path / "in", 2)
    real_read, failures = LocalStore.read, iter([True])

    def read(self: LocalStore, path: str, *arguments: Any) -> bytes:
        if path == "0001.png" and next(failures, False):
            raise TransientStorageError("SlowDown")
        return real_read(self, path, *arguments)

    monkeypatch.setattr(LocalStore, "read", read)
    assert do(folder, tmp_path / "out").failed == 0


def test_stall_names_the_shard(tmp_path: Path) -> None:
    class Stuck(InlineEngine):
        def wait(self, timeout_s: float) -> list[ShardOutcome]:
            return []

        def running(self) -> dict[int, float]:
            return {0: 90.0}

    folder = digits_folder(tmp_path / "in", 1)
    with pytest.raises(BulkError, match=r"no shard was finished for .* minutes; running: 000000 for 2 min"):
        run(job(folder, tmp_path / "out", stall_timeout_s=0.001), start_engine=Stuck)


def test_worker_of_another_version_or_model(tmp_path: Path) -> None:
    folder = digits_folder(tmp_path / "in", 1)
    seen: list[ShardTask] = []

    def keep(task: ShardTask) -> ShardOutcome:
        seen.append(task)
        return do_shard(task)

    run(job(folder, tmp_path / "out"), start_engine=lambda job: InlineEngine(job, keep))
    (tmp_path / "out/_ohmq/markers/000000.json").unlink()
    other = do_shard(seen[0]._replace(version="0.0.1"))
    assert other.kind == "mismatch" and "0.0.1" in str(other.error)
    model = do_shard(seen[0]._replace(model_id="00000000"))
    assert model.kind == "mismatch" and "the same model file must be on all machines" in str(model.error)
    assert do_shard(seen[0]).kind == "done"
    foreign = do_shard(seen[0]._replace(planned=seen[0].planned._replace(plan_hash="0")))
    assert foreign.kind == "fatal" and "another plan" in str(foreign.error)


# -- limits on images --


def test_crumbs_count_deaths(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for attempt in range(2, 2 + MAX_DEATHS):
        watch = ImageWatch(store, 7, attempt, 60)
        assert watch.problem(3) is None
        with watch.image(3):
            left = (tmp_path / crumb_path(7)).read_bytes()
        watch.close(done=False)
        (tmp_path / crumb_path(7)).write_bytes(left)  # as if the worker had died inside
    assert read_crumb(store, 7).given_up == 1
    watch = ImageWatch(store, 7, 9, 60)
    assert watch.problem(3) == "the worker died 3 times at this image" and watch.problem(4) is None
    watch.close(done=True)
    assert read_crumb(store, 7) == Crumb()


def test_shard_buffer_moves_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    small, large = ShardBuffer(10), ShardBuffer(10)
    small.write(b"12345")
    large.write(b"12345")
    large.write(b"1234567")
    store = LocalStore(tmp_path / "out")
    assert small.publish(store, "small")[:2] == ("small", 5)
    assert large.publish(store, "large")[:2] == ("large", 12)
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    small.close()
    large.close()
    assert outputs(tmp_path / "out") == {"small": b"12345", "large": b"123451234567"}
    assert list((tmp_path / "temporary").iterdir()) == []


def test_operations_tell_their_model() -> None:
    compress = job("in", Path("out"))
    assert make_operation(compress).model_id == named_codec(MODEL).model_id.hex()
    assert make_operation(dataclasses.replace(compress, operation="decompress")).model_id == ""
    with pytest.raises(ConfigError, match="channels is 999"):
        _ = make_operation(dataclasses.replace(compress, options=EncodeOptions(channels=999))).model_id
