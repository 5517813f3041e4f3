"""Progressive decoding: the symbols of a file that arrives layer by layer."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ohmq.bitstream.reader import read_extra, read_layer
from ohmq.bitstream.stream import ByteSource, StreamBuffer
from ohmq.decoder.decoder import Decoder, leading_layers
from ohmq.errors import BitstreamError
from ohmq.imaging.extras import DecodedExtras, decode_extras
from ohmq.runtime.latents import Symbols

__all__ = ["ProgressiveSymbols", "decode_progressive"]


class ProgressiveSymbols(NamedTuple):
    """Symbols after one more layer.

    Attributes:
        extras: mask and metadata.
        symbols: symbols; those of channels that have not arrived are undefined.
        channels: the number of leading channels decoded so far.
    """

    extras: DecodedExtras
    symbols: Symbols
    channels: int


def decode_progressive(
    decoder: Decoder,
    stream: bytes | ByteSource | Iterable[bytes],
    *,
    channels: int | None,
    allow_truncated: bool,
    max_pixels: int,
) -> Iterator[ProgressiveSymbols]:
    """Decode a file layer by layer, each layer once, as its bytes arrive.

    Args:
        decoder: the model's decoder.
        stream: the file; a `ByteSource` is read no further than the file's own bytes.
        channels: stop after the layers that hold at most this number of channels; None: all layers.
        allow_truncated: end quietly after the last whole, undamaged layer; there must be one.
        max_pixels: limit on width × height.

    Raises:
        OhmqError: as `Decoder.decode`, when the place in question is reached.
    """
    source = StreamBuffer(stream)
    header = source.header()
    decoder.check_header(header, max_pixels)
    kept = header.layers[: leading_layers(header, channels)]
    bodies = [read_extra(info, source.take(info.length)) for info in header.extras]
    extras = decode_extras(bodies, header.width, header.height)
    decoded = decoder.start(header, sum(layer.channels for layer in kept))
    for number, info in enumerate(kept, start=1):
        try:
            layer = read_layer(info, source.take(info.length), number)
        except BitstreamError:
            if allow_truncated and number > 1:
                return
            raise
        decoded.decode([layer.payload], [decoded.channel + layer.channels])
        if number == len(header.layers) and source.rest:
            raise BitstreamError(f"{len(source.rest)} bytes follow the end of the file")
        yield ProgressiveSymbols(extras, decoded.symbols, decoded.channel)
