"""The parts of an ``.ohm`` file, their limits and range checks. Standard library alone.

The normative description is `docs/file-format.md`. A file holds one image in layers. Any number of leading layers is
the same image at a lower rate, so a file is truncated without decoding it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

__all__ = [
    "FORMAT_VERSION",
    "MAGIC",
    "Extra",
    "ExtraInfo",
    "ExtraType",
    "HeaderInfo",
    "Layer",
    "LayerInfo",
    "OhmFile",
    "ResidualInfo",
    "bytes_of_rate",
]

MAGIC = b"\x93OHM"
FORMAT_VERSION = 1
MAX_SIDE = 65536
"""Pixels of a side of an image."""
DEFAULT_MAX_PIXELS = 2**27
"""Limit on width × height of an image by default."""
MAX_LAYERS = 255
MAX_CHANNELS = 65536
MAX_PAYLOAD = 2**32 - 1
"""Bytes of the payload of a layer."""
MAX_EXTRAS = 16
MAX_EXTRA_BYTES = 2**24
MAX_TILE = 256
"""Latent positions of a side of a tile: limits the memory that a reader needs for a tile."""
RESIDUAL_CHANNELS = 192
"""Channels of a whole residual: 64 frequencies in three colours."""
STEPS_A_LEVEL = 8
"""Steps of a residual are written in this fraction of a grey level."""
MIN_STEP, MAX_STEP = 8, 2047
FLAG_FIXED_RATE, FLAG_GREY, FLAG_EXTRAS, FLAG_TILED, FLAG_RESIDUAL = 1, 2, 4, 8, 16
"""Bits of the header's flags byte."""
MAX_VARINT_BYTES = 5
FREE_EXTRA_TYPES = 64
"""Lowest type of extras that a reader may ignore."""


class ExtraType(IntEnum):
    """Types of extras that this release knows; types from 64 on are free for other uses, and ignored."""

    ALPHA = 1
    EXIF = 2
    ICC = 3
    XMP = 4
    PSNR = 5


@dataclass(frozen=True)
class Layer:
    """Layer of a file.

    Attributes:
        channels: channels that the layer adds.
        payload: their coded symbols.
    """

    channels: int
    payload: bytes


@dataclass(frozen=True)
class Extra:
    """Data beside the colours: the alpha mask, metadata or a PSNR table.

    Attributes:
        type: an `ExtraType`, or 64 and above.
        body: bytes; `docs/file-format.md` describes those of each type.
    """

    type: int
    body: bytes


class ResidualInfo(NamedTuple):
    """What a file says of its residual, the layers after the model's last channel; a file that was cut may have none left.

    Attributes:
        step: quantization step of the lowest frequency, in eighths of a grey level, 8 to 2047.
        decoder_id: of the decoder whose image the residual corrects, 4 bytes.
    """

    step: int
    decoder_id: bytes


@dataclass(frozen=True)
class OhmFile:
    """Content of an ``.ohm`` file.

    Attributes:
        model_id: 4 bytes, printed as 8 hexadecimal digits.
        width: in pixels, 1 to 65536.
        height: in pixels, 1 to 65536.
        grey: one colour channel, else RGB.
        fixed_rate: payloads are packed without an entropy coder.
        layers: 1 to 255, in order; layer i holds the channels that follow those of layers 0 to i - 1.
        tile: latent positions of a side of a tile, 1 to 256; each payload then comes from `join_tiles`. 0: no tiles.
        extras: at most 16, in ascending order of their types.
        residual: of the layers after the model's last channel; None: there are none.
    """

    model_id: bytes
    width: int
    height: int
    grey: bool
    fixed_rate: bool
    layers: tuple[Layer, ...]
    tile: int = 0
    extras: tuple[Extra, ...] = ()
    residual: ResidualInfo | None = None

    @property
    def num_channels(self) -> int:
        """Channels of all layers."""
        return sum(layer.channels for layer in self.layers)

    @property
    def payload_bytes(self) -> int:
        """Bytes of all payloads."""
        return sum(len(layer.payload) for layer in self.layers)


class LayerInfo(NamedTuple):
    """Entry of the layer index.

    Attributes:
        channels: channels that the layer adds.
        length: bytes of the payload.
        crc32: checksum of the payload.
    """

    channels: int
    length: int
    crc32: int


class ExtraInfo(NamedTuple):
    """Entry of the extras index.

    Attributes:
        type: as in `Extra`.
        length: bytes of the body.
        crc32: checksum of the body.
    """

    type: int
    length: int
    crc32: int


