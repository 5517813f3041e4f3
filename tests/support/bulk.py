"""Bulk jobs in tests: an engine inside the test's process, small sources, and comparisons of targets."""

import io
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from ohmq.bulk.job import BulkJob
from ohmq.bulk.manifest import manifest_differences, read_manifest
from ohmq.bulk.rows import ManifestRow
from ohmq.bulk.shard_work import do_shard
from ohmq.bulk.tasks import ShardOutcome, ShardTask
from ohmq.storage.open_store import open_store
from ohmq.storage.tar_shards import index_tar

MODEL = "mnist-ohm"


class InlineEngine:
    """Does shards one by one in this process; ``work`` replaces `do_shard`."""

    slots = 1

    def __init__(self, job: BulkJob, work: Callable[[ShardTask], ShardOutcome] = do_shard) -> None:
        self.work = work
        self.tasks: deque[ShardTask] = deque()
        self.done: list[ShardTask] = []

    def submit(self, task: ShardTask) -> None:
        self.tasks.append(task)

    def wait(self, timeout_s: float) -> list[ShardOutcome]:
        if not self.tasks:
            return []
        self.done.append(self.tasks.popleft())
        return [self.work(self.done[-1])]

    def running(self) -> dict[int, float]:
        return {}

    def close(self) -> None:
        self.tasks.clear()


def digit(seed: int) -> bytes:
    """Make a PNG file of 28 x 28 grey pixels."""
    rng = np.random.default_rng(seed)
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:24, 4:24] = rng.integers(0, 256, (5, 5), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def digits_folder(folder: Path, count: int) -> Path:
    """Write digits ``0000.png``, ... into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number:04d}.png").write_bytes(digit(number))
    return folder


def manifest(target: Path | str) -> list[ManifestRow]:
    return list(read_manifest(open_store(str(target))))


def tar_content(path: Path) -> dict[str, bytes]:
    with path.open("rb") as file:
        members = list(index_tar(file, str(path)))
        content = {}
        for member in members:
            file.seek(member.offset)
            content[member.name] = file.read(member.size)
    return content


def outputs(target: Path) -> dict[str, bytes]:
    """Return all files of a target but those of the control folder."""
    return {
        str(path.relative_to(target)): path.read_bytes()
        for path in sorted(target.rglob("*"))
        if path.is_file() and "_ohmq" not in path.parts
    }


def delete_killed_writes(target: Path, killed: int) -> None:
    """Delete the hidden files that killed processes left: at most one each, as docs/command-line.md says."""
    left = [path for path in target.rglob(".ohmq-*.part") if path.is_file()]
    assert len(left) <= killed, left
    for path in left:
        path.unlink()


def assert_equal_targets(one: Path, other: Path) -> None:
    """Compare outputs byte by byte, and manifests but for seconds, attempt and worker."""
    assert outputs(one) == outputs(other)
    assert manifest_differences(manifest(one), manifest(other)) == []
