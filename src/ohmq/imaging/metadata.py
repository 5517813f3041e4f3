"""Metadata of Pillow images: EXIF with orientation and resolution, XMP."""

import math
import re
from typing import Any

from PIL import ExifTags, Image, ImageOps

from ohmq.bitstream.format import ExtraType
from ohmq.imaging.extras import METADATA, checked_resolution, exif_resolution, metadata_error

__all__ = ["DAMAGED_EXIF", "mark_srgb", "read_exif", "read_metadata", "replace_metadata", "upright"]

DAMAGED_EXIF = "damaged EXIF data ignored"

# EXIF tags of a TIFF file that describe the image, not the layout of the file: description, make, model, resolution and
# its unit, transfer function, software, date, artist, host, white point, primaries, copyright.
_COLOUR_TAGS = (ExifTags.Base.TransferFunction, ExifTags.Base.WhitePoint, ExifTags.Base.PrimaryChromaticities)
_EXIF_TAGS = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432, *_COLOUR_TAGS)
_EXIF_FOLDERS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
_SWAPPED = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""
_INCH = 2
"""Value of EXIF's ResolutionUnit."""
_DEFAULT_DPI = (72.0, 72.0)
"""Resolution of EXIF data that give none."""
_DPI_TOLERANCE = 0.005
"""Relative difference of resolutions that only differ by rounding."""


def upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """Turn an image upright by its EXIF orientation.

    Args:
        image: Pillow image.
        notes: a phrase is appended if the EXIF data are damaged.

    Returns:
        The turned image; ``image`` itself if it is upright.
    """
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        if orientation == 1:
            return image
        turned = ImageOps.exif_transpose(image)
        if orientation in _SWAPPED and isinstance(dpi := turned.info.get("dpi"), tuple):
            turned.info["dpi"] = dpi[::-1]
        return turned
    except Exception:  # damaged metadata make Pillow raise nearly anything; the pixels are intact
        notes.append(DAMAGED_EXIF)
        return image


def read_exif(image: Image.Image) -> bytes:
    """Return the EXIF data of an upright image, with orientation 1 or none.

    They are the file's own bytes unless the image was turned; those of a TIFF file are assembled anew.

    Args:
        image: from `upright`.

    Returns:
        The EXIF data; empty if there are none or they are damaged.
    """
    raw = image.info.get("exif", b"")
    raw = raw.tobytes() if isinstance(raw, Image.Exif) else raw
    try:
        kept = Image.Exif()
        if raw:
            kept.load(raw)
            if kept.get(ExifTags.Base.Orientation, 1) != 1:
                kept[ExifTags.Base.Orientation] = 1
                raw = kept.tobytes()
        else:
            exif = image.getexif()
            kept.update({tag: exif[tag] for tag in _EXIF_TAGS if tag in exif})
            folders = {folder: dict(content) for folder in _EXIF_FOLDERS if (content := exif.get_ifd(folder))}
            nested = folders.get(ExifTags.IFD.Exif, {})
            if nested.pop(ExifTags.IFD.Interop, None) and (interop := exif.get_ifd(ExifTags.IFD.Interop)):
                nested[ExifTags.IFD.Interop] = interop  # a folder, where it was a place in the file
            for folder, content in folders.items():
                kept.get_ifd(folder).update(content)
            raw = kept.tobytes() if kept or folders else b""
    except Exception:  # damaged metadata make Pillow raise nearly anything; `upright` notes it
        return b""
    while raw.startswith(b"Exif\0\0"):
        raw = raw[6:]
    return raw


def read_metadata(image: Image.Image, notes: list[str]) -> dict[str, bytes]:
    """Return the EXIF and XMP data of an upright image as a file holds them, with orientation 1.

    A resolution that the EXIF data do not give, such as that of PNG's pHYs, is added to them.

    Args:
        image: from `upright`.
        notes: a phrase is appended for each kind that is damaged or that a file cannot hold.

    Returns:
        The bodies by Pillow's names, see `ohmq.imaging.extras.METADATA`.
    """
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    exif = read_exif(image)
    if image.info.get("exif") and not exif and DAMAGED_EXIF not in notes:
        notes.append(DAMAGED_EXIF)
    bodies = {
        ExtraType.EXIF: _add_resolution(exif, image.info, notes),
        ExtraType.XMP: re.sub(rb'(tiff:Orientation(?:\s*=\s*["\']|>))[0-9]', rb"\g<1>1", xmp),
    }
    kept = {}
    for kind, body in bodies.items():
        if not body:
            continue
        if error := metadata_error(kind, body):
            notes.append(f"dropped: {error}")
        else:
            kept[METADATA[kind]] = body
    return kept


