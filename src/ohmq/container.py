"""The ``.ohm`` file: header, layer index, checksums, payloads. Standard library alone.

The normative description is `docs/file-format.md`. A file holds one picture in layers; every run of leading layers is a
picture at a lower rate, so a file is cut without decoding it.
"""

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from ohmq.errors import (
    BitstreamError,
    ChecksumError,
    NotOhmFileError,
    TruncatedFileError,
    UnsupportedVersionError,
)

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
    "as_bytes",
    "bytes_of_rate",
    "join_tiles",
    "psnr_extra",
    "psnr_table",
    "read_extra",
    "read_header",
    "read_ohm",
    "split_tiles",
    "truncate_ohm",
    "write_ohm",
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
_FIXED_RATE, _GREY, _EXTRAS, _TILED = 1, 2, 4, 8
_VARINT_BYTES = 5
_NO_ERROR = 0xFFFF
_FREE_TYPES = 64
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


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _header(
    model_id: bytes,
    width: int,
    height: int,
    flags: int,
    layers: Sequence[LayerInfo],
    tile: int,
    extras: Sequence[ExtraInfo],
) -> bytes:
    flags |= _EXTRAS * bool(extras) | _TILED * bool(tile)
    header = bytearray(MAGIC + bytes([FORMAT_VERSION, flags]) + model_id)
    header += _varint(width) + _varint(height) + _varint(len(layers))
    for layer in layers:
        header += _varint(layer.channels) + _varint(layer.length) + struct.pack(">I", layer.crc32)
    if tile:
        header += _varint(tile)
    if extras:
        header += _varint(len(extras))
    for extra in extras:
        header += _varint(extra.type) + _varint(extra.length) + struct.pack(">I", extra.crc32)
    return bytes(header + struct.pack(">I", zlib.crc32(header)))


def _extras_error(width: int, height: int, num_layers: int, extras: Sequence[ExtraInfo]) -> str | None:
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
        if not (extra.type in set(ExtraType) or _FREE_TYPES <= extra.type < 2 ** (7 * _VARINT_BYTES)):
            raise ValueError(
                f"an extra of type {extra.type}; known are {[*map(int, ExtraType)]}, free {_FREE_TYPES} and above"
            )
    if error := _extras_error(file.width, file.height, len(file.layers), extras):
        raise ValueError(error)
    infos = [LayerInfo(layer.channels, len(layer.payload), zlib.crc32(layer.payload)) for layer in file.layers]
    flags = _FIXED_RATE * bool(file.fixed_rate) | _GREY * bool(file.grey)
    header = _header(file.model_id, file.width, file.height, flags, infos, file.tile, extras)
    return header + b"".join([extra.body for extra in file.extras] + [layer.payload for layer in file.layers])


