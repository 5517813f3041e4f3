"""Symbols and latents of an image, as they pass between transforms, encoder and decoder."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ohmq.geometry import Window
from ohmq.models.config import BLOCK
from ohmq.runtime.residual import Residual

__all__ = ["Latent", "PerceptualWeights", "Source", "Symbols", "cut_pixels"]

Array = NDArray[Any]


class Symbols(NamedTuple):
    """The symbols of an image.

    Attributes:
        values: (patches, h, w, C), int64, patches in raster order; of an image in tiles (1, h, w, C), of the smallest
            unsigned integers that hold a symbol.
        width: of the image, in pixels.
        height: of the image, in pixels.
        tile: side of the tiles that are coded independently, in latent positions; 0: the latent is coded in one piece.
        residual: what the image of all of the model's channels lacks; its channels follow the model's. None: no residual.
    """

    values: Array
    width: int
    height: int
    tile: int = 0
    residual: Residual | None = None

    @property
    def num_channels(self) -> int:
        """The number of channels, with those of the residual."""
        return int(self.values.shape[-1]) + (0 if self.residual is None else len(self.residual.levels))

    def residual_channels(self, channels: int) -> int:
        """Return how many of the first ``channels`` channels belong to the residual.

        Args:
            channels: the number of channels.
        """
        return 0 if self.residual is None else max(0, channels - int(self.values.shape[-1]))

    def sha256(self, channels: int) -> str:
        """Hash the first ``channels`` channels: encoder and decoder of one file give the same hash, on every machine.

        Args:
            channels: the number of channels.

        Returns:
            SHA-256, in hexadecimal, of the text "ohmq symbols", then patches, h, w and channels, then the symbols of shape
            (patches, h, w, channels) in C order; sizes in 4 bytes, symbols in 2, little-endian. For channels of a residual
            follow the text "residual", its step in 4 bytes and its levels of shape (channels, 2 h, 2 w) in 2.
        """
        values = np.ascontiguousarray(self.values[..., :channels], "<u2")
        digest = hashlib.sha256(b"ohmq symbols" + np.array(values.shape, "<u4").tobytes())
        digest.update(values.data)
        if count := self.residual_channels(channels):
            assert self.residual is not None
            digest.update(b"residual" + np.array(self.residual.info.step, "<u4").tobytes())
            digest.update(np.ascontiguousarray(self.residual.levels[:count], "<i2").data)
        return digest.hexdigest()


class PerceptualWeights(NamedTuple):
    """Weights of an encoder that is tuned for looks; a weight of 1 leaves things as they are for PSNR.

    Attributes:
        channels: factor on λ for each channel, (C,), float32.
        places: factor on λ for each position, (h, w), float32.
        errors: factor on the reconstruction error of each position in analysis by synthesis, (h, w), float32.
    """

    channels: Array
    places: Array
    errors: Array

    @classmethod
    def stack(cls, weights: Sequence["PerceptualWeights"]) -> "PerceptualWeights":
        """Return the weights of a batch of images of one size: places and errors (images, 1, h, w).

        Args:
            weights: of each image; those of the channels are the same.
        """
        places, errors = (np.stack([getattr(one, name) for one in weights])[:, None] for name in ("places", "errors"))
        return cls(weights[0].channels, places, errors)

    def inside(self, window: Window) -> "PerceptualWeights":
        """Return the weights of a window of the latent grid.

        Args:
            window: the window.
        """
        return self._replace(
            places=self.places[window.rows, window.columns], errors=self.errors[window.rows, window.columns]
        )


class Latent(NamedTuple):
    """The continuous latent of an image, the input of RDOQ.

    Attributes:
        values: (1, h, w, D), float32.
        width: of the image, in pixels.
        height: of the image, in pixels.
        tile: as in `Symbols`.
        lambda_scale: factor on the model's Lagrange multipliers: above 1 files are smaller and images worse.
        image: the image, mode "RGB"; needed if effort is not 0.
        effort: number of full refinement passes (analysis by synthesis) before symbols are chosen.
        weights: perceptual weights of λ and errors; None: all are 1, for the best PSNR.
    """

    values: Array
    width: int
    height: int
    tile: int = 0
    lambda_scale: float = 1.0
    image: Image.Image | None = None
    effort: int = 0
    weights: PerceptualWeights | None = None


Source = Symbols | Latent
"""Inputs of the encoder."""


def cut_pixels(patches: Array, inside: Window | None) -> Array:
    """Return the pixels of a window of the latent of photo models.

    Args:
        patches: (T, 3, 16 h, 16 w).
        inside: the window; None: all, of any model.
    """
    if inside is None:
        return patches
    return patches[..., inside.top * BLOCK : inside.bottom * BLOCK, inside.left * BLOCK : inside.right * BLOCK]
