"""Metadata of Pillow images: EXIF orientation, EXIF, XMP."""

import re

from PIL import ExifTags, Image, ImageOps

from ohmq.bitstream.format import ExtraType
from ohmq.imaging.extras import METADATA, metadata_error

__all__ = ["DAMAGED_EXIF", "read_exif", "read_metadata", "upright"]

DAMAGED_EXIF = "damaged EXIF data ignored"

# EXIF tags of a TIFF file that describe the image, not the layout of the file: description, make, model, resolution and
# its unit, software, date, artist, host, copyright.
_EXIF_TAGS = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432)
_EXIF_FOLDERS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)


def upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """Turn an image upright by its EXIF orientation.

    Args:
        image: Pillow image.
        notes: a phrase is appended if the EXIF data are damaged.

    Returns:
        The turned image; ``image`` itself if it is upright.
    """
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
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
            folders = {folder: content for folder in _EXIF_FOLDERS if (content := exif.get_ifd(folder))}
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

    Args:
        image: from `upright`.
        notes: a phrase is appended for each kind that is damaged or that a file cannot hold.

    Returns:
        The bodies by Pillow's names, see `ohmq.imaging.extras.METADATA`.
    """
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    bodies = {
        ExtraType.EXIF: read_exif(image),
        ExtraType.XMP: re.sub(rb'(tiff:Orientation(?:\s*=\s*["\']|>))[0-9]', rb"\g<1>1", xmp),
    }
    if "exif" in image.info and not bodies[ExtraType.EXIF] and DAMAGED_EXIF not in notes:
        notes.append(DAMAGED_EXIF)
    kept = {}
    for kind, body in bodies.items():
        if not body:
            continue
        if error := metadata_error(kind, body):
            notes.append(f"dropped: {error}")
        else:
            kept[METADATA[kind]] = body
    return kept
