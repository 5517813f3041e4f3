"""Limits on single images in a worker: time, and deaths of the worker.

A thread ends the process when an image takes too long. From the second attempt at a shard on, a note (a crumb) in the
control folder says which image is being done, so that the next attempt knows at which image the worker died.
"""

import contextlib
import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from ohmq.bulk.job import CONTROL, shard_label
from ohmq.storage.errors import NotFoundError, StorageError
from ohmq.storage.store import Store

__all__ = ["MAX_DEATHS", "TIMEOUT_EXIT", "Crumb", "ImageWatch", "crumb_path", "read_crumb"]

MAX_DEATHS = 3
"""Deaths of the worker at an image after which the image is given up."""
TIMEOUT_EXIT = 75
"""Exit code of a worker that gave up an image for its time."""
_GRACE_S = 30.0
"""Seconds after the limit at which the process ends even if no thread can run."""


class Crumb(NamedTuple):
    """Note about the images of a shard at which the worker died.

    Attributes:
        current: image that is being done; None: none.
        deaths: number of deaths at each image.
        timeouts: images that took longer than their limit.
    """

    current: int | None = None
    deaths: dict[int, int] = {}
    timeouts: tuple[int, ...] = ()

    @property
    def given_up(self) -> int:
        """Number of images that are not tried again."""
        return len(self.timeouts) + sum(count >= MAX_DEATHS for count in self.deaths.values())

    def to_json(self) -> bytes:
        """Return the crumb as JSON."""
        return json.dumps(self._asdict()).encode()


def crumb_path(shard: int) -> str:
    """Return the path of a shard's crumb below the target's root."""
    return f"{CONTROL}/crumbs/{shard_label(shard)}.json"


def read_crumb(store: Store, shard: int) -> Crumb:
    """Read the crumb of a shard: the image at which the last worker died is counted. A damaged crumb counts as none.

    Args:
        store: store of the target's root.
        shard: number of the shard.
    """
    try:
        fields = json.loads(store.read(crumb_path(shard)))
        deaths = {int(index): int(count) for index, count in fields["deaths"].items()}
        current = fields["current"]
        if current is not None:
            deaths[current] = deaths.get(current, 0) + 1
        return Crumb(None, deaths, tuple(fields["timeouts"]))
    except NotFoundError:
        return Crumb()
    except (ValueError, KeyError, TypeError, AttributeError):
        return Crumb()


class ImageWatch:
    """Watches the images of one attempt at a shard.

    Args:
        store: store of the target's root.
        shard: number of the shard.
        attempt: attempt, from 1.
        timeout_s: limit on the seconds of an image.
    """

    def __init__(self, store: Store, shard: int, attempt: int, timeout_s: float) -> None:
        self._store, self._shard, self._timeout_s = store, shard, timeout_s
        self._leaves_crumbs = attempt > 1
        self._crumb = read_crumb(store, shard) if attempt > 1 else Crumb()
        self._index, self._deadline = -1, float("inf")
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def problem(self, index: int) -> str | None:
        """Say why an image is not tried again; None: it is tried.

        Args:
            index: place of the image in the shard.
        """
        if index in self._crumb.timeouts:
            return f"took longer than the limit of {self._timeout_s:g} s"
        if self._crumb.deaths.get(index, 0) >= MAX_DEATHS:
            return f"the worker died {MAX_DEATHS} times at this image"
        return None

    @contextlib.contextmanager
    def image(self, index: int) -> Iterator[None]:
        """Watch the work on an image inside.

        Args:
            index: place of the image in the shard.
        """
        if self._leaves_crumbs:
            self._store.write(crumb_path(self._shard), self._crumb._replace(current=index).to_json())
        faulthandler.dump_traceback_later(self._timeout_s + _GRACE_S, exit=True, file=sys.__stderr__ or 2)
        self._set(index, time.monotonic() + self._timeout_s)
        try:
            yield
        finally:
            self._set(-1, float("inf"))
            faulthandler.cancel_dump_traceback_later()

    def close(self, *, done: bool) -> None:
        """End the watch.

        Args:
            done: whether the shard is finished, so that its crumb can go.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        if done and self._leaves_crumbs:
            with contextlib.suppress(StorageError):
                self._store.delete(crumb_path(self._shard))

    def _set(self, index: int, deadline: float) -> None:
        with self._changed:
            self._index, self._deadline = index, deadline
            self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                left = self._deadline - time.monotonic()
                if left <= 0:
                    self._give_up()
                self._changed.wait(None if left == float("inf") else left)

    def _give_up(self) -> None:
        crumb = self._crumb._replace(current=None, timeouts=(*self._crumb.timeouts, self._index))
        with contextlib.suppress(Exception):  # whatever fails, the process must end
            self._store.write(crumb_path(self._shard), crumb.to_json())
        os._exit(TIMEOUT_EXIT)
