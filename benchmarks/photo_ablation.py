"""Ablation of the photo codec: short trainings of equal length, each without one part.

    python benchmarks/photo_ablation.py --data PHOTOS -o results/photo-ablation.json [--steps 400] [--only NAME ...]

PHOTOS has train and validation below it, as for `ohmq train --preset photo`. All variants start from the same untrained
design, train on the same crops in the same order with the same optimizer, and are measured on whole validation photos with
estimated rates (-log2 p). A variant that the output file already has is not run again.
"""

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import ohmq
from ohmq.datasets.photos import CropLoader, WholePhotos, photo_files, photo_folder
from ohmq.errors import ConfigError
from ohmq.evaluation.bd_rate import bd_rate
from ohmq.evaluation.classic import classic_curve
from ohmq.models import CompressionModel, PhotoConfig, PhotoIntegerModel, PhotoModel, build_model
from ohmq.models.photo import BLOCK
from ohmq.models.priors.tabulated import SelectedTables, TabulatedPrior
from ohmq.training.options import PRESETS
from ohmq.training.photo import initialise
from ohmq.training.photo.initialise import (
    PhotoDesign,
    design_photo_codec,
    initialise_integer_model,
    initialise_photo_model,
)
from ohmq.training.photo.module import RATE_FACTORS, rate_distortion
from ohmq.training.photo.run import DESIGN_CROP, DESIGN_CROPS
from ohmq.utils.atomic_write import write_atomically
from ohmq.utils.provenance import command_line

CROP, BATCH, SEED = 128, 4, 0
WARM_UP_STEPS = 30
"""Steps in which the learning rate rises to its full value."""
PHOTOS = 6
"""Number of validation photos that are measured."""
FIXED_CHANNELS = 9
"""Index of the cut point that the model of one bitrate is trained for."""


class StaticTables(TabulatedPrior):
    """A tabulated prior without context: the same tables at every position."""

    def forward(self, group: int, latent: Tensor, own: Tensor, values: Tensor | None) -> SelectedTables:
        return super().forward(group, latent, own, values)._replace(coefficients=None)


@dataclasses.dataclass
class Variant:
    """A model to train.

    Attributes:
        model: the initialised model.
        design: the design that orders its channels.
        channels: number of channels that all images train; None: each image draws one.
    """

    model: CompressionModel
    design: PhotoDesign
    channels: int | None = None


def initialised(design: PhotoDesign, change: Callable[[PhotoModel], None] = lambda model: None) -> Variant:
    """Build the model of a design, then change it."""
    model = build_model(design.config)
    assert isinstance(model, PhotoModel)
    initialise_photo_model(model, design)
    change(model)
    return Variant(model, design)


def full(photos: Tensor) -> Variant:
    return initialised(design_photo_codec(photos, PhotoConfig()))


def static_tables(photos: Tensor) -> Variant:
    def change(model: PhotoModel) -> None:
        assert model.prior is not None
        model.prior.__class__ = StaticTables

    return initialised(design_photo_codec(photos, PhotoConfig()), change)


def no_checkerboard(photos: Tensor) -> Variant:
    design = design_photo_codec(photos, PhotoConfig())
    return initialised(dataclasses.replace(design, config=dataclasses.replace(design.config, checkerboard_groups=0)))


def no_rdoq(photos: Tensor) -> Variant:
    return initialised(design_photo_codec(photos, PhotoConfig(supports_rdoq=False)))


def one_pass(photos: Tensor) -> Variant:
    passes = initialise.PASSES
    initialise.PASSES = (passes[1],)
    try:
        return initialised(design_photo_codec(photos, PhotoConfig(channels_max=320, num_symbols=33)))
    finally:
        initialise.PASSES = passes


