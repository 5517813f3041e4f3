"""Colour spaces that files describe without an ICC profile: CICP code points, PNG's gAMA and cHRM, EXIF tags.

Where one is not sRGB, an ICC profile is built for it, so that it is converted as an embedded profile is.
"""

import contextlib
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

__all__ = ["CICP", "ColourSpace", "build_profile", "colour_profile", "read_cicp"]

CICP = "cicp"
"""Name in ``Image.info`` for CICP code points: (primaries, transfer, matrix, full range); Pillow has none."""

_D50 = (0.9642, 1.0, 0.8249)
"""White of ICC's connection space, XYZ."""
_D65 = (0.3127, 0.3290)
_SRGB = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_ADOBE_RGB = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_SRGB_GAMMA = 0.45455
_GAMMA_TOLERANCE, _XY_TOLERANCE = 0.01, 0.005
"""Differences from sRGB that are not seen, and that encoders make by rounding."""
_GAMMAS = (0.05, 20.0)
"""Range of gAMA values that describe an image; others are mistakes."""
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)

_PRIMARIES: dict[int, Sequence[float]] = {
    1: _SRGB,
    2: _SRGB,  # unspecified
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (0.310, 0.316, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
"""White, red, green and blue, x and y each, of CICP's primaries (ITU-T H.273, table 2)."""
_TRANSFERS = {2: None, 4: 2.2, 5: 2.8, 8: 1.0, 13: None}
"""Exponents of CICP's transfer functions (ITU-T H.273, table 3); None: that of sRGB. Others have no single display
rendering (BT.709, PQ, HLG) and are not converted."""
_TRANSFER_NAMES = {1: "BT.709", 6: "BT.601", 14: "BT.2020", 15: "BT.2020", 16: "PQ", 17: "SMPTE 428", 18: "HLG"}


class ColourSpace(NamedTuple):
    """A colour space of primaries and a transfer function.

    Attributes:
        name: for messages.
        exponent: of the transfer function from samples to light; None: that of sRGB.
        chromaticities: white, red, green and blue, x and y each: 8 numbers.
    """

    name: str
    exponent: float | None
    chromaticities: Sequence[float]

    def is_srgb(self, *, grey: bool) -> bool:
        """Whether sRGB shows the same colours.

        Args:
            grey: the image has no colours, so that primaries do not count.
        """
        same_curve = self.exponent is None or abs(1 / self.exponent - _SRGB_GAMMA) <= _GAMMA_TOLERANCE
        near = np.allclose(self.chromaticities, _SRGB, rtol=0, atol=_XY_TOLERANCE)
        return same_curve and (grey or near)


def colour_profile(image: Image.Image, notes: list[str]) -> bytes | None:
    """Return the ICC profile of an image's colours, embedded or built; None: they are sRGB.

    The first of these counts: CICP code points, an embedded profile, PNG's sRGB, PNG's gAMA and cHRM, EXIF's Adobe RGB,
    TIFF's chromaticities.

    Args:
        image: Pillow image; `ohmq.imaging.convert.load_pixels` gives it the code points of its file.
        notes: a phrase is appended for each description that is ignored.
    """
    info = image.info
    profile = info.get("icc_profile")
    grey = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
    if CICP in info:
        space = _cicp_space(info[CICP], notes, has_profile=bool(profile))
        if space is not None:
            return None if space.is_srgb(grey=grey) else build_profile(space, grey=grey)
    if profile:
        return bytes(profile)
    if "icc_profile" in info and profile is None:  # as Pillow reports one that does not unpack
        notes.append("damaged colour profile ignored")
    if image.mode in ("CMYK", "LAB") or "srgb" in info:
        return None
    space = _png_space(info, notes) if info.keys() & {"gamma", "chromaticity"} else _exif_space(image, notes)
    if space is None or space.is_srgb(grey=grey):
        return None
    try:
        return build_profile(space, grey=grey)
    except ValueError:
        notes.append(f"{space.name}: impossible primaries, ignored")
        return None


def _cicp_space(code_points: Sequence[int], notes: list[str], *, has_profile: bool) -> ColourSpace | None:
    """Return the colour space of CICP code points; None, with a note, if it cannot be converted."""
    primaries, transfer, _, full_range = code_points
    if primaries in _PRIMARIES and transfer in _TRANSFERS:
        if not full_range:
            notes.append("narrow range of samples (CICP) read as full range")
        return ColourSpace(f"CICP {primaries}/{transfer}", _TRANSFERS[transfer], _PRIMARIES[primaries])
    named = f" ({_TRANSFER_NAMES[transfer]})" if transfer in _TRANSFER_NAMES else ""
    instead = "the colour profile is used instead" if has_profile else "read as sRGB"
    notes.append(f"colours of CICP {primaries}/{transfer}{named} cannot be converted: {instead}")
    return None


def _png_space(info: dict[Any, Any], notes: list[str]) -> ColourSpace | None:
    """Return the colour space of the PNG chunks gAMA and cHRM."""
    gamma, chromaticities = info.get("gamma"), info.get("chromaticity", _SRGB)
    if gamma is None:
        if not ColourSpace("", None, chromaticities).is_srgb(grey=False):
            notes.append("primaries (cHRM) without a gamma (gAMA) ignored")
        return None
    if not _GAMMAS[0] <= gamma <= _GAMMAS[1]:
        notes.append(f"gamma {gamma:g} ignored: out of range")
        return None
    own = "chromaticity" in info and not ColourSpace("", None, chromaticities).is_srgb(grey=False)
    return ColourSpace(f"gamma {gamma:g}" + " and own primaries" * own, 1 / gamma, chromaticities)


def _exif_space(image: Image.Image, notes: list[str]) -> ColourSpace | None:
    """Return the colour space that EXIF or TIFF tags describe."""
    with contextlib.suppress(Exception):  # damaged metadata make Pillow raise nearly anything; `upright` notes it
        exif = image.getexif()
        kind = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace)
        index = exif.get_ifd(ExifTags.IFD.Interop).get(ExifTags.Interop.InteropIndex) if kind != 2 else None
        if kind == 2 or index == "R03":
            return ColourSpace("Adobe RGB (EXIF)", 563 / 256, _ADOBE_RGB)
        if ExifTags.Base.TransferFunction in exif:
            notes.append("transfer function (TIFF) ignored")
        if kind != 1 and {ExifTags.Base.WhitePoint, ExifTags.Base.PrimaryChromaticities} <= exif.keys():
            values = (*exif[ExifTags.Base.WhitePoint], *exif[ExifTags.Base.PrimaryChromaticities])
            return ColourSpace("primaries (TIFF)", 2.2, tuple(map(float, values)))
    return None


def build_profile(space: ColourSpace, *, grey: bool) -> bytes:
    """Build an ICC profile (version 2, display) of a colour space.

    Args:
        space: the colour space.
        grey: build a profile of its transfer function alone, for images without colours.

    Raises:
        ValueError: primaries that span no colours.
    """
    if space.exponent is None:
        curve = struct.pack(">4sIHH5i", b"para", 0, 3, 0, *map(_fixed, _SRGB_CURVE))
    else:
        curve = struct.pack(">4sIHHi", b"para", 0, 0, 0, _fixed(space.exponent))
    name = space.name.encode("ascii", "replace") + b"\0"
    tags = {
        b"desc": b"desc" + struct.pack(">II", 0, len(name)) + name + bytes(78),
        b"cprt": b"text\0\0\0\0CC0\0",
        b"wtpt": _xyz(_D50),
    }
    if grey:
        tags[b"kTRC"] = curve
    else:
        for letter, colour in zip(b"rgb", _adapted(space.chromaticities).T, strict=True):
            tags[bytes([letter]) + b"XYZ"] = _xyz(colour)
            tags[bytes([letter]) + b"TRC"] = curve
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4xI", start + len(body), 0x02400000) + b"mntr" + (b"GRAY" if grey else b"RGB ") + b"XYZ "
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", *map(_fixed, _D50))
    return head.ljust(128, b"\0") + table + body


def _adapted(chromaticities: Sequence[float]) -> NDArray[np.float64]:
    """Return XYZ of red, green and blue, a column each, adapted to D50 by Bradford's transform."""
    xy = np.array(chromaticities, np.float64).reshape(4, 2)
    if not (np.isfinite(xy).all() and (xy[:, 1] > 0).all()):
        raise ValueError("primaries outside of their range")
    white, *colours = np.column_stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(1)) / xy[:, 1]])
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    try:
        matrix = np.transpose(colours)
        matrix = matrix * np.linalg.solve(matrix, white)
        adaptation = np.linalg.solve(bradford, np.diag(bradford @ _D50 / (bradford @ white)) @ bradford)
    except np.linalg.LinAlgError as error:
        raise ValueError("primaries on one line") from error
    result: NDArray[np.float64] = adaptation @ matrix
    if not (np.isfinite(result).all() and np.abs(result).max() < 100):
        raise ValueError("primaries nearly on one line")
    return result


