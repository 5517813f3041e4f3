"""Photo models whose channels are ordered for looks."""

import numpy as np
import pytest
import torch
from support.small_models import make_photo_model, photo_design, photo_picture

from ohmq.encoder.tuning import sensitivity
from ohmq.errors import ConfigError
from ohmq.model_files.freeze import freeze
from ohmq.models.block_frequencies import block_frequencies
from ohmq.models.photo import PhotoModel
from ohmq.training.options import TrainOptions, preset
from ohmq.training.photo.reorder import reorder_channels


@pytest.fixture
def sample() -> torch.Tensor:
    pixels = np.stack([np.asarray(photo_picture(64, 64, seed)) for seed in range(3)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255


def coded(model: PhotoModel, images: torch.Tensor, count: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the latent and the bits of images."""
    latent = model.analysis_transform(model.normalise(images))
    active = None if count is None else torch.full((len(images),), count)
    out = model.quantizer(latent, active, model.prior)
    return out.latent_hat, out.bits


@torch.no_grad()
def test_with_exponent_zero_the_model_codes_as_before(sample: torch.Tensor) -> None:
    model, design = make_photo_model(), photo_design()
    same, ordered = reorder_channels(model, design, 0.0, sample)
    assert ordered.passes == design.passes
    assert torch.equal(same.quantizer.project, model.quantizer.project)
    latents, bits = zip(coded(model, sample), coded(same, sample), strict=True)
    assert (latents[0] - latents[1]).abs().mean() < 0.05 * latents[0].abs().mean()
    torch.testing.assert_close(bits[0], bits[1], rtol=0.1, atol=1)


@torch.no_grad()
def test_channels_whose_errors_show_come_earlier(sample: torch.Tensor) -> None:
    model, design = make_photo_model(), photo_design()
    ordered, changed = reorder_channels(model, design, 1.0, sample)
    old, new = ([p.coefficient for p in d.passes] for d in (design, changed))
    assert sorted(old) == sorted(new) and old != new
    assert ordered.quantizer.project.abs().argmax(1).tolist() == new
    steps: dict[int, list[float]] = {}
    for step in changed.passes:
        steps.setdefault(step.coefficient, []).append(step.step)
    assert all(sizes == sorted(sizes, reverse=True) for sizes in steps.values())  # coarse passes first
    filters = block_frequencies(model.quantizer.latent_channels)
    half = len(new) // 2
    shows = [np.mean([np.log(sensitivity(filters[k])) for k in order[:half]]) for order in (old, new)]
    assert shows[1] > shows[0]
    assert (changed.lambdas.diff() >= 0).all() and (changed.rates_bpp.diff() > 0).all()
    assert changed.rates_bpp[-1] == pytest.approx(float(design.rates_bpp[-1]), rel=1e-4)
    assert sum(changed.config.group_sizes) == len(new)


@torch.no_grad()
def test_with_all_channels_the_quantization_error_stays(sample: torch.Tensor) -> None:
    """What belongs to a channel moves with it: passes over a coefficient give the same codewords."""
    model, design = make_photo_model(), photo_design()
    model.quantizer.bit_price.zero_()
    ordered, _ = reorder_channels(model, design, 1.0, sample)
    assert ordered.quantizer.bit_price.min() > 0
    ordered.quantizer.bit_price.zero_()  # the nearest symbols
    target = model.analysis_transform(model.normalise(sample))
    errors = [(coded(one, sample)[0] - target).square().mean() for one in (model, ordered)]
    assert errors[1] == pytest.approx(float(errors[0]), rel=0.15)
    assert len(freeze(ordered).model_id) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order_exponent": -1.0}, "order_exponent is -1.0"),
        ({"only": "decoders", "start_from": "photo"}, "order_exponent is for photo models with OHM as a whole"),
        ({"model": preset("mnist-ohm")["model"]}, "order_exponent is for photo models"),
    ],
)
def test_exponents_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    settings = {**preset("photo"), "quick_epochs": 0, "order_exponent": 0.5, **changes}
    with pytest.raises(ConfigError, match=message):
        TrainOptions(**settings)  # type: ignore[arg-type]
