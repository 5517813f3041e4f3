"""Functions that stand for the work on a shard in the workers of a Ray; the shard's number says what to do."""

import os
import signal
import socket
import time

from ohmq.bulk.tasks import ShardOutcome, ShardTask

KILLED, FAILS, ENDLESS = 1000, 2000, 3000
"""First numbers of shards that kill their worker, raise, or never end."""


def work(task: ShardTask) -> ShardOutcome:
    """Report the process and its threads, after the mishap that the number of the shard asks for."""
    import torch

    if task.shard >= ENDLESS:
        time.sleep(600)
    if task.shard >= FAILS:
        raise ZeroDivisionError("a bug")
    if task.shard >= KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    facts = f"{os.environ['OMP_NUM_THREADS']} {os.environ['MALLOC_ARENA_MAX']} {torch.get_num_threads()}"
    return ShardOutcome(task.shard, "done", facts, worker=f"{socket.gethostname()}:{os.getpid()}")
