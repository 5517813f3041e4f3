"""Bulk coding on a real Ray: two workers here, a cluster of two raylets, and what happens when they are killed."""

import contextlib
import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support import ray_work
from support.bulk import delete_killed_writes
from support.small_models import make_codec

from ohmq.bulk import ray_engine
from ohmq.bulk.driver import BulkProgress, run
from ohmq.bulk.job import BulkJob
from ohmq.bulk.manifest import manifest_differences, read_manifest
from ohmq.bulk.plan import PlannedShard
from ohmq.bulk.ray_engine import RayEngine, store_use
from ohmq.bulk.tasks import ShardOutcome, ShardTask
from ohmq.cli import main
from ohmq.errors import ConfigError
from ohmq.model_files.frozen_model import save_model
from ohmq.storage.open_store import open_store

pytestmark = [
    # Ray leaves its log files and sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]
DIGITS = Path(__file__).parents[2] / "examples" / "digits"
JOB = BulkJob(operation="compress", sources=("/images",), target="/files")


def make_task(shard: int, part: str = "") -> ShardTask:
    planned = PlannedShard(shard, 0, "plan", part, 1, 0, 0, 1, 1, "object")
    return ShardTask(JOB, planned, ("/images",), "options", None, "version")


def finish(engine: RayEngine, *shards: int, seconds: float = 120) -> dict[int, ShardOutcome]:
    """Submit shards and wait until all have ended."""
    for shard in shards:
        engine.submit(make_task(shard))
    return await_outcomes(engine, len(shards), seconds)


def await_outcomes(engine: RayEngine, count: int, seconds: float = 120) -> dict[int, ShardOutcome]:
    done: dict[int, ShardOutcome] = {}
    end = time.monotonic() + seconds
    while len(done) < count:
        assert time.monotonic() < end, f"only {sorted(done)} have ended"
        done.update({outcome.shard: outcome for outcome in engine.wait(1)})
    return done


def await_files(folder: Path, count: int, pattern: str = "*") -> None:
    end = time.monotonic() + 120
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < end, "the shards do not begin"
        time.sleep(0.05)


class Jobs(NamedTuple):
    """Jobs that differ in their target, and the outputs of one of them, by the local engine with one worker."""

    folder: Path
    model: str

    def job(self, name: str, **fields: Any) -> BulkJob:
        options = {
            "engine": "ray",
            "workers": 2,
            "images_per_shard": 2,
            "compiled": False,
            "model": self.model,
            **fields,
        }
        sources = (str(self.folder / "images"),)
        return BulkJob(operation="compress", sources=sources, target=str(self.folder / name), **options)

    def check_equal(self, job: BulkJob) -> None:
        """Compare outputs and manifest with those of the local engine."""
        expected, found = self.folder / "local", Path(job.target)
        names = sorted(path.name for path in expected.glob("*.tar"))
        assert sorted(path.name for path in found.glob("*.tar")) == names
        assert all((found / name).read_bytes() == (expected / name).read_bytes() for name in names)
        assert not manifest_differences(*(read_manifest(open_store(str(path))) for path in (expected, found)))


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Jobs:
    folder = tmp_path_factory.mktemp("bulk")
    shutil.copytree(DIGITS, folder / "images", ignore=shutil.ignore_patterns("*.md"))
    (folder / "images" / "broken.png").write_bytes(b"no image")
    save_model(make_codec("static").frozen, folder / "static.safetensors")
    jobs = Jobs(folder, str(folder / "static.safetensors"))
    run(jobs.job("local", engine="local", workers=1))
    return jobs


@pytest.fixture(scope="module")
def support_on_path() -> Iterator[None]:
    """Let workers import the functions of `support`: they inherit the environment of Ray's first process."""
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(ray_work.__file__).parents[1]), before]).rstrip(os.pathsep)
    yield
    os.environ["PYTHONPATH"] = before


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://head:10001", r"ray://head:10001: .* run the driver inside the cluster: ray job submit -- ohmq bulk"),
        ("head", "'head' is no address of a Ray cluster; give auto or HOST:PORT"),
        ("head:70000", "'head:70000' is no address"),
        ("127.0.0.1:{closed}", r"no Ray cluster at 127.0.0.1:\d+ \(Connection refused\)"),
    ],
)
def test_addresses_without_a_cluster(address: str, message: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(ConfigError, match=message):
            RayEngine(address=address.format(closed=unused.getsockname()[1]))


def test_an_address_of_another_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ConfigError, match=r"no Ray cluster at 127\.0\.0\.1:\d+: something else answers there"):
            RayEngine(address=f"127.0.0.1:{server.getsockname()[1]}")
        thread.join()


