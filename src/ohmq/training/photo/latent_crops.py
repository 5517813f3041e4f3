"""Crops of training photos with the latents that the encoder sends for them: what decoders are trained on.

Encoding takes longer than a training step of a small decoder, and the symbols do not change while decoders are trained. So
the crops are encoded once, into a folder, and read from there.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ohmq.codec import Codec
from ohmq.datasets.parallel import ProcessMap
from ohmq.datasets.photos import CropReader, PhotoSet
from ohmq.errors import ConfigError
from ohmq.loading import load
from ohmq.utils.atomic_write import write_atomically
from ohmq.utils.progress import steps

__all__ = ["CROP", "CropEncoder", "LatentBatch", "LatentCrops", "LatentLoader", "coded_as", "encode_crops"]

CROP = 256
"""Side of a crop, in pixels."""
SCALES = (0.5, 1.0)
"""Range of the factors by which photos are scaled down before cropping."""
LAMBDA_SCALES: dict[Literal["visual", "psnr"], tuple[float, float]] = {"visual": (0.5, 8.0), "psnr": (0.5, 2.0)}
"""Range of the factors on the Lagrange multiplier of every third crop, for each tuning: files between two cut points have
others than 1, and files that are tuned for looks have large ones, because they avoid poor numbers of channels."""
LOW_SHARE = 0.06
"""Cut points below this share of all channels are of low rates, at which few files are made."""
LOW_IN_TURN = 2
"""Cut points of low rates in a turn of all others."""
TUNINGS: tuple[Literal["visual", "psnr"], ...] = ("visual", "psnr")
"""Tunings of the encoder, in turn: decoders shall suit both."""
CROPS_A_TASK = 16
"""Crops that a process encodes at a time."""


class LatentBatch(NamedTuple):
    """A batch of latents and the crops that they stand for.

    Attributes:
        latents: (batch, D, h, w), float32.
        channels: number of channels in each latent, (batch,), int64.
        pixels: (batch, 3, 16 h, 16 w), uint8.
    """

    latents: Tensor
    channels: Tensor
    pixels: Tensor


class EncodedCrop(NamedTuple):
    """An encoded crop.

    Attributes:
        latent: (h, w, D), float16.
        channels: number of channels in it.
        pixels: (3, 16 h, 16 w), uint8.
    """

    latent: NDArray[np.float16]
    channels: int
    pixels: NDArray[np.uint8]


class CropEncoder:
    """Encodes random crops of photos, as a function of seed and number of the crop; at home in any process.

    Args:
        model: model file, or name of a pretrained model.
        photos: photos, each at least `CROP` pixels wide and high.
        seed: seed of the crops.
        effort: number of refinement passes of the encoder.
    """

    def __init__(self, model: str | Path, photos: PhotoSet, *, seed: int, effort: int) -> None:
        self.model, self.seed, self.effort = str(model), seed, effort
        self.reader = CropReader(photos, 1, CROP, seed=seed, scale=SCALES, rank=0, world_size=1, kept_bytes=0)
        self.photos = len(photos)

    @cached_property
    def codec(self) -> Codec:
        """Codec of this process."""
        return load(self.model)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "codec"}

    def __call__(self, numbers: Sequence[int]) -> list[EncodedCrop]:
        """Encode crops.

        Args:
            numbers: numbers of the crops; each photo has one of every ``len(photos)`` successive numbers.
        """
        return [self._encode(number) for number in numbers]

    def _encode(self, number: int) -> EncodedCrop:
        (pixels,) = self.reader(divmod(number, self.photos)).pixels
        rng = np.random.default_rng([self.seed, number])
        channels, tune = coded_as(number, self.codec.cut_points)
        latent = self.codec.latent(Image.fromarray(pixels), effort=self.effort, tile=0, tune=tune)
        if number % 3 == 2:
            latent = latent._replace(lambda_scale=float(np.exp(rng.uniform(*np.log(LAMBDA_SCALES[tune])))))
        symbols = self.codec.encoder.symbols(latent, channels)
        values = self.codec.transforms.dequantized(symbols.values, channels)[0]
        return EncodedCrop(values.astype(np.float16), channels, np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def coded_as(number: int, cut_points: Sequence[int]) -> tuple[int, Literal["visual", "psnr"]]:
    """Return the number of channels and the tuning of a crop: all cut points in turn, those of low rates less often.

    Args:
        number: of the crop.
        cut_points: of the model, ascending.

    Example:
        >>> [coded_as(number, (1, 2, 3, 50, 100))[0] for number in range(8)]
        [1, 2, 50, 100, 3, 1, 50, 100]
    """
    low = [cut for cut in cut_points if cut < LOW_SHARE * cut_points[-1]]
    high = [cut for cut in cut_points if cut >= LOW_SHARE * cut_points[-1]]
    few = min(LOW_IN_TURN, len(low))
    turn, place = divmod(number, few + len(high))
    channels = low[(turn * few + place) % len(low)] if place < few else high[place - few]
    return channels, TUNINGS[turn % len(TUNINGS)]


class LatentCrops:
    """Encoded crops in a folder, mapped into memory.

    Args:
        folder: folder of `encode_crops`.
    """

    def __init__(self, folder: Path) -> None:
        self.latents, self.channels, self.pixels = (np.load(folder / f"{name}.npy", "r") for name in _ARRAYS)

    def __len__(self) -> int:
        """Number of crops."""
        return len(self.channels)

    def batch(self, indexes: Sequence[int]) -> LatentBatch:
        """Read crops.

        Args:
            indexes: indexes of the crops.
        """
        latents = torch.from_numpy(np.stack([self.latents[i] for i in indexes])).float().permute(0, 3, 1, 2)
        channels = torch.tensor([int(self.channels[i]) for i in indexes])
        return LatentBatch(latents, channels, torch.from_numpy(np.stack([self.pixels[i] for i in indexes])))


_ARRAYS = ("latents", "channels", "pixels")


def encode_crops(folder: Path, encoder: CropEncoder, count: int, *, num_workers: int = 0) -> LatentCrops:
    """Encode crops into a folder, or go on where an earlier run of the same job stopped.

    Args:
        folder: folder of the crops; made if it is missing.
        encoder: the encoder.
        count: number of crops.
        num_workers: processes that encode; 0: this one.

    Raises:
        ConfigError: the folder holds the crops of another job.
    """
    folder.mkdir(parents=True, exist_ok=True)
    job = {
        "model": encoder.codec.model_id.hex(),
        "photos": encoder.photos,
        "seed": encoder.seed,
        "effort": encoder.effort,
        "tunings": list(TUNINGS),
        "count": count,
    }
    record_file = folder / "crops.json"
    record: dict[str, Any] = {**job, "done": 0}
    if record_file.is_file():
        record = json.loads(record_file.read_text())
    if {**record, "done": 0} != {**job, "done": 0}:
        raise ConfigError(f"{folder} holds crops of another job ({record}); delete it, or choose another output folder")
    (first,) = encoder([0])
    shapes: dict[str, NDArray[Any]] = {
        "latents": first.latent,
        "channels": np.array(0, np.int64),
        "pixels": first.pixels,
    }
    mode = "r+" if record["done"] else "w+"
    arrays = {
        name: open_memmap(folder / f"{name}.npy", mode, value.dtype, (count, *value.shape))
        for name, value in shapes.items()
    }
    left = range(record["done"], count)
    tasks = [left[start : start + CROPS_A_TASK] for start in range(0, len(left), CROPS_A_TASK)]
    results = ProcessMap(encoder, tasks, num_workers, "spawn") if num_workers and len(tasks) > 1 else None
    try:
        iterator = iter(results) if results else map(encoder, tasks)
        for task in steps(tasks, "crops encoded"):
            for number, crop in zip(task, next(iterator), strict=True):
                for name, value in zip(_ARRAYS, crop, strict=True):
                    arrays[name][number] = value
            for array in arrays.values():
                array.flush()
            write_atomically(record_file, json.dumps({**job, "done": task[-1] + 1}).encode(), force=True)
    finally:
        if results:
            results.close()
    return LatentCrops(folder)


class LatentLoader:
    """Shuffled batches of encoded crops: a function of (seed, step).

    Args:
        crops: the crops.
        batch_size: crops of a step, over all training processes; at most all are taken.
        seed: seed of the order; None: in order, and the last batch may be smaller.
        step: returns the number of training steps done; called when an epoch begins.
        rank: index of this training process.
        world_size: number of training processes.
    """

    def __init__(
        self,
        crops: LatentCrops,
        batch_size: int,
        *,
        seed: int | None,
        step: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.crops, self.batch_size, self.seed, self.step = crops, min(batch_size, len(crops)), seed, step
        self.rank, self.world_size = rank, world_size

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        full, rest = divmod(len(self.crops), self.batch_size)
        return full + (self.seed is None and rest > 0)

    def __iter__(self) -> Iterator[LatentBatch]:
        """Iterate over the remaining batches of the epoch."""
        epoch, first = (0, 0) if self.seed is None else divmod(self.step(), len(self))
        order = np.arange(len(self.crops))
        if self.seed is not None:
            np.random.default_rng([self.seed, epoch]).shuffle(order)
        for batch in range(first, len(self)):
            indexes = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield self.crops.batch(indexes[self.rank :: self.world_size].tolist())

    def close(self) -> None:
        """Do nothing: there are no processes."""
