"""Writing ``.ohm`` files. Standard library alone."""

import struct
import zlib
from collections.abc import Sequence

from ohmq.bitstream.format import (
    FLAG_EXTRAS,
    FLAG_FIXED_RATE,
    FLAG_GREY,
    FLAG_RESIDUAL,
    FLAG_TILED,
    FORMAT_VERSION,
    FREE_EXTRA_TYPES,
    MAGIC,
    MAX_VARINT_BYTES,
    ExtraInfo,
    ExtraType,
    LayerInfo,
    OhmFile,
    ResidualInfo,
    extra_count_error,
    extras_error,
    layer_count_error,
    layers_error,
    residual_error,
    size_error,
    tile_error,
)

__all__ = ["encode_header", "encode_varint", "join_tiles", "write_ohm"]


def encode_varint(value: int) -> bytes:
    """Encode a non-negative number in groups of 7 bits, the lowest first (LEB128).

    Example:
        >>> encode_varint(300).hex()
        'ac02'
    """
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_header(
    *,
    model_id: bytes,
    width: int,
    height: int,
    grey: bool,
    fixed_rate: bool,
    layers: Sequence[LayerInfo],
    tile: int,
    extras: Sequence[ExtraInfo],
    residual: ResidualInfo | None,
) -> bytes:
    """Encode a header; the fields are not checked.

    Args:
        model_id: as in `OhmFile`.
        width: in pixels.
        height: in pixels.
        grey: as in `OhmFile`.
        fixed_rate: as in `OhmFile`.
        layers: the layer index.
        tile: as in `OhmFile`; 0: no tiles.
        extras: the extras index; may be empty.
        residual: as in `OhmFile`.

    Returns:
        The header with its checksum.
    """
    flags = FLAG_FIXED_RATE * fixed_rate | FLAG_GREY * grey | FLAG_EXTRAS * bool(extras) | FLAG_TILED * bool(tile)
    flags |= FLAG_RESIDUAL * bool(residual)
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
    if residual:
        header += encode_varint(residual.step) + residual.decoder_id
    return bytes(header + struct.pack(">I", zlib.crc32(header)))


def write_ohm(file: OhmFile) -> bytes:
    """Encode a file.

    Args:
        file: its content.

    Returns:
        The bytes of the file.

    Raises:
        ValueError: a field outside its range.
    """
    layers = [LayerInfo(layer.channels, len(layer.payload), zlib.crc32(layer.payload)) for layer in file.layers]
    extras = [ExtraInfo(extra.type, len(extra.body), zlib.crc32(extra.body)) for extra in file.extras]
    error = (
        _model_id_error(file.model_id)
        or size_error(file.width, file.height)
        or layer_count_error(len(layers))
        or layers_error(layers)
        or (tile_error(file.tile) if file.tile else None)
        or (extra_count_error(len(extras)) if extras else None)
        or _extra_types_error(extras)
        or extras_error(file.width, file.height, len(layers), extras)
        or (_residual_error(file, file.residual) if file.residual else None)
    )
    if error:
        raise ValueError(error)
    header = encode_header(
        model_id=file.model_id,
        width=file.width,
        height=file.height,
        grey=bool(file.grey),
        fixed_rate=bool(file.fixed_rate),
        layers=layers,
        tile=file.tile,
        extras=extras,
        residual=file.residual,
    )
    return header + b"".join([extra.body for extra in file.extras] + [layer.payload for layer in file.layers])


def _model_id_error(model_id: bytes) -> str | None:
    return None if len(model_id) == 4 else f"a model id has 4 bytes, not {len(model_id)}"


def _residual_error(file: OhmFile, residual: ResidualInfo) -> str | None:
    if len(residual.decoder_id) != 4:
        return f"a decoder id has 4 bytes, not {len(residual.decoder_id)}"
    return residual_error(residual, grey=file.grey, fixed_rate=file.fixed_rate)


def _extra_types_error(extras: Sequence[ExtraInfo]) -> str | None:
    """Say which extra has a type that this release does not write."""
    for extra in extras:
        if not (extra.type in set(ExtraType) or FREE_EXTRA_TYPES <= extra.type < 2 ** (7 * MAX_VARINT_BYTES)):
            return (
                f"an extra of type {extra.type}; known are {[*map(int, ExtraType)]}, free {FREE_EXTRA_TYPES} and above"
            )
    return None


def join_tiles(payloads: Sequence[bytes]) -> bytes:
    """Join the payloads of the tiles of a layer into the layer's payload: their byte counts, then the payloads.

    Args:
        payloads: one for each tile, in raster order.

    Returns:
        The payload of the layer; `ohmq.bitstream.reader.split_tiles` is the inverse.

    Example:
        >>> from ohmq.bitstream.reader import split_tiles
        >>> join_tiles([b"abc", b"", b"z"])
        b'\\x03\\x00\\x01abcz'
        >>> split_tiles(b"\\x03\\x00\\x01abcz", 3)
        [b'abc', b'', b'z']
    """
    return b"".join([*(encode_varint(len(payload)) for payload in payloads), *payloads])
