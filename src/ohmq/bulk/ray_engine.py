"""Ray Core as an engine of bulk coding: one task a shard. Descriptions of shards pass through Ray, images never do.

Ray schedules, starts and ends processes, and finds new and lost machines. Attempts are counted by the driver: a task is
never retried by Ray, which would hide a shard that kills its workers.
"""

import contextlib
import importlib.util
import os
import pickle
import re
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ohmq._version import __version__
from ohmq.bulk.local_engine import SHARDS_PER_PROCESS
from ohmq.bulk.tasks import ShardOutcome, ShardTask
from ohmq.errors import ConfigError

__all__ = ["OLDEST_RAY", "RayEngine", "StoreUse", "store_use"]

OLDEST_RAY = (2, 50)
"""Oldest release of Ray that works."""
OBJECT_STORE_BYTES = 128 * 2**20
"""Shared memory of a Ray that is started here; Ray's minimum is 75 MiB. Nothing of a job lies in it."""
CONNECT_TIMEOUT_S = 10.0
"""Seconds to wait for an answer of a cluster's address."""
TRIES = "RAY_gcs_server_port_wait_time_s"
"""Environment variable of the number of tries to connect, of 40 seconds each; Ray's default is 20."""
HTTP2_START, HTTP2_SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)), b"\x04"
"""Opening of a client of HTTP/2, which gRPC is built on, and the kind of frame with which a server answers."""
NODES_REFRESH_S = 5.0
"""Seconds between two looks at the machines of a cluster."""
NO_ROOM_TIMEOUT_S = 900.0
"""Seconds to wait for a machine that has room for a worker, while an autoscaler may start one."""
LONGEST_FOLDER = 40
"""Longest temporary folder, in bytes: Ray's sockets lie about 65 below it, and a socket's path has 107 at most."""


class StoreUse(NamedTuple):
    """Use of Ray's object stores, over all machines that are alive.

    Attributes:
        created_bytes: size of all objects that were created since the start, in bytes.
        spilled_bytes: size of those that were moved to disks, in bytes.
    """

    created_bytes: int
    spilled_bytes: int


def store_use() -> StoreUse:
    """Read Ray's own counters of its object stores. This process must be connected to Ray; it needs grpcio."""
    import ray
    from ray._private.internal_api import node_stats

    nodes = [node for node in ray.nodes() if node["Alive"]]
    stats = [node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False).store_stats for node in nodes]
    return StoreUse(
        sum(part.cumulative_created_bytes for part in stats), sum(part.spilled_bytes_total for part in stats)
    )


