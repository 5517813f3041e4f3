import threading

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_models import CONFIGS, make_codec

import ohmq
from ohmq.bitstream.reader import read_header, read_ohm
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.codec import Codec
from ohmq.errors import (
    BitstreamError,
    ChecksumError,
    ModelFileError,
    ModelMismatchError,
    TruncatedFileError,
    UnsupportedImageError,
)
from ohmq.model_files.freeze import freeze
from ohmq.models import MnistConfig, build_model


def test_round_trip(codec: Codec, digit: Image.Image) -> None:
    symbols = codec.analyse(digit)
    data = codec.compress(digit, layers="all")
    file, decoded = codec.decode(data)
    assert np.array_equal(decoded.values, symbols.values)
    assert file.num_channels == codec.num_channels
    assert len(file.layers) == len(codec.cut_points)
    picture = codec.decompress(data)
    assert (picture.size, picture.mode) == ((28, 28), "L")
    assert picture.tobytes() == codec.synthesise(symbols, codec.num_channels).tobytes()


@pytest.mark.parametrize("fixed_rate", [False, True])
def test_every_cut_is_the_image_of_fewer_channels(codec: Codec, digit: Image.Image, fixed_rate: bool) -> None:
    whole = codec.compress(digit, fixed_rate=fixed_rate, layers="all")
    for number, channels in enumerate(codec.cut_points, start=1):
        cut = truncate_ohm(whole, num_layers=number)
        assert cut == codec.compress(digit, channels=channels, fixed_rate=fixed_rate, layers="all")
        assert codec.decompress(cut).tobytes() == codec.decompress(whole, channels=channels).tobytes()


def test_a_partial_download_decodes_to_the_last_whole_layer(context_codec: Codec, digit: Image.Image) -> None:
    whole = context_codec.compress(digit, layers="all")
    part = whole[:-1]
    with pytest.raises(TruncatedFileError):
        context_codec.decompress(part)
    expected = context_codec.decompress(whole, channels=5)
    assert context_codec.decompress(part, allow_truncated=True).tobytes() == expected.tobytes()


@pytest.mark.parametrize("size", [(1, 1), (28, 29), (57, 3), (65536, 1), (1, 65536)])
def test_any_size(context_codec: Codec, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, size[::-1], np.uint8))
    data = context_codec.compress(image, channels=2)
    assert context_codec.decompress(data).size == size
    assert np.array_equal(context_codec.decode(data)[1].values, context_codec.analyse(image).values[..., :2])


def test_tiles_do_not_depend_on_their_neighbours(context_codec: Codec, digit: Image.Image) -> None:
    wide = Image.new("L", (56, 28))
    wide.paste(digit, (28, 0))
    both = context_codec.decompress(context_codec.compress(wide))
    alone = context_codec.decompress(context_codec.compress(digit))
    assert np.abs(np.asarray(both.crop((28, 0, 56, 28)), int) - np.asarray(alone)).max() <= 1


