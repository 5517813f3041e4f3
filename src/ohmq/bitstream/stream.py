"""src/ohmq/bitstream/stream.py."""

from collections.abc import Callable, Iterable
from typing import Protocol

from ohmq.bitstream.format import HeaderInfo
from ohmq.bitstream.reader import read_header
from ohmq.errors import TruncatedFileError

__all__ = ["ByteSource"]


class ByteSource(Protocol):
    """An object with a method ``read``, such as an open file or a network response."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end only."""


class StreamBuffer:
    """Takes the bytes of a file off a source that may still grow."""

    def __init__(self, stream: bytes | ByteSource | Iterable[bytes]) -> None:
        self.rest = bytearray()
        self._more: Callable[[int], bytes]
        if isinstance(stream, bytes | bytearray | memoryview):
            self.rest += stream
            self._more = lambda size: b""
        elif hasattr(stream, "read"):
            self._more = stream.read
        else:
            pieces = (piece for piece in stream if piece)
            self._more = lambda size: next(pieces, b"")

    def _grow(self, size: int) -> bool:
        piece = self._more(size)
        self.rest += piece
        return bool(piece)

    def header(self) -> HeaderInfo:
        """The header, as `read_header`; few bytes are asked for at a time, so that a short file is not waited for."""
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
        """The next ``count`` bytes; fewer at the end."""
        while len(self.rest) < count and self._grow(min(count - len(self.rest), 2**20)):
            pass  # piece by piece: a file may announce far more than it has, and `read` may allocate what it is asked for
        taken = bytes(self.rest[:count])
        del self.rest[:count]
        return taken
