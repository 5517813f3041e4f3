"""Pillow images from numpy arrays and torch tensors, and back."""

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["as_image", "image_to_tensor", "tensor_to_image"]


def as_image(obj: Any) -> Image.Image:
    """Convert an object to a Pillow image.

    Args:
        obj: a Pillow image; or a numpy array, (H, W) or (H, W, 1) grey, (H, W, 2) grey with alpha, (H, W, 3) RGB or (H,
            W, 4) RGBA, uint8; or a torch tensor, (H, W), (C, H, W) or (1, C, H, W) with C 1 or 3, uint8 or floating
            point in [0, 1].

    Raises:
        TypeError: another kind of object or number.
        ValueError: another shape, or values outside the range.

    Example:
        >>> as_image(np.zeros((4, 6), np.uint8)).size
        (6, 4)
    """
    if isinstance(obj, Image.Image):
        return obj
    if isinstance(obj, np.ndarray):
        if obj.dtype != np.uint8:
            raise TypeError(f"array of {obj.dtype}; expected uint8")
        array = obj[..., 0] if obj.ndim == 3 and obj.shape[2] == 1 else obj
        if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (2, 3, 4)):
            raise ValueError(f"array of shape {obj.shape}; expected (H, W) or (H, W, C), C from 1 to 4")
        if array.size == 0:
            raise ValueError(f"array of shape {obj.shape} has no pixels")
        return Image.fromarray(np.ascontiguousarray(array))
    import torch

    if isinstance(obj, torch.Tensor):
        if obj.is_floating_point() and obj.numel() and not bool(((obj >= 0) & (obj <= 1)).all()):
            raise ValueError(f"values from {obj.min():g} to {obj.max():g}; expected 0 to 1")
        return tensor_to_image(obj)
    raise TypeError(f"{type(obj).__name__}; expected a Pillow image, a numpy array or a torch tensor")


def image_to_tensor(image: Image.Image) -> "Tensor":
    """Convert an image to a tensor; `tensor_to_image` is the inverse.

    Args:
        image: of mode "L" or "RGB", such as a result of `ohmq.imaging.convert.prepare_image`.

    Returns:
        (1, C, H, W), float32 in [0, 1]; C is 1 for mode "L", 3 for "RGB".

    Raises:
        ValueError: another mode.
    """
    import torch

    if image.mode not in ("L", "RGB"):
        raise ValueError(f"image of mode {image.mode}; expected L or RGB (see prepare_image)")
    values = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
    return torch.from_numpy(values[None].astype(np.float32) / np.float32(255))


def tensor_to_image(tensor: "Tensor") -> Image.Image:
    """Convert a tensor to a Pillow image; floats are clipped to [0, 1] and rounded to 8 bits.

    Args:
        tensor: (H, W), (C, H, W) or (1, C, H, W) with C 1 or 3; floating point in [0, 1], or uint8.

    Raises:
        TypeError: another type of number.
        ValueError: another shape, or NaN.
    """
    import torch

    values = tensor.detach().cpu()
    if values.ndim == 4 and len(values) == 1:
        values = values[0]
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or values.shape[0] not in (1, 3) or values.numel() == 0:
        raise ValueError(
            f"tensor of shape {tuple(tensor.shape)}; expected (H, W), (C, H, W) or (1, C, H, W), C 1 or 3; "
            "compress_batch takes several images"
        )
    if values.is_floating_point():
        if bool(values.isnan().any()):
            raise ValueError("the tensor holds NaN")
        values = values.clamp(0, 1).mul(255).round().to(torch.uint8)
    elif values.dtype != torch.uint8:
        raise TypeError(f"tensor of {values.dtype}; expected floating point or uint8")
    return as_image(values.permute(1, 2, 0).contiguous().numpy())
