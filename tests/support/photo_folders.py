"""Folders of drawn photos to train on."""

from pathlib import Path

import numpy as np
from PIL import Image


def draw_photo(path: Path, height: int, width: int, seed: int) -> None:
    """Draw waves and edges into an image file; its folder is made."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 30
    waves = [np.sin(a * x + b * y + c) for a, b, c in rng.uniform(-3, 3, (3, 3))]
    pixels = 128 + 60 * np.stack(waves, -1) + 40 * np.sign(waves[1])[..., None]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def make_photo_folder(base: Path) -> Path:
    """Draw 6 photos to train on and 2 to validate, and add a small, a broken and a text file; returns the data folder."""
    data = base / "data"
    train = data / "openimages" / "train"
    for number in range(6):
        draw_photo(train / f"{number}.png", 90, 110, number)
    for number in range(2):
        draw_photo(data / "openimages" / "validation" / f"{number}.png", 80, 64, 20 + number)
    draw_photo(train / "small.png", 20, 200, 9)
    (train / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (train / "notes.txt").write_text("no photo")
    return data
