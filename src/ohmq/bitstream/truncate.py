"""Truncating a file to its leading layers, without decoding it. Standard library alone."""

import math

from ohmq.bitstream.format import HeaderInfo, bytes_of_rate
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
    """Truncate a file to its leading layers, without decoding it; extras stay. Exactly one limit is given.

    Args:
        data: the file.
        num_layers: keep this number of layers.
        channels: keep the most layers that hold at most this number of channels.
        fraction: keep the most layers that hold at most this fraction of the file's channels, rounded up to whole
            channels.
        max_bytes: keep the most layers whose file has at most this number of bytes.
        bpp: keep the most layers whose file has at most this number of bits per pixel.
        psnr: keep the fewest layers that reach this number of dB by the file's PSNR table.

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
        num_layers = _num_layers_for_psnr(data, psnr)
    if num_layers is not None and not 1 <= num_layers <= len(layers):
        raise ValueError(f"num_layers is {num_layers}; this file can keep 1 to {len(layers)} layers")
    if fraction is not None:
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction is {fraction}; it must lie in [0, 1]")
        channels = math.ceil(fraction * file.num_channels)
    if bpp is not None:
        max_bytes = bytes_of_rate(bpp, header.width, header.height)
    for count in range(len(layers), 0, -1):
        kept = layers[:count]
        head = _header_of_leading_layers(header, count)
        size = len(head) + header.extras_bytes + sum(layer.length for layer in kept)
        if (
            count == num_layers
            or (channels is not None and sum(layer.channels for layer in kept) <= channels)
            or (max_bytes is not None and size <= max_bytes)
        ):
            return head + data[header.header_bytes : header.header_bytes + size - len(head)]
    asked = f"fraction is {fraction}, " if fraction is not None else f"bpp is {bpp}, " if bpp is not None else ""
    hint = "; compress with --layers all (layers='all') makes files that can be cut" if len(layers) == 1 else ""
    if channels is not None:
        raise ValueError(
            f"{asked}channels is {channels}; the first layer alone holds {layers[0].channels}, the smallest possible{hint}"
        )
    raise ValueError(
        f"{asked}max_bytes is {max_bytes}; the first layer alone makes a file of {size} bytes "
        f"({8 * size / (header.width * header.height):.4g} bpp), the smallest possible{hint}"
    )


def _header_of_leading_layers(header: HeaderInfo, count: int) -> bytes:
    """Encode the header of the file that keeps the first ``count`` layers."""
    return encode_header(
        model_id=header.model_id,
        width=header.width,
        height=header.height,
        grey=header.grey,
        fixed_rate=header.fixed_rate,
        layers=header.layers[:count],
        tile=header.tile,
        extras=header.extras,
        residual=header.residual,
    )


def _num_layers_for_psnr(data: bytes, psnr: float) -> int:
    """Return the fewest layers that reach a PSNR, in dB, by the table in the file."""
    if not math.isfinite(psnr):
        raise ValueError(f"psnr is {psnr}; it must be a number of dB")
    values = psnr_table(data)
    if values is None:
        raise ValueError("the file has no PSNR table; compress writes one with --psnr-table (psnr_table=True)")
    for count, value in enumerate(values, start=1):
        if value >= psnr:
            return count
    raise ValueError(f"psnr is {psnr}; the file reaches {max(values):.2f} dB")
