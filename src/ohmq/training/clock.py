"""Training time of a stage that is paced by the clock."""

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["NEVER", "TrainingClock"]

VALIDATIONS = 4
"""Validations of a stage that is paced by the clock, the last one at its end."""
NEVER = 2**60
"""Batches between validations: none by their number."""
SECONDS_BETWEEN_CHECKPOINTS = 60.0
"""Least time between two checkpoints of a stage that is paced by the clock."""


class TrainingClock(Callback):
    """Clock of a stage, and the end of the stage when its time is over.

    Time counts from the first step on, over all resumptions; preparation does not count. The last checkpoint is written
    every minute and at the end; validation comes at each quarter of the time. The trainer has ``val_check_interval`` `NEVER`.

    Args:
        limit_s: training time of the stage, in seconds.
        done_s: training time of the run that is resumed, in seconds.
        path: the last checkpoint.

    Attributes:
        elapsed_s: training time up to the last step, in seconds.
    """

    def __init__(self, limit_s: float, done_s: float, path: Path) -> None:
        self.limit_s, self.elapsed_s, self.path = limit_s, done_s, path
        self._started_at: float | None = None
        self._saved_s = done_s
        self._validated = int(self.progress * VALIDATIONS)

    @property
    def progress(self) -> float:
        """Share of the time that has passed, 0 to 1."""
        return min(1.0, self.elapsed_s / self.limit_s)

    def read(self) -> None:
        """Read the clock: the learning rate of the next step follows `progress`."""
        if self._started_at is not None:
            self.elapsed_s = time.monotonic() - self._started_at

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started_at = time.monotonic() - self.elapsed_s
        trainer.should_stop = self.progress >= 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.read()
        trainer.should_stop = self.progress >= 1
        quarter = int(self.progress * VALIDATIONS)
        trainer.val_check_batch = 1 if quarter > self._validated else NEVER
        self._validated = quarter
        if not trainer.is_last_batch:  # after the last batch, the epoch must be counted first
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if self.elapsed_s - self._saved_s >= SECONDS_BETWEEN_CHECKPOINTS:
            trainer.save_checkpoint(self.path)
            self._saved_s = self.elapsed_s

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.elapsed_s > self._saved_s or not self.path.exists():
            trainer.save_checkpoint(self.path)
