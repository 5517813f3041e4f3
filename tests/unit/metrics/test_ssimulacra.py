"""SSIMULACRA2 against libjxl and the package `ssimulacra2`."""

import io
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from support.images import distorted_pair

from ohmq.metrics import Ssimulacra2, ssimulacra, ssimulacra2

# Scores of `ssimulacra2` of libjxl 0.11.2 (Debian 13, package libjxl-devtools), and of the PyPI package ssimulacra2 0.3.0.
SCORES = [
    ("astronaut", (0, 512, 0, 512), "steps", 29.518, 31.644),
    ("astronaut", (0, 512, 0, 512), "blur", 57.427, 57.349),
    ("astronaut", (0, 512, 0, 512), "noise", 64.705, 65.049),
    ("chelsea", (3, 130, 5, 226), "steps", 67.349, 48.291),
    ("chelsea", (3, 130, 5, 226), "blur", 62.624, 78.617),
    ("chelsea", (3, 130, 5, 226), "noise", 71.139, 48.810),
    ("coffee", (100, 133, 200, 250), "steps", 43.931, 73.751),
    ("coffee", (100, 133, 200, 250), "blur", 76.304, 86.037),
    ("coffee", (100, 133, 200, 250), "noise", 28.623, 76.136),
]


@pytest.mark.parametrize("name, box, kind, libjxl, package", SCORES)
def test_scores_are_those_of_libjxl(
    name: str, box: tuple[int, int, int, int], kind: str, libjxl: float, package: float
) -> None:
    # The tool filters recursively in single precision; its rounding is most of what differs.
    assert ssimulacra2(*distorted_pair(name, box, kind)) == pytest.approx(libjxl, abs=0.06)


def blur_of_the_package(planes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mirror the image at its upper and lower borders, and take more taps, as the package does."""
    padded = np.pad(planes.astype(np.float64), [(0, 0)] * (planes.ndim - 1) + [(5, 5)])
    blurred: NDArray[np.float64] = gaussian_filter(padded, 1.5, truncate=3.33, mode="reflect", axes=(-2, -1))
    return blurred[..., 5:-5]


@pytest.mark.parametrize("name, box, kind, libjxl, package", [row for row in SCORES if min(row[1][1::2]) > 256])
def test_all_but_the_blur_is_as_in_the_package(
    name: str,
    box: tuple[int, int, int, int],
    kind: str,
    libjxl: float,
    package: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ssimulacra, "_blur", blur_of_the_package)
    assert ssimulacra2(*distorted_pair(name, box, kind)) == pytest.approx(package, abs=2e-3)


def test_the_installed_package_gives_a_similar_score() -> None:
    package = pytest.importorskip("ssimulacra2")
    files = []
    for pixels in distorted_pair("coffee", (100, 356, 200, 456), "noise"):
        files.append(io.BytesIO())
        Image.fromarray(pixels).save(files[-1], "PNG")
    ours = ssimulacra2(*distorted_pair("coffee", (100, 356, 200, 456), "noise"))
    assert package.compute_ssimulacra2(*files) == pytest.approx(ours, abs=1.5)


def test_the_blur_is_the_impulse_response_of_the_recursive_filter() -> None:
    # Charalampidis, 2016, as in libjxl: three resonators fed by the sum of two pixels, and weights that give unit sum,
    # variance 1.5 ** 2 and the least error.
    sigma, radius = 1.5, 5
    omega = np.array([1, 3, 5]) * math.pi / (2 * radius)
    sign = np.array([1, -1, 1])
    p = sign / np.tan(omega / 2)
    r = sign * p**2 / np.sin(omega)
    rho = np.exp(-0.5 * (sigma * omega) ** 2) / radius
    d_13, d_35, d_51 = (p[i] * r[j] - r[i] * p[j] for i, j in ((0, 1), (1, 2), (2, 0)))
    zeta = np.array([d_35 / d_13, d_51 / d_13, 1])
    beta = np.linalg.solve([p, r, zeta], [1, radius**2 - sigma**2, zeta @ rho])
    gain, feedback = -beta * np.cos(omega * (radius + 1)), -2 * np.cos(omega)
    signal = np.zeros(60)
    signal[20] = 1
    before = last = np.zeros(3)
    response = []
    for n in range(radius + 1, 50):
        last, before = gain * (signal[n - radius - 1] + signal[n + radius - 1]) - feedback * last - before, last
        response.append(float(last.sum()))
    taps = list(ssimulacra.BLUR_TAPS)
    found = response[20 - radius - 1 - 4 : 20 - radius - 1 + 5]
    assert found == pytest.approx(taps[:0:-1] + taps, abs=1e-9)
    assert response[20 - radius - 1 + 5 :] == pytest.approx([0] * 25, abs=1e-9)
    impulse = np.zeros((21, 40), np.float32)
    impulse[10, 30] = 1
    expected = np.zeros((21, 40))
    expected[6:15, 26:35] = np.outer(found, found)
    assert ssimulacra._blur(impulse) == pytest.approx(expected, abs=1e-7)


def test_equal_images_score_100_and_small_ones_nothing() -> None:
    reference, distorted = distorted_pair("coffee", (0, 8, 0, 9), "noise")
    assert ssimulacra2(reference, reference) == 100
    assert 0 < ssimulacra2(reference, distorted) < 100
    assert math.isnan(ssimulacra2(reference[:7], distorted[:7]))


def test_grey_images_score_as_their_copies_in_colour() -> None:
    reference, distorted = (image[..., 0] for image in distorted_pair("chelsea", (0, 64, 0, 80), "noise"))
    colour = [np.repeat(image[..., None], 3, axis=2) for image in (reference, distorted)]
    assert ssimulacra2(reference, distorted) == ssimulacra2(*colour)
    assert ssimulacra2(torch.from_numpy(reference.copy()), torch.from_numpy(distorted.copy())) == ssimulacra2(*colour)


def test_one_original_serves_several_decoded_images() -> None:
    reference, blurred = distorted_pair("chelsea", (0, 65, 0, 83), "blur")
    _, stepped = distorted_pair("chelsea", (0, 65, 0, 83), "steps")
    scorer = Ssimulacra2(reference)
    assert [scorer.score(blurred), scorer.score(stepped)] == [
        ssimulacra2(reference, blurred),
        ssimulacra2(reference, stepped),
    ]


def test_wrong_images_are_refused() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="must be equal"):
        ssimulacra2(image, image[:-1])
    with pytest.raises(ValueError, match=r"\(H, W\) or \(H, W, 3\)"):
        Ssimulacra2(image[..., :2])
    with pytest.raises(TypeError, match="8-bit"):
        Ssimulacra2(image.astype(np.float32))
