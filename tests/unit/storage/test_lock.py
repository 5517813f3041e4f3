import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ohmq.storage.errors import TargetLockedError
from ohmq.storage.local import LocalStore
from ohmq.storage.lock import LOCK_PATH, TargetLock

HOLD = """
import sys, time
from ohmq.storage.local import LocalStore
from ohmq.storage.lock import TargetLock
with TargetLock(LocalStore(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def hold(folder: Path) -> "subprocess.Popen[bytes]":
    """Lock a folder in another process."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE)
    assert process.stdout and process.stdout.readline() == b"locked\n"
    return process


def test_two_jobs_into_one_target(tmp_path: Path) -> None:
    with hold(tmp_path) as process:
        try:
            with pytest.raises(
                TargetLockedError, match=rf"{tmp_path}: another job .*process {process.pid}, since .*UTC"
            ):
                TargetLock(LocalStore(tmp_path)).__enter__()
        finally:
            process.kill()
            process.wait()
    with TargetLock(LocalStore(tmp_path)):  # its process is dead, on this machine
        assert json.loads((tmp_path / LOCK_PATH).read_bytes())["pid"] == os.getpid()
    assert os.listdir(tmp_path / "_ohmq") == []


def test_interrupted_jobs_give_the_lock_back(tmp_path: Path) -> None:
    with hold(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        process.wait()
    assert os.listdir(tmp_path / "_ohmq") == []


def foreign(folder: Path, **changes: object) -> None:
    """Leave the lock of another machine in a folder."""
    holder = {"host": "far", "pid": 7, "since": "2026", "machine": "elsewhere", "start": "1", "token": "a"}
    LocalStore(folder).write(LOCK_PATH, json.dumps(holder | changes).encode())


def test_a_lock_of_another_machine_expires(tmp_path: Path) -> None:
    foreign(tmp_path)
    store = LocalStore(tmp_path)
    with pytest.raises(TargetLockedError, match=r"far, process 7, since 2026; its last sign was [01] s ago"):
        TargetLock(store, expire_s=60).__enter__()
    past = time.time() - 61
    os.utime(tmp_path / LOCK_PATH, (past, past))
    with TargetLock(store, expire_s=60):
        with pytest.raises(TargetLockedError, match=f"process {os.getpid()}"):
            TargetLock(store, expire_s=60).__enter__()


def test_a_damaged_lock(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.write(LOCK_PATH, b"{}")
    with pytest.raises(TargetLockedError, match="unknown; its last sign"):
        TargetLock(store).__enter__()
    os.utime(tmp_path / LOCK_PATH, (1, 1))
    with TargetLock(store):
        pass


def test_a_lock_is_refreshed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with TargetLock(store, refresh_s=0.02) as lock:
        os.utime(tmp_path / LOCK_PATH, (1, 1))
        deadline = time.monotonic() + 30
        while store.age_s(LOCK_PATH) > 1000:  # type: ignore[operator]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert lock.lost_to is None


def test_a_lock_that_was_taken_away(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with TargetLock(store, refresh_s=0.02) as lock:
        foreign(tmp_path)
        deadline = time.monotonic() + 30
        while lock.lost_to is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert lock.lost_to.host == "far"
    assert json.loads(store.read(LOCK_PATH))["host"] == "far"  # not ours to delete
