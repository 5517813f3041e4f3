"""Decoding and compressing: times, memory and rates of the decoder ladder. Ratios of one run.

    python benchmarks/decoders.py --data PHOTOS --kodak KODAK [--only ROW ...] [-o results/decoders.json]

A large picture (3840x3072) is laid out with different photos and compressed to 0.2 bits a pixel. AVIF is Pillow's, at the
quality whose PSNR is nearest. What is compared takes turns; each ratio is one of medians over the rounds (one more warms
up). BD-rates are means over whole files of the Kodak images at nine numbers of channels, against the standard decoder of
--anchor. --width, --height, --rounds, --files and --images make it smaller; figures then say nothing.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from codec import channels_for_rate, rival
from numpy.typing import NDArray
from PIL import Image

import ohmq
from ohmq.codec import STANDARD, Codec
from ohmq.errors import OhmqError
from ohmq.evaluation.bd_rate import bd_rate
from ohmq.evaluation.evaluate import evaluate_images
from ohmq.imaging.files import open_image
from ohmq.imaging.listing import list_images
from ohmq.metrics import psnr_db
from ohmq.utils.atomic_write import check_output, write_atomically
from ohmq.utils.provenance import command_line, software_versions

PHOTOS = Path(__file__).parents[1] / "examples" / "photos"
ROWS = ("fast", "standard", "kodak", "rates", "effort-0", "default-effort", "memory", "busy", "folder")
PIECE = (640, 512)
"""Width and height of each photo in the large picture, in pixels."""
LARGE_BPP, KODAK_BPP = 0.2, 0.4
SHARES = (0.021, 0.041, 0.064, 0.116, 0.269, 0.402, 0.535, 0.678, 0.92)
"""Numbers of channels of the rates, as shares of all."""
RATE_BOUNDS = {"fast": (4.0, 2.0), STANDARD: (-1.5, -3.0), "best": (-3.0, -6.0)}
MEBIBYTE = 2**20


class Row(NamedTuple):
    """A figure of the table.

    Attributes:
        row: one of `ROWS`.
        what: the thing measured.
        value: the figure.
        must: the most that it may be.
        aim: the most that it should be; None: there is no aim.
        met: whether it is at most ``must``.
        aim_met: whether it is at most ``aim``; None without one.
        note: what it was made of.
    """

    row: str
    what: str
    value: float
    must: float
    aim: float | None
    met: bool
    aim_met: bool | None
    note: str


def row(name: str, what: str, value: float, must: float, aim: float | None, note: str) -> Row:
    """Make a row, and compare its value with its bounds."""
    return Row(name, what, value, must, aim, value <= must, None if aim is None else value <= aim, note)


def lay_out(photos: Sequence[Path], width: int, height: int) -> Image.Image:
    """Lay photos out side by side, each scaled to fill `PIECE` and cut; they are repeated as needed."""
    image, number = Image.new("RGB", (width, height)), 0
    for y in range(0, height, PIECE[1]):
        for x in range(0, width, PIECE[0]):
            photo = open_image(photos[number % len(photos)]).image.convert("RGB")
            scale = max(PIECE[0] / photo.width, PIECE[1] / photo.height)
            size = (max(PIECE[0], round(photo.width * scale)), max(PIECE[1], round(photo.height * scale)))
            image.paste(photo.resize(size, Image.Resampling.BICUBIC).crop((0, 0, *PIECE)), (x, y))
            number += 1
    return image


def avif(image: Image.Image, quality: int, speed: int) -> bytes:
    """Compress an image with Pillow's AVIF encoder."""
    file = io.BytesIO()
    image.save(file, "AVIF", quality=quality, speed=speed)
    return file.getvalue()


def avif_pixels(data: bytes) -> NDArray[np.uint8]:
    """Decode an AVIF file."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def peak_bytes() -> int:
    """Return the peak resident memory of this process, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def memory_above_torch(model: str, path: str, decoder: str) -> int:
    """Decompress a file in a fresh process; returns the bytes of its peak above that of ``import torch`` alone."""
    before = apart(peak_bytes)  # this module has imported torch
    after = apart(_peak_of_decompressing, model, path, decoder)
    return int(after - before)


