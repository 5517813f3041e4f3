import dataclasses
import os
import tracemalloc

import pyarrow as pa
import pyarrow.parquet
import pytest

from ohmq.bulk import plan as plan_module
from ohmq.bulk.job import BulkJob
from ohmq.bulk.plan import has_plan, make_plan, read_plan, read_rows
from ohmq.bulk.rows import UNKNOWN_SIZE
from ohmq.errors import ConfigError, OutputWriteError
from ohmq.storage.errors import StorageError
from ohmq.storage.local import LocalStore
from ohmq.storage.store import ObjectInfo


def make_job(tmp_path, **fields):
    return BulkJob(
        **{"operation": "compress", "sources": (str(tmp_path / "in"),), "target": str(tmp_path / "out"), **fields}
    )


def write(folder, *names, size=3):
    for name in names:
        path = os.fsencode(folder / "x")[:-1] + (name if isinstance(name, bytes) else name.encode())
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"x" * size)


def all_rows(plan):
    return [row for shard in plan.shards() for row in plan.rows(shard)]


def keys(plan):
    return {row.path: row.key for row in all_rows(plan)}


def test_rows_fill_shards_by_number_and_by_bytes(tmp_path):
    write(tmp_path / "in", *(f"{number:02d}.png" for number in range(7)))
    plan = make_plan(make_job(tmp_path, images_per_shard=3), "ab")
    shards = list(plan.shards())
    assert [(shard.shard, shard.num_rows, shard.num_bytes) for shard in shards] == [(0, 3, 9), (1, 3, 9), (2, 1, 3)]
    assert [(row.shard, row.index, row.path) for row in all_rows(plan)][2:5] == [
        (0, 2, "02.png"), (1, 0, "03.png"), (1, 1, "04.png"),
    ]  # fmt: skip
    assert (plan.num_rows, plan.num_shards, plan.num_bytes, plan.added) == (7, 3, 21, 7)
    by_bytes = make_plan(make_job(tmp_path, bytes_per_shard=6, target=str(tmp_path / "other")))
    assert [shard.num_rows for shard in by_bytes.shards()] == [2, 2, 2, 1]


def test_which_files_count(tmp_path):
    names = ("a.PNG", "b/c.jpeg", "notes.txt", "d.ohm", "e.tar", "f.parquet", "_ohmq/markers/1.png", "b/_ohmq/x.tar")
    write(tmp_path / "in", *names)
    images = make_plan(make_job(tmp_path))
    assert [(row.path, row.kind) for row in all_rows(images)] == [
        ("e.tar", "tar"), ("f.parquet", "parquet"), ("a.PNG", "object"), ("b/c.jpeg", "object"),
    ]  # fmt: skip
    assert [shard.kind for shard in images.shards()] == ["tar", "parquet", "object"]
    coded = make_plan(make_job(tmp_path, operation="decompress", target=str(tmp_path / "other")))
    assert sorted(row.path for row in all_rows(coded)) == ["d.ohm", "e.tar", "f.parquet"]


def test_empty_objects_stay_rows(tmp_path):
    write(tmp_path / "in", "a.png", size=0)
    assert [(row.path, row.size) for row in all_rows(make_plan(make_job(tmp_path)))] == [("a.png", 0)]


def test_keys_of_tars_have_no_dots_and_do_not_clash(tmp_path):
    names = ("a.jpg", "a.png", "a_png.gif", "b/a.jpg", "IMG.v2.JPG", "IMG_v2.jpg", b"\xff.png")
    write(tmp_path / "in", *names)
    found = keys(make_plan(make_job(tmp_path)))
    assert found == {
        "IMG.v2.JPG": "IMG_v2",
        "IMG_v2.jpg": "IMG_v2_jpg",
        "a.jpg": "a",
        "a.png": "a_png",
        "a_png.gif": "a_png_gif",
        "b/a.jpg": "b/a",
        "\udcff.png": "\udcff",
    }


