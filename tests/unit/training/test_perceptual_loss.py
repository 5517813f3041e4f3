"""The perceptual term in the loss of photo models."""

from typing import Any

import numpy as np
import pytest
import torch
from support.photo_modules import make_photo_module
from support.small_models import photo_picture

from ohmq.errors import ConfigError
from ohmq.models.config import GREY_LEVELS
from ohmq.training.options import TrainOptions, preset
from ohmq.training.photo.module import PERCEPTUAL_SCALE, rate_distortion
from ohmq.training.photo.perceptual import ssimulacra2


def test_the_loss_is_rate_distortion_and_the_weighted_term() -> None:
    pixels = np.stack([np.asarray(photo_picture(128, 128, seed)) for seed in (1, 2)])
    active = torch.tensor([24, 9])
    losses = {}
    for weight in (0.0, 1.0, 2.0):
        stage = make_photo_module(perceptual=weight)
        model = stage.model
        images = model.normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255)
        losses[weight] = stage._loss(model, images, active)[0]
        losses[weight].backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    output = model(images, active)
    rate = output.bits / 128**2
    error = (output.reconstruction - images).square().flatten(1).mean(1) * GREY_LEVELS**2
    lambdas, rates = stage.lambdas[active - 1], stage.rates_bpp[active - 1]
    assert torch.equal(losses[0.0], rate_distortion(rate, error, lambdas).mean())
    score = ssimulacra2(model.denormalise(images), model.denormalise(output.reconstruction))
    term = (PERCEPTUAL_SCALE * rates * (100 - score) * 0.15 * lambdas**-0.35).mean()
    for weight in (1.0, 2.0):
        torch.testing.assert_close(losses[weight], losses[0.0] + weight * term)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_size": 112}, "crop_size is 112; the perceptual term needs crops of at least 128 pixels"),
        ({"perceptual": -1.0}, "perceptual is -1.0"),
        ({"only": "decoders", "start_from": "photo"}, "decoders have a perceptual term of their own"),
        ({"model": preset("mnist-ohm")["model"]}, "perceptual is for photo models"),
    ],
)
def test_weights_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainOptions(**{**preset("photo"), "quick_epochs": 0, "perceptual": 0.5, **changes})