def _peak_of_decompressing(model: str, path: str, decoder: str) -> int:
    ohmq.load(model, compiled=True).decompress(Path(path).read_bytes(), decoder=decoder)
    return peak_bytes()


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Let other processes use the processor."""
    command = [sys.executable, "-c", "x = 1\nwhile True: x = (x * 5 + 1) % 1000003"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


class Benchmark:
    """The rows, and what several of them need.

    Args:
        folder: for temporary files.
        options: of the command line.
    """

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        self.photos = list_images([options.data])
        self.seconds: dict[str, dict[str, list[float]]] = {}
        self.codec = ohmq.load(options.model, compiled=True)

    # -- what is measured --

    @cached_property
    def picture(self) -> Image.Image:
        """The large picture."""
        return lay_out(self.photos, self.options.width, self.options.height)

    @cached_property
    def large_file(self) -> bytes:
        """The large picture at `LARGE_BPP`."""
        return self.codec.compress(self.picture, bpp=LARGE_BPP, effort=0)

    @cached_property
    def avif_quality(self) -> int:
        """The quality of the AVIF file of the large picture whose PSNR is nearest to that of `large_file`."""
        original = np.asarray(self.picture)
        aim = psnr_db(original, np.asarray(self.codec.decompress(self.large_file)))
        reached: dict[int, float] = {}
        low, high = 0, 100
        while high - low > 1:
            middle = (low + high) // 2
            reached[middle] = psnr_db(original, avif_pixels(avif(self.picture, middle, 6)))
            low, high = (middle, high) if reached[middle] < aim else (low, middle)
        return min(reached, key=lambda quality: abs(reached[quality] - aim))

    @cached_property
    def kodak(self) -> list[tuple[str, NDArray[np.uint8]]]:
        """The Kodak images."""
        paths = list_images([self.options.kodak])[: self.options.images]
        return [(path.name, np.asarray(open_image(path).image.convert("RGB"))) for path in paths]

    def timed(self, name: str, jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
        """Let jobs take turns; returns the median seconds of each."""
        times: dict[str, list[float]] = {job: [] for job in jobs}
        for _ in range(rounds + 1):
            for job, work in jobs.items():
                start = time.perf_counter()
                work()
                times[job].append(time.perf_counter() - start)
        self.seconds[name] = {job: values[1:] for job, values in times.items()}
        return {job: statistics.median(values) for job, values in self.seconds[name].items()}

    # -- rows --

    def fast(self) -> list[Row]:
        """Decompress the large picture by the fast decoder."""
        return self._large("fast", 20, 8)

    def standard(self) -> list[Row]:
        """Decompress the large picture by the standard decoder."""
        return self._large(STANDARD, 45, 30)

    def _large(self, decoder: str, must: float, aim: float) -> list[Row]:
        self.codec.windowed_for(decoder)
        rival_file = avif(self.picture, self.avif_quality, 6)
        medians = self.timed(
            decoder,
            {
                "ohmq": lambda: self.codec.decompress(self.large_file, decoder=decoder),
                "avif": lambda: avif_pixels(rival_file),
            },
            self.options.rounds,
        )
        size = f"{self.picture.width}x{self.picture.height}"
        rates = [8 * len(file) / (self.picture.width * self.picture.height) for file in (self.large_file, rival_file)]
        note = f"{size}, {rates[0]:.3f} bpp: {medians['ohmq']:.3f} s; AVIF {rates[1]:.3f} bpp: {medians['avif']:.3f} s"
        what = f"decompress, {decoder}, against Pillow's AVIF decoder"
        return [row(decoder, what, medians["ohmq"] / medians["avif"], must, aim, note)]

    def kodak_image(self) -> list[Row]:
        """Decompress a Kodak image by the fast decoder, against the rival's forward pass."""
        self.codec.windowed_for("fast")
        name, pixels = self.kodak[min(4, len(self.kodak) - 1)]
        image = Image.fromarray(pixels)
        count = channels_for_rate(self.codec, image, KODAK_BPP)
        data = self.codec.compress(image, channels=count, layers=1)
        network, x = rival(), torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            medians = self.timed(
                "kodak",
                {
                    "ohmq": lambda: self.codec.decompress(data, decoder="fast"),
                    "decode": lambda: self.codec.decode(data),
                    "rival": lambda: network(x),
                },
                3 * self.options.rounds,
            )
        note = f"{name}, {count} channels: {1000 * medians['ohmq']:.1f} ms, of them {1000 * medians['decode']:.1f} for the "
        note += f"symbols; rival {1000 * medians['rival']:.0f} ms"
        what = "decompress a Kodak image, fast, against the rival's forward pass"
        return [row("kodak", what, medians["ohmq"] / medians["rival"], 0.06, 0.04, note)]

    def rates(self) -> list[Row]:
        """Compare rates at equal PSNR with the decoder that was shipped before."""
        missing = [name for name in RATE_BOUNDS if name not in self.codec.decoders]
        if missing:
            self.codec.windowed_for(missing[0])
        anchor_codec = ohmq.load(self.options.anchor or self.options.model, compiled=True)
        anchor = self._points(anchor_codec)
        found = []
        for name, (must, aim) in RATE_BOUNDS.items():
            points = self._points(self.codec.with_decoder(name))
            percent = [
                bd_rate(*zip(*anchor[image], strict=True), *zip(*points[image], strict=True)).percent
                for image in anchor
            ]
            note = f"mean of {len(percent)} images, {min(percent):.1f} to {max(percent):.1f} %, against "
            note += f"{STANDARD} of {anchor_codec.frozen.transforms_id.hex()}"
            what = f"BD-rate on Kodak, {name}, in percent"
            found.append(row("rates", what, statistics.mean(percent), must, aim, note))
        return found

    def _points(self, codec: Codec) -> dict[str, list[tuple[float, float]]]:
        """Return rate and PSNR of each image at each number of channels."""
        ends = codec.cut_points
        counts = sorted({min(ends, key=lambda n: abs(n - share * codec.num_channels)) for share in SHARES})
        rows = evaluate_images(codec, self.kodak, counts, metrics=(), tune="psnr")
        points: dict[str, list[tuple[float, float]]] = {name: [] for name, _ in self.kodak}
        for count in counts:
            for image in rows[count]:
                points[image.image].append((image.file_bpp, image.psnr_db))
        return points

    def effort_0(self) -> list[Row]:
        """Compress the large picture at effort 0."""
        return self._compressing("effort-0", "compress at effort 0", {"effort": 0}, 6, 0.5, 0.35)

    def default_effort(self) -> list[Row]:
        """Compress the large picture by default."""
        return self._compressing("default-effort", "compress by default", {}, 4, 0.5, 0.3)

    def _compressing(
        self, name: str, what: str, arguments: dict[str, Any], speed: int, must: float, aim: float
    ) -> list[Row]:
        channels = self.codec.decode(self.large_file)[0].num_channels
        medians = self.timed(
            name,
            {
                "ohmq": lambda: self.codec.compress(self.picture, channels=channels, layers=1, **arguments),
                "avif": lambda: avif(self.picture, self.avif_quality, speed),
            },
            self.options.encode_rounds,
        )
        note = f"{medians['ohmq']:.2f} s; AVIF at speed {speed} {medians['avif']:.2f} s"
        return [row(name, f"{what}, against AVIF speed {speed}", medians["ohmq"] / medians["avif"], must, aim, note)]

    def memory(self) -> list[Row]:
        """Peak memory of decompressing the large picture."""
        path = self.folder / "large.ohm"
        path.write_bytes(self.large_file)
        extra = memory_above_torch(self.options.model, str(path), STANDARD) / MEBIBYTE
        note = f"{self.picture.width}x{self.picture.height}, MiB above a process with torch and this script"
        return [row("memory", "peak memory of decompressing, standard, in MiB", extra, 600, None, note)]

    def busy(self) -> list[Row]:
        """Decompress the large picture beside two busy processes."""

        def work() -> object:
            return self.codec.decompress(self.large_file)

        alone = self.timed("undisturbed", {"ohmq": work}, self.options.rounds)["ohmq"]
        with busy_processes(2):
            beside = self.timed("busy", {"ohmq": work}, self.options.rounds)["ohmq"]
        note = f"{beside:.2f} s and {alone:.2f} s, standard"
        return [
            row("busy", "decompress beside two busy processes, against undisturbed", beside / alone, 2.5, None, note)
        ]

    def folder_of_files(self) -> list[Row]:
        """Decompress a folder of files, against a loop on one thread."""
        folder = self.folder / "files"
        folder.mkdir()
        files = [self.codec.compress(Image.fromarray(pixels), bpp=KODAK_BPP, effort=0) for _, pixels in self.kodak]
        paths = [folder / f"{number:03d}.ohm" for number in range(self.options.files)]
        for number, path in enumerate(paths):
            path.write_bytes(files[number % len(files)])

        def loop() -> None:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                for path in paths:
                    self.codec.decompress(path.read_bytes())
            finally:
                torch.set_num_threads(threads)

        def batch() -> None:
            for _ in self.codec.decompress_batch(paths):
                pass

        medians = self.timed("folder", {"batch": batch, "loop": loop}, min(3, self.options.rounds))
        each = {name: 1000 * value / len(paths) for name, value in medians.items()}
        note = f"{len(paths)} files: {each['batch']:.0f} and {each['loop']:.0f} ms a file, {torch.get_num_threads()} threads"
        what = "decompress a folder, against a loop on one thread"
        return [row("folder", what, medians["batch"] / medians["loop"], 0.55, None, note)]


