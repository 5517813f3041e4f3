"""Reading a file from a source that delivers it piece by piece. Standard library alone."""

from collections.abc import Callable, Iterable
from typing import Protocol

from ohmq.bitstream.format import HeaderInfo
from ohmq.bitstream.reader import read_header
from ohmq.errors import TruncatedFileError

__all__ = ["ByteSource", "StreamBuffer"]

PIECE_BYTES = 2**20
"""Bytes that are requested from a source at once, at most."""


class ByteSource(Protocol):
    """Object with a method ``read``, such as an open file or a network response."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes; none at the end only."""


class StreamBuffer:
    """Buffer over a source that may still grow.

    Args:
        stream: the file: bytes, an object with ``read``, or an iterable of pieces.

    Attributes:
        rest: bytes that were read from the source and not taken yet.
    """

    def __init__(self, stream: bytes | ByteSource | Iterable[bytes]) -> None:
        self.rest = bytearray()
        self._read: Callable[[int], bytes]
        if isinstance(stream, bytes | bytearray | memoryview):
            self.rest += stream
            self._read = lambda size: b""
        elif hasattr(stream, "read"):
            self._read = stream.read
        else:
            pieces = (piece for piece in stream if piece)
            self._read = lambda size: next(pieces, b"")

    def _grow(self, size: int) -> bool:
        """Read at most ``size`` bytes; False at the end of the source."""
        piece = self._read(size)
        self.rest += piece
        return bool(piece)

    def header(self) -> HeaderInfo:
        """Read the header and take it off the buffer.

        A few bytes are requested at a time, so that reading a short file does not wait for bytes that never come.

        Returns:
            The header.

        Raises:
            BitstreamError: as `ohmq.bitstream.reader.read_header`.
        """
        if not self.rest:
            self._grow(16)
        while True:
            try:
                header = read_header(bytes(self.rest))
            except TruncatedFileError:
                if not self._grow(1):
                    raise
            else:
                del self.rest[: header.header_bytes]
                return header

    def take(self, count: int) -> bytes:
        """Take the next ``count`` bytes; fewer at the end."""
        # Piece by piece: a file may announce far more than it has, and `read` may allocate all that is requested.
        while len(self.rest) < count and self._grow(min(count - len(self.rest), PIECE_BYTES)):
            pass
        taken = bytes(self.rest[:count])
        del self.rest[:count]
        return taken
