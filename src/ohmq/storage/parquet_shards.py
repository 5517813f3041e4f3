"""Parquet shards with a column of images: bytes, or the struct of bytes and path that Hugging Face writes."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from ohmq.errors import ConfigError
from ohmq.storage.errors import ShardError

if TYPE_CHECKING:
    import pyarrow

__all__ = ["ImageRows", "ParquetShard", "ParquetShardWriter", "image_columns"]

ROWS_A_GROUP = 100
"""Rows of a row group that is written, and of a batch that is read."""
_BUFFER_BYTES = 1 << 20
"""Bytes that are read ahead in each column."""


class ImageRows(NamedTuple):
    """Some consecutive rows of a Parquet shard.

    Attributes:
        first: number of the first row in the shard.
        images: encoded image of each row; None: there is none.
        names: name of each image, where the column has one; else None.
        rows: the rows with all columns.
    """

    first: int
    images: list[bytes | None]
    names: list[str | None]
    rows: "pyarrow.RecordBatch"


def image_columns(schema: "pyarrow.Schema") -> list[str]:
    """List the columns that may hold images: binary, or a struct with a binary field ``bytes``.

    Args:
        schema: schema of a shard.
    """
    return [field.name for field in schema if _holds_bytes(field.type)]


def _holds_bytes(kind: Any) -> bool:
    types = _pyarrow().types
    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and bool(
            types.is_binary(kind.field(index).type) or types.is_large_binary(kind.field(index).type)
        )
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


class ParquetShard:
    """A Parquet file with a column of images.

    Args:
        file: the file; it can seek, and stays open.
        shard: its name, for messages.
        image_column: name of the column; None: the only one that may hold images.

    Attributes:
        column: name of the column of images.
        schema: schema of the file.
        num_rows: rows of the file.
        group_rows: rows of each row group.

    Raises:
        ShardError: not a Parquet file, or a damaged one.
        ConfigError: no such column, or several that may hold images.
    """

    def __init__(self, file: BinaryIO, shard: str, image_column: str | None = None) -> None:
        _pyarrow()
        import pyarrow.parquet

        self.shard = shard
        with _shard_errors(shard):
            self._file = pyarrow.parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        self.schema = self._file.schema_arrow
        self.column = _choose_column(self.schema, image_column, shard)
        metadata = self._file.metadata
        self.num_rows: int = metadata.num_rows
        self.group_rows: list[int] = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]

    def read(self, first_group: int = 0, last_group: int | None = None) -> Iterator[ImageRows]:
        """Read row groups, at most 100 rows in memory at a time.

        Args:
            first_group: first row group.
            last_group: last row group; None: the last of the file.

        Raises:
            ShardError: a damaged file.
        """
        last_group = len(self.group_rows) - 1 if last_group is None else last_group
        first = sum(self.group_rows[:first_group])
        groups = list(range(first_group, last_group + 1))
        if not groups:
            return
        batches = self._file.iter_batches(ROWS_A_GROUP, row_groups=groups, use_threads=False)
        while True:
            with _shard_errors(self.shard):
                batch = next(batches, None)
                if batch is None:
                    return
                images, names = _images(batch.column(self.column))
            yield ImageRows(first, images, names, batch)
            first += batch.num_rows


class ParquetShardWriter:
    """Writer of a Parquet shard that has the columns of another one, with other images.

    The column of images becomes ``large_binary``, or stays a struct whose field ``bytes`` is ``large_binary``. Other
    columns and the metadata of the schema are passed on. Hugging Face's description of the columns says "Image" where a
    reader of images can open the bytes, and the plain type where it cannot. The file is complete after `close`, or after
    a ``with`` block without an error; one that was given up may look complete, too.

    Args:
        file: where the shard is written, such as a buffer or a temporary file; it stays open.
        schema: schema of the source.
        column: column of images.
        readable: whether the new images are files that any reader of images opens, such as PNG.
    """

    def __init__(self, file: BinaryIO, schema: "pyarrow.Schema", column: str, *, readable: bool) -> None:
        _pyarrow()
        import pyarrow.parquet

        self.column = column
        self.schema = _output_schema(schema, column, readable)
        others = [path for path in _leaves(self.schema) if path != column and not path.startswith(column + ".")]
        self._writer = pyarrow.parquet.ParquetWriter(
            file,
            self.schema,
            compression={path: "snappy" if path in others else "none" for path in _leaves(self.schema)},
            use_dictionary=others or False,  # neither dictionary nor statistics for images
            write_statistics=others or False,
        )
        self._waiting: list[pyarrow.RecordBatch] = []

    def write(self, rows: "pyarrow.RecordBatch", images: Sequence[bytes | None]) -> None:
        """Write rows with new images; each 100 are a row group.

        Args:
            rows: rows of the source, as `ImageRows` has them, or some of them.
            images: new image of each row; None: none.
        """
        import pyarrow

        index = self.schema.get_field_index(self.column)
        columns = [*rows.columns]
        columns[index] = _with_images(columns[index], self.schema.field(index).type, images)
        self._waiting.append(pyarrow.RecordBatch.from_arrays(columns, schema=self.schema))
        if sum(batch.num_rows for batch in self._waiting) >= ROWS_A_GROUP:
            self._flush(whole_groups=True)

    def close(self) -> None:
        """Write the remaining rows and the footer."""
        self._flush(whole_groups=False)
        self._writer.close()

    def __enter__(self) -> "ParquetShardWriter":
        """Return the writer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write the remaining rows and the footer, unless an error passes."""
        if kind is None:
            self.close()
        else:
            self._writer.is_open = False  # else it is closed when it is collected, perhaps after its file

    def _flush(self, *, whole_groups: bool) -> None:
        import pyarrow

        table = pyarrow.Table.from_batches(self._waiting, schema=self.schema)
        rows = table.num_rows // ROWS_A_GROUP * ROWS_A_GROUP if whole_groups else table.num_rows
        if rows:
            self._writer.write_table(table.slice(0, rows), row_group_size=ROWS_A_GROUP)
        self._waiting = table.slice(rows).to_batches()


def _pyarrow() -> Any:
    """Import pyarrow.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise ConfigError("Parquet needs the package pyarrow; it comes with: pip install 'ohmq[bulk]'") from error
    return pyarrow


