"""Colour spaces of files without an ICC profile."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from support.images import grey_profile, photo, saved, srgb_profile
from support.small_models import make_codec

from ohmq.errors import UnsupportedImageError
from ohmq.imaging.colour import ColourSpace, build_profile, read_cicp
from ohmq.imaging.convert import ImageConversionWarning, LoadedImage, prepare_image
from ohmq.imaging.files import open_image

SRGB_XY = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
P3_XY = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def gama(gamma: int) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", gamma))


def chrm(values: tuple[int, ...]) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *values))


def iccp(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"x\0\0" + zlib.compress(profile))


def prepared(folder: Path, image: Image.Image, chunks: bytes, **options: bool) -> LoadedImage:
    """Put chunks behind the header of a PNG file, read it; the notes are those of reading and of conversion."""
    data = saved(image)
    (folder / "x.png").write_bytes(data[:33] + chunks + data[33:])
    loaded = open_image(folder / "x.png")
    converted = prepare_image(loaded.image, **{"grey": False, **options})
    return LoadedImage(converted.image, (*loaded.notes, *converted.notes))


def srgb_of(light: float) -> float:
    """Return the 8-bit sRGB value of linear light."""
    return 255 * (12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("gamma", [100000, 55556, 33333])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "I;16"])
def test_gamma_is_converted(tmp_path: Path, mode: str, gamma: int) -> None:
    """The light of a sample is sample ** (1 / gamma)."""
    if mode == "I;16":
        image = Image.fromarray(np.full((2, 2), 100 * 257, np.uint16))
    else:
        image = Image.new("L", (2, 2), 100).convert(
            "RGB" if mode in ("RGBA", "P") else mode[0] if mode == "LA" else mode
        )
        image = image.convert(mode) if mode != "P" else image.quantize(2)
    result = prepared(tmp_path, image, gama(gamma))
    expected = srgb_of((100 / 255) ** (100000 / gamma))
    assert result.image.getpixel((0, 0)) == pytest.approx((expected,) * 3, abs=1.5)
    assert result.notes[-1] == f"colours converted from 'gamma {gamma / 100000:g}' to sRGB"


@pytest.mark.parametrize(
    "chunks",
    [
        gama(45455),
        gama(45000),
        gama(45455) + chrm(SRGB_XY),
        chrm(SRGB_XY),
        chunk(b"sRGB", b"\0") + gama(45455) + chrm(SRGB_XY),
        chunk(b"sRGB", b"\0") + gama(100000) + chrm(P3_XY),  # sRGB goes first
        iccp(srgb_profile("sRGB")) + gama(100000),
        chunk(b"cICP", bytes([1, 13, 0, 1])) + iccp(srgb_profile("swap", swap=True)),
        chunk(b"cICP", bytes([2, 2, 0, 1])),
    ],
)
def test_what_means_srgb_changes_nothing(tmp_path: Path, chunks: bytes) -> None:
    result = prepared(tmp_path, photo(), chunks)
    assert (result.image.tobytes(), result.notes) == (photo().tobytes(), ())


def test_primaries_are_converted(tmp_path: Path) -> None:
    """Display P3's (234, 51, 35) is sRGB's red; a grey stays."""
    image = Image.new("RGB", (2, 1), (234, 51, 35))
    image.putpixel((1, 0), (90, 90, 90))
    for chunks, name in (
        (chunk(b"cICP", bytes([12, 13, 0, 1])), "CICP 12/13"),
        (gama(45455) + chrm(P3_XY), "gamma 0.45455 and own primaries"),
    ):
        result = prepared(tmp_path, image, chunks)
        assert result.image.getpixel((0, 0)) == pytest.approx((255, 0, 0), abs=6)
        assert result.image.getpixel((1, 0)) == pytest.approx((90, 90, 90), abs=1.5)
        assert result.notes == (f"colours converted from '{name}' to sRGB",)
    grey = prepared(tmp_path, image.convert("L"), gama(45455) + chrm(P3_XY))
    assert (grey.image.tobytes(), grey.notes) == (image.convert("L").convert("RGB").tobytes(), ())


def test_an_embedded_profile_goes_before_gamma(tmp_path: Path) -> None:
    result = prepared(
        tmp_path, Image.new("RGB", (2, 2), (200, 100, 50)), gama(100000) + iccp(srgb_profile("swap", swap=True))
    )
    assert result.image.getpixel((0, 0)) == pytest.approx((100, 200, 50), abs=3)
    assert len(result.notes) == 1
    grey = prepared(tmp_path, Image.new("L", (2, 2), 55), gama(45455) + iccp(grey_profile(1.0)))
    assert grey.image.getpixel((0, 0)) == pytest.approx((128, 128, 128), abs=2)


@pytest.mark.parametrize(
    ("chunks", "note"),
    [
        (chunk(b"cICP", bytes([9, 16, 0, 1])), "colours of CICP 9/16 (PQ) cannot be converted: read as sRGB"),
        (chunk(b"cICP", bytes([9, 18, 0, 1])), "colours of CICP 9/18 (HLG) cannot be converted: read as sRGB"),
        (chunk(b"cICP", bytes([200, 13, 0, 1])), "colours of CICP 200/13 cannot be converted: read as sRGB"),
        (chunk(b"cICP", bytes([1, 13, 0, 0])), "narrow range of samples (CICP) read as full range"),
        (chrm(P3_XY), "primaries (cHRM) without a gamma (gAMA) ignored"),
        (gama(0), "gamma 0 ignored: out of range"),
        (gama(45455) + chrm((31270, 0, *P3_XY[2:])), "gamma 0.45455 and own primaries: impossible primaries, ignored"),
        (
            gama(45455) + chrm((31270, 32900, *(1, 1) * 3)),
            "gamma 0.45455 and own primaries: impossible primaries, ignored",
        ),
        (chunk(b"iCCP", b"x\0\0nothing packed"), "damaged colour profile ignored"),
    ],
)
def test_what_cannot_be_converted_is_noted(tmp_path: Path, chunks: bytes, note: str) -> None:
    result = prepared(tmp_path, photo(), chunks)
    assert (result.image.tobytes(), result.notes) == (photo().tobytes(), (note,))


def test_a_profile_stands_in_for_code_points_that_cannot_be_converted(tmp_path: Path) -> None:
    chunks = chunk(b"cICP", bytes([9, 16, 0, 1])) + iccp(srgb_profile("swap", swap=True))
    notes = prepared(tmp_path, Image.new("RGB", (2, 2), (200, 100, 50)), chunks).notes
    assert notes[0] == "colours of CICP 9/16 (PQ) cannot be converted: the colour profile is used instead"
    assert notes[1].startswith("colours converted from 'swap")


def test_files_that_pillow_has_opened(tmp_path: Path) -> None:
    prepared(tmp_path, photo(), chunk(b"cICP", bytes([9, 16, 0, 1])))
    with Image.open(tmp_path / "x.png") as image:
        before = dict(image.info)
        with pytest.warns(ImageConversionWarning, match=r"x\.png: colours of CICP 9/16 \(PQ\)"):
            make_codec("photo").prepare(image)
        assert image.info == before
        assert read_cicp(image) is None  # read already
    assert read_cicp(photo()) is None


@pytest.mark.parametrize(
    "change",
    [b"", b"\0\x0c\0\x0d\0\x06\x80", b"\0\x09\0\x10\0\x09\x80"],
)
def test_avif(tmp_path: Path, change: bytes) -> None:
    data = saved(photo(32, 32), "AVIF")
    at = data.index(b"colrnclx") + 8
    (tmp_path / "x.avif").write_bytes(data[:at] + change + data[at + len(change) :])
    loaded = open_image(tmp_path / "x.avif")
    notes = (*loaded.notes, *prepare_image(loaded.image, grey=False).notes)
    expected = {
        b"": (),
        b"\0\x0c\0\x0d\0\x06\x80": ("colours converted from 'CICP 12/13' to sRGB",),
        b"\0\x09\0\x10\0\x09\x80": ("colours of CICP 9/16 (PQ) cannot be converted: read as sRGB",),
    }
    assert notes == expected[change]


@pytest.mark.parametrize("how", ["colour space 2", "R03"])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF"])
def test_adobe_rgb_of_exif(tmp_path: Path, image_format: str, how: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a title"
    folder = exif.get_ifd(0x8769)
    folder[0xA001] = 2 if how == "colour space 2" else 65535
    if how == "R03":
        folder[0xA005] = {1: "R03"}
    if (image_format, how) == ("TIFF", "R03"):
        pytest.skip("Pillow writes no interoperability folder into TIFF files")
    (tmp_path / "x").write_bytes(saved(Image.new("RGB", (16, 16), (100, 150, 50)), image_format, exif=exif.tobytes()))
    loaded = open_image(tmp_path / "x")
    result = prepare_image(loaded.image, grey=False, keep_metadata=True)
    assert result.notes == ("colours converted from 'Adobe RGB (EXIF)' to sRGB",)
    assert result.image.getpixel((0, 0)) == pytest.approx((66, 151, 34), abs=3)
    again = prepare_image(result.image, grey=False, keep_metadata=True)  # not converted twice
    assert (again.image.tobytes(), again.notes) == (result.image.tobytes(), ())
    kept = Image.Exif()
    kept.load(again.image.info["exif"])
    assert kept.get_ifd(0x8769)[0xA001] == 1


def test_chromaticities_of_tiff(tmp_path: Path) -> None:
    def save(**tags: object) -> LoadedImage:
        folder = Image.Exif()
        for tag, value in tags.items():
            folder[int(tag[1:])] = value
        (tmp_path / "x.tif").write_bytes(saved(Image.new("RGB", (4, 4), (234, 51, 35)), "TIFF", exif=folder))
        loaded = open_image(tmp_path / "x.tif")
        return prepare_image(loaded.image, grey=False)

    white, wide, srgb = ([value / 100000 for value in part] for part in (P3_XY[:2], P3_XY[2:], SRGB_XY[2:]))
    result = save(_318=white, _319=wide)
    assert result.image.getpixel((0, 0)) == pytest.approx((255, 0, 0), abs=8)
    assert result.notes == ("colours converted from 'primaries (TIFF)' to sRGB",)
    assert save(_318=white, _319=srgb).notes == ()
    assert save(_301=tuple(range(768))).notes == ("transfer function (TIFF) ignored",)


def test_built_profiles_are_what_they_say() -> None:
    space = ColourSpace("test", None, (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06))
    profile = ImageCms.ImageCmsProfile(io.BytesIO(build_profile(space, grey=False)))
    assert ImageCms.getProfileDescription(profile).strip() == "test"
    image = photo(64, 64)
    same = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))
    assert same is not None
    assert np.abs(np.asarray(same, int) - np.asarray(image, int)).max() <= 1
    with pytest.raises(ValueError, match="outside"):
        build_profile(ColourSpace("test", 1.0, (float("nan"),) * 8), grey=False)


def test_errors_name_the_file(tmp_path: Path) -> None:
    """Samples out of range are found after the file is read and closed."""
    path = tmp_path / "x.tif"
    Image.fromarray(np.float32([[0, 300]])).save(path)
    loaded = open_image(path).image
    with pytest.raises(UnsupportedImageError) as caught:
        prepare_image(loaded, grey=True)
    assert str(caught.value) == f"{path}: samples of mode F range from 0 to 300; expected 0 to 255"
    with Image.open(path) as opened, pytest.raises(UnsupportedImageError, match=r"x\.tif: samples of mode F"):
        make_codec("photo").prepare(opened)
    with Image.open(path) as closed:
        pass
    with pytest.raises(UnsupportedImageError, match=r"x\.tif: the image is closed"):
        make_codec("photo").prepare(closed)
    data = saved(photo(64, 64), "WEBP")
    (tmp_path / "x.webp").write_bytes(data[: len(data) // 2])
    with pytest.raises(UnsupportedImageError, match=r"x\.webp: damaged image"):
        open_image(tmp_path / "x.webp")
