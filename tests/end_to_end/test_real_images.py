"""Each kind of image through the real command line: the table of docs/images.md."""

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageCms

from ohmq.bitstream.reader import read_header
from ohmq.cli import main
from ohmq.loading import load
from ohmq.metrics import psnr_db

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "chelsea.png"
ALPHA = "alpha channel flattened onto white"
SEVERAL = "first image of several in the file"


class Kind(NamedTuple):
    """A kind of image file: its name, how it is written, the image that is expected, the notes."""

    name: str
    write: Callable[[Image.Image, Path], Any]
    expected: Callable[[Image.Image], Image.Image]
    notes: tuple[str, ...] = ()


def crop() -> Image.Image:
    with Image.open(PHOTO) as image:
        piece = image.convert("RGB").crop((100, 60, 180, 124))
    piece.info = {}
    return piece


def grey(image: Image.Image) -> Image.Image:
    return image.convert("L").convert("RGB")


def ramp(image: Image.Image) -> Image.Image:
    """A mask from transparent at the top to opaque at the bottom."""
    return Image.linear_gradient("L").resize(image.size)


def transparent(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(ramp(image))
    return image


def on_white(image: Image.Image) -> Image.Image:
    return Image.composite(image, Image.new("RGB", image.size, "white"), ramp(image))


def deep(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def bilevel(image: Image.Image) -> Image.Image:
    return image.convert("L").point(lambda value: 255 * (value > 110)).convert("1", dither=Image.Dither.NONE)


def turned(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif, quality=98)


def palette(image: Image.Image) -> Image.Image:
    """255 colours; colour 255, red, is a square at the upper left."""
    quantized = image.quantize(255)
    quantized.putpalette([*(quantized.getpalette() or [])[: 3 * 255], 255, 0, 0])
    quantized.paste(255, (0, 0, 32, 32))
    return quantized


def clear(image: Image.Image) -> Image.Image:
    """Transparent where `palette` and `square` have the square."""
    image = image.convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 32, 32))
    return image


def without_square(image: Image.Image) -> Image.Image:
    return clear(palette(image))


def square(image: Image.Image) -> Image.Image:
    """A red square at the upper left."""
    image = image.copy()
    image.paste((255, 0, 0), (0, 0, 32, 32))
    return image


def animated(image: Image.Image, path: Path, **options: Any) -> None:
    image.save(path, save_all=True, append_images=[image.rotate(180)], **options)


def described(image: Image.Image, path: Path, name: bytes, body: bytes) -> None:
    """Write a PNG file with one more chunk."""
    image.save(path)
    data = path.read_bytes()
    checksum = zlib.crc32(name + body).to_bytes(4, "big")
    path.write_bytes(data[:33] + len(body).to_bytes(4, "big") + name + body + checksum + data[33:])


def black(image: Image.Image) -> Image.Image:
    """Black and white, which are the same in every colour space."""
    return bilevel(image).convert("RGB")


NO_PROFILE, SIXTEEN = "CMYK converted to RGB without a colour profile", "16 bits reduced to 8"
KINDS = [
    Kind("rgb.png", lambda i, path: i.save(path), lambda i: i),
    Kind("rgb_jpeg.jpg", lambda i, path: i.save(path, quality=98), lambda i: i),
    Kind("rgb_webp.webp", lambda i, path: i.save(path, lossless=True), lambda i: i),
    Kind("grey.png", lambda i, path: i.convert("L").save(path), grey),
    Kind("grey_alpha.png", lambda i, path: transparent(grey(i)).convert("LA").save(path), lambda i: transparent(grey(i))),
    Kind("alpha.png", lambda i, path: transparent(i).save(path), transparent),
    Kind("alpha_webp.webp", lambda i, path: transparent(i).save(path, lossless=True, exact=True), transparent),
    Kind("alpha_tiff.tif", lambda i, path: transparent(i).save(path), transparent),
    Kind("opaque_alpha.png", lambda i, path: i.convert("RGBA").save(path), lambda i: i),
    Kind("palette.png", lambda i, path: palette(i).save(path), lambda i: palette(i).convert("RGB")),
    Kind("palette_clear.png", lambda i, path: palette(i).save(path, transparency=255), without_square),
    Kind("key.png", lambda i, path: square(i).save(path, transparency=(255, 0, 0)), lambda i: clear(square(i))),
    Kind("cmyk_jpeg.jpg", lambda i, path: i.convert("CMYK").save(path, quality=98), lambda i: i, (NO_PROFILE,)),
    Kind("cmyk_tiff.tif", lambda i, path: i.convert("CMYK").save(path), lambda i: i, (NO_PROFILE,)),
    Kind("grey_16.png", lambda i, path: deep(i).save(path), grey, (SIXTEEN,)),
    Kind("grey_16_tiff.tif", lambda i, path: deep(i).save(path), grey, (SIXTEEN,)),
    Kind("bilevel.png", lambda i, path: bilevel(i).save(path), lambda i: bilevel(i).convert("RGB")),
    Kind("bilevel_fax.tif", lambda i, path: bilevel(i).save(path, compression="group4"), lambda i: bilevel(i).convert("RGB")),
    Kind("gamma.png", lambda i, path: described(black(i), path, b"gAMA", b"\0\1\x86\xa0"), black,
         ("colours converted from 'gamma 1' to sRGB",)),
    Kind("srgb_gamma.png", lambda i, path: described(i, path, b"gAMA", b"\0\0\xb1\x8f"), lambda i: i),
    Kind("display_p3.png", lambda i, path: described(black(i), path, b"cICP", b"\x0c\x0d\0\1"), black,
         ("colours converted from 'CICP 12/13' to sRGB",)),
    Kind("pq.png", lambda i, path: described(i, path, b"cICP", b"\x09\x10\0\1"), lambda i: i,
         ("colours of CICP 9/16 (PQ) cannot be converted: read as sRGB",)),
    Kind("turned.jpg", turned, lambda i: i.transpose(Image.Transpose.ROTATE_270)),
    Kind("animated.gif", lambda i, path: animated(i.quantize(256), path), lambda i: i.quantize(256).convert("RGB"), (SEVERAL,)),
    Kind("animated_png.png", animated, lambda i: i, (SEVERAL,)),
    Kind("animated_webp.webp", lambda i, path: animated(i, path, lossless=True), lambda i: i, (SEVERAL,)),
    Kind("pages.tif", animated, lambda i: i, (SEVERAL,)),
]  # fmt: skip


