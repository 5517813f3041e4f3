"""Check a training step of a photo model on this machine's device against the CPU, in less than a minute.

    python tools/check_training_step.py data/photos --start-from photo --batch-size 32 --crop-size 256

Exit code 1: the losses of one batch differ by more than 0.5 %, or the gradient is not finite or larger than 3 times the CPU's.
On CUDA, operations in the step that wait for the GPU are counted: there should be none.
"""

import time
import warnings
from pathlib import Path

import click
import torch

from ohmq.datasets.device_crops import DeviceCropLoader
from ohmq.evaluation.results import Curve
from ohmq.models import PhotoModel
from ohmq.runtime.devices import find_device
from ohmq.training.options import TrainOptions, preset
from ohmq.training.photo.module import PhotoModule, PhotoTargets
from ohmq.training.photo.run import initial_model
from ohmq.training.sources import PhotoSource

LARGEST_DIFFERENCE = 0.005
"""Of the losses, relative."""
CPU_CROPS = 4
"""Crops of the batch that is computed on both."""
TIMED_STEPS = {"cuda": 20}
"""Steps that are timed, by kind of device; elsewhere 2."""


@click.command()
@click.argument("data")
@click.option("--start-from", default="photo", show_default=True, help="Model to start from.")
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option("--crop-size", type=int, default=256, show_default=True)
@click.option("--perceptual", type=float, default=0.6, show_default=True, help="Weight of the perceptual term.")
@click.option("--device", default="auto", show_default=True)
def main(data: str, start_from: str, batch_size: int, crop_size: int, perceptual: float, device: str) -> None:
    """Compare a training step on the photos of DATA with the CPU's, and time it."""
    settings = {"batch_size": batch_size, "crop_size": crop_size, "perceptual": perceptual, "start_from": start_from}
    options = TrainOptions(**{**preset("photo"), **settings, "data_base_path": data, "output_dir": Path("unused")})
    torch.set_flush_denormal(True)  # as in training: a sharp softmax produces many denormal numbers, which are slow
    place = find_device(device)
    began = time.monotonic()
    photos = PhotoSource(options)
    model, design = initial_model(options, photos, None)
    assert isinstance(model, PhotoModel)
    for transform in (model.analysis_transform, model.synthesis_transform):
        transform.to(memory_format=torch.channels_last)
    module = PhotoModule(
        options, model, 1, PhotoTargets(design.rates_bpp, design.lambdas, Curve("", "", (1.0,), (30.0,)))
    )
    loader = DeviceCropLoader(photos.photos, batch_size, crop_size, device=place)
    batch = next(iter(loader))
    click.echo(f"{len(photos.photos)} photos ready after {time.monotonic() - began:.1f} s")

    cuts = options.model.cut_points if not options.start_from else model.config.cut_points
    active = torch.tensor([cuts[len(cuts) * place // batch_size] for place in range(batch_size)]).flip(0)

    def step(crops: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
        images = model.normalise(crops).contiguous(memory_format=torch.channels_last)
        loss, _, _ = module._loss(model, images, channels)
        loss.backward()
        return loss.detach()

    def norm() -> float:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    few, cpu_active = batch[:CPU_CROPS].cpu(), active[:: -(-batch_size // CPU_CROPS)][:CPU_CROPS]
    expected, expected_norm = float(step(few, cpu_active)), norm()
    module.to(place)
    module.zero_grad()
    found, found_norm = float(step(few.to(place), cpu_active)), norm()
    click.echo(
        f"loss {expected:.5f} on the CPU, {found:.5f} on {place}; gradient norm {expected_norm:.4g}, {found_norm:.4g}"
    )
    if not abs(found - expected) <= LARGEST_DIFFERENCE * abs(expected) or not found_norm <= 3 * expected_norm:
        raise click.ClickException("the step is not the CPU's")
    step(batch, active)  # reserves memory
    count = TIMED_STEPS.get(place.type, 2)
    if place.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("warn")
    began = time.monotonic()
    with warnings.catch_warnings(record=True) as waits:
        warnings.simplefilter("always")
        for _ in range(count):
            module.zero_grad()
            loss = step(batch, active)
    queued = time.monotonic() - began
    if place.type == "cuda":
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        places = sorted({f"{wait.filename}:{wait.lineno}" for wait in waits if "synchroniz" in str(wait.message)})
        click.echo(f"{len(places)} places of a step wait for the GPU {places}")
        click.echo(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB at most")
    took = time.monotonic() - began
    click.echo(
        f"{took / count * 1000:.0f} ms a step of {batch_size} crops of {crop_size}² (queued in "
        f"{queued / count * 1000:.0f} ms), without the optimizer; loss {float(loss):.4f}"
    )


if __name__ == "__main__":
    main()
