"""Plan of a bulk job: which source goes to which shard. It is written first, part by part, and never changes.

A plan has generations: the first, and one for each update that found something new. A generation is a folder below
``_ohmq/plan`` with parts of rows, an index of its shards, and ``plan.json``, which is written last: without it the
generation does not count.
"""

import hashlib
import io
import json
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ohmq import __version__
from ohmq.bulk.job import CONTROL, BulkJob
from ohmq.bulk.rows import (
    UNKNOWN_SIZE,
    PlanRow,
    SourceKind,
    bytes_to_path,
    import_pyarrow,
    path_to_bytes,
    plan_schema,
)
from ohmq.bulk.sources import Listed, OutputCheck, SourceListing, kind_of
from ohmq.errors import ConfigError, OutputWriteError
from ohmq.imaging.listing import IMAGE_EXTENSIONS
from ohmq.storage.errors import NotFoundError, StorageError
from ohmq.storage.keys import plain_key
from ohmq.storage.open_store import open_store
from ohmq.storage.store import Store
from ohmq.storage.urls import redacted

__all__ = [
    "JOB_FILE",
    "Generation",
    "Plan",
    "PlannedShard",
    "RangeFile",
    "has_plan",
    "make_plan",
    "read_plan",
    "read_rows",
]

FORMAT = 1
"""Version of the files of a plan."""
JOB_FILE = f"{CONTROL}/job.json"
"""Path of the description of the job below the target's root, for people: the plan itself holds it, too."""
ROWS_A_PART = 100_000
"""Number of rows after which a part of the plan is written."""
ROWS_A_GROUP = 1_000
"""Number of rows after which a row group of a part ends, with the shard."""
_FOLDER = f"{CONTROL}/plan"
_PLAN_FILE = re.compile(rf"{_FOLDER}/(\d{{3,}})/plan\.json")
_MAX_ROOTS = 2**15 - 1


class PlannedShard(NamedTuple):
    """A shard of a plan, without its rows.

    Attributes:
        shard: number of the shard, unique over all generations.
        generation: its generation.
        plan_hash: hash of the generation.
        part: path of the part of the plan that holds its rows, below the target's root.
        part_bytes: size of that part.
        row_group: row group of the part that holds its rows.
        first_row: first of its rows in the row group.
        num_rows: number of its rows.
        num_bytes: size of its sources in bytes; sources of unknown size count as 0.
        kind: "object", "tar" or "parquet".
    """

    shard: int
    generation: int
    plan_hash: str
    part: str
    part_bytes: int
    row_group: int
    first_row: int
    num_rows: int
    num_bytes: int
    kind: SourceKind


@dataclass(frozen=True, kw_only=True)
class Generation:
    """A generation of a plan, as its ``plan.json`` has it.

    Attributes:
        number: number of the generation, from 0.
        job: description of the job.
        model_id: id of the model in hexadecimal digits; None: no model, or that of each file.
        roots: URLs or absolute paths of the sources' stores.
        first_shard: number that its shards begin at.
        next_shard: number after its last shard.
        num_shards: number of its shards.
        num_rows: number of its rows.
        num_bytes: size of its sources in bytes; sources of unknown size count as 0.
        kinds: number of rows of each kind.
        shard_kinds: number of shards of each kind.
        unknown_sizes: number of rows of unknown size.
        changed: number of rows whose source an earlier generation had in another version.
        parts: path and size in bytes of each part.
        index: path of the index of its shards.
        plan_hash: SHA-256 of all parts, of the roots and of the job's options.
        ohmq_version: version of ohmq that made it.
        seconds: seconds that it took.
    """

    number: int
    job: dict[str, Any]
    model_id: str | None
    roots: tuple[str, ...]
    first_shard: int
    next_shard: int
    num_shards: int
    num_rows: int
    num_bytes: int
    kinds: dict[str, int]
    shard_kinds: dict[str, int]
    unknown_sizes: int
    changed: int
    parts: tuple[tuple[str, int], ...]
    index: str
    plan_hash: str
    ohmq_version: str
    seconds: float

    def to_json(self) -> bytes:
        """Return the content of ``plan.json``."""
        return json.dumps({"format": FORMAT, **self.__dict__}, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, name: str) -> "Generation":
        """Read a ``plan.json``.

        Raises:
            StorageError: it is damaged, or of a newer version.
        """
        try:
            fields = json.loads(data)
            if fields.pop("format") != FORMAT:
                raise StorageError(
                    f"{name} was made by ohmq {fields.get('ohmq_version')}, which this version cannot read"
                )
            parts = tuple((path, size) for path, size in fields["parts"])
            return cls(**{**fields, "parts": parts, "roots": tuple(fields["roots"])})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StorageError(f"{name} is no plan that this version reads: {error}") from error


