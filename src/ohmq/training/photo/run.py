"""Training run of the photo family: initialise from data, train all, then distil the analysis transform."""

import dataclasses
import logging
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from ohmq.datasets.device_crops import DeviceCropLoader
from ohmq.datasets.photos import CropLoader, WholePhotos
from ohmq.errors import ConfigError
from ohmq.evaluation.classic import classic_curve
from ohmq.model_files.checkpoint import read_checkpoint
from ohmq.model_files.freeze import thaw
from ohmq.model_files.frozen_model import save_model
from ohmq.model_files.resolve import resolve_model
from ohmq.models import PhotoConfig, PhotoIntegerModel, PhotoModel, build_model
from ohmq.models.photo import BLOCK
from ohmq.training.fit import DISTILL_STAGE, ResumeState, Stage, fit, is_first_process
from ohmq.training.options import TrainOptions
from ohmq.training.photo.decoders import train_decoders
from ohmq.training.photo.distill_analysis import DistilledAnalysisModule, with_distilled_analysis
from ohmq.training.photo.initialise import (
    PhotoDesign,
    design_photo_codec,
    extend_photo_model,
    initialise_integer_model,
    initialise_photo_model,
)
from ohmq.training.photo.module import PhotoModule, PhotoTargets
from ohmq.training.photo.reorder import reorder_channels
from ohmq.training.sources import PhotoSource
from ohmq.utils.atomic_write import write_atomically
from ohmq.utils.progress import steps

__all__ = ["DESIGN_CROP", "DESIGN_CROPS", "initial_model", "train_photo"]

logger = logging.getLogger(__name__)

DESIGN_CROPS = 256
"""Crops of training photos that the codec is designed on."""
DESIGN_CROP = 128
"""Side of these crops, in pixels."""


def train_photo(options: TrainOptions, *, resume: Path | None, start: Path | None) -> Path:
    """Train a model of the photo family.

    Args:
        options: the run; its model is a `PhotoConfig`.
        resume: checkpoint of the same run to resume from; None: start at the beginning.
        start: path of the model that ``options.start_from`` names; None: ``start_from`` is a path or a shipped name.

    Returns:
        The last checkpoint, ``output_dir/last.ckpt``.

    Raises:
        ConfigError: data that cannot be trained on, a checkpoint of another configuration, or nothing to train.
    """
    if options.trains_decoders:
        return train_decoders(options, resume=resume, start=start)
    if torch.cuda.is_available():
        _use_exact_convolutions()
    photos = PhotoSource(options)
    state = ResumeState.read(resume, options) if resume else ResumeState()
    started_at = time.monotonic() - state.seconds
    distill_epochs = 0 if options.only else options.quick_epochs
    _check_stages(options, state, distill_epochs)
    model, design = initial_model(options, photos, start)
    if distill_epochs and _has_distilled_analysis(model):
        if not (options.epochs or options.minutes):
            raise ConfigError(
                f"{options.start_from} has a distilled analysis already: with 0 epochs there is nothing to do"
            )
        logger.info("this model has a distilled analysis already, which is trained with all else")
        distill_epochs = 0
    run = _PhotoRun(options, photos, design, started_at)
    checkpoint = state.path
    if (options.epochs or options.minutes) and state.stage != DISTILL_STAGE:
        model, checkpoint = run.train(model, checkpoint, distill_epochs), None
        if distill_epochs and is_first_process():
            _keep_full_analysis(options.output_dir)
    if distill_epochs:
        assert isinstance(model, PhotoModel)
        run.distill(model, distill_epochs, checkpoint)
    last = options.output_dir / "last.ckpt"
    if options.minutes and is_first_process():
        _export(last, options.output_dir / "model.safetensors")
    return last


def _check_stages(options: TrainOptions, state: ResumeState, distill_epochs: int) -> None:
    """Refuse options that leave nothing to train, or a checkpoint of a stage that is not part of the run."""
    if state.stage == DISTILL_STAGE and not distill_epochs:
        full = options.output_dir / "train.ckpt"
        raise ConfigError(f"{state.path} has a distilled analysis: to go on without one, name {full} as checkpoint")
    if options.minutes:
        return
    if not options.epochs and not distill_epochs:
        raise ConfigError(f"only is {options.only!r}: no analysis is distilled then, and with 0 epochs nothing else")
    if state.stage == "train" and not options.epochs:
        raise ConfigError(
            f"{state.path} was written before the analysis was distilled: with 0 epochs nothing goes on from it"
        )


def _use_exact_convolutions() -> None:
    """Let float32 convolutions of CUDA be exact: those that may be coarser are in bfloat16."""
    if hasattr(torch.backends, "fp32_precision"):  # since torch 2.9
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    else:
        torch.backends.cudnn.allow_tf32 = False


def _has_distilled_analysis(model: PhotoModel | PhotoIntegerModel) -> bool:
    assert isinstance(model.config, PhotoConfig)
    return model.config.distilled_channels > 0


