"""Standard streams, pipes and devices in place of files: read once, and written as they are. Standard library alone."""

import os
import re
import stat
import sys
from pathlib import Path

from ohmq.errors import ConfigError

__all__ = ["STDIN", "STDOUT", "check_stream", "is_stream", "read_stream", "write_stream"]

STDIN, STDOUT = Path("/dev/stdin"), Path("/dev/stdout")
"""Standard input and output; on the command line also `-`."""
MAX_STREAM_BYTES = 2**31
"""Limit on the bytes that are read from a stream, which may have no end."""

_STANDARD = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_NAMES = {0: "standard input", 1: "standard output"}


def is_stream(path: Path) -> bool:
    """Tell whether a path is a standard stream, a pipe or a device, and neither a file nor a folder.

    Args:
        path: the path, also one that does not exist.

    Returns:
        True also for a standard stream that is redirected to a file.

    Example:
        >>> is_stream(STDIN), is_stream(Path("no such file.png"))
        (True, False)
    """
    if _descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def check_stream(path: Path) -> None:
    """Refuse a terminal, which neither gives nor takes the bytes of a file.

    Args:
        path: a stream.

    Raises:
        ConfigError: the stream is a terminal.
    """
    descriptor = _descriptor(path)
    if descriptor is not None and os.isatty(descriptor):
        name = _NAMES.get(descriptor, str(path))
        raise ConfigError(f"{name} is a terminal, and the data are binary; redirect it, or name a file")


def read_stream(path: Path) -> bytes:
    """Read a stream to its end, once.

    Args:
        path: a stream, such as `STDIN` or a pipe.

    Returns:
        All its bytes.

    Raises:
        ConfigError: the stream is a terminal, cannot be read, or gives more than `MAX_STREAM_BYTES`.
    """
    check_stream(path)
    descriptor = _descriptor(path)
    try:
        with open(path if descriptor is None else os.dup(descriptor), "rb") as file:
            data = file.read(MAX_STREAM_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    if len(data) > MAX_STREAM_BYTES:
        raise ConfigError(f"{path}: more than {MAX_STREAM_BYTES:,} bytes from a stream; name a file")
    return data


def write_stream(path: Path, data: bytes) -> None:
    """Write bytes to a stream.

    Args:
        path: a stream, such as `STDOUT` or a pipe.
        data: the bytes.

    Raises:
        OSError: the stream cannot be written; `BrokenPipeError`: its reader has closed it.
    """
    descriptor = _descriptor(path)
    if descriptor == 1 and sys.stdout is not None:
        sys.stdout.flush()
    with open(path if descriptor is None else os.dup(descriptor), "wb") as file:
        file.write(data)


def _descriptor(path: Path) -> int | None:
    """Return the number of a standard stream or of an open file of this process."""
    name = path.as_posix()
    numbered = re.fullmatch(r"/(?:dev|proc/self)/fd/(\d{1,9})", name)
    return int(numbered[1]) if numbered else _STANDARD.get(name)
