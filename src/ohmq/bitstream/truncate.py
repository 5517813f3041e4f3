"""src/ohmq/bitstream/truncate.py."""

import math

from ohmq.bitstream.format import FLAG_FIXED_RATE, FLAG_GREY, bytes_of_rate
from ohmq.bitstream.psnr_table import psnr_table
from ohmq.bitstream.reader import as_bytes, read_header, read_ohm
from ohmq.bitstream.writer import encode_header

__all__ = ["truncate_ohm"]


def truncate_ohm(
    data: bytes,
    *,
    num_layers: int | None = None,
    channels: int | None = None,
    fraction: float | None = None,
    max_bytes: int | None = None,
    bpp: float | None = None,
    psnr: float | None = None,
) -> bytes:
    """Cut a file to its leading layers, without decoding it; extras stay. Exactly one limit is given.

    Args:
        data: the file.
        num_layers: how many layers stay.
        channels: keep the most layers that hold at most so many channels.
        fraction: keep the most layers that hold at most this part of the file's channels, rounded up to whole channels.
        max_bytes: keep the most layers whose file has at most so many bytes.
        bpp: keep the most layers whose file has at most so many bits per pixel.
        psnr: keep the fewest layers that have at least so many dB by the file's PSNR table.

    Returns:
        A whole file.

    Raises:
        ValueError: not exactly one limit, or not even one layer satisfies it; the message says the smallest possible.
        BitstreamError: as `read_ohm`.
    """
    if sum(limit is not None for limit in (num_layers, channels, fraction, max_bytes, bpp, psnr)) != 1:
        raise ValueError("give exactly one of num_layers, channels, fraction, max_bytes, bpp and psnr")
    data = as_bytes(data)
    file = read_ohm(data)
    header = read_header(data)
    layers = header.layers
    if psnr is not None:
        num_layers = _layers_of_psnr(data, psnr)
    if num_layers is not None and not 1 <= num_layers <= len(layers):
        raise ValueError(f"num_layers is {num_layers}; this file can keep 1 to {len(layers)} layers")
    if fraction is not None:
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction is {fraction}; it must lie in [0, 1]")
        channels = math.ceil(fraction * file.num_channels)
    if bpp is not None:
        max_bytes = bytes_of_rate(bpp, header.width, header.height)
    flags = FLAG_FIXED_RATE * header.fixed_rate | FLAG_GREY * header.grey
    for count in range(len(layers), 0, -1):
        kept = layers[:count]
        start = encode_header(header.model_id, header.width, header.height, flags, kept, header.tile, header.extras)
        length = header.extras_bytes + sum(layer.length for layer in kept)
        if (
            count == num_layers
            or (channels is not None and sum(layer.channels for layer in kept) <= channels)
            or (max_bytes is not None and len(start) + length <= max_bytes)
        ):
            return start + data[header.header_bytes : header.header_bytes + length]
    asked = f"fraction is {fraction}, " if fraction is not None else f"bpp is {bpp}, " if bpp is not None else ""
    if channels is not None:
        raise ValueError(
            f"{asked}channels is {channels}; the first layer alone holds {kept[0].channels}, the smallest possible"
        )
    size = len(start) + length
    raise ValueError(
        f"{asked}max_bytes is {max_bytes}; the first layer alone makes a file of {size} bytes "
        f"({8 * size / (header.width * header.height):.4g} bpp), the smallest possible"
    )


def _layers_of_psnr(data: bytes, psnr: float) -> int:
    """The fewest layers that reach so many dB by the table in the file."""
    if not math.isfinite(psnr):
        raise ValueError(f"psnr is {psnr}; it must be a number of dB")
    values = psnr_table(data)
    if values is None:
        raise ValueError("the file has no PSNR table; compress writes one with --psnr-table (psnr_table=True)")
    for count, value in enumerate(values, start=1):
        if value >= psnr:
            return count
    raise ValueError(f"psnr is {psnr}; the file reaches {max(values):.2f} dB")
