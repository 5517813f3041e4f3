"""Functions that stand for the work on a shard in the workers of a Ray, and helpers to look at and kill those workers."""

import os
import signal
import socket
import time
from pathlib import Path

from ohmq.bulk.tasks import ShardOutcome, ShardTask

KILLED, FAILS, ENDLESS = 1000, 2000, 3000
"""First numbers of shards that kill their worker, raise, or never end."""


def work(task: ShardTask) -> ShardOutcome:
    """Report the process and its threads, after the mishap that the number of the shard asks for."""
    if task.shard >= ENDLESS:
        (Path(task.planned.part) / str(task.shard)).touch()  # tells that it has begun
        time.sleep(600)
    if task.shard >= FAILS:
        raise ZeroDivisionError("a bug")
    if task.shard >= KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    return ShardOutcome(task.shard, "done", worker=f"{socket.gethostname()}:{os.getpid()}")


def report_threads(task: ShardTask) -> ShardOutcome:
    """Do a shard, and report the threads that torch has after it."""
    from ohmq.bulk.shard_work import do_shard

    outcome = do_shard(task)
    import torch

    facts = f"{os.environ['OMP_NUM_THREADS']} {os.environ.get('MALLOC_ARENA_MAX')} {torch.get_num_threads()}"
    return outcome._replace(worker=facts)


def work_or_hang(task: ShardTask) -> ShardOutcome:
    """Do a shard and report the threads; on a machine whose working folder holds a file "hangs", never end."""
    if Path("hangs").exists():
        Path("begun").touch()
        time.sleep(600)
    return report_threads(task)


def busy_workers() -> list[int]:
    """List the processes of this process's Ray that do a task."""
    import ray

    raylets = {info.process.pid for info in ray._private.worker._global_node.all_processes["raylet"]}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes()
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended meanwhile
            continue
        if parent in raylets and title.startswith(b"ray::_do"):
            found.append(int(folder.name))
    return found