class RayEngine:
    """Runs shards as Ray tasks, on this machine or on a cluster; see `ohmq.bulk.tasks.Engine`.

    Args:
        workers: limit on shards at once; None: as many as the cores, or the cluster's machines, allow.
        threads: threads, and so cores, of a worker.
        address: ``HOST:PORT`` of a cluster, or "auto" for the one that this machine belongs to; None: the one that RAY_ADDRESS
            names, as in a job that was submitted to a cluster, else a Ray that is started here.
        gpus_per_worker: GPUs of a worker; a fraction shares one.
        work: function that does a shard in a worker; default: `ohmq.bulk.shard_work.do_shard`.

    Raises:
        ConfigError: Ray is missing or too old, no cluster at the address, one of another version of Ray or Python, or no
            machine here with the cores or GPUs of a worker.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        threads: int = 1,
        address: str | None = None,
        gpus_per_worker: float = 0.0,
        work: Callable[[ShardTask], ShardOutcome] | None = None,
    ) -> None:
        self.workers, self.threads, self.gpus_per_worker = workers, threads, gpus_per_worker
        self._backlog: deque[ShardTask] = deque()
        self._tasks: dict[Any, ShardTask] = {}
        self._since: dict[int, float] = {}
        self._room, self._looked = 1, -NODES_REFRESH_S
        self._had_room = time.monotonic()
        self._ray = _import_ray()
        self._folder: Path | None = None
        self._owns_ray = False
        if address is None and os.environ.get("RAY_ADDRESS", "local") != "local":
            address = "auto"
        if address is not None:
            self._connect(address)
        elif not self._ray.is_initialized():  # else the caller has started Ray
            self._start()
        if work is None:
            from ohmq.bulk.shard_work import do_shard

            work = do_shard
        self._work = work
        # max_retries: the driver counts. max_calls: else a process with a GPU would end after each task. No runtime_env: it
        # makes the start of a worker slow, and shows up in logs. Ray sets OMP_NUM_THREADS, `do_shard` torch's threads.
        self._remote = self._ray.remote(
            num_cpus=threads,
            num_gpus=gpus_per_worker,
            max_retries=0,
            max_calls=SHARDS_PER_PROCESS,
        )(_do)

    def _start(self) -> None:
        """Start a Ray of this machine alone, in a temporary folder of its own."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        cpus = self.workers * self.threads if self.workers else max(cores, self.threads)
        self._folder = Path(tempfile.mkdtemp(prefix="ohmq-", dir=_short_folder()))
        self._owns_ray = True
        try:
            # The workers inherit it. An arena of malloc for each thread would grow over thousands of images.
            with _environment({"OMP_NUM_THREADS": str(self.threads), "MALLOC_ARENA_MAX": "2"}), _own_signals():
                self._ray.init(
                    address="local",  # None would join a cluster that someone else runs on this machine
                    num_cpus=cpus,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level="ERROR",
                    object_store_memory=OBJECT_STORE_BYTES,
                    _temp_dir=str(self._folder),
                )
        except Exception as error:
            self.close()
            raise ConfigError(f"Ray does not start here ({_one_line(error)})") from error
        self._quieten()
        gpus = self._ray.cluster_resources().get("GPU", 0)
        if self.gpus_per_worker > gpus:
            self.close()
            raise ConfigError(f"a worker takes {self.gpus_per_worker:g} GPUs, and this machine has {gpus:g}")

    def _connect(self, address: str) -> None:
        """Connect to a cluster, or use the connection that this process has."""
        chosen = address
        if address == "auto":
            chosen = os.environ.get("RAY_ADDRESS") or address
        if "://" in chosen:
            raise ConfigError(
                f"{chosen}: a Ray client's connection is lost sooner or later, and the job with it; run the driver inside "
                "the cluster: ray job submit -- ohmq bulk ... --engine ray --address auto"
            )
        if self._ray.is_initialized():
            connected = self._ray.get_runtime_context().gcs_address
            if address not in ("auto", connected):
                raise ConfigError(f"this process is connected to Ray at {connected}, not at {address}")
            return
        if chosen != "auto":
            _check_answers(chosen)
        try:
            with _environment({TRIES: os.environ.get(TRIES, "1")}), _own_signals():
                self._ray.init(address=chosen, log_to_driver=False, logging_level="ERROR")
        except Exception as error:
            raise _connection_error(chosen, error) from error
        self._owns_ray = True
        self._quieten()

    def _quieten(self) -> None:
        """Keep Ray's lines about dead workers, which it prints to standard output, off the job's results."""
        worker = self._ray._private.worker
        if hasattr(worker, "_worker_logs_enabled"):
            worker._worker_logs_enabled = False

    @property
    def slots(self) -> int:
        """Number of shards that run at once: `workers`, or what the machines that are alive now have room for."""
        return self.workers or max(1, self._look())  # 1: a cluster without machines must see a demand to add some

    def _look(self) -> int:
        """Return the number of workers that all machines have room for, as of some seconds ago at most."""
        now = time.monotonic()
        if now - self._looked >= NODES_REFRESH_S:
            self._looked = now
            self._room = sum(self._room_of(node["Resources"]) for node in self._ray.nodes() if node["Alive"])
            if self._room:
                self._had_room = now
        return self._room

    def _room_of(self, resources: dict[str, float]) -> int:
        """Return the number of workers that a machine has room for."""
        room = int(resources.get("CPU", 0) // self.threads)
        if self.gpus_per_worker:
            room = min(room, int(resources.get("GPU", 0) / self.gpus_per_worker + 1e-6))
        return room

    def submit(self, task: ShardTask) -> None:
        """Take a shard, to be done when a worker is free.

        Args:
            task: the shard.
        """
        self._backlog.append(task)
        self._fill()

    def _fill(self) -> None:
        """Hand waiting shards to Ray; never more than `workers` at once, if that limit was set."""
        while self._backlog and not (self.workers and len(self._tasks) >= self.workers):
            task = self._backlog.popleft()
            reference = self._remote.remote(__version__, task.shard, pickle.dumps((self._work, task)))
            self._tasks[reference] = task
        self._mark_started()

    def _mark_started(self) -> None:
        """Note when a shard got a worker. Ray does not tell; it serves tasks of one kind in the order of submission."""
        now = time.monotonic()
        for task in list(self._tasks.values())[: self.slots]:
            self._since.setdefault(task.shard, now)

    def wait(self, timeout_s: float) -> list[ShardOutcome]:
        """Return the shards that have ended since the last call; wait for one at most ``timeout_s`` seconds.

        Args:
            timeout_s: longest time to wait, in seconds.

        Raises:
            ConfigError: the connection to the cluster is lost, or no machine had room for a worker for `NO_ROOM_TIMEOUT_S`.
        """
        if not self._look() and time.monotonic() - self._had_room > NO_ROOM_TIMEOUT_S:
            wanted = f"{self.threads} CPUs" + (f" and {self.gpus_per_worker:g} GPUs" if self.gpus_per_worker else "")
            raise ConfigError(f"no machine of the Ray cluster has {wanted} for a worker")
        if not self._tasks:
            time.sleep(0 if self._backlog else timeout_s)
            self._fill()
            return []
        try:
            ready, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=timeout_s)
            if ready:  # and all others that have ended by now
                ready, _ = self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=0)
        except self._ray.exceptions.RayError as error:
            raise ConfigError(f"the connection to Ray is lost ({_one_line(error)})") from error
        outcomes = []
        for reference in ready:
            task = self._tasks.pop(reference)
            self._since.pop(task.shard, None)
            outcomes.append(self._outcome(task, reference))
        self._fill()
        return outcomes

    def _outcome(self, task: ShardTask, reference: Any) -> ShardOutcome:
        """Return the outcome of a task that has ended."""
        errors = self._ray.exceptions
        try:
            return pickle.loads(self._ray.get(reference))
        except (errors.RuntimeEnvSetupError, errors.TaskUnschedulableError) as error:
            return ShardOutcome(task.shard, "fatal", f"Ray cannot start a worker ({_one_line(error)})")
        except errors.RayTaskError as error:  # our own function catches all: it could not be loaded
            cause = _one_line(error.cause or error)
            advice = f"is ohmq {__version__} installed on each machine of the cluster?"
            return ShardOutcome(task.shard, "mismatch", f"a worker cannot load ohmq ({cause}); {advice}")
        except errors.OutOfMemoryError:
            return ShardOutcome(task.shard, "died", "Ray ended the worker: its machine was short of memory")
        except errors.NodeDiedError:
            return ShardOutcome(task.shard, "died", "the worker's machine was lost")
        except errors.RayError as error:
            return ShardOutcome(task.shard, "died", f"the worker died ({type(error).__name__})")

    def running(self) -> dict[int, float]:
        """Return the shards that are being done, and for how many seconds, to within the time that Ray takes to start them."""
        now = time.monotonic()
        return {task.shard: now - self._since[task.shard] for task in self._tasks.values() if task.shard in self._since}

    def close(self) -> None:
        """End all workers, whatever they do; end Ray if it was started here."""
        self._backlog.clear()
        if self._ray.is_initialized():
            for reference in self._tasks:
                with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
                    self._ray.cancel(reference, force=True)
            if self._owns_ray:
                self._ray.shutdown()
        self._tasks.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _do(version: str, shard: int, packed: bytes) -> bytes:
    """Do one shard in a worker. The version is compared first: another one may not understand the rest."""
    worker = f"{socket.gethostname()}:{os.getpid()}"
    if version != __version__:
        text = (
            f"{worker} has ohmq {__version__}, and the driver has {version}: install the same version on all machines"
        )
        return pickle.dumps(ShardOutcome(shard, "mismatch", text, worker=worker))
    work, task = pickle.loads(packed)
    try:
        outcome = work(task)
    except Exception as error:  # a bug, or a worker without a package; Ray would wrap it in a traceback of pages
        outcome = ShardOutcome(shard, "fatal", f"{type(error).__name__}: {error}", worker=worker)
    return pickle.dumps(outcome)


