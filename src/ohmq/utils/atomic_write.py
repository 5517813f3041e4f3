"""Atomic writes: a failure leaves no half-written file."""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from ohmq.errors import OutputExistsError, OutputWriteError
from ohmq.utils.streams import check_stream, is_stream, write_stream

__all__ = ["check_output", "copy_time", "new_folder", "write_atomically"]

_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""Errors of file systems without hard links."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a full disk, a used-up quota, or a file above the limit on its size."""


def check_output(path: Path, *, force: bool) -> None:
    """Refuse early to overwrite a file. A pipe or a device can always be written.

    Args:
        path: the target.
        force: allow to replace an existing file.

    Raises:
        OutputExistsError: path exists and force is not set, or it is a folder.
        ConfigError: path is a terminal.
    """
    if is_stream(path):
        check_stream(path)
        return
    if os.path.isdir(path):
        raise OutputExistsError(f"{path} is a folder; name a file")
    if os.path.exists(path) and not force:
        raise OutputExistsError(f"{path} exists; add --force to overwrite it")


def write_atomically(path: Path, data: bytes, *, force: bool = False) -> None:
    """Write a file beside its target, then rename it: the target is complete or absent. Missing folders are made.

    Several processes may write the same target; it is then the complete file of one of them. A pipe or a device, such as
    `ohmq.utils.streams.STDOUT`, is not replaced: it is written to.

    Args:
        path: the target.
        data: its content.
        force: replace an existing file. Default: False.

    Raises:
        OutputExistsError: path exists and force is not set.
        OutputWriteError: disk full, no permission, and the like; nothing is left of the file, nor of folders made for it.
        BrokenPipeError: the reader of a pipe has closed it.
    """
    path = Path(path)
    check_output(path, force=force)
    try:
        if is_stream(path):
            write_stream(path, data)
            return
        with new_folder(path.parent):
            temporary = path.parent / f".ohmq-{secrets.token_hex(8)}.part"
            try:  # starts before the file exists, so that an interrupt at any point leaves none
                with temporary.open("xb") as file:
                    file.write(data)
                _put_in_place(temporary, path, force)
            finally:
                temporary.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        advice = "make room or choose another output" if error.errno in _FULL else "choose another output"
        if isinstance(error, FileExistsError | NotADirectoryError):
            advice = f"{path.parent} is not a folder"
        raise OutputWriteError(f"{path} cannot be written: {error.strerror or error}; {advice}") from error


def copy_time(source: Path, target: Path) -> tuple[str, ...]:
    """Give a file the modification time of another one.

    Args:
        source: the file to take the time of. A pipe or a terminal has none to keep.
        target: the file to change; likewise.

    Returns:
        A phrase if that fails: the file is whole all the same.
    """
    try:
        if not (is_stream(source) or is_stream(target)):
            modified = source.stat().st_mtime_ns
            os.utime(target, ns=(modified, modified))
    except OSError as error:
        return (f"file time not kept ({error.strerror or error})",)
    return ()


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Make a folder for the work inside; if that fails, remove it again, unless something was put there.

    Args:
        folder: the folder; missing parents are made too. It may exist, and then it stays.

    Raises:
        OSError: it cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for path in missing:
            with contextlib.suppress(OSError):  # It is not empty, perhaps by another process.
                path.rmdir()
        raise


def _put_in_place(temporary: Path, path: Path, force: bool) -> None:
    if force:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)  # unlike a rename, it fails if another process made the file meanwhile
    except FileExistsError as error:
        raise OutputExistsError(f"{path} exists; add --force to overwrite it") from error
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        check_output(path, force=False)
        temporary.replace(path)
