"""Try failed images again: shards with failures are written anew, and what is good in them is kept."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from ohmq.bulk.driver import BulkProgress, BulkSummary, make_engine, run_shards
from ohmq.bulk.job import BulkJob
from ohmq.bulk.manifest import ShardSet, read_markers
from ohmq.bulk.operations import make_operation
from ohmq.bulk.plan import read_plan
from ohmq.bulk.tasks import Engine
from ohmq.errors import ConfigError
from ohmq.storage.lock import TargetLock
from ohmq.storage.open_store import open_store
from ohmq.storage.probe import probe_target

__all__ = ["retry"]


def retry(
    target: str,
    *,
    on_progress: Callable[[BulkProgress], None] | None = None,
    start_engine: Callable[[BulkJob], Engine] = make_engine,
    failed_only: bool = False,
    **changes: Any,
) -> BulkSummary:
    """Try the images of a job again that failed, and do the shards that are not finished.

    Each shard with failures is read, completed and written anew by one put; images that are done are copied from the
    output, not coded again. If no image of it succeeds, its output keeps its bytes.

    Args:
        target: target of the job.
        on_progress: as for `ohmq.bulk.run`.
        start_engine: as for `ohmq.bulk.run`.
        failed_only: leave out the shards that are not finished yet.
        changes: fields of `ohmq.bulk.BulkJob` that change no output, such as ``engine``, ``workers`` or
            ``image_timeout_s``.

    Raises:
        ConfigError: no job there, or a change that changes outputs.
        OhmqError: as `ohmq.bulk.run`.
    """
    start = time.monotonic()
    store = open_store(
        BulkJob(operation="compress", sources=("-",), target=target).target_root, processes=2, for_writing=True
    )
    plan = read_plan(store)
    planned = plan.job
    pattern = planned.target_pattern
    root = store.url if pattern is None else f"{store.url.rstrip('/')}/{pattern}"
    job = dataclasses.replace(planned, target=root, update=False, **changes)
    if differences := job.differences(planned):
        raise ConfigError(f"{differences[0].field} changes outputs; retry keeps the options of the job")
    model_id = make_operation(job).model_id or None
    if model_id != plan.model_id:
        raise ConfigError(f"the model {job.model} is {model_id}, the job was planned with {plan.model_id}")
    probe_target(store)
    with TargetLock(store) as lock:
        done, failed = ShardSet(), ShardSet()
        for marker in read_markers(store):
            (failed if marker.failed else done).add(marker.shard)
        return run_shards(
            job,
            plan,
            store,
            model_id,
            start=start,
            on_progress=on_progress,
            start_engine=start_engine,
            lock=lock,
            retry=failed,
            failed_only=failed_only,
        )