def test_keys_of_two_sources_do_not_clash(tmp_path):
    write(tmp_path / "in", "a.jpg", "x.tar")
    write(tmp_path / "more", "a.jpg", "x.tar")
    plan = make_plan(make_job(tmp_path, sources=(str(tmp_path / "in"), str(tmp_path / "more"))))
    assert sorted(row.key for row in all_rows(plan)) == ["a", "a_jpg", "x", "x-2"]
    assert plan.generations[0].roots == (str(tmp_path / "in"), str(tmp_path / "more"))


def test_overlapping_sources_are_planned_once(tmp_path):
    write(tmp_path / "in", "a.jpg", "b.jpg")
    sources = (str(tmp_path / "in"), str(tmp_path / "in" / "a*"), str(tmp_path / "in" / "b.jpg"))
    assert len(all_rows(make_plan(make_job(tmp_path, sources=sources)))) == 2


@pytest.mark.parametrize(
    ("operation", "names", "expected"),
    [
        ("compress", ("a.jpg", "a.png"), {"a.jpg": "a.jpg", "a.png": "a.png"}),
        ("decompress", ("a.jpg.ohm", "a.png.ohm", "b.ohm", "c.v2.ohm"),
         {"a.jpg.ohm": "a", "a.png.ohm": "a.png", "b.ohm": "b", "c.v2.ohm": "c.v2"}),
        ("transcode", ("a.jpg.ohm", "a.png.ohm"), {"a.jpg.ohm": "a.jpg", "a.png.ohm": "a.png"}),
    ],
)  # fmt: skip
def test_keys_of_files(tmp_path, operation, names, expected):
    write(tmp_path / "in", *names)
    assert keys(make_plan(make_job(tmp_path, operation=operation, layout="files"))) == expected


def test_keys_of_coded_files_in_tars_lose_both_extensions(tmp_path):
    write(tmp_path / "in", "a.jpg.ohm", "a.png.ohm", "c.v2.ohm")
    plan = make_plan(make_job(tmp_path, operation="truncate", cut={"bpp": 1}))
    assert keys(plan) == {"a.jpg.ohm": "a", "a.png.ohm": "a_png", "c.v2.ohm": "c_v2"}


def test_shards_that_are_named_like_outputs(tmp_path):
    write(tmp_path / "in", "a.png", "shard-000000.tar")
    plan = make_plan(make_job(tmp_path, images_per_shard=1))
    assert sorted(plan.job.output_of(row.kind, row.shard, row.key) for row in all_rows(plan)) == [
        "shard-000000-2.tar", "shard-000000.tar",
    ]  # fmt: skip
    write(tmp_path / "other", "0.png", "1.png")
    write(tmp_path / "last", "shard-000001.tar")
    sources = (str(tmp_path / "last"), str(tmp_path / "other"))
    plan = make_plan(make_job(tmp_path, sources=sources, images_per_shard=1, target=str(tmp_path / "out2")))
    assert [shard.shard for shard in plan.shards()] == [0, 2, 3]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("**/*.jpg", ["2024/b.jpg", "2024/x/c.jpg", "a.jpg"]),
        ("20*", ["2024/b.jpg", "2024/x/c.jpg"]),
        ("2024/?.jpg", ["2024/b.jpg"]),
        ("[!b]*.jpg", ["a.jpg"]),
        ("{a,2024/b}.jpg", ["2024/b.jpg", "a.jpg"]),
    ],
)
def test_patterns(tmp_path, pattern, expected):
    write(tmp_path / "in", "a.jpg", "a.txt", "2024/b.jpg", "2024/x/c.jpg")
    plan = make_plan(make_job(tmp_path, sources=(str(tmp_path / "in" / pattern),)))
    assert sorted(os.path.relpath(os.path.join(plan.generations[0].roots[row.source], row.path), tmp_path / "in")
                  for row in all_rows(plan)) == expected  # fmt: skip


