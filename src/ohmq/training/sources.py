"""Training and validation images of a run: loaders, and a sample for warm starts."""

import logging
import os
from pathlib import Path

import torch
from torch import Tensor

from ohmq.datasets.arrays import ArrayLoader
from ohmq.datasets.mnist import Split, load_mnist
from ohmq.datasets.photos import CropLoader, photo_files, photo_folder
from ohmq.errors import ConfigError
from ohmq.models import PhotoConfig
from ohmq.models.photo import BLOCK
from ohmq.training.options import TrainOptions

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
        ConfigError: no MNIST.
    """

    def __init__(self, options: TrainOptions) -> None:
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
    """Folders of photos, read as they are needed.

    Args:
        options: the run; its data path, seed, crop size and numbers of images.

    Attributes:
        files: training photos.
        held_out: validation photos.
        count: number of training photos.

    Raises:
        ConfigError: no folder named, or no usable photo in it.
    """

    SCALE = (0.75, 0.95)
    """Range of the random scaling before cropping, as published."""
    SAMPLES = 64
    """Crops of a sample."""

    def __init__(self, options: TrainOptions) -> None:
        if options.data_base_path is None and "OHMQ_DATA" not in os.environ:
            raise ConfigError("photos to train on: name their folder with --data (or $OHMQ_DATA)")
        base = options.data_base_path or Path(os.environ["OHMQ_DATA"])
        self.options = options
        self.files = photo_files(photo_folder(base, "train"), options.crop_size)[: options.num_train_samples]
        # The photo family validates on whole photos, the published network on crops.
        smallest = BLOCK if isinstance(options.model, PhotoConfig) else options.crop_size
        self.held_out = photo_files(photo_folder(base, "validation"), smallest)[: options.num_val_samples]
        self.count = len(self.files)
        logger.info("%d training photos, %d validation photos", len(self.files), len(self.held_out))

    def loader(self, batch_size: int) -> CropLoader:
        """Random crops of scaled training photos, (batch_size, 3, crop, crop), float32 in [0, 1]."""
        return CropLoader(self.files, batch_size, self.options.crop_size, seed=self.options.seed, scale=self.SCALE)

    def validation(self) -> CropLoader:
        """Crops of the validation photos."""
        return CropLoader(self.held_out, self.options.batch_size, self.options.crop_size)

    def sample(self) -> Tensor:
        """Crops of the first training batch, (<= 64, 3, crop, crop), float32 in [0, 1]."""
        return next(iter(self.loader(self.SAMPLES)))
