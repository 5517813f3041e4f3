"""Plans of sources in an object store, on a real server of the protocol."""

import tempfile
from pathlib import Path

import pytest
from support.faulty_proxy import faulty_proxy
from support.s3_server import S3Server, make_bucket, s3_environment

from ohmq.bulk.job import BulkJob
from ohmq.bulk.operations import ImageResult
from ohmq.bulk.plan import make_plan, read_plan
from ohmq.bulk.sample import sample_plan
from ohmq.errors import ConfigError
from ohmq.storage.errors import NotFoundError
from ohmq.storage.open_store import open_store


class Same:
    """An operation that changes nothing."""

    extension = ".ohm"
    model_id = ""

    def __call__(self, name: str, data: bytes) -> ImageResult:
        return ImageResult(data, 10, 10)


def test_plan_lists_once_and_reads_no_image(moto: S3Server) -> None:
    with faulty_proxy(moto) as proxy, s3_environment(proxy.server):
        bucket = make_bucket(moto, "planned")
        store = open_store(f"{bucket}/raw")
        for number in range(5):
            store.write(f"sub/ä {number}.jpg", b"x" * 1000)
        store.write("a.tar", b"x" * 2000)
        store.write("_ohmq/markers/a.jpg", b"x")
        job = BulkJob(operation="compress", sources=(f"{bucket}/raw/",), target=f"{bucket}/ohm", images_per_shard=2)
        plan = make_plan(job, "ab")
        rows = [row for shard in plan.shards() for row in plan.rows(shard)]
        assert [row.path for row in rows][:3] == ["a.tar", "sub/ä 0.jpg", "sub/ä 1.jpg"]
        assert all(row.version for row in rows)
        assert (plan.num_rows, plan.num_bytes) == (6, 7000)
        assert proxy.count("GET", "planned/raw/.*") == 0

        estimate = sample_plan(plan, Same(), 5)
        assert estimate.source_requests == (6, 7, 0, 1)
        assert estimate.target_requests.puts == 4 + 2 * 4 + 3
        assert (estimate.sampled, estimate.failed) == (5, 1)
        assert estimate.first_error is not None
        assert "damaged or incomplete tar" in estimate.first_error
        listed, read = proxy.count("LIST", "planned/raw"), proxy.count("GET", "planned/raw/.*")
        assert make_plan(job, "ab").added == 0
        assert read_plan(open_store(f"{bucket}/ohm")).num_rows == 6
        assert proxy.count("LIST", "planned/raw") == listed == 1  # not listed again
        assert proxy.count("GET", "planned/raw/.*") == read


def test_sources_by_pattern_name_and_list(moto: S3Server, tmp_path: Path) -> None:
    with s3_environment(moto):
        bucket = make_bucket(moto, "patterns")
        store = open_store(bucket)
        for name in ("t-00.tar", "t-01.tar", "t-02.tar", "x/a.jpg", "x/b.png"):
            store.write(name, b"x" * 10)

        def paths(*sources: str, **fields: str) -> list[str]:
            target = tempfile.mkdtemp(dir=tmp_path)
            job = BulkJob(operation="compress", sources=sources, target=target, **fields)  # type: ignore[arg-type]
            plan = make_plan(job)
            return sorted(row.path for shard in plan.shards() for row in plan.rows(shard))

        assert paths(f"{bucket}/t-{{00..01}}.tar") == ["t-00.tar", "t-01.tar"]
        assert paths(f"{bucket}/*/a.*") == ["x/a.jpg"]
        assert paths(f"{bucket}/x/a.jpg") == ["a.jpg"]
        assert paths(f"{bucket}/x") == ["a.jpg", "b.png"]
        assert paths(bucket) == ["t-00.tar", "t-01.tar", "t-02.tar", "x/a.jpg", "x/b.png"]
        store.write("list.txt", f"{bucket}/x/a.jpg\n{bucket}/gone.jpg\n".encode())
        assert paths(from_list=f"{bucket}/list.txt") == ["gone.jpg", "x/a.jpg"]
        with pytest.raises(ConfigError, match="nothing to compress in s3://patterns/gone"):
            paths(f"{bucket}/gone")
        with pytest.raises(NotFoundError):
            paths("s3://no-such-bucket/x")
        with pytest.raises(ConfigError, match="is or lies in source"):
            make_plan(BulkJob(operation="compress", sources=(f"{bucket}/x/",), target=f"{bucket}/x/out-{{}}.tar"))
