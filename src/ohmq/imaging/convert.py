"""Image files, Pillow images, numpy arrays and torch tensors: into what a codec takes, and back out of what it gives.

Whatever a conversion loses is told in words, in `LoadedImage.notes`; an image that cannot be read or coded gives an
`UnsupportedImageError` in one line.
"""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

from ohmq.bitstream.format import DEFAULT_MAX_PIXELS, MAX_SIDE, ExtraType
from ohmq.errors import UnsupportedImageError
from ohmq.imaging.extras import metadata_error
from ohmq.imaging.metadata import _metadata, _upright

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "MAX_SIDE",
    "ImageConversionWarning",
    "LoadedImage",
    "check_size",
    "load_pixels",
    "prepare_image",
]

FILL_BLOCK = 16


class ImageConversionWarning(UserWarning):
    """What the conversion of an image to the picture that is coded loses, such as its transparency."""


class LoadedImage(NamedTuple):
    """An image and what was lost on the way to it.

    Attributes:
        image: Pillow image. notes: one phrase for each loss, such as "alpha channel flattened onto white".
    """

    image: Image.Image
    notes: tuple[str, ...] = ()


def check_size(width: int, height: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> None:
    """Refuse an image that is empty or too large.

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
    if width * height > max_pixels:
        raise UnsupportedImageError(
            f"the image is {width}x{height}, {width * height:,} pixels; the limit is {max_pixels:,} "
            "(raise max_pixels if it is meant)"
        )


def _raw_modes(image: Image.Image) -> list[str]:
    """How the pixels lie in a file that Pillow has opened; nothing once they are read."""
    return [str(tile[3]) for tile in getattr(image, "tile", ())]


def load_pixels(image: Image.Image, notes: list[str]) -> Image.Image:
    """Read the pixels of a file that Pillow has opened, its transparent colour on their scale; say what that lost.

    Args:
        image: left as it is, but for being read. An image without a file, or that was read before, is returned itself: it does
            not tell any more how many bits its file has. notes: gets a phrase for each loss.

    Raises:
        UnsupportedImageError: a damaged file.
    """
    raw_modes = _raw_modes(image)
    if not raw_modes:
        return image
    try:
        image.load()
    except Exception as error:  # damaged files make Pillow raise nearly anything
        raise UnsupportedImageError(f"damaged image ({type(error).__name__}: {error})") from error
    deep = any(";16" in raw for raw in raw_modes) and image.mode in ("RGB", "RGBA", "RGBX", "LA", "CMYK")
    if deep:
        notes.append("16 bits reduced to 8")
    key = image.info.get("transparency")
    if not isinstance(key, int | tuple):
        return image
    if deep:  # a colour of 16 bits; the pixels have 8 left
        image = image.copy()
        del image.info["transparency"]
        notes.append("transparent colour ignored")
    elif image.mode == "L" and isinstance(key, int) and (scale := {"L;2": 85, "L;4": 17}.get(raw_modes[0])):
        image = image.copy()  # Pillow scales the pixels alone
        image.info["transparency"] = key * scale
    return image


def prepare_image(image: Image.Image, *, grey: bool, flatten: bool = True, keep_metadata: bool = False) -> LoadedImage:
    """Convert an image of any Pillow mode to 8-bit grey or RGB, upright by its EXIF orientation; say what that lost.

    Transparency is flattened onto white, or kept exactly. Pixels that are then fully transparent get a new colour, one
    that costs few bits: the mean of what is visible in their block of 16x16 pixels, or else in the picture. Integers
    wider than 8 bits ("I;16", "I") count as 16 bits, 0..65535; floats as 0..1 if none is above 1, else as 0..255.
    Colours with an embedded profile are converted to sRGB.

    Args:
        image: Pillow image. grey: whether the model codes grey only. flatten: lay transparent pixels onto white.
        keep_metadata: keep EXIF (orientation 1) and XMP, and a colour profile if it is an sRGB one.

    Returns:
        An image of mode "L" (grey) or "RGB", or "LA" or "RGBA" if it is not flattened and not opaque everywhere; in
        its ``info`` the metadata that are kept, as "exif", "icc_profile" and "xmp"; and notes.

    Raises:
        UnsupportedImageError: values outside the range above, or a mode that cannot be converted.

    Example:
        >>> prepare_image(Image.new("RGBA", (2, 2), (255, 0, 0, 128)), grey=False).notes
        ('alpha channel flattened onto white',)
    """
    notes: list[str] = []
    image = _upright(image, notes)
    kept = _metadata(image, notes) if keep_metadata else {}
    mask = None
    if not flatten:
        image, mask = _separate(image)
    image = _to_8_bits(image, notes)
    image = _flatten(image, notes)
    profile, before = image.info.get("icc_profile"), len(notes)
    image = _to_srgb(image, notes)
    if keep_metadata and profile and not grey and image.mode == "RGB" and len(notes) == before:  # it is sRGB
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
        image = _fill(image, mask)
    if grey and image.mode == "RGB":
        red, green, blue = image.split()
        if red.tobytes() == green.tobytes() == blue.tobytes():
            image = red
        else:
            notes.append("colour converted to grey: the model codes grey only")
            image = image.convert("L")
    image = image.convert("L" if grey else "RGB")  # always a copy: metadata must not leak into the caller's image
    if mask is not None:
        image.putalpha(mask)
    image.info = dict(kept.items())
    return LoadedImage(image, tuple(notes))


def _separate(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """An image without its transparency, and its mask (mode "L"), which is None if it is opaque everywhere."""
    if not image.has_transparency_data:
        return image, None
    if image.mode == "F" or image.mode.startswith("I"):
        key = image.info["transparency"]
        mask = Image.fromarray(np.where(np.asarray(image) == key, np.uint8(0), np.uint8(255)))
        colours = image.copy()
        del colours.info["transparency"]
    else:
        profile, grey = image.info.get("icc_profile"), image.mode in ("1", "L", "LA", "La")
        image = _to_rgba(image)
        mask, colours = image.getchannel("A"), image.convert("L" if grey else "RGB")
        colours.info = {"icc_profile": profile} if profile else {}
    mask.info = {}
    return colours, None if mask.getextrema() == (255, 255) else mask


def _to_rgba(image: Image.Image) -> Image.Image:
    """An image with transparency as "RGBA"."""
    if image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert(image.mode.upper())
    return image.convert("RGBA")


def _fill(image: Image.Image, mask: Image.Image) -> Image.Image:
    """Give pixels that are fully transparent the mean colour of what is visible in their block, or in the picture."""
    pixels, visible = np.atleast_3d(np.asarray(image)).copy(), np.asarray(mask) > 0
    strips = [slice(top, top + FILL_BLOCK) for top in range(0, image.height, FILL_BLOCK)]
    starts = np.arange(0, image.width, FILL_BLOCK)
    counts, sums = [], []
    for rows in strips:
        shown = visible[rows]
        counts.append(np.add.reduceat(shown.sum(0), starts)[:, None])
        sums.append(np.add.reduceat((pixels[rows] * shown[..., None]).sum(0, dtype=np.int64), starts))
    visible_pixels = np.sum(counts)
    whole = np.sum(sums, (0, 1)) / visible_pixels if visible_pixels else np.full(pixels.shape[2], 255.0)
    for rows, count, total in zip(strips, counts, sums, strict=True):
        means = np.where(count, total / np.maximum(count, 1), whole)
        colours = np.rint(means).astype(np.uint8).repeat(FILL_BLOCK, 0)[: image.width]
        np.copyto(pixels[rows], colours, where=~visible[rows, :, None])
    return Image.fromarray(pixels[..., 0] if image.mode == "L" else pixels)


def _to_8_bits(image: Image.Image, notes: list[str]) -> Image.Image:
    """Modes with wider samples to "L"."""
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
        notes.append(f"samples reach {high:g} of 65535: the picture is dark")
    if "transparency" in image.info:
        notes.append("transparent colour ignored")
    reduced = Image.fromarray(np.rint(values * (255 / limit)).astype(np.uint8))
    reduced.info = {key: value for key, value in image.info.items() if key == "icc_profile"}
    return reduced


def _flatten(image: Image.Image, notes: list[str]) -> Image.Image:
    """Lay an image that has transparent pixels onto white."""
    if not image.has_transparency_data:
        return image
    profile, grey = image.info.get("icc_profile"), image.mode in ("1", "L", "LA", "La")
    image = _to_rgba(image)
    if image.getchannel("A").getextrema() != (255, 255):
        notes.append("alpha channel flattened onto white")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    image = image.convert("L" if grey else "RGB")  # without loss: grey has three equal colours
    image.info = {"icc_profile": profile} if profile else {}
    return image


def _to_srgb(image: Image.Image, notes: list[str]) -> Image.Image:
    """Convert colours with an embedded profile, and the modes that need one, to sRGB."""
    data = image.info.get("icc_profile")
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
        except (OSError, ImageCms.PyCMSError):
            notes.append("damaged colour profile ignored")
            return image
        fits = source.profile.xcolor_space.strip() == {"L": "GRAY"}.get(image.mode, image.mode)
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
