"""The driver of a bulk job: plans it, keeps the workers supplied with shards, repeats what failed, and says how far it is."""

import contextlib
import dataclasses
import math
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ohmq import __version__
from ohmq.bulk.image_watch import MAX_DEATHS, read_crumb
from ohmq.bulk.job import CONTROL, BulkJob, shard_label
from ohmq.bulk.manifest import ShardSet, read_markers, read_shard_manifest
from ohmq.bulk.operations import Compress, Decompress, Transcode, make_operation
from ohmq.bulk.plan import Plan, PlannedShard, has_plan, make_plan
from ohmq.bulk.shard_work import marker_outcome, superseded
from ohmq.bulk.status import write_progress
from ohmq.bulk.tasks import Engine, ShardOutcome, ShardTask
from ohmq.errors import ConfigError, OhmqError
from ohmq.storage.errors import NotFoundError, StorageError
from ohmq.storage.lock import TargetLock
from ohmq.storage.open_store import open_store
from ohmq.storage.probe import probe_target
from ohmq.storage.store import Store

__all__ = ["BulkError", "BulkProgress", "BulkSummary", "make_engine", "run", "run_shards"]

SHARDS_A_SLOT = 2
"""Number of shards in flight for each one that can run at once."""
FIRST_WAIT_S, LONGEST_WAIT_S = 2.0, 120.0
"""Seconds before a shard is tried again after storage failed: bounds on the first wait and on each."""
REPORT_S = 30.0
"""Seconds between two reports of the running shards to the target, for ``ohmq bulk status``."""
POLL_S = 0.5
"""Seconds between two looks at signals and at shards that are due again."""


class BulkError(OhmqError):
    """A job that cannot go on; what is finished stays, and the same command goes on from there."""


