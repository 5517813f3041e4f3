"""Tar shards by the convention of WebDataset: members whose names agree up to the first dot are one sample."""

import io
import re
import tarfile
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO, NamedTuple

from ohmq.storage.errors import ShardError

__all__ = ["Sample", "TarMember", "TarWriter", "index_tar", "read_samples", "split_name"]

_BLOCK = 512
"""Bytes of a tar block."""
_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
"""Key and field of a member's name, as WebDataset splits them."""
_COMPRESSED = {
    b"\x1f\x8b": "gzip -d",
    b"BZh": "bzip2 -d",
    b"\xfd7zXZ\x00": "xz -d",
    b"\x28\xb5\x2f\xfd": "zstd -d",
}
"""First bytes of compressed files, and the command that decompresses them."""


class TarMember(NamedTuple):
    """A member of a tar shard.

    Attributes:
        name: name in the shard; bytes that are not UTF-8 are surrogate escapes.
        offset: of its content from the start of the shard, in bytes.
        size: of its content, in bytes.
        problem: reason why it cannot be part of a sample, such as a name without an extension; "": none.
    """

    name: str
    offset: int
    size: int
    problem: str = ""


class Sample(NamedTuple):
    """A sample of a tar shard.

    A member with a problem is a sample of its own, whose key is the member's name.

    Attributes:
        key: name of its members up to the first dot of the base name.
        members: members, in order.
        contents: content of each member.
    """

    key: str
    members: tuple[TarMember, ...]
    contents: tuple[bytes, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """Field of each member, in lower case; "" for a member with a problem."""
        return tuple("" if member.problem else split_name(member.name)[1].lower() for member in self.members)


def split_name(name: str) -> tuple[str, str]:
    """Split the name of a member into key and field at the first dot of the base name.

    Args:
        name: name of a member.

    Returns:
        Key and field. The field is "" for a name without an extension, whose key is the whole name.

    Example:
        >>> split_name("birds/0001.left.jpg"), split_name("v1.2/README")
        (('birds/0001', 'left.jpg'), ('v1.2/README', ''))
    """
    match = _NAME.fullmatch(name)
    return (match[1], match[2]) if match and match[2] else (name, "")


def index_tar(file: BinaryIO, shard: str) -> Iterator[TarMember]:
    """List the members of a tar shard in one pass over the headers, without reading contents.

    Folders, hidden files and WebDataset's own ``__NAME__`` are left out. A link, a sparse or special file, and a name
    without an extension are listed with their problem.

    Args:
        file: the shard, at its start; it can seek.
        shard: name of the shard, for messages.

    Raises:
        ShardError: not a tar file, a compressed one, a damaged header, or a shard that ends too early.
    """
    _refuse_compressed(file, shard)
    whole = 0
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else the archive remembers every member
                if not (info.isdir() or _is_hidden(info.name)):
                    yield TarMember(info.name, info.offset_data, info.size, _problem(info))
                whole += 1
            end = tar.offset
    except tarfile.TarError as error:
        raise _damaged(shard, whole, str(error)) from error
    _check_end(file, end, shard, whole)


def read_samples(file: BinaryIO, shard: str) -> Iterator[Sample]:
    """Read the samples of a tar shard in order, one in memory at a time.

    Args:
        file: the shard, at its start; it can seek.
        shard: name of the shard, for messages.

    Raises:
        ShardError: as `index_tar` says, members of one sample that do not lie together, or two members of a sample with
            the same field.
    """
    finished: set[str] = set()
    key, members, contents = "", [], []  # type: ignore[var-annotated]
    for number, member in enumerate(index_tar(file, shard)):
        member_key = member.name if member.problem else split_name(member.name)[0]
        if members and (member.problem or member_key != key):
            yield Sample(key, tuple(members), tuple(contents))
            finished.add(key)
            members, contents = [], []
        if member_key in finished:
            raise ShardError(
                f"{shard}: {member.name!r} does not lie beside the other members of its sample {member_key!r}; sort the "
                "members by name (tar --sort=name)"
            )
        content = _content(file, member, shard, number)
        if member.problem:
            yield Sample(member_key, (member,), (content,))
            finished.add(member_key)
            continue
        field = split_name(member.name)[1].lower()
        if any(split_name(other.name)[1].lower() == field for other in members):
            raise ShardError(f"{shard}: sample {member_key!r} has two members of the field {field!r}")
        key = member_key
        members.append(member)
        contents.append(content)
    if members:
        yield Sample(key, tuple(members), tuple(contents))


class TarWriter:
    """Writer of a tar shard whose bytes depend on names and contents alone.

    Headers are pax, with time 0, owner 0 and mode 0644. The end of the archive is written by `close`, or by leaving the
    ``with`` block without an error: a shard that was given up is no complete archive.

    Args:
        file: where the shard is written, such as a buffer or a temporary file; it stays open.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._tar = tarfile.TarFile(
            fileobj=file, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
        )

    def add(self, name: str, content: bytes) -> TarMember:
        """Add a member.

        Args:
            name: its name; bytes that are not UTF-8 are surrogate escapes.
            content: its content.

        Returns:
            The member, with its place in the shard.
        """
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), 0o644
        self._tar.addfile(info, io.BytesIO(content))
        self._tar.members = []  # type: ignore[attr-defined]  # else the archive remembers every member
        blocks = -(-len(content) // _BLOCK)
        return TarMember(name, self._tar.offset - blocks * _BLOCK, len(content))  # type: ignore[attr-defined]

    def close(self) -> None:
        """Write the end of the archive."""
        self._tar.close()

    def __enter__(self) -> "TarWriter":
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the end of the archive, unless an error passes."""
        if kind is None:
            self.close()


def _is_hidden(name: str) -> bool:
    """Whether WebDataset passes a file over: hidden files (such as macOS's ``._a.jpg``), and its own ``__NAME__``."""
    return name.rpartition("/")[2].startswith(".") or ("/" not in name and name[:2] == name[-2:] == "__")


def _problem(info: tarfile.TarInfo) -> str:
    """Say why a member cannot be part of a sample."""
    if info.issym() or info.islnk():
        return f"a link to {info.linkname!r} instead of a file"
    if not info.isreg() or info.issparse():
        return "a sparse or special file"
    return "" if split_name(info.name)[1] else "a name without an extension"


def _content(file: BinaryIO, member: TarMember, shard: str, whole: int) -> bytes:
    if not member.size:
        return b""
    file.seek(member.offset)
    content = file.read(member.size)
    if len(content) < member.size:
        raise _damaged(shard, whole, "unexpected end of data")
    return content


def _refuse_compressed(file: BinaryIO, shard: str) -> None:
    first = file.read(_BLOCK)
    file.seek(-len(first), 1)
    for magic, command in _COMPRESSED.items():
        if first.startswith(magic):
            raise ShardError(f"{shard}: a compressed tar cannot be read at random; decompress it first ({command})")


def _check_end(file: BinaryIO, end: int, shard: str, whole: int) -> None:
    """Check the end of an archive. `tarfile` takes a damaged header in the middle, or a cut before one, for the end.

    Args:
        file: the shard.
        end: offset of the block that ended the reading.
        shard: its name.
        whole: members before the end.
    """
    file.seek(end)
    block = file.read(_BLOCK)
    if len(block) < _BLOCK:
        raise _damaged(shard, whole, "unexpected end of data")
    if block.strip(b"\0"):
        raise _damaged(shard, whole, "damaged header")
    while block := file.read(1 << 20):
        if block.strip(b"\0"):
            raise ShardError(f"{shard}: data after the end of the archive; are these several archives in one file?")


def _damaged(shard: str, whole: int, reason: str) -> ShardError:
    where = f"after {whole} whole members" if whole else "at its beginning"
    return ShardError(f"{shard}: a damaged or incomplete tar ({reason} {where})")
