"""Conversion of Pillow images to the images that a codec takes: 8 bits, grey or RGB, upright, in sRGB.

`LoadedImage.notes` names each loss of a conversion. An image that cannot be read or coded is an `UnsupportedImageError`
of one line.
"""

import contextlib
import io
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageFile

from ohmq.bitstream.format import DEFAULT_MAX_PIXELS, MAX_SIDE, ExtraType
from ohmq.errors import UnsupportedImageError
from ohmq.imaging.colour import CICP, colour_profile, read_cicp
from ohmq.imaging.extras import metadata_error
from ohmq.imaging.metadata import mark_srgb, read_metadata, upright
from ohmq.imaging.pixel_limit import pixel_limit, pixels_error
from ohmq.utils.recorded_warnings import recorded_warnings

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "ImageConversionWarning",
    "LoadedImage",
    "check_size",
    "errors_name_file",
    "file_name",
    "load_pixels",
    "prepare_image",
    "raw_modes",
]

FILL_BLOCK = 16
"""Side, in pixels, of the blocks whose mean colour fills transparent pixels."""


class ImageConversionWarning(UserWarning):
    """Warning of a loss when an image is converted to the form that is coded, such as the loss of its transparency."""


class LoadedImage(NamedTuple):
    """Image, and the losses of its conversion.

    Attributes:
        image: Pillow image.
        notes: one phrase for each loss, such as "alpha channel flattened onto white".
    """

    image: Image.Image
    notes: tuple[str, ...] = ()


