"""Fitting of a photo model's classified post-filter, to photos that the model has decoded."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ohmq.codec import Codec
from ohmq.datasets.photos import photo_files, photo_folder, read_photo
from ohmq.errors import ConfigError
from ohmq.model_files.frozen_model import FrozenModel, with_decoder_filters, with_post_filter
from ohmq.models.config import BLOCK, PhotoConfig
from ohmq.postfilter.classes import CLASSES, FEATURES, REACH, classify, clipped_differences, group_by_class
from ohmq.postfilter.filters import PostFilter
from ohmq.training.photo.latent_crops import LatentBatch, LatentCrops
from ohmq.utils.progress import steps
from ohmq.utils.provenance import command_line

__all__ = ["DECODERS_WITHOUT", "PHOTOS", "filter_photos", "fit_filter_to_crops", "fit_filters", "fitted_at"]

Progress = Callable[[int], Any]
"""Called with the number of photos done since the last call."""

SHARES = (0.028, 0.064, 0.116, 0.269, 0.402, 0.535, 0.678, 0.758, 0.92, 1.0)
"""Shares of all channels: a set of filters is fitted at the cut point nearest to each."""
PHOTOS = 240
"""Default number of photos to fit filters to."""
CROPS = 1500
"""Most crops that a filter is fitted to."""
DECODERS_WITHOUT: tuple[str, ...] = ()
"""Further decoders that do without a post-filter, because it costs more time than it is worth."""
RIDGE = 1e-3
"""Ridge regularisation relative to the mean square of the features: keeps weights of classes with few pixels small."""
LEAST_ERROR = 1e-3
"""Lower bound of a photo's mean squared error, in squared grey levels, where photos are weighted by its inverse."""


def fitted_at(cut_points: Sequence[int]) -> list[int]:
    """Choose the numbers of channels that sets of filters are fitted at.

    Args:
        cut_points: numbers of channels that the model can be cut at, ascending.

    Example:
        >>> fitted_at((2, 8, 20, 100, 250, 500, 640, 1000))
        [20, 100, 250, 500, 640, 1000]
    """
    largest = cut_points[-1]
    return sorted({min(cut_points, key=lambda point: abs(point / largest - share)) for share in SHARES})


