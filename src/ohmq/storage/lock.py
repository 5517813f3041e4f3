"""An advisory lock on a target: two jobs into one target get a clear line, though correctness does not rest on it."""

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from ohmq.errors import OhmqError
from ohmq.storage.errors import NotFoundError, TargetLockedError
from ohmq.storage.store import CONTROL, Store

__all__ = ["LOCK_PATH", "LockHolder", "TargetLock"]

LOCK_PATH = f"{CONTROL}/lock.json"
"""Path of the lock below the target's root."""


class LockHolder(NamedTuple):
    """Job that holds a lock.

    Attributes:
        host: name of its machine.
        pid: number of its process.
        since: time at which it took the lock, in UTC.
        machine: boot and process namespace, within which ``pid`` has a meaning.
        start: start of the process in clock ticks since boot.
        token: random text, another one for each lock.
    """

    host: str
    pid: int
    since: str
    machine: str
    start: str
    token: str

    def is_dead(self) -> bool:
        """Tell whether the job ran here and its process has ended."""
        return self.machine == _machine() != "" and _start_of(self.pid) != self.start

    def __str__(self) -> str:
        return f"{self.host}, process {self.pid}, since {self.since}"


class TargetLock:
    """A lock object in the target: taken by a create-only write, refreshed by a thread, deleted at the end.

    A lock that was not refreshed for ``expire_s``, by the store's clock, or whose process has ended on this machine, is
    broken. Where the store cannot create atomically, two jobs that start at the same moment may both get it.

    Args:
        store: the target.
        refresh_s: seconds between two refreshes.
        expire_s: age in seconds at which a lock counts as left behind.

    Attributes:
        lost_to: job that took the lock away from this one, which must have been silent for long; None: nobody.

    Raises:
        TargetLockedError: on entering: another job holds the lock; the message names it.
    """

    def __init__(self, store: Store, *, refresh_s: float = 30.0, expire_s: float = 120.0):
        self.lost_to: LockHolder | None = None
        self._store = store.impatient()  # a refresh that waits for minutes would keep the job from ending
        self._refresh_s = refresh_s
        self._expire_s = expire_s
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        pid = os.getpid()
        self._me = LockHolder(socket.gethostname(), pid, since, _machine(), _start_of(pid), secrets.token_hex(8))
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="ohmq-lock", daemon=True)

    def __enter__(self) -> "TargetLock":
        for _ in range(3):
            if self._store.create(LOCK_PATH, self._data()) and self._holder() == self._me:
                self._thread.start()
                return self
            self._break_if_left_behind()
        raise TargetLockedError(f"{self._store.url}: several jobs want this target at once; start one of them again")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        self._thread.join()
        with contextlib.suppress(OhmqError):  # Else it expires; an error of the job itself matters more.
            if self._holder() == self._me:
                self._store.delete(LOCK_PATH)

    def _data(self) -> bytes:
        return json.dumps(self._me._asdict()).encode()

    def _holder(self) -> LockHolder | None:
        """Read who holds the lock; None: nobody, or the lock is damaged."""
        try:
            return LockHolder(**json.loads(self._store.read(LOCK_PATH)))
        except (NotFoundError, ValueError, TypeError):
            return None

    def _break_if_left_behind(self) -> None:
        holder, age_s = self._holder(), self._store.age_s(LOCK_PATH)
        if age_s is None:  # given back meanwhile
            return
        left_behind = age_s > self._expire_s or (holder is not None and holder.is_dead())
        if not left_behind:
            raise TargetLockedError(
                f"{self._store.url}: another job works on this target ({holder or 'unknown'}; its last sign was"
                f" {max(age_s, 0):.0f} s ago); wait for it, or, if it is dead, until {self._expire_s:.0f} s have passed"
            )
        if self._holder() == holder:  # else another job has broken it and taken it
            self._store.delete(LOCK_PATH)

    def _refresh(self) -> None:
        while not self._ends.wait(self._refresh_s):
            with contextlib.suppress(OhmqError):  # The next refresh may work; if none does, the lock expires.
                holder = self._holder()
                if holder is not None and holder != self._me:
                    self.lost_to = holder
                    return
                self._store.write(LOCK_PATH, self._data())


def _machine() -> str:
    """Return what tells this boot of this machine, and its namespace of processes, from others; empty: unknown."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """Return the start time of a process in clock ticks since boot; empty: there is no such process."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else fields[18]
