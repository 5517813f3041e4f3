"""The PSNR table of a file: an extra that says the quality after each layer. Standard library alone."""

import math
import struct
from collections.abc import Sequence

from ohmq.bitstream.format import Extra, ExtraType
from ohmq.bitstream.reader import read_extra, read_header

__all__ = ["psnr_extra", "psnr_table"]

_LOSSLESS = 0xFFFF
"""Entry of a layer that decodes without any error."""


def psnr_table(data: bytes) -> tuple[float, ...] | None:
    """Read the PSNR of the image after each layer of a file.

    Args:
        data: the file, or at least its header and extras.

    Returns:
        In dB, rounded down to hundredths, inf where nothing differs; None for a file without such a table.

    Raises:
        BitstreamError: as `read_header` and `read_extra`.
    """
    header = read_header(data)
    start = header.header_bytes
    for info in header.extras:
        if info.type == ExtraType.PSNR:
            body = read_extra(info, data[start : start + info.length]).body
            entries = struct.unpack(f">{len(body) // 2}H", body)[: len(header.layers)]
            return tuple(math.inf if entry == _LOSSLESS else entry / 100 for entry in entries)
        start += info.length
    return None


def psnr_extra(values: Sequence[float]) -> Extra:
    """Make the extra that keeps the PSNR of the image after each layer.

    Args:
        values: in dB, one for each layer; inf where nothing differs.

    Returns:
        An extra of type `ExtraType.PSNR`.

    Example:
        >>> psnr_extra([27.129, math.inf]).body.hex()
        '0a98ffff'
    """
    entries = [
        _LOSSLESS if math.isinf(value) else min(max(0, math.floor(value * 100)), _LOSSLESS - 1) for value in values
    ]
    return Extra(ExtraType.PSNR, struct.pack(f">{len(entries)}H", *entries))
