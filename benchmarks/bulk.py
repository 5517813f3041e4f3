"""Bulk coding: throughput of both engines, memory of the driver, kills, reruns, resumed training. Ratios of one run.

    python benchmarks/bulk.py [--data PHOTOS] [--only ROW ...] [-o results/bulk.json]

Images are crops of 512x512 of the photos, JPEG files made with a fixed seed. Each run is a process of its own; a worker
has one thread. Times are those of `ohmq.bulk.run`, from the plan to the last marker, with the start of workers and of Ray.
--images, --kill-images, --objects and --plan-rows make it smaller, --small very small: figures then say nothing.
"""

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import ohmq
from ohmq.bulk.driver import run
from ohmq.bulk.job import BulkJob
from ohmq.bulk.manifest import manifest_differences, read_manifest
from ohmq.bulk.tasks import Engine, ShardOutcome, ShardTask
from ohmq.errors import OhmqError
from ohmq.imaging.files import open_image
from ohmq.imaging.listing import list_images
from ohmq.storage.open_store import open_store
from ohmq.storage.tar_shards import TarWriter
from ohmq.utils.atomic_write import check_output, write_atomically
from ohmq.utils.provenance import command_line, software_versions

PHOTOS = Path(__file__).parents[1] / "examples" / "photos"
ENGINES = ("local", "ray")
ROWS = ("throughput", "workers", "loop", "object-store", "memory", "kills", "rerun", "training")
KILLED_WORKERS, KILLED_DRIVERS = 10, 2
SECONDS_BETWEEN_KILLS = (0.5, 3.0)
SMALL = {"images": 8, "images_per_shard": 2, "kill_images": 24, "objects": 40, "plan_rows": 4000, "steps": 4}


class Row(NamedTuple):
    """A figure of the table.

    Attributes:
        row: one of `ROWS`.
        what: the thing measured.
        value: the figure.
        bound: what it must be: "<= 1.05", ">= 0.9" or "== 0".
        met: whether it is.
        note: what it was made of.
    """

    row: str
    what: str
    value: float
    bound: str
    met: bool
    note: str


def row(name: str, what: str, value: float, bound: str, note: str) -> Row:
    """Make a row, and compare its value with its bound."""
    relation, limit = bound.split()
    met = {"<=": value <= float(limit), ">=": value >= float(limit), "==": value == float(limit)}[relation]
    return Row(name, what, value, bound, met, note)


# -- images --


def make_images(photos: Sequence[Path], folder: Path, count: int, side: int) -> Path:
    """Write crops of photos as JPEG files; the same ones for the same photos, count and side."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(side)
    images: dict[Path, Image.Image] = {}
    for number in range(count):
        path = photos[int(rng.integers(len(photos)))]
        if path not in images:
            images = dict(list(images.items())[-15:]) | {path: open_image(path).image.convert("RGB")}
        image = images[path]
        part = (
            int(rng.integers(side // 2, min(side, *image.size) + 1)) if min(image.size) > side // 2 else min(image.size)
        )
        left, upper = (int(rng.integers(length - part + 1)) for length in image.size)
        crop = image.crop((left, upper, left + part, upper + part)).resize((side, side), Image.Resampling.BICUBIC)
        crop.save(folder / f"{number:06d}.jpg", quality=95)
    return folder


# -- runs, each in a process of its own --


class Run(NamedTuple):
    """A run of a job: seconds, images a second with start-up, and use of Ray's object store."""

    seconds: float
    images: int
    shards: int
    created_bytes: int = 0
    spilled_bytes: int = 0


