"""The work of one shard in a worker: read, process, write the output whole, then the manifest and, last, the marker."""

import errno
import functools
import hashlib
import os
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from ohmq import __version__
from ohmq.bulk.image_watch import ImageWatch
from ohmq.bulk.job import BulkJob, shard_label
from ohmq.bulk.manifest import Marker, Output, make_marker, marker_path, read_marker, read_shard_manifest, write_shard
from ohmq.bulk.operations import Operation, make_operation
from ohmq.bulk.plan import Plan, read_rows
from ohmq.bulk.rows import ManifestRow, PlanRow
from ohmq.bulk.sinks import FileSink, ParquetSink, RowsSink, Sink, TarSink, find_member, read_members
from ohmq.bulk.tasks import OutcomeKind, ShardOutcome, ShardTask
from ohmq.errors import OhmqError, OutputWriteError
from ohmq.imaging.listing import IMAGE_EXTENSIONS
from ohmq.storage.errors import AccessError, NotFoundError, ShardError, StorageError, TransientStorageError
from ohmq.storage.keys import image_positions, output_fields
from ohmq.storage.open_store import open_store
from ohmq.storage.parquet_shards import ParquetShard
from ohmq.storage.store import Store
from ohmq.storage.tar_shards import index_tar, read_samples
from ohmq.storage.urls import redacted

__all__ = ["ChangedSourceError", "do_shard", "marker_outcome", "source_url", "superseded"]

READS_AHEAD = 8
"""Number of objects that are read from an object store while others are processed."""


class ChangedSourceError(StorageError):
    """A source is not the one that was planned."""


def do_shard(task: ShardTask) -> ShardOutcome:
    """Do one shard. Errors of images are rows of its manifest; those of the shard are in the outcome.

    Args:
        task: the shard.
    """
    start = time.monotonic()
    kind: OutcomeKind
    try:
        if task.version != __version__:
            kind, text = "mismatch", f"the worker has ohmq {__version__}, and the driver has {task.version}"
        else:
            return _ShardWork(task).run()
    except TransientStorageError as error:
        kind, text = "transient", str(error)
    except _MismatchError as error:
        kind, text = "mismatch", str(error)
    except OhmqError as error:
        kind, text = "fatal", str(error)
    except OSError as error:  # of temporary files
        kind, text = "fatal", f"{error.filename or 'temporary file'}: {error.strerror or error}"
    except Exception as error:  # a bug: the driver must hear of it, or it would try again and again
        traceback.print_exc()
        kind, text = "fatal", f"shard {shard_label(task.shard)}: {type(error).__name__}: {error}"
    return ShardOutcome(task.shard, kind, text, seconds=time.monotonic() - start, worker=_worker())


def marker_outcome(marker: Marker) -> ShardOutcome:
    """Return the outcome of a shard that has a marker.

    Args:
        marker: its marker.
    """
    return ShardOutcome(
        marker.shard,
        "done",
        None,
        marker.images + marker.failed,
        marker.failed,
        marker.bytes_in,
        marker.bytes_out,
        marker.pixels,
        marker.seconds,
        marker.worker,
    )


def source_url(roots: tuple[str, ...], row: PlanRow) -> str:
    """Return the path or URL of a source, without credentials.

    Args:
        roots: roots of the plan.
        row: row of the plan.
    """
    return f"{redacted(roots[row.source]).rstrip('/')}/{row.path}"


def superseded(plan: Plan) -> set[tuple[int, str]]:
    """Return shard and source of the images that a later generation of the plan has anew.

    Args:
        plan: the plan.
    """
    found = set()
    for shard in plan.shards() if len(plan.generations) > 1 else ():
        if shard.generation:
            roots = plan.roots(shard)
            found |= {(row.replaces, source_url(roots, row)) for row in plan.rows(shard) if row.replaces >= 0}
    return found


class _MismatchError(OhmqError):
    """The worker's model is not the driver's."""


class _Image(NamedTuple):
    """One image of a shard: its place, its names, and how to read it."""

    index: int  # type: ignore[assignment]
    source: str
    member: str | None
    key: str
    output_key: str
    field: str
    size: int
    read: Callable[[], bytes]
    problem: str | None = None


def _worker() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _base_name(name: str) -> str:
    """Return the last part of a path or URL."""
    return name.rpartition("/")[2] or name


@functools.lru_cache(maxsize=4)
def _operation_for(operation: str, fields: str, device: str, compiled: bool | None) -> Operation:
    """Make an operation once in a process, ``fields`` being the JSON of its job."""
    return make_operation(BulkJob.from_json(fields))


