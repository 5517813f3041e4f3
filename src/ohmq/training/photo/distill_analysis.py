"""Training of the photo codec's quick analysis: what the deep one gives, for an encoder that decodes and chooses again."""

import dataclasses

import torch
from torch import Tensor

from ohmq.evaluation.results import Curve
from ohmq.models import PhotoConfig, PhotoModel, build_model
from ohmq.models.config import GREY_LEVELS
from ohmq.models.photo import PhotoAnalysis
from ohmq.training.options import TrainOptions
from ohmq.training.photo.module import PhotoModule

__all__ = ["PATCHES", "DistilledAnalysisModule", "with_distilled_analysis"]

PATCHES = 112
"""Channels of the quick analysis: as many as leave room for a step of feedback in the encoder's 80 kFLOPs a pixel."""
BLOCKS = 2
"""Its residual blocks."""
PATH = "analysis_transform.path"


def with_distilled_analysis(model: PhotoModel) -> PhotoModel:
    """The model with a quick analysis in place of a deep one, its convolutions not trained yet: they give nothing."""
    config = model.config
    assert isinstance(config, PhotoConfig)
    quick = build_model(dataclasses.replace(config, distilled_channels=PATCHES, analysis_blocks=(0, BLOCKS)))
    assert isinstance(quick, PhotoModel)
    kept = {name: value for name, value in model.state_dict().items() if not name.startswith(PATH)}
    quick.load_state_dict(quick.state_dict() | kept)
    return quick


class DistilledAnalysisModule(PhotoModule):
    """Least squares between the latents of both analyses; all but the quick one's convolutions stays as it is.

    What it lacks, feedback makes good: the encoder sees what its latent decodes to, see `ohmq.encoder.refine`. Validation is
    without feedback.

    Args:
        options, model, total_steps, rates_bpp, lambdas, anchor: of `PhotoModule`; the model has a quick analysis.
        deep: the analysis to learn from.
    """

    def __init__(
        self,
        options: TrainOptions,
        model: PhotoModel,
        total_steps: int,
        rates_bpp: Tensor,
        lambdas: Tensor,
        anchor: Curve,
        deep: PhotoAnalysis,
    ) -> None:
        super().__init__(dataclasses.replace(options, only=PATH), model, total_steps, rates_bpp, lambdas, anchor)
        self.deep = deep.requires_grad_(False)
        self.deep.low_precision = False

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """The mean square of a batch of crops in [0, 1], (B, 3, H, W), logged in squared grey levels of their pixels."""
        images = self.model.normalise(batch).contiguous(memory_format=torch.channels_last)
        squares = (self.model.analysis_transform(images) - self.deep(images)).square()
        loss = squares.mean()
        self.log("loss", loss, prog_bar=True, logger=False)
        self.log("train_mse", squares.sum() / images.numel() * GREY_LEVELS**2, on_step=True, sync_dist=True)
        return loss
