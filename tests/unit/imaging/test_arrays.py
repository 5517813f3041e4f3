"""Numpy arrays and torch tensors as images."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from support.images import photo

from ohmq.imaging.arrays import as_image, image_to_tensor, tensor_to_image


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_tensors_and_back(mode: str) -> None:
    image = photo().convert(mode)
    tensor = image_to_tensor(image)
    assert tensor.shape == (1, len(mode), 6, 8)
    assert tensor.dtype == torch.float32
    assert torch.equal(
        tensor[0, 0, 2], torch.tensor(np.atleast_3d(np.asarray(image))[2, :, 0] / 255, dtype=torch.float32)
    )
    assert tensor_to_image(tensor).mode == mode
    assert tensor_to_image(tensor).tobytes() == image.tobytes()


def test_tensors_are_clipped_and_rounded() -> None:
    image = tensor_to_image(torch.tensor([[-1.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 9.0]]))
    assert list(image.tobytes()) == [0, 0, 1, 255, 255]


def test_as_image() -> None:
    array = np.asarray(photo())
    assert as_image(photo()).tobytes() == photo().tobytes()
    assert as_image(array).mode == "RGB"
    assert as_image(array).tobytes() == photo().tobytes()
    assert as_image(array[..., 0]).mode == as_image(array[..., :1]).mode == "L"
    for mode in ("LA", "RGBA"):
        clear = np.asarray(photo().convert(mode))
        assert (as_image(clear).mode, as_image(clear).tobytes()) == (mode, clear.tobytes())
    assert as_image(array[::-1, ::-2]).tobytes() == np.ascontiguousarray(array[::-1, ::-2]).tobytes()
    planes = torch.from_numpy(array.transpose(2, 0, 1).copy())
    for tensor in (planes, planes[None], planes / 255, planes[None].double() / 255):
        assert as_image(tensor).tobytes() == photo().tobytes()


BAD_OBJECTS: list[tuple[Callable[[], object], type[Exception]]] = [
    (lambda: "image.png", TypeError),
    (lambda: [[1, 2]], TypeError),
    (lambda: np.zeros((4, 4), np.float32), TypeError),
    (lambda: np.zeros((4, 4, 5), np.uint8), ValueError),
    (lambda: np.zeros((0, 4), np.uint8), ValueError),
    (lambda: np.zeros(4, np.uint8), ValueError),
    (lambda: torch.zeros(2, 3, 4, 4), ValueError),
    (lambda: torch.zeros(4, 4, 3), ValueError),
    (lambda: torch.zeros(1, 0, 4), ValueError),
    (lambda: torch.zeros(4, 4, dtype=torch.int64), TypeError),
    (lambda: torch.full((4, 4), 1.1), ValueError),
    (lambda: torch.full((4, 4), torch.nan), ValueError),
]


@pytest.mark.parametrize("number", range(len(BAD_OBJECTS)))
def test_as_image_refuses(number: int) -> None:
    make, error = BAD_OBJECTS[number]
    with pytest.raises(error, match="expected|no pixels"):
        as_image(make())


def test_wrong_tensors_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        tensor_to_image(torch.full((4, 4), torch.nan))
    with pytest.raises(ValueError, match="mode RGBA"):
        image_to_tensor(Image.new("RGBA", (2, 2)))
