"""Pictures with transparency and metadata through the codec: colours by the model, the mask exactly."""

import dataclasses
import io
import warnings

import numpy as np
import pytest
from PIL import Image
from support.reference_decoder import reference_file
from support.small_models import make_codec, photo_picture

from ohmq.bitstream.format import Extra, ExtraType, OhmFile
from ohmq.bitstream.reader import read_header, read_ohm
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.bitstream.writer import write_ohm
from ohmq.codec import Codec
from ohmq.errors import BitstreamError, ChecksumError, TruncatedFileError, UnreachableTargetError
from ohmq.imaging.convert import prepare_image
from ohmq.imaging.extras import encode_mask
from ohmq.metrics import psnr_db

EXIF = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"


@pytest.fixture(scope="module")
def colour_codec() -> Codec:
    return make_codec("photo")


@pytest.fixture(scope="module")
def sticker() -> Image.Image:
    """A picture of 70x50 pixels, transparent outside a soft disc."""
    picture = photo_picture(50, 70, 1)
    y, x = np.mgrid[:50, :70]
    disc = np.clip(20 * (22 - np.hypot(y - 25, x - 30)), 0, 255)
    picture.putalpha(Image.fromarray(disc.astype(np.uint8)))
    return picture


def alpha_of(image: Image.Image) -> bytes:
    return image.getchannel("A").tobytes()


