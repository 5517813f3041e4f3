"""Fit the weights and tables that code residuals, to photographs: src/ohmq/entropy/residual_tables.json.

python tools/fit_residual_tables.py photo PHOTOS --out tables.json

The shipped file is part of the format: files depend on it. A new one would need a new flag. Of every 32nd photo, the central
512x512 pixels (scaled down to no less than half) are coded with all channels and decoded by the decoder that residuals
correct. Their residuals are quantized with two random steps each. For each kind of channel, a magnitude is predicted from seven
sums of earlier magnitudes by weighted least squares; levels with nearly the same prediction share a table.
"""

import json
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ohmq.bitstream.format import STEPS_A_LEVEL
from ohmq.entropy.residual_coder import CHANNELS, ESCAPE, KEPT, context_sums
from ohmq.geometry import Window
from ohmq.imaging.listing import list_images
from ohmq.loading import load
from ohmq.runtime.residual import residual_levels
from ohmq.utils.progress import steps

SIDE, EVERY, FIRST = 512, 32, 5
STEP_RANGE = (1.2, 12.0)
"""Range of the random steps, in grey levels."""
TABLES = 36
SCALE = 256
"""Weights are in units of 1 / SCALE."""
LOWEST = 24
"""Number of the table of magnitude 1; there are four for each factor of 2."""
PRIOR = 50
"""Weight of a geometric distribution that every table begins with, in symbols."""


def levels_of(paths: list[Path], model: str) -> list[NDArray[np.int16]]:
    """Return levels of residuals, (192, h, w), two for each photo."""
    codec, rng, found = load(model), np.random.default_rng(1), []
    place = Window(0, 0, SIDE // 16, SIDE // 16)
    base = codec.encoder.residual_base
    assert base is not None
    for number, path in enumerate(steps(paths, "photos")):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        scale = max(SIDE / image.width, SIDE / image.height, 0.5)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
        left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
        crop = Image.fromarray(np.asarray(image.crop((left, top, left + SIDE, top + SIDE))))
        file = codec.compress(crop, channels=codec.num_channels, tune="visual" if number % 2 else "psnr")
        decoded = np.asarray(base.windowed.synthesise(codec.decode(file)[1], codec.num_channels))
        for step in np.exp(rng.uniform(*np.log(STEP_RANGE), 2)):
            found.append(residual_levels(np.asarray(crop), decoded, round(STEPS_A_LEVEL * step), place))
    return found


def fitted_weights(sums: NDArray[np.float32], magnitudes: NDArray[np.float32]) -> NDArray[np.int64]:
    """Fit magnitudes by sums and a constant; errors of small predictions weigh most."""
    inputs = np.concatenate([sums, np.ones((len(sums), 1), np.float32)], 1)
    weight = np.ones(len(inputs), np.float32)
    for _ in range(6):
        weighed = inputs * weight[:, None]
        solution = np.linalg.solve(weighed.T @ inputs + 1e-3 * np.eye(8), weighed.T @ magnitudes)
        weight = ((np.maximum(inputs @ solution, 0.02) + 0.05) ** -1.5).astype(np.float32)
    return np.round(SCALE * solution).astype(np.int64)


@click.command()
@click.argument("model")
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON file to write.")
def command(model: str, photos: Path, out: Path) -> None:
    """Fit weights and tables to residuals of MODEL on PHOTOS."""
    levels = levels_of(sorted(list_images([photos]))[FIRST::EVERY], model)
    bounds = [round(SCALE * 2 ** ((number - LOWEST - 0.5) / 4)) for number in range(1, TABLES)]
    weights, counts = np.zeros((14, 8), np.int64), np.zeros((TABLES, ESCAPE + 1))
    by_kind: dict[int, list[tuple[NDArray[np.int32], NDArray[np.int16]]]] = {}
    for image in levels:
        kept = np.minimum(np.abs(image.astype(np.int32)), KEPT)
        for number, channel in enumerate(CHANNELS):
            by_kind.setdefault(channel.kind, []).append(
                (context_sums(kept, number).reshape(7, -1).T, np.abs(image[number]).reshape(-1))
            )
    for kind, parts in by_kind.items():
        sums, magnitudes = (np.concatenate(part) for part in zip(*parts, strict=True))
        magnitudes = np.minimum(magnitudes, ESCAPE)
        weights[kind] = fitted_weights(sums.astype(np.float32), magnitudes.astype(np.float32))
        index = np.searchsorted(bounds, sums @ weights[kind, :7] + weights[kind, 7], "right")
        np.add.at(counts, (index, magnitudes), 1)
    ratio = 2 ** ((np.arange(TABLES)[:, None] - LOWEST) / 4)
    geometric = (ratio / (1 + ratio)) ** np.arange(ESCAPE + 1) / (1 + ratio)
    geometric[:, -1] *= 1 + ratio[:, 0]
    counts += PRIOR * geometric
    shares = np.maximum(np.round(counts / counts.sum(1, keepdims=True) * 2**20), 1).astype(np.int64)
    rows = {
        key: ",\n".join(json.dumps(row) for row in table.tolist()) for key, table in (("w", weights), ("m", shares))
    }
    out.write_text(f'{{"weights": [\n{rows["w"]}],\n"bounds": {json.dumps(bounds)},\n"magnitudes": [\n{rows["m"]}]}}\n')


if __name__ == "__main__":
    command()
