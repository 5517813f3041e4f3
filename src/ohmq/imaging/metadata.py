"""src/ohmq/imaging/metadata.py."""

import re

from PIL import ExifTags, Image, ImageOps

from ohmq.bitstream.format import ExtraType
from ohmq.imaging.extras import METADATA, metadata_error

DAMAGED_EXIF = "damaged EXIF data ignored"

# What the EXIF data of a TIFF file say about the picture, not about how the file is laid out: description, make, model,
# resolution and its unit, software, date, artist, host, copyright.
_EXIF_TAGS = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432)
_EXIF_FOLDERS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    """The image turned as its EXIF orientation says; itself if there is nothing to turn."""
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:  # damaged metadata make Pillow raise nearly anything; the pixels are good
        notes.append(DAMAGED_EXIF)
        return image


def _exif(image: Image.Image) -> bytes:
    """The EXIF data of an image with orientation 1 or none, after `_upright`; empty if there are none or they are damaged.

    They are the file's own bytes unless the picture had to be turned; those of a TIFF file are put together anew.
    """
    raw = image.info.get("exif", b"")
    raw = raw.tobytes() if isinstance(raw, Image.Exif) else raw
    try:
        chosen = Image.Exif()
        if raw:
            chosen.load(raw)
            if chosen.get(ExifTags.Base.Orientation, 1) != 1:
                chosen[ExifTags.Base.Orientation] = 1
                raw = chosen.tobytes()
        else:
            exif = image.getexif()
            chosen.update({tag: exif[tag] for tag in _EXIF_TAGS if tag in exif})
            folders = {folder: content for folder in _EXIF_FOLDERS if (content := exif.get_ifd(folder))}
            for folder, content in folders.items():
                chosen.get_ifd(folder).update(content)
            raw = chosen.tobytes() if chosen or folders else b""
    except Exception:  # damaged metadata make Pillow raise nearly anything; `_upright` says so
        return b""
    while raw.startswith(b"Exif\0\0"):
        raw = raw[6:]
    return raw


def _metadata(image: Image.Image, notes: list[str]) -> dict[str, bytes]:
    """EXIF and XMP of an upright image, as a file holds them, their orientation 1."""
    xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    xmp = xmp.encode() if isinstance(xmp, str) else xmp
    found = {
        ExtraType.EXIF: _exif(image),
        ExtraType.XMP: re.sub(rb'(tiff:Orientation(?:\s*=\s*["\']|>))[0-9]', rb"\g<1>1", xmp),
    }
    if "exif" in image.info and not found[ExtraType.EXIF] and DAMAGED_EXIF not in notes:
        notes.append(DAMAGED_EXIF)
    kept = {}
    for kind, body in found.items():
        if not body:
            continue
        if error := metadata_error(kind, body):
            notes.append(f"dropped: {error}")
        else:
            kept[METADATA[kind]] = body
    return kept
