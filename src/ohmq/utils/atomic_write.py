"""Atomic writes: a failure leaves no half-written file."""

import errno
import os
import secrets
from pathlib import Path

from ohmq.errors import OutputExistsError, OutputWriteError

__all__ = ["check_output", "copy_time", "write_atomically"]

_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""Errors of file systems without hard links."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a full disk, a used-up quota, or a file above the limit on its size."""


def check_output(path: Path, *, force: bool) -> None:
    """Refuse early to overwrite a file.

    Args:
        path: the target.
        force: allow to replace an existing file.

    Raises:
        OutputExistsError: path exists and force is not set, or it is a folder.
    """
    if path.is_dir():
        raise OutputExistsError(f"{path} is a folder; name a file")
    if path.exists() and not force:
        raise OutputExistsError(f"{path} exists; add --force to overwrite it")


def write_atomically(path: Path, data: bytes, *, force: bool = False) -> None:
    """Write a file beside its target, then rename it: the target is complete or absent. Missing folders are made.

    Several processes may write the same target; it is then the complete file of one of them.

    Args:
        path: the target.
        data: its content.
        force: replace an existing file. Default: False.

    Raises:
        OutputExistsError: path exists and force is not set.
        OutputWriteError: disk full, no permission, and the like; nothing is left of the file.
    """
    path = Path(path)
    check_output(path, force=force)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".ohmq-{secrets.token_hex(8)}.part"
        try:  # starts before the file exists, so that an interrupt at any point leaves none
            with temporary.open("xb") as file:
                file.write(data)
            _put_in_place(temporary, path, force)
        finally:
            temporary.unlink(missing_ok=True)
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
        if source.is_file() and target.is_file():
            modified = source.stat().st_mtime_ns
            os.utime(target, ns=(modified, modified))
    except OSError as error:
        return (f"file time not kept ({error.strerror or error})",)
    return ()


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
