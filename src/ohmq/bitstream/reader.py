"""Reading and checking ``.ohm`` files. Standard library alone."""

import zlib
from typing import Any

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
    Extra,
    ExtraInfo,
    ExtraType,
    HeaderInfo,
    Layer,
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
from ohmq.errors import BitstreamError, ChecksumError, NotOhmFileError, TruncatedFileError, UnsupportedVersionError

__all__ = ["FieldReader", "as_bytes", "read_extra", "read_header", "read_layer", "read_ohm", "split_tiles"]


class FieldReader:
    """Cursor over the fields of a header; too few bytes raise `TruncatedFileError`.

    Args:
        data: bytes that begin with the first field.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def take(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        field = self.data[self.position : self.position + count]
        if len(field) < count:
            raise TruncatedFileError(f"the file ends inside its header, after {len(self.data)} bytes")
        self.position += count
        return field

    def varint(self) -> int:
        """Return the next number, as `ohmq.bitstream.writer.encode_varint` writes it."""
        value = 0
        for shift in range(0, 7 * MAX_VARINT_BYTES, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                if byte == 0 and shift:
                    break
                return value
        raise BitstreamError("the header holds a number that is not in its shortest form: the file is damaged")

    def uint32(self) -> int:
        """Return the next number of 4 bytes, the highest first."""
        return int.from_bytes(self.take(4), "big")


def as_bytes(data: Any) -> bytes:
    """Return the bytes of a file.

    Args:
        data: bytes, bytearray or memoryview.

    Raises:
        TypeError: anything else, such as the name of a file.
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"{type(data).__name__}; expected the bytes of an .ohm file")


def read_header(data: bytes) -> HeaderInfo:
    """Read and check the header; the payloads may be missing.

    Args:
        data: the file, or at least its header.

    Returns:
        The header.

    Raises:
        NotOhmFileError: the signature is missing.
        UnsupportedVersionError: a newer format or unknown features.
        TruncatedFileError: the data end inside the header.
        ChecksumError: the header is damaged.
        BitstreamError: a field outside its range.
    """
    data = as_bytes(data)
    reader = FieldReader(data)
    version, flags = _read_signature(reader)
    model_id = reader.take(4)
    width, height, count = reader.varint(), reader.varint(), reader.varint()
    # Before the checksum: these bound the length of the header.
    _check(size_error(width, height))
    _check(layer_count_error(count))
    layers = tuple(LayerInfo(reader.varint(), reader.varint(), reader.uint32()) for _ in range(count))
    tile = reader.varint() if flags & FLAG_TILED else 0
    extras: tuple[ExtraInfo, ...] = ()
    if flags & FLAG_EXTRAS:
        count = reader.varint()
        _check(extra_count_error(count))
        extras = tuple(ExtraInfo(reader.varint(), reader.varint(), reader.uint32()) for _ in range(count))
    residual = ResidualInfo(reader.varint(), reader.take(4)) if flags & FLAG_RESIDUAL else None
    checksum = zlib.crc32(data[: reader.position])
    if reader.uint32() != checksum:
        raise ChecksumError("the header is damaged: its checksum does not match")
    _check(layers_error(layers))
    if flags & FLAG_TILED:
        _check(tile_error(tile))
    _check(extras_error(width, height, len(layers), extras))
    grey, fixed_rate = bool(flags & FLAG_GREY), bool(flags & FLAG_FIXED_RATE)
    if residual:
        _check(residual_error(residual, grey=grey, fixed_rate=fixed_rate))
    unknown = [extra.type for extra in extras if extra.type < FREE_EXTRA_TYPES and extra.type not in set(ExtraType)]
    if unknown:
        raise UnsupportedVersionError(
            f"the file has an extra of type {unknown[0]}, which this release does not know: update ohmq"
        )
    size = reader.position
    return HeaderInfo(
        version=version,
        model_id=model_id,
        width=width,
        height=height,
        grey=grey,
        fixed_rate=fixed_rate,
        layers=layers,
        header_bytes=size,
        file_bytes=size + sum(extra.length for extra in extras) + sum(layer.length for layer in layers),
        tile=tile,
        extras=extras,
        residual=residual,
    )


