"""Photos a second that a loader reads and crops, by number of processes, and what training steps need.

    python benchmarks/data_loading.py --data PHOTOS [--workers 0 1 2 4] [--preset photo] [--batches 60] [--steps 8]

PHOTOS has a train folder below it. 0 workers are a thread. A training step is measured here, on the CPU; --step-ms is
the time of a step on another machine, to compare with. Reading does not delay training as long as it gives more
photos a second than steps use. Photos are read from files: none is kept in memory.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from ohmq.datasets import photos
from ohmq.datasets.photos import CropLoader, photo_files, photo_folder
from ohmq.models import build_model
from ohmq.training.options import PRESETS
from ohmq.training.sources import PhotoSource


def photos_a_second(files: list[Path], batch: int, crop: int, workers: int, batches: int) -> float:
    """Measure a loader, without the time in which its processes start."""
    step = 0
    loader = CropLoader(files, batch, crop, scale=PhotoSource.SCALE, step=lambda: step, num_workers=workers)
    warm_up = 2 * max(1, workers)
    done, start = 0, 0.0
    while done < warm_up + batches:
        for _ in loader:
            done += 1
            if done == warm_up:
                start = time.perf_counter()
            if done == warm_up + batches:
                break
        step += len(loader)
    seconds = time.perf_counter() - start
    loader.close()
    return batches * batch / seconds


def step_seconds(preset: str, crops: torch.Tensor, steps: int) -> float:
    """Measure a training step of the preset's model: forward and backward, all channels active."""
    model = build_model(PRESETS[preset]["model"])
    images = model.normalise(crops).contiguous(memory_format=torch.channels_last)
    active = torch.full((len(images),), model.config.channels_max)
    times = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        output = model(images, active)
        (output.bits.sum() + (output.reconstruction - images).square().sum()).backward()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    """Print a row for each number of processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--preset", default="photo", choices=["photo", "openimages-ohm", "openimages-int"])
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--steps", type=int, default=8, help="training steps to measure here; 0: none")
    parser.add_argument("--step-ms", type=float, nargs="*", default=[], help="times of steps elsewhere, in ms")
    arguments = parser.parse_args()
    photos.KEPT_BYTES = 0  # every photo is read from its file
    batch, crop = PRESETS[arguments.preset]["batch_size"], PRESETS[arguments.preset]["crop_size"]
    files = photo_files(photo_folder(arguments.data, "train"), crop)
    print(f"{len(files)} photos, batches of {batch} crops of {crop}")
    for workers in arguments.workers:
        rate = photos_a_second(files, batch, crop, workers, arguments.batches)
        print(f"{workers or 'a thread':>8}{' processes' if workers else '':10}  {rate:8.1f} photos/s")
    steps = {f"{milliseconds:g} ms": milliseconds / 1000 for milliseconds in arguments.step_ms}
    if arguments.steps:
        crops = next(iter(CropLoader(files, batch, crop)))
        seconds = step_seconds(arguments.preset, crops, arguments.steps)
        steps[f"{1000 * seconds:.0f} ms, here"] = seconds
    for name, seconds in steps.items():
        print(f"a training step of {name}: {batch / seconds:.1f} photos/s")


if __name__ == "__main__":
    main()