@functools.lru_cache(maxsize=1)
def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _operation(task: ShardTask) -> Operation:
    """Return the operation of a job, ready to use and checked against the driver's model."""
    job = task.job
    if job.operation != "truncate":
        _set_threads(job.threads)
    operation = _operation_for(job.operation, job.to_json(), job.device, job.compiled)
    if (operation.model_id or None) != task.model_id:
        raise _MismatchError(
            f"the worker's model {job.model} is {operation.model_id or 'none'}, the driver's is {task.model_id or 'none'}: "
            "the same model file must be on all machines"
        )
    return operation


class _ShardWork:
    """One attempt at a shard."""

    def __init__(self, task: ShardTask) -> None:
        self.task, self.job, self.shard = task, task.job, task.shard
        self.start = time.monotonic()
        self.target: Store = open_store(task.job.target_root, for_writing=True)
        self.sources: dict[int, Store] = {}
        self.rows: list[ManifestRow] = []
        self.earlier: dict[int, ManifestRow] = {}
        self.members: dict[str, bytes] = {}
        self.earlier_outputs: dict[str, Output] = {}

    def run(self) -> ShardOutcome:
        task = self.task
        marker = read_marker(self.target, self.shard)
        if marker is not None:
            if marker.plan_hash != task.planned.plan_hash:
                raise StorageError(
                    f"the marker of shard {shard_label(self.shard)} belongs to another plan; choose another target"
                )
            if not task.retry:
                return marker_outcome(marker)
            self._read_earlier(marker)
        self.operation = _operation(task)
        plan_rows = read_rows(self.target, task.planned)
        self.watch = ImageWatch(self.target, self.shard, task.attempt, self.job.image_timeout_s)
        done = False
        try:
            outputs = self._outputs(plan_rows)
            if task.attempt > 1 and not task.retry and (other := read_marker(self.target, self.shard)):
                return marker_outcome(other)  # another attempt, that was believed lost, has finished
            marker = make_marker(
                self.shard,
                self.rows,
                outputs,
                plan_hash=task.planned.plan_hash,
                options_hash=task.options_hash,
                model_id=task.model_id,
                seconds=time.monotonic() - self.start,
                attempt=task.attempt,
                worker=_worker(),
            )
            write_shard(self.target, self.rows, marker)
            done = True
            return marker_outcome(marker)
        finally:
            self.watch.close(done=done)

    # -- retry: what is good stays --

    def _read_earlier(self, marker: Marker) -> None:
        rows = read_shard_manifest(self.target, self.shard)
        self.earlier = {row.index: row for row in rows if row.error is None}
        self.earlier_outputs = {output.path: output for output in marker.outputs}
        for output in marker.outputs:
            if output.path.lower().endswith((".tar", ".parquet")) and self.earlier:
                self.members = read_members(self.target, output.path, self.job.image_column)

    # -- sources --

    def _source(self, number: int) -> Store:
        if number not in self.sources:
            self.sources[number] = open_store(self.task.roots[number])
        return self.sources[number]

    def _read_planned(self, row: PlanRow) -> bytes:
        """Read an object, and check that it is the one that was planned."""
        store = self._source(row.source)
        data = store.read(row.path)
        self._check_unchanged(store, row)
        return data

    def _check_unchanged(self, store: Store, row: PlanRow) -> None:
        if not row.version:
            return
        info = store.info(row.path)
        if info is None:
            raise NotFoundError(f"{source_url(self.task.roots, row)} does not exist")
        if info.version != row.version:
            raise ChangedSourceError(f"{source_url(self.task.roots, row)} changed since it was planned; run --update")

    def _outputs(self, plan_rows: list[PlanRow]) -> list[Output]:
        kind = plan_rows[0].kind if plan_rows else "object"
        if kind == "object":
            return self._single_files(plan_rows)
        (row,) = plan_rows
        first_rows = len(self.rows)
        try:
            return self._tar(row) if kind == "tar" else self._parquet(row)
        except (ShardError, NotFoundError, ChangedSourceError) as error:
            # One row for the whole source: its images cannot be told.
            del self.rows[first_rows:]
            self.rows.append(self._failed_source(row, str(error)))
            return []
        except AccessError as error:
            if not self._source(row.source).is_local:
                raise
            self.rows.append(self._failed_source(row, str(error)))
            return []

    def _single_files(self, plan_rows: list[PlanRow]) -> list[Output]:
        job, extension = self.job, self.operation.extension[1:]
        layout = job.layout_for("object")
        path = job.output_of("object", self.shard, "")
        sink = self._sink(layout, "" if layout == "files" else path)
        images = (
            _Image(
                row.index,
                source_url(self.task.roots, row),
                None,
                row.key,
                row.key,
                extension,
                max(row.size, 0),
                functools.partial(self._read_planned, row),
            )
            for row in plan_rows
        )
        remote = bool(plan_rows) and not self._source(plan_rows[0].source).is_local
        try:
            for image in self._read_ahead(images) if remote else images:
                self._do(image, sink, files=layout == "files")
            return self._publish(sink)
        finally:
            sink.close()

    def _read_ahead(self, images: Iterable[_Image]) -> Iterator[_Image]:
        """Read some images ahead in threads, in order."""
        waiting: deque[tuple[_Image, Future[bytes]]] = deque()
        with ThreadPoolExecutor(READS_AHEAD) as pool:
            for image in images:
                if image.index in self.earlier:
                    future: Future[bytes] = Future()
                    future.set_result(b"")
                else:
                    future = pool.submit(image.read)
                waiting.append((image, future))
                if len(waiting) > READS_AHEAD:
                    first, read = waiting.popleft()
                    yield first._replace(read=read.result)
            while waiting:
                first, read = waiting.popleft()
                yield first._replace(read=read.result)

    def _publish(self, sink: Sink | RowsSink) -> list[Output]:
        """Write the output. The marker of an older output goes first: if this worker is killed, the shard is done anew."""
        if self.task.retry:
            self.target.delete(marker_path(self.shard))
        return sink.publish()

    def _sink(self, layout: str, path: str) -> Sink:
        if layout == "files":
            return FileSink(self.target, path)
        if layout == "tar":
            return TarSink(self.target, path)
        return ParquetSink(self.target, path, readable=self.job.operation == "decompress")

    def _tar(self, row: PlanRow) -> list[Output]:
        layout = self.job.layout_for("tar")
        name = source_url(self.task.roots, row)
        sink = self._sink(layout, self.job.output_of("tar", self.shard, row.key))
        store = self._source(row.source)
        extensions = IMAGE_EXTENSIONS if self.job.operation == "compress" else (".ohm",)
        try:
            with store.fetch(row.path) as file:
                self._check_unchanged(store, row)
                for _ in index_tar(file, name):  # a shard that is cut is found before any work
                    pass
                file.seek(0)
                number = 0
                for sample in read_samples(file, name):
                    positions = image_positions(sample.fields, extensions)
                    taken = [field for place, field in enumerate(sample.fields) if place not in positions and field]
                    problem = sample.members[0].problem or None
                    fields = [sample.fields[place] for place in positions]
                    try:
                        fields = output_fields(
                            fields, self.operation.extension[1:], extensions=IMAGE_EXTENSIONS, taken=taken
                        )
                    except ValueError as error:
                        problem = str(error)
                    for place, (member, content) in enumerate(zip(sample.members, sample.contents, strict=True)):
                        if place not in positions and not sample.members[0].problem:
                            sink.pass_on(member.name, content)
                            continue
                        field = "" if sample.members[0].problem else fields[positions.index(place)]
                        image = _Image(
                            number,
                            name,
                            member.name,
                            sample.key,
                            sample.key,
                            field,
                            member.size,
                            functools.partial(bytes, content),
                            problem,
                        )
                        self._do(image, sink, files=layout == "files")
                        number += 1
            return self._publish(sink)
        finally:
            sink.close()

    def _parquet(self, row: PlanRow) -> list[Output]:
        layout = self.job.layout_for("parquet")
        name = source_url(self.task.roots, row)
        path = self.job.output_of("parquet", self.shard, row.key)
        extension = self.operation.extension[1:]
        store = self._source(row.source)
        sink: Any = None
        try:
            with store.fetch(row.path) as file:
                self._check_unchanged(store, row)
                shard = ParquetShard(file, name, self.job.image_column)
                if layout == "parquet":
                    sink = RowsSink(self.target, path, shard, readable=self.job.operation == "decompress")
                else:
                    sink = self._sink(layout, path)
                number = 0
                first_group, last_group = (row.first_group, row.last_group) if row.first_group >= 0 else (0, None)
                for rows in shard.read(first_group, last_group):
                    results: list[bytes | None] = []
                    for place, content in enumerate(rows.images):
                        member = str(rows.first + place)
                        image = _Image(
                            number,
                            name,
                            member,
                            rows.names[place] or member,
                            member.zfill(8),
                            extension,
                            len(content or b""),
                            functools.partial(bytes, content or b""),
                            None if content is not None else "the row has no image",
                        )
                        if layout == "parquet":
                            results.append(self._do_row(image, path))
                        else:
                            self._do(image, sink, files=layout == "files")
                        number += 1
                    if layout == "parquet":
                        sink.write(rows, results)
            return self._publish(sink)
        finally:
            if sink is not None:
                sink.close()

    # -- images --

    def _do(self, image: _Image, sink: Sink, *, files: bool) -> None:
        """Do one image, and give the result to the sink."""
        if (row := self.earlier.get(image.index)) is not None:
            if isinstance(sink, FileSink) and row.output is not None:
                sink.keep(self.earlier_outputs[row.output])
                self.rows.append(row)
                return
            data = find_member(self.members, f"{image.output_key}.{row.field}")
            if data is not None and hashlib.sha256(data).hexdigest() == row.output_sha256:
                sink.add(image.output_key, row.field or "", data)
                self.rows.append(row)
                return
        row, data = self._process(image)
        if data is not None:
            try:
                output = sink.add(image.output_key, image.field, data)
                row = row._replace(output=output, field=None if files else image.field)
            except OutputWriteError as error:
                if getattr(error.__cause__, "errno", None) != errno.ENAMETOOLONG:
                    raise
                row = self._failed(row, str(error))
        self.rows.append(row)

    def _do_row(self, image: _Image, path: str) -> bytes | None:
        """Do one row of a Parquet shard."""
        if (row := self.earlier.get(image.index)) is not None:
            data = self.members.get(str(image.index))
            if data is not None and hashlib.sha256(data).hexdigest() == row.output_sha256:
                self.rows.append(row)
                return data
        row, data = self._process(image)
        self.rows.append(row if data is None else row._replace(output=path))
        return data

    def _process(self, image: _Image) -> tuple[ManifestRow, bytes | None]:
        """Do one image: its row of the manifest, without the output's place, and its output; None: failed."""
        start = time.perf_counter()
        row = ManifestRow(
            shard=self.shard,
            index=image.index,
            source=image.source,
            member=image.member,
            key=image.key,
            output=None,
            field=None,
            source_sha256=None,
            output_sha256=None,
            symbols_sha256=None,
            bytes_in=image.size,
            bytes_out=0,
            width=0,
            height=0,
            bpp=None,
            psnr_db=None,
            seconds=0.0,
            attempt=self.task.attempt,
            worker=_worker(),
        )
        problem = image.problem or self.watch.problem(image.index)
        result = None
        if problem is None:
            try:
                with self.watch.image(image.index):
                    data = image.read()
                    row = row._replace(source_sha256=hashlib.sha256(data).hexdigest(), bytes_in=len(data))
                    result = self.operation(_base_name(image.member or image.source), data)
            except TransientStorageError:
                raise
            except AccessError as error:
                if not all(store.is_local for store in self.sources.values()):
                    raise
                problem = str(error)
            except MemoryError:
                problem = "not enough memory for this image"
            except Exception as error:  # whatever an image does, the others of the shard go on
                problem = str(error) if isinstance(error, OhmqError) else f"{type(error).__name__}: {error}"
        row = row._replace(seconds=time.perf_counter() - start)
        if result is None:
            return self._failed(row, problem or ""), None
        return (
            row._replace(
                output_sha256=hashlib.sha256(result.data).hexdigest(),
                symbols_sha256=result.symbols_sha256,
                bytes_out=len(result.data),
                width=result.width,
                height=result.height,
                bpp=8 * len(result.data) / (result.width * result.height),
                psnr_db=result.psnr_db,
                notes="\n".join(result.notes),
            ),
            result.data,
        )

    def _failed(self, row: ManifestRow, problem: str) -> ManifestRow:
        """Return the row of an image that failed; the message does not repeat the name that the row has."""
        name = row.member or row.source
        for prefix in (name, _base_name(name)):
            problem = problem.removeprefix(f"{prefix}: ")
        return row._replace(
            output=None,
            field=None,
            output_sha256=None,
            symbols_sha256=None,
            bytes_out=0,
            bpp=None,
            psnr_db=None,
            error=" ".join(problem.split()) or "unknown error",
        )

    def _failed_source(self, row: PlanRow, problem: str) -> ManifestRow:
        name = source_url(self.task.roots, row)
        empty = ManifestRow(
            self.shard, 0, name, None, row.key, None, None, None, None, None, max(row.size, 0), 0, 0, 0, None, None, 0.0,
            self.task.attempt, _worker(),
        )  # fmt: skip
        return self._failed(empty, problem)
