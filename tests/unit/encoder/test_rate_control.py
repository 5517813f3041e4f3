"""Targets of size and quality, pictures from a growing source, batches: on each kind of small model and on photo."""

import io
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import ohmq
from ohmq import loading
from ohmq.bitstream.psnr_table import psnr_table
from ohmq.bitstream.reader import read_header, read_ohm
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.codec import Codec
from ohmq.entropy import latent_coder
from ohmq.errors import BitstreamError, ChecksumError, NotOhmFileError, TruncatedFileError, UnreachableTargetError
from ohmq.imaging.convert import ImageConversionWarning
from ohmq.loading import load, load_for
from ohmq.metrics import psnr_db

PHOTOS = Path(__file__).parents[3] / "examples" / "photos"


@pytest.fixture(scope="module")
def photo_codec() -> Codec:
    return load("photo")


@pytest.fixture(scope="module")
def crop() -> Image.Image:
    """A piece of a photograph whose sides are no multiples of 16."""
    with Image.open(PHOTOS / "chelsea.png") as image:
        return image.convert("RGB").crop((100, 60, 219, 131))


def files_at_cuts(codec: Codec, image: Image.Image, **arguments: object) -> list[bytes]:
    """Each cut coded by itself, the slow way."""
    return [codec.compress(image, channels=point, **arguments) for point in codec.cut_points]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments", [{}, {"layers": 1}, {"layers": 2}, {"fixed_rate": True}, {"layers": 1, "fixed_rate": True}]
)
def test_the_largest_file_within_bytes(codec: Codec, digit: Image.Image, arguments: dict[str, object]) -> None:
    files = files_at_cuts(codec, digit, **arguments)
    sizes = [len(file) for file in files]
    for size in {*sizes, *(size - 1 for size in sizes), *(size + 1 for size in sizes), 10**9}:
        fitting = [file for file in files if len(file) <= size]
        if not fitting:
            with pytest.raises(UnreachableTargetError, match=f"has {sizes[0]} bytes .* the {size} allowed"):
                codec.compress(digit, max_bytes=size, **arguments)  # type: ignore[arg-type]
            continue
        assert codec.compress(digit, max_bytes=size, **arguments) == fitting[-1]  # type: ignore[arg-type]
        assert codec.compress(digit, bpp=8 * (size + 0.5) / 784, **arguments) == fitting[-1]  # type: ignore[arg-type]


def test_the_smallest_file_that_reaches_a_psnr(codec: Codec, digit: Image.Image) -> None:
    files = files_at_cuts(codec, digit)
    reached = [psnr_db(np.asarray(digit), np.asarray(codec.decompress(file))) for file in files]
    for psnr in (0.5, *reached):
        first = next(i for i, value in enumerate(reached) if value >= psnr)
        assert codec.compress(digit, psnr=psnr) == files[first]
    with pytest.raises(UnreachableTargetError, match=rf"reaches {max(reached):.2f} dB .* 99 dB"):
        codec.compress(digit, psnr=99)


def test_targets_of_a_photograph(photo_codec: Codec, crop: Image.Image) -> None:
    files = files_at_cuts(photo_codec, crop)
    reached = [psnr_db(np.asarray(crop), np.asarray(photo_codec.decompress(file))) for file in files]
    pixels = crop.width * crop.height
    middle = len(files) // 2
    for number in (0, middle, len(files) - 1):
        # Feedback moves the latent for nearly as many channels: nearly the file at the cut, where without it is that file.
        size = len(files[number])
        for target in ({"max_bytes": size}, {"bpp": 8 * size / pixels + 1e-9}):
            found = photo_codec.compress(crop, **target)
            assert 0.95 * size < len(found) <= size
            assert psnr_db(np.asarray(crop), np.asarray(photo_codec.decompress(found))) > reached[number] - 0.15
        plain = photo_codec.compress(crop, channels=photo_codec.cut_points[number], effort=0)
        assert photo_codec.compress(crop, max_bytes=len(plain), effort=0) == plain
    between = photo_codec.compress(crop, max_bytes=len(files[middle]) - 1)
    assert len(files[middle - 1]) < len(between) < len(files[middle])
    wanted = (reached[middle - 1] + reached[middle]) / 2
    found = photo_codec.compress(crop, psnr=wanted)
    assert wanted <= psnr_db(np.asarray(crop), np.asarray(photo_codec.decompress(found))) < reached[middle]
    assert len(found) < len(files[middle])


