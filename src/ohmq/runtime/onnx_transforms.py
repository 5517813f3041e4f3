"""A model's transforms run by ONNX Runtime, its quantizer by numpy: pixels to symbols and back without torch."""

import ctypes
import os
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohmq.entropy.kernels import Kernels
from ohmq.errors import ConfigError, ModelFileError
from ohmq.geometry import Window
from ohmq.models.config import ModelConfig
from ohmq.postfilter.filters import FilterKernel, PostFilter, filter_and_round
from ohmq.runtime.latents import cut_pixels
from ohmq.utils.ordered import Workers

__all__ = ["OnnxDecoder", "OnnxTransforms"]

ROWS_AT_ONCE = 4096
"""Latent vectors that are quantized at a time."""
Array = NDArray[Any]
_SESSIONS: "weakref.WeakSet[Any]" = weakref.WeakSet()
"""All sessions of this process."""


def _keep_sessions() -> None:
    """Keep all sessions for ever: in a forked child, their destructors wait for threads that only the parent has."""
    for session in _SESSIONS:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_sessions)


@dataclass(frozen=True)
class OnnxDecoder:
    """A decoder of the ladder, run by ONNX Runtime.

    Attributes:
        session: of its graph, from latents and a number of channels to images.
        synthesis_halo: latent positions around a window that it needs, its post-filter included.
        filters: the post-filter fitted to it; None: none.
    """

    session: Any
    synthesis_halo: int
    filters: PostFilter | None = None


