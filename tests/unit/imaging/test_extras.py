"""Masks and metadata: in a file and back, and what is refused before it is decoded."""

import struct
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFile

from ohmq.bitstream.format import Extra, ExtraType
from ohmq.errors import BitstreamError
from ohmq.imaging.extras import decode_extras, decode_mask, encode_mask, split_extras

EXIF, XMP, ICC = b"II*\0\x08\0\0\0\0\0", "<x:xmpmeta>ö</x:xmpmeta>".encode(), bytes(36) + b"acsp" + bytes(88)


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def header(width: int = 9, height: int = 5, bits: int = 8, colour: int = 0, interlaced: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))


START, END = b"\x89PNG\r\n\x1a\n", chunk(b"IEND")
PIXELS = zlib.compress(bytes(50))


def test_masks_of_two_levels_take_one_bit_a_pixel() -> None:
    mask = np.zeros((300, 400), np.uint8)
    mask[40:200, 50:333] = 255
    data = encode_mask(Image.fromarray(mask))
    assert len(data) < 200
    assert data[24] == 1
    assert np.array_equal(np.asarray(decode_mask(data, 400, 300)), mask)
    mask[60, 70] = 254
    data = encode_mask(Image.fromarray(mask))
    assert data[24] == 8
    assert np.array_equal(np.asarray(decode_mask(data, 400, 300)), mask)


def test_masks_of_other_encoders_are_read() -> None:
    pixels = zlib.compress(bytes(50))
    parts = [chunk(b"IDAT", pixels[n : n + 1]) for n in range(len(pixels))]
    found = decode_mask(START + header() + chunk(b"IDAT") + b"".join(parts) + chunk(b"IDAT") + END, 9, 5)
    assert (found.mode, found.size, found.getextrema()) == ("L", (9, 5), (0, 0))


FORGED: list[tuple[bytes, str]] = [
    (b"", "not a PNG"),
    (b"GIF89a", "not a PNG"),
    (START, "does not begin with a header"),
    (START + chunk(b"IDAT", PIXELS) + END, "does not begin with a header"),
    (START + chunk(b"IHDR", b"short") + END, "does not begin with a header"),
    (START + header(9, 6) + chunk(b"IDAT", PIXELS) + END, "mask has 9x6 pixels, its image 9x5"),
    (START + header(2**31 - 1, 2**31 - 1) + chunk(b"IDAT", PIXELS) + END, "2147483647x2147483647"),
    (START + header(bits=16) + chunk(b"IDAT", PIXELS) + END, "not a grey PNG"),
    (START + header(bits=2) + chunk(b"IDAT", PIXELS) + END, "not a grey PNG"),
    (START + header(colour=2) + chunk(b"IDAT", PIXELS) + END, "not a grey PNG"),
    (START + header(colour=4) + chunk(b"IDAT", PIXELS) + END, "not a grey PNG"),
    (START + header(interlaced=1) + chunk(b"IDAT", PIXELS) + END, "not a grey PNG"),
    (START + header() + END, "unpacks to 0 bytes; its size needs 50"),
    (START + header() + chunk(b"IDAT", PIXELS), "IHDR, IDAT and IEND chunks alone"),
    (START + header() + chunk(b"IDAT", PIXELS) + chunk(b"IEND", b"x"), "IHDR, IDAT and IEND chunks alone"),
    (START + header() + chunk(b"IDAT", PIXELS) + END + END, "IHDR, IDAT and IEND chunks alone"),
    (START + header() + header() + chunk(b"IDAT", PIXELS) + END, "IHDR, IDAT and IEND chunks alone"),
    (START + header() + chunk(b"tRNS", b"\0\0") + chunk(b"IDAT", PIXELS) + END, "IHDR, IDAT and IEND chunks alone"),
    (START + header() + chunk(b"IDAT", PIXELS[:-5]) + END, "its size needs 50"),
    (START + header() + chunk(b"IDAT", PIXELS[:-1] + b"?") + END, "damaged"),
    (START + header() + chunk(b"IDAT", PIXELS + b"more") + END, "bytes follow the end"),
    (START + header() + chunk(b"IDAT", zlib.compress(bytes(49))) + END, "unpacks to 49 bytes; its size needs 50"),
    (START + header() + chunk(b"IDAT", zlib.compress(bytes(51))) + END, "more than the 50 bytes"),
    (START + header() + chunk(b"IDAT", zlib.compress(bytes(40) + b"\5" + bytes(9))) + END, "unknown filter"),
    (START + header() + chunk(b"IDAT", PIXELS)[:-1] + b"?" + END, "checksum"),
    (START + header() + chunk(b"IDAT", PIXELS) + END[:-1], "ends inside a chunk"),
    (START + header() + chunk(b"IDAT", PIXELS) + b"\0", "ends inside a chunk"),
]


