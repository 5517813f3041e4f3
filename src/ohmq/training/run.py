"""Training runs: from options to checkpoints, one runner for each family of models."""

import errno
from pathlib import Path
from typing import Protocol

import torch
from lightning.pytorch import seed_everything

from ohmq.errors import OutputWriteError
from ohmq.training.options import TrainOptions
from ohmq.training.photo.run import train_photo
from ohmq.training.processes import cluster_environment, device_count
from ohmq.training.progress import show_phases
from ohmq.training.published.run import train_published
from ohmq.training.resume import output_folder

__all__ = ["train"]


class _Runner(Protocol):
    """The training run of a family of models."""

    def __call__(self, options: TrainOptions, *, resume: Path | None, start: Path | None) -> Path:
        """Train and return the last checkpoint."""


RUNNERS: dict[str, _Runner] = {"mnist": train_published, "openimages": train_published, "photo": train_photo}
"""The runner of each family; other registered families are trained as the published networks are."""
_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
"""Errors of a folder that takes no more data."""


def train(options: TrainOptions, *, resume: Path | None = None, start: Path | None = None) -> Path:
    """Train a model.

    Args:
        options: the run.
        resume: checkpoint of the same run to resume from; None: start at the beginning.
        start: path of the model that ``options.start_from`` names; None: ``start_from`` is a path or a shipped name.

    Returns:
        The last checkpoint, ``output_dir/last.ckpt``.

    Raises:
        ConfigError: data that cannot be trained on, devices that are not there, a checkpoint of another configuration, or
            training that diverged.
        OutputWriteError: an output folder that cannot be written.
        SystemExit: stopped by SIGTERM or SIGINT; a checkpoint is written.
    """
    seed_everything(options.seed, workers=True, verbose=False)
    # A sharp softmax produces many denormal numbers (below 1e-38), which slow multiplication down many times: count
    # them as zero. Threads that torch started before this line keep them.
    torch.set_flush_denormal(True)
    # Refuse devices and tasks that do not fit before the data are read.
    device_count(options)
    cluster_environment(options)
    runner = RUNNERS.get(options.model.family, train_published)
    try:
        with output_folder(options.output_dir), show_phases():
            return runner(options, resume=resume, start=start)
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        raise OutputWriteError(
            f"{error.filename or options.output_dir}: {error.strerror}; make room or choose another output folder, and go on "
            "from the last checkpoint"
        ) from error
