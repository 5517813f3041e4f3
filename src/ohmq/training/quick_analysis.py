"""Training of the photo codec's quick analysis: what the deep one gives, for an encoder that decodes and chooses again."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from ohmq.models import PhotoConfig, PhotoModel, build_model
from ohmq.models.config import GREY_LEVELS
from ohmq.models.photo import PhotoAnalysis
from ohmq.training.photo import PhotoModule

__all__ = ["PATCHES", "QuickAnalysisModule", "with_quick_analysis"]

PATCHES, BLOCKS = 112, 2
"""Channels and residual blocks of the quick analysis: as many as leave room for a step of feedback in the encoder's budget."""
PATH = "analysis_transform.path"


def with_quick_analysis(model: PhotoModel) -> PhotoModel:
    """The model with a quick analysis in place of a deep one, its convolutions not trained yet: they give nothing."""
    config = model.config
    assert isinstance(config, PhotoConfig)
    quick = build_model(dataclasses.replace(config, analysis_patches=PATCHES, analysis_blocks=(0, BLOCKS)))
    assert isinstance(quick, PhotoModel)
    kept = {name: value for name, value in model.state_dict().items() if not name.startswith(PATH)}
    quick.load_state_dict(quick.state_dict() | kept)
    return quick


class QuickAnalysisModule(PhotoModule):
    """Least squares between the latents of both analyses; all but the quick one's convolutions stays as it is.

    What it lacks, feedback makes good: the encoder sees what its latent decodes to, see `ohmq.feedback`. Validation is
    without feedback.

    Args:
        deep: the analysis to learn from. arguments: of `PhotoModule`; its model has a quick analysis.
    """

    def __init__(self, deep: PhotoAnalysis, *arguments: Any) -> None:
        options, *others = arguments
        super().__init__(dataclasses.replace(options, only=PATH), *others)
        self.deep = deep.requires_grad_(False)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """The mean square of a batch of crops in [0, 1], logged in squared grey levels of their pixels."""
        images = self.model.normalise(batch).contiguous(memory_format=torch.channels_last)
        squares = (self.model.analysis_transform(images) - self.deep(images)).square()
        loss = squares.mean()
        self.log("loss", loss, prog_bar=True, logger=False)
        self.log("train_mse", squares.sum() / images.numel() * GREY_LEVELS**2, on_step=True, sync_dist=True)
        return loss
