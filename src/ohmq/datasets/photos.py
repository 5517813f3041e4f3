"""Batches of random crops from folders of photos, in an order that depends on the seed and the step alone."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ohmq.errors import ConfigError, UnsupportedImageError
from ohmq.imaging.convert import prepare_image
from ohmq.imaging.files import open_image
from ohmq.imaging.listing import list_images

__all__ = ["CropLoader", "WholePhotos", "photo_files", "photo_folder", "read_photo"]

log = logging.getLogger(__name__)

_NAMES = ("openimages", "photos", "")
KEPT_BYTES = 2 * 2**30
"""Decoded photos that a loader keeps in memory; more are read again each time."""


def photo_folder(data_base_path: Path, split: str) -> Path:
    """``data_base_path/openimages/SPLIT``, or below ``photos``, or the split itself.

    Raises:
        ConfigError: none of them; the message lists where it looked.
    """
    places = [data_base_path / name / split for name in _NAMES]
    for place in places:
        if place.is_dir():
            return place
    raise ConfigError(f"no photos to train on: looked for {', '.join(map(str, places))}")


def photo_files(folder: Path, smallest_side: int) -> list[Path]:
    """The photos of a folder, searched recursively, that open and are not smaller than a crop.

    Others are left out with a warning that names them.

    Raises:
        ConfigError: no usable photo.
    """
    found = []
    for path in list_images([folder]):
        try:
            with Image.open(path) as image:
                width, height = image.size
        except (OSError, SyntaxError, ValueError) as error:
            log.warning("left out %s: it cannot be read (%s)", path, error)
            continue
        if min(width, height) < smallest_side:
            log.warning("left out %s: %dx%d is smaller than %d pixels", path, width, height, smallest_side)
            continue
        found.append(path)
    if not found:
        raise ConfigError(f"no usable photo in {folder}: each needs at least {smallest_side} pixels on a side")
    return found


def read_photo(path: Path) -> NDArray[np.uint8]:
    """Pixels of a photo as RGB, (H, W, 3).

    Raises:
        UnsupportedImageError: a file that cannot be read.
    """
    return np.asarray(prepare_image(open_image(path).image, grey=False).image)


class WholePhotos:
    """Photos one by one, cut to multiples of a block at the lower right, each (1, 3, H, W) uint8; held in memory.

    Args:
        files: the photos. multiple: pixels of a block.
    """

    def __init__(self, files: Sequence[Path], multiple: int) -> None:
        self.photos = []
        for path in files:
            pixels = read_photo(path)
            height, width = (side // multiple * multiple for side in pixels.shape[:2])
            self.photos.append(torch.from_numpy(pixels[:height, :width].copy()).permute(2, 0, 1)[None])

    def __len__(self) -> int:
        """How many."""
        return len(self.photos)

    def __iter__(self) -> Iterator[Tensor]:
        """Each in turn."""
        return iter(self.photos)


class CropLoader:
    """Random crops, one of each photo an epoch, mirrored half of the time.

    The next batch is read by a thread while a step runs. Which photos and which crops is a function of (seed, step), so a
    resumed run sees what an uninterrupted one would have. A photo that turns out to be damaged is replaced by the next one,
    with a warning.

    Args:
        files: photos, each at least ``crop`` on a side. batch_size: crops of a step, over all processes.
        crop: side, in pixels. seed: of order and crops. scale: range of random factors by which a photo is made smaller
            first, never below the crop; (1, 1): as it is.
        step: says how many training steps are done. rank, world_size: of this process.

    Shape:
        batches: (batch_size / world_size, 3, crop, crop), float32 in [0, 1].
    """

    def __init__(
        self,
        files: Sequence[Path],
        batch_size: int,
        crop: int,
        *,
        seed: int = 0,
        scale: tuple[float, float] = (1.0, 1.0),
        step: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.files, self.batch_size, self.crop = list(files), min(batch_size, len(files)), crop
        self.seed, self.scale, self.step = seed, scale, step
        self.rank, self.world_size = rank, world_size
        self._kept: dict[Path, Image.Image] = {}
        self._kept_bytes = 0

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.files) // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        """The batches that are left of the epoch."""
        epoch, first = divmod(self.step(), len(self))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.files))
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self._batch, epoch, first, order)
            for batch in range(first, len(self)):
                ready = coming.result()
                if batch + 1 < len(self):
                    coming = pool.submit(self._batch, epoch, batch + 1, order)
                yield torch.from_numpy(ready).permute(0, 3, 1, 2).float() / 255

    def _batch(self, epoch: int, batch: int, order: NDArray[np.int64]) -> NDArray[np.uint8]:
        places = range(batch * self.batch_size, (batch + 1) * self.batch_size)[self.rank :: self.world_size]
        return np.stack([self._crop(epoch, place, order) for place in places])

    def _image(self, path: Path) -> Image.Image:
        """A photo, from memory if it was read before and there was room."""
        if path not in self._kept:
            image = prepare_image(open_image(path).image, grey=False).image
            size = 3 * image.width * image.height
            if self._kept_bytes + size > KEPT_BYTES:
                return image
            self._kept[path] = image
            self._kept_bytes += size
        return self._kept[path]

    def _crop(self, epoch: int, place: int, order: NDArray[np.int64]) -> NDArray[np.uint8]:
        rng = np.random.default_rng([self.seed, epoch, place])
        for attempt in range(len(order)):
            path = self.files[order[(place + attempt) % len(order)]]
            try:
                image = self._image(path)
            except UnsupportedImageError as error:
                log.warning("left out: %s", error)
                continue
            factor = min(1.0, max(rng.uniform(*self.scale), self.crop / min(image.size)))
            width, height = (max(self.crop, round(side * factor)) for side in image.size)
            left, upper = (int(rng.integers(side - self.crop + 1)) for side in (width, height))
            box = (left, upper, left + self.crop, upper + self.crop)
            if factor < 1:  # only what the crop shows
                x, y = image.width / width, image.height / height
                source = (box[0] * x, box[1] * y, box[2] * x, box[3] * y)
                pixels = np.asarray(image.resize((self.crop, self.crop), Image.Resampling.BICUBIC, box=source))
            else:
                pixels = np.asarray(image.crop(box))
            return np.ascontiguousarray(pixels[:, ::-1] if rng.random() < 0.5 else pixels)
        raise ConfigError("not one photo of the training folder can be read")
