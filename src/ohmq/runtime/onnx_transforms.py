"""src/ohmq/runtime/onnx_transforms.py."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmq.models.config import ModelConfig
from ohmq.postfilter.filters import FilterKernel, PostFilter, filter_and_round

__all__ = ["OnnxTransforms"]
ROWS_AT_ONCE = 4096
Array = NDArray[Any]


class OnnxTransforms:
    """The networks of a model, run by ONNX Runtime; the quantizer in numpy.

    Args:
        config: the configuration. quantizer: its tensors, names without "quantizer.".
        sessions: of the two graphs, see `open_sessions`.
        analysis_halo, synthesis_halo: latent positions around a window that each needs.
        block: the filters of a photo model's block transform, (D, 3, 16, 16); of another model empty.
        filters: what corrects the decoded picture, if anything does.
    """

    def __init__(
        self,
        config: ModelConfig,
        quantizer: dict[str, Array],
        sessions: dict[str, Any],
        analysis_halo: int,
        synthesis_halo: int,
        block: Array,
        filters: PostFilter | None = None,
    ) -> None:
        self.config, self.quantizer, self.block, self.filters = config, quantizer, block, filters
        self.analysis_halo, self.synthesis_halo = analysis_halo, synthesis_halo
        self._sessions = sessions

    @staticmethod
    def open_sessions(graphs: dict[str, bytes]) -> dict[str, Any]:
        """Open an ONNX Runtime session for each graph, by name.

        Raises:
            ModuleNotFoundError: ONNX Runtime is not installed.
        """
        import onnxruntime

        return {
            name: onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
            for name, graph in graphs.items()
        }

    def with_filter_kernel(self, kernel: FilterKernel) -> "OnnxTransforms":
        """Return the same transforms with another kernel of the post-filter."""
        if self.filters is None:
            return self
        filters, halos = self.filters.with_kernel(kernel), (self.analysis_halo, self.synthesis_halo)
        return OnnxTransforms(self.config, self.quantizer, self._sessions, *halos, self.block, filters)

    def _run(self, name: str, values: Array) -> Array:
        session = self._sessions[name]
        found: Array = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(values, np.float32)})[0]
        return found

    def symbols(self, tiles: NDArray[np.uint8], /) -> NDArray[np.int64]:
        """The symbols of tiles (T, image_channels, H, W), all channels: (T, h, w, C)."""
        latent = self.latent(tiles)
        rows = latent.reshape(-1, latent.shape[-1])
        parts = [self._quantize(rows[start : start + ROWS_AT_ONCE]) for start in range(0, len(rows), ROWS_AT_ONCE)]
        return np.concatenate(parts).reshape(*latent.shape[:-1], -1)

    def latent(self, tiles: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """The latents of tiles (T, image_channels, H, W): (T, h, w, D)."""
        latent = np.concatenate([self._run("analysis", tile[None] / np.float32(255)) for tile in tiles])
        return latent.transpose(0, 2, 3, 1)

    def _quantize(self, rows: Array) -> NDArray[np.int64]:
        config, tensors = self.config, self.quantizer
        if config.quantizer == "integer":
            lowest = 1 - config.num_symbols // 2
            return np.clip(np.round(rows), lowest, lowest + config.num_symbols - 1).astype(np.int64) - lowest
        tied = "directions" in tensors
        rest = rows.copy() if tied else np.maximum(rows, 0)
        out = np.empty((len(rows), config.channels_max), np.int64)
        start = 0
        for size, alphabet in zip(config.group_sizes, config.group_symbols, strict=True):
            channels = range(start, start + size)
            for c in channels:
                if tied:
                    activations = (rest @ tensors["project"][c])[:, None] - tensors["centres"][c, :alphabet]
                else:
                    activations = rest @ tensors["weight"][c].T + tensors["bias"][c]
                out[:, c] = np.abs(activations).argmin(1)
            if config.residual_quantization:
                rest = rest - self._codewords(out, channels)
            start += size
        return out

    def _codewords(self, symbols: Array, channels: range) -> Array:
        """The sum of the codewords of some channels of symbols (rows, C)."""
        tensors, part = self.quantizer, slice(channels.start, channels.stop)
        if "directions" in tensors:
            chosen = tensors["values"][np.arange(channels.start, channels.stop), symbols[:, part]]
            return np.asarray(chosen @ tensors["directions"][part])
        total = np.zeros((len(symbols), tensors["codewords"].shape[2]), np.float32)
        for c in channels:
            total += tensors["codewords"][c][symbols[:, c]]
        return total

    def pixels(self, symbols: NDArray[np.int64], channels: int, /) -> NDArray[np.uint8]:
        """What the first ``channels`` channels of symbols (T, h, w, C) decode to: (T, image_channels, H, W)."""
        rows = symbols.reshape(-1, symbols.shape[-1])
        if self.config.quantizer == "integer":
            latent = np.zeros((len(rows), self.config.channels_max), np.float32)
            latent[:, :channels] = rows[:, :channels] + (1 - self.config.num_symbols // 2)
        else:
            latent = self._codewords(rows, range(channels)) + self.quantizer["output_bias"]
            if "directions" not in self.quantizer:
                latent = np.maximum(latent, 0)
        return self._decoded(latent.reshape(*symbols.shape[:3], -1), channels)

    def picture(self, codewords: NDArray[np.float32], channels: int, /) -> NDArray[np.uint8]:
        """The same of a photo model, from the sum of the chosen codewords (T, h, w, D)."""
        return self._decoded(codewords + self.quantizer["output_bias"], channels)

    def _decoded(self, latent: Array, channels: int) -> NDArray[np.uint8]:
        planes = latent.transpose(0, 3, 1, 2)
        pictures = np.concatenate([self._run("synthesis", plane[None]) for plane in planes])
        return filter_and_round(pictures * np.float32(255), channels, self.filters, os.cpu_count() or 1)
