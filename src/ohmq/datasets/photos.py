"""Photos: finding and reading them, and batches of random crops that depend on seed and step alone."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ohmq.datasets.folders import DATA_HINT, data_folders, find_data
from ohmq.datasets.parallel import ProcessMap
from ohmq.datasets.photo_sizes import photo_sizes
from ohmq.errors import ConfigError, UnsupportedImageError
from ohmq.imaging.convert import prepare_image
from ohmq.imaging.files import open_image
from ohmq.imaging.listing import list_images
from ohmq.utils.progress import steps

__all__ = [
    "CropLoader",
    "CropReader",
    "Crops",
    "PhotoFiles",
    "PhotoSet",
    "WholePhotos",
    "find_photos",
    "photo_files",
    "photo_folder",
    "read_photo",
    "read_rgb",
    "warn_left_out",
]

log = logging.getLogger(__name__)

_FOLDERS = ("openimages", "photos", "")
KEPT_BYTES = 2 * 2**30
"""Bytes of decoded photos that a loader keeps in memory; further photos are read again each time."""
NAMED_PHOTOS = 20
"""Photos of a folder that are left out with a warning each; all are counted."""


def find_photos(data_base_path: Path | str | None = None, split: str = "train") -> Path | None:
    """Find the folder of photos that has a split: ``openimages``, ``photos`` or itself.

    Unlike MNIST, photos differ from folder to folder: where ``data_base_path`` is given, it is searched alone; else
    ``$OHMQ_DATA`` and ``./data`` are.

    Args:
        data_base_path: folder to look in; None: the usual places.
        split: "train" or "validation".

    Returns:
        The folder that has the split below it; None: there is none.
    """
    folders = [Path(data_base_path)] if data_base_path else data_folders()
    return find_data(folders, _FOLDERS, lambda folder: (folder / split).is_dir())


def photo_folder(data_base_path: Path | str | None, split: str) -> Path:
    """Find the folder of a split: ``openimages/SPLIT``, ``photos/SPLIT`` or ``SPLIT``.

    Args:
        data_base_path: folder to look in; None: the usual places, see `find_photos`.
        split: "train" or "validation".

    Raises:
        ConfigError: none of them exists; the message lists them.
    """
    if found := find_photos(data_base_path, split):
        return found / split
    folders = [Path(data_base_path)] if data_base_path else data_folders()
    candidates = [str(folder / name / split) for folder in folders for name in _FOLDERS]
    raise ConfigError(f"no photos to train on: looked for {', '.join(candidates)}; name their folder with {DATA_HINT}")


def photo_files(folder: Path, smallest_side: int, *, num_workers: int = 0) -> list[Path]:
    """List the photos of a folder, searched recursively, that open and are large enough.

    Others are left out with a warning that names them. Sizes of large folders are kept in the user's cache.

    Args:
        folder: folder of photos.
        smallest_side: least width and height, in pixels.
        num_workers: processes that open photos; 0: this one.

    Raises:
        ConfigError: no usable photo.
    """
    problems: dict[Path, str] = {}
    files = list_images([folder], on_error=lambda place: problems.update({place.path: str(place.error)}))
    for path, size in zip(files, photo_sizes(folder, files, num_workers=num_workers), strict=True):
        if size.problem:
            problems[path] = size.problem
        elif min(size.width, size.height) < smallest_side:
            problems[path] = f"{size.width}x{size.height} is smaller than {smallest_side} pixels"
    warn_left_out(problems, len(files))
    photos = [path for path in files if path not in problems]
    if not photos:
        raise ConfigError(f"no usable photo in {folder}: each needs at least {smallest_side} pixels on a side")
    return photos


def warn_left_out(problems: Mapping[Path, str] | Mapping[str, str], total: int, count: int | None = None) -> None:
    """Name photos that are left out, the first 20 of them, and count them.

    Args:
        problems: photos, and why each is left out.
        total: photos, with those that are left out.
        count: photos that are left out. Default: those with a problem.
    """
    for name, problem in list(problems.items())[:NAMED_PHOTOS]:
        log.warning("left out %s: %s", name, problem)
    if problems:
        log.warning("left out %d of %d photos", count or len(problems), total)


def read_rgb(path: Path | str, data: bytes | None = None) -> Image.Image:
    """Read a photo as an RGB image.

    Args:
        path: image file.
        data: its content, if it was read already; path then only names it in errors.

    Raises:
        UnsupportedImageError: a file that cannot be read; the message names it.
    """
    return prepare_image(open_image(path, data=data).image, grey=False).image


def read_photo(path: Path) -> NDArray[np.uint8]:
    """Read a photo as RGB.

    Args:
        path: image file.

    Shape:
        Returns: (H, W, 3), uint8.

    Raises:
        UnsupportedImageError: a file that cannot be read.
    """
    return np.asarray(read_rgb(path))


class PhotoSet(ABC):
    """Photos to train on, by number. It can be pickled: each process that reads has its own.

    Attributes:
        start_method: how processes that read are started; None: torch's default.
        identity: text that tells the photos and their order from others; "": nothing is known of them.
    """

    start_method: str | None = None
    identity: str = ""

    @abstractmethod
    def __len__(self) -> int:
        """Number of photos."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Name of a photo, for messages."""

    @abstractmethod
    def read(self, index: int) -> Image.Image:
        """Read a photo as an RGB image.

        Raises:
            UnsupportedImageError: it cannot be read; the message begins with its name.
        """

    @abstractmethod
    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Order of the photos in an epoch, (photos,)."""


class PhotoFiles(PhotoSet):
    """Photos in files of their own, in any order.

    Args:
        files: image files.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = list(files)

    def __len__(self) -> int:
        """Number of photos."""
        return len(self.files)

    def name(self, index: int) -> str:
        """Path of a photo."""
        return str(self.files[index])

    def read(self, index: int) -> Image.Image:
        """Read a photo as an RGB image."""
        return read_rgb(self.files[index])

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Order of the photos in an epoch: any permutation of them, (photos,)."""
        return np.random.default_rng([seed, epoch]).permutation(len(self.files))


def _photo_set(photos: "PhotoSet | Sequence[Path]") -> PhotoSet:
    return photos if isinstance(photos, PhotoSet) else PhotoFiles(photos)


class WholePhotos:
    """Whole photos, one a batch, held in memory; cropped at the right and bottom to multiples of a block.

    Photos that cannot be read are left out, with a warning that names them.

    Args:
        photos: photos, or their files.
        multiple: side of a block, in pixels.

    Shape:
        batches: (1, 3, H, W), uint8; H and W multiples of the block.

    Raises:
        ConfigError: not one photo can be read.
    """

    def __init__(self, photos: PhotoSet | Sequence[Path], multiple: int) -> None:
        self.photos = []
        source = _photo_set(photos)
        problems: dict[str, str] = {}
        for index in steps(range(len(source)), "reading photos"):
            try:
                pixels = np.asarray(source.read(index))
            except UnsupportedImageError as error:
                name = source.name(index)
                problems[name] = str(error).removeprefix(f"{name}: ")
                continue
            height, width = (side // multiple * multiple for side in pixels.shape[:2])
            self.photos.append(torch.from_numpy(pixels[:height, :width].copy()).permute(2, 0, 1)[None])
        warn_left_out(problems, len(source))
        if not self.photos:
            raise ConfigError(f"not one of {len(source)} photos can be read; the first is {source.name(0)}")

    def __len__(self) -> int:
        """Number of photos."""
        return len(self.photos)

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over the photos in order."""
        return iter(self.photos)


