"""The extras of an ``.ohm`` file: the alpha mask and metadata, from a Pillow image and back onto one.

Bodies are checked before anything is decoded; `docs/file-format.md` describes them.
"""

import contextlib
import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from PIL import ExifTags, Image, PngImagePlugin

from ohmq.bitstream.format import MAX_EXTRA_BYTES, Extra, ExtraType
from ohmq.errors import BitstreamError
from ohmq.utils.recorded_warnings import recorded_warnings

__all__ = [
    "METADATA",
    "DecodedExtras",
    "checked_resolution",
    "decode_extras",
    "decode_mask",
    "encode_mask",
    "exif_resolution",
    "metadata_error",
    "split_extras",
]

METADATA = {ExtraType.EXIF: "exif", ExtraType.ICC: "icc_profile", ExtraType.XMP: "xmp"}
"""Name of each kind of metadata in Pillow's ``Image.info``."""

_PNG_SIGNATURE, _EXIF_PREFIX = b"\x89PNG\r\n\x1a\n", b"Exif\0\0"
_PIECE_BYTES = 2**20
"""Bytes that are unpacked at once."""


class DecodedExtras(NamedTuple):
    """Decoded extras of a file.

    Attributes:
        mask: mode "L", 0 transparent to 255 opaque; None: opaque everywhere.
        info: metadata as in Pillow's ``info``, with the resolution that EXIF data give as "dpi".
    """

    mask: Image.Image | None
    info: dict[str, Any]

    def onto(self, image: Image.Image) -> Image.Image:
        """Give a decoded image its mask and metadata, in place; return it.

        Args:
            image: the decoded image, mode "L" or "RGB".
        """
        if self.mask is not None:
            image.putalpha(self.mask)
        image.info.update(self.info.items())
        return image

    def reduced(self, scale: int) -> "DecodedExtras":
        """Return the extras of a thumbnail: means of the mask, and the same metadata.

        Args:
            scale: divisor of width and height.
        """
        return self if self.mask is None else self._replace(mask=self.mask.reduce(scale))


def split_extras(image: Image.Image) -> tuple[Image.Image, tuple[Extra, ...]]:
    """Split an image into its colours and the extras that hold its mask and metadata.

    Args:
        image: mode "L", "LA", "RGB" or "RGBA", such as a result of `ohmq.imaging.convert.prepare_image`.

    Returns:
        An image of mode "L" or "RGB", and the extras in ascending order of their types.
    """
    extras = []
    colours = image
    if image.mode in ("LA", "RGBA"):
        mask, colours = image.getchannel("A"), image.convert(image.mode.removesuffix("A"))
        mask.info = {}
        extras.append(Extra(ExtraType.ALPHA, encode_mask(mask)))
    for kind, name in METADATA.items():
        if name in image.info:
            extras.append(Extra(kind, image.info[name].removeprefix(_EXIF_PREFIX)))
    return colours, tuple(extras)


def decode_extras(extras: Iterable[Extra], width: int, height: int) -> DecodedExtras:
    """Decode the extras of a file; free types are ignored.

    Args:
        extras: of the file.
        width: of the image, in pixels.
        height: of the image, in pixels.

    Raises:
        BitstreamError: a body that does not fit its type.
    """
    mask: Image.Image | None = None
    info: dict[str, Any] = {}
    for extra in extras:
        if extra.type == ExtraType.ALPHA:
            mask = decode_mask(extra.body, width, height)
        elif extra.type in METADATA:
            kind = ExtraType(extra.type)
            if error := metadata_error(kind, extra.body):
                raise BitstreamError(f"{error}: the file is damaged")
            info[METADATA[kind]] = (_EXIF_PREFIX if kind == ExtraType.EXIF else b"") + extra.body
            if kind == ExtraType.EXIF and (resolution := exif_resolution(extra.body)):
                info["dpi"] = resolution
    return DecodedExtras(mask, info)


def exif_resolution(exif: bytes) -> tuple[float, float] | None:
    """Return the resolution that EXIF data give, in pixels per inch, across and down; None if they give none.

    Args:
        exif: EXIF data, with or without the prefix of JPEG.
    """
    # Damaged metadata make Pillow warn, and raise nearly anything.
    with recorded_warnings(), contextlib.suppress(Exception):
        tags = Image.Exif()
        tags.load(exif)
        across, down = (float(tags[tag]) for tag in (ExifTags.Base.XResolution, ExifTags.Base.YResolution))
        unit = tags.get(ExifTags.Base.ResolutionUnit, 2)
        factor = {2: 1.0, 3: 2.54}.get(unit)  # inch, centimetre
        if factor is not None:
            return checked_resolution((across * factor, down * factor))
    return None


def checked_resolution(value: Any) -> tuple[float, float] | None:
    """Return a resolution as two floats, across and down; None if it is not one.

    Args:
        value: as Pillow's ``info["dpi"]``, in pixels per inch.
    """
    with contextlib.suppress(TypeError, ValueError, ZeroDivisionError, OverflowError):
        across, down = map(float, value)
        if 0 < across < 1e6 and 0 < down < 1e6:
            return across, down
    return None


