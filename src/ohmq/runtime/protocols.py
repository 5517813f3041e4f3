"""src/ohmq/runtime/protocols.py."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ohmq.entropy.context_prior import IntegerContextPrior
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior
from ohmq.models.config import ModelConfig
from ohmq.postfilter.filters import FilterKernel, PostFilter
from ohmq.runtime.latents import Array

__all__ = ["CodingModel", "TransformRuntime"]


class TransformRuntime(Protocol):
    """What runs the networks of a model, as `ohmq.runtime.torch_transforms.TorchTransforms` does.

    Attributes:
        filters: what corrects the decoded picture, if anything does.
    """

    filters: PostFilter | None

    @property
    def analysis_halo(self) -> int:
        """Latent positions around a window that analysis needs."""

    @property
    def synthesis_halo(self) -> int:
        """Latent positions around a window that synthesis needs."""

    def with_filter_kernel(self, kernel: FilterKernel, /) -> "TransformRuntime":
        """Return the same transforms with another kernel of the post-filter."""

    def symbols(self, tiles: NDArray[np.uint8], /) -> NDArray[np.int64]:
        """(T, image_channels, H, W) to (T, h, w, C)."""

    @property
    def quantizer(self) -> Mapping[str, Array]:
        """The quantizer's tensors."""

    def latent(self, tiles: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Of a photo model: (T, image_channels, H, W) to what is quantized, (T, h, w, D)."""

    def pixels(self, symbols: NDArray[np.int64], channels: int, /) -> NDArray[np.uint8]:
        """And back, from the first ``channels`` channels."""

    def picture(self, codewords: NDArray[np.float32], channels: int, /) -> NDArray[np.uint8]:
        """Of a photo model: the same from the sum of the chosen codewords, (T, h, w, D) to (T, 3, 16 h, 16 w)."""

    @property
    def block(self) -> NDArray[np.float32]:
        """Of a photo model: the filters of the block transform in its synthesis, (D, 3, 16, 16)."""


class CodingModel(Protocol):
    """A model that codes, as `ohmq.model_files.frozen_model.FrozenModel`."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def config(self) -> ModelConfig:
        """Its configuration."""

    @property
    def prior(self) -> IntegerContextPrior | IntegerTabulatedPrior | None:
        """Its integer prior."""

    @property
    def model_id(self) -> bytes:
        """4 bytes."""

    @property
    def transforms(self) -> TransformRuntime:
        """What runs its networks."""
