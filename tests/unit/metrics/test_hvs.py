"""PSNR-HVS-M against the package `psnr_hvsm`."""

import math

import numpy as np
import pytest
from support.images import distorted_pair

from ohmq.metrics import psnr_hvs_m

# Of the PyPI package psnr_hvsm 0.3.0, which is checked against the figures of TID2013, for the same unrounded luma.
VALUES = [
    ("astronaut", (0, 512, 0, 512), "steps", 29.947517),
    ("astronaut", (0, 512, 0, 512), "blur", 32.565413),
    ("astronaut", (0, 512, 0, 512), "noise", 38.110745),
    ("chelsea", (3, 130, 5, 226), "steps", 36.423974),
    ("chelsea", (3, 130, 5, 226), "blur", 34.813318),
    ("chelsea", (3, 130, 5, 226), "noise", 39.854218),
    ("coffee", (100, 133, 200, 250), "steps", 34.257385),
    ("coffee", (100, 133, 200, 250), "blur", 43.217076),
    ("coffee", (100, 133, 200, 250), "noise", 38.596145),
]


@pytest.mark.parametrize("name, box, kind, expected", VALUES)
def test_values_are_those_of_the_package(name: str, box: tuple[int, int, int, int], kind: str, expected: float) -> None:
    assert psnr_hvs_m(*distorted_pair(name, box, kind)) == pytest.approx(expected, abs=2e-6)


def test_grey_images_count_as_luma() -> None:
    reference, decoded = (image[..., 0] for image in distorted_pair("coffee", (0, 40, 0, 32), "noise"))
    colour = [np.repeat(image[..., None], 3, axis=2) for image in (reference, decoded)]
    assert psnr_hvs_m(reference, decoded) == pytest.approx(psnr_hvs_m(*colour))


def test_equal_images_and_small_images() -> None:
    reference, decoded = distorted_pair("coffee", (0, 8, 0, 15), "noise")
    assert psnr_hvs_m(reference, reference) == math.inf
    assert psnr_hvs_m(reference, decoded) == psnr_hvs_m(reference[:, :8], decoded[:, :8])
    assert math.isnan(psnr_hvs_m(reference[:7], decoded[:7]))


def test_texture_hides_errors() -> None:
    random = np.random.RandomState(0)
    flat = np.full((32, 32), 128, np.uint8)
    texture = random.randint(60, 197, (32, 32)).astype(np.uint8)
    noise = random.randint(-6, 7, (32, 32))
    values = [psnr_hvs_m(image, (image.astype(int) + noise).astype(np.uint8)) for image in (flat, texture)]
    assert values[1] > values[0] + 6


def test_wrong_images_are_refused() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match="must be equal"):
        psnr_hvs_m(image, image[:-1])
    with pytest.raises(ValueError, match=r"\(H, W\) or \(H, W, 3\)"):
        psnr_hvs_m(image[..., :2], image[..., :2])
