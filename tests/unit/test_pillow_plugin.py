"""``.ohm`` files through Pillow."""

import copy
import io
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, UnidentifiedImageError
from support.images import srgb_profile
from support.small_models import make_codec

from ohmq import loading, pillow_plugin
from ohmq.bitstream.reader import read_header, read_ohm
from ohmq.codec import Codec
from ohmq.imaging.convert import ImageConversionWarning
from ohmq.loading import load, register_model
from ohmq.pillow_plugin import OhmImageFile, save_atomically

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def photo() -> Codec:
    return load("photo")


@pytest.fixture(scope="module")
def crop() -> Image.Image:
    with Image.open(ROOT / "examples" / "photos" / "chelsea.png") as image:
        return image.convert("RGB").crop((100, 60, 171, 119))


@pytest.fixture
def data(photo: Codec, crop: Image.Image) -> bytes:
    return photo.compress(crop, bpp=2, layers="all")


def test_every_exported_name_is_there() -> None:
    assert pillow_plugin.__all__ == sorted(pillow_plugin.__all__)
    for name in pillow_plugin.__all__:
        assert getattr(pillow_plugin, name).__doc__


def test_opening_needs_the_header_alone(photo: Codec, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.ohm").write_bytes(data)
    (tmp_path / "part.ohm").write_bytes(data[: read_header(data).header_bytes])
    program = (
        "import sys, ohmq.pillow_plugin\n"
        "from PIL import Image\n"
        "for name in ('x.ohm', 'part.ohm'):\n"
        "    with Image.open(name) as image:\n"
        "        print(image.format, image.size, image.mode, image.get_format_mimetype(), image.info['layers'])\n"
        "heavy = {'torch', 'numpy', 'ohmq.codec'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"OHM (71, 59) RGB image/x-ohm {len(read_ohm(data).layers)}\n" * 2


def test_pixels_are_what_the_codec_decodes(photo: Codec, data: bytes, tmp_path: Path) -> None:
    expected = photo.decompress(data)
    (tmp_path / "x.ohm").write_bytes(data)
    for source in (tmp_path / "x.ohm", io.BytesIO(data)):
        with Image.open(source) as image:
            assert isinstance(image, OhmImageFile)
            assert image.info == {
                "model_id": photo.model_id.hex(),
                "channels": read_ohm(data).num_channels,
                "layers": len(read_ohm(data).layers),
                "fixed_rate": False,
                "tile": 0,
            }
            assert image.getpixel((3, 4)) == expected.getpixel((3, 4))
            image.load()
            assert image.tobytes() == expected.tobytes()
            image.putpixel((0, 0), (1, 2, 3))
            assert image.getpixel((0, 0)) == (1, 2, 3)
    with Image.open(io.BytesIO(data)) as image:
        for other in (copy.copy(image), image.copy(), pickle.loads(pickle.dumps(image)), image.rotate(0)):
            assert other.tobytes() == expected.tobytes()
    with Image.open(io.BytesIO(data)) as image:
        assert image.convert("L").size == (71, 59)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(expected))


def test_saving(photo: Codec, crop: Image.Image, context_codec: Codec, digit: Image.Image, tmp_path: Path) -> None:
    crop.save(tmp_path / "a.ohm")
    assert (tmp_path / "a.ohm").read_bytes() == photo.compress(crop)
    for arguments in (
        {"quality": 55},
        {"fraction": 0.5},
        {"bpp": 1.0},
        {"max_bytes": 900},
        {"psnr": 20},
        {"channels": 14, "layers": 1},
    ):
        buffer = io.BytesIO()
        crop.save(buffer, "OHM", model="photo", **arguments)
        assert buffer.getvalue() == photo.compress(crop, **arguments)  # type: ignore[arg-type]
    digit.save(tmp_path / "b.ohm", model=register_model(context_codec), fixed_rate=True)
    assert (tmp_path / "b.ohm").read_bytes() == context_codec.compress(digit, fixed_rate=True)
    with Image.open(tmp_path / "b.ohm") as image:  # a registered model opens its files
        assert image.mode == "L"
        assert image.tobytes() == context_codec.decompress((tmp_path / "b.ohm").read_bytes()).tobytes()


def test_saving_what_cannot_be_saved_leaves_nothing(crop: Image.Image, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="smallest file"):
        crop.save(tmp_path / "a.ohm", max_bytes=3)
    with pytest.raises(OSError, match="no model 'nothing'"):
        crop.save(tmp_path / "a.ohm", model="nothing")
    with pytest.raises(ValueError, match="at most one of"):
        crop.save(tmp_path / "a.ohm", bpp=1, psnr=30)
    assert list(tmp_path.iterdir()) == []
    with pytest.warns(UserWarning, match="no option optimize, progressive: ignored"):
        crop.save(tmp_path / "a.ohm", progressive=True, optimize=True, channels=6)
    with pytest.warns(ImageConversionWarning, match="alpha"):
        Image.new("RGBA", (9, 9)).save(tmp_path / "b.ohm", channels=6, flatten=True)


def test_transparency_and_metadata(photo: Codec, crop: Image.Image, tmp_path: Path) -> None:
    picture, exif = crop.copy(), Image.Exif()
    picture.putalpha(Image.linear_gradient("L").resize(crop.size))
    exif[0x010E] = "a cat"
    picture.info = {"exif": exif.tobytes(), "xmp": b"<x/>"}
    picture.save(tmp_path / "a.ohm", channels=12, keep_metadata=True)
    data = (tmp_path / "a.ohm").read_bytes()
    assert data == photo.compress(picture, channels=12, keep_metadata=True)
    header = read_header(data)
    (tmp_path / "header.ohm").write_bytes(data[: header.header_bytes])
    with Image.open(tmp_path / "header.ohm") as image:
        assert (image.mode, image.size) == ("RGBA", crop.size)
        with pytest.raises(OSError, match="truncated"):
            image.load()
    with Image.open(tmp_path / "a.ohm") as image:
        assert image.mode == "RGBA"
        assert image.info["xmp"] == b"<x/>"
        assert image.getexif()[0x010E] == "a cat"  # nothing is decoded yet
        assert image.getchannel("A").tobytes() == picture.getchannel("A").tobytes()
        assert image.tobytes() == photo.decompress(data).tobytes()
    picture.save(tmp_path / "plain.ohm", channels=12)
    with Image.open(tmp_path / "plain.ohm") as image:
        assert (image.mode, "exif" in image.info) == ("RGBA", False)
    damaged = bytearray(data)
    damaged[header.header_bytes + header.extras_bytes - 1] ^= 1
    with Image.open(io.BytesIO(bytes(damaged))) as image:
        assert "exif" in image.info and "xmp" not in image.info
        with pytest.raises(OSError, match="extra of type 4 is damaged"):
            image.load()
    grey = Image.new("LA", (28, 28), (200, 0))
    codec = register_model(make_codec("static"))
    grey.save(tmp_path / "grey.ohm", model=codec)
    with Image.open(tmp_path / "grey.ohm") as image:
        assert (image.mode, image.getpixel((3, 3))[1]) == ("LA", 0)  # type: ignore[index]


def test_truncated_files_follow_pillows_switch(photo: Codec, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    part = data[:-1]
    with Image.open(io.BytesIO(part)) as image, pytest.raises(OSError, match="image file is truncated"):
        image.load()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with Image.open(io.BytesIO(part)) as image:
        assert image.tobytes() == photo.decompress(part, allow_truncated=True).tobytes()
    header = read_header(data).header_bytes
    with Image.open(io.BytesIO(data[: header + 1])) as image, pytest.raises(OSError, match="layer 1"):
        image.load()


def test_damaged_files_are_os_errors(data: bytes, context_codec: Codec, digit: Image.Image) -> None:
    for length in (4, 10, read_header(data).header_bytes - 1):
        with pytest.raises(UnidentifiedImageError, match=r"damaged \.ohm file: the file ends"):
            Image.open(io.BytesIO(data[:length]))
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(data[:3]))
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    with Image.open(io.BytesIO(flipped)) as image, pytest.raises(OSError, match="checksum"):
        image.load()
    with pytest.raises(OSError, match="checksum"):
        Image.open(io.BytesIO(flipped)).verify()
    Image.open(io.BytesIO(data)).verify()
    unknown = b"".join((data[:6], b"????", data[10:]))
    with pytest.raises(UnidentifiedImageError, match="checksum"):
        Image.open(io.BytesIO(unknown))


def test_a_model_that_is_not_at_hand(digit: Image.Image, monkeypatch: pytest.MonkeyPatch, context_codec: Codec) -> None:
    monkeypatch.setattr(loading, "_REGISTRY", loading.ModelRegistry())
    image = Image.open(io.BytesIO(context_codec.compress(digit)))
    assert image.size == (28, 28)
    with pytest.raises(OSError, match=f"model {context_codec.model_id.hex()}, which is not a shipped one"):
        image.load()


def test_pillows_limit_of_pixels_holds(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))