def initial_model(
    options: TrainOptions, photos: PhotoSource, start: Path | None
) -> tuple[PhotoModel | PhotoIntegerModel, PhotoDesign]:
    """Design the codec on crops of the training photos; then initialise a model, or extend that to start from, and order it.

    Args:
        options: the run; its model is a `PhotoConfig`.
        photos: its photos.
        start: path of the model that ``options.start_from`` names; None: ``start_from`` is a path or a shipped name.

    Returns:
        The model and the design.
    """
    assert isinstance(options.model, PhotoConfig)
    crop = min(DESIGN_CROP, options.crop_size)
    sample = next(iter(CropLoader(photos.photos, DESIGN_CROPS, crop, seed=options.seed)))
    design = design_photo_codec(sample, options.model)
    model: PhotoModel | PhotoIntegerModel
    if options.start_from:
        model, design = extend_photo_model(thaw(resolve_model(start or options.start_from)), design)
    else:
        model = _initialised(design, sample)
    if options.order_exponent:
        assert isinstance(model, PhotoModel)
        return reorder_channels(model, design, options.order_exponent, sample)
    return model, design


def _initialised(design: PhotoDesign, sample: Tensor) -> PhotoModel | PhotoIntegerModel:
    """Build the model of a design."""
    model = build_model(design.config)
    if isinstance(model, PhotoIntegerModel):
        initialise_integer_model(model, design, sample)
    else:
        assert isinstance(model, PhotoModel)
        initialise_photo_model(model, design)
    return model


class _PhotoRun:
    """The stages of a run, and the images and targets that they share."""

    def __init__(self, options: TrainOptions, photos: PhotoSource, design: PhotoDesign, started_at: float) -> None:
        self.options, self.started_at = options, started_at
        size, crop, seed = options.batch_size, options.crop_size, options.seed
        self.loader: CropLoader | DeviceCropLoader
        if options.data_on_device:
            self.loader = DeviceCropLoader(photos.photos, size, crop, seed=seed)
        else:
            self.loader = CropLoader(photos.photos, size, crop, seed=seed, num_workers=photos.num_workers)
        self.validation = WholePhotos(photos.held_out, BLOCK)
        held_out = [photo[0].permute(1, 2, 0).numpy() for photo in self.validation]
        anchor = classic_curve("jpeg", steps(held_out, "JPEG of the validation photos"))
        self.targets = PhotoTargets(design.rates_bpp, design.lambdas, anchor)

    def train(
        self, model: PhotoModel | PhotoIntegerModel, checkpoint: Path | None, distill_epochs: int
    ) -> PhotoModel | PhotoIntegerModel:
        """Train the whole model; returns it with averaged weights where there are any."""
        _use_channels_last(model.analysis_transform, model.synthesis_transform)
        options = dataclasses.replace(self.options, model=model.config)
        module = PhotoModule(options, model, self.options.epochs * len(self.loader), self.targets)
        stage = Stage("train", model.config, self.options.epochs, self.options.minutes)
        self._fit(module, stage, self.options, checkpoint, further_steps=distill_epochs * len(self.loader))
        return module.final_model

    def distill(self, model: PhotoModel, epochs: int, checkpoint: Path | None) -> None:
        """Replace the model's full analysis transform with a distilled one, and train that."""
        torch.manual_seed(self.options.seed)
        distilled = with_distilled_analysis(model)
        _use_channels_last(model.analysis_transform, distilled.analysis_transform, distilled.synthesis_transform)
        module = DistilledAnalysisModule(
            dataclasses.replace(self.options, model=distilled.config),
            distilled,
            epochs * len(self.loader),
            self.targets,
            full_analysis=model.analysis_transform,
        )
        options = dataclasses.replace(self.options, val_every=min(self.options.val_every, epochs))
        self._fit(module, Stage(DISTILL_STAGE, distilled.config, epochs), options, checkpoint)

    def _fit(
        self,
        module: PhotoModule,
        stage: Stage,
        options: TrainOptions,
        checkpoint: Path | None,
        further_steps: int = 0,
    ) -> None:
        fit(
            module,
            stage,
            options,
            loader=self.loader,
            validation=self.validation,
            checkpoint=checkpoint,
            started_at=self.started_at,
            further_steps=further_steps,
        )


def _use_channels_last(*transforms: nn.Module) -> None:
    for transform in transforms:
        transform.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _export(checkpoint: Path, file: Path) -> None:
    """Freeze a checkpoint into a model file."""
    frozen = resolve_model(checkpoint)
    save_model(frozen, file, force=True)
    logger.info("%s: model %s", file, frozen.model_id.hex())


def _keep_full_analysis(folder: Path) -> None:
    """Copy the checkpoints with the full analysis transform: the next stage overwrites them."""
    for name, copy in (("last.ckpt", "train.ckpt"), ("best.ckpt", "train-best.ckpt")):
        path = folder / name
        # A run resumed from train.ckpt finds checkpoints of the distilling stage here: they are not copied.
        if path.exists() and read_checkpoint(path)["ohmq"]["stage"] == "train":
            write_atomically(folder / copy, path.read_bytes(), force=True)
