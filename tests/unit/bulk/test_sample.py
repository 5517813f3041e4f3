import math
import random

import pyarrow as pa
import pyarrow.parquet
import pytest

from ohmq.bulk.job import BulkJob
from ohmq.bulk.operations import ImageResult
from ohmq.bulk.plan import make_plan
from ohmq.bulk.sample import estimate_total, sample_plan
from ohmq.errors import ConfigError, UnsupportedImageError
from ohmq.storage.tar_shards import TarWriter


class Halves:
    """An operation whose outputs are half as large as its inputs; inputs of zeros fail."""

    extension = ".ohm"
    model_id = ""

    def __init__(self):
        self.names = []

    def __call__(self, name, data):
        self.names.append(name)
        if not data.strip(b"\0"):
            raise UnsupportedImageError("only zeros")
        return ImageResult(data[: len(data) // 2], 10, 10)


def make_job(tmp_path, **fields):
    return BulkJob(
        **{"operation": "compress", "sources": (str(tmp_path / "in"),), "target": str(tmp_path / "out"), **fields}
    )


def write_files(folder, sizes, content=b"x"):
    folder.mkdir(exist_ok=True)
    for number, size in enumerate(sizes):
        (folder / f"{number:04d}.png").write_bytes(content * size)


def test_sample_of_all_files_is_exact(tmp_path):
    write_files(tmp_path / "in", [1000, 2000, 3000])
    plan = make_plan(make_job(tmp_path, layout="files"))
    before = sorted(tmp_path.rglob("*"))
    estimate = sample_plan(plan, Halves(), 10)
    assert estimate.bytes_out == (3000, 3000, 3000)
    assert (estimate.sampled, estimate.failed, estimate.images, estimate.bytes_in) == (3, 0, 3, 6000)
    assert estimate.bpp == 8 * 3000 / 300
    assert estimate.core_hours.value > 0
    assert sorted(tmp_path.rglob("*")) == before


def test_size_of_sources_predicts_the_outputs(tmp_path):
    sizes = [random.Random(number).randrange(200, 2000) * 2 for number in range(60)]
    write_files(tmp_path / "in", sizes)
    plan = make_plan(make_job(tmp_path, layout="files", images_per_shard=7))
    estimate = sample_plan(plan, Halves(), 12)
    assert estimate.bytes_out.value == pytest.approx(sum(sizes) / 2)
    assert estimate.bytes_out.high - estimate.bytes_out.low == pytest.approx(0, abs=1e-3)
    assert estimate.sampled == 12


def test_seed_chooses_the_sample(tmp_path):
    write_files(tmp_path / "in", [100] * 50)
    plan = make_plan(make_job(tmp_path, images_per_shard=7))
    chosen = []
    for seed in (0, 0, 1):
        operation = Halves()
        sample_plan(plan, operation, 5, seed=seed)
        chosen.append(operation.names[1:])  # the first image is coded twice
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(set(chosen[0])) == 5


def test_interval_covers_the_truth_19_times_of_20():
    generator = random.Random(3)
    sizes = [generator.uniform(100, 1000) for _ in range(2000)]
    values = [0.3 * size + generator.gauss(50, 40) for size in sizes]
    covered = 0
    for _ in range(400):
        chosen = generator.sample(range(2000), 30)
        found = estimate_total([sizes[i] for i in chosen], [values[i] for i in chosen], 2000, sum(sizes))
        covered += found.low <= sum(values) <= found.high
    assert 0.91 <= covered / 400 <= 0.99


def test_one_unit_has_no_upper_bound():
    assert estimate_total(None, [5.0], 10, 0.0) == (50.0, 0.0, math.inf)


def test_failures_count_with_nothing(tmp_path):
    write_files(tmp_path / "in", [1000] * 4)
    (tmp_path / "in" / "0000.png").write_bytes(bytes(1000))
    estimate = sample_plan(make_plan(make_job(tmp_path, layout="files")), Halves(), 4)
    assert (estimate.failed, estimate.first_error, estimate.bytes_out.value) == (1, "only zeros", 1500)


def test_sample_that_fails_as_a_whole(tmp_path):
    write_files(tmp_path / "in", [100] * 3, content=b"\0")
    with pytest.raises(ConfigError, match="all 2 images of the sample failed, the first with: only zeros"):
        sample_plan(make_plan(make_job(tmp_path)), Halves(), 2)


def test_tars_are_sampled_from_their_start(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(3):
        with (tmp_path / "in" / f"{number}.tar").open("wb") as file, TarWriter(file) as tar:
            for sample in range(40):
                tar.add(f"{sample:03d}.jpg", b"x" * 4096)
                tar.add(f"{sample:03d}.json", b"x" * 1000)
    plan = make_plan(make_job(tmp_path))
    operation = Halves()
    estimate = sample_plan(plan, operation, 30)
    assert estimate.sampled == 30
    assert sorted({name.rpartition(", ")[2] for name in operation.names}) == [
        f"{number:03d}.jpg" for number in range(10)
    ]
    assert estimate.images == pytest.approx(120, rel=0.05)
    assert estimate.bytes_out.value == pytest.approx(120 * (512 + 2048 + 512 + 1024), rel=0.05)


def test_parquet_is_sampled(tmp_path):
    (tmp_path / "in").mkdir()
    table = pa.table({"image": [bytes([number]) * 2000 for number in range(1, 51)], "text": ["a"] * 50})
    pa.parquet.write_table(table, tmp_path / "in" / "a.parquet", compression="none", use_dictionary=False)
    estimate = sample_plan(make_plan(make_job(tmp_path)), Halves(), 20)
    assert (estimate.sampled, estimate.images) == (20, 50)
    size = (tmp_path / "in" / "a.parquet").stat().st_size
    assert estimate.bytes_out.value == pytest.approx(size - 50 * 1000, rel=0.02)


def test_requests_are_those_of_remote_sides(tmp_path):
    write_files(tmp_path / "in", [100] * 4)
    lines = [f"{tmp_path}/in/{number:04d}.png" for number in range(4)]
    (tmp_path / "list").write_text("\n".join(lines))
    plan = make_plan(make_job(tmp_path, sources=(), from_list=str(tmp_path / "list"), images_per_shard=2))
    estimate = sample_plan(plan, Halves(), 2)
    assert not any(estimate.source_requests + estimate.target_requests)
    assert estimate.to_dict()["source_requests"] == {"gets": 0, "heads": 0, "puts": 0, "lists": 0}


def test_count_must_be_positive(tmp_path):
    write_files(tmp_path / "in", [100])
    with pytest.raises(ValueError, match="count is 0"):
        sample_plan(make_plan(make_job(tmp_path)), Halves(), 0)
