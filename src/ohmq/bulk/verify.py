"""Verify the outputs of a bulk job: they are there, unchanged, and decode to the symbols that were coded."""

import hashlib
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from ohmq.bulk.job import BulkJob
from ohmq.bulk.manifest import Marker, Output, read_markers, read_shard_manifest, rows_hash
from ohmq.bulk.plan import Plan, read_plan, read_rows
from ohmq.bulk.rows import ManifestRow
from ohmq.bulk.shard_work import source_url, superseded
from ohmq.bulk.sinks import find_member, read_members
from ohmq.errors import OhmqError
from ohmq.storage.errors import NotFoundError, TransientStorageError
from ohmq.storage.open_store import open_store
from ohmq.storage.parquet_shards import ParquetShard
from ohmq.storage.store import Store
from ohmq.storage.tar_shards import index_tar

__all__ = ["Fault", "VerifyReport", "verify"]


@dataclass(frozen=True)
class Fault:
    """Something that is not as the manifest says.

    Attributes:
        shard: number of the shard.
        place: output, or source for a fault of a source.
        message: one line.
    """

    shard: int
    place: str
    message: str


@dataclass(kw_only=True)
class VerifyReport:
    """Outcome of a verification.

    Attributes:
        shards: number of shards that were checked.
        unfinished: number of shards of the plan without a marker.
        outputs: number of outputs whose hashes were compared.
        images: number of images that were looked up in them and whose hashes were compared.
        decoded: number of images that were decoded.
        sources: number of sources that were compared.
        failed: number of images that failed in the job, which have no output.
        lowest_psnr_db: lowest PSNR against a source, in dB; None: not measured.
        faults: faults, the first of each shard to the last.
    """

    shards: int = 0
    unfinished: int = 0
    outputs: int = 0
    images: int = 0
    decoded: int = 0
    sources: int = 0
    failed: int = 0
    lowest_psnr_db: float | None = None
    faults: list[Fault] = field(default_factory=list)