class _Reader:
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
        for shift in range(0, 7 * _VARINT_BYTES, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                if byte == 0 and shift:
                    break
                return value
        raise BitstreamError("the header holds a number that is not in its shortest form: the file is damaged")


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
    reader = _Reader(data)
    reader.take(4)
    version, flags = reader.take(2)
    if version == 0:
        raise BitstreamError(
            f"format version 0 does not exist (this release reads {FORMAT_VERSION}): the file is damaged"
        )
    if version != FORMAT_VERSION:
        raise UnsupportedVersionError(f"format version {version}; this release reads {FORMAT_VERSION}: update ohmq")
    if flags & ~(_FIXED_RATE | _GREY | _EXTRAS | _TILED):
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
    tile = reader.varint() if flags & _TILED else 0
    extras: tuple[ExtraInfo, ...] = ()
    if flags & _EXTRAS:
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
    if flags & _TILED and not 1 <= tile <= MAX_TILE:
        raise BitstreamError(f"the header says tiles of {tile} positions; a tile has 1 to {MAX_TILE} each side")
    if error := _extras_error(width, height, len(layers), extras):
        raise BitstreamError(f"the header says {error}")
    unknown = [extra.type for extra in extras if extra.type < _FREE_TYPES and extra.type not in set(ExtraType)]
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
        bool(flags & _GREY),
        bool(flags & _FIXED_RATE),
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


def truncate_ohm(
    data: bytes,
    *,
    num_layers: int | None = None,
    channels: int | None = None,
    fraction: float | None = None,
    max_bytes: int | None = None,
    bpp: float | None = None,
    psnr: float | None = None,
) -> bytes:
    """Cut a file to its leading layers, without decoding it; extras stay. Exactly one limit is given.

    Args:
        data: the file.
        num_layers: how many layers stay.
        channels: keep the most layers that hold at most so many channels.
        fraction: keep the most layers that hold at most this part of the file's channels, rounded up to whole channels.
        max_bytes: keep the most layers whose file has at most so many bytes.
        bpp: keep the most layers whose file has at most so many bits per pixel.
        psnr: keep the fewest layers that have at least so many dB by the file's PSNR table.

    Returns:
        A whole file.

    Raises:
        ValueError: not exactly one limit, or not even one layer satisfies it; the message says the smallest possible.
        BitstreamError: as `read_ohm`.
    """
    if sum(limit is not None for limit in (num_layers, channels, fraction, max_bytes, bpp, psnr)) != 1:
        raise ValueError("give exactly one of num_layers, channels, fraction, max_bytes, bpp and psnr")
    data = as_bytes(data)
    file = read_ohm(data)
    header = read_header(data)
    layers = header.layers
    if psnr is not None:
        num_layers = _layers_of_psnr(data, psnr)
    if num_layers is not None and not 1 <= num_layers <= len(layers):
        raise ValueError(f"num_layers is {num_layers}; this file can keep 1 to {len(layers)} layers")
    if fraction is not None:
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction is {fraction}; it must lie in [0, 1]")
        channels = math.ceil(fraction * file.num_channels)
    if bpp is not None:
        max_bytes = bytes_of_rate(bpp, header.width, header.height)
    flags = _FIXED_RATE * header.fixed_rate | _GREY * header.grey
    for count in range(len(layers), 0, -1):
        kept = layers[:count]
        start = _header(header.model_id, header.width, header.height, flags, kept, header.tile, header.extras)
        length = header.extras_bytes + sum(layer.length for layer in kept)
        if (
            count == num_layers
            or (channels is not None and sum(layer.channels for layer in kept) <= channels)
            or (max_bytes is not None and len(start) + length <= max_bytes)
        ):
            return start + data[header.header_bytes : header.header_bytes + length]
    asked = f"fraction is {fraction}, " if fraction is not None else f"bpp is {bpp}, " if bpp is not None else ""
    if channels is not None:
        raise ValueError(
            f"{asked}channels is {channels}; the first layer alone holds {kept[0].channels}, the smallest possible"
        )
    size = len(start) + length
    raise ValueError(
        f"{asked}max_bytes is {max_bytes}; the first layer alone makes a file of {size} bytes "
        f"({8 * size / (header.width * header.height):.4g} bpp), the smallest possible"
    )


def _layers_of_psnr(data: bytes, psnr: float) -> int:
    """The fewest layers that reach so many dB by the table in the file."""
    if not math.isfinite(psnr):
        raise ValueError(f"psnr is {psnr}; it must be a number of dB")
    values = psnr_table(data)
    if values is None:
        raise ValueError("the file has no PSNR table; compress writes one with --psnr-table (psnr_table=True)")
    for count, value in enumerate(values, start=1):
        if value >= psnr:
            return count
    raise ValueError(f"psnr is {psnr}; the file reaches {max(values):.2f} dB")


def psnr_table(data: bytes) -> tuple[float, ...] | None:
    """The PSNR of the picture after each layer of a file, in dB, rounded down to hundredths.

    Args:
        data: the file, or at least its header and extras.

    Returns:
        inf where nothing differs; None for a file without such a table.

    Raises:
        BitstreamError: as `read_header` and `read_extra`.
    """
    header = read_header(data)
    start = header.header_bytes
    for info in header.extras:
        if info.type == ExtraType.PSNR:
            body = read_extra(info, data[start : start + info.length]).body
            found = struct.unpack(f">{len(body) // 2}H", body)[: len(header.layers)]
            return tuple(math.inf if value == _NO_ERROR else value / 100 for value in found)
        start += info.length
    return None


def psnr_extra(values: Sequence[float]) -> Extra:
    """The extra that keeps the PSNR of the picture after each layer.

    Example:
        >>> psnr_extra([27.129, math.inf]).body.hex()
        '0a98ffff'
    """
    kept = [_NO_ERROR if math.isinf(value) else min(max(0, math.floor(value * 100)), _NO_ERROR - 1) for value in values]
    return Extra(ExtraType.PSNR, struct.pack(f">{len(kept)}H", *kept))


def join_tiles(payloads: Sequence[bytes]) -> bytes:
    """A layer's payload of the payloads of its tiles: their byte counts, then they themselves.

    Example:
        >>> join_tiles([b"abc", b"", b"z"])
        b'\\x03\\x00\\x01abcz'
        >>> split_tiles(b"\\x03\\x00\\x01abcz", 3)
        [b'abc', b'', b'z']
    """
    return b"".join([*(_varint(len(payload)) for payload in payloads), *payloads])


def split_tiles(payload: bytes, count: int) -> list[bytes]:
    """The payloads of the ``count`` tiles of a layer: the inverse of `join_tiles`.

    Raises:
        BitstreamError: the byte counts are damaged, or do not sum to what follows them.
    """
    reader = _Reader(payload)
    try:
        lengths = [reader.varint() for _ in range(count)]
    except BitstreamError as error:
        raise BitstreamError(f"the byte counts of a layer's {count} tiles are damaged") from error
    if sum(lengths) != len(payload) - reader.position:
        raise BitstreamError(
            f"a layer's {count} tiles have {sum(lengths)} bytes by their counts; {len(payload) - reader.position} are there"
        )
    return [reader.take(length) for length in lengths]
