"""Metrics against scikit-image and a second implementation."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from ohmq.metrics import MS_SSIM_MIN_SIDE, ms_ssim, psnr_db, psnr_db_batch, ssim


def noisy_pair(*shape: int, seed: int = 0, noise: int = 40) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    random = np.random.RandomState(seed)
    reference = gaussian_filter(random.randn(*shape), [0] * (len(shape) - 2) + [2, 2])
    reference = 128 + 50 * reference / reference.std()
    decoded = reference + random.uniform(-noise, noise, shape)
    return reference.clip(0, 255).astype(np.uint8), decoded.clip(0, 255).astype(np.uint8)


def skimage_ssim(reference: NDArray[np.uint8], decoded: NDArray[np.uint8], channel_axis: int | None = None) -> float:
    value = structural_similarity(
        reference,
        decoded,
        channel_axis=channel_axis,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
    )
    return float(value)


def test_psnr_equals_hand_computed_values() -> None:
    reference = np.zeros((2, 4, 4), np.uint8)
    decoded = reference.copy()
    decoded[0] = 255  # error 255 everywhere: 0 dB
    decoded[1, 0, 0] = 4  # mean squared error 16 / 16
    values = psnr_db_batch(reference, decoded)
    assert values == pytest.approx([0.0, 20 * math.log10(255)])
    assert psnr_db(reference, decoded) == pytest.approx(10 * math.log10(255**2 / ((255**2 + 1) / 2)))
    assert psnr_db(reference, reference) == math.inf
    assert psnr_db_batch(reference, reference).tolist() == [math.inf, math.inf]


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_psnr_equals_scikit_image(shape: tuple[int, ...]) -> None:
    reference, decoded = noisy_pair(*shape)
    assert psnr_db(reference, decoded) == pytest.approx(peak_signal_noise_ratio(reference, decoded, data_range=255))


def test_psnr_does_not_wrap_around() -> None:
    assert psnr_db(np.uint8([[0, 255]]), np.uint8([[255, 0]])) == 0.0


def test_tensors_and_arrays_give_equal_values() -> None:
    pair = noisy_pair(3, 1, 30, 32)
    tensors = [torch.from_numpy(array) for array in pair]
    for metric in (psnr_db_batch, ssim):
        assert metric(*tensors).tolist() == metric(*pair).tolist()
    assert psnr_db(*tensors) == psnr_db(*pair)


@pytest.mark.parametrize("noise", [5, 60, 200])
@pytest.mark.parametrize("size", [(28, 28), (11, 40), (97, 70)])
def test_ssim_equals_scikit_image(size: tuple[int, int], noise: int) -> None:
    reference, decoded = noisy_pair(4, *size, noise=noise)
    expected = [skimage_ssim(a, b) for a, b in zip(reference, decoded, strict=True)]
    assert ssim(reference, decoded) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_colour_images_is_the_mean_of_the_channels() -> None:
    reference, decoded = noisy_pair(2, 3, 40, 50)
    expected = [skimage_ssim(a, b, channel_axis=0) for a, b in zip(reference, decoded, strict=True)]
    assert ssim(reference, decoded) == pytest.approx(expected, abs=1e-9)


def test_many_images_are_processed_in_chunks() -> None:
    reference, decoded = noisy_pair(400, 28, 28)
    assert ssim(reference, decoded)[[0, 335, 399]] == pytest.approx(
        [skimage_ssim(reference[i], decoded[i]) for i in (0, 335, 399)], abs=1e-9
    )


def slow_ms_ssim(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Compute the MS-SSIM of one channel with scipy's Gaussian filter."""

    def blur(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return gaussian_filter(image, 1.5, radius=5)[5:-5, 5:-5]

    value = 1.0
    for scale, weight in enumerate([0.0448, 0.2856, 0.3001, 0.2363, 0.1333]):
        mx, my = blur(x), blur(y)
        vx, vy, vxy = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
        factor = (2 * vxy + 58.5225) / (vx + vy + 58.5225)
        if scale == 4:
            factor = factor * (2 * mx * my + 6.5025) / (mx * mx + my * my + 6.5025)
        value *= factor.mean() ** weight
        height, width = x.shape[0] // 2, x.shape[1] // 2
        x, y = (i[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean((1, 3)) for i in (x, y))
    return value


@pytest.mark.parametrize("size", [(176, 176), (181, 203)])
def test_ms_ssim_equals_a_second_implementation(size: tuple[int, int]) -> None:
    reference, decoded = noisy_pair(2, 3, *size, noise=90)
    a, b = reference.astype(float), decoded.astype(float)
    expected = [np.mean([slow_ms_ssim(a[n, c], b[n, c]) for c in range(3)]) for n in range(2)]
    assert 0.5 < min(expected) < 0.99
    assert ms_ssim(reference, decoded) == pytest.approx(expected, abs=1e-9)


def test_equal_images_have_1_and_inverted_images_little() -> None:
    reference, _ = noisy_pair(2, 176, 180)
    assert ssim(reference, reference) == pytest.approx([1, 1])
    assert ms_ssim(reference, reference) == pytest.approx([1, 1])
    assert (ssim(reference, 255 - reference) < 0).all()
    assert ms_ssim(reference, 255 - reference).tolist() == [0, 0]


def test_images_that_are_too_small_give_nan() -> None:
    assert np.isnan(ssim(*noisy_pair(3, 10, 50))).tolist() == [True] * 3
    assert np.isnan(ms_ssim(*noisy_pair(2, MS_SSIM_MIN_SIDE - 1, 200))).tolist() == [True] * 2
    assert np.isfinite(ms_ssim(*noisy_pair(1, 200, MS_SSIM_MIN_SIDE))).all()


@pytest.mark.parametrize("metric", [psnr_db, psnr_db_batch, ssim, ms_ssim])
def test_wrong_arguments_are_refused(metric: object) -> None:
    assert callable(metric)
    image = np.zeros((1, 20, 20), np.uint8)
    with pytest.raises(TypeError, match="uint8"):
        metric(image, image.astype(np.float32))
    with pytest.raises(ValueError, match="must be equal"):
        metric(image, image[:, 1:])
    with pytest.raises(ValueError, match="not empty"):
        metric(image[:0], image[:0])


def test_images_without_a_batch_axis_are_refused() -> None:
    with pytest.raises(ValueError, match="expected"):
        ssim(np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8))