def check_size(width: int, height: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
    """Refuse an image that is empty or too large.

    Args:
        width: in pixels.
        height: in pixels.
        max_pixels: limit on width x height. Default: `DEFAULT_MAX_PIXELS`.

    Raises:
        UnsupportedImageError: a side outside 1..65536, or more than max_pixels pixels.

    Example:
        >>> check_size(70000, 1)
        Traceback (most recent call last):
        ...
        ohmq.errors.UnsupportedImageError: the image is 70000x1; each side must lie in 1 to 65536
    """
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise UnsupportedImageError(f"the image is {width}x{height}; each side must lie in 1 to {MAX_SIDE}")
    if error := pixels_error(width, height, max_pixels):
        raise UnsupportedImageError(error)


def file_name(image: Image.Image) -> str:
    """Return the name of the file that an image was opened from; empty if it has none.

    Args:
        image: Pillow image.
    """
    name = getattr(image, "filename", "")
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else ""


@contextlib.contextmanager
def errors_name_file(image: Image.Image) -> Iterator[None]:
    """Put the name of an image's file before the errors raised inside.

    Args:
        image: Pillow image; one that has no file, or an unnamed one, changes nothing.
    """
    try:
        yield
    except UnsupportedImageError as error:
        name = file_name(image)
        if not name or str(error).startswith(f"{name}: "):
            raise
        raise UnsupportedImageError(f"{name}: {error}") from error


def raw_modes(image: Image.Image) -> list[str]:
    """Return Pillow's names for the pixel layout in a file that it has opened; empty once the pixels are read."""
    return [str(tile[3]) for tile in getattr(image, "tile", ())]


def load_pixels(image: Image.Image, notes: list[str], *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
    """Read the pixels of a file that Pillow has opened, the CICP code points of their colours, and its transparent colour.

    Args:
        image: opened; it is read and not changed otherwise. An image without a file, or one whose pixels were read
            before, is returned as it is: Pillow no longer knows the bit depth of its file, nor its code points.
        notes: a phrase is appended for each loss.
        max_pixels: limit on width × height, in place of Pillow's own.

    Returns:
        The image; or a copy with code points (`ohmq.imaging.colour.CICP`), or with a transparent colour scaled like the
        pixels.

    Raises:
        UnsupportedImageError: a damaged or closed file, or one that is too large.
    """
    layouts = raw_modes(image)
    if not isinstance(image, ImageFile.ImageFile):
        return image
    closed = image.fp is None
    try:
        code_points = read_cicp(image) if layouts else None
        with pixel_limit(max_pixels):
            image.load()
    except UnsupportedImageError:
        raise
    except Exception as error:  # damaged files make Pillow raise nearly anything
        if closed:
            raise UnsupportedImageError("the image is closed: open it again, or load it before it is closed") from error
        raise UnsupportedImageError(f"damaged image ({type(error).__name__}: {error})") from error
    loaded: Image.Image = image
    if code_points is not None:
        loaded = image.copy()
        loaded.info[CICP] = code_points
    deep = any(";16" in layout for layout in layouts) and image.mode in ("RGB", "RGBA", "RGBX", "LA", "CMYK")
    if deep:
        notes.append("16 bits reduced to 8")
    key = image.info.get("transparency")
    if not layouts or not isinstance(key, int | tuple):
        return loaded
    if deep:  # the colour has 16 bits, the pixels have 8
        loaded = loaded.copy()
        del loaded.info["transparency"]
        notes.append("transparent colour ignored")
    elif image.mode == "L" and isinstance(key, int) and (scale := {"L;2": 85, "L;4": 17}.get(layouts[0])):
        loaded = loaded.copy()  # Pillow scales only the pixels
        loaded.info["transparency"] = key * scale
    return loaded


def prepare_image(image: Image.Image, *, grey: bool, flatten: bool = True, keep_metadata: bool = False) -> LoadedImage:
    """Convert an image of any Pillow mode to 8-bit grey or RGB, upright by its EXIF orientation.

    Transparency is flattened onto white, or kept exactly. If it is kept, fully transparent pixels get a new colour that
    costs few bits: the mean of the visible pixels in their block of 16x16 pixels, or else in the image. Integers wider
    than 8 bits ("I;16", "I") count as 16 bits, 0..65535; floats as 0..1 if none is above 1, else as 0..255. Colours
    that are not sRGB are converted to it, see `ohmq.imaging.colour.colour_profile`.

    Args:
        image: Pillow image.
        grey: whether the model codes grey only.
        flatten: lay transparent pixels onto white. Default: True.
        keep_metadata: keep EXIF (orientation 1) and XMP, and a colour profile if it is an sRGB one. Default: False.

    Returns:
        An image of mode "L" (grey) or "RGB", or "LA" or "RGBA" if it is not flattened and not opaque everywhere; in
        its ``info`` the metadata that are kept, as "exif", "icc_profile" and "xmp". Its notes name each loss.

    Raises:
        UnsupportedImageError: values outside the range above, or a mode that cannot be converted; the message names the
            file of an image that was opened from one.

    Example:
        >>> prepare_image(Image.new("RGBA", (2, 2), (255, 0, 0, 128)), grey=False).notes
        ('alpha channel flattened onto white',)
    """
    with errors_name_file(image):
        return _prepare(image, grey=grey, flatten=flatten, keep_metadata=keep_metadata)


def _prepare(image: Image.Image, *, grey: bool, flatten: bool, keep_metadata: bool) -> LoadedImage:
    notes: list[str] = []
    told = getattr(image, "told_warnings", ())  # by `open_image`
    with recorded_warnings() as texts:
        image = upright(image, notes)
        kept = read_metadata(image, notes) if keep_metadata else {}
        profile = colour_profile(image, notes)
        if "exif" in kept:
            kept["exif"] = mark_srgb(kept["exif"])
    notes += [f"Pillow warned: {text}" for text in texts if text not in told]
    mask = None
    if not flatten:
        image, mask = _separate_mask(image)
    image = _to_8_bits(image, notes)
    image = _flatten(image, notes)
    notes_before = len(notes)
    image = _to_srgb(image, profile, notes)
    is_srgb = image.mode == "RGB" and len(notes) == notes_before
    if keep_metadata and profile and not grey and is_srgb:
        if error := metadata_error(ExtraType.ICC, profile):
            notes.append(f"dropped: {error}")
        else:
            kept["icc_profile"] = profile
    if image.mode not in ("L", "RGB"):
        try:
            image = image.convert("L" if image.mode == "1" else "RGB")
        except ValueError as error:
            raise UnsupportedImageError(f"colour mode {image.mode} cannot be converted ({error})") from error
    if mask is not None:
        image = _fill_transparent(image, mask)
    if grey and image.mode == "RGB":
        red, green, blue = image.split()
        if red.tobytes() == green.tobytes() == blue.tobytes():
            image = red
        else:
            notes.append("colour converted to grey: the model codes grey only")
            image = image.convert("L")
    image = image.convert("L" if grey else "RGB")  # always a copy, so that the caller's image gets no metadata
    if mask is not None:
        image.putalpha(mask)
    image.info = dict(kept.items())
    return LoadedImage(image, tuple(notes))


def _separate_mask(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return an image without its transparency, and its mask (mode "L"); None if it is opaque everywhere."""
    if not image.has_transparency_data:
        return image, None
    if image.mode == "F" or image.mode.startswith("I"):
        key = image.info["transparency"]
        mask = Image.fromarray(np.where(np.asarray(image) == key, np.uint8(0), np.uint8(255)))
        colours = image.copy()
        del colours.info["transparency"]
    else:
        grey = image.mode in ("1", "L", "LA", "La")
        image = _to_rgba(image)
        mask, colours = image.getchannel("A"), image.convert("L" if grey else "RGB")
        colours.info = {}
    mask.info = {}
    return colours, None if mask.getextrema() == (255, 255) else mask


def _to_rgba(image: Image.Image) -> Image.Image:
    """Convert an image with transparency to "RGBA"."""
    if image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert(image.mode.upper())
    return image.convert("RGBA")


def _fill_transparent(image: Image.Image, mask: Image.Image) -> Image.Image:
    """Give fully transparent pixels the mean colour of the visible pixels in their block, or in the image."""
    pixels, visible = np.atleast_3d(np.asarray(image)).copy(), np.asarray(mask) > 0
    strips = [slice(top, top + FILL_BLOCK) for top in range(0, image.height, FILL_BLOCK)]
    starts = np.arange(0, image.width, FILL_BLOCK)
    counts, sums = [], []
    for rows in strips:
        counts.append(np.add.reduceat(visible[rows].sum(0), starts)[:, None])
        sums.append(np.add.reduceat((pixels[rows] * visible[rows, :, None]).sum(0, dtype=np.int64), starts))
    visible_pixels = np.sum(counts)
    image_mean = np.sum(sums, (0, 1)) / visible_pixels if visible_pixels else np.full(pixels.shape[2], 255.0)
    for rows, count, total in zip(strips, counts, sums, strict=True):
        means = np.where(count, total / np.maximum(count, 1), image_mean)
        colours = np.rint(means).astype(np.uint8).repeat(FILL_BLOCK, 0)[: image.width]
        np.copyto(pixels[rows], colours, where=~visible[rows, :, None])
    return Image.fromarray(pixels[..., 0] if image.mode == "L" else pixels)


def _to_8_bits(image: Image.Image, notes: list[str]) -> Image.Image:
    """Convert modes with wider samples to "L"."""
    if not (image.mode in ("I", "F") or image.mode.startswith("I;")):
        return image
    values = np.asarray(image, np.float64)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if image.mode == "F":
        limit = 1.0 if high <= 1 else 255.0
        notes.append("32-bit float reduced to 8 bits")
    else:
        limit = 65535.0
        notes.append("16 bits reduced to 8")
    if not (low >= 0 and high <= limit):  # also false for NaN
        raise UnsupportedImageError(
            f"samples of mode {image.mode} range from {low:g} to {high:g}; expected 0 to {limit:g}"
        )
    if limit == 65535 and 0 < high < 4096:
        notes.append(f"samples reach {high:g} of 65535: the image is dark")
    if "transparency" in image.info:
        notes.append("transparent colour ignored")
    return Image.fromarray(np.rint(values * (255 / limit)).astype(np.uint8))


def _flatten(image: Image.Image, notes: list[str]) -> Image.Image:
    """Lay an image that has transparent pixels onto white."""
    if not image.has_transparency_data:
        return image
    grey = image.mode in ("1", "L", "LA", "La")
    image = _to_rgba(image)
    if image.getchannel("A").getextrema() != (255, 255):
        notes.append("alpha channel flattened onto white")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    image = image.convert("L" if grey else "RGB")  # without loss: grey has three equal colours
    image.info = {}
    return image


def _to_srgb(image: Image.Image, data: bytes | None, notes: list[str]) -> Image.Image:
    """Convert colours with a profile, and the modes that need one, to sRGB."""
    if image.mode == "LAB":
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
        name = "LAB"
    elif not data or image.mode not in ("L", "P", "RGB", "YCbCr", "CMYK"):
        if image.mode == "CMYK":
            notes.append("CMYK converted to RGB without a colour profile")
        elif data and image.mode != "1":  # black and white are the same in every profile
            notes.append("colour profile ignored")
        return image
    else:
        if image.mode in ("P", "YCbCr"):
            image = image.convert("RGB")
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(data))
            name = ImageCms.getProfileDescription(source).strip()
            fits = source.profile.xcolor_space.strip() == {"L": "GRAY"}.get(image.mode, image.mode)
        except (OSError, UnicodeDecodeError, ImageCms.PyCMSError):
            notes.append("damaged colour profile ignored")
            return image
        if image.mode == "RGB" and fits and "srgb" in name.lower():
            return image
        if not fits:
            notes.append(f"colour profile {name!r} does not fit the image, ignored")
            if image.mode == "CMYK":
                notes.append("CMYK converted to RGB without a colour profile")
            return image
    target = ImageCms.createProfile("sRGB")
    try:
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ValueError, ImageCms.PyCMSError):
        notes.append(f"colour profile {name!r} does not fit the image, ignored")
        return image
    assert converted is not None  # None only for conversions in place
    notes.append(f"colours converted from {name!r} to sRGB")
    return converted.convert("L") if image.mode == "L" else converted
