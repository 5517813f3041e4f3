"""Analysis in windows: the same as of the whole image, in bfloat16 nearly so."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from ohmq.codec import Codec
from ohmq.models.photo import PhotoAnalysis, PhotoModel
from ohmq.runtime import photo_synthesis
from ohmq.runtime.photo_analysis import PhotoAnalysisWindows


@pytest.fixture(scope="module")
def model(photo_codec: Codec) -> PhotoModel:
    found = photo_codec.transforms.model  # type: ignore[attr-defined]
    assert isinstance(found, PhotoModel)
    return found


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    with Image.open(Path(__file__).parents[3] / "examples" / "photos" / "chelsea.png") as photo:
        pixels = np.asarray(photo.convert("RGB").crop((32, 48, 272, 224)))
    return np.ascontiguousarray(np.stack([pixels, pixels[::-1, ::-1]]).transpose(0, 3, 1, 2))


def windows(model: PhotoModel, bfloat16: bool = False) -> PhotoAnalysisWindows:
    assert isinstance(model.mean, float) and isinstance(model.std, float)
    return PhotoAnalysisWindows(model.analysis_transform, model.mean, model.std, bfloat16=bfloat16)


def test_windows_are_parts_of_the_whole(
    model: PhotoModel, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.no_grad():
        whole = model.analysis_transform(model.normalise(torch.from_numpy(images).float() / 255))
    expected = whole.permute(0, 2, 3, 1).numpy()
    found = [windows(model).latent(images)]
    monkeypatch.setattr(photo_synthesis, "WINDOW_ROWS", 4)
    monkeypatch.setattr(photo_synthesis, "WINDOW_COLUMNS", 6)
    found.append(windows(model).latent(images))
    for latent in found:
        assert latent.shape == expected.shape == (2, 11, 15, 320)
        np.testing.assert_allclose(latent, expected, rtol=0, atol=2e-3)


def test_one_thread_and_several_give_the_same(model: PhotoModel, images: NDArray[np.uint8]) -> None:
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append(windows(model, bfloat16=True).latent(images))
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(*found)


def test_bfloat16_is_near_float32(model: PhotoModel, images: NDArray[np.uint8]) -> None:
    """Far within the quantizer's steps, at low frequencies as well."""
    error = np.square(windows(model, bfloat16=True).latent(images) - windows(model).latent(images))
    assert 1e-4 < np.sqrt(error.mean()) < 0.01
    assert np.sqrt(error[..., :4].mean()) < 0.02


def test_other_transforms_are_not_supported(model: PhotoModel) -> None:
    assert PhotoAnalysisWindows.supports(model.analysis_transform)
    full = PhotoAnalysis(dataclasses.replace(model.config, distilled_channels=0))
    assert not PhotoAnalysisWindows.supports(full)
    assert not PhotoAnalysisWindows.supports(torch.nn.Conv2d(3, 4, 8, stride=8))