def _import_ray() -> Any:
    """Import Ray, quietly."""
    if importlib.util.find_spec("ray") is None:
        raise ConfigError("ray is not installed; it comes with: pip install 'ohmq[cluster]'")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else ray.init warns
    import ray

    if tuple(int(part) for part in ray.__version__.split(".")[:2]) < OLDEST_RAY:
        wanted = ".".join(map(str, OLDEST_RAY))
        raise ConfigError(
            f"ray {ray.__version__} is too old, {wanted} or later is needed: pip install -U 'ohmq[cluster]'"
        )
    return ray


def _short_folder() -> str:
    """Return a temporary folder whose path is short enough for Ray's sockets."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    return folder if len(os.fsencode(folder)) + len("/ohmq-12345678") <= LONGEST_FOLDER else "/tmp"


def _check_answers(address: str) -> None:
    """Refuse an address where no server of gRPC listens: Ray would try for a quarter of an hour."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ConfigError(f"{address!r} is no address of a Ray cluster; give auto or HOST:PORT, such as 10.0.0.1:6379")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "1":
                return
            connection.sendall(HTTP2_START)
            answer = connection.recv(9)
    except OSError as error:
        raise ConfigError(f"no Ray cluster at {address} ({error.strerror or error})") from error
    if answer[3:4] != HTTP2_SETTINGS:
        raise ConfigError(f"no Ray cluster at {address}: something else answers there")


def _connection_error(address: str, error: Exception) -> ConfigError:
    """Say in one line why a connection to a cluster failed."""
    reason: BaseException | None = error
    while reason is not None:
        versions = re.findall(r"Ray: (\S+)\s+Python: (\S+)", str(reason))
        if "mismatch" in str(reason) and len(versions) == 2:
            (their_ray, their_python), (our_ray, our_python) = versions
            return ConfigError(
                f"the cluster runs Ray {their_ray} with Python {their_python}, and this process Ray {our_ray} with Python "
                f"{our_python}: use the same versions"
            )
        reason = reason.__cause__ or reason.__context__
    if address == "auto":
        return ConfigError(
            f"this machine belongs to no Ray cluster ({_one_line(error)}); start one with ray start --head, or leave "
            "--address out"
        )
    return ConfigError(
        f"no connection to Ray at {address} ({_one_line(error)}); the driver must run on a machine of the cluster: "
        "ray job submit -- ohmq bulk ... --engine ray --address auto"
    )


def _one_line(error: BaseException) -> str:
    """Return the first line of an error's text, without a full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(". ") if lines else type(error).__name__


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that are started inside."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's handler of SIGTERM, which ray.init replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
