"""Distillation of the photo family's analysis transform: a small one learns the latents of the full one."""

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor

from ohmq.models import PhotoConfig, PhotoModel, build_model
from ohmq.models.config import GREY_LEVELS
from ohmq.models.photo import PhotoAnalysis
from ohmq.training.options import TrainOptions
from ohmq.training.photo.module import PhotoModule, PhotoTargets

__all__ = ["DISTILLED_CHANNELS", "DistilledAnalysisModule", "with_distilled_analysis"]

DISTILLED_CHANNELS = 112
"""Channels of the distilled analysis transform; few enough for one refinement pass in 80 kFLOPs a pixel."""
DISTILLED_BLOCKS = 2
"""Residual blocks of the distilled analysis transform."""
CONVOLUTIONS = "analysis_transform.path"
"""Prefix of the trained parameters' names: the convolutions beside the block transform."""


def with_distilled_analysis(model: PhotoModel) -> PhotoModel:
    """Replace the full analysis transform of a model with a distilled one that is not trained yet.

    Args:
        model: a photo model with a full analysis transform.

    Returns:
        A new model. The last convolutions of its analysis transform are zero, so that the block transform acts alone.
    """
    config = model.config
    assert isinstance(config, PhotoConfig)
    distilled_config = dataclasses.replace(
        config, distilled_channels=DISTILLED_CHANNELS, analysis_blocks=(0, DISTILLED_BLOCKS)
    )
    distilled = build_model(distilled_config)
    assert isinstance(distilled, PhotoModel)
    kept = {name: value for name, value in model.state_dict().items() if not name.startswith(CONVOLUTIONS)}
    distilled.load_state_dict(distilled.state_dict() | kept)
    return distilled


class DistilledAnalysisModule(PhotoModule):
    """Knowledge distillation of the analysis transform (Hinton et al., 2015).

    The loss is the mean squared difference of both latents; all but the convolutions of the distilled analysis
    transform stays as it is. Analysis by synthesis (`ohmq.encoder.refine`) makes up for the rest of the difference;
    validation runs without it.

    Args:
        options: the run; its model is ``model.config``.
        model: a photo model with a distilled analysis transform.
        total_steps: steps of the stage.
        targets: rates and lambdas of the channels, for validation.
        full_analysis: the analysis transform to learn from.
    """

    DIVERGED: ClassVar[float] = 10.0

    def __init__(
        self,
        options: TrainOptions,
        model: PhotoModel,
        total_steps: int,
        targets: PhotoTargets,
        *,
        full_analysis: PhotoAnalysis,
    ) -> None:
        super().__init__(dataclasses.replace(options, only=CONVOLUTIONS), model, total_steps, targets)
        self.deep = full_analysis.requires_grad_(False)  # the attribute's name is part of checkpoints
        self.deep.low_precision = False

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Compute the mean squared difference of the latents; ``train_mse`` is in squared grey levels a pixel value.

        Shape:
            batch: (batch, 3, H, W), in [0, 1].
        """
        images = self.model.normalise(batch).contiguous(memory_format=torch.channels_last)
        squares = (self.model.analysis_transform(images) - self.deep(images)).square()
        loss = squares.mean()
        self.watch_loss(loss)
        self.log("loss", loss, prog_bar=True, logger=False)
        self.log("train_mse", squares.sum() / images.numel() * GREY_LEVELS**2, on_step=True, sync_dist=True)
        return loss