@pytest.mark.parametrize("fixed_rate", [False, True])
def test_every_cut_has_the_exact_mask(colour_codec: Codec, sticker: Image.Image, fixed_rate: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is lost, so nothing is said
        data = colour_codec.compress(sticker, fixed_rate=fixed_rate, layers="all")
    expected = prepare_image(sticker, grey=False, flatten=False).image.convert("RGB")
    assert (
        read_ohm(data).layers == read_ohm(colour_codec.compress(expected, fixed_rate=fixed_rate, layers="all")).layers
    )
    for number in range(1, len(colour_codec.cut_points) + 1):
        picture = colour_codec.decompress(truncate_ohm(data, num_layers=number))
        assert (picture.mode, picture.size, picture.info) == ("RGBA", sticker.size, {})
        assert alpha_of(picture) == alpha_of(sticker)
    assert picture.tobytes() == colour_codec.decompress(data).tobytes()


def test_opaque_and_flattened_pictures_have_todays_bytes(colour_codec: Codec, sticker: Image.Image) -> None:
    opaque = sticker.convert("RGB")
    plain = colour_codec.compress(opaque)
    assert colour_codec.compress(opaque.convert("RGBA")) == plain
    assert plain[5] == 0
    white = Image.alpha_composite(Image.new("RGBA", sticker.size, "white"), sticker).convert("RGB")
    with pytest.warns(UserWarning, match="flattened onto white"):
        assert colour_codec.compress(sticker, flatten=True) == colour_codec.compress(white)


def test_a_grey_model_keeps_the_mask(context_codec: Codec, digit: Image.Image) -> None:
    picture = digit.copy()
    picture.putalpha(digit.point(lambda value: value // 2))
    for image in (picture, picture.convert("RGBA")):
        found = context_codec.decompress(context_codec.compress(image))
        assert (found.mode, alpha_of(found)) == ("LA", alpha_of(picture))


def test_targets_count_the_mask(colour_codec: Codec, sticker: Image.Image) -> None:
    files = [colour_codec.compress(sticker, channels=point) for point in colour_codec.cut_points]
    sizes = [len(file) for file in files]
    for arguments in ({}, {"layers": 1}):
        cuts = [colour_codec.compress(sticker, channels=n, **arguments) for n in colour_codec.cut_points]  # type: ignore[arg-type]
        for place, cut in enumerate(cuts[:3]):
            found = colour_codec.compress(sticker, max_bytes=len(cut), **arguments)  # type: ignore[arg-type]
            assert max(len(file) for file in cuts[place:] if len(file) <= len(cut)) <= len(found) <= len(cut)
    within = colour_codec.compress(sticker, bpp=8 * (sizes[2] + 0.5) / (70 * 50))
    assert max(size for size in sizes[2:] if size <= sizes[2]) <= len(within) <= sizes[2]
    mask = len(encode_mask(sticker.getchannel("A")))
    with pytest.raises(UnreachableTargetError, match=rf"has \d+ bytes .*; {mask} of them are its mask"):
        colour_codec.compress(sticker, max_bytes=sizes[0] // 2)


def test_psnr_is_of_what_can_be_seen(colour_codec: Codec, sticker: Image.Image) -> None:
    files = [colour_codec.compress(sticker, channels=point) for point in colour_codec.cut_points]
    seen = np.asarray(sticker)[..., 3] > 0
    original = np.asarray(sticker)[..., :3][seen]
    reached = [psnr_db(original, np.asarray(colour_codec.decompress(file))[..., :3][seen]) for file in files]
    for wanted in sorted(reached)[:3]:
        found = colour_codec.decompress(colour_codec.compress(sticker, psnr=wanted))
        assert psnr_db(original, np.asarray(found)[..., :3][seen]) >= wanted
    with pytest.raises(UnreachableTargetError, match=r"reaches \d\d\.\d\d dB on this image") as error:
        colour_codec.compress(sticker, psnr=90)
    assert float(str(error.value).split("reaches ")[1].split()[0]) >= round(max(reached), 2)
    invisible = Image.new("RGBA", (20, 20), (9, 99, 200, 0))
    smallest = colour_codec.compress(invisible, channels=colour_codec.cut_points[0], tune="psnr")
    assert len(colour_codec.compress(invisible, psnr=90)) <= len(smallest)


def test_growing_files_have_the_mask_from_the_first_layer(colour_codec: Codec, sticker: Image.Image) -> None:
    image = sticker.copy()
    image.info = {"exif": EXIF}
    data = colour_codec.compress(image, keep_metadata=True, layers="all")
    header = read_header(data)
    for stream in (data, io.BytesIO(data), [data[n : n + 7] for n in range(0, len(data), 7)]):
        pictures = list(colour_codec.decompress_progressive(stream))
        assert len(pictures) == len(header.layers)
        for picture, point in zip(pictures, colour_codec.cut_points, strict=True):
            assert picture.tobytes() == colour_codec.decompress(data, channels=point).tobytes()
            assert picture.info == {"exif": EXIF}
    start = header.header_bytes + header.extras_bytes
    first = start + header.layers[0].length
    assert alpha_of(colour_codec.decompress(data[:first], allow_truncated=True)) == alpha_of(sticker)
    for part in (data[: start - 1], data[: header.header_bytes]):
        with pytest.raises(TruncatedFileError, match="extra of type"):
            colour_codec.decompress(part, allow_truncated=True)
        with pytest.raises(TruncatedFileError, match="extra of type"):
            list(colour_codec.decompress_progressive(part, allow_truncated=True))
    damaged = bytearray(data)
    damaged[header.header_bytes + 40] ^= 1
    for decode in (
        colour_codec.decompress,
        lambda data, **more: list(colour_codec.decompress_progressive(data, **more)),
    ):
        with pytest.raises(ChecksumError, match="extra of type 1 is damaged"):
            decode(bytes(damaged), allow_truncated=True)  # type: ignore[operator]


def test_no_more_is_asked_of_a_source_than_a_little_at_a_time(context_codec: Codec, digit: Image.Image) -> None:
    """A header may announce a body of gigabytes, and `read` may allocate what it is asked for."""
    file = read_ohm(context_codec.compress(digit))
    data = write_ohm(dataclasses.replace(file, extras=(Extra(70, bytes(2**22)),)))
    asked: list[int] = []

    class Source(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            asked.append(size or 0)
            return super().read(size)

    assert len(list(context_codec.decompress_progressive(Source(data)))) == len(file.layers)
    assert 0 < max(asked) <= 2**20


def forged(file: OhmFile, *extras: Extra) -> bytes:
    return write_ohm(dataclasses.replace(file, extras=extras))


def test_forged_extras_are_refused(context_codec: Codec, digit: Image.Image) -> None:
    file = read_ohm(context_codec.compress(digit, channels=1))
    for extra, words in (
        (Extra(ExtraType.ALPHA, encode_mask(Image.new("L", (27, 28)))), "mask has 27x28 pixels, its image 28x28"),
        (Extra(ExtraType.ALPHA, b"no PNG"), "not a PNG"),
        (Extra(ExtraType.EXIF, b"nothing"), "EXIF"),
        (Extra(ExtraType.ICC, b""), "ICC"),
        (Extra(ExtraType.XMP, b"\xff"), "UTF-8"),
    ):
        data = forged(file, extra)
        with pytest.raises(BitstreamError, match=words):
            context_codec.decompress(data)
        with pytest.raises(BitstreamError, match=words):
            next(context_codec.decompress_progressive(data))
    ignored = forged(file, Extra(64, b"of another program"), Extra(2**35 - 1, b""))
    picture = context_codec.decompress(ignored)
    assert (picture.mode, picture.info) == ("L", {})
    assert picture.tobytes() == context_codec.decompress(write_ohm(file)).tobytes()
    assert read_ohm(truncate_ohm(ignored, num_layers=1)).extras == read_ohm(ignored).extras


def test_metadata_are_kept_if_asked_for(colour_codec: Codec) -> None:
    image = photo_picture(20, 20)
    image.info = {"exif": EXIF, "xmp": b"<x/>", "dpi": (300, 300)}
    plain = colour_codec.compress(image)
    assert colour_codec.decompress(plain).info == {}
    data = colour_codec.compress(image, keep_metadata=True)
    picture = colour_codec.decompress(data)
    assert (picture.info["xmp"], picture.info["dpi"]) == (b"<x/>", (300, 300))
    assert picture.getexif()[0x011A] == 300
    assert picture.tobytes() == colour_codec.decompress(plain).tobytes()
    assert colour_codec.compress_batch([image, image], keep_metadata=True) == [data, data]
    assert image.info.pop("dpi") == (300, 300)
    without = colour_codec.compress(image, keep_metadata=True)
    assert colour_codec.decompress(without).info == {"exif": EXIF, "xmp": b"<x/>"}


def test_symbols_are_those_of_the_picture_on_white(colour_codec: Codec, sticker: Image.Image) -> None:
    white = Image.new("RGBA", sticker.size, "white")
    white.alpha_composite(sticker)
    with pytest.warns(UserWarning, match="white"):
        found = colour_codec.analyse(sticker)
    assert np.array_equal(found.values, colour_codec.analyse(white.convert("RGB")).values)


def test_transparent_and_in_tiles(colour_codec: Codec, sticker: Image.Image) -> None:
    tiled = colour_codec.compress(sticker, tile=2, layers="all")
    header = read_header(tiled)
    assert (header.tile, header.alpha) == (2, True)
    assert reference_file(tiled)["tile"] == 2
    parts, symbols = colour_codec.decompress(tiled), colour_codec.decode(tiled)[1]
    assert alpha_of(parts) == alpha_of(sticker)
    one = colour_codec.synthesise(
        symbols._replace(tile=0, values=symbols.values.astype(np.int64)), sum(layer.channels for layer in header.layers)
    )
    assert np.abs(np.asarray(one, int) - np.asarray(parts, int)[..., :3]).max() <= 1
    cut = truncate_ohm(tiled, num_layers=2)
    assert alpha_of(colour_codec.decompress(cut)) == alpha_of(sticker)
    goal = colour_codec.compress(sticker, psnr=20, tile=2, layers="all")
    assert read_header(goal).tile == 2
    assert sum(layer.channels for layer in read_header(goal).layers) == sum(
        layer.channels for layer in read_header(colour_codec.compress(sticker, psnr=20, tile=0, layers="all")).layers
    )
