import dataclasses

import pytest

from ohmq.bulk.manifest import (
    Marker,
    Output,
    ShardSet,
    done_shards,
    make_marker,
    manifest_differences,
    manifest_path,
    marker_path,
    read_manifest,
    read_marker,
    read_markers,
    read_shard_manifest,
    rows_hash,
    write_shard,
)
from ohmq.bulk.rows import ManifestRow
from ohmq.errors import OutputWriteError
from ohmq.storage.errors import StorageError
from ohmq.storage.local import LocalStore


def make_row(shard=0, index=0, **fields):
    values = {
        "shard": shard,
        "index": index,
        "source": f"/photos/{index}.jpg",
        "member": None,
        "key": str(index),
        "output": f"shard-{shard:06d}.tar",
        "field": "ohm",
        "source_sha256": "aa",
        "output_sha256": "bb",
        "symbols_sha256": "cc",
        "bytes_in": 1000,
        "bytes_out": 100,
        "width": 20,
        "height": 10,
        "bpp": 4,
        "psnr_db": None,
        "seconds": 0.5,
        "attempt": 1,
        "worker": "host:1",
    }
    return ManifestRow(**{**values, **fields})


def failed_row(shard=0, index=0, **fields):
    nothing = {"output": None, "bytes_out": 0, "width": 0, "height": 0, "bpp": None, "output_sha256": None}
    return make_row(shard, index, **{**nothing, "error": "0.jpg: no image", **fields})


def make_shard(shard, rows, **fields):
    values = {"plan_hash": "p", "options_hash": "o", "model_id": "ab", "seconds": 2.0, "attempt": 1, "worker": "host:1"}
    return make_marker(shard, rows, [Output(f"shard-{shard:06d}.tar", 300, "dd")], **{**values, **fields})


def test_shard_comes_back(tmp_path):
    store = LocalStore(tmp_path)
    rows = [
        make_row(7, 0, source="s3://lake/b\udcff.jpg", key="b\udcff", member="x\udcfe"),
        failed_row(7, 1, error="b\udcff.jpg: no image", notes="one\ntwo"),
    ]
    marker = make_shard(7, rows)
    write_shard(store, rows, marker)
    found = read_shard_manifest(store, 7)
    assert found[0] == rows[0]
    assert found[1] == rows[1]._replace(error="b\\udcff.jpg: no image")
    assert read_marker(store, 7) == marker
    assert rows_hash(found) == marker.rows_sha256
    assert (marker.images, marker.failed, marker.bytes_in, marker.bytes_out, marker.pixels) == (1, 1, 2000, 100, 200)


def test_marker_is_written_last(tmp_path):
    class Full(LocalStore):
        def write(self, path, data):
            if path.startswith("_ohmq/manifest"):
                raise OutputWriteError("disk full")
            super().write(path, data)

    rows = [make_row()]
    with pytest.raises(OutputWriteError):
        write_shard(Full(tmp_path), rows, make_shard(0, rows))
    assert read_marker(LocalStore(tmp_path), 0) is None


def test_marker_of_other_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match="belongs to other rows"):
        write_shard(LocalStore(tmp_path), [make_row(index=1)], make_shard(0, [make_row()]))
    assert not list(tmp_path.iterdir())


def test_markers_and_rows_stream_in_order(tmp_path):
    store = LocalStore(tmp_path)
    for shard in (1_000_000, 3, 0, 200):
        rows = [make_row(shard, index) for index in range(2)]
        write_shard(store, rows, make_shard(shard, rows))
    store.write("_ohmq/markers/notes.txt", b"not a marker")
    assert list(done_shards(store)) == [0, 3, 200, 1_000_000]
    assert [marker.shard for marker in read_markers(store)] == [0, 3, 200, 1_000_000]
    assert [(row.shard, row.index) for row in read_manifest(store)][:3] == [(0, 0), (0, 1), (3, 0)]
    assert [row.shard for row in read_manifest(store, [200])] == [200, 200]


def test_shard_set_is_a_bitmap():
    shards = ShardSet([5, 0, 5, 80])
    assert (len(shards), list(shards)) == (3, [0, 5, 80])
    assert 5 in shards
    assert 6 not in shards
    assert 10**9 not in shards


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"outputs": [], "manifest": {"rows_sha256": ""}}'])
def test_damaged_markers_are_refused(tmp_path, text):
    store = LocalStore(tmp_path)
    store.write(marker_path(1), text)
    with pytest.raises(StorageError, match="not a marker"):
        read_marker(store, 1)


def test_damaged_manifests_are_refused(tmp_path):
    store = LocalStore(tmp_path)
    store.write(manifest_path(1), b"nonsense")
    with pytest.raises(StorageError, match=r"000001\.parquet is no part of a manifest"):
        read_shard_manifest(store, 1)


def test_seconds_attempt_and_worker_make_no_difference():
    rows = [make_row(index=index) for index in range(3)]
    again = [row._replace(seconds=9.0, attempt=2, worker="other:7") for row in rows]
    assert manifest_differences(rows, again) == []
    assert rows_hash(rows) == rows_hash(again)
    other = [*again[:1], again[1]._replace(symbols_sha256="xx", bytes_out=5)]
    assert manifest_differences(rows, other) == [
        "shard 000000, image 1: symbols_sha256 is 'cc' and 'xx'",
        "shard 000000, image 1: bytes_out is 100 and 5",
        "shard 000000, image 2: in one manifest only",
    ]
    assert len(manifest_differences(rows, [], limit=1)) == 1
    assert rows_hash(rows) != rows_hash(other)


def test_marker_json_has_what_readers_of_the_target_need():
    marker = make_shard(7, [make_row(7)])
    assert Marker.from_json(marker.to_json()) == marker
    assert b'"path": "_ohmq/manifest/000007.parquet"' in marker.to_json()
    assert dataclasses.asdict(marker)["versions"]["ohmq"]
