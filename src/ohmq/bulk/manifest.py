"""Manifest of a bulk job: a Parquet part and a marker for each shard. The marker, written last by one put, is the commit."""

import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from typing import Any, NamedTuple

from ohmq.bulk.job import CONTROL, shard_label
from ohmq.bulk.rows import (
    BINARY_FIELDS,
    FLOAT_FIELDS,
    VOLATILE,
    ManifestRow,
    bytes_to_path,
    import_pyarrow,
    manifest_schema,
    path_to_bytes,
)
from ohmq.storage.errors import NotFoundError, StorageError
from ohmq.storage.store import Store
from ohmq.utils.provenance import software_versions

__all__ = [
    "Marker",
    "Output",
    "ShardSet",
    "done_shards",
    "make_marker",
    "manifest_differences",
    "manifest_path",
    "marker_path",
    "read_manifest",
    "read_marker",
    "read_markers",
    "read_shard_manifest",
    "rows_hash",
    "write_shard",
]

READS_AT_ONCE = 16
"""Number of markers read at once: the time of each is that of a round trip."""
_MARKER_NAME = re.compile(rf"{CONTROL}/markers/(\d{{6,}})\.json")


class Output(NamedTuple):
    """An output of a shard: its path below the target's root, its size and its SHA-256 in hexadecimal digits."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Marker:
    """Marker of a finished shard.

    Attributes:
        shard: number of the shard.
        plan_hash: hash of the plan's generation that the shard belongs to.
        options_hash: `ohmq.bulk.job.BulkJob.options_hash` of the job.
        model_id: id of the model in hexadecimal digits; None: no model, or that of each file.
        outputs: the files or shards that were written. Of the layout "files" with many outputs, all of them.
        rows_sha256: `rows_hash` of the manifest's part.
        images: number of images that are done.
        failed: number of images with an error.
        bytes_in: size of the source images in bytes, failed ones included.
        bytes_out: size of the output images in bytes.
        pixels: number of pixels of the images that are done.
        seconds: seconds from the start of the attempt to its end.
        attempt: attempt that finished the shard, from 1.
        worker: machine and process, "host:pid".
        versions: versions of ohmq, of its libraries and of Python.
    """

    shard: int
    plan_hash: str
    options_hash: str
    model_id: str | None
    outputs: tuple[Output, ...]
    rows_sha256: str
    images: int
    failed: int
    bytes_in: int
    bytes_out: int
    pixels: int
    seconds: float
    attempt: int
    worker: str
    versions: Mapping[str, str] = field(default_factory=software_versions)

    def to_json(self) -> bytes:
        """Return the marker as JSON in UTF-8; paths that are not UTF-8 keep their surrogate escapes as ``\\udcXX``."""
        fields = dataclasses.asdict(self)
        fields["outputs"] = [output._asdict() for output in self.outputs]
        manifest = {"path": manifest_path(self.shard), "rows_sha256": fields.pop("rows_sha256")}
        return json.dumps({**fields, "manifest": manifest}, indent=1).encode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "Marker":
        """Read a marker.

        Raises:
            StorageError: not the JSON of a marker.
        """
        try:
            fields = json.loads(text)
            outputs = tuple(Output(**output) for output in fields.pop("outputs"))
            rows_sha256 = fields.pop("manifest")["rows_sha256"]
            return cls(**fields, outputs=outputs, rows_sha256=rows_sha256)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StorageError(f"not a marker that this version reads: {error}") from error


def make_marker(
    shard: int,
    rows: Sequence[ManifestRow],
    outputs: Sequence[Output],
    *,
    plan_hash: str,
    options_hash: str,
    model_id: str | None,
    seconds: float,
    attempt: int,
    worker: str,
) -> Marker:
    """Add up the rows of a shard to its marker; arguments as the attributes of `Marker`."""
    done = [row for row in rows if row.error is None]
    return Marker(
        shard=shard,
        plan_hash=plan_hash,
        options_hash=options_hash,
        model_id=model_id,
        outputs=tuple(outputs),
        rows_sha256=rows_hash(rows),
        images=len(done),
        failed=len(rows) - len(done),
        bytes_in=sum(row.bytes_in for row in rows),
        bytes_out=sum(row.bytes_out for row in done),
        pixels=sum(row.width * row.height for row in done),
        seconds=seconds,
        attempt=attempt,
        worker=worker,
    )


def manifest_path(shard: int) -> str:
    """Return the path of a shard's part of the manifest below the target's root."""
    return f"{CONTROL}/manifest/{shard_label(shard)}.parquet"


def marker_path(shard: int) -> str:
    """Return the path of a shard's marker below the target's root."""
    return f"{CONTROL}/markers/{shard_label(shard)}.json"


def rows_hash(rows: Iterable[ManifestRow]) -> str:
    """Return the SHA-256 of the rows of a manifest but for seconds, attempt and worker, in hexadecimal digits."""
    digest = hashlib.sha256()
    for row in rows:
        stored = zip(row._fields, _stored(row), strict=True)
        digest.update(json.dumps([value for name, value in stored if name not in VOLATILE]).encode() + b"\n")
    return digest.hexdigest()


def _stored(row: ManifestRow) -> list[Any]:
    """Return the values of a row as Parquet gives them back."""
    values: list[Any] = list(row)
    for number, (name, value) in enumerate(zip(row._fields, row, strict=True)):
        if isinstance(value, str) and name not in BINARY_FIELDS:  # messages may name a file whose name is not UTF-8
            values[number] = value.encode("utf-8", "backslashreplace").decode()
        elif value is not None and name in FLOAT_FIELDS:
            values[number] = float(value)  # type: ignore[arg-type]
    return values


def write_shard(store: Store, rows: Sequence[ManifestRow], marker: Marker) -> None:
    """Write the part of the manifest of a shard whose outputs are written, and then its marker.

    Args:
        store: store of the target's root.
        rows: rows of the shard.
        marker: marker of the shard, as `make_marker` gives it.

    Raises:
        ValueError: the marker belongs to other rows.
        StorageError, OutputWriteError: as `ohmq.storage.store.Store.write`.
    """
    if marker.rows_sha256 != rows_hash(rows):
        raise ValueError(f"the marker of shard {shard_label(marker.shard)} belongs to other rows")
    store.write(manifest_path(marker.shard), _to_parquet(rows))
    store.write(marker_path(marker.shard), marker.to_json())


def _to_parquet(rows: Sequence[ManifestRow]) -> bytes:
    pa = import_pyarrow()
    stored = list(map(_stored, rows))
    columns = {}
    for number, column in enumerate(manifest_schema()):
        values = [row[number] for row in stored]
        if column.name in BINARY_FIELDS:
            values = [None if value is None else path_to_bytes(value) for value in values]
        columns[column.name] = pa.array(values, column.type)
    buffer = io.BytesIO()
    pa.parquet.write_table(pa.table(columns, schema=manifest_schema()), buffer, compression="zstd")
    return buffer.getvalue()


def read_shard_manifest(store: Store, shard: int) -> list[ManifestRow]:
    """Read the manifest of one shard.

    Args:
        store: store of the target's root.
        shard: number of the shard.

    Raises:
        NotFoundError: no such part.
        StorageError: a part that is damaged, or that another version wrote.
    """
    pa = import_pyarrow()
    path = manifest_path(shard)
    data = store.read(path)
    try:
        table = pa.parquet.read_table(io.BytesIO(data), use_threads=False)
        columns = [table.column(name).to_pylist() for name in ManifestRow._fields]
    except (pa.ArrowException, KeyError) as error:
        raise StorageError(f"{path} is no part of a manifest that this version reads: {error}") from error
    for name in BINARY_FIELDS:
        number = ManifestRow._fields.index(name)
        columns[number] = [None if value is None else bytes_to_path(value) for value in columns[number]]
    return [ManifestRow(*values) for values in zip(*columns, strict=True)]


class ShardSet:
    """A set of shard numbers as a bitmap: one bit for each number up to the largest."""

    def __init__(self, shards: Iterable[int] = ()) -> None:
        self._bits = bytearray()
        self._count = 0
        for shard in shards:
            self.add(shard)

    def add(self, shard: int) -> None:
        """Add a number from 0 on; one that is in the set already changes nothing."""
        byte, bit = divmod(shard, 8)
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits)))
        if not self._bits[byte] >> bit & 1:
            self._bits[byte] |= 1 << bit
            self._count += 1

    def __contains__(self, shard: int) -> bool:
        byte, bit = divmod(shard, 8)
        return byte < len(self._bits) and bool(self._bits[byte] >> bit & 1)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[int]:
        return (8 * place + bit for place, byte in enumerate(self._bits) for bit in range(8) if byte >> bit & 1)


def _listed(store: Store, folder: str, name: re.Pattern[str]) -> Iterator[int]:
    for item in store.list(f"{CONTROL}/{folder}/"):
        if match := name.fullmatch(item.path):
            yield int(match[1])


def done_shards(store: Store) -> ShardSet:
    """List the shards that have a marker, from the names alone.

    Args:
        store: store of the target's root.
    """
    return ShardSet(_listed(store, "markers", _MARKER_NAME))


def read_marker(store: Store, shard: int) -> Marker | None:
    """Read the marker of a shard; None: it is not finished.

    Args:
        store: store of the target's root.
        shard: number of the shard.

    Raises:
        StorageError: not a marker.
    """
    try:
        return Marker.from_json(store.read(marker_path(shard)))
    except NotFoundError:
        return None


def read_markers(store: Store) -> Iterator[Marker]:
    """Read all markers in order of their shards, some at once, without holding them.

    Args:
        store: store of the target's root.

    Raises:
        StorageError: a file among the markers is none.
    """
    numbers = iter(done_shards(store))
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        while batch := list(islice(numbers, 8 * READS_AT_ONCE)):
            for marker in pool.map(lambda shard: read_marker(store, shard), batch):
                if marker is not None:
                    yield marker


def read_manifest(store: Store, shards: Iterable[int] | None = None) -> Iterator[ManifestRow]:
    """Read the manifest shard by shard, in order, without holding it.

    Args:
        store: store of the target's root.
        shards: shards to read; None: those that have a marker.

    Raises:
        NotFoundError: a shard of ``shards`` has no manifest.
        StorageError: a part that is damaged.
    """
    for shard in done_shards(store) if shards is None else shards:
        yield from read_shard_manifest(store, shard)


def manifest_differences(one: Iterable[ManifestRow], other: Iterable[ManifestRow], limit: int = 10) -> list[str]:
    """Describe where two manifests differ, other than in seconds, attempt and worker.

    Args:
        one: rows of a manifest.
        other: rows of the other.
        limit: largest number of descriptions.

    Returns:
        One line a difference; empty: the manifests are equal.
    """
    found: list[str] = []
    for left, right in zip_longest(one, other):
        if left is None or right is None:
            row = right if left is None else left
            assert row is not None
            found.append(f"shard {shard_label(row.shard)}, image {row.index}: in one manifest only")
        elif left != right:
            found += [
                f"shard {shard_label(left.shard)}, image {left.index}: {name} is {a!r} and {b!r}"
                for name, a, b in zip(ManifestRow._fields, left, right, strict=True)
                if a != b and name not in VOLATILE
            ]
        if len(found) >= limit:
            break
    return found[:limit]
