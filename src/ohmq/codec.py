"""Images to ``.ohm`` files and back."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ohmq.container import Layer, OhmFile, read_header, read_ohm, truncate_ohm, write_ohm
from ohmq.entropy import (
    decode_fixed_rate,
    encode_fixed_rate,
    fixed_rate_bytes,
)
from ohmq.entropy.layers import decode_layers, encode_layers
from ohmq.errors import BitstreamError, ModelMismatchError, UnsupportedImageError
from ohmq.images import DEFAULT_MAX_PIXELS, as_image, check_size, prepare_image
from ohmq.model_file import FrozenModel, resolve_model, shipped_models
from ohmq.quantizers import active_channels

__all__ = ["Codec", "Symbols", "load"]

Array = NDArray[Any]


class Symbols(NamedTuple):
    """The symbols of a picture.

    Attributes:
        values: (tiles, h, w, C), int64, tiles in raster order. width, height: of the picture, in pixels.
    """

    values: Array
    width: int
    height: int


class Codec:
    """Compresses images with one model, and decompresses them.

    A codec is not changed by use: threads may share it.

    Args:
        frozen: the model.

    Raises:
        UnsupportedImageError: the model has no quantizer, so it cannot code.

    Example:
        >>> codec = load("mnist-ohm")                                           # doctest: +SKIP
        >>> data = codec.compress(Image.open("digit.png"), fraction=0.5)        # doctest: +SKIP
        >>> picture = codec.decompress(data)                                    # doctest: +SKIP
    """

    def __init__(self, frozen: FrozenModel) -> None:
        if frozen.prior is None:
            raise UnsupportedImageError(f"{frozen.name} was trained without a quantizer: it cannot compress")
        self.frozen, self.model, self.prior = frozen, frozen.model, frozen.prior
        self.name, self.config, self.model_id = frozen.name, frozen.config, frozen.model_id
        self.num_channels = self.config.channels_max
        self.cut_points = self.config.cut_points
        self.grey = self.model.image_channels == 1

    def channels_for(self, fraction: float) -> int:
        """Channels that a fraction of the adaptive range stands for."""
        return active_channels(fraction, self.config.channels_min, self.num_channels)

    def analyse(self, image: Any, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Symbols:
        """The symbols of an image (Pillow image, numpy array or torch tensor), all channels.

        Raises:
            UnsupportedImageError: an image that cannot be coded.
        """
        picture = prepare_image(as_image(image), grey=self.grey).image
        width, height = picture.size
        check_size(width, height, max_pixels)
        return Symbols(self._symbols(_tiles(np.asarray(picture), self.model.tile_shape(height, width))), width, height)

    def analyse_batch(self, images: Array) -> Array:
        """The symbols of uint8 images of one size.

        Shape:
            images: (N, H, W) or (N, H, W, 3), as the model codes them. Returns: (N, tiles, h, w, C), int64.
        """
        tiles = [_tiles(image, self.model.tile_shape(*image.shape[:2])) for image in images]
        symbols = self._symbols(np.concatenate(tiles))
        return symbols.reshape(len(images), -1, *symbols.shape[1:])

    def _symbols(self, tiles: Array) -> Array:
        """Symbols of uint8 tiles (T, image_channels, tile, tile), a bounded number at a time."""
        out = []
        with torch.inference_mode():
            for start in range(0, len(tiles), 512):
                batch = torch.from_numpy(tiles[start : start + 512]).float() / 255
                out.append(self.model.symbols(self.model.normalise(batch)).numpy())
        return np.concatenate(out)

    def compress(
        self,
        image: Any,
        *,
        fraction: float | None = None,
        channels: int | None = None,
        layers: int | None = None,
        fixed_rate: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> bytes:
        """Compress an image into the bytes of an ``.ohm`` file.

        Args:
            image: Pillow image of any mode, numpy array (H, W) or (H, W, 3) of uint8, or torch tensor.
            fraction: of the adaptive range, in [0, 1]; default 1. channels: or how many channels.
            layers: at most so many layers, each a place where the file may be cut; default: all cut points.
            fixed_rate: do not entropy code: the size is then known before.
            max_pixels: larger images are refused.

        Returns:
            The file.

        Raises:
            ValueError: arguments out of range, or both fraction and channels.
            UnsupportedImageError: an image that cannot be coded.
        """
        count = self._count(fraction, channels)
        return self.encode(self.analyse(image, max_pixels=max_pixels), count, layers=layers, fixed_rate=fixed_rate)

    def encode(self, symbols: Symbols, channels: int, *, layers: int | None = None, fixed_rate: bool = False) -> bytes:
        """The ``.ohm`` file of the first ``channels`` channels of symbols; arguments as `compress`."""
        ends = self.layer_ends(channels, layers)
        if fixed_rate:
            payloads = []
            for first, end in zip((0, *ends), ends, strict=False):
                values = np.moveaxis(symbols.values[..., first:end], -1, 0).reshape(-1)
                payloads.append(encode_fixed_rate(values, self._alphabets(first, end, values.size)))
        else:
            payloads = encode_layers(self.prior, symbols.values[None], [ends]).payloads[0][0]
        sizes = [end - first for first, end in zip((0, *ends), ends, strict=False)]
        file = OhmFile(
            model_id=self.model_id,
            width=symbols.width,
            height=symbols.height,
            grey=self.grey,
            fixed_rate=fixed_rate,
            layers=tuple(Layer(size, payload) for size, payload in zip(sizes, payloads, strict=True)),
        )
        return write_ohm(file)

    def layer_ends(self, channels: int, layers: int | None = None) -> tuple[int, ...]:
        """The channels at which layers end: the cut points below ``channels``, thinned to ``layers``, and itself."""
        if not 1 <= channels <= self.num_channels:
            raise ValueError(f"channels is {channels}; this model codes 1 to {self.num_channels}")
        if layers is not None and layers < 1:
            raise ValueError(f"layers is {layers}; a file has at least 1")
        ends = [point for point in self.cut_points if point < channels] + [channels]
        if layers is not None and layers < len(ends):
            ends = [ends[math.ceil(len(ends) * (i + 1) / layers) - 1] for i in range(layers)]
        return tuple(ends)

    def _count(self, fraction: float | None, channels: int | None) -> int:
        if fraction is not None and channels is not None:
            raise ValueError("give fraction or channels, not both")
        if channels is None:
            channels = self.channels_for(1.0 if fraction is None else fraction)
            if channels == 0:
                raise ValueError(
                    f"fraction {fraction} stands for 0 channels; the smallest that codes is {1 / self.num_channels:.4g}"
                )
        return channels

    def decode(
        self, data: bytes, *, allow_truncated: bool = False, max_pixels: int = DEFAULT_MAX_PIXELS
    ) -> tuple[OhmFile, Symbols]:
        """The symbols in an ``.ohm`` file; errors as `decompress`."""
        header = read_header(data)
        if header.model_id != self.model_id:
            raise ModelMismatchError(
                f"the file was made with model {header.model_id.hex()}, this is {self.name} ({self.model_id.hex()}); "
                f"{_hint(header.model_id)}"
            )
        if header.width * header.height > max_pixels:
            raise BitstreamError(
                f"the picture has {header.width}x{header.height} pixels, more than the limit of {max_pixels}; "
                "raise max_pixels if you trust the file"
            )
        if header.grey != self.grey:
            raise BitstreamError(
                f"the file says {'grey' if header.grey else 'colour'}, which {self.name} does not code"
            )
        if sum(layer.channels for layer in header.layers) > self.num_channels:
            raise BitstreamError(f"the file has more channels than the {self.num_channels} of {self.name}")
        file = read_ohm(data, allow_truncated=allow_truncated)
        shape = self.grid(header.width, header.height)
        ends = list(np.cumsum([layer.channels for layer in file.layers]).tolist())
        payloads = [layer.payload for layer in file.layers]
        if file.fixed_rate:
            values = self._decode_fixed(payloads, ends, shape)
        else:
            values = decode_layers(self.prior, payloads, ends, shape)
        return file, Symbols(values, header.width, header.height)

    def _decode_fixed(self, payloads: Sequence[bytes], ends: Sequence[int], shape: tuple[int, int, int]) -> Array:
        parts = []
        for payload, first, end in zip(payloads, (0, *ends), ends, strict=False):
            sizes = self._alphabets(first, end, (end - first) * math.prod(shape))
            if len(payload) != fixed_rate_bytes(sizes):
                raise BitstreamError(f"a fixed-rate layer has {len(payload)} bytes, expected {fixed_rate_bytes(sizes)}")
            parts.append(np.moveaxis(decode_fixed_rate(payload, sizes).reshape(end - first, *shape), 0, -1))
        return np.concatenate(parts, -1).astype(np.int64)

    def _alphabets(self, first: int, end: int, count: int) -> NDArray[np.int64]:
        """The alphabet sizes of all symbols of some channels, channel by channel."""
        sizes = np.repeat(self.config.group_symbols, self.config.group_sizes)[first:end]
        return np.repeat(sizes, count // (end - first))

    def grid(self, width: int, height: int) -> tuple[int, int, int]:
        """(tiles, h, w) of the symbols of a picture."""
        tile = self.model.tile_shape(height, width)
        return -(-width // tile[1]) * -(-height // tile[0]), *self.model.latent_shape(*tile)

    def decompress(
        self,
        data: bytes,
        *,
        channels: int | None = None,
        allow_truncated: bool = False,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Image.Image:
        """The picture in an ``.ohm`` file.

        Args:
            data: the file. channels: use at most so many channels. allow_truncated: decode the leading whole layers of a
                file that ends early. max_pixels: larger pictures are refused before anything is allocated.

        Returns:
            A Pillow image, mode "L" or "RGB".

        Raises:
            BitstreamError: a damaged file (`TruncatedFileError`, `ChecksumError`, ...).
            ModelMismatchError: the file was made with another model.
        """
        if channels is not None:
            if channels < 1:
                raise ValueError(f"channels is {channels}; at least 1 is needed")
            if channels < sum(layer.channels for layer in read_header(data).layers):
                data = truncate_ohm(data, channels=channels)
        file, symbols = self.decode(data, allow_truncated=allow_truncated, max_pixels=max_pixels)
        return self.synthesise(symbols, file.num_channels)

    def synthesise(self, symbols: Symbols, channels: int) -> Image.Image:
        """The picture that the first ``channels`` channels of symbols stand for."""
        tile_height, tile_width = self.model.tile_shape(symbols.height, symbols.width)
        columns, rows = -(-symbols.width // tile_width), -(-symbols.height // tile_height)
        picture = np.empty((rows, columns, self.model.image_channels, tile_height, tile_width), np.uint8)
        flat = picture.reshape(rows * columns, *picture.shape[2:])
        with torch.inference_mode():
            for start in range(0, len(flat), 512):
                part = torch.from_numpy(symbols.values[start : start + 512])
                decoded = self.model.reconstruct(part, channels)
                flat[start : start + 512] = decoded.mul(255).round().to(torch.uint8).numpy()
        whole = picture.transpose(0, 3, 1, 4, 2).reshape(rows * tile_height, columns * tile_width, -1)
        whole = whole[: symbols.height, : symbols.width]
        return Image.fromarray(np.ascontiguousarray(whole[..., 0] if self.grey else whole))


def _tiles(pixels: Array, tile: tuple[int, int]) -> Array:
    """A picture (H, W) or (H, W, 3) as tiles (T, channels, th, tw), the edge repeated to fill the last ones."""
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    height, width, channels = pixels.shape
    padded = np.pad(pixels, ((0, -height % tile[0]), (0, -width % tile[1]), (0, 0)), mode="edge")
    rows, columns = padded.shape[0] // tile[0], padded.shape[1] // tile[1]
    blocks = padded.reshape(rows, tile[0], columns, tile[1], channels).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(blocks).reshape(rows * columns, channels, *tile)


def _hint(model_id: bytes) -> str:
    from ohmq.model_file import load_model

    for name, path in shipped_models().items():
        if load_model(path, name).model_id == model_id:
            return f"use --model {name}"
    return "use the model that made it"


def load(source: str | Path) -> Codec:
    """A codec from a shipped model's name, a model file or a training checkpoint.

    Raises:
        ModelFileError: nothing of the kind.
    """
    return Codec(resolve_model(source))
