"""Folders of photos: finding and reading them, and batches of random crops that depend on seed and step alone."""

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

_FOLDERS = ("openimages", "photos", "")
KEPT_BYTES = 2 * 2**30
"""Bytes of decoded photos that a loader keeps in memory; further photos are read again each time."""


def photo_folder(data_base_path: Path, split: str) -> Path:
    """Find the folder of a split: ``openimages/SPLIT``, ``photos/SPLIT`` or ``SPLIT``.

    Args:
        data_base_path: folder to look in.
        split: "train" or "validation".

    Raises:
        ConfigError: none of them exists; the message lists them.
    """
    candidates = [data_base_path / name / split for name in _FOLDERS]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise ConfigError(f"no photos to train on: looked for {', '.join(map(str, candidates))}")


def photo_files(folder: Path, smallest_side: int) -> list[Path]:
    """List the photos of a folder, searched recursively, that open and are large enough.

    Others are left out with a warning that names them.

    Args:
        folder: folder of photos.
        smallest_side: least width and height, in pixels.

    Raises:
        ConfigError: no usable photo.
    """
    photos = []
    for path in list_images([folder], on_error=lambda place: log.warning("left out %s: %s", place.path, place.error)):
        try:
            with Image.open(path) as image:
                width, height = image.size
        except (OSError, SyntaxError, ValueError) as error:
            log.warning("left out %s: it cannot be read (%s)", path, error)
            continue
        if min(width, height) < smallest_side:
            log.warning("left out %s: %dx%d is smaller than %d pixels", path, width, height, smallest_side)
            continue
        photos.append(path)
    if not photos:
        raise ConfigError(f"no usable photo in {folder}: each needs at least {smallest_side} pixels on a side")
    return photos


def read_photo(path: Path) -> NDArray[np.uint8]:
    """Read a photo as RGB.

    Args:
        path: image file.

    Shape:
        Returns: (H, W, 3), uint8.

    Raises:
        UnsupportedImageError: a file that cannot be read.
    """
    return np.asarray(prepare_image(open_image(path).image, grey=False).image)


class WholePhotos:
    """Whole photos, one a batch, held in memory; cropped at the right and bottom to multiples of a block.

    Args:
        files: photos.
        multiple: side of a block, in pixels.

    Shape:
        batches: (1, 3, H, W), uint8; H and W multiples of the block.

    Raises:
        UnsupportedImageError: a photo that cannot be read.
    """

    def __init__(self, files: Sequence[Path], multiple: int) -> None:
        self.photos = []
        for path in files:
            pixels = read_photo(path)
            height, width = (side // multiple * multiple for side in pixels.shape[:2])
            self.photos.append(torch.from_numpy(pixels[:height, :width].copy()).permute(2, 0, 1)[None])

    def __len__(self) -> int:
        """Number of photos."""
        return len(self.photos)

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over the photos in order."""
        return iter(self.photos)


class CropLoader:
    """Batches of random crops, one of each photo an epoch, mirrored half of the time.

    A thread reads the next batch while a step runs. Photos and crops are a function of (seed, step), so that a
    resumed run sees the same crops as an uninterrupted one. A photo that turns out to be damaged is replaced by the
    next one, with a warning.

    Args:
        files: photos, each at least ``crop`` wide and high.
        batch_size: crops of a step, over all processes; at most the number of photos are taken.
        crop: side of a crop, in pixels.
        seed: seed of order and crops.
        scale: range of random factors by which a photo is scaled down first, never below the crop; (1, 1): not scaled.
        step: returns the number of training steps done; called when an epoch begins.
        rank: index of this process.
        world_size: number of processes.

    Shape:
        batches: (batch_size / world_size, 3, crop, crop), float32 in [0, 1].

    Raises:
        ConfigError: none of the photos can be read (when a batch is read).
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
        """Number of batches of an epoch."""
        return len(self.files) // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over the remaining batches of the epoch."""
        epoch, first = divmod(self.step(), len(self))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.files))
        with ThreadPoolExecutor(1) as pool:
            next_crops = pool.submit(self._batch, epoch, first, order)
            for batch in range(first, len(self)):
                crops = next_crops.result()
                if batch + 1 < len(self):
                    next_crops = pool.submit(self._batch, epoch, batch + 1, order)
                yield torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255

    def _batch(self, epoch: int, batch: int, order: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read this process's share of a batch, (crops, crop, crop, 3), uint8."""
        positions = range(batch * self.batch_size, (batch + 1) * self.batch_size)[self.rank :: self.world_size]
        return np.stack([self._crop(epoch, position, order) for position in positions])

    def _image(self, path: Path) -> Image.Image:
        """Read a photo, or take it from memory."""
        if path not in self._kept:
            image = prepare_image(open_image(path).image, grey=False).image
            size = 3 * image.width * image.height
            if self._kept_bytes + size > KEPT_BYTES:
                return image
            self._kept[path] = image
            self._kept_bytes += size
        return self._kept[path]

    def _crop(self, epoch: int, position: int, order: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Crop the photo at a position of the epoch's order, (crop, crop, 3), uint8."""
        rng = np.random.default_rng([self.seed, epoch, position])
        for attempt in range(len(order)):
            path = self.files[order[(position + attempt) % len(order)]]
            try:
                image = self._image(path)
            except UnsupportedImageError as error:
                log.warning("left out: %s", error)
                continue
            factor = min(1.0, max(rng.uniform(*self.scale), self.crop / min(image.size)))
            width, height = (max(self.crop, round(side * factor)) for side in image.size)
            left, upper = (int(rng.integers(side - self.crop + 1)) for side in (width, height))
            box = (left, upper, left + self.crop, upper + self.crop)
            if factor < 1:  # resize the cropped region alone
                x, y = image.width / width, image.height / height
                source = (box[0] * x, box[1] * y, box[2] * x, box[3] * y)
                pixels = np.asarray(image.resize((self.crop, self.crop), Image.Resampling.BICUBIC, box=source))
            else:
                pixels = np.asarray(image.crop(box))
            return np.ascontiguousarray(pixels[:, ::-1] if rng.random() < 0.5 else pixels)
        raise ConfigError("not one photo of the training folder can be read")