def metadata_error(kind: ExtraType, body: bytes) -> str | None:
    """Say why a file cannot hold this metadata; None if it can.

    Args:
        kind: EXIF, ICC or XMP.
        body: the metadata.
    """
    if len(body) > MAX_EXTRA_BYTES:
        return f"{kind.name} of {len(body)} bytes; a file holds at most {MAX_EXTRA_BYTES}"
    if kind == ExtraType.EXIF and not (len(body) >= 8 and body.startswith((b"II*\0", b"MM\0*"))):
        return "EXIF that does not begin with II*\\0 or MM\\0*"
    if kind == ExtraType.ICC and not (len(body) >= 128 and body[36:40] == b"acsp"):
        return "an ICC profile without the signature of one"
    if kind == ExtraType.XMP:
        try:
            body.decode()
        except UnicodeDecodeError:
            return "XMP that is not UTF-8"
    return None


def encode_mask(mask: Image.Image) -> bytes:
    """Encode a mask as a PNG stream: 1 bit a pixel if it is 0 or 255 everywhere, else 8.

    Args:
        mask: mode "L", without ``info``.
    """
    levels = mask.histogram()
    if levels[0] + levels[255] == sum(levels):
        mask = mask.convert("1", dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    mask.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def decode_mask(data: bytes, width: int, height: int) -> Image.Image:
    """Decode the PNG stream of a mask; nothing is allocated before the whole stream is checked.

    Args:
        data: the stream.
        width: of the image, in pixels.
        height: of the image, in pixels.

    Returns:
        Mode "L".

    Raises:
        BitstreamError: other chunks than IHDR, IDAT and IEND, another size, kind or length than announced, or damage.
    """
    chunks = _chunks(data)
    name, header = next(chunks, (b"", b""))
    if name != b"IHDR" or len(header) != 13:
        raise BitstreamError("the mask's PNG stream does not begin with a header")
    mask_width, mask_height, bits, *rest = struct.unpack(">IIBBBBB", header)
    if (mask_width, mask_height) != (width, height):
        raise BitstreamError(f"the mask has {mask_width}x{mask_height} pixels, its image {width}x{height}")
    if bits not in (1, 8) or rest != [0, 0, 0, 0]:
        raise BitstreamError("the mask is not a grey PNG of 1 or 8 bits that is not interlaced")
    _check_pixels(_packed(chunks), 1 + -(-width * bits // 8), height)
    try:
        with PngImagePlugin.PngImageFile(io.BytesIO(data)) as image:
            return image.convert("L")
    except Exception as error:  # a damaged PNG makes Pillow raise nearly anything
        raise BitstreamError(f"the mask's PNG stream is damaged ({error})") from error


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and body of each chunk of a PNG stream; checks the checksums."""
    if not data.startswith(_PNG_SIGNATURE):
        raise BitstreamError("the mask is not a PNG stream")
    position = len(_PNG_SIGNATURE)
    while position < len(data):
        length, name = struct.unpack(">I4s", data[position : position + 8].ljust(8, b"\xff"))
        end = position + 8 + length
        if end + 4 > len(data):
            raise BitstreamError("the mask's PNG stream ends inside a chunk")
        body = data[position + 8 : end]
        if zlib.crc32(name + body) != int.from_bytes(data[end : end + 4], "big"):
            raise BitstreamError("the mask's PNG stream is damaged: a checksum does not match")
        yield name, body
        position = end + 4


def _packed(chunks: Iterator[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """Yield the bodies of IDAT chunks; checks that an IEND chunk follows and nothing else."""
    for name, body in chunks:
        if name == b"IDAT":
            yield body
        elif name == b"IEND" and not body and next(chunks, None) is None:
            return
        else:
            break
    raise BitstreamError("the mask's PNG stream must be made of IHDR, IDAT and IEND chunks alone")


def _check_pixels(packed: Iterable[bytes], row: int, rows: int) -> None:
    """Check that zlib data hold ``rows`` rows of ``row`` bytes, each with a valid filter number; in bounded memory."""
    unpacker, size = zlib.decompressobj(), 0
    try:
        for part in packed:
            piece = bytes(_PIECE_BYTES)
            while part or len(piece) == _PIECE_BYTES:  # after a full piece, more output may be pending
                piece = unpacker.decompress(part, _PIECE_BYTES)
                part = unpacker.unconsumed_tail
                if max(piece[-size % row :: row], default=0) > 4:
                    raise BitstreamError("the mask's PNG stream has an unknown filter")
                size += len(piece)
                if size > row * rows:
                    raise BitstreamError(f"the mask unpacks to more than the {row * rows} bytes of its size")
            if unpacker.unused_data:
                raise BitstreamError("bytes follow the end of the mask's pixels")
    except zlib.error as error:
        raise BitstreamError(f"the mask's PNG stream is damaged ({error})") from error
    if size != row * rows or not unpacker.eof:
        raise BitstreamError(f"the mask unpacks to {size} bytes; its size needs {row * rows}")