def random_start(photos: Tensor) -> Variant:
    def change(model: PhotoModel) -> None:
        torch.manual_seed(SEED)
        for transform in (model.analysis_transform, model.synthesis_transform):
            transform.block.data.copy_(  # type: ignore[union-attr, operator]
                nn.init.orthogonal_(torch.empty(len(transform.block), 768)).view_as(transform.block)  # type: ignore[arg-type]
            )
            for layer in transform.modules():
                if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                    layer.reset_parameters()

    return initialised(design_photo_codec(photos, PhotoConfig()), change)


def integer_twin(photos: Tensor) -> Variant:
    config = PRESETS["photo-int"]["model"]
    design = design_photo_codec(photos, config)
    model = build_model(design.config)
    assert isinstance(model, PhotoIntegerModel)
    initialise_integer_model(model, design, photos)
    return Variant(model, design)


def one_rate(photos: Tensor) -> Variant:
    variant = full(photos)
    return dataclasses.replace(variant, channels=variant.design.config.cut_points[FIXED_CHANNELS])


VARIANTS = {
    "full": full,
    "static tables instead of the context prior": static_tables,
    "no interlaced channels": no_checkerboard,
    "symbols chosen whatever they cost": no_rdoq,
    "one pass a coefficient instead of successive refinement": one_pass,
    "random transforms instead of the warm start": random_start,
    "integer rounding": integer_twin,
    "one bitrate": one_rate,
}


def train(variant: Variant, files: list[Path], steps: int, name: str) -> float:
    """Train a variant; returns the seconds it took."""
    model, design = variant.model, variant.design
    for transform in (model.analysis_transform, model.synthesis_transform):
        transform.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if isinstance(model, PhotoModel):
        model.quantizer.log_temperature.requires_grad_(False)
    groups: dict[float, list[nn.Parameter]] = {}
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(RATE_FACTORS.get(key, 1.0), []).append(parameter)
    rate: float = PRESETS["photo"]["learning_rate"]
    optimizer = torch.optim.Adam([{"params": p, "lr": rate * factor} for factor, p in groups.items()])

    def factor(step: int) -> float:
        decay = 1.0 if step < steps / 2 else 0.5 * (1 + math.cos(math.pi * (2 * step / steps - 1)))
        return min(1.0, (step + 1) / WARM_UP_STEPS) * max(decay, 0.003)

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    rates, config = design.rates_bpp, design.config
    low, high = rates[config.cut_points[0] - 1].log(), rates[-1].log()
    loader = CropLoader(files, BATCH, CROP, seed=SEED, scale=(0.75, 0.95))
    step, start = 0, time.perf_counter()
    while step < steps:
        loader.step = lambda: step  # noqa: B023
        for batch in loader:
            torch.manual_seed(step)
            fractions = (torch.arange(BATCH, 0, -1) - torch.rand(BATCH)) / BATCH * (4 / 3)
            active = (torch.searchsorted(rates, (low + fractions * (high - low)).exp()) + 1).clamp(
                max=config.channels_max
            )
            if variant.channels is not None:
                active = torch.full_like(active, variant.channels)
            images = model.normalise(batch).contiguous(memory_format=torch.channels_last)
            output = model(images, active)
            loss = image_losses(output.bits, output.reconstruction, images, design.lambdas[active - 1]).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            if step % 50 == 0:
                print(f"{name}: step {step} of {steps}, loss {loss.item():.4f}", flush=True)
            if step == steps:
                break
    return time.perf_counter() - start


def image_losses(bits: Tensor, decoded: Tensor, images: Tensor, lambdas: Tensor) -> Tensor:
    """Compute the training loss of each image."""
    error = (decoded - images).square().flatten(1).mean(1) * initialise.GREY_LEVELS**2
    return rate_distortion(bits / (images.shape[2] * images.shape[3]), error, lambdas)


