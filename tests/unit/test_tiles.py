"""Large images in tiles, tried on small ones: small windows, small tiles."""

import copy
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_models import make_codec, photo_picture
from torch import nn

from ohmq import pillow_plugin
from ohmq.bitstream.format import OhmFile
from ohmq.bitstream.reader import read_header, read_ohm, split_tiles
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.bitstream.writer import join_tiles, write_ohm
from ohmq.codec import Codec
from ohmq.errors import BitstreamError, TruncatedFileError, UnreachableTargetError
from ohmq.geometry import Window, windows
from ohmq.loading import load
from ohmq.metrics import psnr_db
from ohmq.model_files.frozen_model import load_model
from ohmq.runtime import windowed
from ohmq.runtime.receptive_field import analysis_halo, synthesis_halo
from ohmq.utils.progress import watch


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec(load_model(Path(__file__).parents[1] / "golden" / "photo.safetensors"))


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windowed, "WINDOW", 3)


def same_picture(first: Image.Image, second: Image.Image) -> bool:
    return np.abs(np.asarray(first, int) - np.asarray(second, int)).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (16, 17), (70, 113), (49, 64), (2, 161), (160, 5)])
@pytest.mark.parametrize("tile", [1, 3, 256])
def test_symbols_and_pixels_are_those_of_one_piece(codec: Codec, size: tuple[int, int], tile: int) -> None:
    image = photo_picture(size[1], size[0], 5)
    one, tiled = codec.analyse(image), codec.analyse(image, tile=tile)
    assert tiled.values.dtype == np.uint8
    assert tiled.values.shape == one.values.shape
    assert np.mean(tiled.values != one.values) < 1e-3  # but for ties
    data = codec.encode(tiled, codec.num_channels)
    assert read_header(data).tile == tile
    file, decoded = codec.decode(data)
    assert np.array_equal(decoded.values, tiled.values)
    for channels in codec.cut_points[::3]:
        whole = codec.synthesise(one._replace(values=tiled.values.astype(np.int64)), channels)
        assert same_picture(codec.decompress(data, channels=channels), whole)
    assert file.num_channels == codec.num_channels


@pytest.mark.parametrize("size", [(70, 113), (2, 161)])
def test_filters_see_over_the_borders_of_windows(size: tuple[int, int]) -> None:
    codec = make_codec("filters")
    image = photo_picture(size[1], size[0], 5)
    one = codec.analyse(image)
    tiled = codec.synthesise(one._replace(tile=256), 24)
    assert same_picture(tiled, codec.synthesise(one, 24))
    assert codec.transforms.synthesis_halo >= make_codec("photo").transforms.synthesis_halo


def test_the_last_tiles_may_be_one_position_wide(codec: Codec) -> None:
    symbols = codec.analyse(photo_picture(65, 81, 1), tile=4)
    assert symbols.values.shape[1:3] == (5, 6)
    assert [place.shape for place in windows(5, 6, 4)] == [(4, 4), (4, 2), (1, 4), (1, 2)]
    assert np.array_equal(codec.decode(codec.encode(symbols, 24))[1].values, symbols.values)


def test_every_tile_is_coded_on_its_own(codec: Codec) -> None:
    """A tile's payload is that of an image that consists of the tile alone."""
    symbols = codec.analyse(photo_picture(96, 96, 2), tile=4)
    file = read_ohm(codec.encode(symbols, codec.num_channels))
    for number, place in enumerate(windows(6, 6, 4)):
        rows, columns = place.shape
        alone = symbols._replace(
            values=symbols.values[:, place.rows, place.columns], width=16 * columns, height=16 * rows, tile=0
        )
        expected = read_ohm(codec.encode(alone, codec.num_channels)).layers
        assert [split_tiles(layer.payload, 4)[number] for layer in file.layers] == [x.payload for x in expected]


@pytest.mark.parametrize("fixed_rate", [False, True])
def test_cutting_and_growing(codec: Codec, fixed_rate: bool) -> None:
    image = photo_picture(70, 50, 3)
    data = codec.compress(image, tile=2, fixed_rate=fixed_rate, layers="all")
    grown = list(codec.decompress_progressive(io.BytesIO(data)))
    assert len(grown) == len(codec.cut_points)
    for number, (channels, decoded) in enumerate(zip(codec.cut_points, grown, strict=True), start=1):
        cut = truncate_ohm(data, num_layers=number)
        assert cut == codec.compress(image, channels=channels, tile=2, fixed_rate=fixed_rate, layers="all")
        assert np.array_equal(codec.decompress(cut), decoded)
        assert np.array_equal(codec.decompress(data, channels=channels), decoded)
    before = codec.decompress(data, channels=codec.cut_points[-2])
    assert np.array_equal(codec.decompress(data[:-1], allow_truncated=True), before)
    with pytest.raises(TruncatedFileError):
        codec.decompress(data[:-1])