def test_name_that_looks_like_a_pattern_is_taken_as_it_is(tmp_path):
    write(tmp_path / "in[1]", "a.jpg")
    assert len(all_rows(make_plan(make_job(tmp_path, sources=(str(tmp_path / "in[1]"),))))) == 1


def test_list_with_sizes_versions_and_missing_files(tmp_path):
    write(tmp_path / "in", "a.jpg", "no extension")
    lines = ["# made by hand", f"{tmp_path}/in/a.jpg", f"{tmp_path}/in/gone.jpg", "", f"{tmp_path}/in/no extension",
             "s3://lake/raw/b.jpg\t12\tv1", "s3://lake/raw/b.jpg\t12\tv1"]  # fmt: skip
    (tmp_path / "list.txt").write_text("\n".join(lines))
    plan = make_plan(make_job(tmp_path, sources=(), from_list=str(tmp_path / "list.txt")))
    below = str(tmp_path).lstrip("/")
    assert [(row.path, row.size) for row in all_rows(plan)] == [
        (f"{below}/in/a.jpg", 3), (f"{below}/in/gone.jpg", UNKNOWN_SIZE), (f"{below}/in/no extension", 3), ("raw/b.jpg", 12),
    ]  # fmt: skip
    assert plan.generations[0].roots == ("/", "s3://lake")
    assert plan.generations[0].unknown_sizes == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [("a.jpg\tbig", "line 1 of .*: 'big' is no size"), ("s3://me:geheim@lake/a.jpg", "line 1 of .*password"),
     ("s3://lake", "names no object"), ("# nothing", "names no object")],
)  # fmt: skip
def test_wrong_lists(tmp_path, line, message):
    (tmp_path / "list.txt").write_text(line)
    with pytest.raises(ConfigError, match=message):
        make_plan(make_job(tmp_path, sources=(), from_list=str(tmp_path / "list.txt")))
    assert not has_plan(LocalStore(tmp_path / "out"))


@pytest.mark.parametrize(
    ("sources", "target", "fields"),
    [
        (("in",), "in", {}),
        (("in",), "in/below", {}),
        (("in/**/*.tar",), "in", {}),
        (("in/*.tar",), "in/out-{}.tar", {}),
        (("in/x.tar",), "in", {}),
        (("in/sub/",), "in", {"layout": "files", "operation": "truncate", "cut": {"bpp": 1}}),
    ],
)
def test_target_among_the_sources_is_refused(tmp_path, monkeypatch, sources, target, fields):
    write(tmp_path / "in", "a.jpg", "x.tar", "sub/sub/a.ohm")
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=r"target .*(source|lie)"):
        make_plan(make_job(tmp_path, sources=sources, target=target, **fields))
    assert [path for path in sorted(tmp_path.rglob("*")) if path.is_file()] == [p for p in before if p.is_file()]


@pytest.mark.parametrize(("sources", "target"), [(("in/*.jpg",), "in"), (("in/*.jpg",), "in/out"), (("in",), ".")])
def test_target_beside_the_sources_is_fine(tmp_path, monkeypatch, sources, target):
    write(tmp_path / "in", "a.jpg")
    monkeypatch.chdir(tmp_path)
    assert make_plan(make_job(tmp_path, sources=sources, target=target)).num_rows == 1


def test_sources_that_give_nothing(tmp_path):
    write(tmp_path / "in", "notes.txt")
    with pytest.raises(ConfigError, match=r"nothing to compress in .* \(looked for \.apng"):
        make_plan(make_job(tmp_path))
    with pytest.raises(ConfigError, match="no such file or folder"):
        make_plan(make_job(tmp_path, sources=(str(tmp_path / "gone"),)))


