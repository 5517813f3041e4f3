"""Folders of this machine's file system as stores."""

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

from ohmq.errors import OutputExistsError, OutputWriteError
from ohmq.storage.errors import AccessError, NotFoundError, StorageError
from ohmq.storage.store import ObjectInfo, checked_path
from ohmq.utils.atomic_write import write_atomically

__all__ = ["LocalStore"]


class LocalStore:
    """A folder.

    Paths are listed in the order of their bytes, which is the order of S3. Links to files are followed, links to folders
    are not. Left out are pipes, sockets and devices, half-written files of ohmq, and a folder ``lost+found`` that is
    closed. A link that leads nowhere is listed with size 0, and reading it gives the error.

    Args:
        folder: the folder; it need not exist yet.

    Attributes:
        url: the folder's absolute path.
        creates_only: True; a probe may set it to False.
        is_local: True.

    Example:
        >>> LocalStore("no such folder").info("a.png") is None
        True
    """

    is_local = True

    def __init__(self, folder: str | os.PathLike[str]):
        self.url = os.path.abspath(folder)
        self.creates_only = True

    def list(self, prefix: str = "", *, suffixes: tuple[str, ...] = ()) -> Iterator[ObjectInfo]:
        """List the files whose paths begin with a text, sorted; memory holds the names of one folder a level.

        Raises:
            AccessError: a folder may not be searched.
            StorageError: a folder cannot be read, or the root is a file.
        """
        folder, _, start = prefix.rpartition("/")
        yield from self._walk(folder + "/" if folder else "", start, suffixes)

    def _walk(self, folder: str, start: str, suffixes: tuple[str, ...]) -> Iterator[ObjectInfo]:
        for name in self._names(folder, start):
            path = folder + os.fsdecode(name)
            if path.endswith("/"):
                yield from self._walk(path, "", suffixes)
            elif not suffixes or path.lower().endswith(suffixes):
                full = os.path.join(self.url, path)
                try:
                    status = os.stat(full)
                except FileNotFoundError:
                    if os.path.islink(full):
                        yield ObjectInfo(path, 0, "broken link")
                    continue  # deleted since the folder was read
                except OSError as error:
                    raise _error(error, full) from error
                if stat.S_ISREG(status.st_mode):
                    yield _info(path, status)

    def _names(self, folder: str, start: str) -> Sequence[bytes]:
        """Return the sorted names in a folder, those of folders with a slash."""
        full = self._full(folder.rstrip("/"))
        names = []
        try:
            with os.scandir(os.fsencode(full)) as entries:
                for entry in entries:
                    if entry.name.startswith(os.fsencode(start)) and not _is_part(entry.name):
                        names.append(entry.name + b"/" if entry.is_dir(follow_symlinks=False) else entry.name)
        except FileNotFoundError:
            return []
        except OSError as error:
            if isinstance(error, PermissionError) and os.path.basename(full) == "lost+found":
                return []  # of the file system, in the root of each disk, and closed to all users
            raise _error(error, full, "cannot be searched") from error
        return sorted(names)

    def info(self, path: str) -> ObjectInfo | None:
        """Return one file; None: there is none."""
        full = self._full(path)
        try:
            status = os.stat(full)
            return _info(path, status) if stat.S_ISREG(status.st_mode) else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _error(error, full) from error

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Read a file or a part of it; beyond its end there are no bytes."""
        with self.fetch(path) as file:
            try:
                file.seek(start)
                return file.read() if length is None else file.read(length)
            except OSError as error:
                raise _error(error, self._full(path)) from error

    def fetch(self, path: str) -> AbstractContextManager[BinaryIO]:
        """Open a file for reading."""
        full = self._full(path)
        try:
            return open(full, "rb")
        except OSError as error:
            raise _error(error, full) from error

    def write(self, path: str, data: bytes | Path) -> None:
        """Write a file beside its target, then rename it. Missing folders are made.

        Args:
            path: path below the root.
            data: content, or a file to copy.

        Raises:
            OutputWriteError: full disk, no permission and the like; nothing is left of the file.
        """
        target = Path(self._full(path))
        if isinstance(data, Path):
            self._copy(data, target)
        else:
            write_atomically(target, data, force=True)

    def _copy(self, source: Path, target: Path) -> None:
        temporary = target.parent / f".ohmq-{secrets.token_hex(8)}.part"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(source, temporary)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise OutputWriteError(f"{target} cannot be written: {error.strerror or error}") from error

    def create(self, path: str, data: bytes) -> bool:
        """Write a file unless it exists.

        Returns:
            False: it exists.

        Raises:
            OutputWriteError: as of `write`.
        """
        try:
            write_atomically(Path(self._full(path)), data)
        except OutputExistsError:
            return False
        return True

    def delete(self, path: str) -> None:
        """Delete a file; a missing one is no error."""
        full = self._full(path)
        try:
            os.unlink(full)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise _error(error, full, "cannot be deleted") from error

    def age_s(self, path: str) -> float | None:
        """Return the seconds since a file was written, by the file system's clock; None: there is no such file.

        Raises:
            OutputWriteError: the folder cannot be written, which reading its clock needs.
        """
        full = self._full(path)
        beside = f"{full}.{secrets.token_hex(4)}.clock"
        try:
            written = os.stat(full).st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _error(error, full) from error
        try:
            with open(beside, "xb"):
                return os.stat(beside).st_mtime - written
        except OSError as error:
            raise OutputWriteError(f"{beside} cannot be written: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):
                os.unlink(beside)

    def impatient(self) -> "LocalStore":
        """Return this store: it waits for nothing."""
        return self

    def _full(self, path: str) -> str:
        return os.path.join(self.url, checked_path(path, self.url)) if path else self.url


def _is_part(name: bytes) -> bool:
    """Tell a half-written file of `write_atomically`."""
    return name.startswith(b".ohmq-") and name.endswith(b".part")


def _info(path: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(path, status.st_size, f"{status.st_mtime_ns:x}-{status.st_size:x}")


def _error(error: OSError, full: str, what: str = "cannot be read") -> StorageError:
    if isinstance(error, FileNotFoundError | NotADirectoryError) and what != "cannot be searched":
        return NotFoundError(f"{full} does not exist")
    kind = AccessError if error.errno in (errno.EACCES, errno.EPERM) else StorageError
    return kind(f"{full} {what}: {error.strerror or error}")