class Plan:
    """A complete plan with all its generations. Its memory does not depend on the number of rows.

    Args:
        store: store of the target's root.
        generations: generations in order; at least one.
        added: number of rows that were planned just now.
    """

    def __init__(self, store: Store, generations: Sequence[Generation], added: int = 0):
        self.store = store
        self.generations = tuple(generations)
        self.added = added

    @property
    def job(self) -> BulkJob:
        """The job that the plan was made for; engine and workers may be others by now."""
        return BulkJob.from_json(json.dumps(self.generations[0].job))

    @property
    def model_id(self) -> str | None:
        """Id of the model in hexadecimal digits; None: no model, or that of each file."""
        return self.generations[0].model_id

    @property
    def num_shards(self) -> int:
        """Number of shards of all generations."""
        return sum(generation.num_shards for generation in self.generations)

    @property
    def num_rows(self) -> int:
        """Number of rows of all generations."""
        return sum(generation.num_rows for generation in self.generations)

    @property
    def num_bytes(self) -> int:
        """Size of all sources in bytes; sources of unknown size count as 0."""
        return sum(generation.num_bytes for generation in self.generations)

    def roots(self, shard: PlannedShard) -> tuple[str, ...]:
        """Return the URLs that `PlanRow.source` of a shard's rows refers to."""
        return self.generations[shard.generation].roots

    def shards(self) -> Iterator[PlannedShard]:
        """Iterate over the shards of all generations in order of their numbers.

        Raises:
            StorageError: the index of a generation is missing or damaged.
        """
        pa = import_pyarrow()
        for generation in self.generations:
            with self.store.fetch(generation.index) as file:
                try:
                    for batch in pa.parquet.ParquetFile(file).iter_batches(10_000, use_threads=False):
                        for shard, part, *place in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                            named = generation.parts[part]
                            yield PlannedShard(shard, generation.number, generation.plan_hash, *named, *place)
                except (pa.ArrowException, OSError, ValueError, IndexError) as error:
                    raise StorageError(f"{generation.index} is damaged: {error}") from error

    def rows(self, shard: PlannedShard) -> list[PlanRow]:
        """Read the rows of one shard; as `read_rows`."""
        return read_rows(self.store, shard)