@contextlib.contextmanager
def _shard_errors(shard: str) -> Iterator[None]:
    """Turn what pyarrow raises at a damaged file into an error that names the shard."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:  # damaged pages are OSError
        if getattr(error, "errno", None):  # of the file system
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ShardError(f"{shard}: a damaged Parquet file, or none ({reason})") from error


def _choose_column(schema: Any, wanted: str | None, shard: str) -> str:
    candidates = image_columns(schema)
    listed = ", ".join(candidates) or "none"
    if wanted is not None:
        if wanted in candidates:
            return wanted
        found = "holds no bytes" if wanted in schema.names else "is not there"
        raise ConfigError(f"{shard}: the column {wanted!r} {found}; columns that may hold images: {listed}")
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise ConfigError(f"{shard}: several columns may hold images: {listed}; choose one by --image-column")
    raise ConfigError(f"{shard}: no column may hold images; columns: {', '.join(schema.names)}")


def _images(column: Any) -> tuple[list[bytes | None], list[str | None]]:
    """Images and names of a column."""
    import pyarrow

    if not pyarrow.types.is_struct(column.type):
        return column.to_pylist(), [None] * len(column)
    rows = column.to_pylist()
    return [row and row["bytes"] for row in rows], [row and row.get("path") for row in rows]


def _with_images(column: Any, kind: Any, images: Sequence[bytes | None]) -> Any:
    import pyarrow

    new = pyarrow.array(images, type=pyarrow.large_binary())
    if not pyarrow.types.is_struct(column.type):
        return new
    names = [field.name for field in kind]
    fields = [new if name == "bytes" else column.field(name) for name in names]
    return pyarrow.StructArray.from_arrays(fields, fields=list(kind))


def _output_schema(schema: Any, column: str, readable: bool) -> Any:
    import pyarrow

    index = schema.get_field_index(column)
    field = schema.field(index)
    kind = pyarrow.large_binary()
    if pyarrow.types.is_struct(field.type):
        content = pyarrow.field("bytes", pyarrow.large_binary())
        kind = pyarrow.struct([content if part.name == "bytes" else part for part in field.type])
    metadata = dict(schema.metadata or {})
    if b"huggingface" in metadata:
        metadata[b"huggingface"] = _described(metadata[b"huggingface"], column, kind, readable)
    return schema.set(index, field.with_type(kind).with_nullable(True)).with_metadata(metadata or None)


def _described(text: bytes, column: str, kind: Any, readable: bool) -> bytes:
    """Describe a column in Hugging Face's metadata: "Image", or its plain type."""
    import pyarrow

    try:
        record = json.loads(text)
        features = record["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return text
    if readable:
        features[column] = {"_type": "Image"}
    elif pyarrow.types.is_struct(kind):
        features[column] = {part.name: {"dtype": str(part.type), "_type": "Value"} for part in kind}
    else:
        features[column] = {"dtype": str(kind), "_type": "Value"}
    return json.dumps(record).encode()


def _leaves(schema: Any) -> list[str]:
    """Paths of the columns that Parquet stores."""
    import io

    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.ParquetWriter(buffer, schema).close()
    stored = pyarrow.parquet.ParquetFile(buffer).schema
    return [stored.column(index).path for index in range(len(stored))]