def test_a_target_analyses_and_codes_once(codec: Codec, digit: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(name: str) -> None:
        target = latent_coder if name == "encode_layers" else codec.transforms.model
        original = getattr(target, name)
        monkeypatch.setattr(target, name, lambda *args, **more: (calls.append(name), original(*args, **more))[1])

    counted("encode_layers")
    counted("symbols")
    smallest = len(codec.compress(digit, channels=1))
    for target in ({"max_bytes": smallest + 9}, {"max_bytes": smallest, "layers": 1}, {"bpp": 0.9}, {"psnr": 1.0}):
        calls.clear()
        codec.compress(digit, **target)  # type: ignore[arg-type]
        assert sorted(calls) == ["encode_layers", "symbols"], target


@pytest.mark.parametrize(
    "arguments",
    [
        {"bpp": 1.0, "psnr": 20.0},
        {"fraction": 0.5, "max_bytes": 100},
        {"channels": 1, "bpp": 1.0},
        {"bpp": 0.0},
        {"bpp": float("nan")},
        {"max_bytes": 0},
        {"max_bytes": -3},
        {"psnr": 0.0},
        {"psnr": float("inf")},
    ],
)
def test_wrong_targets(context_codec: Codec, digit: Image.Image, arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be positive|at most one"):
        context_codec.compress(digit, **arguments)  # type: ignore[arg-type]


# One file, many pictures


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
    data = codec.compress(digit, fixed_rate=fixed_rate)
    expected = [codec.decompress(data, channels=point).tobytes() for point in codec.cut_points]
    for stream in (data, bytearray(data), io.BytesIO(data), pieces(data, 1), pieces(data, 40), [data]):
        assert [picture.tobytes() for picture in codec.decompress_progressive(stream)] == expected
    longer = Trickle(data + b"what follows in the stream")
    assert [picture.tobytes() for picture in codec.decompress_progressive(longer)] == expected
    assert longer.given == len(data)


def test_a_photograph_grows(photo_codec: Codec, crop: Image.Image) -> None:
    data = photo_codec.compress(crop)
    grown = list(photo_codec.decompress_progressive(data))
    assert len(grown) == len(photo_codec.cut_points)
    for point, picture in zip(photo_codec.cut_points, grown, strict=True):
        assert picture.tobytes() == photo_codec.decompress(data, channels=point).tobytes()


def test_pictures_come_as_soon_as_their_layer_is_there(context_codec: Codec, digit: Image.Image) -> None:
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
    data = context_codec.compress(digit)
    start = read_header(data).header_bytes

    def count(source: bytes, **arguments: bool) -> int:
        return len(list(context_codec.decompress_progressive(source, **arguments)))

    for bad, error in ((data[:-1], TruncatedFileError), (data[:-1] + bytes([data[-1] ^ 1]), ChecksumError)):
        pictures = context_codec.decompress_progressive(bad)
        assert all(next(pictures).size == (28, 28) for _ in range(5))
        with pytest.raises(error, match="layer 6"):
            next(pictures)
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


# Many images, many threads, other people's settings


def test_batches(context_codec: Codec, digits: list[Image.Image]) -> None:
    some = digits[:3]
    expected = [context_codec.compress(image, channels=3) for image in some]
    array = np.stack([np.asarray(image) for image in some])
    for batch in (some, array, torch.from_numpy(array)[:, None], torch.from_numpy(array)[:, None] / 255):
        assert context_codec.compress_batch(batch, channels=3) == expected
    with pytest.raises(ValueError, match="compress_batch"):
        context_codec.compress(torch.from_numpy(array)[:, None])


def test_no_setting_of_the_program_is_touched(context_codec: Codec, digit: Image.Image) -> None:
    import random

    def settings() -> tuple[object, ...]:
        return (
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch.are_deterministic_algorithms_enabled(),
            torch.random.get_rng_state().tolist(),
            random.getstate(),
            repr(np.random.get_state()),
            repr(np.geterr()),
            Image.MAX_IMAGE_PIXELS,
            list(warnings.filters),
        )

    before = settings()
    data = context_codec.compress(digit, psnr=1)
    assert settings() == before
    for _ in context_codec.decompress_progressive(data):
        assert settings() == before  # also between two pictures
    context_codec.decompress(data)
    load("photo")
    assert settings() == before
    with torch.no_grad():
        context_codec.decompress(data)
        assert not torch.is_grad_enabled()


def test_threads_compress_and_decompress_at_once(photo_codec: Codec, crop: Image.Image) -> None:
    codec = load("photo")  # nothing cached yet
    expected = photo_codec.compress(crop, bpp=1)
    shown = photo_codec.decompress(expected).tobytes()
    found: list[tuple[bytes, bytes]] = []

    def work() -> None:
        data = codec.compress(crop, bpp=1)
        found.append((data, codec.decompress(data).tobytes()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(expected, shown)] * 4


def test_losses_are_warnings(photo_codec: Codec) -> None:
    with pytest.warns(ImageConversionWarning, match="alpha channel flattened onto white") as caught:
        data = photo_codec.compress(Image.new("RGBA", (16, 16), (0, 0, 0, 0)), channels=6, flatten=True)
    assert caught[0].filename == __file__
    assert np.asarray(photo_codec.decompress(data)).mean() > 200


def test_the_codec_of_a_file(
    photo_codec: Codec,
    context_codec: Codec,
    crop: Image.Image,
    digit: Image.Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "_REGISTRY", loading.ModelRegistry())  # other tests register models
    data = photo_codec.compress(crop, channels=6)
    assert load_for(data).model_id == photo_codec.model_id
    assert load_for(data[:200]) is load_for(data)
    with pytest.raises(ohmq.ModelMismatchError, match="not a shipped one"):
        load_for(context_codec.compress(digit))
    with pytest.raises(NotOhmFileError):
        load_for(b"GIF89a")
    assert read_ohm(truncate_ohm(data, num_layers=1)).num_channels == 6


@pytest.mark.parametrize("arguments", [{}, {"layers": 3}, {"bpp": 1.0}, {"bpp": 1.0, "layers": 2}, {"tile": 2}])
def test_cut_to_a_psnr_without_a_model(photo_codec: Codec, crop: Image.Image, arguments: dict[str, float]) -> None:
    data = photo_codec.compress(crop, psnr_table=True, **arguments)  # type: ignore[arg-type]
    table = psnr_table(data)
    assert table is not None
    layers = read_header(data).layers
    assert len(table) == len(layers)
    ends = np.cumsum([layer.channels for layer in layers])
    reached = [psnr_db(np.asarray(crop), np.asarray(photo_codec.decompress(data, channels=int(end)))) for end in ends]
    assert table == pytest.approx([int(value * 100) / 100 for value in reached], abs=0.011)
    goal = table[len(table) // 2]
    cut = truncate_ohm(data, psnr=goal)
    assert psnr_db(np.asarray(crop), np.asarray(photo_codec.decompress(cut))) >= goal
    assert len(read_header(cut).layers) == next(n for n, value in enumerate(table, start=1) if value >= goal)
    if "bpp" in arguments:
        assert 8 * len(data) <= crop.width * crop.height


def test_a_psnr_table_of_what_is_not_seen(photo_codec: Codec) -> None:
    clear = Image.new("RGBA", (20, 20), (200, 10, 10, 0))
    assert set(psnr_table(photo_codec.compress(clear, psnr_table=True)) or ()) == {float("inf")}
