import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from support.small_models import make_codec, photo_picture

from ohmq.errors import OutputExistsError, UnsupportedImageError
from ohmq.imaging import metadata
from ohmq.imaging.arrays import as_image, image_to_tensor, tensor_to_image
from ohmq.imaging.convert import ImageConversionWarning, check_size, load_pixels, prepare_image
from ohmq.imaging.files import SAVE_FORMATS, check_extension, open_image, save_image

MODES = ["1", "L", "LA", "La", "I;16", "I;16B", "I", "F", "P", "PA"]
MODES += ["RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"]
ALPHA = "alpha channel flattened onto white"
TO_GREY = "colour converted to grey: the model codes grey only"


def photo(width: int = 8, height: int = 6) -> Image.Image:
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8))


def saved(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


# Reading files


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
def test_open_image(tmp_path: Path, image_format: str) -> None:
    (tmp_path / "x").write_bytes(saved(photo(), image_format))
    loaded = open_image(tmp_path / "x")
    assert loaded.image.size == (8, 6)
    assert loaded.notes == ()
    if image_format in ("PNG", "BMP", "TIFF"):
        assert loaded.image.tobytes() == photo().tobytes()


def bad_files() -> dict[str, bytes]:
    png = saved(photo(40, 40))
    return {
        "empty": b"",
        "text": b"not an image at all",
        "truncated PNG": png[: len(png) // 2],
        "PNG without pixels": png[:40],
        "flipped PNG": png[:60] + bytes([png[60] ^ 255]) + png[61:],
        "truncated JPEG": saved(photo(40, 40), "JPEG")[:400],
        "truncated GIF": saved(photo(40, 40), "GIF")[:900],
        "truncated TIFF": saved(photo(40, 40), "TIFF", compression="tiff_lzw")[:300],
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
    }


@pytest.mark.parametrize("kind", sorted(bad_files()))
def test_bad_files_give_one_clear_line(tmp_path: Path, kind: str) -> None:
    (tmp_path / "bad.png").write_bytes(bad_files()[kind])
    with pytest.raises(UnsupportedImageError) as caught:
        open_image(tmp_path / "bad.png")
    assert str(caught.value).startswith(str(tmp_path / "bad.png"))
    assert "\n" not in str(caught.value)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in ((".", "a folder"), ("missing.png", "no such file"), ("pipe", "not a regular file")):
        with pytest.raises(UnsupportedImageError, match=message):
            open_image(tmp_path / name)


def test_every_cut_of_a_png_is_refused_or_complete(tmp_path: Path) -> None:
    data = saved(photo())
    for length in range(len(data)):
        (tmp_path / "x.png").write_bytes(data[:length])
        try:
            assert open_image(tmp_path / "x.png").image.tobytes() == photo().tobytes()
        except UnsupportedImageError:
            assert length < len(data) - 4  # all but the last chunk's checksum


def test_large_images_are_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(tmp_path / "x.png", photo(30, 20))
    with pytest.raises(UnsupportedImageError, match=r"x\.png: the image is 30x20, 600 pixels; the limit is 599"):
        open_image(tmp_path / "x.png", max_pixels=599)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)  # Pillow warns; our own limit counts
    assert open_image(tmp_path / "x.png", max_pixels=600).notes == ()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # Pillow refuses
    with pytest.raises(UnsupportedImageError, match="too large for Pillow"):
        open_image(tmp_path / "x.png")


def test_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    (tmp_path / "x.png").write_bytes(saved(photo(8, 6), exif=exif))
    assert open_image(tmp_path / "x.png").image.tobytes() == photo(8, 6).transpose(Image.Transpose.ROTATE_270).tobytes()


def test_notes_on_reading(tmp_path: Path) -> None:
    frames = [Image.new("L", (4, 4), 10), Image.new("L", (4, 4), 200)]
    (tmp_path / "x.gif").write_bytes(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    loaded = open_image(tmp_path / "x.gif")
    assert loaded.notes == ("first image of several in the file",)
    assert prepare_image(loaded.image, grey=True).image.getpixel((0, 0)) == 10


def test_deep_colour_is_noted(tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(">3H", 0x1234, 0xFFFF, 0)))
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + pixels + chunk(b"IEND", b""))
    loaded = open_image(tmp_path / "x.png")
    assert loaded.notes == ("16 bits reduced to 8",)
    assert loaded.image.getpixel((0, 0)) == (0x12, 0xFF, 0)