class Crops(NamedTuple):
    """Crops of a batch.

    Attributes:
        pixels: (crops, crop, crop, 3), uint8.
        problems: photos that could not be read, and why.
    """

    pixels: NDArray[np.uint8]
    problems: dict[str, str]


class CropReader:
    """Random crops of photos, as a function of seed, epoch and place in the epoch; at home in any process.

    Args:
        photos: photos, each at least ``crop`` wide and high.
        batch_size: crops of a batch, over all training processes.
        crop: side of a crop, in pixels.
        seed: seed of order and crops.
        scale: range of random factors, see `CropLoader`.
        rank: index of this training process.
        world_size: number of training processes.
        kept_bytes: bytes of decoded photos to keep in memory.
    """

    def __init__(
        self,
        photos: PhotoSet,
        batch_size: int,
        crop: int,
        *,
        seed: int,
        scale: tuple[float, float],
        rank: int,
        world_size: int,
        kept_bytes: int,
    ) -> None:
        self.photos, self.batch_size, self.crop = photos, batch_size, crop
        self.seed, self.scale = seed, scale
        self.rank, self.world_size = rank, world_size
        self.kept_bytes = kept_bytes
        self._kept: dict[int, Image.Image] = {}
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def __call__(self, place: tuple[int, int]) -> Crops:
        """Read this training process's share of a batch.

        Args:
            place: epoch and batch.

        Raises:
            ConfigError: not one photo can be read.
        """
        epoch, batch = place
        positions = range(batch * self.batch_size, (batch + 1) * self.batch_size)[self.rank :: self.world_size]
        problems: dict[str, str] = {}
        order = self._epoch_order(epoch)
        return Crops(np.stack([self._crop(epoch, position, order, problems) for position in positions]), problems)

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """Order of the photos in an epoch, (photos,)."""
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self.photos.order(self.seed, epoch)
        return self._order[1]

    def _image(self, index: int) -> Image.Image:
        """Read a photo, or take it from memory."""
        if index not in self._kept:
            image = self.photos.read(index)
            size = 3 * image.width * image.height
            if size > self.kept_bytes:
                return image
            self._kept[index] = image
            self.kept_bytes -= size
        return self._kept[index]

    def _crop(self, epoch: int, position: int, order: NDArray[np.int64], problems: dict[str, str]) -> NDArray[np.uint8]:
        """Crop the photo at a position of the epoch's order, (crop, crop, 3), uint8; adds to the problems."""
        rng = np.random.default_rng([self.seed, epoch, position])
        for attempt in range(len(order)):
            index = int(order[(position + attempt) % len(order)])
            try:
                image = self._image(index)
            except UnsupportedImageError as error:
                name = self.photos.name(index)
                problems[name] = str(error).removeprefix(f"{name}: ")
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
        raise ConfigError(f"not one of {len(order)} photos can be read; the first is {self.photos.name(0)}")


