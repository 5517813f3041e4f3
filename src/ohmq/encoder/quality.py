"""Quality of a decoded image, as the encoder measures it."""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from ohmq.metrics import Ssimulacra2, psnr_db
from ohmq.runtime.latents import Array, Symbols
from ohmq.runtime.windowed import WindowedTransforms

__all__ = ["DecodedScore", "decoded_psnr_db", "visible_pixels"]


def decoded_psnr_db(windowed: WindowedTransforms, original: Image.Image, symbols: Symbols, channels: int) -> float:
    """Measure the PSNR of the image that the first channels decode to.

    Args:
        windowed: the model's transforms.
        original: the image, mode "L", "LA", "RGB" or "RGBA"; pixels that are fully transparent do not count.
        symbols: its symbols.
        channels: the number of leading channels that are decoded.

    Returns:
        PSNR in dB; infinite if no visible pixel differs.
    """
    if original.mode in ("LA", "RGBA") and not original.getchannel("A").getbbox():
        return math.inf
    if not windowed.needs_windows(symbols):
        return psnr_db(*visible_pixels(original, np.asarray(windowed.synthesise(symbols, channels))))
    squared_error = count = 0
    for box, pixels in windowed.synthesised_parts(symbols, channels):
        expected, decoded = visible_pixels(original.crop(box), pixels)
        squared_error += int(np.square(expected.astype(np.int32) - decoded).sum(dtype=np.int64))
        count += decoded.size
    return 10 * math.log10(255**2 * count / squared_error) if squared_error else math.inf


class DecodedScore:
    """SSIMULACRA2 scores of the images that different symbols of one image decode to.

    Args:
        synthesise: gives the image that a number of leading channels of symbols stand for.
        original: the image, mode "L", "LA", "RGB" or "RGBA"; pixels that are fully transparent count as decoded exactly.
    """

    def __init__(self, synthesise: Callable[[Symbols, int], Image.Image], original: Image.Image) -> None:
        self._synthesise = synthesise
        pixels = np.asarray(original)
        self._hidden: Array | None = None
        if original.mode in ("LA", "RGBA"):
            self._hidden = pixels[..., -1] == 0
            pixels = pixels[..., 0] if original.mode == "LA" else pixels[..., :3]
        self._pixels: Array = pixels
        self._scorer = Ssimulacra2(pixels)

    def measure(self, symbols: Symbols, channels: int) -> float:
        """Measure the score of the image that the first channels decode to.

        Args:
            symbols: symbols of the image.
            channels: the number of leading channels that are decoded.
        """
        decoded = np.asarray(self._synthesise(symbols, channels))
        if self._hidden is not None:
            decoded = decoded.copy()
            decoded[self._hidden] = self._pixels[self._hidden]
        return self._scorer.score(decoded)


def visible_pixels(original: Image.Image, decoded: Array) -> tuple[Array, Array]:
    """Select the colours of an image and of its decoded pixels where it is not fully transparent.

    Args:
        original: the image, mode "L", "LA", "RGB" or "RGBA".
        decoded: its decoded pixels, (H, W) or (H, W, 3).

    Returns:
        Both, (n,) or (n, 3), or unchanged if the image has no mask.
    """
    expected: Array = np.asarray(original)
    if original.mode not in ("LA", "RGBA"):
        return expected, decoded
    visible = expected[..., -1] > 0
    colours = expected[..., 0] if original.mode == "LA" else expected[..., :3]
    return colours[visible], decoded[visible]
