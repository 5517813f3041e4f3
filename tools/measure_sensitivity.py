"""Measure how much errors of each frequency show: the table behind `ohmq.encoder.tuning.SENSITIVITY`.

    python tools/measure_sensitivity.py photo PHOTOS --out results/sensitivity.json

Codes the middles of photographs, halves the error of one band of frequencies, and takes the SSIMULACRA2 points that this
gains, per share of the squared error that it removes; sums over all images and rates. A band is a colour component of the
block transform and a range of radii.
"""

import argparse
import itertools
import json
from pathlib import Path

import numpy as np
from calibrate_quality import crops
from numpy.typing import NDArray
from PIL import Image

import ohmq
from ohmq.metrics import Ssimulacra2
from ohmq.models.block_frequencies import block_frequencies
from ohmq.models.config import BLOCK
from ohmq.models.photo import block_filters
from ohmq.utils.atomic_write import write_atomically
from ohmq.utils.provenance import command_line, software_versions

CHANNELS = (116, 337, 678, 1000)
BANDS = {0: (0, 0.5, 2.5, 4.5, 6.5, 8.5, 10.5, 13.5, 18), 1: (0, 0.5, 2.5, 4.5, 18), 2: (0, 0.5, 2.5, 4.5, 18)}
"""Borders of the bands of each colour component, as radii in half periods a block."""
REFERENCE = "luma 6.5 to 8.5"


def bands(count: int) -> dict[str, NDArray[np.int64]]:
    """Return the coefficients of each band."""
    filters = block_frequencies(count)
    component, radius = np.array([item.component for item in filters]), np.array([item.radius for item in filters])
    return {
        f"{('luma', 'red-blue', 'green-magenta')[colour]} {low:g} to {high:g}": np.flatnonzero(
            (component == colour) & (radius >= low) & (radius < high)
        )
        for colour, borders in BANDS.items()
        for low, high in itertools.pairwise(borders)
    }


def blocks(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the pixels of each block, (blocks, 3 * 16 * 16), of an image (H, W, 3)."""
    height, width = (side // BLOCK for side in image.shape[:2])
    return image.reshape(height, BLOCK, width, BLOCK, 3).transpose(0, 2, 4, 1, 3).reshape(height * width, -1)


def image_of(rows: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """Return the image (H, W, 3) of its blocks."""
    parts = rows.reshape(height // BLOCK, width // BLOCK, 3, BLOCK, BLOCK)
    return parts.transpose(0, 3, 1, 4, 2).reshape(height, width, 3)


def measure(codec: ohmq.Codec, image: Image.Image, sums: dict[str, NDArray[np.float64]]) -> None:
    """Add to ``sums`` the points and the share of the squared error of each band, for one photograph."""
    count = codec.config.latent_channels
    transform = block_filters(count)[0].numpy().reshape(count, -1)
    original = np.asarray(image, np.float32)
    height, width = (side // BLOCK * BLOCK for side in original.shape[:2])
    original = original[:height, :width]
    reference = Ssimulacra2(original.astype(np.uint8))

    def score(error: NDArray[np.float32]) -> float:
        changed = original - image_of(error, height, width)
        return reference.score(changed.round().clip(0, 255).astype(np.uint8))

    for channels in CHANNELS:
        decoded = codec.decompress(codec.compress(image, channels=channels, tune="psnr"))
        error = blocks(original - np.asarray(decoded, np.float32)[:height, :width])
        coefficients, plain = error @ transform.T, score(error)
        for name, numbers in bands(count).items():
            part = coefficients[:, numbers]
            gain = score(error - 0.5 * part @ transform[numbers]) - plain
            sums[name] = sums.get(name, np.zeros(2)) + (gain, np.square(part).sum() / np.square(error).sum())


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("photos", type=Path)
    parser.add_argument("--images", type=int, default=5, help="photographs (default: 5)")
    parser.add_argument("--side", type=int, default=512, help="largest side of a crop, in pixels (default: 512)")
    parser.add_argument("--out", type=Path, required=True, help="result file")
    arguments = parser.parse_args()
    codec = ohmq.load(arguments.model)
    sums: dict[str, NDArray[np.float64]] = {}
    for _, image in crops(arguments.photos, arguments.images, arguments.side):
        measure(codec, image, sums)
    means = {name: float(gain / share) for name, (gain, share) in sums.items()}
    relative = {name: round(value / means[REFERENCE], 2) for name, value in means.items()}
    record = {
        "command": command_line(),
        "versions": software_versions(),
        "model_id": codec.model_id.hex(),
        "images": arguments.images,
        "channels": CHANNELS,
        "sensitivity": relative,
    }
    write_atomically(arguments.out, (json.dumps(record, indent=1) + "\n").encode(), force=True)
    print("\n".join(f"{name:30} {value:6.2f}" for name, value in relative.items()))


if __name__ == "__main__":
    main()