def run_job(job: BulkJob) -> Run:
    """Run a job here; with Ray, read its counters before it ends."""
    use = [0, 0]
    if job.engine == "ray":
        from ohmq.bulk.ray_engine import RayEngine, store_use

        class Counted(RayEngine):
            def close(self) -> None:
                if self._owns_ray and self._ray.is_initialized():
                    use[:] = store_use()
                super().close()

        def engine(job: BulkJob) -> Engine:
            return Counted(workers=job.workers, threads=job.threads)

        summary = run(job, start_engine=engine)
    else:
        summary = run(job)
    if summary.failed or summary.shards_done != summary.shards:
        raise OhmqError(f"{summary.failed} of {summary.images} images failed")
    return Run(summary.seconds, summary.images, summary.shards, *use)


def run_loop(model: str, folder: Path) -> Run:
    """Compress all images of a folder in a loop, with one thread and a codec that is warm."""
    import torch

    torch.set_num_threads(1)
    codec = ohmq.load(model)
    files = sorted(folder.iterdir())
    codec.compress(Image.open(files[0]))
    start = time.perf_counter()
    for path in files:
        with Image.open(path) as image:
            codec.compress(image)
    return Run(time.perf_counter() - start, len(files), 0)


class InstantEngine:
    """An engine that calls every shard done at once, for the memory of the driver."""

    slots = 2

    def __init__(self, job: BulkJob) -> None:
        self.tasks: deque[ShardTask] = deque()

    def submit(self, task: ShardTask) -> None:
        """Take a shard."""
        self.tasks.append(task)

    def wait(self, timeout_s: float) -> list[ShardOutcome]:
        """Return one shard as done."""
        task = self.tasks.popleft()
        return [ShardOutcome(task.shard, "done", images=task.planned.num_rows)]

    def running(self) -> dict[int, float]:
        """Return the shards in flight."""
        return {task.shard: 0.0 for task in self.tasks}

    def close(self) -> None:
        """Do nothing."""


def driver_memory(folder: Path, rows: int) -> int:
    """Plan a job of synthetic rows and drive it to its end without work; returns the driver's peak memory in bytes."""
    listed = folder / f"{rows}.txt"
    with listed.open("w") as file:
        for number in range(rows):
            file.write(f"{folder}/images/{number // 1000:04d}/image-{number:07d}.ohm\t{20_000 + number % 999}\n")
    # To truncate needs no model: torch's own memory would hide what a plan takes.
    job = BulkJob(operation="truncate", cut={"max_bytes": 4000}, from_list=str(listed), target=str(folder / f"{rows}"))
    summary = run(job, start_engine=InstantEngine)
    assert summary.images == rows
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def rerun(job: BulkJob) -> tuple[int, int]:
    """Run a finished job again; returns the opened images, and the shards that were done."""
    opened = [0]
    sources = tuple(job.sources)

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(sources):
            opened[0] += 1

    sys.addaudithook(count)
    next(Path(sources[0]).iterdir()).open("rb").close()
    assert opened[0] == 1, "the hook does not count"
    opened[0] = 0
    shards = run(job).shards_run
    return opened[0], shards


def crops_of_process(source: str, rank: int, world_size: int, step: int, steps: int) -> list[str]:
    """Read this training process's crops of some steps; returns a hash of each."""
    from ohmq.datasets.photos import CropLoader
    from ohmq.datasets.shard_cache import ShardCache
    from ohmq.datasets.sharded_photos import open_sharded_photos

    with tempfile.TemporaryDirectory() as folder:
        cache = ShardCache(Path(folder), 10**9)
        photos, _ = open_sharded_photos(source, cache, smallest_side=128, smallest_held_out=128)
        done, hashes = step, list[str]()
        loader = CropLoader(
            photos, 8, 128, seed=1, scale=(0.75, 1), step=lambda: done, rank=rank, world_size=world_size, num_workers=1
        )
        while done < steps:
            for batch in loader:
                hashes += [hashlib.sha256(crop.numpy().tobytes()).hexdigest() for crop in batch]
                done += 1
                if done == steps:
                    break
        loader.close()
    return hashes


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


# -- killing --


