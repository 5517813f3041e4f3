"""Lightning's Trainer as this project sets it up: checkpoints, logs, signals and several processes."""

import dataclasses
import logging
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from ohmq._version import __version__
from ohmq.datasets.device_crops import DeviceCropLoader
from ohmq.datasets.parallel import worker_errors
from ohmq.datasets.photos import CropLoader, WholePhotos
from ohmq.errors import ConfigError
from ohmq.model_files.checkpoint import CHECKPOINT_FORMAT, read_checkpoint
from ohmq.models import ModelConfig, PhotoConfig
from ohmq.runtime.devices import find_device
from ohmq.storage.urls import redacted
from ohmq.training.checkpoint_io import AtomicCheckpoints
from ohmq.training.clock import NEVER, TrainingClock
from ohmq.training.module import TrainingModule
from ohmq.training.options import TrainOptions, recorded_options
from ohmq.training.processes import cluster_environment, device_count, quiet_lightning
from ohmq.training.progress import StageProgress
from ohmq.utils.counting import counted
from ohmq.utils.provenance import command_line

__all__ = ["DISTILL_STAGE", "ResumeState", "Stage", "StageLoader", "fit", "is_first_process"]

logger = logging.getLogger(__name__)

DISTILL_STAGE = "quick_analysis"
"""Name of the stage that trains the distilled analysis transform, as checkpoints and log folders have it."""
CHANGEABLE_OPTIONS = frozenset(
    {
        "description",
        "num_workers",
        "devices",
        "num_nodes",
        "accelerator",
        "cpu",
        "log_interval",
        "val_every",
        "precision",
        "data_on_device",
    }
)
"""Options that a resumed run may change."""
WARM_START_OPTIONS = frozenset({"warm_start_epochs", "warm_start_learning_rate", "warm_start_batch_size"})
"""Options of a warm start."""


def is_first_process() -> bool:
    """Whether this process is the one that reports, of all that train together (devices, nodes)."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


@dataclasses.dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: as in checkpoints and names of log folders.
        model: configuration of the model in this stage.
        epochs: passes over the training images; 0 where the clock paces the stage.
        minutes: training time, where the clock paces the stage; else 0.
    """

    name: str
    model: ModelConfig
    epochs: int
    minutes: float = 0.0


@dataclasses.dataclass(frozen=True)
class ResumeState:
    """The point that a run resumes from.

    Attributes:
        stage: name of the stage that the checkpoint was written in; "": the run starts at the beginning.
        path: the checkpoint; None: the run starts at the beginning.
        seconds: training time so far.
    """

    stage: str = ""
    path: Path | None = None
    seconds: float = 0.0

    @classmethod
    def read(cls, path: Path, options: TrainOptions) -> "ResumeState":
        """Read a checkpoint and check that it belongs to a run.

        Args:
            path: the checkpoint.
            options: the run that resumes from it.

        Raises:
            ConfigError: no checkpoint, or one of a run with other options.
        """
        record = read_checkpoint(path)["ohmq"]
        _check_same_run(path, record["stage"], recorded_options(record["options"]), options)
        return cls(record["stage"], path, record.get("seconds", 0.0))


def _check_same_run(path: Path, stage: str, recorded: dict[str, Any], options: TrainOptions) -> None:
    """Refuse a checkpoint whose recorded options differ in more than a resumed run may change."""
    current = options.to_dict()
    changeable = set(CHANGEABLE_OPTIONS)
    # A run may be made longer or shorter on the way; the schedule then follows the new length.
    if bool(recorded["grow_epochs"]) == bool(current["grow_epochs"]):
        changeable |= {"epochs", "grow_epochs"}
    if bool(recorded["minutes"]) == bool(current["minutes"]):
        changeable |= {"minutes"}
    if not options.warm_starts:  # then the options of a warm start have no effect
        changeable |= WARM_START_OPTIONS
    if isinstance(options.model, PhotoConfig):
        changeable |= {"learning_rate", "quick_epochs"}
    if stage == DISTILL_STAGE and recorded["epochs"] != current["epochs"]:
        raise ConfigError(
            f"{path} was written after the {counted(recorded['epochs'], 'epoch')} of the first stage: to make these "
            f"{current['epochs']}, name {path.with_name('train.ckpt')} as checkpoint"
        )
    if stage == DISTILL_STAGE and recorded["minutes"] != current["minutes"]:
        raise ConfigError(
            f"{path} was written after the {recorded['minutes']:g} minutes of the first stage: to make these "
            f"{current['minutes']:g}, name {path.with_name('train.ckpt')} as checkpoint"
        )
    changed = [
        f"{key} was {recorded.get(key)!r}, now {current[key]!r}"
        for key in sorted(set(current) - changeable)
        if recorded.get(key) != current[key]
    ]
    if changed:
        raise ConfigError(f"{path} is a checkpoint of another run: {'; '.join(changed)}; start a new output_dir")


