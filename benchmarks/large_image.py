"""Compress and decompress one large image by the command line: peak memory, and time beside small images.

    python benchmarks/large_image.py PHOTOS [--width 12500] [--height 8000] [--small 512] [--count 4]
        [-- --fraction 0.3 --layers all]

The large image is laid out with the photographs of a folder, each scaled to 1250x1000 pixels; every command is a
process of its own and its peak is that of the operating system (ru_maxrss). The time is also given for a pixel, as a
ratio to that of pieces of the same image with `--small` pixels a side, `--count` of them in one process; start-up,
which is a process with one image of 16x16 pixels, is taken off both. Options after `--` go to `ohmq compress`; default: all
channels in all layers, `--fraction 1 --layers all`.
"""

import argparse
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from PIL import Image

PIECE = (1250, 1000)
"""Width and height of each photograph in the large image, in pixels."""


class Run(NamedTuple):
    """Time of a process in seconds, and its peak memory in bytes."""

    seconds: float
    peak_bytes: int


def _measure(command: list[str]) -> Run:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit)


def run(*arguments: object) -> Run:
    """Run ``ohmq ARGUMENTS`` below a process of its own, as the peak of children is the largest of all of them.

    Args:
        arguments: words of the command line.

    Returns:
        Time and peak memory.
    """
    command = [sys.executable, "-m", "ohmq", *map(str, arguments)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (command,))


def make_image(folder: Path, width: int, height: int) -> Image.Image:
    """Lay photographs out side by side.

    Args:
        folder: photographs, searched recursively; they are repeated as needed.
        width: of the image, in pixels.
        height: of the image, in pixels.

    Raises:
        SystemExit: the folder has no photographs.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise SystemExit(f"no photographs in {folder}")
    image, number = Image.new("RGB", (width, height)), 0
    for y in range(0, height, PIECE[1]):
        for x in range(0, width, PIECE[0]):
            with Image.open(files[number % len(files)]) as photo:
                image.paste(photo.convert("RGB").resize(PIECE, Image.Resampling.LANCZOS), (x, y))
            number += 1
    return image


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--width", type=int, default=12500)
    parser.add_argument("--height", type=int, default=8000)
    parser.add_argument("--small", type=int, default=512)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument(
        "options", nargs="*", default=["--fraction", "1", "--layers", "all"], help="of ohmq compress, after --"
    )
    arguments = parser.parse_args()
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for sub in ("tiny", "small", "large"):
            (folder / sub).mkdir()
        image = make_image(arguments.photos, arguments.width, arguments.height)
        image.save(folder / "large" / "a.bmp")
        side = arguments.small
        for number in range(arguments.count):
            x = number * (arguments.width - side) // max(1, arguments.count - 1)
            y = number * (arguments.height - side) // max(1, arguments.count - 1)
            image.crop((x, y, x + side, y + side)).save(folder / "small" / f"{number}.bmp")
        image.crop((0, 0, 16, 16)).save(folder / "tiny" / "a.bmp")
        del image
        pixels = {"small": arguments.count * side**2, "large": arguments.width * arguments.height}
        print(f"{arguments.width}x{arguments.height}, {pixels['large'] / 1e6:.1f} million pixels, {threads} threads")
        for verb, before, after in (("compress", "", ".coded"), ("decompress", ".coded", ".back")):
            extra = arguments.options if verb == "compress" else ["--format", "bmp"]
            runs = {
                sub: run(verb, folder / f"{sub}{before}", "-o", folder / f"{sub}{after}", *extra)
                for sub in ("tiny", "small", "large")
            }
            pixel_s = {sub: (runs[sub].seconds - runs["tiny"].seconds) / pixels[sub] for sub in pixels}
            print(
                f"{verb}: peak {runs['large'].peak_bytes / 2**30:.2f} GiB, {runs['large'].seconds:.0f} s; a pixel takes "
                f"{pixel_s['large'] / pixel_s['small']:.2f} times what it takes in images of {side}x{side}",
                flush=True,
            )
            if verb == "compress":
                size = (folder / "large.coded" / "a.ohm").stat().st_size
                print(f"  {size:,} bytes, {8 * size / pixels['large']:.3f} bpp")


if __name__ == "__main__":
    main()
