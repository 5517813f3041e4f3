"""Training and validation images of a run: loaders, and a sample for warm starts."""

import logging

import torch
from torch import Tensor

from ohmq.datasets.arrays import ArrayLoader
from ohmq.datasets.mnist import Split, load_mnist
from ohmq.datasets.photos import CropLoader, PhotoFiles, PhotoSet, find_photos, photo_files, photo_folder
from ohmq.datasets.shard_cache import ShardCache, default_cache_folder
from ohmq.datasets.shard_index import is_shard_source
from ohmq.datasets.sharded_photos import open_sharded_photos
from ohmq.errors import ConfigError
from ohmq.models import PhotoConfig
from ohmq.models.photo import BLOCK
from ohmq.storage.urls import redacted
from ohmq.training.options import TrainOptions
from ohmq.training.photo.perceptual import MIN_SIDE
from ohmq.training.processes import loader_processes

__all__ = ["DigitSource", "PhotoSource"]

logger = logging.getLogger(__name__)

WARM_START_SAMPLES = 6000
"""Digits of a sample."""
VALIDATION_BATCH = 500
"""Digits of a validation batch."""


class DigitSource:
    """MNIST, held in memory.

    Args:
        options: the run; its data path, seed and numbers of images.

    Attributes:
        images: training digits, (N, 1, 28, 28), uint8.
        held_out: validation digits, (M, 1, 28, 28), uint8.
        count: N.

    Raises:
        ConfigError: no MNIST, or a URL or shards instead of a folder.
    """

    def __init__(self, options: TrainOptions) -> None:
        if is_shard_source(options.data_base_path):
            raise ConfigError(
                f"{redacted(str(options.data_base_path))}: digits (MNIST) are read from a folder; URLs and shards are for photos"
            )
        self.seed = options.seed
        self.images = self._load(options, "train")[: options.num_train_samples]
        self.held_out = self._load(options, "validation")[: options.num_val_samples]
        self.count = len(self.images)

    @staticmethod
    def _load(options: TrainOptions, split: Split) -> Tensor:
        return torch.from_numpy(load_mnist(options.data_base_path, split, seed=0))[:, None]

    def loader(self, batch_size: int) -> ArrayLoader:
        """Shuffled batches of all training digits, (batch_size, 1, 28, 28), float32 in [0, 1]."""
        return ArrayLoader(self.images, batch_size, seed=self.seed)

    def validation(self) -> ArrayLoader:
        """Batches of the validation digits, in order."""
        return ArrayLoader(self.held_out, VALIDATION_BATCH)

    def sample(self) -> Tensor:
        """The first training digits, (<= 6000, 1, 28, 28), float32 in [0, 1]."""
        return self.images[:WARM_START_SAMPLES].float() / 255


class PhotoSource:
    """Photos in folders, shards or object storage, read as they are needed.

    Args:
        options: the run; its data path, seed, crop size and numbers of images.
        whole: whether held-out photos are used whole, so that small ones will do; default: for the photo family, where the
            published network takes crops.

    Attributes:
        photos: training photos.
        held_out: validation photos.
        count: number of training photos.
        num_workers: processes that read photos.

    Raises:
        ConfigError: no photos found, or no usable one among them.
        StorageError: shards that cannot be read.
    """

    SCALE = (0.75, 0.95)
    """Range of the random scaling before cropping, as published."""
    SAMPLES = 64
    """Crops of a sample."""

    def __init__(self, options: TrainOptions, *, whole: bool | None = None) -> None:
        self.options, self.num_workers = options, loader_processes(options)
        whole = isinstance(options.model, PhotoConfig) if whole is None else whole
        smallest = max(BLOCK, MIN_SIDE if options.perceptual else 0) if whole else options.crop_size
        read = self._shards if is_shard_source(options.data_base_path) else self._folders
        self.photos, self.held_out, places = read(options, smallest)
        self.count = len(self.photos)
        logger.info(
            "%d photos from %s, %d from %s, read by %s",
            self.count,
            places[0],
            len(self.held_out),
            places[1],
            f"{self.num_workers} process{'es' * (self.num_workers > 1)}"
            if self.num_workers
            else "a thread (num_workers is 0)",
        )

    def _folders(self, options: TrainOptions, smallest: int) -> tuple[PhotoSet, PhotoSet, tuple[str, str]]:
        # Both splits come from one place: photos of another one are no held-out part of these.
        base = options.data_base_path or find_photos(None)
        train = photo_folder(base, "train")
        files = photo_files(train, options.crop_size, num_workers=self.num_workers)[: options.num_train_samples]
        held_out = photo_folder(base, "validation")
        kept = photo_files(held_out, smallest, num_workers=self.num_workers)[: options.num_val_samples]
        return PhotoFiles(files), PhotoFiles(kept), (str(train), str(held_out))

    def _shards(self, options: TrainOptions, smallest: int) -> tuple[PhotoSet, PhotoSet, tuple[str, str]]:
        for library in ("aiobotocore", "botocore"):  # they announce at level INFO where credentials come from
            logging.getLogger(library).setLevel(logging.WARNING)
        source = str(options.data_base_path)
        cache = ShardCache(options.data_cache or default_cache_folder(), options.data_cache_bytes, options.image_column)
        train, held_out = open_sharded_photos(
            source,
            cache,
            smallest_side=options.crop_size,
            smallest_held_out=smallest,
            num_train=options.num_train_samples,
            num_held_out=options.num_val_samples,
            num_workers=self.num_workers,
        )
        return train, held_out, (redacted(source), "its held-out part")

    def loader(self, batch_size: int) -> CropLoader:
        """Random crops of scaled training photos, (batch_size, 3, crop, crop), float32 in [0, 1]."""
        return self._loader(batch_size, self.num_workers)

    def _loader(self, batch_size: int, num_workers: int) -> CropLoader:
        options = self.options
        return CropLoader(
            self.photos, batch_size, options.crop_size, seed=options.seed, scale=self.SCALE, num_workers=num_workers
        )

    def validation(self) -> CropLoader:
        """Crops of the validation photos."""
        options = self.options
        return CropLoader(self.held_out, options.batch_size, options.crop_size, num_workers=self.num_workers)

    def sample(self) -> Tensor:
        """Crops of the first training batch, (<= 64, 3, crop, crop), float32 in [0, 1]."""
        return next(iter(self._loader(self.SAMPLES, num_workers=0)))
