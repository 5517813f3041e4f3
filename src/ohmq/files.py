"""Writing files so that a failure leaves nothing half-written."""

import errno
import os
import tempfile
from pathlib import Path

from ohmq.errors import OutputExistsError

__all__ = ["check_output", "write_atomically"]

_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What file systems without hard links answer."""


def check_output(path: Path, *, force: bool) -> None:
    """Refuse early to overwrite.

    Raises:
        OutputExistsError: path exists and force is not set, or it is a folder.
    """
    if path.is_dir():
        raise OutputExistsError(f"{path} is a folder; name a file")
    if path.exists() and not force:
        raise OutputExistsError(f"{path} exists; add --force to overwrite it")


def write_atomically(path: Path, data: bytes, *, force: bool = False) -> None:
    """Write beside the target, then rename: the target is whole or not there. Missing folders are made.

    Args:
        path: the target. data: its content. force: replace an existing file.

    Raises:
        OutputExistsError: path exists and force is not set. OSError: disk full, no permission, and the like.
    """
    path = Path(path)
    check_output(path, force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        if force:
            temporary.replace(path)
        else:
            try:
                os.link(temporary, path)  # unlike a rename, it fails if another process made the file meanwhile
            except FileExistsError as error:
                raise OutputExistsError(f"{path} exists; add --force to overwrite it") from error
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                check_output(path, force=False)
                temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
