"""Bulk coding on a real Ray: two workers here, a cluster of two raylets, and what happens when they are killed."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import ray_work

from ohmq.bulk import ray_engine
from ohmq.bulk.job import BulkJob
from ohmq.bulk.ray_engine import RayEngine
from ohmq.bulk.tasks import ShardOutcome, ShardTask
from ohmq.errors import ConfigError

pytestmark = [
    # Ray leaves its log files and sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]
JOB = BulkJob(operation="compress", sources=("/images",), target="/files")


def make_task(shard: int) -> ShardTask:
    return ShardTask(JOB, shard, "part", 0, 1, "plan", "options", "", "version")


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


def test_no_cluster_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray._private import services, utils

    monkeypatch.setattr(services, "_cached_find_gcs_addresses", lambda *arguments: set())
    monkeypatch.setattr(utils, "read_ray_address", lambda folder: None)
    with pytest.raises(ConfigError, match=r"this machine belongs to no Ray cluster .* start one with ray start --head"):
        RayEngine(address="auto")
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(ConfigError, match="ray job submit"):
        RayEngine(address="auto")


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
    def test_workers_have_the_threads_asked_for(self, engine: RayEngine) -> None:
        done = finish(engine, *range(4))
        assert sorted(done) == [0, 1, 2, 3]
        assert {(outcome.kind, outcome.error) for outcome in done.values()} == {("done", "1 2 1")}
        assert os.environ.get("MALLOC_ARENA_MAX") is None  # the workers' environment is not this process's

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

    def test_no_more_shards_at_once_than_asked_for(self, engine: RayEngine) -> None:
        assert engine.slots == 2
        for shard in range(ray_work.ENDLESS, ray_work.ENDLESS + 4):
            engine.submit(make_task(shard))
        assert engine.wait(0.2) == []
        assert sorted(engine.running()) == [ray_work.ENDLESS, ray_work.ENDLESS + 1]
        assert all(0.2 <= seconds < 60 for seconds in engine.running().values())
        other = RayEngine(workers=1, address="auto", work=ray_work.work)  # the same connection, which is not its own
        other.close()
        with pytest.raises(ConfigError, match=r"this process is connected to Ray at .*, not at 10\.0\.0\.1:6379"):
            RayEngine(address="10.0.0.1:6379")


@pytest.fixture(scope="class")
def cluster(support_on_path: None) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with ray_engine._own_signals():
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    cluster.shutdown()


class TestCluster:
    def test_another_python(self, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from ray._private import utils

        monkeypatch.setattr(utils, "compute_version_info", lambda: ("2.51.0", "3.10.2"))
        with pytest.raises(
            ConfigError, match=r"the cluster runs Ray \S+ with Python \S+, and this process Ray 2\.51\.0"
        ):
            RayEngine(address=cluster.address)

    def test_a_lost_machine(self, cluster: Any) -> None:
        node = cluster.add_node(num_cpus=1)
        engine = RayEngine(address=cluster.address, work=ray_work.work)
        try:
            assert engine.slots == 2
            finish(engine, 0)
            for shard in (ray_work.ENDLESS, ray_work.ENDLESS + 1):
                engine.submit(make_task(shard))
            engine.wait(3)
            cluster.remove_node(node, allow_graceful=False)
            (outcome,) = await_outcomes(engine, 1).values()
            assert outcome.kind == "died"
            print(outcome)
        finally:
            engine.close()
