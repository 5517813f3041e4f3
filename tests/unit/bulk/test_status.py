import csv

import pytest

from ohmq.bulk import status as status_module
from ohmq.bulk.job import BulkJob
from ohmq.bulk.manifest import Output, make_marker, write_shard
from ohmq.bulk.plan import make_plan
from ohmq.bulk.rows import ManifestRow
from ohmq.bulk.status import PROGRESS_FILE, read_status, write_progress
from ohmq.errors import ConfigError, OutputWriteError
from ohmq.storage.local import LocalStore


def make_row(shard, index, source, error=None):
    done = error is None
    return ManifestRow(
        shard, index, source, None, "k", "out" if done else None, "ohm", "aa", "bb" if done else None, None,
        1000, 100 if done else 0, 20 if done else 0, 10 if done else 0, 4.0 if done else None, None, 0.5, 1, "host:1", error,
    )  # fmt: skip


@pytest.fixture
def started(tmp_path):
    """A job of five shards of two images, of which three are finished."""
    (tmp_path / "in").mkdir()
    for number in range(10):
        (tmp_path / "in" / f"{number}.png").write_bytes(b"x" * 1000)
    job = BulkJob(
        operation="compress", sources=(str(tmp_path / "in"),), target=str(tmp_path / "out"), images_per_shard=2
    )
    plan = make_plan(job, "abcd")
    for shard, seconds in ((0, 5.0), (1, 30.0), (3, 1.0)):
        first, second = (f"{tmp_path}/in/{2 * shard + place}.png" for place in (0, 1))
        error = f"{second}: cannot read image: 17 of {shard} bytes" if shard else None
        rows = [make_row(shard, 0, first), make_row(shard, 1, second, error)]
        hashes = {"plan_hash": plan.generations[0].plan_hash, "options_hash": "o", "model_id": "abcd"}
        marker = make_marker(shard, rows, [Output("x", 1, "")], seconds=seconds, attempt=1, worker="host:1", **hashes)
        write_shard(plan.store, rows, marker)
    return plan.store


def test_status_adds_up_markers(started):
    status = read_status(started)
    assert (status.shards, status.done, status.left, status.running) == (5, 3, 2, {})
    assert (status.images, status.failed, status.rows) == (4, 2, 10)
    assert (status.bytes_in, status.bytes_out, status.bytes_planned) == (6000, 400, 10_000)
    assert status.bpp == 8 * 400 / (4 * 200)
    assert status.images_per_s == 4 / 36
    assert status.slowest[0] == (1, 30.0)
    assert [(kind.kind, kind.images) for kind in status.failures] == [("…: cannot read image: N of N bytes", 2)]
    assert status.failures[0].example.endswith("/in/3.png")


def test_failures_go_to_a_table(started, tmp_path):
    (tmp_path / "failures.csv").write_text("old")
    read_status(started, failures=tmp_path / "failures.csv")
    with (tmp_path / "failures.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["shard"], line["source"].rpartition("/")[2]) for line in lines] == [("1", "3.png"), ("3", "7.png")]
    assert lines[0]["kind"] == "…: cannot read image: N of N bytes"
    with pytest.raises(OutputWriteError, match="cannot be written"):
        read_status(started, failures=tmp_path / "gone" / "failures.csv")


def test_running_shards_are_those_of_a_live_driver(started, monkeypatch):
    write_progress(started, {3: 7.0, 4: 8.0})
    status = read_status(started)
    assert list(status.running) == [4]  # shard 3 has its marker already
    assert status.running[4] >= 8.0
    assert status.left == 1
    assert status.to_dict()["running"].keys() == {"4"}
    monkeypatch.setattr(status_module, "LIVE_S", -1.0)
    assert read_status(started).running == {}
    started.write(PROGRESS_FILE, b"nonsense")
    assert read_status(started).running == {}


def test_markers_of_another_plan_do_not_count(started):
    rows = [make_row(4, 0, "a.png")]
    hashes = {"plan_hash": "other", "options_hash": "o", "model_id": "abcd"}
    write_shard(started, rows, make_marker(4, rows, [], seconds=1.0, attempt=1, worker="h:1", **hashes))
    status = read_status(started)
    assert (status.done, status.foreign) == (3, 1)


def test_kinds_of_failures_are_bounded(started, monkeypatch):
    monkeypatch.setattr(status_module, "MAX_KINDS", 0)
    assert [(kind.kind, kind.images) for kind in read_status(started).failures] == [("other kinds", 2)]


def test_target_without_a_job(tmp_path):
    with pytest.raises(ConfigError, match="holds no bulk job"):
        read_status(LocalStore(tmp_path))