def descendants(pid: int) -> Iterator[int]:
    """List the processes below a process."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(stat.parent.name))
    waiting = [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        yield from children
        waiting += children


def workers_of(driver: int) -> list[int]:
    """List the processes of a driver's workers that are at work."""
    found = []
    for pid in descendants(driver):
        with contextlib.suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            if line.startswith(b"ray::_do") or b"local_engine import serve" in line:
                found.append(pid)
    return found


def kill_until_done(command: Sequence[str], rng: random.Random) -> tuple[int, int]:
    """Run a job again and again until it ends, while workers and drivers are killed at random; returns how many were."""
    workers = drivers = 0
    while True:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as driver:
            while driver.poll() is None:
                time.sleep(rng.uniform(*SECONDS_BETWEEN_KILLS))
                busy = workers_of(driver.pid)
                if busy and drivers < KILLED_DRIVERS and workers >= (drivers + 1) * KILLED_WORKERS // 3:
                    driver.kill()
                    drivers += 1
                elif busy and workers < KILLED_WORKERS:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(rng.choice(busy), signal.SIGKILL)
                        workers += 1
        if driver.returncode == 0:
            return workers, drivers
        if driver.returncode != -signal.SIGKILL:
            raise OhmqError(f"the driver ended with exit code {driver.returncode}")


def unequal_outputs(one: Path, other: Path) -> int:
    """Count the outputs and the rows of the manifests that differ."""
    names = sorted({path.name for folder in (one, other) for path in folder.glob("*.tar")})

    def content(folder: Path, name: str) -> bytes | None:
        return (folder / name).read_bytes() if (folder / name).is_file() else None

    rows = (read_manifest(open_store(str(folder))) for folder in (one, other))
    return sum(content(one, name) != content(other, name) for name in names) + len(manifest_differences(*rows))


# -- rows of the table --


