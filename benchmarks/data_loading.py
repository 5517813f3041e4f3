"""Time of the photo preset's loader, relative to its training step.

    python benchmarks/data_loading.py --data PHOTOS [--batches 60] [--steps 8]

PHOTOS has a train folder below it. The loader works in a thread while a step runs: it does not delay training as long as a
batch takes less time than a step.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from ohmq.datasets.photos import CropLoader, photo_files, photo_folder
from ohmq.loading import load
from ohmq.model_files.freeze import thaw
from ohmq.training.options import PRESETS


def main() -> None:
    """Print the time of a batch relative to that of a step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    batch, crop = PRESETS["photo"]["batch_size"], PRESETS["photo"]["crop_size"]
    files = photo_files(photo_folder(arguments.data, "train"), crop)[: batch * arguments.batches]
    loader = CropLoader(files, batch, crop, scale=(0.75, 0.95))
    batch_times = []
    for _ in range(2):  # from files, then from memory
        start = time.perf_counter()
        batches = list(loader)
        batch_times.append((time.perf_counter() - start) / len(loader))
    model = thaw(load("photo").frozen)
    images = model.normalise(batches[0]).contiguous(memory_format=torch.channels_last)
    active = torch.linspace(model.config.channels_max, model.config.cut_points[0], len(images)).long()
    step_times = []
    for _ in range(arguments.steps + 1):
        start = time.perf_counter()
        output = model(images, active)
        (output.bits.sum() + (output.reconstruction - images).square().sum()).backward()
        step_times.append(time.perf_counter() - start)
    step = statistics.median(step_times[1:])
    print(f"{batch} crops of {crop}: a batch takes {batch_times[0] / step:.2f} of a training step the first time, "
          f"{batch_times[1] / step:.2f} from memory")  # fmt: skip


if __name__ == "__main__":
    main()
