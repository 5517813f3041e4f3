"""What becomes of each kind of image: the table of docs/command-line.md, through the real command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from ohmq.cli import main
from ohmq.codec import load
from ohmq.metrics import psnr_db

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "chelsea.png"
ALPHA = "alpha channel flattened onto white"
SEVERAL = "first picture of several in the file"


class Kind(NamedTuple):
    """A kind of image file: its name, how it is written, the picture that is expected, the notes."""

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


def without_square(image: Image.Image) -> Image.Image:
    shown = palette(image).convert("RGB")
    shown.paste((255, 255, 255), (0, 0, 32, 32))
    return shown


def animated(image: Image.Image, path: Path, **options: Any) -> None:
    image.save(path, save_all=True, append_images=[image.rotate(180)], **options)


NO_PROFILE, SIXTEEN = "CMYK converted to RGB without a colour profile", "16 bits reduced to 8"
KINDS = [
    Kind("rgb.png", lambda i, path: i.save(path), lambda i: i),
    Kind("rgb_jpeg.jpg", lambda i, path: i.save(path, quality=98), lambda i: i),
    Kind("rgb_webp.webp", lambda i, path: i.save(path, lossless=True), lambda i: i),
    Kind("grey.png", lambda i, path: i.convert("L").save(path), grey),
    Kind("grey_alpha.png", lambda i, path: transparent(grey(i)).convert("LA").save(path), lambda i: on_white(grey(i)), (ALPHA,)),
    Kind("alpha.png", lambda i, path: transparent(i).save(path), on_white, (ALPHA,)),
    Kind("alpha_webp.webp", lambda i, path: transparent(i).save(path, lossless=True), on_white, (ALPHA,)),
    Kind("alpha_tiff.tif", lambda i, path: transparent(i).save(path), on_white, (ALPHA,)),
    Kind("opaque_alpha.png", lambda i, path: i.convert("RGBA").save(path), lambda i: i),
    Kind("palette.png", lambda i, path: palette(i).save(path), lambda i: palette(i).convert("RGB")),
    Kind("palette_clear.png", lambda i, path: palette(i).save(path, transparency=255), without_square, (ALPHA,)),
    Kind("cmyk_jpeg.jpg", lambda i, path: i.convert("CMYK").save(path, quality=98), lambda i: i, (NO_PROFILE,)),
    Kind("cmyk_tiff.tif", lambda i, path: i.convert("CMYK").save(path), lambda i: i, (NO_PROFILE,)),
    Kind("grey_16.png", lambda i, path: deep(i).save(path), grey, (SIXTEEN,)),
    Kind("grey_16_tiff.tif", lambda i, path: deep(i).save(path), grey, (SIXTEEN,)),
    Kind("bilevel.png", lambda i, path: bilevel(i).save(path), lambda i: bilevel(i).convert("RGB")),
    Kind("bilevel_fax.tif", lambda i, path: bilevel(i).save(path, compression="group4"), lambda i: bilevel(i).convert("RGB")),
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
        told = json.loads(capsys.readouterr().out)
        assert (stop.value.code, told["failures"]) == (0, [])
        notes |= {Path(row["input"]).name: tuple(row["notes"]) for row in told["results"] if "notes" in row}
    assert notes == {kind.name: kind.notes for kind in KINDS}
    for kind in KINDS:
        expected = kind.expected(original)
        coded = np.asarray(codec.decompress(codec.compress(expected)))
        with Image.open((Path("out") / kind.name).with_suffix(".png")) as decoded:
            assert (decoded.mode, decoded.size, decoded.info) == ("RGB", expected.size, {}), kind.name
            if kind.name.endswith(".jpg"):  # JPEG's own loss
                assert psnr_db(np.asarray(decoded), coded) > 30, kind.name
            else:
                assert np.array_equal(np.asarray(decoded), coded), kind.name
