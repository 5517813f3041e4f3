"""src/ohmq/training/fit.py."""

import dataclasses
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from ohmq._version import __version__
from ohmq.datasets.arrays import ArrayLoader
from ohmq.datasets.photos import CropLoader, WholePhotos
from ohmq.errors import ConfigError
from ohmq.model_files.checkpoint import CHECKPOINT_FORMAT, read_checkpoint
from ohmq.models import PhotoConfig
from ohmq.training.module import TrainingModule
from ohmq.training.options import TrainOptions, recorded_options
from ohmq.utils.provenance import command_line

__all__ = ["is_first_process"]


def is_first_process() -> bool:
    """Whether this process is the one that reports, of all that train together (devices, nodes)."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


@dataclasses.dataclass(frozen=True)
class Stage:
    name: str
    model: Any
    epochs: int
    fall: bool = False


@dataclasses.dataclass(frozen=True)
class ResumeState:
    stage: str
    path: Path | None
    seconds: float = 0.0

    @classmethod
    def of(cls, path: Path, options: TrainOptions) -> "ResumeState":
        record = read_checkpoint(path)["ohmq"]
        wanted, found = options.to_dict(), recorded_options(record["options"])
        free = {"description", "num_workers", "devices", "num_nodes", "cpu", "log_interval", "val_every", "precision"}
        # A run may be made longer or shorter on the way; the schedule then follows the new length.
        free |= {"epochs", "grow_epochs"} if bool(found["grow_epochs"]) == bool(wanted["grow_epochs"]) else set()
        free |= {"learning_rate", "quick_epochs"} if isinstance(options.model, PhotoConfig) else set()
        if record["stage"] == "quick_analysis" and found["epochs"] != wanted["epochs"]:
            raise ConfigError(
                f"{path} was written after the {found['epochs']} epochs of the first stage: to make these "
                f"{wanted['epochs']}, name {path.with_name('train.ckpt')} as checkpoint"
            )
        fixed = set(wanted) - free
        changed = [f"{key} was {found.get(key)!r}, now {wanted[key]!r}" for key in sorted(fixed)
                   if found.get(key) != wanted[key]]  # fmt: skip
        if changed:
            raise ConfigError(f"{path} is a checkpoint of another run: {'; '.join(changed)}; start a new output_dir")
        return cls(record["stage"], path, record.get("seconds", 0.0))


class _Stop(Callback):
    """Checkpoints on signals; stops after SIGTERM and SIGINT."""

    def __init__(self, path: Path, record: dict[str, Any], started: float) -> None:
        self.path, self.record, self.started, self.signal = path, record, started, 0
        self.handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def note(number: int, _frame: FrameType | None) -> None:
            self.signal = number

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            self.handlers[number] = signal.signal(number, note)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # What follows training, such as a test, stops on Ctrl-C as any program does.
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["ohmq"] = {**self.record, "seconds": round(time.monotonic() - self.started, 1)}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_last_batch:  # after the last one, the epoch must be counted first
            self._act(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._act(trainer)

    def _act(self, trainer: Trainer) -> None:
        number, self.signal = self.signal, 0
        if not number:
            return
        trainer.save_checkpoint(self.path)
        trainer.print(f"\n{signal.Signals(number).name}: checkpoint written to {self.path}")
        if number != signal.SIGUSR1:
            raise SystemExit(128 + number)


def _several_processes(options: TrainOptions) -> bool:
    if options.devices == "auto":
        return options.num_nodes > 1 or (not options.cpu and torch.cuda.device_count() > 1)
    return options.num_nodes > 1 or options.devices not in (1, "1")


def fit(
    module: TrainingModule,
    stage: Stage,
    options: TrainOptions,
    loader: ArrayLoader | CropLoader,
    validation: ArrayLoader | CropLoader | WholePhotos,
    resume: Path | None,
    started: float,
) -> None:
    folder = options.output_dir
    record = {
        "format": CHECKPOINT_FORMAT,
        "ohmq": __version__,
        "stage": stage.name,
        "model": stage.model.to_dict(),
        "options": options.to_dict(),
        "description": options.description,
        "command": command_line(),
    }
    validates = stage.name != "warm_start"
    logs, part = f"logs_{stage.name}", 1
    while (folder / logs).exists():  # a resumed run writes beside the log it had: the logger would delete that
        part += 1
        logs = f"logs_{stage.name}_{part}"
    callbacks: list[Callback] = [
        _Stop(folder / "last.ckpt", record, started),
        TQDMProgressBar(refresh_rate=10),
        # Last: at the end of every epoch; best: the lowest val_loss.
        ModelCheckpoint(folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=True),
    ]
    if validates:
        callbacks.append(
            ModelCheckpoint(folder, filename="best", monitor="val_loss", mode="min", enable_version_counter=False)
        )
    trainer = Trainer(
        max_epochs=stage.epochs,
        accelerator="cpu" if options.cpu else "auto",
        devices=options.devices,
        num_nodes=options.num_nodes,
        # Stages leave parameters unused: the running mean, and OHM while it warms up.
        strategy="ddp_find_unused_parameters_true" if _several_processes(options) else "auto",
        logger=[
            CSVLogger(folder, name="", version=logs, flush_logs_every_n_steps=options.log_interval),
            TensorBoardLogger(folder, name="", version=logs),
        ],
        callbacks=callbacks,
        log_every_n_steps=options.log_interval,
        check_val_every_n_epoch=options.val_every,
        limit_val_batches=None if validates else 0,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        use_distributed_sampler=False,
        gradient_clip_val=options.clip_norm or None,
    )
    if loader.batch_size % trainer.world_size:
        raise ConfigError(
            f"a batch of {loader.batch_size} images over {trainer.world_size} processes; choose a --batch-size (and "
            "a warm-start batch) that is a multiple of them"
        )
    # Each process takes its share of a batch; every one validates on all images.
    loader.step = lambda: module.global_step
    loader.rank, loader.world_size = trainer.global_rank, trainer.world_size
    trainer.fit(module, loader, validation if validates else None, ckpt_path=resume, weights_only=True)
