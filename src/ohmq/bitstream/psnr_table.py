"""src/ohmq/bitstream/psnr_table.py."""

import math
import struct
from collections.abc import Sequence

from ohmq.bitstream.format import Extra, ExtraType
from ohmq.bitstream.reader import read_extra, read_header

__all__ = ["psnr_extra", "psnr_table"]
_NO_ERROR = 0xFFFF


def psnr_table(data: bytes) -> tuple[float, ...] | None:
    """The PSNR of the picture after each layer of a file, in dB, rounded down to hundredths.

    Args:
        data: the file, or at least its header and extras.

    Returns:
        inf where nothing differs; None for a file without such a table.

    Raises:
        BitstreamError: as `read_header` and `read_extra`.
    """
    header = read_header(data)
    start = header.header_bytes
    for info in header.extras:
        if info.type == ExtraType.PSNR:
            body = read_extra(info, data[start : start + info.length]).body
            found = struct.unpack(f">{len(body) // 2}H", body)[: len(header.layers)]
            return tuple(math.inf if value == _NO_ERROR else value / 100 for value in found)
        start += info.length
    return None


def psnr_extra(values: Sequence[float]) -> Extra:
    """The extra that keeps the PSNR of the picture after each layer.

    Example:
        >>> psnr_extra([27.129, math.inf]).body.hex()
        '0a98ffff'
    """
    kept = [_NO_ERROR if math.isinf(value) else min(max(0, math.floor(value * 100)), _NO_ERROR - 1) for value in values]
    return Extra(ExtraType.PSNR, struct.pack(f">{len(kept)}H", *kept))
