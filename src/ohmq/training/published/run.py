"""Training run of the published networks: warm start, OHM with few symbols, OHM with the whole alphabet."""

import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ohmq.model_files.checkpoint import model_of_checkpoint
from ohmq.models import CompressionModel, MnistModel, build_model
from ohmq.models.quantizers.one_hot_max import OneHotMax
from ohmq.training.fit import ResumeState, Stage, fit, is_first_process
from ohmq.training.options import TrainOptions
from ohmq.training.published.grow import grow_symbols, resize_channels
from ohmq.training.published.modules import CodecModule, WarmStartModule
from ohmq.training.sources import DigitSource, PhotoSource
from ohmq.utils.atomic_write import write_atomically

__all__ = ["plan_stages", "train_published"]

logger = logging.getLogger(__name__)

SOURCES: dict[str, Callable[[TrainOptions], DigitSource | PhotoSource]] = {"mnist": DigitSource}
"""The training images of each family; other families are trained on photos."""
GROWN_RATE_FACTOR = 0.3
"""Learning rate of the stage after growing the alphabet, relative to that of the options."""


def train_published(options: TrainOptions, *, resume: Path | None, start: Path | None) -> Path:
    """Train a published network.

    Args:
        options: the run; its model is of any family but photo.
        resume: checkpoint of the same run to resume from; None: start at the beginning.
        start: path of the checkpoint that ``options.start_from`` names; None: ``start_from`` is the path.

    Returns:
        The last checkpoint, ``output_dir/last.ckpt``.

    Raises:
        ConfigError: data that cannot be trained on, or a checkpoint of another configuration.
    """
    source = SOURCES.get(options.model.family, PhotoSource)(options)
    if source.count < options.batch_size:
        logger.warning("only %d training images: the batch size becomes that", source.count)
    state = ResumeState.read(resume, options) if resume else ResumeState()
    started_at = time.monotonic() - state.seconds
    stages = plan_stages(options)
    first = [stage.name for stage in stages].index(state.stage) if state.stage else 0
    model: CompressionModel | None = None
    if options.start_from and not state.stage:
        pretrained, _ = model_of_checkpoint(start or Path(options.start_from))
        model = resize_channels(pretrained, stages[0].model, source.sample())
    last = options.output_dir / "last.ckpt"
    for stage in stages[first:]:
        resumes = stage.name == state.stage
        model = _model_of_stage(stage, None if resumes else model, options, source)
        model = _train_stage(
            stage,
            model,
            options,
            source,
            checkpoint=state.path if resumes else None,
            started_at=started_at,
            further_steps=sum(_steps(later, options, source) for later in stages[stages.index(stage) + 1 :]),
        )
        if stage is not stages[-1] and is_first_process():
            write_atomically(options.output_dir / f"{stage.name}.ckpt", last.read_bytes(), force=True)
    return last


def plan_stages(options: TrainOptions) -> list[Stage]:
    """List the stages of a run: warm start, training, training with a grown alphabet; those that the options ask for.

    Args:
        options: the run.

    Returns:
        The stages in order; the names are kept in checkpoints.
    """
    small = options.model
    if options.grow_epochs:
        small = dataclasses.replace(options.model, num_symbols=options.initial_symbols)
    stages = []
    if options.warm_starts:
        stages.append(Stage("warm_start", small, options.warm_start_epochs))
    if options.epochs > options.grow_epochs:
        stages.append(Stage("train", small, options.epochs - options.grow_epochs))
    if options.grow_epochs:
        stages.append(Stage("grow", options.model, options.grow_epochs))
    return stages


def _model_of_stage(
    stage: Stage, model: CompressionModel | None, options: TrainOptions, source: DigitSource | PhotoSource
) -> CompressionModel:
    """Build the model of a stage, or grow the model of the stage before; channels last."""
    if model is None:
        model = build_model(stage.model)
        if isinstance(model, MnistModel) and options.initialisation != "published":
            torch.manual_seed(options.seed)
            model.initialise_variance_preserving()
    elif isinstance(model.quantizer, OneHotMax) and model.config.num_symbols != stage.model.num_symbols:
        model = grow_symbols(model, stage.model.num_symbols, source.sample())
    for transform in (model.analysis_transform, model.synthesis_transform):
        # Halves the time of convolutions on a CPU.
        transform.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model


def _steps(stage: Stage, options: TrainOptions, source: DigitSource | PhotoSource) -> int:
    return stage.epochs * (source.count // min(_batch_size(stage, options), source.count))


def _batch_size(stage: Stage, options: TrainOptions) -> int:
    return options.warm_start_batch_size if stage.name == "warm_start" else options.batch_size


def _train_stage(
    stage: Stage,
    model: CompressionModel,
    options: TrainOptions,
    source: DigitSource | PhotoSource,
    *,
    checkpoint: Path | None,
    started_at: float,
    further_steps: int,
) -> CompressionModel:
    """Train one stage and return its model, with averaged weights where there are any."""
    warms_up = stage.name == "warm_start"
    loader = source.loader(_batch_size(stage, options))
    total_steps = stage.epochs * len(loader)
    stage_options = dataclasses.replace(options, model=stage.model, grow_epochs=0)
    if stage.name == "grow":
        learning_rate = options.learning_rate * GROWN_RATE_FACTOR
        stage_options = dataclasses.replace(stage_options, learning_rate=learning_rate, schedule="cosine")
    module: CodecModule | WarmStartModule
    if warms_up and options.initialisation == "rounding":
        warm_options = dataclasses.replace(
            stage_options, learning_rate=options.warm_start_learning_rate, schedule="cosine", ema_decay=0.0
        )
        module = CodecModule(warm_options, model, total_steps)
    elif warms_up:
        module = WarmStartModule(stage_options, model, total_steps, source.sample())
    else:
        module = CodecModule(stage_options, model, total_steps)
    fit(
        module,
        stage,
        options,
        loader=loader,
        validation=source.validation(),
        checkpoint=checkpoint,
        started_at=started_at,
        further_steps=further_steps,
    )
    return module.finish()
