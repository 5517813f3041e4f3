"""Metadata that are kept."""

from pathlib import Path

import pytest
from PIL import Image
from support.images import photo, srgb_profile, with_metadata

from ohmq.imaging.convert import prepare_image
from ohmq.imaging.extras import decode_extras, exif_resolution, split_extras
from ohmq.imaging.files import open_image, save_image
from ohmq.imaging.metadata import replace_metadata
from ohmq.utils.recorded_warnings import recorded_warnings


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


def with_dpi(path: Path, dpi: object, image: Image.Image | None = None, **options: object) -> Image.Image:
    (image or photo()).save(path, dpi=dpi, **options)
    return open_image(path).image


@pytest.mark.parametrize("source", ["png", "jpg", "tif", "bmp"])
@pytest.mark.parametrize("target", ["png", "jpg", "tif", "bmp", "webp"])
def test_resolution_of_files(tmp_path: Path, source: str, target: str) -> None:
    prepared = prepare_image(with_dpi(tmp_path / f"a.{source}", (300, 150)), grey=False, keep_metadata=True)
    assert (prepared.notes, sorted(prepared.image.info)) == ((), ["exif"])
    colours, extras = split_extras(prepared.image)
    decoded = decode_extras(extras, *colours.size).onto(colours.copy())
    assert decoded.info["dpi"] == pytest.approx((300, 150), abs=0.02)
    save_image(tmp_path / f"b.{target}", decoded)
    with Image.open(tmp_path / f"b.{target}") as opened:
        written = opened.copy()
    if target == "webp":
        assert exif_resolution(written.info["exif"]) == pytest.approx((300, 150), abs=0.02)
    else:
        assert written.info["dpi"] == pytest.approx((300, 150), abs=0.02)
    assert prepare_image(open_image(tmp_path / f"a.{source}").image, grey=False).image.info == {}


def test_resolution_and_exif(tmp_path: Path) -> None:
    """EXIF data that agree stay the very bytes; else the file's own resolution goes first."""
    exif = Image.Exif()
    exif[0x010E], exif[0x011A], exif[0x011B], exif[0x0128] = "a title", 118.11, 118.11, 3
    loaded = with_dpi(tmp_path / "a.png", (300, 300), exif=exif)
    assert kept_info(loaded)["exif"] == loaded.info["exif"].removeprefix(b"Exif\0\0")
    assert exif_resolution(kept_info(loaded)["exif"]) == pytest.approx((300, 300), abs=0.1)
    kept = kept_info(with_dpi(tmp_path / "b.png", (96, 96), exif=exif))["exif"]
    assert exif_resolution(kept) == pytest.approx((96, 96), abs=0.1)
    tags = Image.Exif()
    tags.load(kept)
    assert tags[0x010E] == "a title"
    plain = Image.Exif()
    plain[0x010E] = "a title"
    photo().save(tmp_path / "c.jpg", exif=plain)  # Pillow says 72, EXIF's default
    assert kept_info(open_image(tmp_path / "c.jpg").image)["exif"] == plain.tobytes().removeprefix(b"Exif\0\0")


def test_resolution_turns_with_the_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    loaded = with_dpi(tmp_path / "a.png", (300, 150), exif=exif)
    assert exif_resolution(kept_info(loaded)["exif"]) == pytest.approx((150, 300), abs=0.1)


@pytest.mark.parametrize("dpi", [(0, 0), (float("nan"), 1), (-3, 3), "x", 300, (1e9, 1e9)])
def test_resolutions_that_are_none_are_noted(dpi: object) -> None:
    image = photo()
    image.info["dpi"] = dpi
    prepared = prepare_image(image, grey=False, keep_metadata=True)
    assert prepared.image.info == {}
    assert prepared.notes == (f"dropped: a resolution of {dpi} pixels per inch",)
    assert prepare_image(image, grey=False).notes == ()


def test_files_without_a_resolution(tmp_path: Path) -> None:
    for extension in ("png", "jpg", "tif", "webp"):
        photo().save(tmp_path / f"x.{extension}")
        prepared = prepare_image(open_image(tmp_path / f"x.{extension}").image, grey=False, keep_metadata=True)
        assert (prepared.image.info, prepared.notes) == ({}, ())
    for info in ({"aspect": (2, 1)}, {"jfif_unit": 0, "jfif_density": (2, 1)}):
        image = photo()
        image.info = info
        assert prepare_image(image, grey=False, keep_metadata=True).notes == ("dropped: the aspect ratio of pixels",)


@pytest.mark.parametrize("body", [b"", b"II*\0\x08\0\0\0", b"II*\0\xff\xff\xff\xff", b"garbage"])
def test_exif_without_a_resolution(body: bytes) -> None:
    assert exif_resolution(body) is None


def test_given_metadata_replace_an_images_own() -> None:
    image = with_metadata(6)
    image.info["dpi"] = (300, 300)
    exif = Image.Exif()
    exif[0x010E] = "new"
    turned = replace_metadata(image, {}, keep_others=False)
    assert (turned.size, sorted(turned.info)) == ((6, 8), [])
    as_given = replace_metadata(image, {"exif": exif}, keep_others=False)  # which says that it is not turned
    assert (as_given.size, as_given.getexif()[0x010E], sorted(as_given.info)) == ((8, 6), "new", ["exif"])
    others = replace_metadata(image, {"xmp": b"<x/>"}, keep_others=True)
    assert (others.size, others.info["xmp"], others.info["dpi"]) == ((6, 8), b"<x/>", (300, 300))
    assert others.getexif()[0x010E] == "a description"
    none = replace_metadata(image, {"exif": None, "xmp": b""}, keep_others=True)
    assert sorted(none.info) == ["dpi"]
    assert sorted(image.info) == ["dpi", "exif", "xmp"]


def test_every_cut_of_exif_data_is_noted_or_whole(tmp_path: Path) -> None:
    """No warning of Pillow's comes without the name of its file, and none is told twice."""
    exif = Image.Exif()
    exif[0x010E], exif[0x011A] = "a title", 300.0
    exif.get_ifd(0x8769)[0xA001] = 1
    raw = exif.tobytes()
    for length in range(6, len(raw)):
        photo().save(tmp_path / "x.jpg", exif=raw[:length])
        loaded = open_image(tmp_path / "x.jpg")
        prepared = prepare_image(loaded.image, grey=False, keep_metadata=True)  # warnings are errors in tests
        decode_extras(split_extras(prepared.image)[1], 8, 6)
        notes = (*loaded.notes, *prepared.notes)
        assert len(set(notes)) == len(notes)
        with recorded_warnings():  # Pillow's own, of its caller
            opened = Image.open(tmp_path / "x.jpg")
        with opened:
            assert set(prepare_image(opened, grey=False, keep_metadata=True).notes) <= set(notes)