METHODS: dict[str, Callable[[Benchmark], list[Row]]] = {
    "fast": Benchmark.fast,
    "standard": Benchmark.standard,
    "kodak": Benchmark.kodak_image,
    "rates": Benchmark.rates,
    "effort-0": Benchmark.effort_0,
    "default-effort": Benchmark.default_effort,
    "memory": Benchmark.memory,
    "busy": Benchmark.busy,
    "folder": Benchmark.folder_of_files,
}


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
        The exit code: 0 if all bounds are met.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=PHOTOS, help="folder of photos (default: examples/photos)")
    parser.add_argument("--kodak", type=Path, help="folder of the Kodak images (default: that of --data)")
    parser.add_argument("--only", choices=ROWS, nargs="+", default=ROWS, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--model", default="photo")
    parser.add_argument("--anchor", help="model whose standard decoder the rates are compared with (default: --model)")
    parser.add_argument("--rounds", type=int, default=5, help="of decompressing (default: 5)")
    parser.add_argument("--encode-rounds", type=int, default=2, help="of compressing (default: 2)")
    parser.add_argument("--width", type=int, default=3840, help="of the large picture (default: 3840)")
    parser.add_argument("--height", type=int, default=3072, help="of the large picture (default: 3072)")
    parser.add_argument("--files", type=int, default=100, help="of the folder (default: 100)")
    parser.add_argument("--images", type=int, help="limit on the number of Kodak images (default: all)")
    parser.add_argument("-o", "--output", type=Path, help="also write JSON")
    parser.add_argument("--force", action="store_true", help="overwrite the JSON file")
    options = parser.parse_args(arguments)
    options.kodak = options.kodak or options.data
    rows: list[Row] = []
    try:
        if options.output:
            check_output(options.output, force=options.force)
        with tempfile.TemporaryDirectory(prefix="decoders-") as folder:
            benchmark = Benchmark(Path(folder), options)
            print(f"{machine()}, {torch.get_num_threads()} threads", flush=True)
            for name in ROWS:
                for found in METHODS[name](benchmark) if name in options.only else ():
                    rows.append(found)
                    met = "met" if found.met else "NOT MET"
                    aim = ""
                    if found.aim is not None:
                        aim = f", aim {found.aim:g}: {'met' if found.aim_met else 'NOT MET'}"
                    print(
                        f"{found.what}: {found.value:.3g}, must be <= {found.must:g}: {met}{aim} ({found.note})",
                        flush=True,
                    )
        if options.output:
            content = {
                "format": 1,
                "command": command_line(),
                "machine": machine(),
                "threads": torch.get_num_threads(),
                "versions": software_versions(),
                "model": Path(options.model).name,
                "model_id": benchmark.codec.model_id.hex(),
                "transforms_id": benchmark.codec.frozen.transforms_id.hex(),
                "data": f"{len(benchmark.photos)} photos",
                "seconds": benchmark.seconds,
                "rows": [found._asdict() for found in rows],
            }
            write_atomically(options.output, (json.dumps(content, indent=1) + "\n").encode(), force=options.force)
    except OhmqError as error:
        print(f"decoders.py: {error}", file=sys.stderr)
        return 1
    return 0 if all(found.met for found in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
