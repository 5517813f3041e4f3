"""Filters after the synthesis of a photo model, fitted to photos that were decoded with it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ohmq.codec import Codec
from ohmq.datasets.photos import photo_files, photo_folder, read_photo
from ohmq.errors import ConfigError
from ohmq.model_files.frozen_model import FrozenModel, with_post_filter
from ohmq.models.config import BLOCK, PhotoConfig
from ohmq.postfilter.classes import CLASSES, FEATURES, REACH, classify, clipped_differences, group_by_class
from ohmq.postfilter.filters import PostFilter
from ohmq.utils.provenance import command_line

__all__ = ["PHOTOS", "filter_photos", "fit_filters", "fitted_at"]

SHARES = (0.028, 0.064, 0.116, 0.269, 0.402, 0.535, 0.678, 0.758, 0.92, 1.0)
"""Of all channels: sets of filters are fitted at the cut points that are nearest."""
PHOTOS = 240
"""Filters are fitted to, if nothing else is said."""
RIDGE = 1e-3
"""Added to the squares of the features, times their mean: what keeps the weights of a class with few pixels small."""


def fitted_at(cut_points: Sequence[int]) -> list[int]:
    """The numbers of channels that sets of filters are fitted at.

    Example:
        >>> fitted_at((2, 8, 20, 100, 250, 500, 640, 1000))
        [20, 100, 250, 500, 640, 1000]
    """
    largest = cut_points[-1]
    return sorted({min(cut_points, key=lambda point: abs(point / largest - share)) for share in SHARES})


def filter_photos(data_base_path: Path, count: int = PHOTOS) -> list[Path]:
    """Photos to fit filters to: evenly spread ones of those to train on.

    Args:
        data_base_path: where `ohmq.datasets.photos.photo_folder` finds them. count: how many; fewer if there are no more.

    Raises:
        ConfigError: none there.
    """
    files = photo_files(photo_folder(data_base_path, "train"), BLOCK)
    return files[:: max(1, len(files) // count)][:count]


def fit_filters(
    frozen: FrozenModel, files: Sequence[Path], progress: Callable[[int], Any] = lambda count: None
) -> FrozenModel:
    """A photo model with filters that bring its decoded pictures as near to photos as filters of these classes can.

    Least squares a class, each photo weighted by one over its mean squared error: what counts is PSNR.

    Args:
        frozen: the model; filters that it has are replaced. files: photos, each at least a block a side.
        progress: called with the number of photos done since the last call.

    Raises:
        ConfigError: a model of another family. UnsupportedImageError: a photo that cannot be read.
    """
    if not isinstance(frozen.config, PhotoConfig):
        raise ConfigError(f"{frozen.name} is no photo model: only these have filters after the synthesis")
    codec = Codec(frozen)
    counts = fitted_at(frozen.config.cut_points)
    squares = np.zeros((len(counts), CLASSES, FEATURES, FEATURES))
    products = np.zeros((len(counts), CLASSES, FEATURES, 3))
    for file in files:
        pixels = read_photo(file)
        height, width = (side // BLOCK * BLOCK for side in pixels.shape[:2])
        photo = Image.fromarray(pixels[:height, :width])
        # Without feedback: what is missing then has the same shape, and is there in half the time.
        source = codec.latent(photo, tile=0, effort=0) if codec.config.supports_rdoq else codec.analyse(photo, tile=0)
        wanted = np.asarray(photo, np.float32).transpose(2, 0, 1)
        for place, count in enumerate(counts):
            symbols = codec.decode(codec.encode(source, count))[1].values
            decoded = frozen.transforms.unfiltered(symbols, count)[0]
            _add(squares[place], products[place], decoded, wanted)
        progress(1)
    weights = np.stack([_solved(*sums) for sums in zip(squares, products, strict=True)])
    provenance: dict[str, Any] = {
        "command": command_line(),
        "model": frozen.model_id.hex(),
        "photos": len(files),
        "channels": counts,
    }
    return with_post_filter(frozen, PostFilter.rounded(counts, weights), provenance)


def _add(
    squares: NDArray[np.float64],
    products: NDArray[np.float64],
    decoded: NDArray[np.float32],
    wanted: NDArray[np.float32],
) -> None:
    """Add what a photo says to the sums of each class; decoded and wanted (3, H, W)."""
    padded = np.pad(decoded, ((0, 0), (REACH, REACH), (REACH, REACH)), mode="reflect")
    kinds = classify(padded)
    order, ends = group_by_class(kinds)
    error = (wanted - decoded).reshape(3, -1)
    weight = 1 / max(float(np.square(error).mean()), 1e-3)
    start = 0
    for kind, end in enumerate(ends):
        if end > start:
            chosen = order[start:end]
            found = clipped_differences(padded, kinds, chosen)
            squares[kind] += weight * (found @ found.T)
            products[kind] += weight * (found @ error[:, chosen].T)
        start = end


def _solved(squares: NDArray[np.float64], products: NDArray[np.float64]) -> NDArray[np.float64]:
    """The filters of each class, (CLASSES, 3, FEATURES)."""
    scale = np.trace(squares, axis1=1, axis2=2) / FEATURES
    ridge = (RIDGE * (scale + 1))[:, None, None] * np.eye(FEATURES)
    return np.linalg.solve(squares + ridge, products).transpose(0, 2, 1)
