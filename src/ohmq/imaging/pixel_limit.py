"""Limit on the pixels of an image, which takes the place of Pillow's own while a file is read.

Pillow refuses files of more than twice `PIL.Image.MAX_IMAGE_PIXELS` pixels, and warns from half of that on. The number
is global: changing it would change what other threads may open. So Pillow's check asks a context variable first.
Outside of `pixel_limit` it is Pillow's own check.
"""

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from PIL import Image

from ohmq.errors import UnsupportedImageError

__all__ = ["pixel_limit", "pixels_error"]

_max_pixels: ContextVar[int | None] = ContextVar("ohmq_max_pixels", default=None)
_pillow_check = Image._decompression_bomb_check


def pixels_error(width: int, height: int, max_pixels: int) -> str | None:
    """Say why an image has too many pixels; None if it has not.

    Args:
        width: in pixels.
        height: in pixels.
        max_pixels: limit on width × height.
    """
    if width * height <= max_pixels:
        return None
    return (
        f"the image is {width}x{height}, {width * height:,} pixels; the limit is {max_pixels:,} "
        "(raise it with max_pixels, or --max-pixels)"
    )


@contextlib.contextmanager
def pixel_limit(max_pixels: int) -> Iterator[None]:
    """Let Pillow open and load images of up to a number of pixels in this thread, and no larger ones.

    Args:
        max_pixels: limit on width × height.

    Raises:
        UnsupportedImageError: inside, where Pillow meets a larger image.
    """
    token = _max_pixels.set(max_pixels)
    try:
        yield
    finally:
        _max_pixels.reset(token)


@functools.wraps(_pillow_check)
def _check(size: tuple[int, int], *arguments: Any, **options: Any) -> None:
    max_pixels = _max_pixels.get()
    if max_pixels is None:
        _pillow_check(size, *arguments, **options)
    elif error := pixels_error(*size, max_pixels):
        raise UnsupportedImageError(error)


Image._decompression_bomb_check = _check
