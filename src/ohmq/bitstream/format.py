"""The ``.ohm`` file: header, layer index, checksums, payloads. Standard library alone.

The normative description is `docs/file-format.md`. A file holds one picture in layers; every run of leading layers is a
picture at a lower rate, so a file is cut without decoding it.
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
    "bytes_of_rate",
]

MAGIC = b"\x93OHM"
FORMAT_VERSION = 1
MAX_SIDE = 65536
MAX_LAYERS = 255
MAX_CHANNELS = 65536
MAX_PAYLOAD = 2**32 - 1
MAX_EXTRAS = 16
MAX_EXTRA_BYTES = 2**24
MAX_TILE = 256
"""Latent positions of a tile, each side: bounds what a reader needs for one."""
FLAG_FIXED_RATE, FLAG_GREY, FLAG_EXTRAS, FLAG_TILED = 1, 2, 4, 8
MAX_VARINT_BYTES = 5
FREE_EXTRA_TYPES = 64
"""Extras of this type and above may be ignored."""


class ExtraType(IntEnum):
    """What an extra is; 64 and above are free for others, and ignored."""

    ALPHA = 1
    EXIF = 2
    ICC = 3
    XMP = 4
    PSNR = 5


@dataclass(frozen=True)
class Layer:
    """One layer: how many channels it adds, and their coded symbols."""

    channels: int
    payload: bytes


@dataclass(frozen=True)
class Extra:
    """Something beside the colours: the mask of transparency, or metadata.

    Attributes:
        type: an `ExtraType`, or 64 and above. body: its bytes; `docs/file-format.md` says of what kind.
    """

    type: int
    body: bytes


@dataclass(frozen=True)
class OhmFile:
    """What an ``.ohm`` file holds.

    Attributes:
        model_id: 4 bytes; they print as 8 hexadecimal digits.
        width, height: in pixels, 1 to 65536.
        grey: one colour channel, else RGB.
        fixed_rate: payloads are packed without an entropy coder.
        layers: 1 to 255, in order; layer i holds the channels that follow those of layers 0 to i - 1.
        tile: latent positions of a tile, each side, 1 to 256; each payload is then what `join_tiles` gives. 0: no tiles.
        extras: at most 16, their types ascending.
    """

    model_id: bytes
    width: int
    height: int
    grey: bool
    fixed_rate: bool
    layers: tuple[Layer, ...]
    tile: int = 0
    extras: tuple[Extra, ...] = ()

    @property
    def num_channels(self) -> int:
        """Channels of all layers."""
        return sum(layer.channels for layer in self.layers)

    @property
    def payload_bytes(self) -> int:
        """Bytes of all payloads."""
        return sum(len(layer.payload) for layer in self.layers)


class LayerInfo(NamedTuple):
    """An entry of the layer index: channels, payload bytes, CRC-32 of the payload."""

    channels: int
    length: int
    crc32: int


class ExtraInfo(NamedTuple):
    """An entry of the extras index: type, bytes, CRC-32 of the body."""

    type: int
    length: int
    crc32: int


class HeaderInfo(NamedTuple):
    """The header of a file; ``file_bytes`` is what the whole file has when nothing is missing, ``tile`` as in `OhmFile`."""

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

    @property
    def extras_bytes(self) -> int:
        """Bytes of the bodies of all extras, which follow the header."""
        return sum(extra.length for extra in self.extras)

    @property
    def alpha(self) -> bool:
        """Whether the picture has a mask of transparency."""
        return any(extra.type == ExtraType.ALPHA for extra in self.extras)


def extras_error(width: int, height: int, num_layers: int, extras: Sequence[ExtraInfo]) -> str | None:
    """What is wrong with the extras of a picture, if anything."""
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
    """How many bytes a picture may have at so many bits per pixel.

    Raises:
        ValueError: a rate that is not positive and finite.

    Example:
        >>> bytes_of_rate(0.5, 100, 30)
        187
    """
    if not 0 < bpp < math.inf:
        raise ValueError(f"bpp is {bpp}; it must be positive")
    return int(min(bpp * width * height / 8, 2.0**62))  # no file is as long as that
