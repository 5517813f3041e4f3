"""src/ohmq/training/sources.py."""

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

logger = logging.getLogger(__name__)

WARM_START_SAMPLES = 6000


class DigitSource:
    """MNIST, in memory."""

    def __init__(self, options: TrainOptions) -> None:
        self.seed = options.seed
        self.images = self._load(options, "train")[: options.num_train_samples]
        self.held_out = self._load(options, "validation")[: options.num_val_samples]
        self.count = len(self.images)

    @staticmethod
    def _load(options: TrainOptions, split: Split) -> Tensor:
        return torch.from_numpy(load_mnist(options.data_base_path, split, seed=0))[:, None]

    def loader(self, batch_size: int) -> ArrayLoader:
        return ArrayLoader(self.images, batch_size, seed=self.seed)

    def validation(self) -> ArrayLoader:
        return ArrayLoader(self.held_out, 500)

    def sample(self) -> Tensor:
        return self.images[:WARM_START_SAMPLES].float() / 255


class PhotoSource:
    """Folders of photos, read as they are needed."""

    SCALE = (0.75, 0.95)
    """Random scaling, as published."""
    SAMPLES = 64

    def __init__(self, options: TrainOptions) -> None:
        if options.data_base_path is None and "OHMQ_DATA" not in os.environ:
            raise ConfigError("photos to train on: name their folder with --data (or $OHMQ_DATA)")
        base = options.data_base_path or Path(os.environ["OHMQ_DATA"])
        self.options = options
        self.files = photo_files(photo_folder(base, "train"), options.crop_size)[: options.num_train_samples]
        smallest = BLOCK if isinstance(options.model, PhotoConfig) else options.crop_size
        self.held_out = photo_files(photo_folder(base, "validation"), smallest)[: options.num_val_samples]
        self.count = len(self.files)
        logger.info("%d training photos, %d validation photos", len(self.files), len(self.held_out))

    def loader(self, batch_size: int) -> CropLoader:
        return CropLoader(self.files, batch_size, self.options.crop_size, seed=self.options.seed, scale=self.SCALE)

    def validation(self) -> CropLoader:
        return CropLoader(self.held_out, self.options.batch_size, self.options.crop_size)

    def sample(self) -> Tensor:
        return next(iter(self.loader(self.SAMPLES)))
