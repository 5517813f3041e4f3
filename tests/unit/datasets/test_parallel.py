"""Functions computed in worker processes."""

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ohmq.datasets.parallel import ProcessMap
from ohmq.errors import ConfigError


def square(number: int) -> tuple[int, int]:
    if number == 7:
        raise ConfigError("no seven")
    if number < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number, os.getpid()


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def assert_ended(processes: set[int]) -> None:
    deadline = time.monotonic() + 10
    while any(map(alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, processes))


def test_results_come_in_order_from_several_processes_that_stay() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    mapped = ProcessMap(square, [5, 1, 4, 2], 2)
    first, second = list(mapped), list(mapped)
    assert [result for result, _ in first] == [25, 1, 16, 4]
    processes = {process for _, process in first}
    assert len(processes) == 2 and os.getpid() not in processes
    assert {process for _, process in second} == processes
    assert torch.equal(torch.random.get_rng_state(), before)  # the caller's random numbers are not used
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        for process in processes:
            os.kill(process, number)  # a scheduler signals all processes of a job: the owner alone acts on it
    assert [result for result, _ in mapped] == [25, 1, 16, 4]
    mapped.close()
    assert_ended(processes)


def test_errors_of_the_function_and_deaths_of_processes_are_clear() -> None:
    mapped = ProcessMap(square, [2, 7], 1)
    with pytest.raises(ConfigError, match="^no seven$"):
        list(mapped)
    mapped.close()
    mapped = ProcessMap(square, [2, -1, 3], 1)
    with pytest.raises(ConfigError, match=r"a process that reads images ended .*smaller num_workers"):
        list(mapped)
    mapped.close()


def test_processes_end_with_the_object_that_owns_them() -> None:
    mapped = ProcessMap(square, [1, 2, 7], 2)
    results = iter(mapped)
    processes = {next(results)[1], next(results)[1]}
    del mapped, results  # in the middle
    gc.collect()
    assert_ended(processes)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_processes_end_with_an_owner_that_was_killed() -> None:
    code = (
        "import numpy as np\n"
        "from ohmq.datasets.parallel import ProcessMap\n"
        "results = iter(ProcessMap(lambda item: np.zeros(100_000, np.uint8), range(1000), 2))\n"
        "next(results), print('ready', flush=True), input()\n"  # nobody reads the results: the pipe is full
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == b"ready\n"
        workers = Path(f"/proc/{owner.pid}/task/{owner.pid}/children").read_text().split()
        assert len(workers) == 2
        owner.kill()
    deadline = time.monotonic() + 30
    while (alive := [worker for worker in workers if _is_running(worker)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for worker in alive:
        os.kill(int(worker), signal.SIGKILL)
    assert not alive


def _is_running(process: str) -> bool:
    """Tell whether a process has not ended; one that ended stays in /proc until its new parent asks for its exit code."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
