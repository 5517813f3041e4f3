"""Reading and writing image files with Pillow."""

import io
import stat
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, PngImagePlugin

from ohmq.errors import UnsupportedImageError
from ohmq.imaging.convert import DEFAULT_MAX_PIXELS, LoadedImage, check_size, load_pixels, raw_modes
from ohmq.imaging.extras import METADATA, checked_resolution
from ohmq.imaging.metadata import read_exif, upright
from ohmq.imaging.pixel_limit import pixel_limit
from ohmq.utils.atomic_write import write_atomically
from ohmq.utils.recorded_warnings import recorded_warnings

__all__ = ["SAVE_FORMATS", "check_extension", "check_holds", "encode_image", "open_image", "save_image"]

PNG_LEVEL = 2
"""zlib level of PNG files: of decoded photographs 0.3 % larger than Pillow's default 6, in 0.29 of the time."""
SAVE_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"compress_level": PNG_LEVEL}),
    ".webp": ("WEBP", {"lossless": True}),
    ".bmp": ("BMP", {}),
    ".tif": ("TIFF", {"compression": "tiff_lzw"}),
    ".tiff": ("TIFF", {"compression": "tiff_lzw"}),
    ".ppm": ("PPM", {}),
    ".pgm": ("PPM", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
}
"""Pillow's format and options of each extension: lossless if the format allows it, else at high quality."""
ALPHA_FORMATS = ("PNG", "WEBP", "TIFF")
"""Formats that hold transparency."""
METADATA_FORMATS = ("PNG", "WEBP", "TIFF", "JPEG")
"""Formats that hold metadata."""
RESOLUTION_FORMATS = ("PNG", "TIFF", "JPEG", "BMP")
"""Formats that hold a resolution outside of EXIF data."""


def open_image(path: Path | str, *, max_pixels: int = DEFAULT_MAX_PIXELS, data: bytes | None = None) -> LoadedImage:
    """Read an image file whole, upright by its EXIF orientation, in the colour mode of the file.

    If a file holds several images, the first is read. Warnings of Pillow become notes.

    Args:
        path: the file.
        max_pixels: limit on width x height, in place of Pillow's own; larger images are refused before they are decoded.
        data: content of the file, if it was read already, as of a pipe; path then only names it in errors.

    Returns:
        The image, and notes that name each loss. The image has the attributes ``filename``, so that later errors name it,
        and ``told_warnings``, so that none is told twice.

    Raises:
        UnsupportedImageError: missing, a folder, empty, not an image, damaged, or too large.

    Example:
        >>> open_image("no such file.png")
        Traceback (most recent call last):
        ...
        ohmq.errors.UnsupportedImageError: no such file.png: no such file
    """
    path = Path(path)
    if data is None:
        _check_regular(path)
    if data == b"":
        raise UnsupportedImageError(f"{path}: the file is empty")
    notes = []
    with recorded_warnings() as texts:
        try:
            with pixel_limit(max_pixels), Image.open(path if data is None else io.BytesIO(data)) as opened:
                image: Image.Image = opened
                if image.format == "EPS":
                    raise UnsupportedImageError("EPS is a program, not an image; convert it first")
                check_size(image.width, image.height, max_pixels)
                if getattr(image, "n_frames", 1) > 1:
                    notes.append("first image of several in the file")
                layouts = raw_modes(image)
                image = load_pixels(image, notes, max_pixels=max_pixels)
                turned = upright(image, notes)
                exif = read_exif(image)
                if turned is image:
                    turned = image.copy()
                if exif and "exif" not in turned.info:
                    turned.info["exif"] = exif
                if any("I;12" in layout for layout in layouts):  # Pillow leaves the values at 0..4095
                    values = np.asarray(turned, np.uint16)
                    scaled = Image.fromarray(values << 4 | values >> 8)
                    scaled.info = turned.info
                    turned = scaled
        except UnsupportedImageError as error:
            raise UnsupportedImageError(f"{path}: {error}") from error
        except PermissionError as error:
            raise UnsupportedImageError(f"{path}: no permission to read it") from error
        except Image.UnidentifiedImageError as error:
            raise UnsupportedImageError(f"{path}: not an image, or of a format that Pillow cannot read") from error
        except Exception as error:  # damaged files make Pillow raise nearly anything
            raise UnsupportedImageError(f"{path}: damaged image ({type(error).__name__}: {error})") from error
    notes += [f"Pillow warned: {text}" for text in texts]
    turned.filename, turned.told_warnings = str(path), tuple(texts)  # type: ignore[attr-defined]
    return LoadedImage(turned, tuple(notes))


