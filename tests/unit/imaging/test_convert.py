"""Conversion of every mode, depth and profile; transparency."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from support.images import grey_profile, photo, saved, srgb_profile
from support.small_models import make_codec, photo_picture

from ohmq.errors import UnsupportedImageError
from ohmq.imaging.convert import ImageConversionWarning, check_size, load_pixels, prepare_image
from ohmq.imaging.files import open_image

MODES = ["1", "L", "LA", "La", "I;16", "I;16B", "I", "F", "P", "PA"]
MODES += ["RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"]


ALPHA = "alpha channel flattened onto white"


TO_GREY = "colour converted to grey: the model codes grey only"


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_can_be_prepared(mode: str, grey: bool) -> None:
    image = Image.new(mode, (5, 3))
    prepared = prepare_image(image, grey=grey)
    assert prepared.image.mode == ("L" if grey else "RGB")
    assert prepared.image.size == (5, 3)
    assert image.mode == mode


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV"])
def test_white_stays_white(mode: str) -> None:
    image = Image.new("RGBA", (2, 2), (255, 255, 255, 255)).convert("RGB")
    if mode in ("LA", "PA"):
        image = image.convert(mode[0])
    elif mode == "RGBa":
        image = image.convert("RGBA")
    image = image.convert(mode)
    assert prepare_image(image, grey=False).image.getpixel((1, 1)) == (255, 255, 255)
    assert prepare_image(image, grey=True).image.getpixel((1, 1)) == 255
    assert [note for note in prepare_image(image, grey=True).notes if "CMYK" not in note] == []


def test_colour_becomes_grey_with_a_note() -> None:
    prepared = prepare_image(Image.new("RGB", (2, 2), (255, 0, 0)), grey=True)
    assert prepared.image.getpixel((0, 0)) == 76
    assert prepared.notes == (TO_GREY,)


def test_grey_in_colour_modes_loses_nothing() -> None:
    grey = photo().convert("L")
    for mode in ("RGB", "RGBA", "LA", "P"):
        prepared = prepare_image(grey.convert(mode), grey=True)
        assert prepared.image.tobytes() == grey.tobytes()
        assert prepared.notes == ()
    assert prepare_image(grey, grey=False).image.tobytes() == grey.convert("RGB").tobytes()


def test_alpha_is_laid_on_white_with_a_note() -> None:
    half = prepare_image(Image.new("RGBA", (2, 2), (0, 0, 0, 51)), grey=False)
    assert half.image.getpixel((0, 0)) == (204, 204, 204)
    assert half.notes == (ALPHA,)
    grey = prepare_image(Image.new("LA", (2, 2), (0, 0)), grey=True)
    assert grey.image.getpixel((0, 0)) == 255
    assert grey.notes == (ALPHA,)
    opaque = prepare_image(photo().convert("RGBA"), grey=False)
    assert opaque.image.tobytes() == photo().tobytes()
    assert opaque.notes == ()


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_counts_as_alpha(tmp_path: Path, mode: str) -> None:
    key: object = {"P": 0, "L": 0, "RGB": (0, 0, 0)}[mode]
    image = Image.new(mode, (2, 1))
    if mode == "P":
        image.putpalette([0, 0, 0, 9, 9, 9])
    image.putpixel((1, 0), {"P": 1, "L": 9, "RGB": (9, 9, 9)}[mode])
    (tmp_path / "x.png").write_bytes(saved(image, transparency=key))
    prepared = prepare_image(open_image(tmp_path / "x.png").image, grey=False)
    assert [prepared.image.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (9, 9, 9)]
    assert prepared.notes == (ALPHA,)


def test_sixteen_bits_are_rounded() -> None:
    values = np.array([[0, 128, 129, 65535, 257 * 100 + 128, 257 * 100 + 129]])
    for image in (Image.fromarray(values.astype(np.uint16)), Image.fromarray(values.astype(np.int32))):
        prepared = prepare_image(image, grey=True)
        assert list(prepared.image.tobytes()) == [0, 0, 1, 255, 100, 101]
        assert prepared.notes == ("16 bits reduced to 8",)


def test_floats() -> None:
    def prepare(*values: float) -> list[int]:
        return list(prepare_image(Image.fromarray(np.float32([values])), grey=True).image.tobytes())

    assert prepare(0, 0.5, 1) == [0, 128, 255]
    assert prepare(0, 0.5, 1.6, 255) == [0, 0, 2, 255]
    for bad in ((-0.1, 1), (0, 256), (0, float("nan")), (0, float("inf"))):
        with pytest.raises(UnsupportedImageError, match="samples of mode F range"):
            prepare(*bad)
    with pytest.raises(UnsupportedImageError, match="expected 0 to 65535"):
        prepare_image(Image.fromarray(np.int32([[70000]])), grey=True)


def test_lab() -> None:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.new("RGB", (2, 2), (200, 100, 50)), srgb, lab, outputMode="LAB")
    assert image is not None
    prepared = prepare_image(image, grey=False)
    assert prepared.image.getpixel((0, 0)) == pytest.approx((200, 100, 50), abs=3)
    assert prepared.notes == ("colours converted from 'LAB' to sRGB",)


def test_colour_profiles() -> None:
    image = Image.new("RGB", (2, 2), (200, 100, 50))
    image.info["icc_profile"] = srgb_profile("sRGB")
    assert prepare_image(image, grey=False).notes == ()
    image.info["icc_profile"] = srgb_profile("swap", swap=True)
    prepared = prepare_image(image, grey=False)
    assert prepared.image.getpixel((0, 0)) == pytest.approx((100, 200, 50), abs=3)
    assert len(prepared.notes) == 1
    assert prepared.notes[0].startswith("colours converted from 'swap")
    assert prepared.image.info == {}
    assert "icc_profile" in image.info
    image.info["icc_profile"] = b"nonsense"
    assert prepare_image(image, grey=False).notes == ("damaged colour profile ignored",)


def test_a_profile_whose_colour_space_is_no_text() -> None:
    data = bytearray(srgb_profile("sRGB"))
    data[16:20] = b"RGB\xa0"
    image = photo()
    image.info["icc_profile"] = bytes(data)
    assert prepare_image(image, grey=False).notes == ("damaged colour profile ignored",)
    grey = Image.new("L", (2, 2), 7)
    grey.info["icc_profile"] = srgb_profile("sRGB")
    (note,) = prepare_image(grey, grey=True).notes
    assert note.startswith("colour profile 'sRGB") and note.endswith("does not fit the image, ignored")
    assert prepare_image(image.convert("1"), grey=True).notes == ()


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_grey_colour_profiles(mode: str) -> None:
    """Linear grey: 55 of 255 (0.2157) is 128 in sRGB."""
    values = np.full((2, 2), 55 * 257 if mode == "I;16" else 55)
    image = Image.fromarray(values.astype(np.uint16 if mode == "I;16" else np.uint8))
    image = image if mode == "I;16" else image.convert(mode)
    image.info["icc_profile"] = grey_profile(1.0)
    for grey in (False, True):
        prepared = prepare_image(image, grey=grey)
        assert prepared.image.getpixel((0, 0)) == pytest.approx(128 if grey else (128, 128, 128), abs=2)
        assert prepared.notes[-1] == "colours converted from 'grey' to sRGB"


def test_a_profile_of_a_file_in_ycbcr() -> None:
    image = Image.new("RGB", (2, 2), (200, 100, 50)).convert("YCbCr")
    image.info["icc_profile"] = srgb_profile("swap", swap=True)
    assert prepare_image(image, grey=False).image.getpixel((0, 0)) == pytest.approx((100, 200, 50), abs=4)


def test_images_from_pillow_are_turned_upright(tmp_path: Path) -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        (tmp_path / "x.png").write_bytes(saved(photo(8, 6), exif=exif))
        expected = open_image(tmp_path / "x.png").image
        assert expected.size == ((8, 6) if orientation < 5 else (6, 8))
        with Image.open(tmp_path / "x.png") as image:
            prepared = prepare_image(image, grey=False)
        assert (prepared.image.size, prepared.image.tobytes()) == (expected.size, expected.tobytes())
        assert prepare_image(expected, grey=False).image.tobytes() == expected.tobytes()  # not turned twice


def test_dark_samples_are_noted() -> None:
    prepared = prepare_image(Image.fromarray(np.full((2, 2), 4000, np.uint16)), grey=True)
    assert prepared.notes == ("16 bits reduced to 8", "samples reach 4000 of 65535: the image is dark")


@pytest.mark.parametrize(("size", "fits"), [((1, 1), True), ((65536, 1), True), ((0, 5), False), ((65537, 1), False)])
def test_check_size(size: tuple[int, int], fits: bool) -> None:
    if fits:
        check_size(*size)
    else:
        with pytest.raises(UnsupportedImageError, match="each side must lie in 1 to 65536"):
            check_size(*size)


def keeping_alpha(image: Image.Image, grey: bool = False) -> Image.Image:
    return prepare_image(image, grey=grey, flatten=False).image


LEVELS = np.uint8([[0, 1, 2, 127], [128, 200, 254, 255]])


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("mode", ["LA", "La", "RGBA", "RGBa", "PA"])
def test_alpha_channels_are_kept_exactly(mode: str, grey: bool) -> None:
    image = photo(4, 2).convert("L" if mode in ("LA", "La") else "RGB")
    image.putalpha(Image.fromarray(LEVELS))
    image = image.convert(mode) if mode not in ("LA", "RGBA") else image
    prepared = prepare_image(image, grey=grey, flatten=False)
    assert prepared.image.mode == ("LA" if grey else "RGBA")
    assert np.array_equal(np.asarray(prepared.image)[..., -1], LEVELS)
    assert ALPHA not in prepared.notes
    assert prepared.image.info == {}


def png_of(bits: int, colour: int, samples: bytes, key: bytes, width: int) -> bytes:
    """A PNG of one row with a transparent colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, colour, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"tRNS", key)
        + chunk(b"IDAT", zlib.compress(b"\0" + samples))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("bits", "colour", "samples", "key", "width"),
    [
        (1, 0, b"\x90", b"\0\1", 4),  # 1 0 0 1
        (2, 0, b"\x93", b"\0\2", 4),  # 2 1 0 3
        (4, 0, b"\x75\x03", b"\0\7", 4),  # 7 5 0 3
        (8, 0, b"\x80\x81\x00\xff", b"\0\x80", 4),
        (16, 0, b"\x12\x34\x12\x35\x00\x00\xff\xff", b"\x12\x34", 4),  # differ in the lower byte alone
        (8, 2, b"\1\2\3\1\2\4\0\0\0", b"\0\1\0\2\0\3", 3),
    ],
)
def test_transparent_colours_of_every_depth(
    tmp_path: Path, bits: int, colour: int, samples: bytes, key: bytes, width: int
) -> None:
    (tmp_path / "x.png").write_bytes(png_of(bits, colour, samples, key, width))
    loaded = open_image(tmp_path / "x.png")
    mask = np.asarray(keeping_alpha(loaded.image))[0, :, 3].tolist()
    assert mask == ([0, 255, 255, 0] if bits == 1 else [0, *[255] * (width - 1)])
    assert loaded.notes == ()
    with Image.open(tmp_path / "x.png") as opened:  # as `Codec.prepare` gets it
        before = dict(opened.info)
        assert np.asarray(keeping_alpha(load_pixels(opened, [])))[0, :, 3].tolist() == mask
        assert opened.info == before


