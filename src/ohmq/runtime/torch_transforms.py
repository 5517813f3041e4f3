"""A model's transforms run by torch: pixels to symbols and back, as numpy arrays."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ohmq.models.base import CompressionModel
from ohmq.models.photo import PhotoModel, PhotoSynthesis
from ohmq.postfilter.classes import REACH
from ohmq.postfilter.filters import FilterKernel, PostFilter, filter_and_round
from ohmq.runtime.receptive_field import analysis_halo, synthesis_halo

__all__ = ["TorchTransforms"]

BATCH_SIZE = 512
"""Patches that go through a transform at a time."""


class TorchTransforms:
    """The transforms, quantizer and post-filter of a model, run by torch; see `ohmq.runtime.protocols.TransformRuntime`.

    Args:
        model: in evaluation mode.
        filters: the post-filter; None: none.
    """

    def __init__(self, model: CompressionModel, filters: PostFilter | None = None) -> None:
        self.model, self.filters = model, filters
        if model.config.channels_last:
            _channels_last(model)

    def with_filter_kernel(self, kernel: FilterKernel) -> "TorchTransforms":
        """Return the same transforms with another kernel of the post-filter."""
        return self if self.filters is None else TorchTransforms(self.model, self.filters.with_kernel(kernel))

    @cached_property
    def analysis_halo(self) -> int:
        """Latent positions around a window that analysis needs."""
        return analysis_halo(self.model.analysis_transform)

    @cached_property
    def synthesis_halo(self) -> int:
        """Latent positions around a window that synthesis and post-filter need."""
        return synthesis_halo(self.model.synthesis_transform, REACH if self.filters else 0)

    def symbols(self, patches: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Return the symbols of patches, all channels.

        Args:
            patches: (T, image_channels, H, W).

        Returns:
            (T, h, w, C).
        """
        return self._analysed(patches, self.model.symbols)

    @cached_property
    def quantizer(self) -> dict[str, NDArray[Any]]:
        """The quantizer's tensors by name."""
        return {name: value.numpy() for name, value in self.model.quantizer.state_dict().items()}

    def latent(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the latents of patches, before quantization.

        Args:
            patches: (T, image_channels, H, W).

        Returns:
            (T, h, w, D).
        """
        return self._analysed(patches, lambda images: self.model.analysis_transform(images).permute(0, 2, 3, 1))

    def _analysed(self, patches: NDArray[np.uint8], analyse: Callable[[Tensor], Tensor]) -> NDArray[Any]:
        """Apply a function to normalised images, batch by batch."""
        results: list[NDArray[Any]] = []
        with torch.inference_mode():
            for start in range(0, len(patches), BATCH_SIZE):
                batch = torch.from_numpy(patches[start : start + BATCH_SIZE]).float() / 255
                results.append(analyse(self.model.normalise(batch)).numpy())
        return np.concatenate(results)

    def pixels(self, symbols: NDArray[np.int64], channels: int) -> NDArray[np.uint8]:
        """Return the patches that the first channels of symbols decode to.

        Args:
            symbols: (T, h, w, at least channels).
            channels: number of channels to decode.

        Returns:
            (T, image_channels, H, W).
        """
        return np.concatenate([self._finished(batch, channels) for batch in self._reconstructed(symbols, channels)])

    def pixels_from_codewords(self, codewords: NDArray[np.float32], channels: int) -> NDArray[np.uint8]:
        """Return the patches of a photo model with OHM from the sums of their codewords.

        Args:
            codewords: sum of the chosen codewords, without the output bias, (T, h, w, D).
            channels: number of channels whose codewords are summed up.

        Returns:
            (T, 3, 16 h, 16 w).
        """
        assert isinstance(self.model, PhotoModel)
        with torch.inference_mode():
            decoded = self.model.reconstruct_codewords(torch.from_numpy(codewords)).mul(255)
        return self._finished(decoded.numpy(), channels)

    def _finished(self, decoded: NDArray[np.float32], channels: int) -> NDArray[np.uint8]:
        return filter_and_round(decoded, channels, self.filters, torch.get_num_threads())

    def unfiltered(self, symbols: NDArray[np.int64], channels: int) -> NDArray[np.float32]:
        """Return the same as `pixels`, neither filtered nor rounded, 0 to 255."""
        return np.concatenate(list(self._reconstructed(symbols, channels)))

    def _reconstructed(self, symbols: NDArray[np.int64], channels: int) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(symbols), BATCH_SIZE):
            batch = torch.from_numpy(symbols[start : start + BATCH_SIZE])
            with torch.inference_mode():
                decoded = self.model.reconstruct(batch, channels).mul(255)
            yield decoded.numpy()  # outside of inference_mode, so that the mode does not leak to the caller

    @property
    def block(self) -> NDArray[np.float32]:
        """The filters of the block transform in the synthesis of a photo model with OHM, (D, 3, 16, 16)."""
        transform = self.model.synthesis_transform
        assert isinstance(transform, PhotoSynthesis)
        return np.asarray(transform.block.detach().numpy())


def _channels_last(model: CompressionModel) -> None:
    """Lay out the weights of the transforms channels last: convolutions on a CPU then take three quarters of the time."""
    for transform in (model.analysis_transform, model.synthesis_transform):
        transform.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