@dataclass(kw_only=True)
class BulkProgress:
    """State of a running job.

    Attributes:
        shards: number of shards of the plan.
        shards_done: number of finished shards, of earlier runs too.
        images: number of images that were done in this run, with those that failed.
        failed: number of failed images of all finished shards.
        pixels: number of pixels of the images of this run.
        seconds: seconds since the first shard was handed out.
        shards_run: number of shards that this run finished.
        running: seconds since its start, for each shard that is being done.
    """

    shards: int
    shards_done: int = 0
    images: int = 0
    failed: int = 0
    pixels: int = 0
    seconds: float = 0.0
    shards_run: int = 0
    running: dict[int, float] = dataclasses.field(default_factory=dict)

    @property
    def images_per_s(self) -> float:
        """Images a second in this run."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def minutes_left(self) -> int | None:
        """Minutes until the end at the pace of this run; None: unknown yet."""
        if not self.shards_run:
            return None
        return math.ceil(self.seconds / self.shards_run * (self.shards - self.shards_done) / 60)

    def __str__(self) -> str:
        parts = [
            f"{self.shards_done} of {self.shards} shards",
            f"{self.images_per_s:.1f} images/s",
            f"{self.failed} failed",
        ]
        if self.minutes_left is not None:
            parts.append(f"{self.minutes_left} min left")
        text = ", ".join(parts)
        if self.running:
            shard, seconds = max(self.running.items(), key=lambda item: item[1])
            text += f"; slowest: shard {shard_label(shard)} for {seconds:.0f} s"
        return text


@dataclass(frozen=True, kw_only=True)
class BulkSummary:
    """Outcome of a job.

    Attributes:
        shards: number of shards of the plan.
        shards_done: number of finished shards, of earlier runs too.
        shards_run: number of shards that this run finished.
        images: number of images of the finished shards, with those that failed.
        failed: number of images that failed.
        bytes_in: size of the source images in bytes.
        bytes_out: size of the outputs in bytes.
        pixels: number of pixels.
        seconds: duration of this run.
        images_per_s: images a second in this run.
        planned: number of sources that this run added to the plan.
        stopped: whether a signal ended the run early.
    """

    shards: int
    shards_done: int
    shards_run: int
    images: int
    failed: int
    bytes_in: int
    bytes_out: int
    pixels: int
    seconds: float
    images_per_s: float
    planned: int = 0
    stopped: bool = False


def make_engine(job: BulkJob) -> Engine:
    """Start the engine of a job.

    Args:
        job: the job.

    Raises:
        ConfigError: a package is missing, or there is no such cluster.
    """
    if job.engine == "ray":
        from ohmq.bulk.ray_engine import RayEngine

        return RayEngine(
            workers=job.workers,
            threads=job.threads,
            address=job.address,
            gpus_per_worker=job.gpus_per_worker,
        )
    from ohmq.bulk.local_engine import LocalEngine

    return LocalEngine(workers=job.workers, threads=job.threads)


def run(
    job: BulkJob,
    *,
    on_progress: Callable[[BulkProgress], None] | None = None,
    on_plan: Callable[[int], None] | None = None,
    start_engine: Callable[[BulkJob], Engine] = make_engine,
) -> BulkSummary:
    """Run a bulk job, or go on with one that was stopped.

    The first run plans the job; the plan, the manifest and a marker for each finished shard lie in ``_ohmq`` below the
    target. A shard with a marker is not done again. Ctrl-C and SIGTERM stop the job; the same call goes on.

    Args:
        job: the job.
        on_progress: called about twice a second.
        on_plan: called with the number of sources listed so far.
        start_engine: starts the workers. Default: those that the job names.

    Returns:
        The summary. Images that failed are rows of the manifest with an error: they raise nothing.

    Raises:
        ConfigError: options that do not fit the model or the plan of the target, no sources, a missing package.
        BulkError: a shard failed too often, nothing was finished for long, or workers do not fit the driver.
        StorageError, OutputWriteError: sources or target cannot be reached or written.

    Example:
        >>> from ohmq.bulk import BulkJob, run
        >>> summary = run(BulkJob(operation="compress", sources=("photos",), target="archive"))  # doctest: +SKIP
    """
    job = job.absolute()
    start = time.monotonic()
    store = open_store(job.target_root, processes=2, for_writing=True)
    model_id = _shipped_model_id(job) if has_plan(store) else None
    if model_id is None:
        model_id = make_operation(job).model_id or None
    probe_target(store)
    with TargetLock(store) as lock:
        plan = make_plan(job, model_id, store=store, on_progress=on_plan)
        return run_shards(
            job, plan, store, model_id, start=start, on_progress=on_progress, start_engine=start_engine, lock=lock
        )


def run_shards(
    job: BulkJob,
    plan: Plan,
    store: Store,
    model_id: str | None,
    *,
    start: float,
    on_progress: Callable[[BulkProgress], None] | None = None,
    start_engine: Callable[[BulkJob], Engine] = make_engine,
    lock: TargetLock | None = None,
    retry: ShardSet | None = None,
    failed_only: bool = False,
) -> BulkSummary:
    """Do the shards of a plan that have no marker, or those that are to be tried again.

    Args:
        job: the job, with absolute paths.
        plan: its plan.
        store: store of the target's root.
        model_id: hexadecimal id of the model; None: there is none, or each file names its own.
        start: `time.monotonic` at the start of the run.
        on_progress: as for `run`.
        start_engine: as for `run`.
        lock: lock on the target; the job ends if another one takes it.
        retry: shards with a marker whose failed images are tried again.
        failed_only: do the shards of ``retry`` alone, and leave out those without a marker.

    Raises:
        OhmqError: as `run`.
    """
    totals = _Totals()
    done = ShardSet()
    plan_hashes = {generation.plan_hash for generation in plan.generations}
    for marker in read_markers(store):
        if marker.plan_hash not in plan_hashes:
            raise ConfigError(
                f"{store.url}: the marker of shard {shard_label(marker.shard)} belongs to another plan; choose another target"
            )
        if retry is not None and marker.shard in retry:
            continue
        done.add(marker.shard)
        totals.add(marker_outcome(marker))
    progress = BulkProgress(shards=plan.num_shards, shards_done=len(done), failed=totals.failed)
    stopped = False
    earlier = totals.images
    begun = time.monotonic()
    if retry if failed_only else len(done) < plan.num_shards:
        _compile(job)
        tasks = _tasks(job, plan, model_id, done, retry or ShardSet())
        if failed_only:
            tasks = (task for task in tasks if task.retry)
        begun = time.monotonic()
        reported = begun
        with _stop_signals() as signals, contextlib.closing(start_engine(job)) as workers:
            window = _Window(job, store, tasks, workers, progress, totals, begun)
            while window.busy:
                if signals:
                    stopped = True
                    break
                if lock is not None and lock.lost_to is not None:
                    raise BulkError(f"{store.url}: another job took this target over ({lock.lost_to})")
                window.step()
                if on_progress is not None:
                    on_progress(progress)
                if time.monotonic() - reported >= REPORT_S:
                    reported = time.monotonic()
                    write_progress(store, progress.running)
        if reported > begun:
            write_progress(store, {})
    if not stopped:
        _sweep_crumbs(store)
    replaced = _replaced_failures(store, plan) if totals.failed else 0
    seconds = time.monotonic() - begun
    return BulkSummary(
        shards=plan.num_shards,
        shards_done=progress.shards_done,
        shards_run=progress.shards_run,
        images=totals.images - replaced,
        failed=totals.failed - replaced,
        bytes_in=totals.bytes_in,
        bytes_out=totals.bytes_out,
        pixels=totals.pixels,
        seconds=time.monotonic() - start,
        images_per_s=(totals.images - earlier) / seconds if seconds and progress.shards_run else 0.0,
        planned=plan.added,
        stopped=stopped,
    )


@dataclass
class _Totals:
    """Sums over finished shards."""

    images: int = 0
    failed: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    pixels: int = 0

    def add(self, outcome: ShardOutcome) -> None:
        self.images += outcome.images
        self.failed += outcome.failed
        self.bytes_in += outcome.bytes_in
        self.bytes_out += outcome.bytes_out
        self.pixels += outcome.pixels


class _Window:
    """Shards in flight: a bounded number of them, and those that wait to be tried again."""

    def __init__(
        self,
        job: BulkJob,
        store: Store,
        tasks: Iterator[ShardTask],
        engine: Engine,
        progress: BulkProgress,
        totals: _Totals,
        begun: float,
    ) -> None:
        self.job, self.store, self.tasks, self.engine = job, store, tasks, engine
        self.progress, self.totals, self.begun = progress, totals, begun
        self.in_flight: dict[int, ShardTask] = {}
        self.waiting: list[tuple[float, ShardTask]] = []
        self.attempts: dict[int, int] = {}
        self.last_end = time.monotonic()
        self.exhausted = False
        self._fill()

    @property
    def busy(self) -> bool:
        """Whether there is a shard left."""
        return bool(self.in_flight or self.waiting or not self.exhausted)

    def _fill(self) -> None:
        now = time.monotonic()
        room = SHARDS_A_SLOT * self.engine.slots - len(self.in_flight)
        for entry in [entry for entry in self.waiting if entry[0] <= now][: max(room, 0)]:
            self.waiting.remove(entry)
            self._submit(entry[1])
            room -= 1
        while room > 0 and not self.exhausted:
            task = next(self.tasks, None)
            if task is None:
                self.exhausted = True
            else:
                self._submit(task)
                room -= 1

    def _submit(self, task: ShardTask) -> None:
        self.in_flight[task.shard] = task
        self.engine.submit(task)

    def step(self) -> None:
        """Wait for shards for a moment, and take what has ended."""
        for outcome in self.engine.wait(POLL_S):
            task = self.in_flight.pop(outcome.shard)
            self.last_end = time.monotonic()
            if outcome.kind == "done":
                self.attempts.pop(outcome.shard, None)
                self.totals.add(outcome)
                progress = self.progress
                progress.shards_done += 1
                progress.shards_run += 1
                progress.images += outcome.images
                progress.failed += outcome.failed
                progress.pixels += outcome.pixels
            else:
                self._try_again(task, outcome)
        self._fill()
        self.progress.seconds = time.monotonic() - self.begun
        self.progress.running = self.engine.running()
        if time.monotonic() - self.last_end > self.job.stall_timeout_s and self.in_flight:
            raise BulkError(self._stalled())

    def _try_again(self, task: ShardTask, outcome: ShardOutcome) -> None:
        """Let a shard be tried again after a while, unless that is in vain."""
        if outcome.kind == "fatal":
            raise BulkError(outcome.error or "a shard failed")
        if outcome.kind == "mismatch":
            raise BulkError(f"{outcome.error} (worker {outcome.worker})" if outcome.worker else str(outcome.error))
        attempts = self.attempts[task.shard] = self.attempts.get(task.shard, 0) + 1
        allowed = self.job.max_attempts
        if outcome.kind == "died" and attempts >= allowed:
            allowed += MAX_DEATHS * read_crumb(self.store, task.shard).given_up
        if attempts >= allowed:
            raise BulkError(
                f"shard {shard_label(task.shard)} failed {attempts} times, the last time because {outcome.error}; "
                "the same command goes on with the other shards and tries it again"
            )
        wait_s = 0.0
        if outcome.kind == "transient":
            wait_s = random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**attempts))
        self.waiting.append((time.monotonic() + wait_s, task._replace(attempt=task.attempt + 1)))

    def _stalled(self) -> str:
        running = sorted(self.engine.running().items(), key=lambda item: -item[1])
        names = ", ".join(f"{shard_label(shard)} for {seconds / 60:.0f} min" for shard, seconds in running[:5])
        more = f" and {len(running) - 5} more" if len(running) > 5 else ""
        return (
            f"no shard was finished for {self.job.stall_timeout_s / 60:g} minutes; running: {names or 'none'}{more}; "
            "raise --stall-timeout, or start again with smaller shards"
        )


def _tasks(job: BulkJob, plan: Plan, model_id: str | None, done: ShardSet, retry: ShardSet) -> Iterator[ShardTask]:
    """Iterate over the shards to do."""
    options_hash = job.options_hash(model_id)

    def task(planned: PlannedShard) -> ShardTask:
        return ShardTask(
            job=job,
            planned=planned,
            roots=plan.roots(planned),
            options_hash=options_hash,
            model_id=model_id,
            version=__version__,
            retry=planned.shard in retry,
        )

    return (task(planned) for planned in plan.shards() if planned.shard not in done)


def _shipped_model_id(job: BulkJob) -> str | None:
    """Return the id of a job's shipped model without loading it: a job that is finished needs no more; None: not shipped."""
    from ohmq.model_files.pretrained import pretrained_model_ids

    name = job.model if job.operation in ("compress", "transcode") else job.decode_model
    return next((key.hex() for key, known in pretrained_model_ids().items() if known == name), None)


def _compile(job: BulkJob) -> None:
    """Let numba compile once before many workers want it at the same time."""
    operation = make_operation(job)
    coder = operation.encoder if isinstance(operation, Transcode) else operation
    if isinstance(coder, Compress):
        _ = coder.codec
    elif isinstance(coder, Decompress):
        from ohmq.entropy.select_kernels import select_kernels
        from ohmq.postfilter.select_kernel import select_kernel

        select_kernels(job.compiled)
        select_kernel(job.compiled)


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM inside, instead of ending at any point; a second one ends at once."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def note(number: int, frame: Any) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _replaced_failures(store: Store, plan: Plan) -> int:
    """Count the failed images whose sources have changed since and are planned anew: they are failures no more."""
    replaced, count = superseded(plan), 0
    for shard in {shard for shard, _ in replaced}:
        with contextlib.suppress(NotFoundError):
            rows = read_shard_manifest(store, shard)
            count += sum(row.error is not None and (row.shard, row.source) in replaced for row in rows)
    return count


def _sweep_crumbs(store: Store) -> None:
    """Delete crumbs that killed runs left."""
    with contextlib.suppress(StorageError):
        for item in list(store.list(f"{CONTROL}/crumbs/")):
            store.delete(item.path)