class OnnxTransforms:
    """The transforms, quantizer and post-filter of a model; see `ohmq.runtime.protocols.TransformRuntime`.

    Args:
        config: the configuration.
        quantizer: tensors of the quantizer, names without "quantizer.".
        sessions: of the graphs "analysis" and "synthesis", see `open_sessions`.
        analysis_halo: latent positions around a window that analysis needs.
        synthesis_halo: latent positions around a window that synthesis needs.
        block: filters of a photo model's block transform, (D, 3, 16, 16); of another model empty.
        filters: the post-filter; None: none.
        decoders: further decoders, by name.
        decoder: the decoder in place of the graph "synthesis" and its post-filter; None: these.

    Raises:
        ModelFileError: tensors of the quantizer that do not fit the configuration.
    """

    def __init__(
        self,
        config: ModelConfig,
        quantizer: dict[str, Array],
        sessions: dict[str, Any],
        *,
        analysis_halo: int,
        synthesis_halo: int,
        block: Array,
        filters: PostFilter | None = None,
        decoders: Mapping[str, OnnxDecoder] | None = None,
        decoder: str | None = None,
    ) -> None:
        self.config, self.quantizer, self.block = config, quantizer, block
        self.analysis_halo = analysis_halo
        self._sessions, self._decoders, self._decoder = sessions, dict(decoders or {}), decoder
        self._own = OnnxDecoder(sessions["synthesis"], synthesis_halo, filters)
        self._check_quantizer()

    def _check_quantizer(self) -> None:
        config, tensors = self.config, self.quantizer
        if config.quantizer != "ohm":
            return
        latent = tensors["output_bias"].shape if "output_bias" in tensors else ()
        table = config.channels_max, config.num_symbols
        if self._directional:
            expected = {
                "project": (table[0], *latent),
                "directions": (table[0], *latent),
                "centres": table,
                "values": table,
            }
        else:
            expected = {"weight": (*table, *latent), "codewords": (*table, *latent), "bias": table}
        for name, shape in expected.items():
            if (
                len(latent) != 1
                or name not in tensors
                or tensors[name].shape != shape
                or tensors[name].dtype.kind != "f"
            ):
                raise ModelFileError(f"the quantizer's tensor {name} is missing or does not fit the configuration")

    @staticmethod
    def open_sessions(graphs: dict[str, bytes]) -> dict[str, Any]:
        """Open an ONNX Runtime session for each graph, by name.

        Raises:
            ModuleNotFoundError: ONNX Runtime is not installed.
            ModelFileError: a graph that it cannot run.
        """
        import onnxruntime

        # Threads that wait for work sleep: spinning, they would take the cores from other programs.
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        sessions = {}
        for name, graph in graphs.items():
            try:
                session = onnxruntime.InferenceSession(
                    graph, options, providers=["CPUExecutionProvider"], enable_fallback=0
                )
                inputs = 1 if name in ("analysis", "synthesis") else 2
                if len(session.get_inputs()) != inputs or len(session.get_outputs()) != 1:
                    raise ValueError("another number of inputs or outputs")
            except Exception as error:  # damaged graphs make ONNX Runtime raise errors of many classes
                raise ModelFileError(f"ONNX Runtime cannot run the graph {name!r}: {error}") from error
            sessions[name] = session
        _SESSIONS.update(sessions.values())
        return sessions

    @property
    def device(self) -> str:
        """Always "cpu"."""
        return "cpu"

    def to(self, device: str) -> "OnnxTransforms":
        """Return these transforms.

        Raises:
            ConfigError: another device than "cpu" or "auto".
        """
        if device not in ("cpu", "auto"):
            raise ConfigError(f"ONNX folders run on the CPU: leave the device {device!r} out, or use the runtime torch")
        return self

    @property
    def decoders(self) -> tuple[str, ...]:
        """Names of further decoders."""
        return tuple(self._decoders)

    @property
    def _in_use(self) -> OnnxDecoder:
        """The decoder in use."""
        return self._decoders[self._decoder] if self._decoder else self._own

    @property
    def filters(self) -> PostFilter | None:
        """The post-filter of the decoder in use."""
        return self._in_use.filters

    @property
    def synthesis_halo(self) -> int:
        """Latent positions around a window that synthesis and post-filter need."""
        return self._in_use.synthesis_halo

    def _changed(self, own: OnnxDecoder, decoders: Mapping[str, OnnxDecoder], decoder: str | None) -> "OnnxTransforms":
        """Return transforms with other decoders."""
        return OnnxTransforms(
            self.config,
            self.quantizer,
            self._sessions,
            analysis_halo=self.analysis_halo,
            synthesis_halo=own.synthesis_halo,
            block=self.block,
            filters=own.filters,
            decoders=decoders,
            decoder=decoder,
        )

    def with_decoder(self, decoder: str | None, /) -> "OnnxTransforms":
        """Return the same transforms with another decoder.

        Args:
            decoder: one of `decoders`; None: the model's own synthesis transform.
        """
        return self._changed(self._own, self._decoders, decoder)

    def in_low_precision(self) -> "OnnxTransforms":
        """Return these transforms: they have one precision."""
        return self

    @property
    def threads(self) -> int:
        """Number of threads of work on the CPU."""
        return os.cpu_count() or 1

    def file_workers(self) -> Workers | None:
        """Return threads that share out files, one for each core; None: there is one core."""
        return None if self.threads == 1 else Workers(ThreadPoolExecutor(self.threads), self.threads)

    def with_kernels(self, filter_kernel: FilterKernel, kernels: Kernels | None, /) -> "OnnxTransforms":
        """Return the same transforms with another kernel of the post-filters; ``kernels`` are not used."""

        def changed(entry: OnnxDecoder) -> OnnxDecoder:
            return entry if entry.filters is None else replace(entry, filters=entry.filters.with_kernel(filter_kernel))

        decoders = {name: changed(entry) for name, entry in self._decoders.items()}
        return self._changed(changed(self._own), decoders, self._decoder)

    def _run(self, name: str, session: Any, values: Array, channels: int | None = None) -> Array:
        """Run a graph on values (1, channels, height, width); ModelFileError if it is not the graph that its name says."""
        given = [np.ascontiguousarray(values, np.float32)]
        if channels is not None:
            given.append(np.array([channels], np.float32))
        inputs = {argument.name: value for argument, value in zip(session.get_inputs(), given, strict=True)}
        try:
            output: Array = session.run(None, inputs)[0]
        except Exception as error:  # graphs that do not fit make ONNX Runtime raise errors of many classes
            raise ModelFileError(f"ONNX Runtime cannot run the graph {name!r}: {error}") from error
        pixels, latent = (values, output) if name == "analysis" else (output, values)
        if (
            output.dtype != np.float32
            or output.ndim != 4
            or pixels.shape[:2] != (1, self.config.image_channels)
            or self.config.patch_shape(*pixels.shape[2:]) != pixels.shape[2:]
            or self.config.latent_shape(*pixels.shape[2:]) != latent.shape[2:]
        ):
            raise ModelFileError(f"the graph {name!r} gives {output.dtype} of shape {output.shape}; it is damaged")
        return output

    def symbols(self, patches: NDArray[np.uint8], /) -> NDArray[np.int64]:
        """Return the symbols of patches (T, image_channels, H, W), all channels: (T, h, w, C)."""
        latent = self.latent(patches)
        rows = latent.reshape(-1, latent.shape[-1])
        quantize = self._round if self.config.quantizer == "integer" else self._choose_symbols
        parts = [quantize(rows[start : start + ROWS_AT_ONCE]) for start in range(0, len(rows), ROWS_AT_ONCE)]
        return np.concatenate(parts).reshape(*latent.shape[:-1], -1)

    def latent(self, patches: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Return the latents of patches (T, image_channels, H, W), before quantization: (T, h, w, D)."""
        latent = np.concatenate(
            [self._run("analysis", self._sessions["analysis"], patch[None] / np.float32(255)) for patch in patches]
        )
        return latent.transpose(0, 2, 3, 1)

    @property
    def _lowest(self) -> int:
        """The integer that symbol 0 of integer rounding stands for."""
        return 1 - self.config.num_symbols // 2

    @property
    def _directional(self) -> bool:
        """Whether the quantizer is the directional one of photo models."""
        return "directions" in self.quantizer

    def _round(self, rows: Array) -> NDArray[np.int64]:
        """Quantize latent vectors (rows, C) by integer rounding."""
        highest = self._lowest + self.config.num_symbols - 1
        return np.clip(np.round(rows), self._lowest, highest).astype(np.int64) - self._lowest

    def _choose_symbols(self, rows: Array) -> NDArray[np.int64]:
        """Quantize latent vectors (rows, D) by one-hot max, group by group: (rows, C)."""
        config = self.config
        rest = rows.copy() if self._directional else np.maximum(rows, 0)
        symbols = np.empty((len(rows), config.channels_max), np.int64)
        start = 0
        for size, alphabet in zip(config.group_sizes, config.group_symbols, strict=True):
            channels = range(start, start + size)
            for channel in channels:
                symbols[:, channel] = np.abs(self._activations(rest, channel, alphabet)).argmin(1)
            if config.residual_quantization:
                rest = rest - self._codewords(symbols, channels)
            start += size
        return symbols

    def _activations(self, rows: Array, channel: int, alphabet: int) -> Array:
        """Return the activations of one channel's symbols, (rows, alphabet)."""
        tensors = self.quantizer
        if self._directional:
            return np.asarray((rows @ tensors["project"][channel])[:, None] - tensors["centres"][channel, :alphabet])
        return np.asarray(rows @ tensors["weight"][channel].T + tensors["bias"][channel])

    def _codewords(self, symbols: Array, channels: range) -> Array:
        """Return the sum of the codewords of some channels of symbols (rows, C): (rows, D)."""
        tensors, run = self.quantizer, slice(channels.start, channels.stop)
        if self._directional:
            values = tensors["values"][np.arange(channels.start, channels.stop), symbols[:, run]]
            return np.asarray(values @ tensors["directions"][run])
        total = np.zeros((len(symbols), tensors["codewords"].shape[2]), np.float32)
        for channel in channels:
            total += tensors["codewords"][channel][symbols[:, channel]]
        return total

    def dequantized(self, symbols: NDArray[np.int64], channels: int, /) -> NDArray[np.float32]:
        """Return the latents that the first channels of symbols stand for, the input of synthesis.

        Args:
            symbols: (T, h, w, at least channels), int64.
            channels: the number of leading channels.

        Returns:
            (T, h, w, D).
        """
        rows = symbols.reshape(-1, symbols.shape[-1])
        if self.config.quantizer == "integer":
            latent = np.zeros((len(rows), self.config.channels_max), np.float32)
            latent[:, :channels] = rows[:, :channels] + self._lowest
        else:
            latent = self._codewords(rows, range(channels)) + self.quantizer["output_bias"]
            if not self._directional:
                latent = np.maximum(latent, 0)
        return latent.reshape(*symbols.shape[:3], -1)

    def pixels(self, symbols: NDArray[np.integer], channels: int, inside: Window | None = None, /) -> NDArray[np.uint8]:
        """Return the patches that the first ``channels`` channels of symbols (T, h, w, C) decode to.

        Args:
            symbols: (T, h, w, at least channels).
            channels: the number of leading channels.
            inside: the window of the latent whose pixels are wanted; None: all.

        Returns:
            (T, image_channels, H, W).
        """
        decoded = self._synthesised(self.dequantized(symbols.astype(np.int64, copy=False), channels), channels)
        return cut_pixels(decoded, inside)

    def pixels_from_codewords(self, codewords: NDArray[np.float32], channels: int, /) -> NDArray[np.uint8]:
        """Return the patches of a photo model from the sums of their codewords, (T, h, w, D): (T, 3, 16 h, 16 w)."""
        return self._synthesised(codewords + self.quantizer["output_bias"], channels)

    def _synthesised(self, latent: Array, channels: int) -> NDArray[np.uint8]:
        planes = latent.transpose(0, 3, 1, 2)
        name, session = self._decoder or "synthesis", self._in_use.session
        rate = channels if self._decoder else None
        images = np.concatenate([self._run(name, session, plane[None], rate) for plane in planes])
        return filter_and_round(images * np.float32(255), channels, self.filters, self.threads)
