"""src/ohmq/imaging/files.py."""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin

from ohmq.errors import UnsupportedImageError
from ohmq.imaging.convert import DEFAULT_MAX_PIXELS, LoadedImage, _raw_modes, check_size, load_pixels
from ohmq.imaging.extras import METADATA
from ohmq.imaging.metadata import _exif, _upright
from ohmq.utils.atomic_write import write_atomically

__all__ = ["check_extension", "check_holds", "open_image", "save_image"]

# Extension: Pillow's format and how to save without loss where the format can, at high quality where it cannot.
SAVE_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".webp": ("WEBP", {"lossless": True}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {"compression": "tiff_lzw"}),
    ".tiff": ("TIFF", {"compression": "tiff_lzw"}),
    ".ppm": ("PPM", {}),
    ".pgm": ("PPM", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
}
ALPHA_FORMATS = ("PNG", "WEBP", "TIFF")
METADATA_FORMATS = ("PNG", "WEBP", "TIFF", "JPEG")


def open_image(path: Path | str, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> LoadedImage:
    """Read an image file whole, upright by its EXIF orientation, in the colour mode of the file.

    Of several pictures in a file the first is read. What Pillow warns of is passed on as a note.

    Args:
        path: the file. max_pixels: larger images are refused before they are decoded.

    Raises:
        UnsupportedImageError: missing, a folder, empty, not an image, damaged, or too large.

    Example:
        >>> open_image("no such file.png")
        Traceback (most recent call last):
        ...
        ohmq.errors.UnsupportedImageError: no such file.png: no such file
    """
    path = Path(path)
    if path.is_dir():
        raise UnsupportedImageError(f"{path}: a folder, not an image file")
    if not path.exists():
        raise UnsupportedImageError(f"{path}: no such file")
    if not path.is_file():
        raise UnsupportedImageError(f"{path}: not a regular file")
    if path.stat().st_size == 0:
        raise UnsupportedImageError(f"{path}: the file is empty")
    notes = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with Image.open(path) as opened:
                image: Image.Image = opened
                if image.format == "EPS":
                    raise UnsupportedImageError("EPS is a program, not a picture; convert it first")
                check_size(image.width, image.height, max_pixels)
                if getattr(image, "n_frames", 1) > 1:
                    notes.append("first picture of several in the file")
                raw_modes = _raw_modes(image)
                image = load_pixels(image, notes)
                upright = _upright(image, notes)
                exif = _exif(image)
                if upright is image:
                    upright = image.copy()
                if exif and "exif" not in upright.info:
                    upright.info["exif"] = exif
                if any("I;12" in raw for raw in raw_modes):  # Pillow leaves the values at 0..4095
                    values = np.asarray(upright, np.uint16)
                    scaled = Image.fromarray(values << 4 | values >> 8)
                    scaled.info = upright.info
                    upright = scaled
        except UnsupportedImageError as error:
            raise UnsupportedImageError(f"{path}: {error}") from error
        except PermissionError as error:
            raise UnsupportedImageError(f"{path}: no permission to read it") from error
        except Image.UnidentifiedImageError as error:
            raise UnsupportedImageError(f"{path}: not an image, or of a format that Pillow cannot read") from error
        except Image.DecompressionBombError as error:
            raise UnsupportedImageError(f"{path}: too large for Pillow ({error})") from error
        except Exception as error:  # damaged files make Pillow raise nearly anything
            raise UnsupportedImageError(f"{path}: damaged image ({type(error).__name__}: {error})") from error
    texts = [str(w.message) for w in caught if not issubclass(w.category, Image.DecompressionBombWarning)]
    notes += [f"Pillow warned: {text}" for text in dict.fromkeys(texts)]
    return LoadedImage(upright, tuple(notes))


def check_extension(path: Path | str) -> str:
    """Pillow's format for a file name; call it before any work that ends in `save_image`.

    Raises:
        UnsupportedImageError: an extension that `save_image` does not write.
    """
    extension = Path(path).suffix.lower()
    if extension not in SAVE_FORMATS:
        raise UnsupportedImageError(
            f"{path}: cannot write images of extension {extension!r}; use one of {' '.join(SAVE_FORMATS)}"
        )
    return SAVE_FORMATS[extension][0]


def check_holds(path: Path | str, *, alpha: bool) -> None:
    """Refuse early to write a picture with transparency into a file that has none.

    Raises:
        UnsupportedImageError: as `check_extension`, or transparency and a format without it.
    """
    image_format = check_extension(path)
    if alpha and image_format not in ALPHA_FORMATS:
        raise UnsupportedImageError(
            f"{path}: cannot be written as {image_format}, which has no transparency; choose .png, .webp or .tif, or flatten it"
        )


def save_image(path: Path | str, image: Image.Image, *, force: bool = False) -> tuple[str, ...]:
    """Write an image, in the format of the extension: without loss, but for JPEG (quality 95, 4:4:4).

    Args:
        path: the target; missing folders are made. image: the picture, in its ``info`` "exif", "icc_profile" and "xmp".
        force: replace an existing file.

    Returns:
        What the format cannot hold, in words.

    Raises:
        UnsupportedImageError: an extension that is not written, or an image that the format cannot hold.
        OutputExistsError: the file exists and force is not set.
    """
    image_format = check_extension(path)
    check_holds(path, alpha=image.has_transparency_data)
    options, notes = dict(SAVE_FORMATS[Path(path).suffix.lower()][1]), []
    metadata = {name: image.info[name] for name in METADATA.values() if name in image.info}
    if metadata and image_format not in METADATA_FORMATS:
        notes.append(f"{image_format} holds no metadata: dropped {', '.join(metadata)}")
        metadata = {}
    buffer = io.BytesIO()
    try:
        if image_format == "PNG" and "xmp" in metadata:
            options["pnginfo"] = PngImagePlugin.PngInfo()
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", metadata.pop("xmp").decode(), zip=False)
        elif image_format == "TIFF" and metadata.keys() & {"exif", "xmp"}:
            tags = Image.Exif()
            tags.load(metadata.get("exif", b""))
            if "xmp" in metadata:
                tags[ExifTags.Base.XMLPacket] = metadata.pop("xmp")
            options["exif"] = tags
            if metadata.pop("exif", None):
                del options["compression"]  # with it Pillow cannot write the folders of EXIF data
        image.save(buffer, image_format, **options, **metadata)
    except Exception as error:  # damaged metadata make Pillow raise nearly anything
        raise UnsupportedImageError(f"{path}: cannot be written as {image_format} ({error})") from error
    write_atomically(Path(path), buffer.getvalue(), force=force)
    return tuple(notes)
