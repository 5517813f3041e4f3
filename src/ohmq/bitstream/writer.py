"""src/ohmq/bitstream/writer.py."""

import struct
import zlib
from collections.abc import Sequence

from ohmq.bitstream.format import (
    FLAG_EXTRAS,
    FLAG_FIXED_RATE,
    FLAG_GREY,
    FLAG_TILED,
    FORMAT_VERSION,
    FREE_EXTRA_TYPES,
    MAGIC,
    MAX_CHANNELS,
    MAX_EXTRAS,
    MAX_LAYERS,
    MAX_PAYLOAD,
    MAX_SIDE,
    MAX_TILE,
    MAX_VARINT_BYTES,
    ExtraInfo,
    ExtraType,
    LayerInfo,
    OhmFile,
    extras_error,
)

__all__ = ["join_tiles", "write_ohm"]


def encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_header(
    model_id: bytes,
    width: int,
    height: int,
    flags: int,
    layers: Sequence[LayerInfo],
    tile: int,
    extras: Sequence[ExtraInfo],
) -> bytes:
    flags |= FLAG_EXTRAS * bool(extras) | FLAG_TILED * bool(tile)
    header = bytearray(MAGIC + bytes([FORMAT_VERSION, flags]) + model_id)
    header += encode_varint(width) + encode_varint(height) + encode_varint(len(layers))
    for layer in layers:
        header += encode_varint(layer.channels) + encode_varint(layer.length) + struct.pack(">I", layer.crc32)
    if tile:
        header += encode_varint(tile)
    if extras:
        header += encode_varint(len(extras))
    for extra in extras:
        header += encode_varint(extra.type) + encode_varint(extra.length) + struct.pack(">I", extra.crc32)
    return bytes(header + struct.pack(">I", zlib.crc32(header)))


def write_ohm(file: OhmFile) -> bytes:
    """The bytes of a file.

    Raises:
        ValueError: a field outside its range.
    """
    if len(file.model_id) != 4:
        raise ValueError(f"a model id has 4 bytes, not {len(file.model_id)}")
    if not (1 <= file.width <= MAX_SIDE and 1 <= file.height <= MAX_SIDE):
        raise ValueError(f"the picture is {file.width}x{file.height}; each side must be 1 to {MAX_SIDE} pixels")
    if not 1 <= len(file.layers) <= MAX_LAYERS:
        raise ValueError(f"{len(file.layers)} layers; a file has 1 to {MAX_LAYERS}")
    for number, layer in enumerate(file.layers, start=1):
        if layer.channels < 1:
            raise ValueError(f"layer {number} has {layer.channels} channels; it needs at least 1")
        if len(layer.payload) > MAX_PAYLOAD:
            raise ValueError(f"layer {number} has {len(layer.payload)} bytes; a layer has at most {MAX_PAYLOAD}")
    if file.num_channels > MAX_CHANNELS:
        raise ValueError(f"{file.num_channels} channels; a file has at most {MAX_CHANNELS}")
    if not 0 <= file.tile <= MAX_TILE:
        raise ValueError(f"tiles of {file.tile} positions; a tile has 1 to {MAX_TILE} each side, 0 means none")
    extras = [ExtraInfo(extra.type, len(extra.body), zlib.crc32(extra.body)) for extra in file.extras]
    if len(extras) > MAX_EXTRAS:
        raise ValueError(f"{len(extras)} extras; a file has at most {MAX_EXTRAS}")
    for extra in extras:
        if not (extra.type in set(ExtraType) or FREE_EXTRA_TYPES <= extra.type < 2 ** (7 * MAX_VARINT_BYTES)):
            raise ValueError(
                f"an extra of type {extra.type}; known are {[*map(int, ExtraType)]}, free {FREE_EXTRA_TYPES} and above"
            )
    if error := extras_error(file.width, file.height, len(file.layers), extras):
        raise ValueError(error)
    infos = [LayerInfo(layer.channels, len(layer.payload), zlib.crc32(layer.payload)) for layer in file.layers]
    flags = FLAG_FIXED_RATE * bool(file.fixed_rate) | FLAG_GREY * bool(file.grey)
    header = encode_header(file.model_id, file.width, file.height, flags, infos, file.tile, extras)
    return header + b"".join([extra.body for extra in file.extras] + [layer.payload for layer in file.layers])


def join_tiles(payloads: Sequence[bytes]) -> bytes:
    """A layer's payload of the payloads of its tiles: their byte counts, then they themselves.

    Example:
        >>> from ohmq.bitstream.reader import split_tiles
        >>> join_tiles([b"abc", b"", b"z"])
        b'\\x03\\x00\\x01abcz'
        >>> split_tiles(b"\\x03\\x00\\x01abcz", 3)
        [b'abc', b'', b'z']
    """
    return b"".join([*(encode_varint(len(payload)) for payload in payloads), *payloads])