class Benchmark:
    """The rows of the table, which share runs.

    Args:
        folder: empty folder for images and outputs.
        photos: photos that images are cropped from.
        options: parsed options of the command line.
    """

    def __init__(self, folder: Path, photos: Sequence[Path], options: argparse.Namespace) -> None:
        self.folder, self.photos, self.options = folder, photos, options
        self.runs: dict[tuple[str, int], Run] = {}

    @cached_property
    def images(self) -> Path:
        """Folder of the images of 512x512."""
        return make_images(self.photos, self.folder / "images", self.options.images, 512)

    def job(self, sources: Path, name: str, **fields: Any) -> BulkJob:
        """Describe a job that compresses a folder with the default options."""
        target = str(self.folder / name)
        return BulkJob(operation="compress", sources=(str(sources),), target=target, model=self.options.model, **fields)

    def timed(self, engine: str, workers: int) -> Run:
        """Run an engine on all images, once."""
        if (engine, workers) not in self.runs:
            name = f"{engine}-{workers}"
            job = self.job(
                self.images, name, engine=engine, workers=workers, images_per_shard=self.options.images_per_shard
            )
            done = self.runs[engine, workers] = apart(run_job, job)
            print(f"  {name}: {done.images} images in {done.seconds:.1f} s, {done.images / done.seconds:.2f} a second")
        return self.runs[engine, workers]

    def throughput(self) -> list[Row]:
        """Ray with 2 workers against local with 2."""
        local, ray = self.timed("local", 2), self.timed("ray", 2)
        rates = f"{ray.images / ray.seconds:.3f} and {local.images / local.seconds:.3f} images/s"
        rows = [row("throughput", "Ray against local, 2 workers", local.seconds / ray.seconds, ">= 0.9", rates)]
        one, other = self.folder / "local-2", self.folder / "ray-2"
        note = "outputs and rows of the manifests that differ"
        return [*rows, row("throughput", "bytes of both engines", unequal_outputs(one, other), "== 0", note)]

    def workers(self) -> list[Row]:
        """Two workers against one, each engine."""
        rows = []
        for engine in ENGINES:
            one, two = self.timed(engine, 1), self.timed(engine, 2)
            note = f"{one.seconds:.1f} s and {two.seconds:.1f} s"
            rows.append(row("workers", f"{engine}, 2 workers against 1", one.seconds / two.seconds, ">= 1.8", note))
        return rows

    def loop(self) -> list[Row]:
        """Time an image against a loop."""
        loop = apart(run_loop, self.options.model, self.images)
        print(f"  loop: {loop.images} images in {loop.seconds:.1f} s")
        rows = []
        for engine in ENGINES:
            done = self.timed(engine, 1)
            note = f"{1000 * done.seconds / done.images:.1f} ms and {1000 * loop.seconds / loop.images:.1f} ms an image"
            ratio = done.seconds / loop.seconds
            rows.append(row("loop", f"{engine}, 1 worker, against Codec.compress", ratio, "<= 1.05", note))
        return rows

    def object_store(self) -> list[Row]:
        """Bytes that pass through Ray's object store."""
        done = self.timed("ray", 2)
        note = f"{done.created_bytes} bytes for {done.shards} shards"
        return [
            row("object-store", "bytes a shard", done.created_bytes / done.shards, "<= 65536", note),
            row("object-store", "spilled bytes", done.spilled_bytes, "== 0", "Ray's own counter"),
        ]

    def memory(self) -> list[Row]:
        """Peak memory of the driver, large plan against small."""
        rows = self.options.plan_rows
        large, small = (apart(driver_memory, self.folder, count) for count in (rows, rows // 100))
        note = f"{large / 2**20:.0f} MiB for {rows} rows, {small / 2**20:.0f} MiB for {rows // 100}"
        return [row("memory", "driver, large plan against small", large / small, "<= 1.3", note)]

    def kills(self) -> list[Row]:
        """Kill workers and drivers; outputs and manifest must not change."""
        images = make_images(self.photos, self.folder / "kill-images", self.options.kill_images, 512)
        shared: dict[str, Any] = {"images_per_shard": max(1, self.options.kill_images // 40), "workers": 2}
        apart(run_job, self.job(images, "undisturbed", **shared))
        rows = []
        for engine in ENGINES:
            target = self.folder / f"killed-{engine}"
            command = [
                sys.executable,
                "-m",
                "ohmq",
                "bulk",
                "compress",
                str(images),
                str(target),
                "-j",
                "2",
                "--quiet",
            ]
            command += ["--model", self.options.model, "--engine", engine, "--max-attempts", "30"]
            command += ["--images-per-shard", str(shared["images_per_shard"])]
            workers, drivers = kill_until_done(command, random.Random(1))
            note = f"kill -9 of {workers} workers and {drivers} drivers"
            enough = (workers, drivers) == (KILLED_WORKERS, KILLED_DRIVERS)
            found = row(
                "kills",
                f"{engine}, outputs that differ",
                unequal_outputs(self.folder / "undisturbed", target),
                "== 0",
                note,
            )
            rows.append(found if enough else found._replace(met=False, note=f"{note}: the job ended before"))
        return rows

    def rerun(self) -> list[Row]:
        """Run a finished job again."""
        images = make_images(self.photos, self.folder / "objects", self.options.objects, 128)
        job = self.job(images, "rerun", workers=2)
        start = time.perf_counter()
        first = apart(run_job, job)
        middle = time.perf_counter()
        opened, shards = apart(rerun, job)
        seconds = time.perf_counter() - middle
        note = f"{first.images} objects of 128x128: {middle - start:.1f} s, then {seconds:.1f} s, {shards} shards done again"
        return [
            row("rerun", "images read", opened, "== 0", "files below the source that the second run opened"),
            row("rerun", "time, second run against first", seconds / (middle - start), "<= 0.02", note),
        ]

    def training(self) -> list[Row]:
        """Resume training with 1 process where 2 were."""
        images = make_images(self.photos, self.folder / "train-images", 96, 160)
        files = sorted(images.iterdir())
        for shard in range(6):
            with (self.folder / f"train-{shard:03d}.tar").open("wb") as file, TarWriter(file) as tar:
                for path in files[16 * shard : 16 * (shard + 1)]:
                    tar.add(path.name, path.read_bytes())
        source, steps = str(self.folder / "train-{000..005}.tar"), self.options.steps
        step = steps // 2
        ranks = [apart(crops_of_process, source, rank, 2, 0, steps) for rank in (0, 1)]
        two = [name for pair in zip(*ranks, strict=True) for name in pair]
        one = apart(crops_of_process, source, 0, 1, step, steps)
        differing = sum(a != b for a, b in zip(two[8 * step :], one, strict=True))
        note = f"steps {step} to {steps - 1} by 1 process, after 2 processes: {len(one)} crops, in epochs of "
        note += f"{len(files)} photos in tar shards"
        return [row("training", "crops that differ", differing, "== 0", note)]


def machine() -> str:
    """Describe this machine in words."""
    info = Path("/proc/cpuinfo").read_text()
    names = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    return f"{len(os.sched_getaffinity(0))} cores, {names[0] if names else 'unknown CPU'}, CPU only"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark.

    Args:
        arguments: words of the command line; None: those of this process.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=PHOTOS, help="folder of photos (default: examples/photos)")
    parser.add_argument("--only", choices=ROWS, nargs="+", default=ROWS, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--model", default="photo")
    parser.add_argument("--images", type=int, default=2000, help="of 512x512, for throughput (default: 2000)")
    parser.add_argument("--images-per-shard", type=int, default=50)
    parser.add_argument("--kill-images", type=int, default=400, help="of 512x512 (default: 400)")
    parser.add_argument("--objects", type=int, default=20_000, help="of 128x128, for the rerun (default: 20000)")
    parser.add_argument("--plan-rows", type=int, default=1_000_000, help="against a hundredth (default: 1000000)")
    parser.add_argument("--steps", type=int, default=30, help="of training (default: 30)")
    parser.add_argument("--small", action="store_true", help="very small counts, which say nothing")
    parser.add_argument("--work", type=Path, help="folder for temporary files (default: the system's)")
    parser.add_argument("-o", "--output", type=Path, help="also write JSON")
    parser.add_argument("--force", action="store_true", help="overwrite the JSON file")
    options = parser.parse_args(arguments)
    if options.small:
        vars(options).update(SMALL)
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        if options.output:
            check_output(options.output, force=options.force)
        photos = list_images([options.data])
        rows: list[Row] = []
        with tempfile.TemporaryDirectory(prefix="bulk-", dir=options.work) as folder:
            benchmark = Benchmark(Path(folder), photos, options)
            for name in ROWS:
                if name in options.only:
                    print(f"{name}:", flush=True)
                    for found in getattr(benchmark, name.replace("-", "_"))():
                        rows.append(found)
                        met = "met" if found.met else "NOT MET"
                        print(
                            f"  {found.what}: {found.value:.4g}, must be {found.bound}: {met} ({found.note})",
                            flush=True,
                        )
        if options.output:
            runs = {
                f"{engine}-{workers}": {"images": done.images, "seconds": done.seconds}
                for (engine, workers), done in benchmark.runs.items()
            }
            content = {
                "format": 1,
                "command": command_line(),
                "machine": machine(),
                "versions": software_versions() | {"ray": _version("ray"), "pyarrow": _version("pyarrow")},
                "model": Path(options.model).name,
                "data": f"crops of {len(photos)} photos",
                "runs": runs,
                "rows": [found._asdict() for found in rows],
            }
            write_atomically(options.output, (json.dumps(content, indent=1) + "\n").encode(), force=options.force)
    except OhmqError as error:
        print(f"bulk.py: {error}", file=sys.stderr)
        return 1
    return 0 if all(found.met for found in rows) or options.small else 1


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


if __name__ == "__main__":
    sys.exit(main())
