"""A training run from options to checkpoints: warm start, OHM with few symbols, OHM with all."""

import dataclasses
import logging
import os
import shutil
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

import ohmq
from ohmq.datasets.arrays import ArrayLoader
from ohmq.datasets.mnist import Split, load_mnist
from ohmq.datasets.photos import CropLoader, WholePhotos, photo_files, photo_folder
from ohmq.errors import ConfigError
from ohmq.evaluation.classic import classic_curve
from ohmq.model_files.checkpoint import CHECKPOINT_FORMAT, model_of_checkpoint, read_checkpoint
from ohmq.model_files.freeze import thaw
from ohmq.model_files.resolve import resolve_model
from ohmq.models import (
    CompressionModel,
    MnistConfig,
    MnistModel,
    PhotoConfig,
    PhotoIntegerModel,
    PhotoModel,
    build_model,
)
from ohmq.models.photo import BLOCK
from ohmq.models.quantizers.one_hot_max import OneHotMax
from ohmq.training.module import CodecModule, TrainingModule, WarmStartModule
from ohmq.training.options import TrainOptions, recorded_options
from ohmq.training.photo import PhotoModule
from ohmq.training.photo_start import design_photo_codec, extend_photo_model, start_integer_model, start_photo_model
from ohmq.training.quick_analysis import QuickAnalysisModule, with_quick_analysis
from ohmq.training.resize import grow_symbols, resize_channels
from ohmq.utils.provenance import command_line

__all__ = ["is_first_process", "train"]

logger = logging.getLogger(__name__)

WARM_START_SAMPLES = 6000


