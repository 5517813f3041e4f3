"""Outputs of a shard: single files, a tar, or a Parquet file. A shard is built whole, in memory or in a temporary file."""

import hashlib
import io
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from ohmq.bulk.manifest import Output
from ohmq.bulk.rows import import_pyarrow, path_to_bytes
from ohmq.storage.parquet_shards import ParquetShard, ParquetShardWriter
from ohmq.storage.store import Store
from ohmq.storage.tar_shards import TarWriter, index_tar

if TYPE_CHECKING:
    from ohmq.storage.parquet_shards import ImageRows

__all__ = ["FileSink", "ParquetSink", "RowsSink", "ShardBuffer", "Sink", "TarSink", "find_member", "read_members"]

MEMORY_BYTES = 128 * 2**20
"""Size in bytes above which a shard is built in a temporary file."""


class ShardBuffer(io.RawIOBase):
    """Buffer in memory that moves to a temporary file when it grows.

    Args:
        limit: size in bytes up to which it stays in memory.
    """

    def __init__(self, limit: int = MEMORY_BYTES) -> None:
        self._limit = limit
        self._file: Any = io.BytesIO()
        self._path: Path | None = None

    def write(self, data: Any) -> int:
        """Append bytes."""
        if self._path is None and self._file.tell() + memoryview(data).nbytes > self._limit:
            handle, name = tempfile.mkstemp(prefix="ohmq-", suffix=".shard")
            self._path = Path(name)
            on_disk = os.fdopen(handle, "w+b")
            on_disk.write(self._file.getbuffer())
            self._file = on_disk
        return cast(int, self._file.write(data))

    def tell(self) -> int:
        """Return the number of bytes written."""
        return cast(int, self._file.tell())

    def writable(self) -> bool:
        """Return True."""
        return True

    def flush(self) -> None:
        """Write out what the file buffers."""
        if not self.closed:
            self._file.flush()

    def publish(self, store: Store, path: str) -> Output:
        """Write the content to a store, by one put.

        Args:
            store: store of the target's root.
            path: path of the output.
        """
        size = self._file.tell()
        if self._path is None:
            data = self._file.getvalue()
            store.write(path, data)
            return Output(path, size, hashlib.sha256(data).hexdigest())
        self._file.flush()
        self._file.seek(0)
        digest = hashlib.file_digest(self._file, "sha256").hexdigest()
        store.write(path, self._path)
        return Output(path, size, digest)

    def close(self) -> None:
        """Free the memory, or remove the temporary file."""
        if not self.closed:
            super().close()
            self._file.close()
            if self._path is not None:
                self._path.unlink(missing_ok=True)


class Sink(Protocol):
    """Takes the images of a shard, in order."""

    def add(self, key: str, field: str, data: bytes) -> str:
        """Take an image; returns the path of the output that holds it."""

    def pass_on(self, name: str, data: bytes) -> None:
        """Take another member of a sample."""

    def publish(self) -> list[Output]:
        """Write what is not written yet; returns all outputs."""

    def close(self) -> None:
        """Free memory and temporary files."""


class FileSink:
    """Writes each image as a file, at once.

    Args:
        store: store of the target's root.
        folder: folder of the files, with a slash; "": keys are whole paths.
    """

    def __init__(self, store: Store, folder: str = "") -> None:
        self._store, self._folder = store, folder
        self._outputs: list[Output] = []

    def add(self, key: str, field: str, data: bytes) -> str:
        """Write an image file; see `Sink`."""
        return self._write(f"{self._folder}{key}.{field}", data)

    def pass_on(self, name: str, data: bytes) -> None:
        """Write another member of a sample as a file; see `Sink`."""
        self._write(self._folder + name, data)

    def _write(self, path: str, data: bytes) -> str:
        self._store.write(path, data)
        self._outputs.append(Output(path, len(data), hashlib.sha256(data).hexdigest()))
        return path

    def keep(self, output: Output) -> None:
        """Note an output of an earlier attempt that stays as it is.

        Args:
            output: the output.
        """
        self._outputs.append(output)

    def publish(self) -> list[Output]:
        """Return the outputs; they are written already."""
        return self._outputs

    def close(self) -> None:
        """Do nothing."""


