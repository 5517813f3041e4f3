"""Small images, colour profiles and metadata."""

import io
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


def photo(width: int = 8, height: int = 6) -> Image.Image:
    """Return an RGB image of noise."""
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (height, width, 3)).astype(np.uint8))


def saved(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    """Return the bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def srgb_profile(name: str, swap: bool = False) -> bytes:
    """Return the sRGB profile under another name of the same length, with red and green swapped if ``swap``."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = data.replace("sRGB".encode("utf-16-be"), name.encode("utf-16-be"))
    return data.replace(b"rXYZ", b"____").replace(b"gXYZ", b"rXYZ").replace(b"____", b"gXYZ") if swap else data


def grey_profile(gamma: float) -> bytes:
    """Return the smallest profile of a grey display."""
    described = b"desc\0\0\0\0\0\0\0\x05grey\0" + bytes(78)
    tags = {
        b"desc": described + bytes(-len(described) % 4),
        b"cprt": b"text\0\0\0\0CC0\0",
        b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061),
        b"kTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0",
    }
    start, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(">I4xI", start + len(body), 0x02100000) + b"mntrGRAYXYZ " + bytes(12) + b"acsp" + bytes(28)
    head += struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


def with_metadata(orientation: int) -> Image.Image:
    """Return an image with EXIF and XMP data that say an orientation."""
    image, exif = photo(), Image.Exif()
    exif[0x0112], exif[0x010E] = orientation, "a description"
    exif.get_ifd(0x8769)[0x829A] = 0.25
    image.info["exif"] = exif.tobytes()
    image.info["xmp"] = b'<rdf tiff:Orientation="%d"/><tiff:Orientation>%d</tiff:Orientation>' % (
        orientation,
        orientation,
    )
    return image


def distorted_pair(name: str, box: tuple[int, int, int, int], kind: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a crop (top, bottom, left, right) of a photograph and its distortion by whole numbers, equal on every machine."""
    pixels = np.asarray(Image.open(PHOTOS / f"{name}.png").convert("RGB"))[box[0] : box[1], box[2] : box[3]]
    values = pixels.astype(np.int64)
    if kind == "steps":
        distorted = values // 24 * 24 + 12
    elif kind == "blur":
        padded = np.pad(values, ((1, 1), (1, 1), (0, 0)), "edge")
        height, width = values.shape[:2]
        distorted = sum(padded[i : i + height, j : j + width] for i in range(3) for j in range(3)) // 9
    else:
        distorted = values + np.random.RandomState(0).randint(-12, 13, values.shape)
    return np.ascontiguousarray(pixels), distorted.clip(0, 255).astype(np.uint8)
