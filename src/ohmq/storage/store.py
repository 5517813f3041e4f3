"""The interface of a folder or a prefix of an object store."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

__all__ = ["ObjectInfo", "Store"]


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

    Attributes:
        url: the root as it was given, without credentials.
        creates_only: whether `create` is atomic on this store.
        is_local: whether the root is a folder of this machine's file system.

    Raises:
        NotFoundError, AccessError, TransientStorageError, OutputWriteError: as `ohmq.storage.errors` says; messages
            name the object and never hold credentials.
    """

    url: str
    creates_only: bool
    is_local: bool

    def list(self, prefix: str = "", *, suffixes: tuple[str, ...] = ()) -> Iterator[ObjectInfo]:
        """List the objects below a prefix page by page, sorted by path. Suffixes are compared in lower case."""

    def info(self, path: str) -> ObjectInfo | None:
        """Return one object; None: there is none."""

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object, or ``length`` bytes of it from ``start`` on."""

    def fetch(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open an object for reading at random: the file itself, or a local copy that goes when it is closed."""

    def write(self, path: str, data: bytes | Path) -> None:
        """Write an object whole, replacing it: one put, or a rename."""

    def create(self, path: str, data: bytes) -> bool:
        """Write an object unless it exists; False: it exists. Atomic if `creates_only`."""

    def delete(self, path: str) -> None:
        """Delete an object; a missing one is no error."""
