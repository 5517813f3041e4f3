"""Symbols that are chosen also by the bits that they cost."""

import copy
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_models import make_codec, make_photo_model, photo_picture

import ohmq
from ohmq.bitstream.psnr_table import psnr_table
from ohmq.bitstream.reader import read_header
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.codec import Codec
from ohmq.encoder.encoder import FileSettings
from ohmq.encoder.rate_control import LAMBDA_SCALES, search_psnr, search_size
from ohmq.entropy.layers import encode_layers
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior
from ohmq.errors import ConfigError, UnreachableTargetError
from ohmq.evaluation.bd_rate import bd_rate
from ohmq.evaluation.evaluate import evaluate_images
from ohmq.metrics import psnr_db
from ohmq.model_files.freeze import freeze, thaw
from ohmq.model_files.frozen_model import load_model, save_model
from ohmq.models import PhotoModel
from ohmq.runtime import windowed
from ohmq.runtime.latents import Latent

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture(scope="module")
def model() -> PhotoModel:
    return make_photo_model()


@pytest.fixture(scope="module")
def codec(model: PhotoModel) -> Codec:
    return Codec(freeze(model, "photo"))


@pytest.fixture(scope="module")
def shipped() -> Codec:
    return ohmq.load("photo")


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    with Image.open(Path(__file__).parents[3] / "examples" / "photos" / "chelsea.png") as image:
        return image.convert("RGB").crop((60, 40, 316, 232))


def test_with_lambda_zero_symbols_are_the_nearest(model: PhotoModel) -> None:
    free = copy.deepcopy(model)
    free.quantizer.bit_price.zero_()
    codec = Codec(freeze(free, "free"))
    image = photo_picture(70, 90, 3)
    latent, symbols = codec.latent(image, effort=0), codec.analyse(image)
    for count in (1, 9, 24):
        data = codec.encode(latent, count)
        assert np.array_equal(codec.decode(data)[1].values, symbols.values[..., :count])
        assert data == codec.encode(symbols, count)


