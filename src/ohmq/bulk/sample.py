"""Estimate of a job from a random sample: size of the outputs, hours of a core, requests. Nothing is written."""

import io
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from statistics import NormalDist, fmean
from typing import Any, NamedTuple

from ohmq.bulk.job import BulkJob
from ohmq.bulk.operations import Operation
from ohmq.bulk.plan import Plan, RangeFile
from ohmq.bulk.rows import PlanRow
from ohmq.errors import ConfigError, OhmqError
from ohmq.imaging.listing import IMAGE_EXTENSIONS
from ohmq.storage.errors import AccessError, TransientStorageError
from ohmq.storage.keys import image_positions
from ohmq.storage.open_store import open_store
from ohmq.storage.parquet_shards import ParquetShard
from ohmq.storage.store import Store
from ohmq.storage.tar_shards import read_samples
from ohmq.storage.urls import is_url, redacted

__all__ = ["Estimate", "Interval", "Requests", "estimate_total", "sample_plan"]

IMAGES_A_SHARD = 20
"""Number of images that are taken from the start of a sampled tar or Parquet source."""
FEW_SHARDS = 8
"""Number of sampled shards below which their images, and not the shards, are the units of the estimate."""
PLACES_FOR_A_LINE = 8
"""Smallest sample for which outputs are predicted from the sizes of sources."""
_PAGE_OBJECTS = 1000
_TAR_BLOCK = 512


class Interval(NamedTuple):
    """An estimate and its 95 % confidence interval."""

    value: float
    low: float
    high: float


class Requests(NamedTuple):
    """Number of requests of a whole job to one side; none to folders of this machine."""

    gets: int
    heads: int
    puts: int
    lists: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Estimate of a whole job.

    Attributes:
        sampled: number of images that were coded.
        failed: number of images of the sample that failed; they count with outputs of 0 bytes.
        first_error: error of the first of them.
        images: number of images of the job; an estimate where sources are shards.
        bytes_in: size of the sources in bytes.
        bytes_out: size of the outputs in bytes.
        core_hours: hours of one worker; reading of single files is included, that of shards is not.
        images_per_s: images a second of one worker.
        bpp: bits of the sampled outputs for each of their pixels.
        psnr_db: mean PSNR of the sample in dB, if the job measures it.
        source_requests: requests to the sources.
        target_requests: requests to the target.
    """

    sampled: int
    failed: int
    first_error: str | None
    images: int
    bytes_in: int
    bytes_out: Interval
    core_hours: Interval
    images_per_s: float
    bpp: float | None
    psnr_db: float | None
    source_requests: Requests
    target_requests: Requests

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON has it."""
        fields = asdict(self)
        for name in ("bytes_out", "core_hours", "source_requests", "target_requests"):
            fields[name] = {
                key: None if value == math.inf else value for key, value in getattr(self, name)._asdict().items()
            }
        return fields


class _Unit(NamedTuple):
    """A sampled single file, or the sampled start of a shard.

    Attributes:
        size: size in bytes of the source that was sampled; `UNKNOWN_SIZE` if it is unknown.
        images: number of images in it.
        bytes_out: size of the outputs.
        seconds: duration.
    """

    size: int
    images: int
    bytes_out: int
    seconds: float