def test_a_transparent_colour_of_16_bits_a_channel_is_noted(tmp_path: Path) -> None:
    data = png_of(16, 2, struct.pack(">6H", 18, 0, 0, 0x1234, 0, 0), struct.pack(">3H", 18, 0, 0), 2)
    (tmp_path / "x.png").write_bytes(data)
    loaded = open_image(tmp_path / "x.png")
    assert loaded.notes == ("16 bits reduced to 8", "transparent colour ignored")
    assert keeping_alpha(loaded.image).mode == "RGB"
    with Image.open(tmp_path / "x.png") as opened, pytest.warns(ImageConversionWarning) as caught:
        assert make_codec("photo").prepare(opened).mode == "RGB"
    assert [str(warning.message) for warning in caught] == [f"{tmp_path / 'x.png'}: {note}" for note in loaded.notes]


def test_a_damaged_file_that_pillow_has_opened() -> None:
    buffer = io.BytesIO()
    photo_picture(64, 64).save(buffer, "PNG")
    with Image.open(io.BytesIO(buffer.getvalue()[:-2000])) as opened:
        with pytest.raises(UnsupportedImageError, match="damaged image"):
            make_codec("photo").prepare(opened)


@pytest.mark.parametrize("transparency", [bytes([255, 0, 100]), 1])
def test_transparent_palette_colours(transparency: bytes | int) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([9, 9, 9, 200, 0, 0, 0, 0, 200])
    image.putdata([0, 1, 2])
    image.info["transparency"] = transparency
    pixels = np.asarray(keeping_alpha(image))
    assert pixels[0, :, 3].tolist() == [255, 0, 100 if isinstance(transparency, bytes) else 255]
    assert pixels[0, [0, 2], :3].tolist() == [[9, 9, 9], [0, 0, 200]]