@torch.no_grad()
def measure(variant: Variant, photos: list[Tensor]) -> list[dict[str, float]]:
    """Measure the mean rate and PSNR of whole photos at the cut points."""
    model = variant.model.eval()
    rows = []
    for count in [variant.channels] if variant.channels else variant.design.config.cut_points[1::2]:
        rate = psnr = 0.0
        for photo in photos:
            output = model(model.normalise(photo.float() / 255), torch.tensor([count]))
            decoded = model.denormalise(output.reconstruction).clamp(0, 1).mul(255).round()
            rate += output.bits.item() / photo[0, 0].numel() / len(photos)
            psnr += 10 * math.log10(255**2 / (decoded - photo).square().mean().item()) / len(photos)
        rows.append({"channels": count, "estimated_bpp": rate, "psnr_db": psnr})
    return rows


def main() -> None:
    """Train and measure the variants that the output file does not have, then print all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    arguments = parser.parse_args()
    files = photo_files(photo_folder(arguments.data, "train"), CROP)
    held_out = photo_files(photo_folder(arguments.data, "validation"), BLOCK)[:PHOTOS]
    photos = list(WholePhotos(held_out, BLOCK))
    result: dict[str, Any] = {
        "command": command_line(),
        "ohmq": ohmq.__version__,
        "torch": torch.__version__,
        "steps": arguments.steps,
        "batch": [BATCH, CROP],
        "seed": SEED,
        "photos": len(photos),
        "variants": {},
    }
    if arguments.output.exists():
        recorded = json.loads(arguments.output.read_text())
        if recorded["steps"] != arguments.steps:
            raise ConfigError(f"{arguments.output} holds runs of {recorded['steps']} steps; choose another output")
        result = recorded
    jpeg = classic_curve("jpeg", [photo[0].permute(1, 2, 0).numpy() for photo in photos])
    result["jpeg"] = {"bpp": list(jpeg.rates_bpp), "psnr_db": list(jpeg.psnr_db)}
    sample = next(iter(CropLoader(files, DESIGN_CROPS, DESIGN_CROP, seed=SEED)))
    for name in arguments.only:
        if name in result["variants"]:
            continue
        torch.manual_seed(SEED)
        variant = VARIANTS[name](sample)
        seconds = train(variant, files, arguments.steps, name)
        result["variants"][name] = {"seconds": round(seconds), "rows": measure(variant, photos)}
        write_atomically(arguments.output, (json.dumps(result, indent=1) + "\n").encode(), force=True)
    print_table(result)


def print_table(result: dict[str, Any]) -> None:
    """Print BD-rates against JPEG and against the full model; one bitrate: rate at equal PSNR."""
    variants = result["variants"]
    base = curve(variants["full"]["rows"])
    for name, variant in variants.items():
        rates, psnr = curve(variant["rows"])
        if len(rates) == 1:
            below = max(i for i in range(len(base[1]) - 1) if base[1][i] <= psnr[0])
            fraction = (psnr[0] - base[1][below]) / (base[1][below + 1] - base[1][below])
            equal = math.exp((1 - fraction) * math.log(base[0][below]) + fraction * math.log(base[0][below + 1]))
            print(f"{name}: {rates[0]:.4f} bpp, {psnr[0]:.2f} dB; full needs {equal / rates[0] - 1:+.1%} for that")
            continue
        try:
            jpeg = bd_rate(result["jpeg"]["bpp"], result["jpeg"]["psnr_db"], rates, psnr).percent
            against = f", {bd_rate(*base, rates, psnr).percent:+.1f} % against full" if name != "full" else ""
            print(f"{name}: BD-rate {jpeg:+.1f} % against JPEG{against}")
        except ConfigError as error:
            print(f"{name}: no BD-rate: {error}")
        print("   " + ", ".join(f"{r:.3f}: {p:.2f}" for r, p in zip(rates, psnr, strict=True)))


def curve(rows: list[dict[str, float]]) -> tuple[list[float], list[float]]:
    """Return rates in bits per pixel and PSNR in dB."""
    return [row["estimated_bpp"] for row in rows], [row["psnr_db"] for row in rows]


if __name__ == "__main__":
    main()