class StageLoader(Protocol):
    """Training batches of a stage, shared among processes.

    Attributes:
        batch_size: images of a step, over all processes.
        step: returns the number of training steps done.
        rank: index of this process.
        world_size: number of processes.
    """

    batch_size: int
    step: Callable[[], int]
    rank: int
    world_size: int

    def __len__(self) -> int:
        """Number of batches of an epoch."""

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the remaining batches of the epoch."""


class _Stop(Callback):
    """Checkpoints on signals; stops training after SIGTERM and SIGINT.

    Args:
        path: the checkpoint to write.
        record: provenance, kept in every checkpoint under "ohmq".
        started_at: start of the run, on the clock of `time.monotonic`.
        progress: display of the stage, which the message goes through.
    """

    def __init__(self, path: Path, record: dict[str, Any], started_at: float, progress: StageProgress) -> None:
        self.path, self.record, self.started_at, self.signal = path, record, started_at, 0
        self.progress = progress
        self.handlers: dict[int, Any] = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def note(number: int, _frame: FrameType | None) -> None:
            self.signal = number

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            self.handlers[number] = signal.signal(number, note)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Work after training, such as a test, stops on Ctrl-C as any program does.
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["ohmq"] = {**self.record, "seconds": round(time.monotonic() - self.started_at, 1)}
        if isinstance(pl_module, TrainingModule) and pl_module.clock is not None:
            checkpoint["ohmq"]["trained_seconds"] = pl_module.clock.elapsed_s

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_last_batch:  # after the last batch, the epoch must be counted first
            self._act_on_signal(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._act_on_signal(trainer)

    def _act_on_signal(self, trainer: Trainer) -> None:
        number, self.signal = self.signal, 0
        if not number:
            return
        trainer.save_checkpoint(self.path)
        self.progress.write(trainer, f"{signal.Signals(number).name}: checkpoint written to {self.path}")
        if number != signal.SIGUSR1:
            raise SystemExit(128 + number)


def fit(
    module: TrainingModule,
    stage: Stage,
    options: TrainOptions,
    *,
    loader: StageLoader,
    validation: StageLoader | WholePhotos,
    checkpoint: Path | None,
    started_at: float,
    further_steps: int = 0,
) -> None:
    """Train one stage: ``last.ckpt`` is written each epoch, ``best.ckpt`` where ``val_loss`` is lowest.

    Args:
        module: the module to train.
        stage: its name, configuration and epochs. A stage "warm_start" is not validated.
        options: the run, recorded in checkpoints.
        loader: training batches; each process takes its share of a batch.
        validation: validation batches; every process validates on all of them.
        checkpoint: checkpoint of this stage to resume from; None: start at its beginning.
        started_at: start of the run on the clock of `time.monotonic`, less the seconds it took before it was resumed.
        further_steps: steps of the stages that follow, for the time that is left.

    Raises:
        ConfigError: a batch that cannot be shared among the processes, devices that are not there, a checkpoint of more
            epochs than the stage has, training that diverged, or a process that reads photos and ended.
        SystemExit: stopped by SIGTERM or SIGINT; a checkpoint is written.
    """
    if not options.cpu:
        find_device(options.accelerator)
    data = loader.photos.identity if isinstance(loader, CropLoader | DeviceCropLoader) else ""
    if checkpoint is not None:
        if not stage.minutes:
            _check_epochs_done(checkpoint, stage)
        _check_same_data(checkpoint, data)
    clock = None
    if stage.minutes:
        done = read_checkpoint(checkpoint)["ohmq"]["trained_seconds"] if checkpoint is not None else 0.0
        clock = module.clock = TrainingClock(60 * stage.minutes, done, options.output_dir / "last.ckpt")
    try:
        with quiet_lightning(), worker_errors():
            trainer = _build_trainer(stage, options, data, started_at, further_steps, clock)
            loader.step = lambda: module.global_step
            _share_batches(trainer, loader)
            if isinstance(loader, DeviceCropLoader):
                loader.device = trainer.strategy.root_device
            if trainer.is_global_zero:
                _announce(trainer, module, stage, loader)
            held_out = validation if _validates(stage) else None
            trainer.fit(module, loader, held_out, ckpt_path=checkpoint, weights_only=True)
    finally:
        for images in (loader, validation):
            if hasattr(images, "close"):
                images.close()


def _validates(stage: Stage) -> bool:
    return stage.name != "warm_start"


def _build_trainer(
    stage: Stage,
    options: TrainOptions,
    data: str,
    started_at: float,
    further_steps: int,
    clock: TrainingClock | None,
) -> Trainer:
    """Build the trainer of a stage."""
    folder, logs = options.output_dir, _new_log_folder(options.output_dir, stage)
    progress = StageProgress(stage.name, stage.epochs, further_steps, clock)
    stop = _Stop(folder / "last.ckpt", _checkpoint_record(stage, options, data), started_at, progress)
    processes = device_count(options)
    environment = cluster_environment(options)
    if clock is not None and processes * options.num_nodes > 1:
        raise ConfigError("training that is paced by the clock (minutes) takes one device; choose --devices 1")
    validation: dict[str, Any] = {"check_val_every_n_epoch": options.val_every}
    if clock is not None:
        validation = {"check_val_every_n_epoch": None, "val_check_interval": NEVER}
    return Trainer(
        max_epochs=-1 if clock is not None else stage.epochs,
        accelerator="cpu" if options.cpu else options.accelerator,
        devices=1 if processes == 1 and str(options.devices) == "-1" else options.devices,
        num_nodes=options.num_nodes,
        plugins=[AtomicCheckpoints(), *([environment] if environment else [])],
        # Stages leave parameters unused: the running mean, and OHM while it warms up.
        strategy="ddp_find_unused_parameters_true" if processes * options.num_nodes > 1 else "auto",
        logger=[
            CSVLogger(folder, name="", version=logs, flush_logs_every_n_steps=options.log_interval),
            TensorBoardLogger(folder, name="", version=logs),
        ],
        callbacks=[stop, progress, *_checkpoint_callbacks(folder, _validates(stage), clock)],
        log_every_n_steps=options.log_interval,
        **validation,
        limit_val_batches=None if _validates(stage) else 0,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=False,  # `StageProgress` knows the whole run
        use_distributed_sampler=False,
        gradient_clip_val=options.clip_norm or None,
    )


def _share_batches(trainer: Trainer, loader: StageLoader) -> None:
    """Give each process its share of a batch."""
    if loader.batch_size % trainer.world_size:
        raise ConfigError(
            f"a batch of {counted(loader.batch_size, 'image')} over {trainer.world_size} processes; choose a batch size (and "
            "a warm-start batch) that is a multiple of them"
        )
    loader.rank, loader.world_size = trainer.global_rank, trainer.world_size


def _announce(trainer: Trainer, module: TrainingModule, stage: Stage, loader: StageLoader) -> None:
    """Log one line that says what the stage does."""
    device = trainer.strategy.root_device.type
    where = f"{trainer.world_size} processes on {device}" if trainer.world_size > 1 else device
    logger.info(
        "stage %s: %s of %s, %s a step, learning rate %g, %s, %s, on %s",
        stage.name,
        f"{stage.minutes:g} min in epochs" if stage.minutes else counted(stage.epochs, "epoch"),
        counted(len(loader), "step"),
        counted(loader.batch_size, "image"),
        module.learning_rate,
        module.schedule,
        counted(stage.model.channels_max, "channel"),
        where,
    )


def _check_epochs_done(path: Path, stage: Stage) -> None:
    """Refuse a checkpoint with more epochs than the stage has."""
    done = read_checkpoint(path)["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    if done > stage.epochs:
        raise ConfigError(
            f"{path} has done {counted(done, 'epoch')} of the stage {stage.name}, more than its {stage.epochs}: "
            "give as many epochs or more to go on"
        )


def _check_same_data(path: Path, data: str) -> None:
    """Refuse a checkpoint of training on other photos: which crop comes next is counted in their index."""
    recorded = read_checkpoint(path)["ohmq"].get("data", "")
    if recorded != data:
        raise ConfigError(
            f"{path} was trained on other data ({recorded or 'a folder'}; now: {data or 'a folder'}): its place in them "
            "cannot be found; resume with the data as they were, or start anew in another output_dir"
        )


def _checkpoint_record(stage: Stage, options: TrainOptions, data: str) -> dict[str, Any]:
    """Collect the provenance that checkpoints of a stage keep."""
    return {
        "format": CHECKPOINT_FORMAT,
        "ohmq": __version__,
        "stage": stage.name,
        "model": stage.model.to_dict(),
        "options": options.to_dict(),
        "data": data,
        "description": options.description,
        "command": redacted(command_line()),
    }


def _new_log_folder(folder: Path, stage: Stage) -> str:
    """Name a log folder that does not exist yet: the logger deletes the logs of an existing one."""
    name, number = f"logs_{stage.name}", 1
    while (folder / name).exists():
        number += 1
        name = f"logs_{stage.name}_{number}"
    return name


class _RunCheckpoint(ModelCheckpoint):
    """A checkpoint of a run, whose folder may have moved since: the best one stays the best."""

    @property
    def state_key(self) -> str:
        """Name of the state in checkpoints, as Lightning's own class has it."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state, with the paths of today's folder."""
        best = Path(str(self.dirpath), Path(state_dict["best_model_path"]).name)
        if not best.is_file():
            return  # it is not in this folder: find the best anew
        super().load_state_dict(
            {
                **state_dict,
                "dirpath": self.dirpath,
                "best_model_path": str(best),
                "kth_best_model_path": str(best) if state_dict["kth_best_model_path"] else "",
                "best_k_models": {str(best): score for score in state_dict["best_k_models"].values()},
            }
        )


def _checkpoint_callbacks(folder: Path, validates: bool, clock: TrainingClock | None = None) -> list[Callback]:
    """Build the callbacks that write ``last.ckpt`` each epoch or by the clock, and ``best.ckpt`` by ``val_loss``."""
    last = _RunCheckpoint(folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
    callbacks: list[Callback] = [last if clock is None else clock]
    if validates:
        callbacks.append(
            _RunCheckpoint(folder, filename="best", monitor="val_loss", mode="min", enable_version_counter=False)
        )
    return callbacks
