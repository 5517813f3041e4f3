"""A model's transforms run by torch: pixels to symbols and back, as numpy arrays."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohmq.entropy.kernels import Codebook, Kernels
from ohmq.entropy.layers import symbols_by_channel
from ohmq.geometry import Window
from ohmq.models.base import CompressionModel
from ohmq.models.decoders import LadderDecoder
from ohmq.models.photo import PhotoAnalysis, PhotoModel, PhotoSynthesis
from ohmq.postfilter.classes import REACH
from ohmq.postfilter.filters import FilterKernel, PostFilter, filter_and_round
from ohmq.runtime.devices import CPU, coding_state, find_device, has_bfloat16
from ohmq.runtime.latents import cut_pixels
from ohmq.runtime.photo_analysis import PhotoAnalysisWindows
from ohmq.runtime.photo_synthesis import PhotoWindows
from ohmq.runtime.receptive_field import analysis_halo, synthesis_halo
from ohmq.runtime.workers import file_workers
from ohmq.utils.ordered import Workers

__all__ = ["TorchDecoder", "TorchTransforms"]

BATCH_SIZE = 512
"""Patches that go through a transform at a time."""


@dataclasses.dataclass(frozen=True)
class TorchDecoder:
    """A decoder of the ladder, run by torch.

    Attributes:
        module: in evaluation mode, its weights on the device.
        filters: the post-filter fitted to it; None: none.
    """

    module: LadderDecoder
    filters: PostFilter | None = None


class TorchTransforms:
    """The transforms, quantizer and post-filter of a model, run by torch.

    The methods are those of `ohmq.runtime.protocols.TransformRuntime`.

    Args:
        model: in evaluation mode, its weights on the device.
        filters: the post-filter, which runs on the CPU; None: none.
        device: where the transforms and the quantizer run. Default: the CPU.
        decoders: further decoders, by name.
        decoder: the decoder in place of the model's synthesis transform and post-filter; None: these.
        bfloat16: whether analysis and the convolutions of further decoders compute in bfloat16 on the CPU; None: where it
            multiplies that. Before the post-filter pixels stay within 1 of 255.
        kernels: compiled kernels that add up codewords on the CPU; None: torch's products do. Default: None.
        low_precision: whether the model's own synthesis transform, too, computes in bfloat16 where ``bfloat16`` says so.
    """

    def __init__(
        self,
        model: CompressionModel,
        filters: PostFilter | None = None,
        device: torch.device = CPU,
        *,
        decoders: Mapping[str, TorchDecoder] | None = None,
        decoder: str | None = None,
        bfloat16: bool | None = None,
        kernels: Kernels | None = None,
        low_precision: bool = False,
    ) -> None:
        self.model, self._device, self._kernels, self._low_precision = model, device, kernels, low_precision
        self._bfloat16 = has_bfloat16(cpu=True) if bfloat16 is None else bfloat16
        self._own_filters, self._decoders, self._decoder = filters, dict(decoders or {}), decoder
        self._latest_codebook: tuple[int, Codebook | None] | None = None
        if model.config.channels_last:
            _channels_last(model.analysis_transform, model.synthesis_transform)
            _channels_last(*(entry.module for entry in self._decoders.values()))

    @property
    def decoders(self) -> tuple[str, ...]:
        """Names of further decoders."""
        return tuple(self._decoders)

    @property
    def filters(self) -> PostFilter | None:
        """The post-filter of the decoder in use."""
        return self._decoders[self._decoder].filters if self._decoder else self._own_filters

    def with_decoder(self, decoder: str | None) -> "TorchTransforms":
        """Return the same transforms with another decoder; None: the model's own synthesis transform."""
        return self._changed(decoder=decoder)

    def in_low_precision(self) -> "TorchTransforms":
        """Return the same transforms whose own synthesis computes in bfloat16, where the processor multiplies that."""
        return self._changed(low_precision=True)

    def _changed(self, **changes: Any) -> "TorchTransforms":
        """Return the same transforms but for some arguments."""
        arguments: dict[str, Any] = {"model": self.model, "filters": self._own_filters, "device": self._device}
        arguments |= {"decoders": self._decoders, "decoder": self._decoder, "bfloat16": self._bfloat16}
        arguments |= {"kernels": self._kernels, "low_precision": self._low_precision}
        return TorchTransforms(**{**arguments, **changes})

    @property
    def threads(self) -> int:
        """Number of threads of work on the CPU."""
        return torch.get_num_threads()

    def file_workers(self) -> Workers | None:
        """Return threads that share out files, see `ohmq.runtime.workers.file_workers`."""
        return file_workers()

    def with_kernels(self, filter_kernel: FilterKernel, kernels: Kernels | None, /) -> "TorchTransforms":
        """Return the same transforms with other kernels of the post-filters, and for codewords."""

        def changed(filters: PostFilter | None) -> PostFilter | None:
            return None if filters is None else filters.with_kernel(filter_kernel)

        decoders = {name: TorchDecoder(entry.module, changed(entry.filters)) for name, entry in self._decoders.items()}
        return self._changed(filters=changed(self._own_filters), decoders=decoders, kernels=kernels)

    @property
    def device(self) -> str:
        """Name of the device, such as "cpu" or "cuda:0"."""
        return str(self._device)

    def to(self, device: str) -> "TorchTransforms":
        """Return the same transforms on another device; see `ohmq.runtime.devices.find_device`."""
        target = find_device(device)
        if target == self._device:
            return self
        with coding_state(target):
            decoders = {
                name: TorchDecoder(copy.deepcopy(entry.module).to(target), entry.filters)
                for name, entry in self._decoders.items()
            }
            return self._changed(model=copy.deepcopy(self.model).to(target), device=target, decoders=decoders)

    @cached_property
    def analysis_halo(self) -> int:
        """Latent positions around a window that analysis needs."""
        return analysis_halo(self.model.analysis_transform)

    @cached_property
    def synthesis_halo(self) -> int:
        """Latent positions around a window that synthesis and post-filter need."""
        return synthesis_halo(self._synthesis, REACH if self.filters else 0)

    @property
    def _synthesis(self) -> nn.Module:
        """The synthesis transform in use."""
        return self._decoders[self._decoder].module if self._decoder else self.model.synthesis_transform

    @cached_property
    def _windows(self) -> PhotoWindows | None:
        """The synthesis transform in windows; None for other models than photo models with OHM, and on other devices."""
        if self._device != CPU or not isinstance(self._synthesis, (PhotoSynthesis, LadderDecoder)):
            return None
        mean, std = self.model.mean, self.model.std
        assert isinstance(mean, float) and isinstance(std, float)
        # The model's own synthesis is the reference, on which post-filters decide the same classes on all machines.
        bfloat16 = self._bfloat16 and (self._low_precision or isinstance(self._synthesis, LadderDecoder))
        return PhotoWindows(self._synthesis, mean, std, bfloat16=bfloat16)

    @cached_property
    def _analysis_windows(self) -> PhotoAnalysisWindows | None:
        """The analysis transform in windows; None for other models and on other devices."""
        transform = self.model.analysis_transform
        if self._device != CPU or not PhotoAnalysisWindows.supports(transform):
            return None
        mean, std = self.model.mean, self.model.std
        assert isinstance(transform, PhotoAnalysis) and isinstance(mean, float) and isinstance(std, float)
        return PhotoAnalysisWindows(transform, mean, std, bfloat16=self._bfloat16)

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
        return {name: value.cpu().numpy() for name, value in self.model.quantizer.state_dict().items()}

    def latent(self, patches: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the latents of patches, before quantization.

        Args:
            patches: (T, image_channels, H, W).

        Returns:
            (T, h, w, D).
        """
        if self._analysis_windows is not None:
            return self._analysis_windows.latent(patches)
        return self._analysed(patches, lambda images: self.model.analysis_transform(images).permute(0, 2, 3, 1))

    def _analysed(self, patches: NDArray[np.uint8], analyse: Callable[[Tensor], Tensor]) -> NDArray[Any]:
        """Apply a function to normalised images, batch by batch."""
        results: list[NDArray[Any]] = []
        with coding_state(self._device):
            for start in range(0, len(patches), BATCH_SIZE):
                batch = torch.from_numpy(patches[start : start + BATCH_SIZE]).to(self._device).float() / 255
                results.append(analyse(self.model.normalise(batch)).cpu().numpy())
        return np.concatenate(results)

    def dequantized(self, symbols: NDArray[np.int64], channels: int, /) -> NDArray[np.float32]:
        """Return the latents that the first channels of symbols stand for, the input of synthesis.

        Args:
            symbols: (T, h, w, at least channels), int64.
            channels: the number of leading channels.

        Returns:
            (T, h, w, D).
        """
        with coding_state(self._device):
            latent = self.model.dequantize(torch.from_numpy(symbols).to(self._device), channels)
            return np.ascontiguousarray(latent.permute(0, 2, 3, 1).cpu().numpy())

    def pixels(self, symbols: NDArray[np.integer], channels: int, inside: Window | None = None) -> NDArray[np.uint8]:
        """Return the patches that the first channels of symbols decode to.

        Args:
            symbols: (T, h, w, at least channels).
            channels: number of channels to decode.
            inside: the window of the latent whose pixels are wanted; None: all.

        Returns:
            (T, image_channels, H, W).

        Raises:
            ModelFileError: pixels that are not finite.
        """
        if self._windows is None:
            decoded = [self._finished(batch, channels) for batch in self._reconstructed(symbols, channels)]
            return cut_pixels(np.concatenate(decoded), inside)

        codebook = None
        if self._kernels is not None and channels:
            latest = self._latest_codebook
            if latest is None or latest[0] != channels:
                latest = self._latest_codebook = channels, self._codebook(channels)
            codebook = latest[1]

        def latent(patch: NDArray[np.integer]) -> Callable[[Window], Tensor]:
            def part(window: Window) -> Tensor:
                values = patch[window.rows, window.columns, :channels]
                if self._kernels is None or codebook is None:
                    return self.model.dequantize(torch.from_numpy(values[None].astype(np.int64)), channels)
                rows = np.zeros((window.shape[0] * window.shape[1], codebook.directions.shape[1]), np.float32)
                self._kernels.add_codewords(codebook, symbols_by_channel(values), rows)
                return torch.from_numpy(rows).view(*window.shape, -1).permute(2, 0, 1)[None]

            return part

        return self._in_windows([latent(patch) for patch in symbols], symbols.shape[1:3], channels, inside)

    def _codebook(self, channels: int) -> Codebook | None:
        """Return the first codewords of a photo model with OHM, the output bias among them; None for other models."""
        if not isinstance(self.model, PhotoModel):
            return None
        values, directions = (self.quantizer[name][:channels] for name in ("values", "directions"))
        alphabets = np.repeat(self.model.config.group_symbols, self.model.config.group_sizes)[:channels]
        codebook = Codebook.of(values, directions, alphabets)
        return codebook._replace(offset=codebook.offset + self.quantizer["output_bias"])

    def pixels_from_codewords(self, codewords: NDArray[np.float32], channels: int) -> NDArray[np.uint8]:
        """Return the patches of a photo model with OHM from the sums of their codewords.

        Args:
            codewords: sum of the chosen codewords, without the output bias, (T, h, w, D).
            channels: number of channels whose codewords are summed up.

        Returns:
            (T, 3, 16 h, 16 w).

        Raises:
            ModelFileError: pixels that are not finite.
        """
        model = self.model
        assert isinstance(model, PhotoModel)
        if self._windows is None:
            with coding_state(self._device):
                latents = model.latent_of_codewords(torch.from_numpy(codewords).to(self._device))
                decoded = self._images(latents, channels).mul(255).cpu()
            return self._finished(decoded.numpy(), channels)

        def latent(patch: NDArray[np.float32]) -> Callable[[Window], Tensor]:
            return lambda window: model.latent_of_codewords(torch.from_numpy(patch[None, window.rows, window.columns]))

        return self._in_windows([latent(patch) for patch in codewords], codewords.shape[1:3], channels, None)

    def _in_windows(
        self,
        latents: Sequence[Callable[[Window], Tensor]],
        grid: tuple[int, ...],
        channels: int,
        inside: Window | None,
    ) -> NDArray[np.uint8]:
        """Return the pixels of patches whose latents functions give."""
        assert self._windows is not None
        rows, columns = grid
        inside = inside or Window(0, 0, rows, columns)
        parts = [self._windows.pixels(latent, (rows, columns), inside, channels, self.filters) for latent in latents]
        return parts[0][None] if len(parts) == 1 else np.stack(parts)

    def _finished(self, decoded: NDArray[np.float32], channels: int) -> NDArray[np.uint8]:
        return filter_and_round(decoded, channels, self.filters, self.threads)

    def unfiltered(self, symbols: NDArray[np.integer], channels: int) -> NDArray[np.float32]:
        """Return the same as `pixels`, neither filtered nor rounded, 0 to 255."""
        return np.concatenate(list(self._reconstructed(symbols, channels)))

    def _reconstructed(self, symbols: NDArray[np.integer], channels: int) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(symbols), BATCH_SIZE):
            with coding_state(self._device):
                values = symbols[start : start + BATCH_SIZE].astype(np.int64, copy=False)
                batch = torch.from_numpy(values).to(self._device)
                decoded = self._images(self.model.dequantize(batch, channels), channels).mul(255).cpu()
            yield decoded.numpy()  # outside of the context, so that it does not leak to the caller

    def _images(self, latent: Tensor, channels: int) -> Tensor:
        """Return the images in [0, 1] that a latent of some channels decodes to, by the decoder in use."""
        if self._decoder is None:
            return self.model.decode_latent(latent)
        normalised = self._decoders[self._decoder].module(latent, torch.tensor([channels], device=latent.device))
        return self.model.denormalise(normalised).clamp(0, 1)

    @property
    def block(self) -> NDArray[np.float32]:
        """The filters of the block transform in the synthesis of a photo model with OHM, (D, 3, 16, 16)."""
        transform = self.model.synthesis_transform
        assert isinstance(transform, PhotoSynthesis)
        return np.asarray(transform.block.detach().cpu().numpy())


def _channels_last(*transforms: nn.Module) -> None:
    """Lay out the weights of transforms channels last: convolutions on a CPU then take a quarter less time."""
    for transform in transforms:
        transform.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