def test_what_is_like_bytes_and_like_integers(context_codec: Codec, digit: Image.Image) -> None:
    data = context_codec.compress(digit, channels=np.int64(3), layers=np.uint8(2))  # type: ignore[arg-type]
    assert data == context_codec.compress(digit, channels=3, layers=2)
    for like in (bytearray(data), memoryview(data)):
        assert context_codec.decompress(like) == context_codec.decompress(data)  # type: ignore[arg-type]
    with pytest.raises(ModelMismatchError, match="not a shipped one"):
        ohmq.load_for(bytearray(data))  # type: ignore[arg-type]
    for wrong in ({"channels": 2.5}, {"layers": 2.5}):
        with pytest.raises(TypeError, match="integer"):
            context_codec.compress(digit, **wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected the bytes"):
        context_codec.decompress("a.ohm")  # type: ignore[arg-type]


def test_layers_and_fractions(context_codec: Codec, digit: Image.Image) -> None:
    assert context_codec.config.layer_ends(6) == (1, 2, 3, 4, 5, 6)
    assert context_codec.config.layer_ends(6, 1) == (6,)
    assert context_codec.config.layer_ends(5, 2) == (3, 5)
    assert read_ohm(context_codec.compress(digit, fraction=0.5)).num_channels == 3
    assert read_ohm(context_codec.compress(digit, layers=2)).layers[0].channels == 3
    for arguments in (
        {"fraction": 0.0},
        {"fraction": 2.0},
        {"channels": 0},
        {"channels": 7},
        {"channels": 1, "fraction": 0.5},
        {"layers": 0},
    ):
        with pytest.raises(ValueError):
            context_codec.compress(digit, **arguments)  # type: ignore[arg-type]


def test_fixed_rate_size_is_known_before(codec: Codec, digit: Image.Image) -> None:
    channels, symbols = codec.num_channels, codec.config.num_symbols
    file = read_ohm(codec.compress(digit, layers=1, fixed_rate=True))
    assert file.payload_bytes == -(-((symbols ** (9 * channels) - 1).bit_length()) // 8)


def test_numpy_and_torch_images(context_codec: Codec, digit: Image.Image) -> None:
    data = context_codec.compress(digit)
    assert context_codec.compress(np.asarray(digit)) == data
    assert context_codec.compress(torch.from_numpy(np.array(digit))) == data
    colour = digit.convert("RGB")
    assert context_codec.compress(colour) == data


def test_errors(context_codec: Codec, digit: Image.Image) -> None:
    data = context_codec.compress(digit, layers="all")
    other = make_codec("static")
    with pytest.raises(ModelMismatchError, match=f"{context_codec.model_id.hex()}.*{other.model_id.hex()}"):
        other.decompress(data)
    with pytest.raises(ChecksumError):
        context_codec.decompress(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(BitstreamError, match="limit of 100"):
        context_codec.decompress(data, max_pixels=100)
    with pytest.raises(UnsupportedImageError):
        context_codec.compress(digit, max_pixels=100)
    with pytest.raises(ModelFileError, match="without a quantizer"):
        Codec(freeze(build_model(MnistConfig(quantizer="none", channels_max=4))))
    with pytest.raises(ValueError, match="at least 1"):
        context_codec.decompress(data, channels=0)


def test_forged_files_are_refused_before_anything_is_allocated(context_codec: Codec, digit: Image.Image) -> None:
    file = read_ohm(context_codec.compress(digit))
    fields = {name: getattr(file, name) for name in ("model_id", "width", "height", "grey", "fixed_rate", "layers")}
    for changes, message in (
        ({"width": 65536, "height": 65536}, "limit"),
        ({"grey": False}, "colour"),
        ({"layers": file.layers + file.layers}, "more channels"),
        ({"fixed_rate": True}, "fixed-rate"),
    ):
        forged = ohmq.bitstream.writer.write_ohm(ohmq.bitstream.format.OhmFile(**{**fields, **changes}))
        with pytest.raises(BitstreamError, match=message):
            context_codec.decompress(forged)


def test_threads_share_a_codec_and_its_settings_stay(context_codec: Codec, digit: Image.Image) -> None:
    expected = context_codec.compress(digit)
    before = (torch.get_num_threads(), torch.is_grad_enabled())
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(context_codec.compress(digit))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == before


def test_random_files_flips_and_cuts_only_raise_bitstream_errors(context_codec: Codec, digit: Image.Image) -> None:
    rng = np.random.default_rng(11)
    data = context_codec.compress(digit)
    header = data[: read_header(data).header_bytes]
    for number in range(2000):
        noise = rng.bytes(int(rng.integers(0, 200)))
        with pytest.raises(BitstreamError):
            context_codec.decompress((b"", b"\x93OHM\x01", header)[number % 3] + noise)
    for _ in range(2000):
        flipped = bytearray(data)
        position = int(rng.integers(0, 8 * len(data)))
        flipped[position // 8] ^= 1 << position % 8
        with pytest.raises(BitstreamError):
            context_codec.decompress(bytes(flipped))
    for length in range(len(data)):
        with pytest.raises(BitstreamError):
            context_codec.decompress(data[:length])


def test_payloads_under_right_checksums_decode_or_are_refused(context_codec: Codec, digit: Image.Image) -> None:
    """Past the checksums: an attacker's payload gives some picture or a BitstreamError, nothing else."""
    rng = np.random.default_rng(12)
    file = read_ohm(context_codec.compress(digit, layers=1))
    for fixed_rate in (False, True):
        for _ in range(100):
            layer = ohmq.bitstream.format.Layer(6, rng.bytes(int(rng.integers(0, 80))))
            forged = ohmq.bitstream.format.OhmFile(file.model_id, 28, 28, True, fixed_rate, (layer,))
            try:
                assert context_codec.decompress(ohmq.bitstream.writer.write_ohm(forged)).size == (28, 28)
            except BitstreamError:
                pass


def test_configs_are_what_the_tests_think() -> None:
    assert CONFIGS["context"].group_sizes == (2, 2, 2)
    assert CONFIGS["static"].group_sizes == (5,)