class RangeFile(io.RawIOBase):
    """An object of a store as a file for reading at random, each read one request.

    Args:
        store: the store.
        path: path of the object.
        size: its size in bytes.
    """

    def __init__(self, store: Store, path: str, size: int):
        self._store, self._path, self._size, self._place = store, path, size, 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the place in bytes."""
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in bytes, from the start, from here or from the end."""
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read bytes into a buffer; returns their number."""
        length = max(0, min(len(buffer), self._size - self._place))
        data = self._store.read(self._path, self._place, length) if length else b""
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)


def read_rows(store: Store, shard: PlannedShard) -> list[PlanRow]:
    """Read the rows of one shard: the end of its part and one row group.

    Args:
        store: store of the target's root.
        shard: the shard.

    Raises:
        NotFoundError: the part is gone.
        StorageError: it is damaged.
    """
    pa = import_pyarrow()
    try:
        with RangeFile(store, shard.part, shard.part_bytes) as file:
            table = pa.parquet.ParquetFile(file, pre_buffer=True).read_row_group(shard.row_group, use_threads=False)
        table = table.slice(shard.first_row, shard.num_rows)
        columns = [table.column(name).to_pylist() for name in PlanRow._fields]
    except (pa.ArrowException, OSError, KeyError, IndexError) as error:
        raise StorageError(f"{shard.part} is damaged: {error}") from error
    for name in ("path", "key"):
        number = PlanRow._fields.index(name)
        columns[number] = list(map(bytes_to_path, columns[number]))
    rows = [PlanRow(*values) for values in zip(*columns, strict=True)]
    if len(rows) != shard.num_rows or any(row.shard != shard.shard for row in rows):
        raise StorageError(f"{shard.part} is damaged: it does not hold the rows of shard {shard.shard}")
    return rows


def read_plan(store: Store) -> Plan:
    """Read the plan of a target.

    Args:
        store: store of the target's root.

    Raises:
        ConfigError: there is no job, or none with a complete plan.
        StorageError: a file of the plan is damaged.
    """
    generations = _read_generations(store)
    if not generations:
        raise ConfigError(
            f"{redacted(store.url)} holds no bulk job with a complete plan; ohmq bulk compress or ohmq bulk plan makes one"
        )
    return Plan(store, generations)


def has_plan(store: Store) -> bool:
    """Tell whether a target holds a complete plan.

    Args:
        store: store of the target's root.
    """
    return any(_PLAN_FILE.fullmatch(item.path) for item in store.list(f"{_FOLDER}/", suffixes=(".json",)))


def _read_generations(store: Store) -> list[Generation]:
    found = []
    for item in store.list(f"{_FOLDER}/", suffixes=(".json",)):
        if match := _PLAN_FILE.fullmatch(item.path):
            found.append((int(match[1]), item.path))
    generations = [Generation.from_json(store.read(path), path) for _, path in sorted(found)]
    if [generation.number for generation in generations] != list(range(len(generations))):
        raise StorageError(f"{redacted(store.url)}: a generation of the plan is missing in {_FOLDER}")
    return generations


def make_plan(
    job: BulkJob,
    model_id: str | None = None,
    *,
    store: Store | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Plan:
    """Plan a job, or take up the plan that its target holds.

    The sources are listed only where there is no complete plan yet, or `BulkJob.update` asks for it: then a new
    generation holds the sources that are new or whose size or version has changed. What a killed planner left is made
    anew. Memory does not grow with the number of sources; a temporary file holds the names.

    Args:
        job: the job.
        model_id: id of the model in hexadecimal digits; None: no model, or that of each file.
        store: where the plan is written. Default: the store of the target's root.
        on_progress: called with the number of rows now and then.

    Returns:
        The plan; `Plan.added` is the number of new rows.

    Raises:
        ConfigError: the target holds the plan of another job or model (the message says how they differ), nothing to do in
            a source, or a target among the sources.
        StorageError: as the stores say.
        OutputWriteError: no room for the plan or the temporary file.
    """
    import_pyarrow()
    job = job.absolute()
    store = store or open_store(job.target_root, for_writing=True)
    listing = SourceListing(job)
    generations = _read_generations(store)
    if generations:
        _check_same_job(job, model_id, generations[0])
        if not job.update:
            _write_job_file(store, generations)
            return Plan(store, generations)
    number = len(generations)
    folder = f"{_FOLDER}/{number:03d}/"
    for left in list(store.list(folder)):  # of a planner that was killed
        store.delete(left.path)
    with tempfile.TemporaryDirectory(prefix="ohmq-plan-") as temporary:
        try:
            generation = _Planner(job, model_id, listing, store, Path(temporary), generations, on_progress).run()
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, OSError) and not error.errno:
                raise
            raise OutputWriteError(f"the plan's temporary files in {temporary} cannot be written: {error}") from error
    if generation is not None:
        store.write(f"{folder}plan.json", generation.to_json())
        generations.append(generation)
    if not generations:
        raise ConfigError(f"nothing to {job.operation}: {redacted(str(job.from_list))} names no object")
    _write_job_file(store, generations)
    return Plan(store, generations, generation.num_rows if generation else 0)


def _check_same_job(job: BulkJob, model_id: str | None, first: Generation) -> None:
    """Refuse to go on with the plan of another job."""
    earlier = BulkJob.from_json(json.dumps(first.job))
    differences = [f"{name} is {there!r} there and {here!r} here" for name, there, here in job.differences(earlier)]
    if first.model_id != model_id:
        differences.append(f"the model is {earlier.model} ({first.model_id}) there and {job.model} ({model_id}) here")
    if differences:
        raise ConfigError(
            f"target {redacted(job.target)} holds another job: {'; '.join(differences)}; repeat that job or choose "
            "another target"
        )


def _write_job_file(store: Store, generations: Sequence[Generation]) -> None:
    """Write the description of the job, unless it is there and knows all generations."""
    first = generations[0]
    job = BulkJob.from_json(json.dumps(first.job))
    content = {
        "job": first.job,
        "options_hash": job.options_hash(first.model_id),
        "model_id": first.model_id,
        "ohmq_version": first.ohmq_version,
        "plan_generations": [generation.plan_hash for generation in generations],
    }
    data = json.dumps(content, indent=1).encode()
    try:
        if store.read(JOB_FILE) == data:
            return
    except NotFoundError:
        pass
    store.write(JOB_FILE, data)


class _Memory:
    """Names that are taken, and sources of earlier generations, in a temporary data base."""

    def __init__(self, path: Path):
        self._base = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -4000"):
            self._base.execute(f"PRAGMA {pragma}")
        for table in ("keys", "outputs", "seen"):
            self._base.execute(f"CREATE TABLE {table} (name BLOB PRIMARY KEY) WITHOUT ROWID")
        self._base.execute(
            "CREATE TABLE earlier (name BLOB PRIMARY KEY, size INT, version TEXT, key BLOB, shard INT, split INT) "
            "WITHOUT ROWID"
        )
        self._base.execute("BEGIN")

    def claim(self, table: str, name: str) -> bool:
        """Take a name; False: it is taken."""
        cursor = self._base.execute(f"INSERT OR IGNORE INTO {table} VALUES (?)", (path_to_bytes(name),))
        return cursor.rowcount == 1

    def remember(self, location: str, row: PlanRow) -> None:
        """Note a source of an earlier generation; a later one replaces it."""
        values = (
            path_to_bytes(location),
            row.size,
            row.version,
            path_to_bytes(row.key),
            row.shard,
            row.first_group >= 0,
        )
        self._base.execute("INSERT OR REPLACE INTO earlier VALUES (?, ?, ?, ?, ?, ?)", values)

    def earlier(self, location: str) -> tuple[int, str, str, int, bool] | None:
        """Return size, version, key, shard and whether it was split, of a source of an earlier generation."""
        found = self._base.execute(
            "SELECT size, version, key, shard, split FROM earlier WHERE name = ?", (path_to_bytes(location),)
        ).fetchone()
        return found and (found[0], found[1], bytes_to_path(found[2]), found[3], bool(found[4]))

    def close(self) -> None:
        self._base.close()


class _Planner:
    """Writer of one generation."""

    def __init__(
        self,
        job: BulkJob,
        model_id: str | None,
        listing: SourceListing,
        store: Store,
        temporary: Path,
        generations: Sequence[Generation],
        on_progress: Callable[[int], None] | None,
    ):
        self.job, self.model_id, self.listing, self.store = job, model_id, listing, store
        self.temporary, self.earlier, self.on_progress = temporary, generations, on_progress
        self.number = len(generations)
        self.first_shard = self.shard = generations[-1].next_shard if generations else 0
        self.memory = _Memory(temporary / "names.sqlite")
        self.check = OutputCheck(job)
        self.roots: dict[str, int] = {}
        self.own_output = job.layout_for("object") == "files"
        self.objects: list[PlanRow] = []
        self.object_bytes = 0
        self.kinds = dict.fromkeys(("object", "tar", "parquet"), 0)
        self.shard_kinds = dict(self.kinds)
        self.unknown_sizes = self.changed = self.num_bytes = 0
        self.output = _PlanFiles(store, temporary, f"{_FOLDER}/{self.number:03d}")

    def run(self) -> Generation | None:
        """Plan all that is new; None: nothing is.

        Raises:
            ConfigError, StorageError: as `make_plan`.
        """
        start = time.monotonic()
        try:
            self._remember_earlier()
            for item in self.listing:
                self._add(item)
            self._close_objects()
            if not self.shard_total:
                return None
            parts, index, digest = self.output.finish()
        finally:
            self.output.close()
            self.memory.close()
        digest.update(json.dumps([list(self.roots), self.job.options_hash(self.model_id)]).encode())
        return Generation(
            number=self.number,
            job=json.loads(self.job.to_json()),
            model_id=self.model_id,
            roots=tuple(self.roots),
            first_shard=self.first_shard,
            next_shard=self.shard,
            num_shards=self.shard_total,
            num_rows=sum(self.kinds.values()),
            num_bytes=self.num_bytes,
            kinds=self.kinds,
            shard_kinds=self.shard_kinds,
            unknown_sizes=self.unknown_sizes,
            changed=self.changed,
            parts=parts,
            index=index,
            plan_hash=digest.hexdigest(),
            ohmq_version=__version__,
            seconds=time.monotonic() - start,
        )

    @property
    def shard_total(self) -> int:
        return sum(self.shard_kinds.values())

    def _remember_earlier(self) -> None:
        """Note the sources and names of the earlier generations."""
        if not self.earlier:
            return
        plan = Plan(self.store, self.earlier)
        for shard in plan.shards():
            roots = plan.roots(shard)
            for row in plan.rows(shard):
                self.memory.remember(_location(roots[row.source], row.path), row)
                self.memory.claim("outputs" if self._names_output(row.kind) else "keys", row.key)

    def _names_output(self, kind: SourceKind) -> bool:
        """Whether a row of this kind has an output of its own, and not a place in its shard's."""
        return kind != "object" or self.own_output

    def _add(self, item: Listed) -> None:
        """Plan one source, unless it is there already."""
        location = _location(item.root, item.info.path)
        if self.listing.overlapping and not self.memory.claim("seen", location):
            return
        size, version = item.info.size, item.info.version
        known = self.memory.earlier(location) if self.earlier else None
        if known and (known[:2] == (size, version) or (known[4] and known[1] == version)):
            return  # the rows of a split source hold parts of its size
        if item.root not in self.roots:
            if len(self.roots) == _MAX_ROOTS:
                raise ConfigError(f"the sources lie in more than {_MAX_ROOTS} places; name folders that hold several")
            self.roots[item.root] = len(self.roots)
        kind = kind_of(item.info.path)
        key = known[2] if known and not known[4] else self._new_key(kind, item.info.path)
        row = PlanRow(
            -1, 0, kind, self.roots[item.root], item.info.path, size, version, key, replaces=known[3] if known else -1
        )
        self.changed += known is not None
        if kind == "object":
            self._add_object(row, item.root)
        elif kind == "parquet" and size > 2 * self.job.bytes_per_shard:
            self._add_split(row, item.root)
        else:
            self._add_shard(row, item.root)

    def _new_key(self, kind: SourceKind, path: str) -> str:
        """Give a source a key that no other has."""
        if kind != "object":
            stem = path.rpartition(".")[0]
            return self._unclaimed("outputs", [stem], "-")
        bare = path[: -len(".ohm")] if self.job.operation != "compress" and path.lower().endswith(".ohm") else path
        folder, slash, base = bare.rpartition("/")
        stem, dot, extension = base.rpartition(".")
        is_image = bool(stem) and dot + extension.lower() in IMAGE_EXTENSIONS
        if not self._names_output(kind):
            key = plain_key(bare) if is_image else plain_key(f"{bare}.ohm")
            wished = [key, f"{key}_{extension.lower()}"] if is_image else [key]
            return self._unclaimed("keys", wished, "_")
        wished = [bare]
        if self.job.operation == "decompress" and is_image:
            wished.insert(0, folder + slash + stem)
        return self._unclaimed("outputs", wished, "-")

    def _unclaimed(self, table: str, wished: Sequence[str], separator: str) -> str:
        for name in wished:
            if self.memory.claim(table, name):
                return name
        number = 2
        while not self.memory.claim(table, name := f"{wished[-1]}{separator}{number}"):
            number += 1
        return name

    def _add_object(self, row: PlanRow, root: str) -> None:
        """Add a single file to the shard that is being filled."""
        if self._names_output("object"):
            self.check(self.job.output_of("object", 0, row.key), root, row.path)
        size = max(row.size, 0)
        if self.objects and self.object_bytes + size > self.job.bytes_per_shard:
            self._close_objects()
        self.objects.append(row)
        self.object_bytes += size
        if len(self.objects) == self.job.images_per_shard:
            self._close_objects()

    def _close_objects(self) -> None:
        """End the shard of single files."""
        if not self.objects:
            return
        if not self._names_output("object") and self.job.target_pattern is None:
            while not self.memory.claim("outputs", f"shard-{self.shard:06d}"):  # a source shard has this name
                self.shard += 1
        self._write(self.objects)
        self.objects, self.object_bytes = [], 0

    def _add_shard(self, row: PlanRow, root: str) -> None:
        """Add a tar or Parquet source, or some row groups of one, as a shard of its own."""
        self.check(self.job.output_of(row.kind, self.shard, row.key), root, row.path)
        self._write([row])

    def _add_split(self, row: PlanRow, root: str) -> None:
        """Add a large Parquet source as several shards of whole row groups.

        Raises:
            StorageError: not a Parquet file.
        """
        pa = import_pyarrow()
        with RangeFile(self.listing.store(root), row.path, row.size) as file:
            try:
                metadata = pa.parquet.read_metadata(file)
            except (pa.ArrowException, OSError) as error:
                raise StorageError(f"{_location(root, row.path)} is no Parquet file: {error}") from error
        sizes = [metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)]
        count = min(len(sizes), round(row.size / self.job.bytes_per_shard))
        if count < 2:
            self._add_shard(row, root)
            return
        first, piece, done, total = 0, 0, 0, sum(sizes)
        for group, size in enumerate(sizes):
            done += size
            left = len(sizes) - group - 1
            if done * count >= total * (piece + 1) or left < count - piece:
                share = row.size * sum(sizes[first : group + 1]) // max(total, 1)
                split = row._replace(
                    key=self._unclaimed("outputs", [f"{row.key}-{piece:03d}"], "-"),
                    size=share,
                    first_group=first,
                    last_group=group,
                )
                self._add_shard(split, root)
                first, piece = group + 1, piece + 1

    def _write(self, rows: Sequence[PlanRow]) -> None:
        """Give a shard its number and write it."""
        numbered = [row._replace(shard=self.shard, index=index) for index, row in enumerate(rows)]
        self.output.add(numbered)
        kind = rows[0].kind
        self.kinds[kind] += len(rows)
        self.shard_kinds[kind] += 1
        self.num_bytes += sum(max(row.size, 0) for row in rows)
        self.unknown_sizes += sum(row.size == UNKNOWN_SIZE for row in rows)
        self.shard += 1
        if self.on_progress:
            self.on_progress(sum(self.kinds.values()))