def test_complete_plan_is_taken_up_without_listing(tmp_path, monkeypatch):
    write(tmp_path / "in", "a.jpg")
    first = make_plan(make_job(tmp_path), "ab")
    listed = []
    original = LocalStore.list
    monkeypatch.setattr(
        LocalStore, "list", lambda self, *a, **k: listed.append(self.url) or original(self, *a, **k)
    )  # fmt: skip
    again = make_plan(make_job(tmp_path, engine="ray", workers=2), "ab")
    assert (again.added, again.generations) == (0, first.generations)
    assert str(tmp_path / "in") not in listed
    assert read_plan(LocalStore(tmp_path / "out")).generations == first.generations


def test_other_job_is_refused_with_the_option_that_differs(tmp_path):
    write(tmp_path / "in", "a.jpg")
    job = make_job(tmp_path)
    make_plan(job, "ab")
    with pytest.raises(ConfigError, match="images_per_shard is 1000 there and 5 here"):
        make_plan(dataclasses.replace(job, images_per_shard=5), "ab")
    with pytest.raises(ConfigError, match=r"the model is photo \(ab\) there and photo \(cd\) here"):
        make_plan(job, "cd")


@pytest.mark.parametrize("left", ["part-00000.parquet", "part-00009.parquet", "shards.parquet"])
def test_half_written_plan_is_made_anew(tmp_path, left):
    write(tmp_path / "in", "a.jpg")
    write(tmp_path / "out" / "_ohmq" / "plan" / "000", left)
    assert not has_plan(LocalStore(tmp_path / "out"))
    assert len(all_rows(make_plan(make_job(tmp_path)))) == 1
    files = {path.name for path in (tmp_path / "out" / "_ohmq" / "plan" / "000").iterdir()}
    assert files == {"part-00000.parquet", "shards.parquet", "plan.json"}


def test_planner_that_fails_leaves_no_plan(tmp_path, monkeypatch):
    write(tmp_path / "in", "a.jpg")

    def fail(self, path, data):
        if path.endswith("shards.parquet"):
            raise OutputWriteError("disk full")
        original(self, path, data)

    original = LocalStore.write
    monkeypatch.setattr(LocalStore, "write", fail)
    with pytest.raises(OutputWriteError, match="disk full"):
        make_plan(make_job(tmp_path))
    monkeypatch.undo()
    assert not has_plan(LocalStore(tmp_path / "out"))
    assert make_plan(make_job(tmp_path)).num_rows == 1


def test_target_without_a_plan(tmp_path):
    with pytest.raises(ConfigError, match="holds no bulk job with a complete plan"):
        read_plan(LocalStore(tmp_path))


def test_update_plans_what_is_new_or_changed(tmp_path):
    write(tmp_path / "in", "a.jpg", "b.jpg", "x.tar")
    job = make_job(tmp_path, images_per_shard=1)
    first = make_plan(job, "ab")
    update = dataclasses.replace(job, update=True)
    assert make_plan(update, "ab").added == 0
    write(tmp_path / "in", "b.jpg", "x.tar", "b.png", size=4)
    second = make_plan(update, "ab")
    assert (second.added, len(second.generations), second.generations[1].changed) == (3, 2, 2)
    new = all_rows(second)[3:]
    assert [(row.shard, row.path, row.key, row.replaces) for row in new] == [
        (3, "b.jpg", "b", 1), (4, "b.png", "b_png", -1), (5, "x.tar", "x", 2),
    ]  # fmt: skip
    assert [shard.shard for shard in second.shards()] == [0, 1, 2, 3, 4, 5]
    assert all_rows(second)[:3] == all_rows(first)
    assert make_plan(update, "ab").added == 0
    assert len({shard.plan_hash for shard in second.shards()}) == 2


def test_half_written_update_is_made_anew(tmp_path):
    write(tmp_path / "in", "a.jpg")
    job = make_job(tmp_path, update=True)
    make_plan(job)
    write(tmp_path / "in", "b.jpg")
    write(tmp_path / "out" / "_ohmq" / "plan" / "001", "part-00000.parquet")
    assert make_plan(dataclasses.replace(job, update=False)).num_rows == 1
    assert make_plan(job).num_rows == 2