def is_first_process() -> bool:
    """Whether this process is the one that reports, of all that train together (devices, nodes)."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def train(options: TrainOptions, *, resume: Path | None = None, start: Path | None = None) -> Path:
    """Train a model.

    Args:
        options: the run. resume: a checkpoint of it to go on from; None: start at the beginning.
        start: where the model lies that ``options.start_from`` names; None: that is its path, or a shipped name.

    Returns:
        The last checkpoint, ``output_dir/last.ckpt``.

    Raises:
        ConfigError: data that cannot be trained on, or a checkpoint of another configuration.
        SystemExit: stopped by SIGTERM or SIGINT; a checkpoint is written.
    """
    seed_everything(options.seed, workers=True, verbose=False)
    # A sharp softmax is full of numbers below 1e-38, and a product with one takes many times as long: they count as zero.
    # Threads that torch made before this line keep them.
    torch.set_flush_denormal(True)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    if isinstance(options.model, PhotoConfig):
        return _train_photo(options, resume, start)
    data = _Digits(options) if isinstance(options.model, MnistConfig) else _Photos(options)
    if data.count < options.batch_size:
        logger.warning("only %d training images: the batch size becomes that", data.count)
    done = _Progress.of(resume, options) if resume else _Progress("", None)
    started = time.monotonic() - done.seconds
    stages = _stages(options)
    model: CompressionModel | None = None
    if options.start_from and not done.stage:
        found, _ = model_of_checkpoint(start or Path(options.start_from))
        model = resize_channels(found, stages[0].model, data.sample())
    last = options.output_dir / "last.ckpt"
    for index, stage in enumerate(stages):
        if done.stage and index < [s.name for s in stages].index(done.stage):
            continue
        stage_options = dataclasses.replace(options, model=stage.model, grow_epochs=0)
        resuming = done.stage == stage.name
        if resuming or model is None:
            model = build_model(stage.model)
            if isinstance(model, MnistModel) and options.initialisation != "published":
                torch.manual_seed(options.seed)
                model.initialise_variance_preserving()
        elif isinstance(model.quantizer, OneHotMax) and model.config.num_symbols != stage.model.num_symbols:
            model = grow_symbols(model, stage.model.num_symbols, data.sample())
        for transform in (model.analysis_transform, model.synthesis_transform):
            transform.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # halves the time of convolutions on a CPU
        batch = options.warm_start_batch_size if stage.name == "warm_start" else options.batch_size
        loader = data.loader(batch)
        total = stage.epochs * len(loader)
        module: CodecModule | WarmStartModule
        if stage.name == "warm_start":
            module = WarmStartModule(stage_options, model, total, data.sample())
        else:
            module = CodecModule(stage_options, model, total)
            if stage.fall:
                module.learning_rate, module.schedule = options.learning_rate * 0.3, "cosine"
        _fit(module, stage, options, loader, data.validation(), done.path if resuming else None, started)
        model = module.transfer() if isinstance(module, WarmStartModule) else module.final_model
        if stage is not stages[-1] and is_first_process():
            shutil.copyfile(last, options.output_dir / f"{stage.name}.ckpt")
    return last


DESIGN_CROPS, DESIGN_CROP = 256, 128
"""Crops of training photos that the warm start of the photo codec looks at, and their side."""


def _train_photo(options: TrainOptions, resume: Path | None, start: Path | None) -> Path:
    photos = _Photos(options)
    done = _Progress.of(resume, options) if resume else _Progress("", None)
    started = time.monotonic() - done.seconds
    last, before = options.output_dir / "last.ckpt", options.output_dir / "train.ckpt"
    quick = _Stage("quick_analysis", None, 0 if options.only else options.quick_epochs)
    if not options.epochs and not quick.epochs:
        raise ConfigError(f"only is {options.only!r}: no quick analysis is made then, and with 0 epochs nothing else")
    if done.stage == quick.name and not quick.epochs:
        raise ConfigError(f"{done.path} has a quick analysis: to go on without one, name {before} as checkpoint")
    if done.stage == "train" and not options.epochs:
        raise ConfigError(f"{done.path} was written before the quick analysis: with 0 epochs nothing goes on from it")
    design_crop = min(DESIGN_CROP, options.crop_size)
    sample = next(iter(CropLoader(photos.files, DESIGN_CROPS, design_crop, seed=options.seed)))
    assert isinstance(options.model, PhotoConfig)
    design = design_photo_codec(sample, options.model)
    model: PhotoModel | PhotoIntegerModel
    if options.start_from:
        model, design = extend_photo_model(thaw(resolve_model(start or options.start_from)), design)
    else:
        built = build_model(design.config)
        if isinstance(built, PhotoIntegerModel):
            start_integer_model(built, design, sample)
        else:
            assert isinstance(built, PhotoModel)
            start_photo_model(built, design)
        model = built
    loader = CropLoader(photos.files, options.batch_size, options.crop_size, seed=options.seed)
    validation = WholePhotos(photos.held_out, BLOCK)
    anchor = classic_curve("jpeg", [photo[0].permute(1, 2, 0).numpy() for photo in validation])
    assert isinstance(model.config, PhotoConfig)
    if quick.epochs and model.config.analysis_patches:
        if not options.epochs:
            raise ConfigError(
                f"{options.start_from} has a quick analysis already: with 0 epochs there is nothing to do"
            )
        logger.info("this model has a quick analysis already, which is trained as all else")
        quick = dataclasses.replace(quick, epochs=0)

    def arguments(model: PhotoModel | PhotoIntegerModel, epochs: int) -> dict[str, Any]:
        for transform in (model.analysis_transform, model.synthesis_transform):
            transform.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        own, steps = dataclasses.replace(options, model=model.config), epochs * len(loader)
        found = {"rates_bpp": design.rates_bpp, "lambdas": design.lambdas}
        return {"options": own, "model": model, "total_steps": steps, "anchor": anchor, **found}

    if options.epochs and done.stage != quick.name:
        module = PhotoModule(**arguments(model, options.epochs))
        _fit(module, _Stage("train", model.config, options.epochs), options, loader, validation, done.path, started)
        model, done = module.final_model, _Progress("", None)
        if quick.epochs and is_first_process():
            _set_aside(options.output_dir)
    if not quick.epochs:
        return last
    assert isinstance(model, PhotoModel)
    torch.manual_seed(options.seed)
    small, deep = with_quick_analysis(model), model.analysis_transform
    deep.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learner = QuickAnalysisModule(**arguments(small, quick.epochs), deep=deep)
    stage = dataclasses.replace(quick, model=small.config)
    own = dataclasses.replace(options, val_every=min(options.val_every, quick.epochs))
    _fit(learner, stage, own, loader, validation, done.path, started)
    return last


def _set_aside(folder: Path) -> None:
    """Keep the checkpoints of a photo model with its deep analysis: the next stage writes its own."""
    for name, kept in (("last.ckpt", "train.ckpt"), ("best.ckpt", "train-best.ckpt")):
        path = folder / name
        # A run that goes on from the first stage's end finds those of the second here.
        if path.exists() and read_checkpoint(path)["ohmq"]["stage"] == "train":
            shutil.copyfile(path, folder / kept)


@dataclasses.dataclass(frozen=True)
class _Stage:
    name: str
    model: Any
    epochs: int
    fall: bool = False


def _stages(options: TrainOptions) -> list[_Stage]:
    first = options.model
    stages = []
    if options.grow_epochs:
        first = dataclasses.replace(options.model, num_symbols=options.initial_symbols)
    if options.warm_starts:
        stages.append(_Stage("warm_start", first, options.warm_start_epochs))
    if options.epochs > options.grow_epochs:
        stages.append(_Stage("train", first, options.epochs - options.grow_epochs))
    if options.grow_epochs:
        stages.append(_Stage("grow", options.model, options.grow_epochs, fall=True))
    return stages


@dataclasses.dataclass(frozen=True)
class _Progress:
    stage: str
    path: Path | None
    seconds: float = 0.0

    @classmethod
    def of(cls, path: Path, options: TrainOptions) -> "_Progress":
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


class _Digits:
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


class _Photos:
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


def _fit(
    module: TrainingModule,
    stage: _Stage,
    options: TrainOptions,
    loader: ArrayLoader | CropLoader,
    validation: ArrayLoader | CropLoader | WholePhotos,
    resume: Path | None,
    started: float,
) -> None:
    folder = options.output_dir
    record = {
        "format": CHECKPOINT_FORMAT,
        "ohmq": ohmq.__version__,
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
