"""The interface of a folder or a prefix of an object store."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from ohmq.storage.errors import StorageError

__all__ = ["CONTROL", "ObjectInfo", "Store", "checked_path"]

CONTROL = "_ohmq"
"""Folder below a target's root with the plan, the manifest, markers and the lock of a job."""


class ObjectInfo(NamedTuple):
    """One object of a store.

    Attributes:
        path: path below the store's root, with slashes; bytes that are not UTF-8 are surrogate escapes.
        size: size in bytes.
        version: text that changes when the content does: an ETag, or modification time and size.
    """

    path: str
    size: int
    version: str


class Store(Protocol):
    """A folder or a prefix of an object store. Stores are picklable: each process opens its own connection.

    Every method may raise `NotFoundError` (no such object or bucket), `AccessError`, `TransientStorageError` (given up
    after the back-off), `OutputWriteError` (full disk and the like) or another `StorageError`. Messages name the object
    and never hold credentials.

    Attributes:
        url: the root: an absolute path, or a URL without credentials. `open_store` opens it again.
        creates_only: whether `create` is atomic on this store; False after a probe that found otherwise.
        is_local: whether the root is a folder of this machine's file system.
    """

    url: str
    creates_only: bool
    is_local: bool

    def list(self, prefix: str = "", *, suffixes: tuple[str, ...] = ()) -> Iterator[ObjectInfo]:
        """List the objects whose paths begin with a prefix, page by page; none if there is no such folder.

        Args:
            prefix: text that paths begin with; a folder ends with a slash.
            suffixes: ends of the paths to list, in lower case; paths are compared in lower case. Default: all.

        Yields:
            Objects in an order that stays the same while nothing changes. Local folders: sorted by the bytes of paths, as on
            AWS; other servers have an order of their own.
        """

    def info(self, path: str) -> ObjectInfo | None:
        """Return one object; None: there is none."""

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object, or at most ``length`` bytes of it from ``start`` on; beyond its end there are none."""

    def fetch(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open an object for reading at random: the file itself, or a local copy that goes when it is closed."""

    def write(self, path: str, data: bytes | Path) -> None:
        """Write an object whole, replacing it: one put, or a rename."""

    def create(self, path: str, data: bytes) -> bool:
        """Write an object unless it exists; False: it exists. Atomic if `creates_only`.

        An object that holds just these data may count as created, since the reply to an earlier request may be lost.
        """

    def delete(self, path: str) -> None:
        """Delete an object; a missing one is no error."""

    def age_s(self, path: str) -> float | None:
        """Return the seconds since an object was written, by the store's own clock; None: there is no such object."""

    def impatient(self) -> "Store":
        """Return this store with a back-off of seconds instead of minutes, for checks before a job."""


def checked_path(path: str, root: str) -> str:
    """Refuse a path that leaves its root.

    Args:
        path: path below the root.
        root: the root, for the message.

    Raises:
        StorageError: the path is absolute, or has a part ``..`` or a NUL.

    Example:
        >>> checked_path("../other/a.png", "/photos")
        Traceback (most recent call last):
        ...
        ohmq.storage.errors.StorageError: '../other/a.png' is no path below /photos
    """
    if path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise StorageError(f"{path!r} is no path below {root}")
    return path
