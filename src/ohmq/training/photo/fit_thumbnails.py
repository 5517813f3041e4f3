"""Fitting of a photo model's maps for thumbnails, to the mean colours of photos that the model has coded."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ohmq.codec import Codec
from ohmq.datasets.photos import read_photo
from ohmq.errors import ConfigError
from ohmq.model_files.frozen_model import FrozenModel, with_thumbnails
from ohmq.models.config import BLOCK, PhotoConfig
from ohmq.runtime.latents import Array
from ohmq.runtime.thumbnails import SCALES, ThumbnailMap, Thumbnails, thumbnail_channels
from ohmq.utils.provenance import command_line

__all__ = ["COUNTS", "PHOTOS", "fit_thumbnails", "fitted_counts"]

PHOTOS = 60
"""Default number of photos to fit maps to."""
SIDE = 512
"""Pixels of the side of the crops of photos that maps are fitted to."""
COUNTS = 6
"""Numbers of channels that maps are fitted at together."""
RIDGE = 1e-6
"""Ridge regularisation relative to the mean square of the latent."""


def fitted_counts(cut_points: Sequence[int], most: int) -> list[int]:
    """Choose numbers of channels from the fewest that a file has to those that thumbnails are made of.

    Args:
        cut_points: numbers of channels that the model can be cut at, ascending.
        most: number of channels that thumbnails are made of.

    Example:
        >>> fitted_counts((2, 8, 20, 100, 250, 500), 120)
        [2, 8, 20, 100, 120]
    """
    counts = [*(point for point in cut_points if point < most), most]
    return counts[-COUNTS:]


def fit_thumbnails(
    frozen: FrozenModel, files: Sequence[Path], progress: Callable[[int], Any] = lambda count: None
) -> FrozenModel:
    """Fit the maps for thumbnails of a photo model by least squares, one for each scale and all numbers of channels.

    The target is the photo and not the decoded image, so that the maps go with every decoder of the model.

    Args:
        frozen: the model; its maps, if any, are replaced.
        files: photos, each at least a block wide and high.
        progress: called with the number of photos done since the last call.

    Returns:
        The model with maps.

    Raises:
        ConfigError: a model of another family or quantizer.
        UnsupportedImageError: a photo that cannot be read.
    """
    config = frozen.config
    if not isinstance(config, PhotoConfig) or config.quantizer != "ohm":
        raise ConfigError(f"{frozen.name} is no photo model with OHM: only these have maps for thumbnails")
    codec, depth = Codec(frozen), config.latent_channels
    counts = {scale: fitted_counts(config.cut_points, thumbnail_channels(config, scale)) for scale in SCALES}
    squares = {scale: np.zeros((depth + 1, depth + 1)) for scale in SCALES}
    products = {scale: np.zeros((depth + 1, 3 * (BLOCK // scale) ** 2)) for scale in SCALES}
    for file in files:
        pixels = read_photo(file)[:SIDE, :SIDE]
        height, width = (side // BLOCK * BLOCK for side in pixels.shape[:2])
        photo = np.ascontiguousarray(pixels[:height, :width])
        image = Image.fromarray(photo)
        source = codec.latent(image, tile=0, effort=0) if config.supports_rdoq else codec.analyse(image, tile=0)
        symbols = codec.decode(codec.encode(source, counts[min(SCALES)][-1]))[1].values
        for scale in SCALES:
            means = _block_means(photo, scale)
            for count in counts[scale]:
                rows = codec.transforms.dequantized(symbols, count).reshape(-1, depth).astype(np.float64)
                inputs = np.pad(rows, ((0, 0), (0, 1)), constant_values=1)
                squares[scale] += inputs.T @ inputs
                products[scale] += inputs.T @ means
        progress(1)
    maps = {scale: _solve(squares[scale], products[scale], BLOCK // scale) for scale in SCALES}
    provenance: dict[str, Any] = {"command": command_line(), "photos": len(files), "channels": counts}
    return with_thumbnails(frozen, Thumbnails(maps, depth), provenance)


def _block_means(photo: Array, scale: int) -> Array:
    """Return the mean colours of the parts of blocks: (H, W, 3) to (H W / 256, 3 n n)."""
    side = BLOCK // scale
    height, width = (length // BLOCK for length in photo.shape[:2])
    means = photo.reshape(height, side, scale, width, side, scale, 3).mean((2, 5))
    return means.transpose(0, 2, 4, 1, 3).reshape(height * width, -1)


def _solve(squares: Array, products: Array, side: int) -> ThumbnailMap:
    """Solve normal equations; the last input is 1."""
    ridge = RIDGE * np.trace(squares[:-1, :-1]) / (len(squares) - 1) * np.eye(len(squares))
    solution = np.linalg.solve(squares + ridge, products).astype(np.float32).reshape(-1, 3, side, side)
    return ThumbnailMap(solution[:-1], solution[-1])
