"""Protocols of the two objects that a codec needs: a model, and the runtime of its transforms."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ohmq.entropy.context_prior import IntegerContextPrior
from ohmq.entropy.kernels import Kernels
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior
from ohmq.geometry import Window
from ohmq.models.config import ModelConfig
from ohmq.postfilter.filters import FilterKernel, PostFilter
from ohmq.runtime.latents import Array
from ohmq.runtime.thumbnails import Thumbnails
from ohmq.utils.ordered import Workers

__all__ = ["CodingModel", "TransformRuntime"]


class TransformRuntime(Protocol):
    """A runtime of a model's transforms, quantizer and post-filter.

    `ohmq.runtime.torch_transforms.TorchTransforms` and `ohmq.runtime.onnx_transforms.OnnxTransforms` are two. T counts
    patches; (h, w) is the latent of a patch of H x W pixels.
    """

    @property
    def filters(self) -> PostFilter | None:
        """The post-filter; None: none."""

    @property
    def device(self) -> str:
        """Name of the device that runs transforms and quantizer, such as "cpu" or "cuda:0"."""

    def to(self, device: str, /) -> "TransformRuntime":
        """Return the same transforms on another device.

        Args:
            device: name of the device.

        Raises:
            ConfigError: no such device here, or the runtime does not run on it.
        """

    @property
    def analysis_halo(self) -> int:
        """Latent positions around a window that analysis needs."""

    @property
    def synthesis_halo(self) -> int:
        """Latent positions around a window that synthesis and post-filter need."""

    @property
    def threads(self) -> int:
        """Number of threads of work on the CPU."""

    def file_workers(self) -> Workers | None:
        """Return threads that share out files; None: files are done one after the other."""

    @property
    def decoders(self) -> tuple[str, ...]:
        """Names of further decoders."""

    def with_decoder(self, decoder: str | None, /) -> "TransformRuntime":
        """Return the same transforms with another decoder.

        Args:
            decoder: one of `decoders`; None: the model's own synthesis transform.
        """

    def in_low_precision(self) -> "TransformRuntime":
        """Return the same transforms with a synthesis that may be coarser if that is faster; pixels stay within a few of 255.

        What the encoder looks at need not be exact.
        """

    def with_kernels(self, filter_kernel: FilterKernel, kernels: Kernels | None, /) -> "TransformRuntime":
        """Return the same transforms with other inner loops.

        Args:
            filter_kernel: of `ohmq.postfilter.select_kernel.select_kernel`.
            kernels: compiled kernels of `ohmq.entropy.select_kernels.select_kernels`, which may add up codewords; None:
                the runtime's own products do.
        """

    def symbols(self, patches: NDArray[np.uint8], /) -> NDArray[np.int64]:
        """Return the symbols of patches (T, image_channels, H, W), all channels: (T, h, w, C).

        Args:
            patches: (T, image_channels, H, W), uint8.
        """

    @property
    def quantizer(self) -> Mapping[str, Array]:
        """The quantizer's tensors by name."""

    def latent(self, patches: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Return the latents of patches (T, image_channels, H, W), before quantization: (T, h, w, D).

        Args:
            patches: (T, image_channels, H, W), uint8.
        """

    def dequantized(self, symbols: NDArray[np.int64], channels: int, /) -> NDArray[np.float32]:
        """Return the latents that the first channels of symbols stand for, the input of synthesis.

        Args:
            symbols: (T, h, w, at least channels), int64.
            channels: the number of leading channels.

        Returns:
            (T, h, w, D).
        """

    def pixels(self, symbols: NDArray[np.integer], channels: int, inside: Window | None = None, /) -> NDArray[np.uint8]:
        """Return the patches that the first channels of symbols (T, h, w, C) decode to: (T, image_channels, H, W).

        Args:
            symbols: (T, h, w, at least channels).
            channels: the number of leading channels.
            inside: the window of the latent whose pixels are wanted, of a photo model; None: all.
        """

    def pixels_from_codewords(self, codewords: NDArray[np.float32], channels: int, /) -> NDArray[np.uint8]:
        """Return the patches of a photo model from the sums of their codewords, (T, h, w, D): (T, 3, 16 h, 16 w).

        Args:
            codewords: sums of codewords, (T, h, w, D).
            channels: the number of channels in them, which the post-filter depends on.
        """

    @property
    def block(self) -> NDArray[np.float32]:
        """The filters of the block transform in a photo model's synthesis, (D, 3, 16, 16)."""


class CodingModel(Protocol):
    """A model that codes: `ohmq.model_files.frozen_model.FrozenModel` or `ohmq.model_files.onnx_folder.OnnxModel`."""

    @property
    def name(self) -> str:
        """Name for messages."""

    @property
    def config(self) -> ModelConfig:
        """Its configuration."""

    @property
    def prior(self) -> IntegerContextPrior | IntegerTabulatedPrior | None:
        """Its integer prior; None: it cannot code."""

    @property
    def model_id(self) -> bytes:
        """Bitstream id, 4 bytes, which goes into files."""

    @property
    def transforms_id(self) -> bytes:
        """Version of its transforms and post-filter, 4 bytes; empty: not known."""

    @property
    def transforms(self) -> TransformRuntime:
        """The runtime of its transforms."""

    @property
    def decoder_ids(self) -> Mapping[str, bytes]:
        """Ids of its decoders, 4 bytes each, by name."""

    @property
    def thumbnails(self) -> Thumbnails | None:
        """Maps for thumbnails; None: they are reduced from decoded images."""
