"""Sizes of files that are decoded in threads, from their headers."""

from os import PathLike
from pathlib import Path

from ohmq.bitstream.format import HeaderInfo
from ohmq.bitstream.reader import read_header
from ohmq.errors import BitstreamError
from ohmq.utils.ordered import Workers

__all__ = ["decoded_alone", "file_header"]

HEADER_BYTES = 4096
"""Bytes of a file that hold every header."""
PIXELS_AT_ONCE = 2**25
"""Pixels that all threads together decode at once, at most; a larger image is decoded alone."""


def file_header(file: bytes | str | PathLike[str]) -> HeaderInfo | None:
    """Read the header of a file; None: it cannot be read, which decoding will report.

    Args:
        file: its content or its path.
    """
    try:
        if isinstance(file, bytes):
            return read_header(file[:HEADER_BYTES])
        with Path(file).open("rb") as opened:
            return read_header(opened.read(HEADER_BYTES))
    except (BitstreamError, OSError):
        return None


def decoded_alone(header: HeaderInfo | None, workers: Workers | None) -> bool:
    """Say whether an image is decoded by all threads together, since several of its size would take too much memory.

    Args:
        header: of its file; None: not known.
        workers: the threads; None: there is one.
    """
    return bool(header and workers and header.width * header.height > PIXELS_AT_ONCE // workers.threads)
