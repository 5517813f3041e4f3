"""src/ohmq/training/photo/run.py."""

import dataclasses
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from ohmq.datasets.photos import CropLoader, WholePhotos
from ohmq.errors import ConfigError
from ohmq.evaluation.classic import classic_curve
from ohmq.model_files.checkpoint import read_checkpoint
from ohmq.model_files.freeze import thaw
from ohmq.model_files.resolve import resolve_model
from ohmq.models import PhotoConfig, PhotoIntegerModel, PhotoModel, build_model
from ohmq.models.photo import BLOCK
from ohmq.training.fit import ResumeState, Stage, fit, is_first_process
from ohmq.training.options import TrainOptions
from ohmq.training.photo.distill_analysis import DistilledAnalysisModule, with_distilled_analysis
from ohmq.training.photo.initialise import (
    design_photo_codec,
    extend_photo_model,
    start_integer_model,
    start_photo_model,
)
from ohmq.training.photo.module import PhotoModule
from ohmq.training.sources import PhotoSource

logger = logging.getLogger(__name__)

DESIGN_CROPS, DESIGN_CROP = 256, 128
"""Crops of training photos that the warm start of the photo codec looks at, and their side."""


def train_photo(options: TrainOptions, resume: Path | None, start: Path | None) -> Path:
    photos = PhotoSource(options)
    done = ResumeState.of(resume, options) if resume else ResumeState("", None)
    started = time.monotonic() - done.seconds
    last, before = options.output_dir / "last.ckpt", options.output_dir / "train.ckpt"
    quick = Stage("quick_analysis", None, 0 if options.only else options.quick_epochs)
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
    if quick.epochs and model.config.distilled_channels:
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
        fit(module, Stage("train", model.config, options.epochs), options, loader, validation, done.path, started)
        model, done = module.final_model, ResumeState("", None)
        if quick.epochs and is_first_process():
            _set_aside(options.output_dir)
    if not quick.epochs:
        return last
    assert isinstance(model, PhotoModel)
    torch.manual_seed(options.seed)
    small, deep = with_distilled_analysis(model), model.analysis_transform
    deep.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    learner = DistilledAnalysisModule(**arguments(small, quick.epochs), deep=deep)
    stage = dataclasses.replace(quick, model=small.config)
    own = dataclasses.replace(options, val_every=min(options.val_every, quick.epochs))
    fit(learner, stage, own, loader, validation, done.path, started)
    return last


def _set_aside(folder: Path) -> None:
    """Keep the checkpoints of a photo model with its deep analysis: the next stage writes its own."""
    for name, kept in (("last.ckpt", "train.ckpt"), ("best.ckpt", "train-best.ckpt")):
        path = folder / name
        # A run that goes on from the first stage's end finds those of the second here.
        if path.exists() and read_checkpoint(path)["ohmq"]["stage"] == "train":
            shutil.copyfile(path, folder / kept)
