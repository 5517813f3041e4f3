"""Reading and writing image files."""

import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.images import photo, saved, with_metadata

from ohmq.errors import OutputExistsError, UnsupportedImageError
from ohmq.imaging import metadata
from ohmq.imaging.convert import prepare_image
from ohmq.imaging.files import SAVE_FORMATS, check_extension, encode_image, open_image, save_image


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


def test_other_paths_are_refused(tmp_path: Path) -> None:
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


def test_png_files_are_written_fast_and_not_much_larger() -> None:
    with Image.open(Path(__file__).parents[3] / "examples" / "photos" / "coffee.png") as image:
        picture = Image.fromarray(np.asarray(image.convert("RGB")))  # without a resolution
    content, _ = encode_image(picture, ".png")
    assert content == saved(picture, compress_level=2)
    assert len(content) < 1.08 * len(saved(picture))


def test_large_images_are_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_image(tmp_path / "x.png", photo(30, 20))
    with pytest.raises(UnsupportedImageError, match=r"x\.png: the image is 30x20, 600 pixels; the limit is 599"):
        open_image(tmp_path / "x.png", max_pixels=599)
    for limit in (400, 200):  # Pillow alone warns, refuses
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert open_image(tmp_path / "x.png", max_pixels=600).notes == ()
        assert limit == Image.MAX_IMAGE_PIXELS


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


def test_damaged_exif_does_not_cost_the_image(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("extension", sorted(SAVE_FORMATS))
def test_save_image(tmp_path: Path, extension: str) -> None:
    path = tmp_path / "new" / f"x{extension.upper()}"
    image = photo().convert("L") if extension == ".pgm" else photo()
    save_image(path, image)
    back = open_image(path).image
    if check_extension(path) == "JPEG":
        assert np.abs(np.asarray(back, int) - np.asarray(image, int)).mean() < 12
    else:
        assert back.tobytes() == image.tobytes()


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


def test_formats_without_transparency_or_metadata(tmp_path: Path) -> None:
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