def _read_signature(reader: FieldReader) -> tuple[int, int]:
    """Read the signature, the format version and the flags; returns the last two."""
    if not reader.data:
        raise NotOhmFileError("the file is empty")
    if reader.data[:4] != MAGIC[: len(reader.data)]:
        raise NotOhmFileError("not an .ohm file: it does not begin with the signature 93 4F 48 4D")
    reader.take(4)
    version, flags = reader.take(2)
    if version == 0:
        raise BitstreamError(
            f"format version 0 does not exist (this release reads {FORMAT_VERSION}): the file is damaged"
        )
    if version != FORMAT_VERSION:
        raise UnsupportedVersionError(f"format version {version}; this release reads {FORMAT_VERSION}: update ohmq")
    if flags & ~(FLAG_FIXED_RATE | FLAG_GREY | FLAG_EXTRAS | FLAG_TILED | FLAG_RESIDUAL):
        raise UnsupportedVersionError(
            f"the file uses features (flags {flags:#04x}) this release does not know: update ohmq"
        )
    return version, flags


def _check(error: str | None) -> None:
    if error:
        raise BitstreamError(f"the header says {error}")


def read_extra(info: ExtraInfo, body: bytes) -> Extra:
    """Check the body of an extra.

    Args:
        info: its entry of the extras index.
        body: its bytes, fewer where the file ends early.

    Returns:
        The extra.

    Raises:
        TruncatedFileError: bytes are missing.
        ChecksumError: the body is damaged.
    """
    if len(body) < info.length:
        raise TruncatedFileError(f"the file ends inside its extra of type {info.type}, before the first layer")
    if zlib.crc32(body) != info.crc32:
        raise ChecksumError(f"the extra of type {info.type} is damaged: its checksum does not match")
    return Extra(info.type, body)


def read_layer(info: LayerInfo, payload: bytes, number: int) -> Layer:
    """Check the payload of a layer.

    Args:
        info: its entry of the layer index.
        payload: its bytes, fewer where the file ends early.
        number: of the layer, from 1, for messages.

    Returns:
        The layer.

    Raises:
        TruncatedFileError: bytes are missing.
        ChecksumError: the payload is damaged.
    """
    if len(payload) < info.length:
        raise TruncatedFileError(f"the file ends inside layer {number}")
    if zlib.crc32(payload) != info.crc32:
        raise ChecksumError(f"layer {number} is damaged: its checksum does not match")
    return Layer(info.channels, payload)


def read_ohm(data: bytes, *, allow_truncated: bool = False) -> OhmFile:
    """Read and check a file.

    Args:
        data: the file.
        allow_truncated: if the file ends early or a payload is damaged, keep the whole, undamaged layers before that
            place. Default: False.

    Returns:
        The content of the file.

    Raises:
        TruncatedFileError: bytes are missing (with allow_truncated: even of the first layer).
        ChecksumError: an extra or a payload is damaged (with allow_truncated: an extra or the first payload).
        BitstreamError: any other error of `read_header`, or bytes after the end.
    """
    data = as_bytes(data)
    header = read_header(data)
    if len(data) < header.file_bytes and not allow_truncated:
        raise TruncatedFileError(f"the file has {len(data)} bytes; its header announces {header.file_bytes}")
    if len(data) > header.file_bytes:
        raise BitstreamError(f"{len(data) - header.file_bytes} bytes follow the end of the file")
    start = header.header_bytes
    extras = []
    for extra in header.extras:
        extras.append(read_extra(extra, data[start : start + extra.length]))
        start += extra.length
    layers: list[Layer] = []
    for number, layer in enumerate(header.layers, start=1):
        try:
            layers.append(read_layer(layer, data[start : start + layer.length], number))
        except (TruncatedFileError, ChecksumError):
            if not allow_truncated or not layers:
                raise
            break
        start += layer.length
    return OhmFile(
        model_id=header.model_id,
        width=header.width,
        height=header.height,
        grey=header.grey,
        fixed_rate=header.fixed_rate,
        layers=tuple(layers),
        tile=header.tile,
        extras=tuple(extras),
        residual=header.residual,
    )


def split_tiles(payload: bytes, count: int) -> list[bytes]:
    """Split the payload of a layer into those of its tiles; `ohmq.bitstream.writer.join_tiles` is the inverse.

    Args:
        payload: of the layer.
        count: tiles of the image.

    Returns:
        The payload of each tile, in raster order.

    Raises:
        BitstreamError: the byte counts are damaged, or do not sum to the bytes that follow them.
    """
    reader = FieldReader(payload)
    try:
        lengths = [reader.varint() for _ in range(count)]
    except BitstreamError as error:
        raise BitstreamError(f"the byte counts of a layer's {count} tiles are damaged") from error
    if sum(lengths) != len(payload) - reader.position:
        raise BitstreamError(
            f"a layer's {count} tiles have {sum(lengths)} bytes by their counts; {len(payload) - reader.position} are there"
        )
    return [reader.take(length) for length in lengths]
