"""Image files, Pillow images, numpy arrays and torch tensors: into what a codec takes, and back out of what it gives.

Whatever a conversion loses is told in words, in `LoadedImage.notes`; an image that cannot be read or coded gives an
`UnsupportedImageError` in one line.
"""

import io
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from ohmq.bitstream.format import ExtraType
from ohmq.errors import UnsupportedImageError
from ohmq.extras import METADATA, metadata_error
from ohmq.utils.atomic_write import write_atomically

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "MAX_SIDE",
    "ImageConversionWarning",
    "LoadedImage",
    "as_image",
    "check_extension",
    "check_holds",
    "check_size",
    "image_to_tensor",
    "load_pixels",
    "open_image",
    "prepare_image",
    "save_image",
    "tensor_to_image",
    "write_atomically",
]

DEFAULT_MAX_PIXELS = 2**27
MAX_SIDE = 65536

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
FILL_BLOCK = 16
DAMAGED_EXIF = "damaged EXIF data ignored"

# What the EXIF data of a TIFF file say about the picture, not about how the file is laid out: description, make, model,
# resolution and its unit, software, date, artist, host, copyright.
_EXIF_TAGS = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432)
_EXIF_FOLDERS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)


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


def as_image(obj: Any) -> Image.Image:
    """A Pillow image from a Pillow image, a numpy array or a torch tensor.

    Shape:
        numpy: (H, W) or (H, W, 1) grey, (H, W, 2) grey with alpha, (H, W, 3) RGB, (H, W, 4) RGBA; uint8.
        torch: (H, W), (C, H, W) or (1, C, H, W) with C 1 or 3; uint8, or floating point in [0, 1].

    Raises:
        TypeError: another kind of object or number. ValueError: another shape, or values outside the range.

    Example:
        >>> as_image(np.zeros((4, 6), np.uint8)).size
        (6, 4)
    """
    if isinstance(obj, Image.Image):
        return obj
    if isinstance(obj, np.ndarray):
        if obj.dtype != np.uint8:
            raise TypeError(f"array of {obj.dtype}; expected uint8")
        array = obj[..., 0] if obj.ndim == 3 and obj.shape[2] == 1 else obj
        if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in (2, 3, 4)):
            raise ValueError(f"array of shape {obj.shape}; expected (H, W) or (H, W, C), C from 1 to 4")
        if array.size == 0:
            raise ValueError(f"array of shape {obj.shape} has no pixels")
        return Image.fromarray(np.ascontiguousarray(array))
    import torch

    if isinstance(obj, torch.Tensor):
        if obj.is_floating_point() and obj.numel() and not bool(((obj >= 0) & (obj <= 1)).all()):
            raise ValueError(f"values from {obj.min():g} to {obj.max():g}; expected 0 to 1")
        return tensor_to_image(obj)
    raise TypeError(f"{type(obj).__name__}; expected a Pillow image, a numpy array or a torch tensor")


def image_to_tensor(image: Image.Image) -> "Tensor":
    """A tensor of an image that `prepare_image` gave; `tensor_to_image` is the inverse.

    Shape:
        (1, C, H, W), float32 in [0, 1]; C is 1 for mode "L", 3 for "RGB".

    Raises:
        ValueError: another mode.
    """
    import torch

    if image.mode not in ("L", "RGB"):
        raise ValueError(f"image of mode {image.mode}; expected L or RGB (see prepare_image)")
    values = np.atleast_3d(np.asarray(image)).transpose(2, 0, 1)
    return torch.from_numpy(values[None].astype(np.float32) / np.float32(255))


def tensor_to_image(tensor: "Tensor") -> Image.Image:
    """A Pillow image of a tensor; floats are clipped to [0, 1] and rounded to 8 bits.

    Shape:
        tensor: (H, W), (C, H, W) or (1, C, H, W) with C 1 or 3; floating point in [0, 1], or uint8.

    Raises:
        TypeError: another type of number. ValueError: another shape, or NaN.
    """
    import torch

    values = tensor.detach().cpu()
    if values.ndim == 4 and len(values) == 1:
        values = values[0]
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or values.shape[0] not in (1, 3) or values.numel() == 0:
        raise ValueError(
            f"tensor of shape {tuple(tensor.shape)}; expected (H, W), (C, H, W) or (1, C, H, W), C 1 or 3; "
            "compress_batch takes several images"
        )
    if values.is_floating_point():
        if bool(values.isnan().any()):
            raise ValueError("the tensor holds NaN")
        values = values.clamp(0, 1).mul(255).round().to(torch.uint8)
    elif values.dtype != torch.uint8:
        raise TypeError(f"tensor of {values.dtype}; expected floating point or uint8")
    return as_image(values.permute(1, 2, 0).contiguous().numpy())


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