class CropLoader:
    """Batches of random crops, one of each photo an epoch, mirrored half of the time.

    Processes read the next batches while a step runs, or a thread the next one. Photos and crops are a function of
    (seed, step), so that they are the same with any number of processes, and a resumed run sees the same crops as an
    uninterrupted one. A photo that turns out to be damaged is replaced by the next one, with a warning.

    Args:
        photos: photos, or their files, each at least ``crop`` wide and high.
        batch_size: crops of a step, over all training processes; at most the number of photos are taken.
        crop: side of a crop, in pixels.
        seed: seed of order and crops.
        scale: range of random factors by which a photo is scaled down first, never below the crop; (1, 1): not scaled.
        step: returns the number of training steps done; called when an epoch begins.
        rank: index of this training process.
        world_size: number of training processes.
        num_workers: processes that read photos, until `close`; 0: a thread.

    Shape:
        batches: (batch_size / world_size, 3, crop, crop), float32 in [0, 1].

    Raises:
        ConfigError: none of the photos can be read, or a process that reads them ended (when a batch is read).
    """

    def __init__(
        self,
        photos: PhotoSet | Sequence[Path],
        batch_size: int,
        crop: int,
        *,
        seed: int = 0,
        scale: tuple[float, float] = (1.0, 1.0),
        step: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        self.photos, self.batch_size, self.crop = _photo_set(photos), min(batch_size, len(photos)), crop
        self.seed, self.scale, self.step = seed, scale, step
        self.rank, self.world_size, self.num_workers = rank, world_size, num_workers
        self._reader: CropReader | None = None
        self._processes: ProcessMap[tuple[int, int], Crops] | None = None
        self._problems: set[str] = set()

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        return len(self.photos) // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over the remaining batches of the epoch."""
        for crops in self._in_processes() if self.num_workers else self._in_a_thread():
            for name, problem in crops.problems.items():
                if name not in self._problems:
                    log.warning("left out %s: %s", name, problem)
            self._problems.update(crops.problems)
            yield torch.from_numpy(crops.pixels).permute(0, 3, 1, 2).float() / 255

    def close(self) -> None:
        """End the processes; a further iteration starts new ones."""
        if self._processes is not None:
            self._processes.close()
            self._processes = None

    def _crop_reader(self) -> CropReader:
        """Return the reader of this training process, which keeps photos in memory from epoch to epoch."""
        if self._reader is None or (self._reader.rank, self._reader.world_size) != (self.rank, self.world_size):
            self._reader = CropReader(
                self.photos,
                self.batch_size,
                self.crop,
                seed=self.seed,
                scale=self.scale,
                rank=self.rank,
                world_size=self.world_size,
                kept_bytes=KEPT_BYTES // max(1, self.num_workers),
            )
            self.close()
        return self._reader

    def _in_a_thread(self) -> Iterator[Crops]:
        """Read each batch in a thread while the one before is used."""
        reader, places = self._crop_reader(), list(_Places(self))
        with ThreadPoolExecutor(1) as pool:
            next_crops = pool.submit(reader, places[0])
            for place in places[1:]:
                crops = next_crops.result()
                next_crops = pool.submit(reader, place)
                yield crops
            yield next_crops.result()

    def _in_processes(self) -> Iterator[Crops]:
        """Read batches ahead in processes."""
        reader = self._crop_reader()
        if self._processes is None:
            self._processes = ProcessMap(reader, _Places(self), self.num_workers, self.photos.start_method)
        return iter(self._processes)


class _Places:
    """Epoch and batch of the remaining batches of a loader's epoch."""

    def __init__(self, loader: CropLoader) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, first = divmod(self.loader.step(), len(self.loader))
        return iter([(epoch, batch) for batch in range(first, len(self.loader))])
