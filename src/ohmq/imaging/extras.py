"""The extras of an ``.ohm`` file: the mask of transparency and metadata, from a Pillow image and back onto one.

Bodies are checked before anything is decoded: `docs/file-format.md` says what each must be.
"""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from PIL import Image, PngImagePlugin

from ohmq.bitstream.format import MAX_EXTRA_BYTES, Extra, ExtraType
from ohmq.errors import BitstreamError

__all__ = ["METADATA", "Decoded", "decode_extras", "decode_mask", "encode_mask", "metadata_error", "split_extras"]

METADATA = {ExtraType.EXIF: "exif", ExtraType.ICC: "icc_profile", ExtraType.XMP: "xmp"}
"""Where Pillow keeps each kind, in ``Image.info``."""

_PNG, _EXIF = b"\x89PNG\r\n\x1a\n", b"Exif\0\0"
_STEP = 2**20


class Decoded(NamedTuple):
    """What the extras of a file stand for.

    Attributes:
        mask: mode "L", 0 transparent to 255 opaque; None: opaque everywhere. info: metadata as in Pillow's ``info``.
    """

    mask: Image.Image | None
    info: dict[str, bytes]

    def onto(self, picture: Image.Image) -> Image.Image:
        """Give a decoded picture its mask and metadata."""
        if self.mask is not None:
            picture.putalpha(self.mask)
        picture.info.update(self.info.items())
        return picture


def split_extras(picture: Image.Image) -> tuple[Image.Image, tuple[Extra, ...]]:
    """The colours of a picture, and the extras that hold its mask and metadata.

    Args:
        picture: mode "L", "LA", "RGB" or "RGBA", as `ohmq.imaging.convert.prepare_image` gives it.

    Returns:
        An image of mode "L" or "RGB", and the extras by ascending type.
    """
    extras = []
    colours = picture
    if picture.mode in ("LA", "RGBA"):
        mask, colours = picture.getchannel("A"), picture.convert(picture.mode.removesuffix("A"))
        mask.info = {}
        extras.append(Extra(ExtraType.ALPHA, encode_mask(mask)))
    for kind, name in METADATA.items():
        if name in picture.info:
            extras.append(Extra(kind, picture.info[name].removeprefix(_EXIF)))
    return colours, tuple(extras)


def decode_extras(extras: Iterable[Extra], width: int, height: int) -> Decoded:
    """What the extras of a file of that size stand for; free types are passed over.

    Raises:
        BitstreamError: a body that is not what its type asks for.
    """
    mask, info = None, {}
    for extra in extras:
        if extra.type == ExtraType.ALPHA:
            mask = decode_mask(extra.body, width, height)
        elif extra.type in METADATA:
            kind = ExtraType(extra.type)
            if error := metadata_error(kind, extra.body):
                raise BitstreamError(f"{error}: the file is damaged")
            info[METADATA[kind]] = (_EXIF if kind == ExtraType.EXIF else b"") + extra.body
    return Decoded(mask, info)


def metadata_error(kind: ExtraType, body: bytes) -> str | None:
    """Why a file cannot hold such metadata, if so."""
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
    """A PNG stream of a mask (mode "L", without ``info``), 1 bit a pixel if it is 0 or 255 everywhere, else 8."""
    levels = mask.histogram()
    if levels[0] + levels[255] == sum(levels):
        mask = mask.convert("1", dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    mask.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def decode_mask(data: bytes, width: int, height: int) -> Image.Image:
    """The mask in a PNG stream; nothing is allocated before all of it is known to be right.

    Returns:
        Mode "L".

    Raises:
        BitstreamError: other chunks than IHDR, IDAT and IEND, another size, kind or length than announced, or damage.
    """
    chunks = _chunks(data)
    name, header = next(chunks, (b"", b""))
    if name != b"IHDR" or len(header) != 13:
        raise BitstreamError("the mask's PNG stream does not begin with a header")
    found_width, found_height, bits, *rest = struct.unpack(">IIBBBBB", header)
    if (found_width, found_height) != (width, height):
        raise BitstreamError(f"the mask has {found_width}x{found_height} pixels, its picture {width}x{height}")
    if bits not in (1, 8) or rest != [0, 0, 0, 0]:
        raise BitstreamError("the mask is not a grey PNG of 1 or 8 bits that is not interlaced")
    _check_pixels(_packed(chunks), 1 + -(-width * bits // 8), height)
    try:
        with PngImagePlugin.PngImageFile(io.BytesIO(data)) as image:
            return image.convert("L")
    except Exception as error:  # a damaged PNG makes Pillow raise nearly anything
        raise BitstreamError(f"the mask's PNG stream is damaged ({error})") from error


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and body of each chunk of a PNG stream, checksums checked."""
    if not data.startswith(_PNG):
        raise BitstreamError("the mask is not a PNG stream")
    position = len(_PNG)
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
    """The bodies of IDAT chunks, then an IEND chunk and no other."""
    for name, body in chunks:
        if name == b"IDAT":
            yield body
        elif name == b"IEND" and not body and next(chunks, None) is None:
            return
        else:
            break
    raise BitstreamError("the mask's PNG stream must be made of IHDR, IDAT and IEND chunks alone")


def _check_pixels(packed: Iterable[bytes], row: int, rows: int) -> None:
    """That zlib data hold so many rows, each after a valid filter number, and nothing else; in bounded memory."""
    unpacker, size = zlib.decompressobj(), 0
    try:
        for part in packed:
            piece = bytes(_STEP)
            while part or len(piece) == _STEP:  # what does not fit into a step may still be inside
                piece = unpacker.decompress(part, _STEP)
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
