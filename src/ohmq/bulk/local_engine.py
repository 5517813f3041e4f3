"""Engine of bulk coding on one machine: worker processes that may die, be killed and be replaced.

Each worker is a fresh interpreter. Tasks go in through its standard input, outcomes come back through its standard output; a
worker ends when its standard input does, as when the driver was killed.
"""

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from ohmq.bulk.image_watch import TIMEOUT_EXIT
from ohmq.bulk.tasks import ShardOutcome, ShardTask

__all__ = ["LocalEngine", "serve"]

SHARDS_PER_PROCESS = 50
"""Number of shards after which a worker is replaced by a fresh process: memory creeps up over thousands of images."""
MAX_FAILED_STARTS = 3
"""Number of workers in a row that may end before they are ready."""


class _Worker:
    """One process, and the thread that reads its outcomes into a queue."""

    def __init__(self, number: int, environment: dict[str, str], outcomes: "queue.Queue[tuple[int, Any]]") -> None:
        self.task: ShardTask | None = None
        self.number, self.since, self.shards, self.ready = number, 0.0, 0, False
        folder = str(Path(__file__).parents[2])
        command = f"import sys; sys.path.insert(0, {folder!r}); from ohmq.bulk.local_engine import serve; serve()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C in a terminal is for the driver, which ends the workers
        )
        self._outcomes = outcomes
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        with contextlib.suppress(EOFError, pickle.UnpicklingError, OSError, ValueError):
            while True:
                self._outcomes.put((self.number, pickle.load(stream)))
        self._outcomes.put((self.number, None))

    def send(self, message: Any) -> bool:
        """Send a message; False: the process has ended."""
        stream = self.process.stdin
        assert stream is not None
        try:
            pickle.dump(message, stream)
            stream.flush()
        except OSError:
            return False
        return True

    def retire(self) -> None:
        """Let the process end after its work."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()

    def forget(self) -> int:
        """Wait for the end of the process; returns its exit code."""
        self.retire()
        code = self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


class LocalEngine:
    """Runs shards in processes of this machine; see `ohmq.bulk.tasks.Engine`.

    Args:
        workers: number of processes; None: one a core.
        threads: threads of torch and of BLAS in a process.
        work: function that does a shard; default: `ohmq.bulk.shard_work.do_shard`.
        shards_per_process: number of shards after which a process is replaced.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        threads: int = 1,
        work: Callable[[ShardTask], ShardOutcome] | None = None,
        shards_per_process: int = SHARDS_PER_PROCESS,
    ) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._slots = workers or cores
        self._work, self._shards_per_process = work, shards_per_process
        self._environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "OPENBLAS_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "MALLOC_ARENA_MAX": "2",
        }
        self._backlog: deque[ShardTask] = deque()
        self._workers: dict[int, _Worker] = {}
        self._outcomes: queue.Queue[tuple[int, Any]] = queue.Queue()
        self._started = self._failed_starts = 0

    @property
    def slots(self) -> int:
        """Number of processes."""
        return self._slots

    def submit(self, task: ShardTask) -> None:
        """Take a shard, to be done when a worker is free.

        Args:
            task: the shard.
        """
        self._backlog.append(task)
        self._hand_out()

    def _hand_out(self) -> None:
        """Give waiting shards to idle workers, and start workers that are missing."""
        for worker in [*self._workers.values()]:
            if self._backlog and worker.ready and worker.task is None:
                worker.task, worker.since = self._backlog.popleft(), time.monotonic()
                if not worker.send(worker.task):  # its end is in the queue, or will be
                    continue
        idle = sum(worker.task is None for worker in self._workers.values())
        while len(self._workers) < self._slots and idle < len(self._backlog):
            self._started += 1
            idle += 1
            worker = _Worker(self._started, self._environment, self._outcomes)
            self._workers[worker.number] = worker
            worker.send(self._work)

    def wait(self, timeout_s: float) -> list[ShardOutcome]:
        """Return the shards that have ended since the last call; wait for one at most ``timeout_s`` seconds.

        Args:
            timeout_s: longest time to wait, in seconds.
        """
        found: list[ShardOutcome] = []
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                left = deadline - time.monotonic()
                number, message = self._outcomes.get(block=not found and left > 0, timeout=max(left, 0.001))
            except queue.Empty:
                return found
            found += self._take(self._workers[number], message)
            self._hand_out()

    def _take(self, worker: _Worker, message: Any) -> list[ShardOutcome]:
        """Take a message of a worker; None: it has ended."""
        if message is None:
            return self._bury(worker)
        if isinstance(message, ShardOutcome):
            worker.task = None
            worker.shards += 1
            if worker.shards >= self._shards_per_process:
                worker.ready = False
                worker.retire()
            return [message]
        worker.ready, self._failed_starts = True, 0
        return []

    def _bury(self, worker: _Worker) -> list[ShardOutcome]:
        del self._workers[worker.number]
        code = worker.forget()
        if worker.task is not None:
            return [ShardOutcome(worker.task.shard, "died", _death(code))]
        if not worker.ready and not worker.shards:
            self._failed_starts += 1
            if self._failed_starts >= MAX_FAILED_STARTS and self._backlog:
                task = self._backlog.popleft()
                return [ShardOutcome(task.shard, "fatal", f"workers end at their start: {_death(code)}")]
        return []

    def running(self) -> dict[int, float]:
        """Return the shards that are being done, and for how many seconds."""
        now = time.monotonic()
        return {worker.task.shard: now - worker.since for worker in self._workers.values() if worker.task is not None}

    def pids(self) -> list[int]:
        """Return the process ids of the workers."""
        return [worker.process.pid for worker in self._workers.values()]

    def close(self) -> None:
        """End all workers, whatever they do: outputs are whole or absent."""
        for worker in self._workers.values():
            worker.kill()
        for worker in self._workers.values():
            worker.forget()
        self._workers.clear()
        self._backlog.clear()


def _death(code: int) -> str:
    if code == TIMEOUT_EXIT:
        return "an image took longer than its limit"
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = str(-code)
        memory = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
        return f"the worker was killed ({name}{memory})"
    return f"the worker ended (exit code {code})"


def serve() -> None:
    """Do the shards that come through standard input, until it ends; for the processes of `LocalEngine`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    output: BinaryIO = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not come between the outcomes
    tasks: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_read_tasks, args=(sys.stdin.buffer, tasks), daemon=True).start()
    try:
        work = tasks.get()
        if work is None:
            from ohmq.bulk.shard_work import do_shard

            work = do_shard
        _send(output, "ready")
        while True:
            _send(output, work(tasks.get()))
    except BaseException:
        traceback.print_exc()
    finally:  # the end of the interpreter would wait for the thread that reads tasks
        sys.stderr.flush()
        os._exit(1)


def _send(output: BinaryIO, message: Any) -> None:
    try:
        pickle.dump(message, output)
        output.flush()
    except OSError:  # the driver is gone
        os._exit(0)


def _read_tasks(stream: BinaryIO, tasks: "queue.Queue[Any]") -> None:
    """Put tasks into a queue; end the process with its standard input, whatever it does."""
    with contextlib.suppress(Exception):
        while True:
            tasks.put(pickle.load(stream))
    os._exit(0)
