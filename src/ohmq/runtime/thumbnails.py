"""Thumbnails of images at an eighth and a sixteenth of their size, straight from the latent.

Each 16x16 block of the image is one position of the latent: a linear map of a position gives the mean colours of the block,
or of its four quarters, without the synthesis transform.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmq.errors import ModelFileError
from ohmq.models.config import BLOCK, ModelConfig
from ohmq.runtime.latents import Array

__all__ = ["SCALES", "ThumbnailMap", "Thumbnails", "check_scale", "reduced", "thumbnail_channels"]

CHANNEL_SHARES = {8: 0.26, 16: 0.11}
"""Share of a model's channels that a thumbnail is made of, by scale: the others change it little (40 dB with `photo`)."""
SCALES = tuple(CHANNEL_SHARES)
"""Scales of thumbnails: the width and height of an image are divided by them."""


def check_scale(scale: int) -> None:
    """Raise ValueError unless ``scale`` is 1 or one of `SCALES`."""
    if scale not in (1, *SCALES):
        raise ValueError(f"scale is {scale!r}; it must be 1, {' or '.join(map(str, SCALES))}")


def reduced(side: int, scale: int) -> int:
    """Return the width or height of an image at a scale, rounded up.

    Args:
        side: width or height, in pixels.
        scale: divisor.
    """
    return -(-side // scale)


def thumbnail_channels(config: ModelConfig, scale: int) -> int:
    """Return the number of leading channels that a thumbnail is made of: whole groups.

    Args:
        config: the model's configuration.
        scale: one of `SCALES`.
    """
    ends = np.cumsum(config.group_sizes)
    return int(ends[np.searchsorted(ends, CHANNEL_SHARES[scale] * config.channels_max)])


class ThumbnailMap(NamedTuple):
    """Linear map from a position of the latent to n x n mean colours of its block.

    Attributes:
        weight: (D, 3, n, n), float32, grey levels from 0 to 255 for a unit of the latent.
        bias: (3, n, n), float32, grey levels.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    def apply(self, latent: Array) -> NDArray[np.uint8]:
        """Return the pixels of a latent.

        Args:
            latent: (h, w, D).

        Returns:
            (n h, n w, 3).
        """
        height, width, depth = latent.shape
        side = self.bias.shape[-1]
        values = latent.reshape(-1, depth) @ self.weight.reshape(depth, -1) + self.bias.reshape(-1)
        levels = values.round().clip(0, 255).astype(np.uint8).reshape(height, width, 3, side, side)
        return levels.transpose(0, 3, 1, 4, 2).reshape(height * side, width * side, 3)


class Thumbnails:
    """The maps of a model.

    Args:
        maps: one for each of `SCALES`.
        depth: D, channels of the model's latent.

    Raises:
        ModelFileError: tensors of another shape or type, or values that are not finite.
    """

    def __init__(self, maps: Mapping[int, ThumbnailMap], depth: int) -> None:
        self.maps = dict(maps)
        for scale in SCALES:
            side = BLOCK // scale
            shapes = {"weight": (depth, 3, side, side), "bias": (3, side, side)}
            for name, tensor in self.maps[scale]._asdict().items():
                if tensor.shape != shapes[name] or tensor.dtype != np.float32:
                    raise ModelFileError(
                        f"thumbnails.{scale}.{name} is {tensor.dtype} {tensor.shape}; expected float32 {shapes[name]}"
                    )
                if not np.isfinite(tensor).all():
                    raise ModelFileError(f"thumbnails.{scale}.{name} holds values that are not finite")

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array], depth: int) -> "Thumbnails | None":
        """Make the maps of a model from its tensors.

        Args:
            tensors: by name without "thumbnails."; may be empty.
            depth: D, channels of the model's latent.

        Returns:
            The maps; None if there are no tensors.

        Raises:
            ModelFileError: some of the tensors are missing, or wrong.
        """
        if not tensors:
            return None
        expected = {f"{scale}.{name}" for scale in SCALES for name in ThumbnailMap._fields}
        if set(tensors) != expected:
            raise ModelFileError(
                f"the thumbnails have tensors {', '.join(sorted(tensors))}; expected {', '.join(sorted(expected))}"
            )
        maps = {scale: ThumbnailMap(tensors[f"{scale}.weight"], tensors[f"{scale}.bias"]) for scale in SCALES}
        return cls(maps, depth)

    @property
    def tensors(self) -> dict[str, Array]:
        """Tensors by name, as `from_tensors` takes them."""
        return {
            f"{scale}.{name}": getattr(entry, name)
            for scale, entry in self.maps.items()
            for name in ThumbnailMap._fields
        }