def test_pillows_warnings_become_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "x.png").write_bytes(saved(photo(), exif=exif))

    def transpose(image: Image.Image) -> Image.Image:
        warnings.warn("odd file", UserWarning, stacklevel=1)
        return image.copy()

    monkeypatch.setattr(metadata.ImageOps, "exif_transpose", transpose)
    assert open_image(tmp_path / "x.png").notes == ("Pillow warned: odd file",)


# Colour modes


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


def srgb_profile(name: str, swap: bool = False) -> bytes:
    """The sRGB profile under another name (of the same length), its red and green primaries exchanged if asked."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = data.replace("sRGB".encode("utf-16-be"), name.encode("utf-16-be"))
    return data.replace(b"rXYZ", b"____").replace(b"gXYZ", b"rXYZ").replace(b"____", b"gXYZ") if swap else data


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
    grey = Image.new("L", (2, 2), 7)
    grey.info["icc_profile"] = srgb_profile("sRGB")
    (note,) = prepare_image(grey, grey=True).notes
    assert note.startswith("colour profile 'sRGB") and note.endswith("does not fit the image, ignored")
    assert prepare_image(image.convert("1"), grey=True).notes == ()


def grey_profile(gamma: float) -> bytes:
    """The smallest profile of a grey display."""
    described = b"desc\0\0\0\0\0\0\0\x05grey\0" + bytes(78)
    tags = {
        b"desc": described + bytes(-len(described) % 4),
        b"cprt": b"text\0\0\0\0CC0\0",
        b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061),
        b"kTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0",
    }
    start, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(">I4xI", start + len(body), 0x02100000) + b"mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


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


def test_images_from_pillow_are_turned_upright_too(tmp_path: Path) -> None:
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


def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(saved(photo(), exif=b"Exif\0\0garbage!!"))
    loaded = open_image(tmp_path / "x.png")
    assert loaded.image.tobytes() == photo().tobytes()
    assert loaded.notes == ("damaged EXIF data ignored",)


def test_twelve_bits_are_scaled(tmp_path: Path) -> None:
    """A TIFF of 2x1 pixels with 12 bits a sample, 4095 and 2048, packed into 3 bytes."""
    entries = [(256, 3, 1, 2), (257, 3, 1, 1), (258, 3, 1, 12), (259, 3, 1, 1), (262, 3, 1, 1)]
    entries += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 1, 3)]
    folder = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    (tmp_path / "x.tif").write_bytes(b"II*\0" + struct.pack("<I", 12) + b"\xff\xf8\x00\0" + folder + bytes(4))
    prepared = prepare_image(open_image(tmp_path / "x.tif").image, grey=True)
    assert list(prepared.image.tobytes()) == [255, 128]
    assert prepared.notes == ("16 bits reduced to 8",)


def test_dark_samples_are_told() -> None:
    prepared = prepare_image(Image.fromarray(np.full((2, 2), 4000, np.uint16)), grey=True)
    assert prepared.notes == ("16 bits reduced to 8", "samples reach 4000 of 65535: the image is dark")


# Tensors and arrays


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_tensors_and_back(mode: str) -> None:
    image = photo().convert(mode)
    tensor = image_to_tensor(image)
    assert tensor.shape == (1, len(mode), 6, 8)
    assert tensor.dtype == torch.float32
    assert torch.equal(
        tensor[0, 0, 2], torch.tensor(np.atleast_3d(np.asarray(image))[2, :, 0] / 255, dtype=torch.float32)
    )
    assert tensor_to_image(tensor).mode == mode
    assert tensor_to_image(tensor).tobytes() == image.tobytes()


def test_tensors_are_clipped_and_rounded() -> None:
    image = tensor_to_image(torch.tensor([[-1.0, 0.4 / 255, 0.6 / 255, 254.6 / 255, 9.0]]))
    assert list(image.tobytes()) == [0, 0, 1, 255, 255]


def test_as_image() -> None:
    array = np.asarray(photo())
    assert as_image(photo()).tobytes() == photo().tobytes()
    assert as_image(array).mode == "RGB"
    assert as_image(array).tobytes() == photo().tobytes()
    assert as_image(array[..., 0]).mode == as_image(array[..., :1]).mode == "L"
    for mode in ("LA", "RGBA"):
        clear = np.asarray(photo().convert(mode))
        assert (as_image(clear).mode, as_image(clear).tobytes()) == (mode, clear.tobytes())
    assert as_image(array[::-1, ::-2]).tobytes() == np.ascontiguousarray(array[::-1, ::-2]).tobytes()
    planes = torch.from_numpy(array.transpose(2, 0, 1).copy())
    for tensor in (planes, planes[None], planes / 255, planes[None].double() / 255):
        assert as_image(tensor).tobytes() == photo().tobytes()


BAD_OBJECTS: list[tuple[Callable[[], object], type[Exception]]] = [
    (lambda: "image.png", TypeError),
    (lambda: [[1, 2]], TypeError),
    (lambda: np.zeros((4, 4), np.float32), TypeError),
    (lambda: np.zeros((4, 4, 5), np.uint8), ValueError),
    (lambda: np.zeros((0, 4), np.uint8), ValueError),
    (lambda: np.zeros(4, np.uint8), ValueError),
    (lambda: torch.zeros(2, 3, 4, 4), ValueError),
    (lambda: torch.zeros(4, 4, 3), ValueError),
    (lambda: torch.zeros(1, 0, 4), ValueError),
    (lambda: torch.zeros(4, 4, dtype=torch.int64), TypeError),
    (lambda: torch.full((4, 4), 1.1), ValueError),
    (lambda: torch.full((4, 4), torch.nan), ValueError),
]


@pytest.mark.parametrize("number", range(len(BAD_OBJECTS)))
def test_as_image_refuses(number: int) -> None:
    make, error = BAD_OBJECTS[number]
    with pytest.raises(error, match="expected|no pixels"):
        as_image(make())


def test_tensors_that_are_no_picture() -> None:
    with pytest.raises(ValueError, match="NaN"):
        tensor_to_image(torch.full((4, 4), torch.nan))
    with pytest.raises(ValueError, match="mode RGBA"):
        image_to_tensor(Image.new("RGBA", (2, 2)))


@pytest.mark.parametrize(("size", "fits"), [((1, 1), True), ((65536, 1), True), ((0, 5), False), ((65537, 1), False)])
def test_check_size(size: tuple[int, int], fits: bool) -> None:
    if fits:
        check_size(*size)
    else:
        with pytest.raises(UnsupportedImageError, match="each side must lie in 1 to 65536"):
            check_size(*size)


# Writing files


@pytest.mark.parametrize("extension", sorted(SAVE_FORMATS))
def test_save_image(tmp_path: Path, extension: str) -> None:
    path = tmp_path / "new" / f"x{extension.upper()}"
    picture = photo().convert("L") if extension == ".pgm" else photo()
    save_image(path, picture)
    back = open_image(path).image
    if check_extension(path) == "JPEG":
        assert np.abs(np.asarray(back, int) - np.asarray(picture, int)).mean() < 12
    else:
        assert back.tobytes() == picture.tobytes()


def test_existing_images_are_kept_unless_forced(tmp_path: Path) -> None:
    save_image(tmp_path / "x.png", photo())
    with pytest.raises(OutputExistsError):
        save_image(tmp_path / "x.png", Image.new("L", (1, 1)))
    assert open_image(tmp_path / "x.png").image.size == (8, 6)
    save_image(tmp_path / "x.png", Image.new("L", (1, 1)), force=True)
    assert open_image(tmp_path / "x.png").image.size == (1, 1)
    assert os.listdir(tmp_path) == ["x.png"]


@pytest.mark.parametrize("name", ["x", "x.ohm", "x.gif", ".png"])
def test_unknown_extensions(tmp_path: Path, name: str) -> None:
    for write in (check_extension, lambda path: save_image(path, photo())):
        with pytest.raises(UnsupportedImageError, match=r"cannot write images of extension"):
            write(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_images_that_a_format_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedImageError, match="cannot be written as JPEG"):
        save_image(tmp_path / "x.jpg", Image.new("RGBA", (2, 2)))
    assert os.listdir(tmp_path) == []


# Transparency kept


def kept(image: Image.Image, grey: bool = False) -> Image.Image:
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
    mask = np.asarray(kept(loaded.image))[0, :, 3].tolist()
    assert mask == ([0, 255, 255, 0] if bits == 1 else [0, *[255] * (width - 1)])
    assert loaded.notes == ()
    with Image.open(tmp_path / "x.png") as opened:  # as `Codec.prepare` gets it
        before = dict(opened.info)
        assert np.asarray(kept(load_pixels(opened, [])))[0, :, 3].tolist() == mask
        assert opened.info == before


def test_a_transparent_colour_of_16_bits_a_channel_is_told(tmp_path: Path) -> None:
    data = png_of(16, 2, struct.pack(">6H", 18, 0, 0, 0x1234, 0, 0), struct.pack(">3H", 18, 0, 0), 2)
    (tmp_path / "x.png").write_bytes(data)
    loaded = open_image(tmp_path / "x.png")
    assert loaded.notes == ("16 bits reduced to 8", "transparent colour ignored")
    assert kept(loaded.image).mode == "RGB"
    with Image.open(tmp_path / "x.png") as opened, pytest.warns(ImageConversionWarning) as caught:
        assert make_codec("photo").prepare(opened).mode == "RGB"
    assert [str(warning.message) for warning in caught] == list(loaded.notes)


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
    pixels = np.asarray(kept(image))
    assert pixels[0, :, 3].tolist() == [255, 0, 100 if isinstance(transparency, bytes) else 255]
    assert pixels[0, [0, 2], :3].tolist() == [[9, 9, 9], [0, 0, 200]]


def test_opaque_masks_are_no_masks() -> None:
    for mode in ("RGBA", "LA", "PA", "RGBa"):
        opaque = photo().convert("RGBA").convert(mode) if mode != "LA" else photo().convert("LA")
        assert kept(opaque).mode == "RGB"
        assert kept(opaque).tobytes() == prepare_image(opaque, grey=False).image.tobytes()


def test_colours_that_nobody_sees_are_cheap_and_the_others_stay() -> None:
    rng = np.random.default_rng(2)
    pixels, mask = rng.integers(0, 256, (40, 50, 3), np.uint8), np.zeros((40, 50), np.uint8)
    mask[3:9, 20:30] = rng.integers(1, 256, (6, 10))
    mask[39, 49] = 1
    image = Image.fromarray(np.dstack([pixels, mask]))
    found = np.asarray(kept(image))
    seen = mask > 0
    assert np.array_equal(found[seen], np.asarray(image)[seen])
    for top in range(0, 40, 16):
        for left in range(0, 50, 16):
            block = np.s_[top : top + 16, left : left + 16]
            shown = pixels[block][seen[block]] if seen[block].any() else pixels[seen]
            assert np.abs(found[block][~seen[block]][:, :3] - shown.mean(0)).max(initial=0) <= 0.5
    assert np.asarray(kept(Image.new("RGBA", (3, 3), (9, 9, 9, 0))))[0, 0].tolist() == [255, 255, 255, 0]
    grey = prepare_image(image, grey=True, flatten=False)
    assert (grey.image.mode, grey.notes) == ("LA", (TO_GREY,))


def test_hidden_colours_do_not_make_a_grey_picture_coloured() -> None:
    image = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    image.paste((80, 80, 80, 255), (0, 0, 9, 20))
    assert prepare_image(image, grey=True, flatten=False).notes == ()


def test_colours_of_transparent_pictures_are_converted_too() -> None:
    image = Image.new("RGBA", (2, 2), (200, 100, 50, 9))
    image.info["icc_profile"] = srgb_profile("swap", swap=True)
    prepared = prepare_image(image, grey=False, flatten=False)
    assert prepared.image.getpixel((0, 0)) == pytest.approx((100, 200, 50, 9), abs=3)
    assert prepared.notes[0].startswith("colours converted from 'swap")


# Metadata kept


def with_metadata(orientation: int) -> Image.Image:
    image, exif = photo(), Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, "a picture"
    exif.get_ifd(0x8769)[0x829A] = 0.25
    image.info["exif"] = exif.tobytes()
    image.info["xmp"] = b'<rdf tiff:Orientation="%d"/><tiff:Orientation>%d</tiff:Orientation>' % (
        orientation,
        orientation,
    )
    return image


def information(image: Image.Image) -> dict[str, bytes]:
    return prepare_image(image, grey=False, keep_metadata=True).image.info


@pytest.mark.parametrize("orientation", [1, 3, 6, 9])
def test_kept_metadata_say_upright(orientation: int) -> None:
    image = with_metadata(orientation)
    assert prepare_image(image, grey=False).image.info == {}
    found = information(image)
    assert sorted(found) == ["exif", "xmp"]
    exif = Image.Exif()
    exif.load(found["exif"])
    assert exif.get(0x0112, 1) == 1
    assert exif[0x010E] == "a picture"
    assert exif.get_ifd(0x8769)[0x829A] == 0.25
    if orientation == 1:
        assert b"Exif\0\0" + found["exif"].removeprefix(b"Exif\0\0") == image.info["exif"]  # the very bytes
    assert b'="3"' not in found["xmp"] and b">6<" not in found["xmp"] and b">9<" not in found["xmp"]
    assert found["xmp"].startswith(b"<rdf ")


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "tif"])
def test_metadata_of_files(tmp_path: Path, extension: str) -> None:
    image = with_metadata(1)
    path = tmp_path / f"x.{extension}"
    assert save_image(path, image) == ()
    loaded = open_image(path)
    found = prepare_image(loaded.image, grey=False, keep_metadata=True)
    assert found.notes == loaded.notes == ()
    assert found.image.info["xmp"] == image.info["xmp"]
    exif = Image.Exif()
    exif.load(found.image.info["exif"])
    assert exif[0x010E] == "a picture"
    assert exif.get_ifd(0x8769)[0x829A] == 0.25
    assert not {273, 279, 256} & set(exif)  # nothing of how a TIFF file is laid out


def test_an_orientation_in_xmp_alone(tmp_path: Path) -> None:
    image = photo(8, 6)
    image.info["xmp"] = b'<rdf tiff:Orientation="6"/>'
    save_image(tmp_path / "x.png", image)
    loaded = open_image(tmp_path / "x.png").image
    assert loaded.size == (6, 8)
    prepared = prepare_image(loaded, grey=False, keep_metadata=True).image
    assert (prepared.size, "exif" in prepared.info) == ((6, 8), False)
    assert b"6" not in prepared.info["xmp"]


def test_only_a_profile_that_is_right_is_kept() -> None:
    image = photo()
    image.info["icc_profile"] = srgb_profile("sRGB")
    assert information(image) == {"icc_profile": image.info["icc_profile"]}
    assert information(image.convert("P")) == {"icc_profile": image.info["icc_profile"]}
    assert prepare_image(image, grey=True, keep_metadata=True).image.info == {}
    for wrong in (srgb_profile("swap", swap=True), b"nonsense"):
        image.info["icc_profile"] = wrong
        assert information(image) == {}
    for mode in ("L", "CMYK", "1", "HSV"):
        other = photo().convert(mode)
        other.info["icc_profile"] = srgb_profile("sRGB")
        assert information(other) == {}


def test_metadata_that_a_file_cannot_hold_are_told() -> None:
    image = photo()
    image.info = {"xmp": "<x>\xff</x>".encode("latin-1")}
    assert prepare_image(image, grey=False, keep_metadata=True).notes == ("dropped: XMP that is not UTF-8",)
    image.info = {"xmp": b" " * (2**24 + 1)}
    (note,) = prepare_image(image, grey=False, keep_metadata=True).notes
    assert note == "dropped: XMP of 16777217 bytes; a file holds at most 16777216"
    image.info = {"exif": b"Exif\0\0garbage!!"}
    prepared = prepare_image(image, grey=False, keep_metadata=True)
    assert (prepared.notes, prepared.image.info) == (("damaged EXIF data ignored",), {})


def test_formats_that_hold_less(tmp_path: Path) -> None:
    clear = photo().convert("RGBA")
    clear.putalpha(7)
    for name in ("x.bmp", "x.ppm", "x.jpg"):
        with pytest.raises(UnsupportedImageError, match="which has no transparency; choose .png, .webp or .tif"):
            save_image(tmp_path / name, clear)
    assert save_image(tmp_path / "x.bmp", with_metadata(1)) == ("BMP holds no metadata: dropped exif, xmp",)
    for name in ("x.png", "x.webp", "x.tif"):
        save_image(tmp_path / name, clear)
        assert open_image(tmp_path / name).image.getchannel("A").getextrema() == (7, 7)
    large = photo()
    large.info = {"xmp": b" " * 70000}
    with pytest.raises(UnsupportedImageError, match=r"x2\.jpg: cannot be written as JPEG \(XMP"):
        save_image(tmp_path / "x2.jpg", large)