class HeaderInfo(NamedTuple):
    """Header of a file.

    Attributes:
        version: of the format.
        model_id: as in `OhmFile`.
        width: in pixels.
        height: in pixels.
        grey: as in `OhmFile`.
        fixed_rate: as in `OhmFile`.
        layers: the layer index.
        header_bytes: bytes of the header.
        file_bytes: bytes of the whole file when nothing is missing.
        tile: as in `OhmFile`.
        extras: the extras index.
        residual: as in `OhmFile`.
    """

    version: int
    model_id: bytes
    width: int
    height: int
    grey: bool
    fixed_rate: bool
    layers: tuple[LayerInfo, ...]
    header_bytes: int
    file_bytes: int
    tile: int = 0
    extras: tuple[ExtraInfo, ...] = ()
    residual: ResidualInfo | None = None

    @property
    def extras_bytes(self) -> int:
        """Bytes of the bodies of all extras; they follow the header."""
        return sum(extra.length for extra in self.extras)

    @property
    def alpha(self) -> bool:
        """Whether the image has an alpha mask."""
        return any(extra.type == ExtraType.ALPHA for extra in self.extras)

    @property
    def has_metadata(self) -> bool:
        """Whether the file holds EXIF data, an ICC profile or XMP."""
        return any(extra.type in (ExtraType.EXIF, ExtraType.ICC, ExtraType.XMP) for extra in self.extras)


def size_error(width: int, height: int) -> str | None:
    """Say why an image of this size has no file; None if it can have one."""
    if 1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE:
        return None
    return f"{width}x{height} pixels; each side must be 1 to {MAX_SIDE}"


def layer_count_error(count: int) -> str | None:
    """Say why a file cannot have this number of layers; None if it can."""
    return None if 1 <= count <= MAX_LAYERS else f"{count} layers; it must be 1 to {MAX_LAYERS}"


def layers_error(layers: Sequence[LayerInfo]) -> str | None:
    """Say which entry of a layer index is out of range; None if all are in range."""
    channels = sum(layer.channels for layer in layers)
    if min(layer.channels for layer in layers) < 1 or channels > MAX_CHANNELS:
        return f"{channels} channels; every layer has one, all at most {MAX_CHANNELS}"
    if max(layer.length for layer in layers) > MAX_PAYLOAD:
        return f"a layer of more than {MAX_PAYLOAD} bytes"
    return None


def tile_error(tile: int) -> str | None:
    """Say why tiles cannot have this side, in latent positions; None if they can."""
    return None if 1 <= tile <= MAX_TILE else f"tiles of {tile} positions; a tile has 1 to {MAX_TILE} each side"


def residual_error(residual: ResidualInfo, *, grey: bool, fixed_rate: bool) -> str | None:
    """Say why a file cannot have this residual; None if it can.

    Args:
        residual: what the file says of it.
        grey: as in `OhmFile`.
        fixed_rate: as in `OhmFile`.
    """
    if not MIN_STEP <= residual.step <= MAX_STEP:
        return f"a residual with a step of {residual.step}; it must be {MIN_STEP} to {MAX_STEP}"
    if grey or fixed_rate:
        return "a residual of a grey or fixed-rate file, which has none"
    return None


def extra_count_error(count: int) -> str | None:
    """Say why an extras index cannot have this number of entries; None if it can."""
    return None if 1 <= count <= MAX_EXTRAS else f"{count} extras; it must be 1 to {MAX_EXTRAS}"


def extras_error(width: int, height: int, num_layers: int, extras: Sequence[ExtraInfo]) -> str | None:
    """Say which entry of an extras index is out of range; None if all are in range.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        num_layers: of the file.
        extras: the index.
    """
    types = [extra.type for extra in extras]
    if types != sorted(set(types)):
        return f"extras of types {types}; types ascend and none comes twice"
    for extra in extras:
        # A mask that does not compress at all has little more than width + 1 bytes a row.
        limit = 4096 + 2 * width * height if extra.type == ExtraType.ALPHA else MAX_EXTRA_BYTES
        if extra.length > limit:
            return f"an extra of type {extra.type} with {extra.length} bytes; it has at most {limit}"
        if extra.type == ExtraType.PSNR and not (
            extra.length % 2 == 0 and num_layers <= extra.length // 2 <= MAX_LAYERS
        ):
            return f"a PSNR table of {extra.length} bytes; it has 2 for each of {num_layers} layers or more"
    return None


def bytes_of_rate(bpp: float, width: int, height: int) -> int:
    """Return the largest file size at a rate.

    Args:
        bpp: bits per pixel.
        width: of the image, in pixels.
        height: of the image, in pixels.

    Returns:
        Bytes, rounded down.

    Raises:
        ValueError: a rate that is not positive and finite.

    Example:
        >>> bytes_of_rate(0.5, 100, 30)
        187
    """
    if not 0 < bpp < math.inf:
        raise ValueError(f"bpp is {bpp}; it must be positive")
    return int(min(bpp * width * height / 8, 2.0**62))  # no file is longer