def _fixed(value: float) -> int:
    """Convert a number to ICC's s15Fixed16Number."""
    return round(value * 65536)


def _xyz(values: Sequence[float] | NDArray[np.float64]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(_fixed(float(value)) for value in values))


def read_cicp(image: Image.Image) -> tuple[int, int, int, int] | None:
    """Return the CICP code points of a file that Pillow has opened and not read yet: PNG's cICP, AVIF's nclx.

    Args:
        image: opened; its file keeps its position.

    Returns:
        Primaries, transfer, matrix and full range (0 or 1); None if the file has none, or is read already.
    """
    file = getattr(image, "fp", None)
    if file is None or image.format not in ("PNG", "AVIF"):
        return None
    position = file.tell()
    try:
        file.seek(0)
        return _png_cicp(file) if image.format == "PNG" else _avif_cicp(file.read(_AVIF_HEAD_BYTES))
    finally:
        file.seek(position)


_AVIF_HEAD_BYTES = 2**16
"""Bytes of an AVIF file that are searched for its colour box, which lies in the boxes at its start."""


def _png_cicp(file: Any) -> tuple[int, int, int, int] | None:
    file.read(8)
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name == b"cICP" and length == 4 and len(body := file.read(4)) == 4:
            return body[0], body[1], body[2], body[3]
        if name in (b"IDAT", b"IEND"):
            break
        file.seek(length + 4, 1)
    return None


def _avif_cicp(head: bytes) -> tuple[int, int, int, int] | None:
    at = head.find(b"colrnclx")
    if at < 0 or len(head) < at + 15:
        return None
    primaries, transfer, matrix, flags = struct.unpack_from(">3HB", head, at + 8)
    return primaries, transfer, matrix, flags >> 7