def test_what_becomes_of_each_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    original, codec, notes = crop(), load("photo"), {}
    for kind in KINDS:
        kind.write(original, Path("in") / kind.name)
    for arguments in (["compress", "in", "-o", "coded", "--json"], ["decompress", "coded", "-o", "out", "--json"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        output = json.loads(capsys.readouterr().out)
        assert (stop.value.code, output["failures"]) == (0, [])
        notes |= {
            Path(row["input"]).name: tuple(row["notes"]) for row in output["results"] if arguments[0] == "compress"
        }
        if arguments[0] == "decompress":
            assert all(row["notes"] == [] for row in output["results"])
    assert notes == {kind.name: kind.notes for kind in KINDS}
    for kind in KINDS:
        expected = kind.expected(original)
        coded = np.asarray(codec.decompress(codec.compress(expected)))
        with Image.open((Path("out") / kind.name).with_suffix(".png")) as decoded:
            mode = "RGBA" if expected.mode == "RGBA" else "RGB"
            assert (decoded.mode, decoded.size, decoded.info) == (mode, expected.size, {}), kind.name
            if mode == "RGBA":
                assert decoded.getchannel("A").tobytes() == expected.getchannel("A").tobytes(), kind.name
            if kind.name.endswith(".jpg"):  # JPEG's own loss
                assert psnr_db(np.asarray(decoded), coded) > 30, kind.name
            else:
                assert np.array_equal(np.asarray(decoded), coded), kind.name


def test_flattened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """When it is compressed, or when it is decompressed."""
    monkeypatch.chdir(tmp_path)
    codec, original = load("photo"), transparent(crop())
    original.save("a.png")

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main([*arguments, "--force"])
        assert isinstance(stop.value.code, int)
        return stop.value.code, capsys.readouterr().err

    assert run("compress", "a.png", "--flatten", "-o", "flat.ohm") == (0, f"  note: {ALPHA}\n")
    assert Path("flat.ohm").read_bytes() == codec.compress(on_white(crop()))
    assert run("compress", "a.png", "-o", "a.ohm") == (0, "")
    code, output = run("decompress", "a.ohm", "-o", "a.jpg")
    assert (code, Path("a.jpg").exists()) == (1, False)
    assert "a.jpg: cannot be written as JPEG, which has no transparency; choose .png, .webp or .tif" in output
    assert len(output.splitlines()) == 1
    assert run("decompress", "a.ohm", "-o", "flat.png", "--flatten") == (0, "")
    whole = codec.decompress(Path("a.ohm").read_bytes())
    white = Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")
    with Image.open("flat.png") as decoded:
        assert (decoded.mode, decoded.tobytes()) == ("RGB", white.tobytes())
    assert run("decompress", "a.ohm", "-o", "a.jpg", "--flatten")[0] == 0


@pytest.mark.parametrize("extension", ["png", "jpg", "webp", "tif"])
def test_metadata_there_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], extension: str
) -> None:
    """From a JPEG file that lies on its side: EXIF, XMP and the sRGB profile come back, upright."""
    monkeypatch.chdir(tmp_path)
    exif, profile = Image.Exif(), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif[0x0112], exif[0x010F], exif.get_ifd(0x8769)[0x829A] = 6, "a camera", 0.5
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
    crop().save("in.jpg", exif=exif, icc_profile=profile, xmp=xmp, quality=95)

    def run(*arguments: str) -> Any:
        with pytest.raises(SystemExit) as stop:
            main([*arguments, "--json"])
        assert stop.value.code == 0
        return json.loads(capsys.readouterr().out)["results"][0]

    coded = run("compress", "in.jpg", "-o", "a.ohm", "--keep-metadata", "--bpp", "6")
    assert (coded["notes"], coded["bytes"] <= 6 * 80 * 64 / 8) == ([], True)
    described = run("info", "a.ohm")
    assert [extra["name"] for extra in described["extras"]] == ["EXIF", "ICC profile", "XMP"]
    assert sum(extra["bytes"] for extra in described["extras"]) == coded["extras_bytes"] > len(profile)
    name = f"out.{extension}"
    assert run("decompress", "a.ohm", "-o", name)["notes"] == []
    with Image.open(name) as decoded:
        assert decoded.size == (64, 80)
        assert decoded.info["icc_profile"] == profile
        assert decoded.info["xmp"] == xmp
        assert decoded.getexif().get(0x0112, 1) == 1
        assert decoded.getexif()[0x010F] == "a camera"
        assert decoded.getexif().get_ifd(0x8769)[0x829A] == 0.5
    assert run("decompress", "a.ohm", "-o", "out.bmp")["notes"] == [
        "BMP holds no metadata: dropped exif, icc_profile, xmp"
    ]
    run("compress", "in.jpg", "-o", "plain.ohm")
    assert run("info", "plain.ohm")["extras"] == []