def test_large_parquet_is_split_by_row_groups(tmp_path):
    (tmp_path / "in").mkdir()
    table = pa.table({"image": pa.array([os.urandom(1000) for _ in range(40)], pa.large_binary())})
    pa.parquet.write_table(
        table, tmp_path / "in" / "a.parquet", row_group_size=5, use_dictionary=False, write_statistics=False
    )
    job = make_job(tmp_path, bytes_per_shard=10_000)
    plan = make_plan(job)
    rows = all_rows(plan)
    assert [(row.key, row.first_group, row.last_group) for row in rows] == [
        ("a-000", 0, 1), ("a-001", 2, 3), ("a-002", 4, 5), ("a-003", 6, 7),
    ]  # fmt: skip
    size = (tmp_path / "in" / "a.parquet").stat().st_size
    assert sum(row.size for row in rows) == pytest.approx(size, abs=4)
    assert make_plan(dataclasses.replace(job, update=True)).added == 0


def test_damaged_plans_are_named(tmp_path):
    write(tmp_path / "in", "a.jpg")
    plan = make_plan(make_job(tmp_path))
    (shard,) = plan.shards()
    folder = tmp_path / "out" / "_ohmq" / "plan" / "000"
    for name, read in (
        ("part-00000.parquet", lambda: plan.rows(shard)),
        ("shards.parquet", lambda: list(plan.shards())),
    ):
        (folder / name).write_bytes(b"nonsense" * (shard.part_bytes // 8 + 1))
        with pytest.raises(StorageError, match=f"{name} is damaged"):
            read()
    (folder / "plan.json").write_text('{"format": 2, "ohmq_version": "99"}')
    with pytest.raises(StorageError, match="was made by ohmq 99"):
        read_plan(LocalStore(tmp_path / "out"))


def test_rows_are_read_with_few_requests(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_module, "ROWS_A_GROUP", 10)
    write(tmp_path / "in", *(f"{number:03d}.png" for number in range(60)))
    plan = make_plan(make_job(tmp_path, images_per_shard=7))
    reads = []
    original = LocalStore.read
    monkeypatch.setattr(LocalStore, "read", lambda self, *place: reads.append(place) or original(self, *place))
    fifth = list(plan.shards())[5]
    assert [row.path for row in read_rows(LocalStore(tmp_path / "out"), fifth)] == [
        f"{n:03d}.png" for n in range(35, 42)
    ]
    assert len(reads) <= 3


class Synthetic(LocalStore):
    """A folder that lists as many files as its name says."""

    def list(self, prefix="", *, suffixes=()):
        count = int(os.path.basename(self.url)) if os.path.basename(self.url).isdecimal() else 0
        if not count:
            yield from super().list(prefix, suffixes=suffixes)
        for number in range(count):
            yield ObjectInfo(f"{number // 1000:04d}/img_{number:09d}.jpg", 100_000, f"v{number}")


def test_memory_does_not_grow_with_the_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("ohmq.bulk.sources.open_store", lambda root, **_: Synthetic(root))
    monkeypatch.setattr(plan_module, "ROWS_A_PART", 1_500)
    monkeypatch.setattr(plan_module, "ROWS_A_GROUP", 500)
    peaks = []
    for count in (10, 2_000, 8_000):  # the first imports and compiles
        (tmp_path / str(count)).mkdir()
        job = make_job(tmp_path, sources=(str(tmp_path / str(count)),), target=str(tmp_path / f"out{count}"))
        tracemalloc.start()
        plan = make_plan(dataclasses.replace(job, images_per_shard=100))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert plan.num_rows == count
    assert len(plan.generations[0].parts) == 6
    assert peaks[2] <= 1.3 * peaks[1]
