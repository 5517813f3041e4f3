"""Progressive decoding: one file, an image for each layer as it arrives."""

import io
from collections.abc import Iterator

import pytest
from PIL import Image

from ohmq.bitstream.reader import read_header
from ohmq.codec import Codec
from ohmq.errors import BitstreamError, ChecksumError, NotOhmFileError, TruncatedFileError


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
        yield b""  # nothing yet: no end


class Trickle:
    """A source that gives at most 3 bytes at a time and counts them."""

    def __init__(self, data: bytes) -> None:
        self.data, self.given = data, 0

    def read(self, size: int, /) -> bytes:
        part = self.data[self.given : self.given + min(size, 3)]
        self.given += len(part)
        return part


@pytest.mark.parametrize("fixed_rate", [False, True])
def test_a_growing_source_gives_every_cut(codec: Codec, digit: Image.Image, fixed_rate: bool) -> None:
    data = codec.compress(digit, fixed_rate=fixed_rate, layers="all")
    expected = [codec.decompress(data, channels=point).tobytes() for point in codec.cut_points]
    for stream in (data, bytearray(data), io.BytesIO(data), pieces(data, 1), pieces(data, 40), [data]):
        assert [decoded.tobytes() for decoded in codec.decompress_progressive(stream)] == expected
    longer = Trickle(data + b"what follows in the stream")
    assert [decoded.tobytes() for decoded in codec.decompress_progressive(longer)] == expected
    assert longer.given == len(data)


def test_a_photograph_grows(photo_codec: Codec, crop: Image.Image) -> None:
    data = photo_codec.compress(crop, quality=100, layers="all")
    grown = list(photo_codec.decompress_progressive(data))
    assert len(grown) == len(photo_codec.cut_points)
    for point, decoded in zip(photo_codec.cut_points, grown, strict=True):
        assert decoded.tobytes() == photo_codec.decompress(data, channels=point).tobytes()


def test_images_come_as_soon_as_their_layer_is_there(context_codec: Codec, digit: Image.Image) -> None:
    data = context_codec.compress(digit)
    header = read_header(data)
    sent: list[int] = []

    def download() -> Iterator[bytes]:
        for number, byte in enumerate(data, start=1):
            sent.append(number)
            yield bytes([byte])

    arrived = header.header_bytes
    for layer, _ in zip(header.layers, context_codec.decompress_progressive(download()), strict=True):
        arrived += layer.length
        assert sent[-1] == arrived


def test_a_source_that_ends_early_or_is_damaged(context_codec: Codec, digit: Image.Image) -> None:
    data = context_codec.compress(digit, layers="all")
    start = read_header(data).header_bytes

    def count(source: bytes, **arguments: bool) -> int:
        return len(list(context_codec.decompress_progressive(source, **arguments)))

    for bad, error in ((data[:-1], TruncatedFileError), (data[:-1] + bytes([data[-1] ^ 1]), ChecksumError)):
        images = context_codec.decompress_progressive(bad)
        assert all(next(images).size == (28, 28) for _ in range(5))
        with pytest.raises(error, match="layer 6"):
            next(images)
        assert count(bad, allow_truncated=True) == 5
    for length in range(start):
        with pytest.raises(TruncatedFileError if length else NotOhmFileError):
            count(data[:length], allow_truncated=True)
    with pytest.raises(TruncatedFileError, match="layer 1"):
        count(data[: start + 1], allow_truncated=True)
    with pytest.raises(BitstreamError, match="3 bytes follow"):
        count(data + b"abc")
    with pytest.raises(BitstreamError, match="limit of 10"):
        list(context_codec.decompress_progressive(data, max_pixels=10))