def verify(
    target: str,
    *,
    against_sources: bool = False,
    sample: float = 1.0,
    device: str = "cpu",
    compiled: bool | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Verify the outputs of a job.

    All outputs are read and their hashes compared with the markers'; each image is looked up in its shard and its hash
    compared with the manifest's. The images of the sample are decoded; their symbols must have the hash of the manifest.
    Images that failed in the job have no output: they are counted, not faults.

    Args:
        target: target of the job.
        against_sources: read the sources of the sample too: their hashes must be those of the manifest, and the PSNR of
            compressed images is measured.
        sample: fraction of the images to decode, chosen by their place, the same at each call.
        device: device that runs the transforms.
        compiled: whether numba compiles the inner loops; None: if it is installed.
        on_progress: called with the number of finished shards and of all shards.

    Returns:
        The report.

    Raises:
        ConfigError: no job there.
        ValueError: a sample outside 0 to 1.
        StorageError: the target cannot be reached.
    """
    if not 0 <= sample <= 1:
        raise ValueError(f"sample is {sample}; it must lie in 0 to 1")
    store = open_store(BulkJob(operation="compress", sources=("-",), target=target).target_root)
    plan = read_plan(store)
    report = VerifyReport()
    checker = _Checker(store, plan, report, against_sources, sample, device, compiled)
    planned = {shard.shard: shard for shard in plan.shards()} if against_sources else {}
    for marker in read_markers(store):
        report.shards += 1
        checker.check(marker, planned.get(marker.shard))
        if on_progress is not None:
            on_progress(report.shards, plan.num_shards)
    report.unfinished = plan.num_shards - report.shards
    return report


class _Checker:
    """Checks shards one after the other."""

    def __init__(
        self,
        store: Store,
        plan: Plan,
        report: VerifyReport,
        against_sources: bool,
        sample: float,
        device: str,
        compiled: bool | None,
    ) -> None:
        self.store, self.plan, self.report = store, plan, report
        self.against_sources, self.sample = against_sources, sample
        self.device, self.compiled = device, compiled
        self.job = plan.job
        self.superseded = superseded(plan)

    def _fault(self, shard: int, place: str, message: str) -> None:
        self.report.faults.append(Fault(shard, place, message))

    def check(self, marker: Marker, planned: Any) -> None:
        """Check one shard."""
        shard = marker.shard
        try:
            all_rows = read_shard_manifest(self.store, shard)
        except TransientStorageError:
            raise
        except OhmqError as error:
            self._fault(shard, "manifest", str(error))
            return
        if rows_hash(all_rows) != marker.rows_sha256:
            self._fault(shard, "manifest", "its rows are not those of the marker")
        rows = [row for row in all_rows if not self._is_replaced(row)]
        self.report.failed += sum(row.error is not None for row in rows)
        chosen = {row.index: row for row in rows if row.error is None and self._in_sample(row)}
        contents: dict[int, bytes] = {}
        replaced = {row.output for row in all_rows if self._is_replaced(row) and row.field is None}
        for output in marker.outputs:
            if output.path in replaced:  # a later shard has written it anew
                continue
            contents |= self._check_output(shard, output, rows, chosen)
        known = {output.path for output in marker.outputs}
        for row in rows:
            if row.error is None and row.output not in known:
                self._fault(shard, row.output or row.key, "the marker does not name this output")
        for index, data in contents.items():
            self._check_image(chosen[index], data)
        if self.against_sources and chosen and planned is not None:
            self._check_sources(planned, chosen, contents)

    def _is_replaced(self, row: ManifestRow) -> bool:
        """Whether an update has coded the source of an image anew: its older output counts no more."""
        return row.member is None and (row.shard, row.source) in self.superseded

    def _in_sample(self, row: ManifestRow) -> bool:
        place = zlib.crc32(f"{row.shard}/{row.index}".encode()) / 2**32
        return place < self.sample or self.sample == 1

    def _check_output(
        self, shard: int, output: Output, rows: list[ManifestRow], chosen: dict[int, ManifestRow]
    ) -> dict[int, bytes]:
        """Check one output; returns the content of its images that are in the sample."""
        self.report.outputs += 1
        mine = [row for row in rows if row.error is None and row.output == output.path]
        single = len(mine) == 1 and mine[0].field is None and mine[0].output_sha256 == output.sha256
        try:
            if single or not mine:
                data = self.store.read(output.path)
                digest = hashlib.sha256(data).hexdigest()
                members = {"": data}
            else:
                with self.store.fetch(output.path) as file:
                    digest = hashlib.file_digest(cast(Any, file), "sha256").hexdigest()
                members = read_members(self.store, output.path, self.job.image_column)
        except TransientStorageError:
            raise
        except NotFoundError:
            self._fault(shard, output.path, "missing")
            return {}
        except OhmqError as error:
            self._fault(shard, output.path, str(error))
            return {}
        if digest != output.sha256:
            self._fault(shard, output.path, "not the bytes that the job wrote")
        found = {}
        for row in mine:
            name = "" if single else self._member_name(row)
            member = find_member(members, name)
            self.report.images += 1
            if member is None:
                self._fault(shard, output.path, f"{name} is missing")
            elif hashlib.sha256(member).hexdigest() != row.output_sha256:
                self._fault(shard, output.path, f"{name or 'the image'} is not the one that the job wrote")
            elif row.index in chosen:
                found[row.index] = member
        return found

    def _member_name(self, row: ManifestRow) -> str:
        """Return the name of an image in its shard, as `read_members` gives it."""
        if row.field is None:
            return str(row.index)
        key = (row.member or "").zfill(8) if (row.member or "").isdigit() else row.key
        return f"{key}.{row.field}"

    def _check_image(self, row: ManifestRow, data: bytes) -> None:
        """Decode an image of the sample, and compare its symbols."""
        place = f"{row.output}: {row.key}"
        self.report.decoded += 1
        try:
            if self.job.operation == "decompress":
                from ohmq.imaging.files import open_image

                open_image(row.key, data=data, max_pixels=self.job.options.max_pixels)
                return
            codec = self._codec(data)
            file, symbols = codec.decode(data, max_pixels=self.job.options.max_pixels)
            if row.symbols_sha256 is not None and symbols.sha256(file.num_channels) != row.symbols_sha256:
                self._fault(row.shard, place, "decodes to other symbols than were coded")
        except OhmqError as error:
            self._fault(row.shard, place, f"does not decode: {error}")

    def _codec(self, data: bytes) -> Any:
        from ohmq.loading import load_for, named_codec

        if self.job.operation in ("compress", "transcode"):
            return named_codec(self.job.model, compiled=self.compiled, device=self.device)
        if self.job.decode_model:
            return named_codec(self.job.decode_model, compiled=self.compiled, device=self.device)
        return load_for(data, compiled=self.compiled, device=self.device)

    def _check_sources(self, planned: Any, chosen: dict[int, ManifestRow], contents: dict[int, bytes]) -> None:
        for index, source in self._sources(planned, chosen):
            row = chosen[index]
            self.report.sources += 1
            place = f"{row.source}: {row.member}" if row.member else row.source
            if isinstance(source, OhmqError):
                self._fault(row.shard, place, str(source))
            elif hashlib.sha256(source).hexdigest() != row.source_sha256:
                self._fault(row.shard, place, "the source is not the one that was coded")
            elif self.job.operation == "compress" and index in contents:
                try:
                    self._measure(source, contents[index])
                except OhmqError as error:
                    self._fault(row.shard, place, str(error))

    def _measure(self, source: bytes, data: bytes) -> None:
        from ohmq.imaging.convert import prepare_image
        from ohmq.imaging.files import open_image

        codec, options = self._codec(data), self.job.options
        loaded = open_image("source", data=source, max_pixels=options.max_pixels)
        prepared = prepare_image(loaded.image, grey=codec.grey, flatten=options.flatten).image
        file, symbols = codec.decode(data, max_pixels=options.max_pixels)
        psnr_db = codec.encoder.psnr_db(prepared, symbols, file.num_channels)
        if psnr_db < math.inf:
            lowest = self.report.lowest_psnr_db
            self.report.lowest_psnr_db = psnr_db if lowest is None else min(lowest, psnr_db)

    def _sources(self, planned: Any, chosen: dict[int, ManifestRow]) -> Iterator[tuple[int, bytes | OhmqError]]:
        """Read the sources of chosen images."""
        plan_rows = read_rows(self.store, planned)
        roots = self.plan.roots(planned)
        for plan_row in plan_rows:
            store = open_store(roots[plan_row.source])
            name = source_url(roots, plan_row)
            try:
                if plan_row.kind == "object":
                    if plan_row.index in chosen:
                        yield plan_row.index, store.read(plan_row.path)
                    continue
                with store.fetch(plan_row.path) as file:
                    if plan_row.kind == "tar":
                        members = {member.name: member for member in list(index_tar(file, name))}
                        for index, row in chosen.items():
                            member = members.get(row.member or "")
                            if member is None:
                                yield index, NotFoundError(f"{row.member} is no longer in {name}")
                                continue
                            file.seek(member.offset)
                            yield index, file.read(member.size)
                    else:
                        wanted = {int(row.member or 0): index for index, row in chosen.items()}
                        shard = ParquetShard(file, name, self.job.image_column)
                        groups = (plan_row.first_group, plan_row.last_group) if plan_row.first_group >= 0 else (0, None)
                        for rows in shard.read(*groups):
                            for number, image in enumerate(rows.images):
                                if rows.first + number in wanted:
                                    yield wanted[rows.first + number], image or b""
            except TransientStorageError:
                raise
            except OhmqError as error:
                for index in [plan_row.index] if plan_row.kind == "object" else chosen:
                    yield index, error
