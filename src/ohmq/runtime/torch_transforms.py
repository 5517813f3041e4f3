"""A model's networks as the codec uses them: from pixels to symbols and back, in numpy arrays."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ohmq.models.base import CompressionModel
from ohmq.models.config import PhotoConfig
from ohmq.models.photo import PhotoModel, PhotoSynthesis
from ohmq.postfilter.classes import REACH
from ohmq.postfilter.filters import PostFilter, finished
from ohmq.runtime.receptive_field import analysis_halo, synthesis_halo

__all__ = ["TorchTransforms"]

AT_ONCE = 512
"""Tiles that go through a network at a time."""


class TorchTransforms:
    """The networks of a model, run by torch.

    Args:
        model: in evaluation mode. filters: what corrects the decoded picture, if anything does.
    """

    def __init__(self, model: CompressionModel, filters: PostFilter | None = None) -> None:
        self.model, self.filters = model, filters
        if isinstance(model.config, PhotoConfig):
            _channels_last(model)

    @cached_property
    def analysis_halo(self) -> int:
        """Positions around a window that analysis needs; see `analysis_halo`."""
        return analysis_halo(self.model.analysis_transform)

    @cached_property
    def synthesis_halo(self) -> int:
        """Positions around a window that synthesis and filters need."""
        return synthesis_halo(self.model.synthesis_transform, REACH if self.filters else 0)

    def symbols(self, tiles: NDArray[np.uint8]) -> NDArray[np.int64]:
        """The symbols of tiles, all channels.

        Shape:
            tiles: (T, image_channels, H, W). Returns: (T, h, w, C).
        """
        return self._of(tiles, self.model.symbols)

    @cached_property
    def quantizer(self) -> dict[str, NDArray[Any]]:
        """The quantizer's tensors."""
        return {name: value.numpy() for name, value in self.model.quantizer.state_dict().items()}

    def latent(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The latents of tiles of a photo model, which are not quantized yet.

        Shape:
            tiles: (T, image_channels, H, W). Returns: (T, h, w, D).
        """
        return self._of(tiles, lambda images: self.model.analysis_transform(images).permute(0, 2, 3, 1))

    def _of(self, tiles: NDArray[np.uint8], run: Callable[[Tensor], Tensor]) -> NDArray[Any]:
        """What is made of normalised images, some at a time."""
        out: list[NDArray[Any]] = []
        with torch.inference_mode():
            for start in range(0, len(tiles), AT_ONCE):
                batch = torch.from_numpy(tiles[start : start + AT_ONCE]).float() / 255
                out.append(run(self.model.normalise(batch)).numpy())
        return np.concatenate(out)

    def pixels(self, symbols: NDArray[np.int64], channels: int) -> NDArray[np.uint8]:
        """What the first ``channels`` channels of symbols decode to.

        Shape:
            symbols: (T, h, w, at least channels). Returns: (T, image_channels, H, W).
        """
        return np.concatenate([self._finished(part, channels) for part in self._decoded(symbols, channels)])

    def picture(self, codewords: NDArray[np.float32], channels: int) -> NDArray[np.uint8]:
        """The same of a photo model, from the sum of the chosen codewords of so many channels.

        Shape:
            codewords: (T, h, w, D). Returns: (T, 3, 16 h, 16 w).
        """
        assert isinstance(self.model, PhotoModel)
        with torch.inference_mode():
            decoded = self.model.reconstruct_codewords(torch.from_numpy(codewords)).mul(255)
        return self._finished(decoded.numpy(), channels)

    def _finished(self, decoded: NDArray[np.float32], channels: int) -> NDArray[np.uint8]:
        return finished(decoded, channels, self.filters, torch.get_num_threads())

    def unfiltered(self, symbols: NDArray[np.int64], channels: int) -> NDArray[np.float32]:
        """As `pixels`, neither filtered nor rounded: 0 to 255."""
        return np.concatenate(list(self._decoded(symbols, channels)))

    def _decoded(self, symbols: NDArray[np.int64], channels: int) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(symbols), AT_ONCE):
            with torch.inference_mode():
                decoded = self.model.reconstruct(torch.from_numpy(symbols[start : start + AT_ONCE]), channels).mul(255)
            yield decoded.numpy()  # outside of that mode, which would else be the caller's too

    @property
    def block(self) -> NDArray[np.float32]:
        """The filters of the block transform in the synthesis of a photo model with OHM, (D, 3, 16, 16)."""
        transform = self.model.synthesis_transform
        assert isinstance(transform, PhotoSynthesis)
        return np.asarray(transform.block.detach().numpy())


def _channels_last(model: CompressionModel) -> None:
    """Lay the weights of the transforms as convolutions on a CPU like them: three quarters of the time."""
    for transform in (model.analysis_transform, model.synthesis_transform):
        transform.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
