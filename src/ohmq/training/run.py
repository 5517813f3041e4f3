"""Training runs: from options to checkpoints, one runner for each family of models."""

from pathlib import Path
from typing import Protocol

import torch
from lightning.pytorch import seed_everything

from ohmq.training.options import TrainOptions
from ohmq.training.photo.run import train_photo
from ohmq.training.published.run import train_published
from ohmq.utils.atomic_write import new_folder

__all__ = ["train"]


class _Runner(Protocol):
    """The training run of a family of models."""

    def __call__(self, options: TrainOptions, *, resume: Path | None, start: Path | None) -> Path:
        """Train and return the last checkpoint."""


RUNNERS: dict[str, _Runner] = {"mnist": train_published, "openimages": train_published, "photo": train_photo}
"""The runner of each family; other registered families are trained as the published networks are."""


def train(options: TrainOptions, *, resume: Path | None = None, start: Path | None = None) -> Path:
    """Train a model.

    Args:
        options: the run.
        resume: checkpoint of the same run to resume from; None: start at the beginning.
        start: path of the model that ``options.start_from`` names; None: ``start_from`` is a path or a shipped name.

    Returns:
        The last checkpoint, ``output_dir/last.ckpt``.

    Raises:
        ConfigError: data that cannot be trained on, or a checkpoint of another configuration.
        SystemExit: stopped by SIGTERM or SIGINT; a checkpoint is written.
    """
    seed_everything(options.seed, workers=True, verbose=False)
    # A sharp softmax produces many denormal numbers (below 1e-38), which slow multiplication down many times: count
    # them as zero. Threads that torch started before this line keep them.
    torch.set_flush_denormal(True)
    with new_folder(options.output_dir):
        return RUNNERS.get(options.model.family, train_published)(options, resume=resume, start=start)