def test_no_cluster_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import services, utils

    monkeypatch.setattr(services, "_cached_find_gcs_addresses", lambda *arguments: set())
    monkeypatch.setattr(utils, "read_ray_address", lambda folder: None)
    with pytest.raises(ConfigError, match=r"this machine belongs to no Ray cluster .* start one with ray start --head"):
        RayEngine(address="auto")
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    for address in ("auto", None):
        with pytest.raises(ConfigError, match="ray job submit"):
            RayEngine(address=address)


def test_a_ray_that_is_missing_or_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "__version__", "2.9.3")
    with pytest.raises(ConfigError, match=r"ray 2\.9\.3 is too old, 2\.50 or later is needed: pip install -U"):
        RayEngine()
    monkeypatch.setattr(ray_engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"ray is not installed; it comes with: pip install 'ohmq\[cluster\]'"):
        RayEngine()


@pytest.fixture(scope="class")
def engine(support_on_path: None) -> Iterator[RayEngine]:
    handler = signal.getsignal(signal.SIGTERM)
    engine = RayEngine(workers=2, threads=1, work=ray_work.work)
    assert signal.getsignal(signal.SIGTERM) == handler
    yield engine
    engine.close()


class TestOneMachine:
    def test_the_bytes_are_those_of_the_local_engine(self, engine: RayEngine, jobs: Jobs) -> None:
        """Workers have the threads asked for, and no image passes through Ray."""
        before = store_use()
        seen: set[str] = set()

        class Watched(RayEngine):
            def wait(self, timeout_s: float) -> list[ShardOutcome]:
                outcomes = super().wait(timeout_s)
                seen.update(outcome.worker for outcome in outcomes)
                return outcomes

        job = jobs.job("ray")
        summary = run(job, start_engine=lambda job: Watched(workers=2, work=ray_work.report_threads))
        assert (summary.shards_run, summary.images, summary.failed) == (11, 21, 1)
        jobs.check_equal(job)
        assert seen == {"1 2 1"}
        assert os.environ.get("MALLOC_ARENA_MAX") is None  # the workers' environment is not this process's
        after = store_use()
        assert after.spilled_bytes == 0
        assert after.created_bytes - before.created_bytes <= 64 * 2**10 * summary.shards_run
        assert engine.running() == {}

    def test_killed_workers_change_nothing(self, engine: RayEngine, jobs: Jobs) -> None:
        killed: list[int] = []

        def kill(progress: BulkProgress) -> None:
            for worker in ray_work.busy_workers() if len(killed) < 3 else ():
                killed.append(worker)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)

        job = jobs.job("killed")
        summary = run(job, on_progress=kill)
        assert summary.shards_done == 11
        assert killed
        delete_killed_writes(Path(job.target), len(killed))
        jobs.check_equal(job)
        attempts = {row.attempt for row in read_manifest(open_store(job.target))}
        assert max(attempts) > 1

    def test_the_command_line(self, engine: RayEngine, jobs: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
        job = jobs.job("command")
        line = [
            "bulk",
            "compress",
            *job.sources,
            job.target,
            "-m",
            job.model,
            "--images-per-shard",
            "2",
            "--no-compiled",
        ]
        line += ["--engine", "ray", "--json", "--quiet"]
        with pytest.raises(SystemExit) as refused:
            main([*line, "--address", "ray://head:10001"])
        out, error = capsys.readouterr()
        assert (refused.value.code, out) == (1, "")
        assert error.startswith("ohmq: ray://head:10001: a Ray client's connection is lost sooner or later")
        assert error.count("\n") == 1
        with pytest.raises(SystemExit) as done:
            main([*line, "-j", "2"])
        out, error = capsys.readouterr()
        assert (done.value.code, error) == (1, "")  # an image failed
        assert json.loads(out)["images"] == 21
        jobs.check_equal(job)

    def test_a_killed_worker_is_told_from_a_bug(self, engine: RayEngine) -> None:
        done = finish(engine, ray_work.KILLED, ray_work.FAILS, 5)
        assert (done[ray_work.KILLED].kind, done[ray_work.KILLED].error) == (
            "died",
            "the worker died (WorkerCrashedError)",
        )
        assert (done[ray_work.FAILS].kind, done[ray_work.FAILS].error) == ("fatal", "ZeroDivisionError: a bug")
        assert done[5].kind == "done"

    def test_a_worker_with_another_version(self, engine: RayEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ray_engine, "__version__", "99.0")
        (outcome,) = finish(engine, 1).values()
        assert outcome.kind == "mismatch"
        assert outcome.error is not None
        assert f"{socket.gethostname()}:" in outcome.error
        assert outcome.error.endswith("and the driver has 99.0: install the same version on all machines")

    def test_no_more_shards_at_once_than_asked_for(self, engine: RayEngine, tmp_path: Path) -> None:
        assert engine.slots == 2
        for shard in range(ray_work.ENDLESS, ray_work.ENDLESS + 4):
            engine.submit(make_task(shard, str(tmp_path)))
        await_files(tmp_path, 2)
        assert engine.wait(0.2) == []
        assert sorted(engine.running()) == [ray_work.ENDLESS, ray_work.ENDLESS + 1]
        assert len(list(tmp_path.iterdir())) == 2
        assert all(0.2 <= seconds < 60 for seconds in engine.running().values())
        other = RayEngine(workers=1, address="auto", work=ray_work.work)  # the same connection, which is not its own
        other.close()
        with pytest.raises(ConfigError, match=r"this process is connected to Ray at .*, not at 10\.0\.0\.1:6379"):
            RayEngine(address="10.0.0.1:6379")


@pytest.fixture(scope="class")
def cluster(support_on_path: None) -> Iterator[Any]:
    import ray
    from ray.cluster_utils import Cluster

    with ray_engine._own_signals(), ray_engine._environment({"OMP_NUM_THREADS": "3"}):
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


class TestCluster:
    def test_another_python(self, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from ray._private import utils

        monkeypatch.setattr(utils, "compute_version_info", lambda: ("2.51.0", "3.10.2"))
        with pytest.raises(
            ConfigError, match=r"the cluster runs Ray \S+ with Python \S+, and this process Ray 2\.51\.0"
        ):
            RayEngine(address=cluster.address)

    def test_machines_without_room_for_a_worker(self, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = RayEngine(address=cluster.address, threads=3, gpus_per_worker=0.5, work=ray_work.work)
        try:
            assert engine.slots == 1  # so that an autoscaler sees a demand
            engine.submit(make_task(0))
            assert engine.wait(0.1) == []
            monkeypatch.setattr(ray_engine, "NO_ROOM_TIMEOUT_S", 0)
            with pytest.raises(
                ConfigError, match=r"no machine of the Ray cluster has 3 CPUs and 0\.5 GPUs for a worker"
            ):
                engine.wait(0.1)
        finally:
            engine.close()

    def test_a_lost_machine(self, cluster: Any, jobs: Jobs, tmp_path: Path) -> None:
        """Its shards are done by the other one; each machine has a working folder of its own."""
        (tmp_path / "hangs").touch()
        with contextlib.chdir(tmp_path):
            node = cluster.add_node(num_cpus=1)
        ends: set[tuple[str | None, str]] = set()

        class Watched(RayEngine):
            def wait(self, timeout_s: float) -> list[ShardOutcome]:
                outcomes = super().wait(timeout_s)
                ends.update((outcome.error, outcome.worker) for outcome in outcomes)
                return outcomes

        def lose(progress: BulkProgress) -> None:
            if (tmp_path / "begun").exists() and node in cluster.worker_nodes:
                cluster.remove_node(node, allow_graceful=False)

        job = jobs.job("cluster")
        summary = run(
            job,
            on_progress=lose,
            start_engine=lambda job: Watched(address=cluster.address, work=ray_work.work_or_hang),
        )
        assert summary.shards_done == 11
        # The environment of the cluster's machines does not set the number of threads.
        assert ends == {(None, "3 None 1"), ("the worker's machine was lost", "")}
        jobs.check_equal(job)
