"""Status of a bulk job, from its plan, markers and manifest; sources and outputs are not read."""

import contextlib
import csv
import heapq
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ohmq.bulk.job import CONTROL
from ohmq.bulk.manifest import read_markers, read_shard_manifest
from ohmq.bulk.plan import read_plan
from ohmq.bulk.rows import ManifestRow
from ohmq.errors import OutputWriteError
from ohmq.storage.errors import NotFoundError
from ohmq.storage.store import Store

__all__ = ["PROGRESS_FILE", "BulkStatus", "FailureKind", "SlowShard", "failure_kind", "read_status", "write_progress"]

PROGRESS_FILE = f"{CONTROL}/progress.json"
"""Path of the driver's report below the target's root; it rewrites it every half minute."""
LIVE_S = 120.0
"""Seconds without a report after which a driver counts as gone."""
MAX_KINDS = 1000
"""Number of kinds of failures that are told apart; further ones count together."""
SLOWEST = 5
"""Number of slow shards that are named."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_PATH = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://|/)\S+")
_FIELDS = ("shard", "index", "source", "member", "key", "kind", "error", "bytes_in", "attempt", "worker")


class FailureKind(NamedTuple):
    """A kind of failure: its text without names and numbers, how often it occurs, and one image."""

    kind: str
    images: int
    example: str
    error: str


class SlowShard(NamedTuple):
    """A shard and its time in seconds."""

    shard: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class BulkStatus:
    """Status of a bulk job.

    Attributes:
        target: URL of the target's root.
        operation: operation of the job.
        model: model of the job.
        model_id: its id; None: no model, or that of each file.
        generations: number of generations of the plan.
        shards: number of shards in the plan.
        done: number of finished shards.
        running: shards that a driver reports as running now, and their seconds; empty: no driver has reported lately.
        rows: number of rows of the plan: single files, tars, Parquet files or parts of one.
        bytes_planned: size of the planned sources in bytes.
        images: number of images that are done.
        failed: number of images with an error.
        bytes_in: size of the source images so far, in bytes.
        bytes_out: size of the output images in bytes.
        pixels: number of pixels of the images that are done.
        seconds: seconds of all finished shards together.
        foreign: markers that belong to no generation of the plan.
        slowest: the slowest finished shards.
        failures: kinds of failures, the most frequent first.
    """

    target: str
    operation: str
    model: str
    model_id: str | None
    generations: int
    shards: int
    done: int
    running: dict[int, float]
    rows: int
    bytes_planned: int
    images: int
    failed: int
    bytes_in: int
    bytes_out: int
    pixels: int
    seconds: float
    foreign: int
    slowest: tuple[SlowShard, ...]
    failures: tuple[FailureKind, ...]

    @property
    def left(self) -> int:
        """Number of shards that are neither finished nor running."""
        return self.shards - self.done - len(self.running)

    @property
    def bpp(self) -> float | None:
        """Bits of the outputs for each pixel; None: nothing is done."""
        return 8 * self.bytes_out / self.pixels if self.pixels else None

    @property
    def images_per_s(self) -> float | None:
        """Images a second of one worker; None: nothing is done."""
        return self.images / self.seconds if self.seconds else None

    def to_dict(self) -> dict[str, Any]:
        """Return the status as JSON has it."""
        return {
            **asdict(self),
            "running": {str(shard): seconds for shard, seconds in self.running.items()},
            "slowest": [shard._asdict() for shard in self.slowest],
            "failures": [kind._asdict() for kind in self.failures],
            "left": self.left,
            "bpp": self.bpp,
            "images_per_s": self.images_per_s,
        }


def write_progress(store: Store, running: Mapping[int, float]) -> None:
    """Report the shards that run, for `read_status`; the driver calls it every half minute, and with none at its end.

    Args:
        store: store of the target's root.
        running: number of each shard that runs, and its seconds.
    """
    report = {"time": time.time(), "running": {str(shard): seconds for shard, seconds in running.items()}}
    store.write(PROGRESS_FILE, json.dumps(report).encode())


def _read_progress(store: Store) -> dict[int, float]:
    """Return the shards that run by the latest report, if that is not old by this machine's clock."""
    try:
        report = json.loads(store.read(PROGRESS_FILE))
        age_s = time.time() - report["time"]
        running = {int(shard): seconds + max(age_s, 0.0) for shard, seconds in report["running"].items()}
    except (NotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return running if age_s < LIVE_S else {}


def read_status(store: Store, *, failures: Path | None = None) -> BulkStatus:
    """Read the status of the job of a target: its plan, all markers, and the manifest of shards with failures.

    Args:
        store: store of the target's root.
        failures: CSV file that gets a line for each image that failed; it is replaced whole.

    Raises:
        ConfigError: the target holds no job.
        StorageError: a file of the job is damaged.
        OutputWriteError: the CSV file cannot be written.
    """
    plan = read_plan(store)
    job = plan.job
    hashes = {generation.plan_hash for generation in plan.generations}
    sums = dict.fromkeys(("images", "failed", "bytes_in", "bytes_out", "pixels", "seconds"), 0.0)
    done = foreign = 0
    slowest: list[tuple[float, int]] = []
    counter = _FailureCounter()
    running = _read_progress(store)
    with _failures_file(failures) as write_failure:
        for marker in read_markers(store):
            if marker.plan_hash not in hashes:
                foreign += 1
                continue
            done += 1
            running.pop(marker.shard, None)
            for name in sums:
                sums[name] += getattr(marker, name)
            heapq.heappush(slowest, (marker.seconds, marker.shard))
            if len(slowest) > SLOWEST:
                heapq.heappop(slowest)
            for row in read_shard_manifest(store, marker.shard) if marker.failed else ():
                if row.error is not None:
                    kind = counter.add(row)
                    write_failure(row, kind)
    counts = {name: int(value) for name, value in sums.items() if name != "seconds"}
    return BulkStatus(
        target=store.url,
        operation=job.operation,
        model=job.model,
        model_id=plan.model_id,
        generations=len(plan.generations),
        shards=plan.num_shards,
        done=done,
        running=running,
        rows=plan.num_rows,
        bytes_planned=plan.num_bytes,
        seconds=sums["seconds"],
        foreign=foreign,
        slowest=tuple(SlowShard(shard, seconds) for seconds, shard in sorted(slowest, reverse=True)),
        failures=counter.kinds(),
        **counts,
    )


def failure_kind(row: ManifestRow) -> str:
    """Return the kind of a failure: its message without the names and numbers that differ from image to image.

    Args:
        row: a row with an error.

    Example:
        >>> row = ManifestRow(0, 0, "/photos/a", None, "a", None, None, None, None, None, 0, 0, 0, 0, None, None, 0, 1, "",
        ...                   "/photos/a: cannot be read: 17 of 40 bytes")
        >>> failure_kind(row)
        '…: cannot be read: N of N bytes'
    """
    text = row.error or ""
    for name in filter(None, (row.source, row.source.rpartition("/")[2], row.member)):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "…", text)
    text = _PATH.sub("…", _QUOTED.sub("…", text))
    return _NUMBER.sub("N", text)[:200]


