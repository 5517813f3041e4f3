"""Training modules around the small photo model."""

from typing import Any

from ohmq.evaluation.results import Curve
from ohmq.training.options import TrainOptions, preset
from ohmq.training.photo.module import PhotoModule, PhotoTargets
from support.small_models import make_photo_model, photo_design


def make_photo_module(**changes: Any) -> PhotoModule:
    """Make the training module of the small photo model, in float32 on the CPU; changes are options of the run."""
    design = photo_design()
    settings = {**preset("photo"), "model": design.config, "precision": "float32", "cpu": True, **changes}
    targets = PhotoTargets(design.rates_bpp, design.lambdas, Curve("jpeg", "JPEG", (1.0,), (30.0,)))
    return PhotoModule(TrainOptions(**settings), make_photo_model(), 10, targets)