@pytest.mark.parametrize("truncated_allowed", [False, True])
@pytest.mark.parametrize(("data", "words"), FORGED, ids=range(len(FORGED)))
def test_masks_that_are_refused(
    data: bytes, words: str, truncated_allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Pillow's switch, too: half a mask is no mask."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", truncated_allowed)
    with pytest.raises(BitstreamError, match=words):
        decode_mask(data, 9, 5)


def measured(work: Callable[[], object]) -> int:
    """The peak of Python's memory in bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_bombs_are_refused_before_they_unpack() -> None:
    bomb = zlib.compress(bytes(2**27), 9)  # 128 MiB in 130 KB
    for chunks in (
        chunk(b"zTXt", b"Comment\0\0" + bomb) + chunk(b"IDAT", PIXELS),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb) + chunk(b"IDAT", PIXELS),
        chunk(b"iCCP", b"name\0\0" + bomb) + chunk(b"IDAT", PIXELS),
        chunk(b"IDAT", bomb),
        b"".join(chunk(b"IDAT", bomb[n : n + 1000]) for n in range(0, len(bomb), 1000)),
    ):
        data = START + header() + chunks + END

        def refuse(data: bytes = data) -> None:
            with pytest.raises(BitstreamError, match="alone|more than the 50"):
                decode_mask(data, 9, 5)

        assert measured(refuse) < 8 * 2**20


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_an_image_is_split_and_joined(mode: str) -> None:
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (7, 9, len(mode)), np.uint8)
    image = Image.fromarray(pixels[..., 0] if mode == "L" else pixels)
    assert image.mode == mode
    image.info = {"exif": b"Exif\0\0" + EXIF, "icc_profile": ICC, "xmp": XMP, "dpi": (72, 72)}
    colours, extras = split_extras(image)
    assert colours.mode == mode.removesuffix("A")
    kinds = [ExtraType.EXIF, ExtraType.ICC, ExtraType.XMP]
    assert [extra.type for extra in extras] == ([ExtraType.ALPHA] if mode.endswith("A") else []) + kinds
    assert [extra.body for extra in extras[-3:]] == [EXIF, ICC, XMP]
    joined = decode_extras((*extras, Extra(99, b"not for us")), 9, 7).onto(colours.copy())
    assert (joined.mode, joined.tobytes()) == (mode, image.tobytes())
    assert {name: joined.info[name] for name in ("exif", "icc_profile", "xmp")} == {
        "exif": b"Exif\0\0" + EXIF,
        "icc_profile": ICC,
        "xmp": XMP,
    }


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        (ExtraType.EXIF, b"", "EXIF that does not begin"),
        (ExtraType.EXIF, b"Exif\0\0" + EXIF, "EXIF that does not begin"),
        (ExtraType.EXIF, b"II*\0", "EXIF that does not begin"),
        (ExtraType.ICC, ICC[:100], "ICC profile without the signature"),
        (ExtraType.ICC, bytes(128), "ICC profile without the signature"),
        (ExtraType.XMP, b"\xff\xfe<\0", "XMP that is not UTF-8"),
    ],
)
def test_metadata_that_are_refused(kind: ExtraType, body: bytes, words: str) -> None:
    with pytest.raises(BitstreamError, match=words):
        decode_extras([Extra(kind, body)], 9, 7)
