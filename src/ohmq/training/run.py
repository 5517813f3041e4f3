"""A training run from options to checkpoints: warm start, OHM with few symbols, OHM with all."""

import dataclasses
import logging
import shutil
import time
from pathlib import Path

import torch
from lightning.pytorch import seed_everything

from ohmq.model_files.checkpoint import model_of_checkpoint
from ohmq.models import CompressionModel, MnistConfig, MnistModel, PhotoConfig, build_model
from ohmq.models.quantizers.one_hot_max import OneHotMax
from ohmq.training.fit import ResumeState, Stage, fit, is_first_process
from ohmq.training.options import TrainOptions
from ohmq.training.photo.run import train_photo
from ohmq.training.published.grow import grow_symbols, resize_channels
from ohmq.training.published.modules import CodecModule, WarmStartModule
from ohmq.training.sources import DigitSource, PhotoSource

__all__ = ["train"]

logger = logging.getLogger(__name__)


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
        return train_photo(options, resume, start)
    data = DigitSource(options) if isinstance(options.model, MnistConfig) else PhotoSource(options)
    if data.count < options.batch_size:
        logger.warning("only %d training images: the batch size becomes that", data.count)
    done = ResumeState.of(resume, options) if resume else ResumeState("", None)
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
        fit(module, stage, options, loader, data.validation(), done.path if resuming else None, started)
        model = module.transfer() if isinstance(module, WarmStartModule) else module.final_model
        if stage is not stages[-1] and is_first_process():
            shutil.copyfile(last, options.output_dir / f"{stage.name}.ckpt")
    return last


def _stages(options: TrainOptions) -> list[Stage]:
    first = options.model
    stages = []
    if options.grow_epochs:
        first = dataclasses.replace(options.model, num_symbols=options.initial_symbols)
    if options.warm_starts:
        stages.append(Stage("warm_start", first, options.warm_start_epochs))
    if options.epochs > options.grow_epochs:
        stages.append(Stage("train", first, options.epochs - options.grow_epochs))
    if options.grow_epochs:
        stages.append(Stage("grow", options.model, options.grow_epochs, fall=True))
    return stages
