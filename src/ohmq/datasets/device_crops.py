"""Random crops of photos that are decoded once and kept in the memory of the device that trains."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ohmq.datasets.photos import PhotoSet, warn_left_out
from ohmq.errors import ConfigError, UnsupportedImageError
from ohmq.utils.progress import steps

__all__ = ["DeviceCropLoader"]

READING_THREADS = 16
"""Photos that are decoded at a time."""
MOST_BYTES = 16 * 2**30
"""Limit on the bytes of all decoded photos."""


class DeviceCropLoader:
    """Batches of random crops, cut on the device: the crops of `ohmq.datasets.photos.CropLoader` without scaling.

    A step takes next to no time of the CPU. All photos are decoded when the first batch is wanted. Photos that cannot be read
    are left out, with a warning that names them.

    Args:
        photos: photos, each at least ``crop`` wide and high.
        batch_size: crops of a step; at most the number of photos are taken.
        crop: side of a crop, in pixels.
        seed: seed of order and crops.
        step: returns the number of training steps done; called when an epoch begins.
        rank: index of this training process.
        world_size: number of training processes.
        device: device of the photos and the batches.

    Shape:
        batches: (batch_size / world_size, 3, crop, crop), float32 in [0, 1].

    Raises:
        ConfigError: not one photo can be read, or all take more than 16 GiB (when the first batch is wanted).
    """

    def __init__(
        self,
        photos: PhotoSet,
        batch_size: int,
        crop: int,
        *,
        seed: int = 0,
        step: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | None = None,
    ) -> None:
        self.photos, self.batch_size, self.crop = photos, min(batch_size, len(photos)), crop
        self.seed, self.step, self.rank, self.world_size = seed, step, rank, world_size
        self.device = device or torch.device("cpu")
        self._pixels: Tensor | None = None
        self._starts = np.zeros(0, np.int64)
        self._sizes = np.zeros((0, 2), np.int64)

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        return len(self.photos) // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        """Iterate over the remaining batches of the epoch."""
        pixels = self._load()
        epoch, first = divmod(self.step(), len(self))
        order = self.photos.order(self.seed, epoch)
        for batch in range(first, len(self)):
            positions = range(batch * self.batch_size, (batch + 1) * self.batch_size)[self.rank :: self.world_size]
            places = torch.from_numpy(np.array([self._place(epoch, position, order) for position in positions]))
            yield self._cut(pixels, places.to(self.device, non_blocking=True))

    def close(self) -> None:
        """Do nothing: there are no processes."""

    def _load(self) -> Tensor:
        """Decode all photos into one tensor on the device, (pixels, 3), uint8."""
        if self._pixels is None:
            decoded = self._decode()
            self._sizes = np.array([pixels.shape[:2] for pixels in decoded])
            self._starts = np.concatenate([[0], self._sizes.prod(1).cumsum()[:-1]])
            pixels = np.concatenate([pixels.reshape(-1, 3) for pixels in decoded])
            self._pixels = torch.from_numpy(pixels).to(self.device)
        return self._pixels

    def _decode(self) -> list[NDArray[np.uint8]]:
        """Decode all photos; one that cannot be read is empty."""
        count, size = len(self.photos), 0
        problems: dict[str, str] = {}

        def read(index: int) -> NDArray[np.uint8]:
            try:
                return np.asarray(self.photos.read(index))
            except UnsupportedImageError as error:
                name = self.photos.name(index)
                problems[name] = str(error).removeprefix(f"{name}: ")
                return np.zeros((0, 0, 3), np.uint8)

        decoded = []
        pool = ThreadPoolExecutor(READING_THREADS)  # in order, so that few shards are open at a time
        try:
            for _, pixels in zip(steps(range(count), "decoding photos"), pool.map(read, range(count)), strict=True):
                decoded.append(pixels)
                size += pixels.nbytes
                if size > MOST_BYTES:
                    raise ConfigError(
                        f"the decoded photos take more than {MOST_BYTES:,} bytes; leave out --data-on-device"
                    )
        finally:
            pool.shutdown(cancel_futures=True)
        warn_left_out(problems, count)
        if len(problems) == count:
            raise ConfigError(f"not one of {count} photos can be read; the first is {self.photos.name(0)}")
        return decoded

    def _place(self, epoch: int, position: int, order: NDArray[np.int64]) -> tuple[int, int, bool]:
        """Return the first pixel of a crop, the width of its photo, and whether it is mirrored."""
        rng = np.random.default_rng([self.seed, epoch, position])
        index = next(i for i in np.roll(order, -position) if self._sizes[i, 0])
        height, width = self._sizes[index]
        rng.uniform(1.0, 1.0)  # the scale of `CropReader`
        left, upper = (int(rng.integers(side - self.crop + 1)) for side in (width, height))
        return int(self._starts[index] + upper * width + left), int(width), bool(rng.random() < 0.5)

    def _cut(self, pixels: Tensor, places: Tensor) -> Tensor:
        """Cut crops out of the photos.

        Args:
            pixels: all photos, (pixels, 3), uint8.
            places: first pixel, width of the photo and whether to mirror, (crops, 3), int64.
        """
        first, width, mirrored = places[:, :, None, None].unbind(1)
        along = torch.arange(self.crop, device=pixels.device)
        columns = torch.where(mirrored > 0, along.flip(0), along)
        crops = pixels[first + along[:, None] * width + columns]
        return crops.permute(0, 3, 1, 2).float() / 255