def filter_photos(data_base_path: Path | str | None, count: int = PHOTOS) -> list[Path]:
    """List photos to fit filters to, evenly spread over the training photos.

    Args:
        data_base_path: folder in which `ohmq.datasets.photos.photo_folder` looks for them; None: the usual places.
        count: number of photos; fewer if the folder has fewer.

    Raises:
        ConfigError: no photos there.
    """
    files = photo_files(photo_folder(data_base_path, "train"), BLOCK)
    return files[:: max(1, len(files) // count)][:count]


def fit_filters(frozen: FrozenModel, files: Sequence[Path], progress: Progress = lambda count: None) -> FrozenModel:
    """Fit classified post-filters to a photo model: one to its own synthesis transform and one to each further decoder.

    A least-squares fit for each class, as in the adaptive loop filter of VVC (Karczewicz et al., VVC in-loop filters,
    2021). Each photo is weighted by one over its mean squared error, because the mean PSNR counts.

    Args:
        frozen: the model; its filters, if any, are replaced.
        files: photos, each at least a block wide and high.
        progress: called with the number of photos done since the last call.

    Returns:
        The model with its filters; those of `DECODERS_WITHOUT` have none.

    Raises:
        ConfigError: a model of another family.
        UnsupportedImageError: a photo that cannot be read.
    """
    if not isinstance(frozen.config, PhotoConfig):
        raise ConfigError(f"{frozen.name} is no photo model: only these have a post-filter")
    codec = Codec(frozen)
    counts = fitted_at(frozen.config.cut_points)
    names = [None, *(name for name in frozen.decoders if name not in DECODERS_WITHOUT)]
    sums = {name: _Sums.zero(len(counts)) for name in names}
    runtimes = {name: frozen.transforms.with_decoder(name) for name in names}
    for file in files:
        pixels = read_photo(file)
        height, width = (side // BLOCK * BLOCK for side in pixels.shape[:2])
        photo = Image.fromarray(pixels[:height, :width])
        # Without analysis by synthesis: the errors have the same structure, and coding takes half the time.
        latent = codec.latent(photo, tile=0, effort=0) if codec.config.supports_rdoq else codec.analyse(photo, tile=0)
        original = np.asarray(photo, np.float32).transpose(2, 0, 1)
        for index, count in enumerate(counts):
            symbols = codec.decode(codec.encode(latent, count))[1].values
            for name in names:
                decoded = runtimes[name].unfiltered(symbols, count)[0]
                _accumulate(sums[name].squares[index], sums[name].products[index], decoded, original)
        progress(1)
    provenance: dict[str, Any] = {
        "command": command_line(),
        "model": frozen.model_id.hex(),
        "photos": len(files),
        "channels": counts,
    }
    for name in names:
        filters = PostFilter.rounded(counts, sums[name].weights())
        if name is None:
            frozen = with_post_filter(frozen, filters, provenance)
        else:
            frozen = with_decoder_filters(frozen, name, filters, provenance)
    return frozen


def fit_filter_to_crops(
    decode: Callable[[LatentBatch], NDArray[np.float32]], crops: LatentCrops, counts: Sequence[int]
) -> PostFilter:
    """Fit the post-filter of a decoder to encoded crops, at most `CROPS`; they are weighted as the photos of `fit_filters`.

    Args:
        decode: the decoder: unfiltered pixels of a batch, (batch, 3, H, W), in grey levels.
        crops: the crops. Those of other numbers of channels than ``counts`` are left out.
        counts: numbers of channels that sets of filters are fitted at; a set without crops corrects nothing.
    """
    sums = _Sums.zero(len(counts))
    places = [number for number in range(len(crops)) if int(crops.channels[number]) in counts]
    for number in steps(places[:CROPS], "crops for the filters"):
        batch = crops.batch([number])
        index = counts.index(int(batch.channels[0]))
        original = batch.pixels[0].float().numpy()
        _accumulate(sums.squares[index], sums.products[index], decode(batch)[0], original)
    return PostFilter.rounded(counts, sums.weights())


class _Sums(NamedTuple):
    """Normal equations of each class, at each number of channels.

    Attributes:
        squares: sums of feature products, (counts, CLASSES, FEATURES, FEATURES).
        products: sums of features times errors, (counts, CLASSES, FEATURES, 3).
    """

    squares: NDArray[np.float64]
    products: NDArray[np.float64]

    @classmethod
    def zero(cls, counts: int) -> "_Sums":
        return cls(np.zeros((counts, CLASSES, FEATURES, FEATURES)), np.zeros((counts, CLASSES, FEATURES, 3)))

    def weights(self) -> NDArray[np.float64]:
        """Solve the equations: (counts, CLASSES, 3, FEATURES)."""
        return np.stack([_solve(*equations) for equations in zip(self.squares, self.products, strict=True)])


def _accumulate(
    squares: NDArray[np.float64],
    products: NDArray[np.float64],
    decoded: NDArray[np.float32],
    original: NDArray[np.float32],
) -> None:
    """Add a photo to the normal equations of each class.

    Args:
        squares: sums of feature products, (CLASSES, FEATURES, FEATURES), changed in place.
        products: sums of features times errors, (CLASSES, FEATURES, 3), changed in place.
        decoded: unfiltered decoded photo, (3, H, W), in grey levels.
        original: the photo, (3, H, W), in grey levels.
    """
    padded = np.pad(decoded, ((0, 0), (REACH, REACH), (REACH, REACH)), mode="reflect")
    class_map = classify(padded)
    order, ends = group_by_class(class_map)
    error = (original - decoded).reshape(3, -1)
    weight = 1 / max(float(np.square(error).mean()), LEAST_ERROR)
    start = 0
    for index, end in enumerate(ends):
        if end > start:
            pixels = order[start:end]
            values = clipped_differences(padded, class_map, pixels)
            squares[index] += weight * (values @ values.T)
            products[index] += weight * (values @ error[:, pixels].T)
        start = end


def _solve(squares: NDArray[np.float64], products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve the normal equations of each class: weights (CLASSES, 3, FEATURES)."""
    scale = np.trace(squares, axis1=1, axis2=2) / FEATURES
    ridge = (RIDGE * (scale + 1))[:, None, None] * np.eye(FEATURES)
    return np.linalg.solve(squares + ridge, products).transpose(0, 2, 1)