def _quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's distribution, by its expansion around the normal one."""
    z = NormalDist().inv_cdf(0.975)
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def estimate_total(
    sizes: list[float] | None, values: list[float], count: int, total_size: float, *, ratio: bool = False
) -> Interval:
    """Estimate the sum of a value over a population from a random sample.

    The regression estimator predicts the value from the size by a straight line; the ratio estimator by a line through 0,
    for samples of unequal shares of their units.

    Args:
        sizes: size of each unit of the sample; None: unknown, and the mean stands for all.
        values: value of each unit of the sample.
        count: number of units in the population.
        total_size: sum of the sizes over the population.
        ratio: use the ratio estimator; ``sizes`` and ``values`` are then those of the sampled shares.

    Returns:
        The sum with its 95 % interval; with one unit the interval is unbounded above.

    References: Cochran, Sampling Techniques (1977), chapters 6 and 7.

    Example:
        >>> estimate_total([1.0, 2.0, 3.0], [10.0, 20.0, 30.0], 100, 250.0, ratio=True)
        Interval(value=2500.0, low=2500.0, high=2500.0)
    """
    n = len(values)
    mean = fmean(values)
    slope = spent = 0.0
    if ratio and sizes is not None:
        share = sum(values) / sum(sizes)
        value = share * total_size
        residuals = [y - share * x for x, y in zip(sizes, values, strict=True)]
        scale, spent = total_size / fmean(sizes), 1
    else:
        centre = 0.0
        if sizes is not None and n >= PLACES_FOR_A_LINE:
            centre = fmean(sizes)
            spread = sum((x - centre) ** 2 for x in sizes)
            slope = (
                sum((x - centre) * (y - mean) for x, y in zip(sizes, values, strict=True)) / spread if spread else 0.0
            )
        shift = total_size / count - centre if slope else 0.0
        value = count * (mean + slope * shift)
        places = sizes if sizes is not None and slope else [centre] * n
        residuals = [y - mean - slope * (x - centre) for x, y in zip(places, values, strict=True)]
        scale, spent = count, 2 if slope else 1
    if n >= count and not ratio:
        return Interval(value, value, value)
    if n <= spent:
        return Interval(value, 0.0, math.inf)
    variance = sum(residual**2 for residual in residuals) / (n - spent)
    half = _quantile(n - int(spent)) * scale * math.sqrt(variance / n * (1 if ratio else 1 - n / count))
    return Interval(value, max(0.0, value - half), value + half)


class _Sampler:
    """Coder of sampled images, with sums over them."""

    def __init__(self, job: BulkJob, operation: Operation, on_progress: Callable[[int], None] | None):
        self.job, self.operation, self.on_progress = job, operation, on_progress
        self.extensions = IMAGE_EXTENSIONS if job.operation == "compress" else (".ohm",)
        self.stores: dict[str, Store] = {}
        self.sampled = self.failed = self.pixels = self.bytes_out = 0
        self.seconds = 0.0
        self.first_error: str | None = None
        self.psnr: list[float] = []
        self.is_warm = False

    def store(self, root: str) -> Store:
        """Open a source's store, once."""
        if root not in self.stores:
            self.stores[root] = open_store(root)
        return self.stores[root]

    def code(self, name: str, read: Callable[[], bytes]) -> tuple[int, float]:
        """Read and code one image; returns the size of its output, 0 if it failed, and the seconds."""
        start = time.perf_counter()
        size = 0
        try:
            data = read()
            if not self.is_warm:  # the first image loads the model
                self.is_warm = True
                self.operation(name, data)
                start = time.perf_counter()
            result = self.operation(name, data)
            size = len(result.data)
            self.pixels += result.width * result.height
            self.bytes_out += size
            if result.psnr_db is not None and math.isfinite(result.psnr_db):
                self.psnr.append(result.psnr_db)
        except (AccessError, TransientStorageError):
            raise
        except OhmqError as error:
            self.failed += 1
            self.first_error = self.first_error or str(error)
        seconds = time.perf_counter() - start
        self.sampled += 1
        self.seconds += seconds
        if self.on_progress:
            self.on_progress(self.sampled)
        return size, seconds

    def single_file(self, root: str, row: PlanRow) -> _Unit:
        """Code a single file."""
        size, seconds = self.code(_name(root, row), lambda: self.store(root).read(row.path))
        if size and self.job.layout_for("object") == "tar":
            size = _in_tar(size)
        return _Unit(row.size, 1, size, seconds)

    def start_of_tar(self, root: str, row: PlanRow, limit: int) -> list[_Unit]:
        """Code the first images of a tar; other members count with their size. Returns a unit for each sample."""
        name = _name(root, row)
        units: list[_Unit] = []
        with self._opened(root, row) as file:
            for sample in read_samples(file, name):
                positions = [] if sample.members[0].problem else image_positions(sample.fields, self.extensions)
                size_in = size_out = 0
                seconds = 0.0
                for place, (member, content) in enumerate(zip(sample.members, sample.contents, strict=True)):
                    size, spent = member.size, 0.0
                    if place in positions:
                        size, spent = self.code(f"{name}, {member.name}", lambda content=content: content)  # type: ignore[misc]
                    size_in += _in_tar(member.size)
                    size_out += _in_tar(size)
                    seconds += spent
                units.append(_Unit(size_in, len(positions), size_out, seconds))
                if sum(unit.images for unit in units) >= limit:
                    break
        return units

    def start_of_parquet(self, root: str, row: PlanRow, limit: int) -> list[_Unit]:
        """Code the first images of a Parquet source, or of its row groups. Returns a unit for each row.

        Other columns count with an equal share of the bytes that are no images, as far as the rows that are read tell.
        """
        name = _name(root, row)
        units: list[_Unit] = []
        with self._opened(root, row) as file:
            shard = ParquetShard(file, name, self.job.image_column)
            first, last = max(row.first_group, 0), row.last_group if row.last_group >= 0 else len(shard.group_rows) - 1
            share = row.size / max(1, sum(shard.group_rows[first : last + 1]))
            contents = (image for batch in shard.read(first, last) for image in batch.images)
            for number, content in enumerate(islice(contents, limit)):
                if content is None:
                    units.append(_Unit(0, 0, 0, 0.0))
                    continue
                size, seconds = self.code(f"{name}, row {number}", lambda content=content: content)  # type: ignore[misc]
                units.append(_Unit(len(content), 1, size, seconds))
        rest = max(0, round(share - fmean([unit.size for unit in units]))) if units else 0
        return [unit._replace(size=unit.size + rest, bytes_out=unit.bytes_out + rest) for unit in units]

    @contextmanager
    def _opened(self, root: str, row: PlanRow) -> Iterator[Any]:
        """Open a shard of which only the start is read: a store's object by ranges."""
        store = self.store(root)
        if store.is_local:
            with store.fetch(row.path) as file:
                yield file
        else:
            info = store.info(row.path)
            yield io.BufferedReader(RangeFile(store, row.path, info.size if info else 0), 2**20)