def test_other_files_open_as_before(crop: Image.Image, tmp_path: Path) -> None:
    crop.save(tmp_path / "x.png")
    (tmp_path / "x.txt").write_text("no picture")
    program = (
        "import sys, PIL.Image as Image\n"
        "import ohmq.pillow_plugin\n"
        "with Image.open('x.png') as image: assert image.format == 'PNG' and image.getpixel((0, 0)) is not None\n"
        "image.save('y.bmp')\n"
        "with Image.open('y.bmp') as image: assert image.format == 'BMP'\n"
        "try: Image.open('x.txt')\n"
        "except Image.UnidentifiedImageError: pass\n"
        "else: sys.exit('opened a text')\n"
        "sys.exit(' '.join({'torch', 'numpy', 'ohmq.codec'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def reopened(path: Path) -> Image.Image:
    """Return an image file's size, mode and info; nothing is decoded."""
    with Image.open(path) as image:
        header = Image.new(image.mode, image.size)
        header.info = dict(image.info)
        return header


def test_metadata_given_to_save_are_kept(crop: Image.Image, tmp_path: Path) -> None:
    path, exif, icc = tmp_path / "a.ohm", Image.Exif(), srgb_profile("sRGB")
    exif[0x010E] = "new"
    own = Image.Exif()
    own[0x010E] = "own"
    image = crop.copy()
    image.info = {"exif": own.tobytes(), "xmp": b"<own/>", "dpi": (72, 72)}
    before = dict(image.info)
    for given, kept in (
        ({"exif": exif}, {"exif"}),
        ({"exif": exif.tobytes()}, {"exif"}),
        ({"icc_profile": icc}, {"icc_profile"}),
        ({"xmp": b"<x/>"}, {"xmp"}),
        ({"xmp": "<x/>"}, {"xmp"}),
        ({"dpi": (300, 300)}, {"exif", "dpi"}),
        ({"exif": None, "xmp": b"", "icc_profile": None}, set()),
    ):
        image.save(path, channels=6, **given)
        info = reopened(path).info
        assert info.keys() & {"exif", "icc_profile", "xmp", "dpi"} == kept
        assert reopened(path).getexif().get(0x010E) == ("new" if given.get("exif") else None)
        assert info.get("icc_profile", icc) == icc
        assert info.get("xmp", b"<x/>") == b"<x/>"
        assert info.get("dpi", (300, 300)) == pytest.approx((300, 300))
    image.save(path, channels=6, xmp=b"<x/>", keep_metadata=True)
    info = reopened(path).info
    assert (info["xmp"], reopened(path).getexif()[0x010E]) == (b"<x/>", "own")
    assert image.info == before


def test_a_profile_given_to_save_says_what_colours_mean(crop: Image.Image, photo: Codec, tmp_path: Path) -> None:
    path, icc = tmp_path / "a.ohm", srgb_profile("swap", swap=True)
    tagged = crop.copy()
    tagged.info["icc_profile"] = icc
    with pytest.warns(ImageConversionWarning, match="colours converted from 'swap"):
        crop.save(path, channels=12, icc_profile=icc)
    with pytest.warns(ImageConversionWarning):
        assert path.read_bytes() == photo.compress(tagged, channels=12)
    assert "icc_profile" not in reopened(path).info
    tagged.save(path, channels=12, icc_profile=None)  # taken as sRGB
    assert path.read_bytes() == photo.compress(crop, channels=12)


def test_an_orientation_given_to_save_turns_the_image(crop: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    crop.save(tmp_path / "a.ohm", channels=6, exif=exif)
    assert reopened(tmp_path / "a.ohm").size == crop.size[::-1]
    assert reopened(tmp_path / "a.ohm").getexif().get(0x0112, 1) == 1


def test_bad_metadata_given_to_save(crop: Image.Image, tmp_path: Path) -> None:
    with pytest.warns(ImageConversionWarning, match="XMP that is not UTF-8"):
        crop.save(tmp_path / "a.ohm", channels=6, xmp=b"\xff")
    with pytest.warns(ImageConversionWarning, match="damaged EXIF"):
        crop.save(tmp_path / "a.ohm", channels=6, exif=b"Exif\0\0garbage!!")
    with pytest.warns(ImageConversionWarning, match="dropped: a resolution"):
        crop.save(tmp_path / "a.ohm", channels=6, dpi=(0, 0))
    assert "exif" not in reopened(tmp_path / "a.ohm").info


def test_save_all_takes_one_image(crop: Image.Image, tmp_path: Path) -> None:
    crop.save(tmp_path / "a.ohm", channels=6)
    crop.save(tmp_path / "b.ohm", channels=6, save_all=True, append_images=[])
    assert (tmp_path / "b.ohm").read_bytes() == (tmp_path / "a.ohm").read_bytes()
    with pytest.raises(OSError, match="holds one image, not 3"):
        crop.save(tmp_path / "c.ohm", save_all=True, append_images=[crop, crop])
    crop.save(tmp_path / "x.gif", save_all=True, append_images=[Image.new("RGB", crop.size)])
    with Image.open(tmp_path / "x.gif") as frames, pytest.raises(OSError, match="holds one image, not 2"):
        frames.save(tmp_path / "c.ohm", save_all=True)
    assert not (tmp_path / "c.ohm").exists()


def test_a_failed_save_and_an_existing_file(crop: Image.Image, tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.ohm"
    save_atomically(crop, path, channels=6, xmp=b"<x/>")
    before = path.read_bytes()
    with pytest.raises(OSError, match="smallest file"):
        save_atomically(crop, path, max_bytes=3)
    assert path.read_bytes() == before
    save_atomically(crop, path, channels=12)
    assert path.read_bytes() != before
    assert [file.name for file in path.parent.iterdir()] == ["a.ohm"]
    with path.open("r+b") as file, pytest.raises(OSError, match="smallest file"):
        crop.save(file, "OHM", max_bytes=3)  # the program's own file is not touched, either
    assert path.stat().st_size > 0
    with pytest.warns(UserWarning, match="no option lossless: ignored"):
        save_atomically(crop, path, channels=6, lossless=True)


def test_closed_and_verified_images_say_so(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.ohm").write_bytes(data)
    with Image.open(tmp_path / "x.ohm") as closed:
        pass
    verified, shut, loaded = (Image.open(tmp_path / "x.ohm") for _ in range(3))
    verified.verify()
    shut.close()
    for image in (closed, verified, shut):
        for use in (image.load, image.copy, lambda image=image: image.crop((0, 0, 1, 1))):
            with pytest.raises(ValueError, match="the image is closed: open it again"):
                use()
        with pytest.raises(RuntimeError, match="directly after open"):
            image.verify()
    loaded.load()
    loaded.close()


def test_threads_share_an_image_that_is_not_decoded(data: bytes, photo: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, calls, gate = photo.decompress(data).tobytes(), [], threading.Barrier(6)
    found: list[bytes | Exception] = []

    def decoding(data: bytes) -> Codec:
        calls.append(threading.get_ident())
        return photo

    monkeypatch.setattr(pillow_plugin, "load_for", decoding)
    image = Image.open(io.BytesIO(data))

    def use() -> None:
        gate.wait()
        try:
            found.append(image.copy().tobytes())
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 6
    assert len(calls) == 1


def test_what_pillow_asks_of_every_image(data: bytes, photo: Codec, tmp_path: Path) -> None:
    with Image.open(io.BytesIO(data)) as image:
        assert (image.tell(), getattr(image, "n_frames", 1), getattr(image, "is_animated", False)) == (0, 1, False)
        image.seek(0)
        with pytest.raises(EOFError):
            image.seek(1)
        assert image.draft("L", None) is None
        image.thumbnail((20, 20))
        assert max(image.size) == 20
    unread = Image.open(io.BytesIO(data))
    assert pickle.loads(pickle.dumps(unread)).tobytes() == photo.decompress(data).tobytes()


class Calls:
    """A codec that records how it is asked to decompress."""

    def __init__(self, codec: Codec, decoders: tuple[str, ...] = ("standard",)) -> None:
        self.codec, self.decoders, self.asked = codec, decoders, []  # type: ignore[var-annotated]

    def decompress(self, data: bytes, *, decoder: str | None, scale: int, **options: object) -> Image.Image:
        self.asked.append((decoder, scale))
        return self.codec.decompress(data, scale=scale, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "scale"), [((5, 4), 8), ((4, 3), 16), ((9, 8), 1), ((8, 7), 8), ((1, 1), 16), ((0, 0), 16), ((1, 60), 1)]
)
def test_a_draft_is_at_least_as_large_as_asked_for(
    size: tuple[int, int], scale: int, data: bytes, photo: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(photo)
    monkeypatch.setattr(pillow_plugin, "load_for", lambda data: calls)
    with Image.open(io.BytesIO(data)) as image:  # 71 x 59 pixels
        assert image.draft(None, size) == ("RGB", (0, 0, 71 / scale, 59 / scale))
        assert image.size == (-(-71 // scale), -(-59 // scale))
        assert image.draft(None, (1, 1)) is None  # once
        expected = photo.decompress(data, scale=scale)
        assert image.tobytes() == expected.tobytes() and image.size == expected.size
        assert image.draft(None, (1, 1)) is None
    assert calls.asked == [(None, scale)]


def test_a_draft_asks_for_the_fast_decoder(data: bytes, photo: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(photo, ("fast", "standard"))
    monkeypatch.setattr(pillow_plugin, "load_for", lambda data: calls)
    for size in (None, (60, 50), (5, 4)):
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", size)
            image.load()
    assert calls.asked == [(None, 1), ("fast", 1), ("fast", 8)]


def test_thumbnails_do_without_the_whole_image(photo: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    with Image.open(ROOT / "examples" / "photos" / "coffee.png") as opened:
        picture = opened.convert("RGB").crop((0, 0, 330, 203))
    alpha = picture.copy()
    alpha.putalpha(200)
    calls = Calls(photo)
    monkeypatch.setattr(pillow_plugin, "load_for", lambda data: calls)
    for source in (picture, alpha):
        coded = photo.compress(source, effort=0)
        for side, scale in ((12, 8), (6, 16), (13, 1)):  # thumbnail asks for twice the size
            with Image.open(io.BytesIO(coded)) as image:
                image.thumbnail((side, side))
                expected = photo.decompress(coded)
                expected.thumbnail((side, side))
                assert (image.size, image.mode) == (expected.size, source.mode)
                difference = np.asarray(image, int) - np.asarray(expected, int)
                assert np.abs(difference).mean() < 3
            assert calls.asked.pop() == (None, scale)


def test_errors_name_the_file(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.ohm"
    path.write_bytes(data[:-1])
    with Image.open(path) as image, pytest.raises(OSError, match=r"x\.ohm: image file is truncated"):
        image.load()
    path.write_bytes(data[:9])
    with pytest.raises(UnidentifiedImageError, match=r"x\.ohm: damaged"):
        Image.open(path)
