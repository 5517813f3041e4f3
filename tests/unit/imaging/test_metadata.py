"""Metadata that are kept."""

from pathlib import Path

import pytest
from PIL import Image
from support.images import photo, srgb_profile, with_metadata

from ohmq.imaging.convert import prepare_image
from ohmq.imaging.files import open_image, save_image


def kept_info(image: Image.Image) -> dict[str, bytes]:
    return prepare_image(image, grey=False, keep_metadata=True).image.info


@pytest.mark.parametrize("orientation", [1, 3, 6, 9])
def test_kept_metadata_have_orientation_1(orientation: int) -> None:
    image = with_metadata(orientation)
    assert prepare_image(image, grey=False).image.info == {}
    converted = kept_info(image)
    assert sorted(converted) == ["exif", "xmp"]
    exif = Image.Exif()
    exif.load(converted["exif"])
    assert exif.get(0x0112, 1) == 1
    assert exif[0x010E] == "a description"
    assert exif.get_ifd(0x8769)[0x829A] == 0.25
    if orientation == 1:
        assert b"Exif\0\0" + converted["exif"].removeprefix(b"Exif\0\0") == image.info["exif"]  # the very bytes
    assert b'="3"' not in converted["xmp"] and b">6<" not in converted["xmp"] and b">9<" not in converted["xmp"]
    assert converted["xmp"].startswith(b"<rdf ")


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "tif"])
def test_metadata_of_files(tmp_path: Path, extension: str) -> None:
    image = with_metadata(1)
    path = tmp_path / f"x.{extension}"
    assert save_image(path, image) == ()
    loaded = open_image(path)
    converted = prepare_image(loaded.image, grey=False, keep_metadata=True)
    assert converted.notes == loaded.notes == ()
    assert converted.image.info["xmp"] == image.info["xmp"]
    exif = Image.Exif()
    exif.load(converted.image.info["exif"])
    assert exif[0x010E] == "a description"
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


def test_only_an_srgb_profile_is_kept() -> None:
    image = photo()
    image.info["icc_profile"] = srgb_profile("sRGB")
    assert kept_info(image) == {"icc_profile": image.info["icc_profile"]}
    assert kept_info(image.convert("P")) == {"icc_profile": image.info["icc_profile"]}
    assert prepare_image(image, grey=True, keep_metadata=True).image.info == {}
    for wrong in (srgb_profile("swap", swap=True), b"nonsense"):
        image.info["icc_profile"] = wrong
        assert kept_info(image) == {}
    for mode in ("L", "CMYK", "1", "HSV"):
        other = photo().convert(mode)
        other.info["icc_profile"] = srgb_profile("sRGB")
        assert kept_info(other) == {}


def test_metadata_that_a_file_cannot_hold_are_noted() -> None:
    image = photo()
    image.info = {"xmp": "<x>\xff</x>".encode("latin-1")}
    assert prepare_image(image, grey=False, keep_metadata=True).notes == ("dropped: XMP that is not UTF-8",)
    image.info = {"xmp": b" " * (2**24 + 1)}
    (note,) = prepare_image(image, grey=False, keep_metadata=True).notes
    assert note == "dropped: XMP of 16777217 bytes; a file holds at most 16777216"
    image.info = {"exif": b"Exif\0\0garbage!!"}
    prepared = prepare_image(image, grey=False, keep_metadata=True)
    assert (prepared.notes, prepared.image.info) == (("damaged EXIF data ignored",), {})
