"""Local copies of shards, within a limit of bytes, shared by the processes of a machine."""

import contextlib
import errno
import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ohmq.errors import OutputWriteError
from ohmq.storage.errors import ShardError, StorageError
from ohmq.storage.open_store import open_store
from ohmq.storage.parquet_shards import ParquetShard

if TYPE_CHECKING:
    from ohmq.datasets.shard_index import Shard

__all__ = ["ShardCache", "default_cache_folder"]

log = logging.getLogger(__name__)

_PART_BYTES = 32 * 2**20
"""Bytes of a shard that are read with one request."""
_SUFFIX = ".shard"


def default_cache_folder() -> Path:
    """Return the folder of copies in the user's cache."""
    import pooch

    return Path(pooch.os_cache("ohmq")) / "shards"


class ShardCache:
    """A folder of copies of shards. Those that were used least recently go when the limit is reached.

    Tar files of this machine are read where they lie. Of a Parquet file the copy holds the images alone, one after the
    other, so that each can be read by itself. Several processes may use one folder; each shard is then read once.

    Args:
        folder: the folder; it is made when it is needed.
        max_bytes: limit on the bytes of all copies.
        image_column: column of images in Parquet files; None: the only one that may hold images.
    """

    def __init__(self, folder: Path, max_bytes: int, image_column: str | None = None) -> None:
        self.folder, self.max_bytes, self.image_column = folder, max_bytes, image_column

    def copies(self, shard: "Shard") -> bool:
        """Tell whether a shard needs a copy."""
        return shard.kind == "parquet" or (shard.kind == "tar" and not open_store(shard.root).is_local)

    def open(self, shard: "Shard") -> BinaryIO:
        """Open a tar, or the images of a Parquet file; copy them first if they are not there.

        Raises:
            OutputWriteError: no room for a copy.
            StorageError: a shard that cannot be read, or that has changed since it was listed.
        """
        if not self.copies(shard):
            return self._open_here(shard)
        path = self._path(shard)
        while True:  # another process may delete the copy between two steps
            self._copy(shard, path, wait=True)
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)  # used now
                return open(path, "rb")

    @staticmethod
    def _open_here(shard: "Shard") -> BinaryIO:
        """Open a tar of this machine."""
        file: BinaryIO = open_store(shard.root).fetch(shard.path).__enter__()
        if (size := os.fstat(file.fileno()).st_size) != shard.size:
            file.close()
            raise _changed(shard, size)
        return file

    def prefetch(self, shards: Iterable["Shard"]) -> None:
        """Copy shards that are not there, except those that another process copies just now; failures wait for `open`."""
        for shard in shards:
            path = self._path(shard)
            try:
                if self.copies(shard):
                    self._copy(shard, path, wait=False)
            except (StorageError, OutputWriteError) as error:
                log.debug("%s", error)

    def _path(self, shard: "Shard") -> Path:
        text = "\n".join([shard.root, shard.path, shard.version, str(shard.size), str(self.image_column)])
        return self.folder / (hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32] + _SUFFIX)

    def _copy(self, shard: "Shard", path: Path, *, wait: bool) -> None:
        from filelock import FileLock, Timeout

        if path.exists():
            return
        part = path.with_suffix(".part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock"), timeout=-1 if wait else 0):
                if path.exists():  # another process was faster
                    return
                try:
                    with open(part, "wb") as file:
                        for data in self._parts(shard):
                            file.write(data)
                    self._make_room(part.stat().st_size)
                    part.replace(path)
                finally:
                    part.unlink(missing_ok=True)
        except Timeout:
            return
        except OSError as error:
            advice = "; name another folder by --data-cache, or a smaller --data-cache-bytes" * (
                error.errno == errno.ENOSPC
            )
            raise OutputWriteError(
                f"{self.folder}: no copy of {shard.url} can be kept ({error.strerror}){advice}"
            ) from error

    def _parts(self, shard: "Shard") -> Iterator[bytes]:
        """Read what a copy holds."""
        store = open_store(shard.root)
        if shard.kind == "parquet":
            with store.fetch(shard.path) as file:
                for rows in ParquetShard(file, shard.url, self.image_column).read():
                    yield from (image for image in rows.images if image)
            return
        size = 0
        while size < shard.size:
            data = store.read(shard.path, size, min(_PART_BYTES, shard.size - size))
            if not data:
                raise _changed(shard, size)
            size += len(data)
            yield data

    def _make_room(self, size: int) -> None:
        """Delete the copies that were used least recently, until one more fits."""
        copies = []
        for path in self.folder.glob("*" + _SUFFIX):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                copies.append((status.st_mtime_ns, status.st_size, path))
        total = size + sum(copy[1] for copy in copies)
        for _, copy_size, path in sorted(copies):
            if total <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= copy_size


def _changed(shard: "Shard", size: int) -> ShardError:
    return ShardError(f"{shard.url} has changed: {size} bytes instead of {shard.size}; start again, to index it anew")