@dataclass
class _FailureCounter:
    """Counts of kinds of failures, of `MAX_KINDS` kinds at most."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, tuple[str, str]] = field(default_factory=dict)

    def add(self, row: ManifestRow) -> str:
        """Count a row; returns its kind."""
        kind = failure_kind(row)
        if kind not in self.counts and len(self.counts) >= MAX_KINDS:
            kind = "other kinds"
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if kind not in self.examples:
            name = row.source if row.member is None else f"{row.source}, {row.member}"
            self.examples[kind] = name, row.error or ""
        return kind

    def kinds(self) -> tuple[FailureKind, ...]:
        """Return the kinds, the most frequent first."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return tuple(FailureKind(kind, count, *self.examples[kind]) for kind, count in ordered)


@contextlib.contextmanager
def _failures_file(path: Path | None) -> Iterator[Any]:
    """Write failures to a CSV file, line by line; it gets its name when it is complete."""
    if path is None:
        yield lambda row, kind: None
        return
    temporary = path.parent / f".ohmq-{secrets.token_hex(8)}.part"
    try:
        try:
            with temporary.open("x", newline="", encoding="utf-8", errors="surrogateescape") as file:
                writer = csv.writer(file)
                writer.writerow(_FIELDS)

                def write(row: ManifestRow, kind: str) -> None:
                    values = {**row._asdict(), "kind": kind}
                    writer.writerow([values[name] for name in _FIELDS])

                yield write
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputWriteError(f"{path} cannot be written: {error.strerror or error}") from error