def _check_regular(path: Path) -> None:
    """Refuse what is not a file with content."""
    try:
        status = path.stat()
    except PermissionError as error:
        raise UnsupportedImageError(f"{path}: no permission to read it") from error
    except FileNotFoundError as error:
        raise UnsupportedImageError(f"{path}: no such file") from error
    except (OSError, ValueError) as error:  # such as a name that is too long, or one with a zero byte
        raise UnsupportedImageError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise UnsupportedImageError(f"{path}: a folder, not an image file")
    if not stat.S_ISREG(status.st_mode):
        raise UnsupportedImageError(f"{path}: not a regular file")
    if status.st_size == 0:
        raise UnsupportedImageError(f"{path}: the file is empty")


def check_extension(path: Path | str) -> str:
    """Return Pillow's format for a file name; call it before any work that ends in `save_image`.

    Args:
        path: the target.

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
    """Refuse early to write an image with transparency in a format that has none.

    Args:
        path: the target.
        alpha: whether the image has transparency.

    Raises:
        UnsupportedImageError: an extension that is not written, or transparency and a format without it.
    """
    image_format = check_extension(path)
    if alpha and image_format not in ALPHA_FORMATS:
        raise UnsupportedImageError(
            f"{path}: cannot be written as {image_format}, which has no transparency; choose .png, .webp or .tif, or flatten it"
        )


def encode_image(
    image: Image.Image, extension: str, *, name: Path | str | None = None
) -> tuple[bytes, tuple[str, ...]]:
    """Return the content of an image file in the format of an extension: lossless, except for JPEG (quality 95, 4:4:4).

    Args:
        image: the image; its ``info`` may hold "exif", "icc_profile", "xmp" and "dpi".
        extension: extension of the format, such as ".png".
        name: name of the file in errors; default: "image" with the extension.

    Returns:
        The content, and one phrase for each kind of data that the format cannot hold.

    Raises:
        UnsupportedImageError: an extension that is not written, or an image that the format cannot hold.
    """
    path = Path(f"image{extension}") if name is None else Path(name)
    named = path.with_suffix(extension)
    image_format = check_extension(named)
    check_holds(named, alpha=image.has_transparency_data)
    options, notes = dict(SAVE_FORMATS[named.suffix.lower()][1]), []
    metadata = {name: image.info[name] for name in METADATA.values() if name in image.info}
    if metadata and image_format not in METADATA_FORMATS:
        notes.append(f"{image_format} holds no metadata: dropped {', '.join(metadata)}")
        metadata = {}
    if image_format in RESOLUTION_FORMATS and (resolution := checked_resolution(image.info.get("dpi"))):
        options["dpi"] = resolution
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
            metadata.pop("exif", None)
            if tags.get_ifd(ExifTags.IFD.Exif) or tags.get_ifd(ExifTags.IFD.GPSInfo):
                del options["compression"]  # Pillow cannot write EXIF folders into a compressed TIFF file
        image.save(buffer, image_format, **options, **metadata)
    except Exception as error:  # damaged metadata make Pillow raise nearly anything
        raise UnsupportedImageError(f"{path}: cannot be written as {image_format} ({error})") from error
    return buffer.getvalue(), tuple(notes)


def save_image(
    path: Path | str, image: Image.Image, *, force: bool = False, extension: str | None = None
) -> tuple[str, ...]:
    """Write an image in the format of the extension; see `encode_image`.

    Args:
        path: the target; missing folders are made.
        image: the image; its ``info`` may hold "exif", "icc_profile", "xmp" and "dpi".
        force: replace an existing file. Default: False.
        extension: extension of the format, such as ".png", for a pipe; default: that of path.

    Returns:
        One phrase for each kind of data that the format cannot hold.

    Raises:
        UnsupportedImageError: an extension that is not written, or an image that the format cannot hold.
        OutputExistsError: the file exists and force is not set.
        OutputWriteError: disk full, no permission, and the like.
    """
    data, notes = encode_image(image, extension or Path(path).suffix, name=path)
    write_atomically(Path(path), data, force=force)
    return notes
