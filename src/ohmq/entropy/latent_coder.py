"""Symbols of an image to payloads and back.

    latent grid -> tiles (or one block) -> entropy coder, or fixed-rate packing -> payloads of layers

Whether a file is tiled and whether it is entropy coded is decided here and nowhere else.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ohmq.bitstream.reader import split_tiles
from ohmq.bitstream.writer import join_tiles
from ohmq.entropy.fixed_rate import decode_fixed_rate, encode_fixed_rate, fixed_rate_bytes
from ohmq.entropy.kernels import Kernels
from ohmq.entropy.layers import IntegerPrior, LayerDecoder, SymbolSource, encode_layers
from ohmq.errors import BitstreamError
from ohmq.geometry import Window, windows
from ohmq.utils.blas_threads import one_blas_thread
from ohmq.utils.cpus import other_cpus, use_cpus
from ohmq.utils.progress import steps

__all__ = ["EncodedLatent", "LatentCoder", "LatentDecoder"]

Array = NDArray[Any]
_T = TypeVar("_T")


class EncodedLatent(NamedTuple):
    """Payloads of one image.

    Attributes:
        payloads: indexed ``[layout][layer]``.
        symbols: what was coded, (patches, h, w, C); None if it was not kept.
    """

    payloads: list[list[bytes]]
    symbols: Array | None


class _BlockDecoder(Protocol):
    """Decodes the layers of a block one after the other."""

    def decode(self, payloads: Sequence[bytes], ends: Sequence[int]) -> Array:
        """Return the symbols of the next layers, (channels, rows)."""


class _BlockCoder(Protocol):
    """Codes a block of the latent: a tile, or all of it."""

    def encode(self, source: SymbolSource, layouts: Sequence[Sequence[int]]) -> list[list[bytes]]:
        """Return payloads, indexed ``[layout][layer]``."""

    def decoder(self, shape: Sequence[int], known: Array | None, helper: Executor | None) -> _BlockDecoder:
        """Start decoding a block (patches, h, w) whose leading channels may be known, (patches, h, w, channels)."""


class _EntropyCoder:
    """Codes blocks with the integer prior and the range coder."""

    def __init__(self, prior: IntegerPrior, kernels: Kernels) -> None:
        self._prior, self._kernels = prior, kernels

    def encode(self, source: SymbolSource, layouts: Sequence[Sequence[int]]) -> list[list[bytes]]:
        return [images[0] for images in encode_layers(self._prior, source, layouts, kernels=self._kernels).payloads]

    def decoder(self, shape: Sequence[int], known: Array | None, helper: Executor | None) -> LayerDecoder:
        return LayerDecoder(self._prior, shape, known, kernels=self._kernels, helper=helper)


class _FixedRateCoder:
    """Packs the symbols of blocks without an entropy coder; ``alphabets`` are the alphabet sizes of all channels."""

    def __init__(self, alphabets: NDArray[np.int64]) -> None:
        self._alphabets = alphabets

    def encode(self, source: SymbolSource, layouts: Sequence[Sequence[int]]) -> list[list[bytes]]:
        (values,) = source.values()
        return [
            [self._packed(values, first, end) for first, end in zip((0, *ends), ends, strict=False)] for ends in layouts
        ]

    def _packed(self, values: Array, first: int, end: int) -> bytes:
        by_channel = np.moveaxis(values[..., first:end], -1, 0).reshape(-1)
        return encode_fixed_rate(by_channel, np.repeat(self._alphabets[first:end], by_channel.size // (end - first)))

    def decoder(self, shape: Sequence[int], known: Array | None, helper: Executor | None) -> "_FixedRateDecoder":
        return _FixedRateDecoder(self._alphabets, int(np.prod(shape)), 0 if known is None else known.shape[-1])


class _FixedRateDecoder:
    """Unpacks the layers of a block of ``rows`` rows, beginning at channel ``first``."""

    def __init__(self, alphabets: NDArray[np.int64], rows: int, first: int) -> None:
        self._alphabets, self._rows, self._channel = alphabets, rows, first

    def decode(self, payloads: Sequence[bytes], ends: Sequence[int]) -> Array:
        layers = []
        for payload, end in zip(payloads, ends, strict=True):
            sizes = np.repeat(self._alphabets[self._channel : end], self._rows)
            if len(payload) != fixed_rate_bytes(sizes):
                raise BitstreamError(f"a fixed-rate layer has {len(payload)} bytes, expected {fixed_rate_bytes(sizes)}")
            layers.append(decode_fixed_rate(payload, sizes).reshape(-1, self._rows))
            self._channel = end
        return np.concatenate(layers)


class LatentCoder:
    """Codes the symbols of one image: tiled or in one piece, entropy coded or at a fixed rate.

    Args:
        prior: the integer prior.
        alphabets: alphabet size of each channel, (C,).
        kernels: inner loops of entropy coding.
        tile: side of a tile in latent positions; 0 codes the latent in one piece.
        fixed_rate: whether symbols are packed without an entropy coder.
        threads: threads that code tiles, or share the work on a latent in one piece. Default: 1.
    """

    def __init__(
        self,
        prior: IntegerPrior,
        alphabets: NDArray[np.int64],
        *,
        kernels: Kernels,
        tile: int,
        fixed_rate: bool,
        threads: int = 1,
    ) -> None:
        self.tile, self.threads = tile, threads
        self._alphabets = alphabets
        self._block: _BlockCoder = _FixedRateCoder(alphabets) if fixed_rate else _EntropyCoder(prior, kernels)

    @property
    def symbol_type(self) -> np.dtype[Any]:
        """The type that symbols of a whole image are held in: the smallest that fits."""
        return np.min_scalar_type(int(self._alphabets.max()) - 1)

    def blocks(self, rows: int, columns: int) -> list[Window]:
        """List the windows of the latent grid that are coded independently of each other.

        Args:
            rows: of the latent grid.
            columns: of the latent grid.

        Returns:
            One window for each tile, in raster order; without tiles, one window.
        """
        return windows(rows, columns, self.tile or max(rows, columns))

    def encode(
        self,
        source: Callable[[Window], SymbolSource],
        grid: tuple[int, int, int],
        layouts: Sequence[Sequence[int]],
        *,
        keep: bool = False,
    ) -> EncodedLatent:
        """Code an image with one or more layer layouts, in one pass.

        Args:
            source: gives the symbols of a window of the latent, as a batch of one image; several threads may call it.
            grid: (patches, h, w).
            layouts: for each, the channels at which its layers end, ascending.
            keep: whether to return the symbols; they take a gigabyte for a large image. Default: no.

        Returns:
            Payloads, and the symbols if they are kept.

        Raises:
            ValueError: as `encode_layers`.
        """
        symbols = np.empty((*grid, max(ends[-1] for ends in layouts)), self.symbol_type) if keep else None

        def encode_block(block: Window) -> list[list[bytes]]:
            block_source = source(block)
            payloads = self._block.encode(block_source, layouts)
            if symbols is not None:
                symbols[:, block.rows, block.columns] = block_source.values()[0]
            return payloads

        coded = self.for_blocks(encode_block, self.blocks(*grid[1:]), phase="entropy coding")
        if not self.tile:
            return EncodedLatent(coded[0], symbols)
        joined = [[join_tiles(layer) for layer in zip(*layout, strict=True)] for layout in zip(*coded, strict=True)]
        return EncodedLatent(joined, symbols)

    def decoder(self, grid: tuple[int, int, int], channels: int) -> "LatentDecoder":
        """Start decoding an image.

        Args:
            grid: (patches, h, w).
            channels: the number of channels that will be decoded.
        """
        return LatentDecoder(self, grid, channels)

    def start_block(self, block: Window, values: Array, channel: int, helper: Executor | None = None) -> _BlockDecoder:
        """Start decoding a block whose symbols before ``channel`` are in ``values``, (patches, h, w, C).

        Args:
            block: window of the block.
            values: symbols of the image, (patches, h, w, C).
            channel: the number of leading channels that are known.
            helper: computes a part beside the calling thread; default: none.
        """
        known = values[:, block.rows, block.columns, :channel] if channel else None
        return self._block.decoder((len(values), *block.shape), known, helper)

    def split(self, payloads: Sequence[bytes], count: int) -> list[list[bytes]]:
        """Split payloads of layers into those of ``count`` blocks, indexed ``[block][layer]``.

        Args:
            payloads: one for each layer.
            count: the number of blocks.
        """
        parts = [split_tiles(payload, count) if self.tile else [payload] for payload in payloads]
        return [list(layers) for layers in zip(*parts, strict=True)]

    def for_blocks(self, work: Callable[..., _T], *blocks: Sequence[Any], phase: str) -> list[_T]:
        """Call a function for each block, tiles in several threads.

        Args:
            work: the function.
            blocks: its arguments, one of each for each block.
            phase: name of the work, for the progress report of tiles.

        Returns:
            The results, in the order of the blocks.
        """
        arguments = list(zip(*blocks, strict=True))
        threads = min(self.threads, len(arguments))
        with one_blas_thread():
            if threads == 1:
                return [work(*part) for part in self._with_progress(arguments, phase)]
            with ThreadPoolExecutor(threads) as pool:
                futures = [pool.submit(work, *part) for part in arguments]
                try:
                    return [future.result() for future in self._with_progress(futures, phase)]
                finally:  # an error of one tile, or Ctrl-C, ends the others early
                    pool.shutdown(cancel_futures=True)

    def _with_progress(self, blocks: Sequence[_T], phase: str) -> Iterable[_T]:
        """Iterate over blocks, and report progress if they are tiles."""
        return steps(blocks, phase) if self.tile else blocks


class LatentDecoder:
    """Decodes the layers of one image one after the other.

    Args:
        coder: the coder of the file.
        grid: (patches, h, w).
        channels: the number of channels that will be decoded.

    Attributes:
        values: symbols, (patches, h, w, channels); those of channels that are not decoded yet are undefined.
        channel: the number of channels decoded so far.
    """

    def __init__(self, coder: LatentCoder, grid: tuple[int, int, int], channels: int) -> None:
        self.values = np.empty((*grid, channels), coder.symbol_type)
        self.channel = 0
        self._coder = coder
        self._blocks = coder.blocks(*grid[1:])
        self._whole: _BlockDecoder | None = None
        # Ends with this object: an executor that nothing refers to lets its threads end.
        self._helper: ThreadPoolExecutor | None = None
        if coder.threads > 1 and not coder.tile:
            self._helper = ThreadPoolExecutor(1, initializer=use_cpus, initargs=(other_cpus(),))

    def decode(self, payloads: Sequence[bytes], ends: Sequence[int]) -> None:
        """Decode the next layers into `values`.

        Args:
            payloads: one for each layer.
            ends: the channels at which these layers end, ascending.

        Raises:
            BitstreamError: a payload that cannot be decoded.
        """

        def decode_block(block: Window, block_payloads: list[bytes]) -> None:
            decoded = self._decoder(block).decode(block_payloads, ends)
            target = self.values[:, block.rows, block.columns, self.channel : ends[-1]]
            target[...] = decoded.astype(target.dtype).T.reshape(target.shape)  # a transposed copy of fewer bytes

        parts = self._coder.split(payloads, len(self._blocks))
        self._coder.for_blocks(decode_block, self._blocks, parts, phase="entropy decoding")
        self.channel = ends[-1]

    def _decoder(self, block: Window) -> _BlockDecoder:
        """Return the decoder of a block. Those of tiles start anew: the states of all tiles at once would not be bounded."""
        if self._coder.tile:
            return self._coder.start_block(block, self.values, self.channel)
        if self._whole is None:
            self._whole = self._coder.start_block(block, self.values, self.channel, self._helper)
        return self._whole