class TarSink:
    """Builds a tar shard.

    Args:
        store: store of the target's root.
        path: path of the shard.
    """

    def __init__(self, store: Store, path: str) -> None:
        self._store, self._path = store, path
        self._buffer = ShardBuffer()
        self._writer = TarWriter(cast(Any, self._buffer))

    def add(self, key: str, field: str, data: bytes) -> str:
        """Add a member; see `Sink`."""
        self._writer.add(f"{key}.{field}", data)
        return self._path

    def pass_on(self, name: str, data: bytes) -> None:
        """Add another member of a sample; see `Sink`."""
        self._writer.add(name, data)

    def publish(self) -> list[Output]:
        """Write the shard; see `Sink`."""
        self._writer.close()
        return [self._buffer.publish(self._store, self._path)]

    def close(self) -> None:
        """Free memory and the temporary file."""
        self._buffer.close()


class ParquetSink:
    """Builds a Parquet shard of images that did not come from one: columns "key", "field" and "image".

    Args:
        store: store of the target's root.
        path: path of the shard.
        readable: whether any reader of images opens them, such as PNG.
    """

    def __init__(self, store: Store, path: str, *, readable: bool) -> None:
        pa = import_pyarrow()
        self._store, self._path = store, path
        self._buffer = ShardBuffer()
        self._schema = pa.schema([("key", pa.string()), ("field", pa.string()), ("image", pa.large_binary())])
        self._writer = ParquetShardWriter(cast(Any, self._buffer), self._schema, "image", readable=readable)

    def add(self, key: str, field: str, data: bytes) -> str:
        """Add a row; see `Sink`."""
        pa = import_pyarrow()
        values = [[_as_text(key)], [field], [None]]
        columns = [pa.array(value, kind.type) for value, kind in zip(values, self._schema, strict=True)]
        self._writer.write(pa.RecordBatch.from_arrays(columns, schema=self._schema), [data])
        return self._path

    def pass_on(self, name: str, data: bytes) -> None:
        """Leave out other members of a sample: the table has a column for images alone."""

    def publish(self) -> list[Output]:
        """Write the shard; see `Sink`."""
        self._writer.close()
        return [self._buffer.publish(self._store, self._path)]

    def close(self) -> None:
        """Free memory and the temporary file."""
        self._buffer.close()


class RowsSink:
    """Builds a Parquet shard with the columns of its source.

    Args:
        store: store of the target's root.
        path: path of the shard.
        source: the source.
        readable: whether any reader of images opens the new images, such as PNG.
    """

    def __init__(self, store: Store, path: str, source: ParquetShard, *, readable: bool) -> None:
        self._store, self.path = store, path
        self._buffer = ShardBuffer()
        self._writer = ParquetShardWriter(cast(Any, self._buffer), source.schema, source.column, readable=readable)

    def write(self, rows: "ImageRows", images: Sequence[bytes | None]) -> None:
        """Take some rows.

        Args:
            rows: rows of the source.
            images: their new images; None: failed, or none.
        """
        self._writer.write(rows.rows, images)

    def publish(self) -> list[Output]:
        """Write the shard; see `Sink`."""
        self._writer.close()
        return [self._buffer.publish(self._store, self.path)]

    def close(self) -> None:
        """Free memory and the temporary file."""
        self._buffer.close()


def find_member(members: dict[str, bytes], name: str) -> bytes | None:
    """Find an image in an output shard; None: it is not there.

    Args:
        members: from `read_members`.
        name: name of the member; a Parquet shard has it as text.
    """
    return members.get(name, members.get(_as_text(name)))


def _as_text(name: str) -> str:
    """Return a name as UTF-8 text: other bytes are written as escapes."""
    return path_to_bytes(name).decode("utf-8", "backslashreplace")


def read_members(store: Store, path: str, column: str | None = None) -> dict[str, bytes]:
    """Read the images of an output shard.

    Args:
        store: store of the target's root.
        path: path of a tar or Parquet shard.
        column: column of images of a Parquet shard.

    Returns:
        Content by member's name; of Parquet shards by "KEY.FIELD", or by the number of the row if they have no keys.

    Raises:
        ShardError: a damaged shard.
        NotFoundError: no such shard.
    """
    members: dict[str, bytes] = {}
    with store.fetch(path) as file:
        if not path.lower().endswith(".parquet"):
            for member in list(index_tar(file, path)):
                file.seek(member.offset)
                members[member.name] = file.read(member.size)
            return members
        shard = ParquetShard(file, path, column)
        keyed = {"key", "field", "image"} == set(shard.schema.names)
        for rows in shard.read():
            names = [str(rows.first + number) for number in range(len(rows.images))]
            if keyed:
                keys, fields = (rows.rows.column(name).to_pylist() for name in ("key", "field"))
                names = [f"{key}.{field}" for key, field in zip(keys, fields, strict=True)]
            members |= {name: image for name, image in zip(names, rows.images, strict=True) if image is not None}
    return members