@pytest.mark.parametrize("count", [3, 24])
def test_each_symbol_has_the_least_cost(codec: Codec, count: int) -> None:
    """Against the definition, symbol by symbol, with the tables that a decoder finds."""
    latent = codec.latent(photo_picture(64, 80, 4)).values[None]
    source = codec.encoder.refiner.rdoq(latent, count)
    encode_layers(codec.prior, source, [(count,)])
    symbols = source.symbols
    tensors = {key: value.astype(np.float64) for key, value in codec.transforms.quantizer.items()}
    prior = codec.prior
    assert isinstance(prior, IntegerTabulatedPrior)
    state = prior.begin(1, *latent.shape[2:4])
    rest = latent.reshape(-1, latent.shape[-1]).astype(np.float64)
    starts = np.cumsum([0, *prior.group_sizes])
    moved = 0
    while state.channel < count:
        start = state.channel
        values = symbols[start : start + state.channel_run(count - start)]
        group = int(np.searchsorted(starts, start, "right")) - 1
        taken = range(int(starts[group - 1]), int(starts[group])) if group and start == starts[group] else ()
        for c in taken:
            rest -= tensors["values"][c, symbols[c]][:, None] * tensors["directions"][c]
        for coding_step in state.coding_steps(1, len(values)):
            (rows,), (tables, index, _) = coding_step.rows, coding_step.tables(0)
            assert index is not None
            each = iter(tables[index])
            for c in range(start + coding_step.channels.start, start + coding_step.channels.stop):
                size = prior.alphabets[c]
                spacing = (tensors["values"][c, size // 2 + 1] - tensors["values"][c, size // 2 - 1]) / 2
                price = tensors["bit_price"][count - 1] / (np.square(tensors["directions"][c]).sum() * spacing)
                for row in rows:
                    distance = np.abs(rest[row] @ tensors["project"][c] - tensors["centres"][c, :size])
                    bits = 24 - np.log2(next(each).astype(np.float64) + 1)
                    cost = distance + price * bits
                    assert cost[symbols[c, row]] <= cost.min() + 1e-4
                    moved += int(distance[symbols[c, row]] > distance.min() + 1e-4)
            state.observe(coding_step, values)
        state.advance(values)
    assert moved > 3


def test_training_sees_what_is_coded(model: PhotoModel, codec: Codec) -> None:
    image = photo_picture(96, 96, 6)
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None] / 255
    for count in (2, 10, 24):
        with torch.no_grad():
            output = model(model.normalise(pixels), torch.tensor([count]))
        data = codec.encode(codec.latent(image, tune="psnr"), count, layers=1)
        assert 8 * read_header(data).layers[0].length == pytest.approx(float(output.bits[0]), rel=0.03, abs=16)
        seen = model.denormalise(output.reconstruction).clamp(0, 1).mul(255)[0].permute(1, 2, 0).numpy()
        decoded = np.asarray(codec.decompress(data), float)
        ours, theirs = (np.square(x - np.asarray(image)).mean() for x in (decoded, seen))
        assert ours == pytest.approx(theirs, rel=0.05)


def test_lambda_falls_with_the_channels_and_pays(codec: Codec, shipped: Codec, photo: Image.Image) -> None:
    assert (np.diff(codec.transforms.quantizer["bit_price"]) <= 0).all()
    curves = []
    for source in (shipped.analyse(photo), shipped.latent(photo, tune="psnr")):
        files = [shipped.encode(source, count, layers=1) for count in shipped.cut_points[::2]]
        quality = [psnr_db(np.asarray(photo), np.asarray(shipped.decompress(data))) for data in files]
        curves.append(([8 * len(data) / (photo.width * photo.height) for data in files], quality))
    assert bd_rate(*curves[0], *curves[1]).percent < -1


@pytest.mark.parametrize("limit_of_layers", ["all", 1, 3])
def test_sizes_are_kept(codec: Codec, limit_of_layers: Any) -> None:
    """The file fits, and is at least as large as any at a cut point or at the end of a group that does."""
    image = photo_picture(75, 100, 8)
    layers = None if limit_of_layers == "all" else limit_of_layers
    latent = codec.latent(image, effort=0)
    assert {*codec.cut_points} < {*codec.encoder.stops}
    files = {count: codec.encode(latent, count, layers=layers) for count in codec.encoder.stops}
    sizes = sorted(map(len, files.values()))
    smallest = len(codec.encode(latent._replace(lambda_scale=LAMBDA_SCALES[0]), codec.cut_points[0], layers=layers))
    for limit in (2 * sizes[-1], sizes[-1], sizes[-1] - 1, sizes[len(sizes) // 2], sizes[0], smallest):
        data = codec.compress(image, max_bytes=limit, layers=limit_of_layers, effort=0)
        assert max([size for size in sizes if size <= limit], default=smallest) <= len(data) <= limit
        found = search_size(codec.encoder, latent, limit, FileSettings(layers=layers))
        assert found.file == data == codec.encode(found.source, found.channels, layers=layers)
    with pytest.raises(
        UnreachableTargetError, match=rf"the smallest file .* has {smallest} bytes .* {smallest - 1} allo"
    ):
        codec.compress(image, max_bytes=smallest - 1, layers=limit_of_layers, effort=0)


def test_qualities_are_kept(shipped: Codec, photo: Image.Image) -> None:
    """The image is good enough, and no better than at the next cut point or end of a group."""
    latent = shipped.latent(photo, tune="psnr")

    def quality(count: int) -> float:
        return shipped.encoder.psnr_db(photo, shipped.encoder.symbols(latent, count), count)

    ends = quality(41), quality(269)
    for goal, most in ((1.0, quality(shipped.cut_points[0])), (ends[0], quality(64)), (ends[1] + 0.01, quality(290))):
        reached = search_psnr(shipped.encoder, photo, latent, goal)
        assert goal <= reached.reached <= most
        data = shipped.compress(photo, psnr=goal)
        assert psnr_db(np.asarray(photo), np.asarray(shipped.decompress(data))) == pytest.approx(reached.reached)
        assert data == shipped.encode(reached.source, reached.channels, layers=1)


def test_a_quality_that_bisection_misses(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    """PSNR need not rise with the channels: then they are tried in order, before it is said that nothing is good enough."""
    image = photo_picture(40, 50, 3)
    odd = codec.cut_points[1]
    monkeypatch.setattr(
        codec.encoder, "psnr_db", lambda image, symbols, channels: 40.0 if channels == odd else channels / 10
    )
    monkeypatch.setattr(codec.encoder, "residual_base", None)
    assert search_psnr(codec.encoder, image, codec.latent(image), 30).channels == odd
    assert search_psnr(codec.encoder, image, codec.analyse(image), 30).channels == odd
    with pytest.raises(UnreachableTargetError, match=rf"reaches 40.00 dB on this image, with {odd} channels; 50 dB"):
        search_psnr(codec.encoder, image, codec.latent(image), 50)


def test_a_table_of_psnr_counts(codec: Codec) -> None:
    image = photo_picture(75, 100, 8)
    limit = len(codec.compress(image, channels=16))
    data = codec.compress(image, max_bytes=limit, psnr_table=True)
    assert 0.8 * limit < len(data) <= limit
    table = psnr_table(data)
    assert len(table) == len(read_header(data).layers)
    assert table[-1] == pytest.approx(psnr_db(np.asarray(image), np.asarray(codec.decompress(data))), abs=0.01)


def test_targets_between_cut_points_are_met(shipped: Codec, photo: Image.Image) -> None:
    pixels = photo.width * photo.height
    latent = shipped.latent(photo)
    sizes = [len(shipped.encode(latent, count, layers=1)) for count in shipped.cut_points[7:11]]
    for below, above in itertools.pairwise(sizes):
        for limit in (int(0.7 * below + 0.3 * above), int(0.3 * below + 0.7 * above)):
            assert 0.92 * limit < len(shipped.compress(photo, bpp=8 * (limit + 0.5) / pixels)) <= limit
    for goal in (27.0, 29.25):
        data = shipped.compress(photo, psnr=goal)
        assert goal <= psnr_db(np.asarray(photo), np.asarray(shipped.decompress(data))) < goal + 0.25


def test_a_file_may_be_cut_and_in_tiles(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windowed, "WINDOW", 3)
    image = photo_picture(70, 113, 9)
    for tile in (0, 3):
        data = codec.compress(image, tile=tile, psnr_table=True, layers="all")
        latent = codec.latent(image, tile=tile)
        symbols = codec.encoder.symbols(latent, 24)
        assert np.array_equal(codec.decode(data)[1].values, symbols.values)
        short = truncate_ohm(data, num_layers=2)
        found = codec.decode(short)[1].values
        assert np.array_equal(found, symbols.values[..., : found.shape[-1]])
    assert (type(latent), latent.tile, latent.values.shape) == (Latent, 3, (1, 5, 8, 12))


def test_evaluation_is_of_the_files_that_compress_writes(codec: Codec) -> None:
    pixels = np.stack([np.asarray(photo_picture(48, 64, seed)) for seed in (1, 2)])
    rows = evaluate_images(codec, [("a", pixels[0]), ("b", pixels[1])], [0, 2, 11])
    for count in (2, 11):
        for row, image in zip(rows[count], pixels, strict=True):
            data = codec.compress(image, channels=count, layers=1)
            assert row.file_bpp == 8 * len(data) / (48 * 64)
            assert row.psnr_db == pytest.approx(psnr_db(image, np.asarray(codec.decompress(data))), abs=0.01)
    whole = codec.encode(codec.latent(pixels[0]), 24)
    for count, row in evaluate_images(codec, [("a", pixels[0])], [*codec.cut_points[::5], 24], cut=True).items():
        cut = truncate_ohm(whole, channels=count)
        assert row[0].psnr_db == pytest.approx(psnr_db(pixels[0], np.asarray(codec.decompress(cut))), abs=0.01)
        assert row[0].file_bpp == 8 * len(cut) / (48 * 64)
        assert row[0].payload_bpp == 8 * sum(layer.length for layer in read_header(cut).layers) / (48 * 64)
    inside = next(n for n in range(1, 24) if n not in codec.cut_points)
    with pytest.raises(ConfigError, match=f"cannot be cut at {inside} channels"):
        evaluate_images(codec, [("a", pixels[0])], [inside], cut=True)
    fixed = evaluate_images(codec, [("a", pixels[0])], [11], fixed_rate=True)[11][0]
    file = codec.compress(pixels[0], channels=11, layers=1, fixed_rate=True)
    assert fixed.file_bpp == 8 * len(file) / (48 * 64)


def test_models_without_rdoq(codec: Codec, tmp_path: Path) -> None:
    older = Codec(load_model(GOLDEN / "photo.safetensors"))
    assert not older.config.supports_rdoq
    image = photo_picture(40, 50, 1)
    assert np.array_equal(older.decode(older.compress(image))[1].values, older.analyse(image).values)
    with pytest.raises(ConfigError, match="does not support RDOQ: use analyse"):
        older.latent(image)
    with pytest.raises(ConfigError, match="does not support RDOQ"):
        make_codec("context").latent(Image.new("L", (28, 28)))
    with pytest.raises(ValueError, match="a fixed rate has no use for RDOQ"):
        codec.encode(codec.latent(image), 24, fixed_rate=True)
    save_model(codec.frozen, tmp_path / "again.safetensors")
    again = load_model(tmp_path / "again.safetensors")
    assert again.model_id == codec.model_id
    prices = thaw(again).quantizer.bit_price
    assert np.array_equal(prices.numpy(), codec.transforms.quantizer["bit_price"])
    assert dataclasses.replace(codec.config, supports_rdoq=False).to_dict().keys() < codec.config.to_dict().keys()


def test_layouts_that_need_more_than_one_pass(codec: Codec) -> None:
    latent = codec.latent(photo_picture(32, 32, 1)).values[None]
    odd = next(n for n in range(1, 24) if not codec.prior.aligned([n]))  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="RDOQ chooses symbols in a single pass"):
        encode_layers(codec.prior, codec.encoder.refiner.rdoq(latent, 24), [(odd, 24), (24,)])
