"""SSIMULACRA2 as a training loss."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from support.photo_folders import draw_photo

from ohmq.training.photo.perceptual import MIN_SIDE, ssimulacra2


@pytest.fixture
def photo(tmp_path):  # type: ignore[no-untyped-def]
    draw_photo(tmp_path / "photo.png", 256, 288, 1)
    with Image.open(tmp_path / "photo.png") as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def test_equal_images_score_100_and_worse_ones_less(photo: torch.Tensor) -> None:
    noise = torch.randn(photo.shape, generator=torch.Generator().manual_seed(3))
    scores = [float(ssimulacra2(photo, (photo + sigma * noise).clamp(0, 1))[0]) for sigma in (0, 0.01, 0.05, 0.2)]
    assert scores[0] > 99
    assert all(better > worse + 3 for better, worse in itertools.pairwise(scores))


def test_scores_are_those_of_the_package(photo: torch.Tensor, tmp_path) -> None:  # type: ignore[no-untyped-def]
    package = pytest.importorskip("ssimulacra2")
    pixels = (photo[0].permute(1, 2, 0) * 255).byte().numpy()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for quality in (20, 60):
        Image.fromarray(pixels).save(tmp_path / "b.jpg", quality=quality)
        with Image.open(tmp_path / "b.jpg") as image:
            decoded = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
        expected = package.compute_ssimulacra2(str(tmp_path / "a.png"), str(tmp_path / "b.jpg"))
        assert float(ssimulacra2(photo, decoded)[0]) == pytest.approx(expected, abs=3)


def test_the_gradient_leads_to_better_scores(photo: torch.Tensor) -> None:
    decoded = torch.nn.functional.avg_pool2d(photo, 3, 1, 1).requires_grad_()
    before = ssimulacra2(photo, decoded)
    before.sum().backward()
    assert decoded.grad is not None and torch.isfinite(decoded.grad).all()
    step = decoded + 0.5 * decoded.grad / decoded.grad.abs().max() * 0.02
    assert float(ssimulacra2(photo, step.detach())[0]) > float(before.detach()[0]) + 0.1


def test_small_images_are_refused() -> None:
    small = torch.zeros(1, 3, MIN_SIDE - 1, 256)
    with pytest.raises(ValueError, match="needs 128 pixels"):
        ssimulacra2(small, small)