def test_targets(codec: Codec) -> None:
    image = photo_picture(70, 90, 4)
    files = [codec.compress(image, channels=point, tile=2) for point in codec.cut_points]
    sizes = [len(file) for file in files]
    assert codec.compress(image, max_bytes=sizes[5], tile=2) == files[5]
    assert codec.compress(image, max_bytes=sizes[5] - 1, tile=2) == files[4]
    assert codec.compress(image, bpp=8 * (sizes[3] + 0.5) / 6300, tile=2) == files[3]
    with pytest.raises(UnreachableTargetError, match=f"has {sizes[0]} bytes"):
        codec.compress(image, max_bytes=sizes[0] - 1, tile=2)
    shorter = codec.compress(image, max_bytes=sizes[5], tile=2, layers=2)
    assert len(read_ohm(shorter).layers) == 2
    assert len(shorter) <= sizes[5]
    reached = psnr_db(np.asarray(image), np.asarray(codec.decompress(files[4])))
    assert codec.compress(image, psnr=reached - 1e-9, tile=2) == files[4]
    with pytest.raises(UnreachableTargetError, match="out of its reach"):
        codec.compress(image, psnr=90, tile=2)


def test_large_images_are_tiled_by_default(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    image = photo_picture(64, 48, 6)
    assert read_header(codec.compress(image)).tile == 0
    before = codec.compress(image)
    monkeypatch.setattr(windowed, "TILE_ABOVE", 64 * 48)
    assert codec.compress(image) == before
    monkeypatch.setattr(windowed, "TILE_ABOVE", 64 * 48 - 1)
    assert read_header(codec.compress(image)).tile == 128
    assert codec.compress(image, tile=0) == before
    shown = codec.decompress(before)  # in one piece, but shown window by window
    monkeypatch.undo()
    assert same_picture(shown, codec.decompress(before))
    digits = make_codec("context")  # codes patches of its own size
    monkeypatch.setattr(windowed, "TILE_ABOVE", 0)
    assert read_header(digits.compress(Image.new("L", (40, 30)))).tile == 0


def _forged(file: OhmFile, payload: bytes) -> bytes:
    """With another payload of the first layer, under right checksums."""
    first = file.layers[0].__class__(file.layers[0].channels, payload)
    return write_ohm(OhmFile(**{**vars(file), "layers": (first, *file.layers[1:])}))


def test_damaged_byte_counts_are_refused(codec: Codec) -> None:
    data = codec.compress(photo_picture(70, 90, 4), tile=2, layers=2)
    file = read_ohm(data)
    payload = file.layers[0].payload
    parts = split_tiles(payload, 9)
    assert _forged(file, join_tiles(parts)) == data
    for wrong in (b"", payload[:5], payload[:-1], payload + b"0", b"\x80\x00" + payload[1:], b"\xff" * 5 + payload,
                  join_tiles(parts[:-1]), join_tiles([*parts, b""])):  # fmt: skip
        with pytest.raises(BitstreamError, match="tiles"):
            codec.decompress(_forged(file, wrong))
        with pytest.raises(BitstreamError, match="tiles"):
            list(codec.decompress_progressive(_forged(file, wrong)))
    fixed = read_ohm(codec.compress(photo_picture(70, 90, 4), tile=2, layers=2, fixed_rate=True))
    parts = split_tiles(fixed.layers[0].payload, 9)
    with pytest.raises(BitstreamError, match="expected"):
        codec.decompress(_forged(fixed, join_tiles([parts[0] + b"0", parts[1][:-1], *parts[2:]])))


def test_every_flipped_byte_count_is_noticed(codec: Codec) -> None:
    data = codec.compress(photo_picture(40, 40, 4), tile=2, layers=1)
    start = read_header(data).header_bytes
    for position in range(start, start + 4):
        damaged = bytearray(data)
        damaged[position] ^= 1
        with pytest.raises(BitstreamError):
            codec.decompress(bytes(damaged))


def test_absurd_sizes_are_refused_before_anything_is_allocated(codec: Codec) -> None:
    file = read_ohm(codec.compress(photo_picture(20, 20), tile=256, layers=1))
    huge = write_ohm(OhmFile(**{**vars(file), "width": 65536, "height": 65536}))
    for read in (codec.decompress, codec.decode, lambda data: next(codec.decompress_progressive(data))):
        with pytest.raises(BitstreamError, match="65536x65536 pixels, more than the limit"):
            read(huge)  # type: ignore[operator]
    with pytest.raises(BitstreamError, match="256 tiles"):
        codec.decompress(huge, max_pixels=2**32)


def test_wrong_tiles(codec: Codec) -> None:
    digits = make_codec("context")
    for wrong in (-1, 257):
        with pytest.raises(ValueError, match="1 to 256"):
            codec.compress(photo_picture(20, 20), tile=wrong)
    with pytest.raises(ValueError, match="patches of its own size"):
        digits.compress(Image.new("L", (28, 28)), tile=4)
    file = read_ohm(digits.compress(Image.new("L", (28, 28))))
    with pytest.raises(BitstreamError, match="tiles of 9 positions, which context does not do"):
        digits.decompress(write_ohm(OhmFile(**{**vars(file), "tile": 9})))


def test_windows_see_as_far_as_the_networks_do() -> None:
    """Of the shipped model: what is not a number spreads exactly as far as the halo."""
    model = load("photo").transforms.model
    middle = 8
    with torch.inference_mode():
        halo = analysis_halo(model.analysis_transform)
        pixels = torch.zeros(1, 3, 16 * 17, 16 * 17)
        pixels[..., 16 * middle : 16 * middle + 16, 16 * middle : 16 * middle + 16] = torch.nan
        hit = model.analysis_transform(pixels).isnan().any(1)[0]
        rows = hit.any(1).nonzero().ravel().tolist()
        assert rows == list(range(rows[0], rows[-1] + 1))
        assert max(middle - rows[0], rows[-1] - middle) == halo  # patches are not centred: one side sees less
        assert torch.equal(hit.any(0), hit.any(1))
        halo = synthesis_halo(model.synthesis_transform)
        latent = torch.zeros(1, model.config.latent_channels, 17, 17)  # type: ignore[attr-defined]
        latent[..., middle, middle] = torch.nan
        rows = model.synthesis_transform(latent).isnan().any(1)[0].any(1).nonzero().ravel() // 16
        assert (int(rows[0]), int(rows[-1])) == (middle - halo, middle + halo)


def test_a_layer_of_unknown_reach_is_refused() -> None:
    with pytest.raises(TypeError, match="AvgPool2d"):
        analysis_halo(nn.Sequential(nn.Conv2d(3, 3, 3), nn.AvgPool2d(2)))
    assert Window(4, 0, 8, 3).widened(2, 9, 9) == (2, 0, 9, 5)
    assert Window(4, 0, 8, 3).within(Window(2, 0, 9, 5)) == (2, 0, 6, 3)


def test_progress_is_reported_to_the_watcher(codec: Codec) -> None:
    told: list[tuple[str, int, int]] = []
    image = photo_picture(70, 60, 2)
    with watch(lambda *step: told.append(step)):
        data = codec.compress(image, tile=3)
        codec.decompress(data)
    codec.compress(image, tile=3)
    phases = ("analysis", "entropy coding", "entropy decoding", "image of 24 channels")
    assert told == [(phase, done, 4) for phase in phases for done in range(5)]


def test_pillow(codec: Codec, tmp_path: Path) -> None:
    pillow_plugin.register_model(codec)
    image = photo_picture(50, 40, 2)
    image.save(tmp_path / "a.ohm", model=codec, tile=2)
    data = (tmp_path / "a.ohm").read_bytes()
    assert data == codec.compress(image, tile=2)
    with Image.open(tmp_path / "a.ohm") as opened:
        assert (opened.size, opened.mode, opened.info["tile"]) == ((40, 50), "RGB", 2)
        assert np.array_equal(copy.copy(opened), codec.decompress(data))


def test_the_flag_is_where_the_page_says(codec: Codec) -> None:
    data = codec.compress(photo_picture(50, 40, 2), tile=130, layers=1)
    size = read_header(data).header_bytes
    assert data[5] == 8
    assert data[size - 6 : size - 4].hex() == "8201"
    assert data[size - 4 : size] == struct.pack(">I", zlib.crc32(data[: size - 4]))
