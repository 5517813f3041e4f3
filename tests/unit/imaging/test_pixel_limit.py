"""The limit on pixels in place of Pillow's own."""

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.images import photo, saved
from support.small_models import make_codec

from ohmq.datasets.mnist import load_png_folder
from ohmq.errors import ConfigError, UnsupportedImageError
from ohmq.evaluation.classic import code_classic
from ohmq.imaging.files import open_image
from ohmq.imaging.pixel_limit import pixel_limit, pixels_error

FORMATS = ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "JPEG2000"]


@pytest.fixture(autouse=True)
def small_pillow_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow itself refuses images of more than 200 pixels."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)


@pytest.mark.parametrize("image_format", FORMATS)
def test_our_limit_counts_in_every_format(tmp_path: Path, image_format: str) -> None:
    (tmp_path / "x").write_bytes(saved(photo(40, 30), image_format))
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "x").load()
    loaded = open_image(tmp_path / "x", max_pixels=1200)
    assert (loaded.image.size, loaded.notes) == ((40, 30), ())
    with pytest.raises(UnsupportedImageError, match="1,200 pixels; the limit is 1,199.*--max-pixels") as caught:
        open_image(tmp_path / "x", max_pixels=1199)
    assert str(caught.value).startswith(f"{tmp_path / 'x'}: the image is 40x30")
    assert Image.MAX_IMAGE_PIXELS == 100


def test_a_large_image_within_a_small_one_is_refused(tmp_path: Path) -> None:
    """An icon says 16x16 and holds a PNG of 64x64 pixels: the limit is checked where Pillow checks its own."""
    icon = bytearray(saved(Image.new("RGBA", (64, 64)), "ICO", sizes=[(64, 64)]))
    icon[6:8] = bytes([16, 16])
    (tmp_path / "x.ico").write_bytes(icon)
    with pytest.raises(UnsupportedImageError, match=r"x\.ico: the image is 64x64, 4,096 pixels; the limit is 500"):
        open_image(tmp_path / "x.ico", max_pixels=500)


def test_other_threads_keep_pillows_limit() -> None:
    data, outcomes = saved(photo(40, 30)), []

    def open_elsewhere() -> None:
        try:
            Image.open(io.BytesIO(data))
        except Image.DecompressionBombError as error:
            outcomes.append(type(error))

    with pixel_limit(10_000):
        Image.open(io.BytesIO(data)).load()
        thread = threading.Thread(target=open_elsewhere)
        thread.start()
        thread.join()
    open_elsewhere()
    assert outcomes == [Image.DecompressionBombError] * 2


def test_images_that_pillow_has_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A TIFF file is checked when its pixels are read, too."""
    data = saved(photo(40, 30), "TIFF")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    image = Image.open(io.BytesIO(data))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert make_codec("photo").prepare(image).size == (40, 30)


def test_files_of_other_codecs_are_decoded() -> None:
    pixels = code_classic("jpeg", np.asarray(photo(40, 30)), 90).pixels
    assert pixels.shape == (30, 40, 3)


def test_pixels_error() -> None:
    assert pixels_error(4, 5, 20) is None
    assert "4x5, 20 pixels; the limit is 19" in str(pixels_error(4, 5, 19))


def test_digits_of_another_size_are_named(tmp_path: Path) -> None:
    photo(40, 30).save(tmp_path / "x.png")
    with pytest.raises(ConfigError, match=r"x\.png is 40x30"):
        load_png_folder(tmp_path)
