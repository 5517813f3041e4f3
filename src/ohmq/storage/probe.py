"""Check before a job that its sources can be read and that its target can be written."""

import contextlib
import os
import secrets
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from ohmq.errors import ConfigError, OhmqError
from ohmq.storage.errors import NotFoundError, StorageError
from ohmq.storage.store import CONTROL, ObjectInfo, Store
from ohmq.storage.urls import redacted

__all__ = ["TargetProbe", "probe_source", "probe_target"]

_RACERS = 4


class TargetProbe(NamedTuple):
    """Outcome of `probe_target`.

    Attributes:
        creates_only: whether the store refuses to replace an object, also of two writers at once.
    """

    creates_only: bool


def probe_source(store: Store, path: str | None = None) -> ObjectInfo:
    """Check that a source can be listed and its objects be read. No object is read from an object store.

    Args:
        store: the source.
        path: an object to ask for, where the source has no listing. Default: the first one listed.

    Returns:
        The object.

    Raises:
        NotFoundError: no such bucket, folder or object, or nothing in it.
        AccessError: wrong credentials or no permission.
        StorageError: any other failure.
    """
    quick = store.impatient()
    if path is None:
        first = next((info for info in quick.list() if not info.path.startswith(f"{CONTROL}/")), None)
        if first is None:
            raise NotFoundError(f"{store.url}: there is nothing")
        path = first.path
    found = quick.info(path)
    if found is None:
        raise NotFoundError(f"{redacted(f'{store.url}/{path}')} does not exist")
    if quick.is_local:
        quick.read(path, 0, 1)
    return found


def probe_target(store: Store) -> TargetProbe:
    """Check that objects can be written, read back and deleted, and whether creating is atomic.

    Some servers take "create only" for "write", some keep the frames of a checksum in the object. The store's
    `creates_only` is set to what was found. A few objects below ``_ohmq/`` are written and deleted again.

    Args:
        store: the target.

    Raises:
        ConfigError: what is read is not what was written.
        StorageError, OutputWriteError: one of the operations fails.
    """
    quick = store.impatient()
    name = f"{CONTROL}/probe-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    data = f"probe of ohmq {secrets.token_hex(16)}\n".encode()
    try:
        quick.write(name, data)
        back = quick.read(name)
        if back != data:
            raise ConfigError(
                f"{store.url}: the store gives back other bytes than were written ({len(back)} instead of {len(data)});"
                " if it does not know the checksums of current S3 clients, set"
                " AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
            )
        creates_only = quick.creates_only and not quick.create(name, b"replaced") and _race(quick, f"{name}-race") == 1
    except OhmqError:
        with contextlib.suppress(OhmqError):  # the first failure is the one to tell
            quick.delete(name)
        raise
    _delete(quick, name)
    store.creates_only = creates_only
    return TargetProbe(creates_only)


def _race(store: Store, name: str) -> int:
    """Return how many of several writers, all at once, believe that they created an object."""
    store.info(name)  # opens the connection
    try:
        with ThreadPoolExecutor(_RACERS) as threads:
            return sum(threads.map(lambda number: store.create(name, f"writer {number}".encode()), range(_RACERS)))
    finally:
        _delete(store, name)


def _delete(store: Store, name: str) -> None:
    try:
        store.delete(name)
    except StorageError as error:
        raise type(error)(f"{error}; a job must be able to delete its lock") from error