def replace_metadata(image: Image.Image, given: dict[str, Any], *, keep_others: bool) -> Image.Image:
    """Return a copy of an image with other metadata. EXIF data that are given say how it is turned, as in its file.

    Args:
        image: Pillow image.
        given: new metadata by Pillow's names: "exif" (bytes or `PIL.Image.Exif`), "icc_profile", "xmp" (bytes or text),
            "dpi". None or empty: the image has none of the kind.
        keep_others: whether the copy has the image's other metadata. Its profile stays, since it says what colours mean.

    Returns:
        The copy.
    """
    own_exif = read_exif(image) if keep_others and "exif" not in given else b""
    copy = image if "exif" in given else upright(image, [])
    copy = image.copy() if copy is image else copy
    dropped = {"exif", "Raw profile type exif"} if "exif" in given else set()
    dropped |= {"xmp", "XML:com.adobe.xmp"} if "xmp" in given else set()
    if not keep_others:
        dropped |= {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp", "dpi", "aspect"}
    for name in dropped:
        copy.info.pop(name, None)
    if own_exif:
        copy.info["exif"] = own_exif
    for name, value in given.items():
        if name == "icc_profile":
            copy.info.pop(name, None)
        if isinstance(value, Image.Exif):  # one with folders alone is false
            value = value.tobytes() if value or any(map(value.get_ifd, _EXIF_FOLDERS)) else b""
        if value:
            copy.info[name] = value.encode() if isinstance(value, str) else value
    return copy


def mark_srgb(exif: bytes) -> bytes:
    """Remove from EXIF data what says that colours are not sRGB; without such, return the very bytes.

    Args:
        exif: EXIF data of an image whose colours were converted to sRGB.
    """
    tags = Image.Exif()
    try:
        tags.load(exif)
        folder, interop = (tags.get_ifd(ifd) for ifd in (ExifTags.IFD.Exif, ExifTags.IFD.Interop))
    except Exception:  # damaged metadata make Pillow raise nearly anything
        return exif
    adobe = folder.get(ExifTags.Base.ColorSpace) == 2 or interop.get(ExifTags.Interop.InteropIndex) == "R03"
    if not adobe and not any(tag in tags for tag in _COLOUR_TAGS):
        return exif
    for tag in _COLOUR_TAGS:
        tags.pop(tag, None)
    if adobe:
        folder[ExifTags.Base.ColorSpace] = 1
        folder.pop(ExifTags.IFD.Interop, None)
    return tags.tobytes().removeprefix(b"Exif\0\0")


def _add_resolution(exif: bytes, info: dict[Any, Any], notes: list[str]) -> bytes:
    """Return EXIF data that give the resolution of ``info``; unchanged if they do, or if there is none."""
    aspect = info.get("jfif_density") if info.get("jfif_unit") == 0 else info.get("aspect")
    if aspect and len(set(aspect)) > 1:
        notes.append("dropped: the aspect ratio of pixels")
    if "dpi" not in info:
        return exif
    dpi = checked_resolution(info["dpi"])
    given = exif_resolution(exif) or (_DEFAULT_DPI if exif else None)
    if dpi is None:
        notes.append(f"dropped: a resolution of {info['dpi']} pixels per inch")
        return exif
    if dpi == (1, 1):  # Pillow's value for a TIFF file without one
        return exif
    if given and all(math.isclose(*pair, rel_tol=_DPI_TOLERANCE) for pair in zip(dpi, given, strict=True)):
        return exif
    tags = Image.Exif()
    if exif:
        tags.load(exif)
    tags[ExifTags.Base.XResolution], tags[ExifTags.Base.YResolution] = dpi
    tags[ExifTags.Base.ResolutionUnit] = _INCH
    return tags.tobytes().removeprefix(b"Exif\0\0")