def test_opaque_images_have_no_mask() -> None:
    for mode in ("RGBA", "LA", "PA", "RGBa"):
        opaque = photo().convert("RGBA").convert(mode) if mode != "LA" else photo().convert("LA")
        assert keeping_alpha(opaque).mode == "RGB"
        assert keeping_alpha(opaque).tobytes() == prepare_image(opaque, grey=False).image.tobytes()


def test_transparent_pixels_get_a_cheap_colour() -> None:
    rng = np.random.default_rng(2)
    pixels, mask = rng.integers(0, 256, (40, 50, 3), np.uint8), np.zeros((40, 50), np.uint8)
    mask[3:9, 20:30] = rng.integers(1, 256, (6, 10))
    mask[39, 49] = 1
    image = Image.fromarray(np.dstack([pixels, mask]))
    converted = np.asarray(keeping_alpha(image))
    seen = mask > 0
    assert np.array_equal(converted[seen], np.asarray(image)[seen])
    for top in range(0, 40, 16):
        for left in range(0, 50, 16):
            block = np.s_[top : top + 16, left : left + 16]
            shown = pixels[block][seen[block]] if seen[block].any() else pixels[seen]
            assert np.abs(converted[block][~seen[block]][:, :3] - shown.mean(0)).max(initial=0) <= 0.5
    assert np.asarray(keeping_alpha(Image.new("RGBA", (3, 3), (9, 9, 9, 0))))[0, 0].tolist() == [255, 255, 255, 0]
    grey = prepare_image(image, grey=True, flatten=False)
    assert (grey.image.mode, grey.notes) == ("LA", (TO_GREY,))


def test_colours_of_transparent_pixels_do_not_count() -> None:
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    image.paste((80, 80, 80, 255), (0, 0, 9, 20))
    assert prepare_image(image, grey=True, flatten=False).notes == ()


def test_colours_of_transparent_images_are_converted() -> None:
    image = Image.new("RGBA", (2, 2), (200, 100, 50, 9))
    image.info["icc_profile"] = srgb_profile("swap", swap=True)
    prepared = prepare_image(image, grey=False, flatten=False)
    assert prepared.image.getpixel((0, 0)) == pytest.approx((100, 200, 50, 9), abs=3)
    assert prepared.notes[0].startswith("colours converted from 'swap")