def test_info_of_a_transparent_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    transparent(crop()).save("a.png")
    for arguments in (
        ["compress", "a.png", "--layers", "3"],
        ["truncate", "a.ohm", "-o", "b.ohm", "--layers", "1"],
        ["info", "b.ohm"],
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
    data = Path("b.ohm").read_bytes()
    (mask,) = read_header(data).extras
    lines = capsys.readouterr().out.splitlines()[-4:]
    assert lines[0].startswith("b.ohm: 80x64 RGB with transparency, ")
    assert lines[1] == f"  beside the layers, in every cut: mask {mask.length:,} bytes"
    assert f"{len(data):,}" in lines[3]  # the file cut there, its mask included


def test_resolution_and_file_time_there_and_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    crop().save("a.png", dpi=(300, 150))
    os.utime("a.png", ns=(10**18, 10**18 + 7))

    def run(*arguments: str) -> None:
        with pytest.raises(SystemExit) as stop:
            main([*arguments])
        assert stop.value.code == 0
        assert "note:" not in capsys.readouterr().err

    def modified(name: str) -> int:
        return os.stat(name).st_mtime_ns

    run("compress", "a.png", "-o", "a.ohm", "--keep-metadata", "--layers", "2", "--channels", "30")
    run("decompress", "a.ohm", "-o", "b.png")
    run("truncate", "a.ohm", "-o", "cut.ohm", "--layers", "1")
    run("decompress", "cut.ohm", "--progressive", "steps")
    for name in ("a.ohm", "b.png", "cut.ohm", "steps/cut/layer_01.png"):
        assert modified(name) == 10**18 + 7
    for name in ("b.png", "steps/cut/layer_01.png"):
        with Image.open(name) as decoded:
            assert decoded.info["dpi"] == pytest.approx((300, 150), abs=0.02)
    run("compress", "a.png", "-o", "plain.ohm", "--channels", "30")
    os.utime("plain.ohm", ns=(10**18, 10**18))
    run("decompress", "plain.ohm", "-o", "plain.png")
    assert modified("plain.png") > 10**18 + 7
    with Image.open("plain.png") as decoded:
        assert "dpi" not in decoded.info


def test_max_pixels_counts_above_pillows_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    crop().save("a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow refuses more than 2,000
    for arguments, code in (
        (["compress", "a.png", "--channels", "30"], 0),
        (["compress", "a.png", "--channels", "30", "--force", "--max-pixels", "5119"], 1),
        (["decompress", "a.ohm", "-o", "b.png", "--max-pixels", "5119"], 1),
        (["decompress", "a.ohm", "-o", "b.png"], 0),
        (["evaluate", "a.png", "--channels", "30", "-o", "e", "--max-pixels", "5120"], 0),
        (["evaluate", "a.png", "--channels", "30", "-o", "f", "--max-pixels", "5119"], 1),
        (["compare", "a.png", "--rates", "1", "--codec", "jpeg", "--max-pixels", "5119"], 1),
        (["compare", "a.png", "--rates", "1", "--codec", "jpeg", "--max-pixels", "5120"], 0),
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        error = capsys.readouterr().err
        assert stop.value.code == code, error
        assert ("--max-pixels" in error) == bool(code)
