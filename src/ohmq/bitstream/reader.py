"""src/ohmq/bitstream/reader.py."""

import struct
import zlib
from typing import Any

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
    Extra,
    ExtraInfo,
    ExtraType,
    HeaderInfo,
    Layer,
    LayerInfo,
    OhmFile,
    extras_error,
)
from ohmq.errors import BitstreamError, ChecksumError, NotOhmFileError, TruncatedFileError, UnsupportedVersionError

__all__ = ["as_bytes", "read_extra", "read_header", "read_ohm", "split_tiles"]


class FieldReader:
    """Takes fields off the front of the data; too few bytes raise TruncatedFileError."""

    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def take(self, count: int) -> bytes:
        part = self.data[self.position : self.position + count]
        if len(part) < count:
            raise TruncatedFileError(f"the file ends inside its header, after {len(self.data)} bytes")
        self.position += count
        return part

    def varint(self) -> int:
        value = 0
        for shift in range(0, 7 * MAX_VARINT_BYTES, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                if byte == 0 and shift:
                    break
                return value
        raise BitstreamError("the header holds a number that is not in its shortest form: the file is damaged")


def as_bytes(data: Any) -> bytes:
    """The bytes of a file that is given as bytes or what is like them.

    Raises:
        TypeError: anything else, such as the name of a file.
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"{type(data).__name__}; expected the bytes of an .ohm file")


def read_header(data: bytes) -> HeaderInfo:
    """Read and check the header; the payloads need not be there.

    Args:
        data: the file, or at least its header.

    Raises:
        NotOhmFileError: the signature is missing.
        UnsupportedVersionError: a newer format or unknown features.
        TruncatedFileError: the data end inside the header.
        ChecksumError: the header is damaged.
        BitstreamError: a field outside its range.
    """
    data = as_bytes(data)
    if not data:
        raise NotOhmFileError("the file is empty")
    if data[:4] != MAGIC[: len(data)]:
        raise NotOhmFileError("not an .ohm file: it does not begin with the signature 93 4F 48 4D")
    reader = FieldReader(data)
    reader.take(4)
    version, flags = reader.take(2)
    if version == 0:
        raise BitstreamError(
            f"format version 0 does not exist (this release reads {FORMAT_VERSION}): the file is damaged"
        )
    if version != FORMAT_VERSION:
        raise UnsupportedVersionError(f"format version {version}; this release reads {FORMAT_VERSION}: update ohmq")
    if flags & ~(FLAG_FIXED_RATE | FLAG_GREY | FLAG_EXTRAS | FLAG_TILED):
        raise UnsupportedVersionError(
            f"the file uses features (flags {flags:#04x}) this release does not know: update ohmq"
        )
    model_id = reader.take(4)
    width, height, count = reader.varint(), reader.varint(), reader.varint()
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise BitstreamError(f"the header says {width}x{height} pixels; each side must be 1 to {MAX_SIDE}")
    if not 1 <= count <= MAX_LAYERS:
        raise BitstreamError(f"the header says {count} layers; it must be 1 to {MAX_LAYERS}")
    layers = tuple(
        LayerInfo(reader.varint(), reader.varint(), struct.unpack(">I", reader.take(4))[0]) for _ in range(count)
    )
    tile = reader.varint() if flags & FLAG_TILED else 0
    extras: tuple[ExtraInfo, ...] = ()
    if flags & FLAG_EXTRAS:
        count = reader.varint()
        if not 1 <= count <= MAX_EXTRAS:
            raise BitstreamError(f"the header says {count} extras; it must be 1 to {MAX_EXTRAS}")
        extras = tuple(
            ExtraInfo(reader.varint(), reader.varint(), struct.unpack(">I", reader.take(4))[0]) for _ in range(count)
        )
    found = zlib.crc32(data[: reader.position])
    if struct.unpack(">I", reader.take(4))[0] != found:
        raise ChecksumError("the header is damaged: its checksum does not match")
    channels = sum(layer.channels for layer in layers)
    if min(layer.channels for layer in layers) < 1 or channels > MAX_CHANNELS:
        raise BitstreamError(f"the header says {channels} channels; every layer has one, all at most {MAX_CHANNELS}")
    if max(layer.length for layer in layers) > MAX_PAYLOAD:
        raise BitstreamError(f"the header says a layer of more than {MAX_PAYLOAD} bytes")
    if flags & FLAG_TILED and not 1 <= tile <= MAX_TILE:
        raise BitstreamError(f"the header says tiles of {tile} positions; a tile has 1 to {MAX_TILE} each side")
    if error := extras_error(width, height, len(layers), extras):
        raise BitstreamError(f"the header says {error}")
    unknown = [extra.type for extra in extras if extra.type < FREE_EXTRA_TYPES and extra.type not in set(ExtraType)]
    if unknown:
        raise UnsupportedVersionError(
            f"the file has an extra of type {unknown[0]}, which this release does not know: update ohmq"
        )
    size = reader.position
    total = size + sum(extra.length for extra in extras) + sum(layer.length for layer in layers)
    return HeaderInfo(
        version,
        model_id,
        width,
        height,
        bool(flags & FLAG_GREY),
        bool(flags & FLAG_FIXED_RATE),
        layers,
        size,
        total,
        tile,
        extras,
    )


def read_extra(info: ExtraInfo, body: bytes) -> Extra:
    """Check the body of an extra.

    Raises:
        TruncatedFileError: bytes are missing. ChecksumError: it is damaged.
    """
    if len(body) < info.length:
        raise TruncatedFileError(f"the file ends inside its extra of type {info.type}, before the first layer")
    if zlib.crc32(body) != info.crc32:
        raise ChecksumError(f"the extra of type {info.type} is damaged: its checksum does not match")
    return Extra(info.type, body)


def read_ohm(data: bytes, *, allow_truncated: bool = False) -> OhmFile:
    """Read and check a file.

    Args:
        data: the file.
        allow_truncated: if it ends early or a payload is damaged, keep the whole, undamaged layers before that place.

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
    for number, info in enumerate(header.layers, start=1):
        payload = data[start : start + info.length]
        start += info.length
        if len(payload) < info.length:
            error: BitstreamError = TruncatedFileError(f"the file ends inside layer {number}")
        elif zlib.crc32(payload) != info.crc32:
            error = ChecksumError(f"layer {number} is damaged: its checksum does not match")
        else:
            layers.append(Layer(info.channels, payload))
            continue
        if not allow_truncated or not layers:
            raise error
        break
    return OhmFile(
        header.model_id,
        header.width,
        header.height,
        header.grey,
        header.fixed_rate,
        tuple(layers),
        header.tile,
        tuple(extras),
    )


def split_tiles(payload: bytes, count: int) -> list[bytes]:
    """The payloads of the ``count`` tiles of a layer: the inverse of `join_tiles`.

    Raises:
        BitstreamError: the byte counts are damaged, or do not sum to what follows them.
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