class _PlanFiles:
    """Parts of a generation and the index of its shards, written row group by row group to temporary files."""

    def __init__(self, store: Store, temporary: Path, folder: str):
        self.store, self.temporary, self.folder = store, temporary, folder
        self.parts: list[tuple[str, int]] = []
        self._digest = hashlib.sha256()
        self._part: Any = None
        self._part_rows = self._groups = 0
        self._rows: list[PlanRow] = []
        self._index_rows: list[tuple[Any, ...]] = []
        pa = import_pyarrow()
        numbers = [("shard", pa.int32()), ("part", pa.int32()), ("row_group", pa.int32()), ("first_row", pa.int32())]
        numbers += [("num_rows", pa.int32()), ("num_bytes", pa.int64()), ("kind", pa.string())]
        self._index_schema = pa.schema(numbers)
        self._index = self._open("shards.parquet", self._index_schema)

    def _open(self, name: str, schema: Any) -> Any:
        pa = import_pyarrow()
        return pa.parquet.ParquetWriter(self.temporary / name, schema, compression="zstd", write_statistics=False)

    def add(self, rows: Sequence[PlanRow]) -> None:
        """Add a shard."""
        size = sum(max(row.size, 0) for row in rows)
        place = (len(self.parts), self._groups, len(self._rows), len(rows), size, rows[0].kind)
        self._index_rows.append((rows[0].shard, *place))
        self._rows += rows
        if len(self._rows) >= ROWS_A_GROUP:
            self._end_group()
        if len(self._index_rows) >= 10_000:
            self._end_index_group()

    def _end_group(self) -> None:
        if not self._rows:
            return
        pa = import_pyarrow()
        if self._part is None:
            self._part = self._open("part.parquet", plan_schema())
        columns = dict(zip(PlanRow._fields, map(list, zip(*self._rows, strict=True)), strict=True))
        for name in ("path", "key"):
            columns[name] = list(map(path_to_bytes, columns[name]))
        self._part.write_table(pa.table(columns, schema=plan_schema()))
        self._groups += 1
        self._part_rows += len(self._rows)
        self._rows = []
        if self._part_rows >= ROWS_A_PART:
            self._end_part()

    def _end_part(self) -> None:
        if self._part is None:
            return
        self._part.close()
        self._part = None
        file = self.temporary / "part.parquet"
        with file.open("rb") as opened:
            self._digest.update(hashlib.file_digest(opened, "sha256").digest())
        path = f"{self.folder}/part-{len(self.parts):05d}.parquet"
        self.store.write(path, file)
        self.parts.append((path, file.stat().st_size))
        self._part_rows = self._groups = 0

    def _end_index_group(self) -> None:
        pa = import_pyarrow()
        columns = zip(*self._index_rows, strict=True)
        self._index.write_table(
            pa.table([pa.array(column) for column in columns], names=self._index_schema.names).cast(self._index_schema)
        )
        self._index_rows = []

    def finish(self) -> tuple[tuple[tuple[str, int], ...], str, Any]:
        """Write what is left; returns paths and sizes of the parts, the path of the index, and the running hash."""
        self._end_group()
        self._end_part()
        if self._index_rows:
            self._end_index_group()
        self._index.close()
        path = f"{self.folder}/shards.parquet"
        self.store.write(path, self.temporary / "shards.parquet")
        return tuple(self.parts), path, self._digest

    def close(self) -> None:
        """Close the temporary files."""
        for writer in (self._part, self._index):
            if writer is not None:
                writer.close()


def _location(root: str, path: str) -> str:
    """Return the full name of an object."""
    return f"{root.rstrip('/')}/{path}"