def sample_plan(
    plan: Plan,
    operation: Operation,
    count: int,
    *,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> Estimate:
    """Code some images of a plan taken at random, and estimate the whole job. Nothing is written.

    Single files are drawn one by one. Of tar and Parquet sources some are drawn, and the first `IMAGES_A_SHARD` images of
    each are coded, so that their intervals are wider.

    Args:
        plan: the plan.
        operation: operation of the job, such as `ohmq.bulk.operations.make_operation` gives it.
        count: number of images, about.
        seed: seed of the choice.
        on_progress: called with the number of images that are coded.

    Raises:
        ValueError: ``count`` is below 1.
        ConfigError: every image of the sample failed.
        StorageError: as the stores say.
    """
    if count < 1:
        raise ValueError(f"count is {count}; it must be 1 or more")
    job = plan.job
    kinds = dict.fromkeys(("object", "tar", "parquet"), 0)
    sizes = dict(kinds)
    shards = dict(kinds)
    for shard in plan.shards():
        kinds[shard.kind] += shard.num_rows
        sizes[shard.kind] += shard.num_bytes
        shards[shard.kind] += 1
    sampler = _Sampler(job, operation, on_progress)
    images, bytes_out, seconds = 0.0, [], []
    has_unknown = any(generation.unknown_sizes for generation in plan.generations)
    generator = random.Random(seed)
    for kind, number in kinds.items():
        if not number:
            continue
        share = max(1, round(count * _share(kind, kinds, sizes)))
        is_object = kind == "object"
        wanted = share if is_object else max(FEW_SHARDS, -(-share // IMAGES_A_SHARD))
        chosen = sorted(generator.sample(range(number), min(number, wanted)))
        limit = 1 if is_object else -(-share // len(chosen))
        units: list[_Unit] = []
        for root, row in _chosen_rows(plan, kind, chosen):
            if is_object:
                units.append(sampler.single_file(root, row))
                continue
            start = (sampler.start_of_tar if kind == "tar" else sampler.start_of_parquet)(root, row, limit)
            units += start if len(chosen) < FEW_SHARDS else [_whole(start)]
        if not units:
            continue
        places = None if is_object and has_unknown else [float(max(unit.size, 1)) for unit in units]
        common = {"count": number, "total_size": float(sizes[kind]), "ratio": not is_object}
        bytes_out.append(estimate_total(places, [float(unit.bytes_out) for unit in units], **common))  # type: ignore[arg-type]
        seconds.append(estimate_total(places, [unit.seconds for unit in units], **common))  # type: ignore[arg-type]
        if is_object:
            images += number
        elif places is not None:
            images += sum(unit.images for unit in units) / sum(places) * sizes[kind]
    if not sampler.sampled:
        raise ConfigError("the sample holds no images: the sources drawn are empty")
    if sampler.failed == sampler.sampled:
        raise ConfigError(f"all {sampler.sampled} images of the sample failed, the first with: {sampler.first_error}")
    hours = _added(seconds)
    source, target = _requests(plan, job, kinds, shards, round(images))
    return Estimate(
        sampled=sampler.sampled,
        failed=sampler.failed,
        first_error=sampler.first_error,
        images=round(images),
        bytes_in=sum(sizes.values()),
        bytes_out=_added(bytes_out),
        core_hours=Interval(*(value / 3600 for value in hours)),
        images_per_s=sampler.sampled / sampler.seconds,
        bpp=8 * sampler.bytes_out / sampler.pixels if sampler.pixels else None,
        psnr_db=fmean(sampler.psnr) if sampler.psnr else None,
        source_requests=source,
        target_requests=target,
    )


def _whole(units: list[_Unit]) -> _Unit:
    """Add up the units of a shard."""
    return _Unit(
        sum(unit.size for unit in units),
        sum(unit.images for unit in units),
        sum(unit.bytes_out for unit in units),
        sum(unit.seconds for unit in units),
    )


def _share(kind: str, kinds: dict[str, int], sizes: dict[str, int]) -> float:
    """Return the share of a kind in the sample: that of its bytes."""
    total = sum(sizes.values())
    return sizes[kind] / total if total else kinds[kind] / sum(kinds.values())


def _chosen_rows(plan: Plan, kind: str, chosen: list[int]) -> Iterator[tuple[str, PlanRow]]:
    """Read the rows of a kind that were chosen by their number among the rows of the kind."""
    first = place = 0
    for shard in plan.shards():
        if shard.kind != kind:
            continue
        wanted = []
        while place < len(chosen) and chosen[place] < first + shard.num_rows:
            wanted.append(chosen[place] - first)
            place += 1
        first += shard.num_rows
        if wanted:
            rows, roots = plan.rows(shard), plan.roots(shard)
            yield from ((roots[rows[number].source], rows[number]) for number in wanted)
        if place == len(chosen):
            return


def _added(parts: list[Interval]) -> Interval:
    """Add independent estimates."""
    value = sum(part.value for part in parts)
    below = math.sqrt(sum((part.value - part.low) ** 2 for part in parts))
    above = math.sqrt(sum((part.high - part.value) ** 2 for part in parts))
    return Interval(value, max(0.0, value - below), value + above)


def _requests(
    plan: Plan, job: BulkJob, kinds: dict[str, int], shards: dict[str, int], images: int
) -> tuple[Requests, Requests]:
    """Count the requests of a job without failures, to the sources and to the target."""
    rows, count = sum(kinds.values()), sum(shards.values())
    source = Requests(rows, rows + kinds["tar"] + kinds["parquet"], 0, -(-rows // _PAGE_OBJECTS))
    single_outputs = kinds["object"] if job.layout_for("object") == "files" else shards["object"]
    shard_outputs = sum(
        (images - kinds["object"]) if job.layout_for(kind) == "files" else shards[kind]
        for kind in ("tar", "parquet")
        if shards[kind]
    )
    parts = sum(len(generation.parts) + 2 for generation in plan.generations)
    target = Requests(3 * count, 0, single_outputs + shard_outputs + 2 * count + parts, 2 + -(-count // _PAGE_OBJECTS))
    nothing = Requests(0, 0, 0, 0)
    remote = any(is_url(root) for generation in plan.generations for root in generation.roots)
    return source if remote else nothing, target if is_url(job.target_root) else nothing


def _in_tar(size: int) -> int:
    """Return the bytes that a member of a tar takes."""
    return _TAR_BLOCK + -(-size // _TAR_BLOCK) * _TAR_BLOCK


def _name(root: str, row: PlanRow) -> str:
    return f"{redacted(root).rstrip('/')}/{row.path}"
