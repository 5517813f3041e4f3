"""src/ohmq/encoder/quality.py."""

import numpy as np
from PIL import Image

from ohmq.runtime.latents import Array


def _visible(picture: Image.Image, decoded: Array) -> tuple[Array, Array]:
    """The colours of a picture and of its decoded pixels where it is not fully transparent."""
    original: Array = np.asarray(picture)
    if picture.mode not in ("LA", "RGBA"):
        return original, decoded
    visible = original[..., -1] > 0
    colours = original[..., 0] if picture.mode == "LA" else original[..., :3]
    return colours[visible], decoded[visible]
