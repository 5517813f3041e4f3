"""The photo model: its initialisation, its integer prior, its codec."""

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.reference_decoder import ReferenceRangeDecoder, context_frequencies, tile_payloads, tile_places
from support.small_models import PHOTO as SMALL
from support.small_models import make_codec, make_photo_model, photo_design
from support.small_models import photo_picture as make_image

from ohmq.bitstream.reader import read_ohm
from ohmq.codec import Codec
from ohmq.entropy import tabulated_prior as frozen_choice
from ohmq.entropy.layers import KnownSymbols, encode_layers
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior
from ohmq.errors import BitstreamError, ConfigError, ModelFileError
from ohmq.evaluation.verify import verify_layers
from ohmq.model_files.freeze import freeze, thaw
from ohmq.model_files.frozen_model import load_model, save_model
from ohmq.model_files.integer_prior import integer_prior
from ohmq.models import PhotoConfig, PhotoIntegerModel, PhotoModel, build_model, config_from_dict
from ohmq.models.photo import block_filters
from ohmq.training.photo.initialise import (
    PhotoDesign,
    design_photo_codec,
    initialise_integer_model,
    initialise_photo_model,
)


@pytest.fixture(scope="module")
def design() -> PhotoDesign:
    return photo_design()


@pytest.fixture(scope="module")
def model() -> PhotoModel:
    return make_photo_model()


@pytest.fixture(scope="module")
def codec(model: PhotoModel) -> Codec:
    return Codec(freeze(model, "photo"))


def test_the_block_transform_is_orthonormal() -> None:
    filters, chosen = block_filters(768)
    product = filters.flatten(1) @ filters.flatten(1).T
    assert torch.allclose(product, torch.eye(768), atol=1e-5)
    assert chosen[0] == (0, 0, 0)
    assert len(set(chosen)) == 768


def test_blocks_are_put_back_as_a_transposed_convolution_does() -> None:
    synthesis = build_model(SMALL).synthesis_transform  # its convolutions give nothing yet
    latent = torch.randn(2, SMALL.latent_channels, 3, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = torch.nn.functional.conv_transpose2d(latent, synthesis.block, stride=16)
        assert torch.allclose(synthesis(latent), expected, atol=1e-5)
    assert expected.shape == (2, 3, 48, 80)


def test_the_start_orders_passes_by_what_they_save(design: PhotoDesign) -> None:
    config = design.config
    assert config.channels_max == len(design.passes) == sum(config.groups)
    assert config.cuts[-1] == config.channels_max
    assert (design.rates_bpp.diff() > 0).all()
    assert (design.lambdas.diff() >= 0).all()
    start = 0
    for size in config.groups:  # a second pass over a coefficient needs the first
        coefficients = [p.coefficient for p in design.passes[start : start + size]]
        assert len(set(coefficients)) == size
        start += size


def test_the_started_model_codes_better_with_more_channels(design: PhotoDesign) -> None:
    model = build_model(design.config)
    assert isinstance(model, PhotoModel)
    initialise_photo_model(model, design)
    image = torch.from_numpy(np.asarray(make_image(160, 96, 50)).copy()).permute(2, 0, 1)[None] / 255
    errors, bits = [], []
    with torch.no_grad():
        for count in (2, 6, 12, 24):
            output = model(model.normalise(image), torch.tensor([count]))
            errors.append(float((model.denormalise(output.reconstruction) - image).square().mean()))
            bits.append(float(output.bits[0]))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 3
    assert bits == sorted(bits)


def test_coding_reconstructs_what_training_saw(model: PhotoModel) -> None:
    model = copy.deepcopy(model)
    model.quantizer.bit_price.zero_()  # RDOQ is tested in encoder/test_rdoq.py
    image = torch.from_numpy(np.asarray(make_image(64, 80, 7)).copy()).permute(2, 0, 1)[None] / 255
    images = model.normalise(image)
    symbols = model.symbols(images)
    for count in (1, 5, 24):
        with torch.no_grad():
            seen = model.denormalise(model(images, torch.tensor([count])).reconstruction).clamp(0, 1)
        assert torch.allclose(model.reconstruct(symbols, count), seen, atol=2e-4)
    with torch.no_grad():  # images may stand in any order of active channels
        ascending = model(images.expand(3, -1, -1, -1), torch.tensor([1, 24, 5]))
        descending = model(images.expand(3, -1, -1, -1), torch.tensor([24, 5, 1]))
    assert torch.equal(ascending.reconstruction[[1, 2, 0]], descending.reconstruction)
    assert torch.equal(ascending.bits[[1, 2, 0]], descending.bits)


def test_images_of_a_batch_may_use_different_channels(model: PhotoModel) -> None:
    images = torch.stack([torch.from_numpy(np.asarray(make_image(64, 64, seed)).copy()) for seed in range(5)])
    images = model.normalise(images.permute(0, 3, 1, 2) / 255)
    active = torch.tensor([24, 11, 5, 5, 1])
    with torch.no_grad():
        together = model(images, active)
        for i, count in enumerate(active):
            alone = model(images[i : i + 1], count[None])
            assert torch.allclose(together.reconstruction[i], alone.reconstruction[0], atol=1e-4)
            assert float(together.bits[i]) == pytest.approx(float(alone.bits[0]), rel=1e-4)


def test_every_parameter_gets_a_gradient(model: PhotoModel) -> None:
    trained = build_model(model.config)
    trained.load_state_dict(model.state_dict())
    image = torch.from_numpy(np.asarray(make_image(64, 64, 8)).copy()).permute(2, 0, 1)[None] / 255
    images = trained.normalise(image)
    output = trained(images, torch.tensor([24]))
    (output.bits.sum() + 100 * (output.reconstruction - images).square().mean()).backward()
    for name, parameter in trained.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    for name in (
        "quantizer.project",
        "quantizer.centres",
        "quantizer.values",
        "prior.own",
        "prior.logits",
        "prior.spatial",
        "prior.neighbours.weight",
        "prior.neighbours.bias",
        "prior.neighbours.out",
    ):
        assert trained.get_parameter(name).grad.abs().sum() > 0, name  # type: ignore[union-attr]


def test_files_round_trip_at_every_cut(codec: Codec) -> None:
    image = make_image(70, 90, 4)
    symbols = codec.analyse(image)
    assert symbols.values.shape == (1, 5, 6, 24)
    data = codec.encode(symbols, 24)
    file, decoded = codec.decode(data)
    assert np.array_equal(decoded.values, symbols.values)
    assert [layer.channels for layer in file.layers] == np.diff((0, *codec.cut_points)).tolist()
    before = 0.0
    for count in codec.cut_points:
        part = codec.decompress(data, channels=count)
        assert np.array_equal(part, codec.synthesise(symbols, count))
        psnr = -10 * np.log10(np.square(np.asarray(part) / 255 - np.asarray(image) / 255).mean())
        assert psnr > before - 0.5
        before = psnr
    for length in range(0, len(data), 7):
        with pytest.raises(BitstreamError):
            codec.decompress(data[:length])


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 15), (500, 3)])
def test_odd_sizes_and_grey_images(codec: Codec, size: tuple[int, int]) -> None:
    image = make_image(size[1], size[0]).convert("L")
    decoded = codec.decompress(codec.compress(image, fraction=0.5))
    assert (decoded.size, decoded.mode) == (size, "RGB")


def test_the_integer_prior_follows_the_trained_one(codec: Codec, model: PhotoModel) -> None:
    model = copy.deepcopy(model)
    model.quantizer.bit_price.zero_()  # RDOQ is tested in encoder/test_rdoq.py
    image = make_image(128, 128, 12)
    symbols = codec.analyse(image)
    ideal = encode_layers(codec.prior, KnownSymbols(symbols.values[None]), [(24,)], measure=True).ideal_bits.sum()
    images = model.normalise(torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None] / 255)
    with torch.no_grad():
        bits = float(model(images, torch.tensor([24])).bits)
        flat = float(model(images * 0, torch.tensor([24])).bits)
    assert ideal == pytest.approx(bits, rel=0.01)
    assert abs(flat - bits) > 0.1 * bits  # images differ, so the agreement says something


def test_threads_and_layers_do_not_change_a_byte(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    symbols = codec.analyse(make_image(64, 64, 9))
    expected = codec.encode(symbols, 24)
    assert np.array_equal(codec.decode(codec.encode(symbols, 24, layers=1))[1].values, symbols.values)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(before, 2))
        assert np.array_equal(codec.analyse(make_image(64, 64, 9)).values, symbols.values)
        assert codec.encode(symbols, 24) == expected
    finally:
        torch.set_num_threads(before)
    monkeypatch.setattr("ohmq.entropy.tabulated_prior.RUN_SYMBOLS", 20)
    monkeypatch.setattr("ohmq.entropy.tabulated_prior.CHUNK_ROWS", 3)
    assert codec.encode(symbols, 24) == expected


def test_tables_are_kept_once_whatever_the_size_and_the_layers(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    prior = codec.prior
    assert isinstance(prior, IntegerTabulatedPrior)
    monkeypatch.setattr(frozen_choice, "RUN_SYMBOLS", 24)  # small images are coded in runs of several lengths
    for width in (16, 64, 112):
        symbols = codec.analyse(np.full((48, width, 3), 90, np.uint8))
        for layers in (1, 3):
            data = codec.encode(symbols, codec.num_channels, layers=layers)
            assert np.array_equal(codec.decode(data)[1].values, symbols.values)
    assert sum(table.nbytes for table in prior._tables.values()) == sum(
        4 * alphabet * (512 if channel < prior.num_checkerboard_channels else 128)
        for channel, alphabet in enumerate(prior.alphabets)
    )


def test_images_coded_together_give_the_bytes_of_each_alone(codec: Codec) -> None:
    symbols = np.stack([codec.analyse(make_image(48, 64, seed)).values for seed in range(3)])
    cuts = codec.cut_points
    for plans in ([cuts, cuts[2:4]], [(24,), (3, 9, 24), (5,)]):
        check_plans(codec, symbols, plans)


def check_plans(codec: Codec, symbols: NDArray[np.int64], plans: Sequence[Sequence[int]]) -> None:
    encoded = encode_layers(codec.prior, KnownSymbols(symbols), plans)
    for plan, ends in enumerate(plans):
        for i, payloads in enumerate(encoded.payloads[plan]):
            assert encode_layers(codec.prior, KnownSymbols(symbols[i : i + 1]), [ends]).payloads[0][0] == payloads
    assert (verify_layers(codec.prior, symbols, plans, encoded.payloads) > 0).all()
    wrong = [[[*layers[:-1], layers[-1][:-3] + b"abc"] for layers in images] for images in encoded.payloads]
    with pytest.raises(BitstreamError, match="image"):
        verify_layers(codec.prior, symbols, plans, wrong)


def test_the_twin_with_integer_rounding_starts_well_and_codes(design: PhotoDesign, tmp_path: Path) -> None:
    config = PhotoConfig(
        quantizer="integer", prior="static", residual_quantization=False, channels_max=12, latent_channels=12, num_symbols=64,
        wide=8, wider=12,
    )  # fmt: skip
    photos = torch.stack([torch.from_numpy(np.asarray(make_image(128, 128, seed)).copy()) for seed in range(8)])
    photos = photos.permute(0, 3, 1, 2) / 255
    found = design_photo_codec(photos, config)
    twin = build_model(found.config)
    assert isinstance(twin, PhotoIntegerModel)
    initialise_integer_model(twin, found, photos)
    twin.eval()
    with torch.no_grad():
        output = twin(twin.normalise(photos[:1]), torch.tensor([12]))
    assert float(output.bits) / 64 == pytest.approx(float(found.rates_bpp[-1]) * 256, rel=0.3)
    codec = Codec(freeze(twin, "twin"))
    save_model(codec.frozen, tmp_path / "twin.safetensors")
    codec = Codec(load_model(tmp_path / "twin.safetensors"))
    data = codec.compress(make_image(50, 60, 3), layers="all")
    assert np.array_equal(codec.decode(data)[1].values, codec.analyse(make_image(50, 60, 3)).values)
    errors = []
    for count in codec.cut_points[::3]:
        decoded = np.asarray(codec.decompress(data, channels=count)).astype(float)
        errors.append(np.square(decoded - np.asarray(make_image(50, 60, 3))).mean())
    assert errors == sorted(errors, reverse=True)
    with pytest.raises(ConfigError, match="no photo model with OHM"):
        thaw(codec.frozen)
    for wrong in ({"channels_max": 10}, {"quantizer": "none"}, {"quantizer": "ohm"}):
        with pytest.raises(ConfigError):
            dataclasses.replace(config, **wrong)


def test_a_reloaded_model_codes_the_same(codec: Codec, tmp_path: Path) -> None:
    save_model(codec.frozen, tmp_path / "photo.safetensors")
    again = Codec(load_model(tmp_path / "photo.safetensors"))
    assert again.model_id == codec.model_id
    image = make_image(48, 48, 1)
    data = codec.compress(image)
    assert again.compress(image) == data
    assert np.array_equal(again.decompress(data), codec.decompress(data))


def test_large_weights_survive_the_file(tmp_path: Path) -> None:
    model = make_photo_model()
    assert model.prior is not None
    with torch.no_grad():
        model.prior.own[0, 0, 3] = 9  # no int16
    frozen = freeze(model, "large")
    save_model(frozen, tmp_path / "large.safetensors")
    again = load_model(tmp_path / "large.safetensors")
    assert again.tensors["prior.own"].dtype == np.int32
    for key, value in frozen.tensors.items():
        assert np.array_equal(again.tensors[key], value), key


def test_training_goes_on_from_a_model_file(codec: Codec, model: PhotoModel) -> None:
    thawed = thaw(codec.frozen)
    image = model.normalise(torch.from_numpy(np.asarray(make_image(64, 96, 5)).copy()).permute(2, 0, 1)[None] / 255)
    expected, found = model(image, torch.tensor([24])), thawed(image, torch.tensor([24]))
    assert found.bits.item() == pytest.approx(expected.bits.item(), rel=0.01)
    assert (
        found.reconstruction - expected.reconstruction
    ).square().mean() < 1e-3  # a symbol may differ: half precision
    found.bits.sum().backward()
    assert thawed.quantizer.project.grad is not None
    assert np.abs(encode_bits(Codec(freeze(thawed, "again"))) - encode_bits(codec)) < 0.01 * encode_bits(codec)
    with pytest.raises(ConfigError, match="no photo model"):
        thaw(make_codec("static").frozen)


def encode_bits(codec: Codec) -> float:
    symbols = codec.analyse(make_image(64, 64, 3)).values[None]
    return float(encode_layers(codec.prior, KnownSymbols(symbols), [(24,)], measure=True).ideal_bits.sum())


def test_a_second_implementation_decodes_an_image(codec: Codec) -> None:
    symbols = codec.analyse(make_image(48, 32, 2)).values[0]
    payload = encode_layers(codec.prior, KnownSymbols(symbols[None, None]), [(codec.num_channels,)]).payloads[0][0][0]
    assert len(check_by_the_page(codec, symbols, payload)) > 20  # the context did choose


def test_a_second_implementation_decodes_an_image_in_tiles(codec: Codec) -> None:
    symbols = codec.analyse(make_image(48, 64, 2), tile=3)
    payload = read_ohm(codec.encode(symbols, codec.num_channels, layers=1)).layers[0].payload
    places = tile_places(3, 4, 3)
    parts = tile_payloads(payload, len(places))
    assert [part.stop - part.start for _, part in places] == [3, 1]
    for (rows, columns), part in zip(places, parts, strict=True):
        check_by_the_page(codec, symbols.values[0, rows, columns], part)


def check_by_the_page(codec: Codec, symbols: NDArray[np.integer], payload: bytes) -> set[tuple[int, int]]:
    """Decode all channels with plain Python integers, from section 8 of the format page; the levels that were used."""
    height, width, _ = symbols.shape
    tensors = {name: value.tolist() for name, value in codec.prior.tensors.items()}
    decoder = ReferenceRangeDecoder(payload)
    places = [(i, j) for i in range(height) for j in range(width)]
    chosen = set()
    y = {place: [0] * codec.prior.directions.shape[1] for place in places}

    def cut(value: int, low: int, high: int) -> int:
        return min(max(value, low), high)

    def product(row: list[int], x: list[int], bias: int = 0) -> int:
        return sum(a * b for a, b in zip(row, x, strict=True)) + bias

    def spatial(c: int, place: tuple[int, int], known: dict[tuple[int, int], int], number: int) -> list[int]:
        offsets = ((-1, -1), (-1, 1), (1, -1), (1, 1)) if number == 1 else ((-1, 0), (1, 0), (0, -1), (0, 1))
        near = [known[n] for n in ((place[0] + a, place[1] + b) for a, b in offsets) if n in known]
        share = 12 // len(near)
        mean = sum(near) * share // 12
        magnitude = sum(map(abs, near)) * share // 12
        deviation = sum(abs(n - mean) for n in near) * share // 12
        phi = [256, *(cut(x, -2048, 2048) for x in (mean, magnitude, deviation))]
        four = [cut(known.get((place[0] + a, place[1] + b), 0), -2048, 2048) for a, b in offsets]
        weight, bias, out = (tensors[f"neighbour.{name}"][c][number - 1] for name in ("weight", "bias", "out"))
        hidden = [cut(product(row, four, b) >> 12, 0, 2048) for row, b in zip(weight, bias, strict=True)]
        return [product(tensors["spatial"][c][number - 1][k], phi) + product(out[k], hidden) for k in (0, 1)]

    config = codec.config
    assert isinstance(config, PhotoConfig)
    assert config.checkerboard_groups < len(config.groups)
    assert len(set(config.alphabets)) > 1
    assert codec.prior.live[1] < codec.prior.live[2] < codec.prior.directions.shape[1]  # early groups see few
    channel = 0
    for group, size in enumerate(codec.prior.group_sizes):
        raw = {place: [[(0, 0)] * 2 for _ in range(size)] for place in places}
        if group:
            v = {place: [value >> 12 for value in y[place]] for place in places}
            weight, bias = (tensors[f"projection.{group}.{name}"] for name in ("weight", "bias"))
            p = {place: [product(r, v[place], b) >> 12 for r, b in zip(weight, bias, strict=True)] for place in places}
            own = {
                place: [product(tensors["project"][c], v[place]) >> 12 for c in range(channel, channel + size)]
                for place in places
            }
            nothing, none = [0] * len(weight), [0] * size
            for i, j in places:
                x = [value for a in (-1, 0, 1) for b in (-1, 0, 1) for value in p.get((i + a, j + b), nothing)]
                for layer in range(3):
                    weight, bias = (tensors[f"network.{group}.{layer}.{name}"] for name in ("weight", "bias"))
                    x = [product(row, x, b) for row, b in zip(weight, bias, strict=True)]
                    x = [(max(value, 0) if layer < 2 else value) >> 12 for value in x]
                near = [own.get(place, none) for place in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1))]
                for c in range(size):
                    o, around = own[i, j][c], [n[c] for n in near]
                    phi = [
                        min(abs(o), 512),
                        min(sum(map(abs, around)) >> 2, 512),
                        cut(o, -256, 256),
                        cut(sum(around) >> 2, -256, 256),
                    ]
                    raw[i, j][c] = [(x[2 * c + k], product(tensors["own"][channel + c][k], phi)) for k in (0, 1)]
        checkerboard = group < config.checkerboard_groups
        passes = {(i, j): ((0, 2), (2, 1))[i % 2][j % 2] if checkerboard else 0 for i, j in places}
        seen: dict[int, dict[tuple[int, int], int]] = {c: {} for c in range(channel, channel + size)}
        bounds = sorted({channel, channel + size, *(n for n in config.cuts if channel < n < channel + size)})
        order = [(number, c) for a, b in itertools.pairwise(bounds) for number in range(3) for c in range(a, b)]
        for number, c in order:
            known = dict(seen[c])
            for i, j in (place for place in places if passes[place] == number):
                added = spatial(c, (i, j), known, number) if number else [0, 0]
                first, second = (
                    (x + ((o + a) >> 12) + 32) >> 6 for (x, o), a in zip(raw[i, j][c - channel], added, strict=True)
                )
                first, second = cut(first, -8, 7), cut(second, -16, 15) if checkerboard else cut(second, -4, 3)
                chosen.add((first, second))
                alphabet = config.alphabets[group]
                logits = [
                    logit + first * f[0] + second * f[1]
                    for logit, f in zip(tensors["logits"][c][:alphabet], tensors["features"][c][:alphabet], strict=True)
                ]
                symbol = decoder.symbol(context_frequencies(logits, tensors["exp2"]))
                assert symbol == symbols[i, j, c], (i, j, c)
                if checkerboard:
                    seen[c][i, j] = tensors["places"][c][symbol]
        for c in range(channel, channel + size):
            for i, j in places:
                value = tensors["values"][c][symbols[i, j, c]]
                y[i, j] = [a + value * b for a, b in zip(y[i, j], tensors["directions"][c], strict=True)]
        channel += size
    return chosen


def test_impossible_priors_are_refused(codec: Codec) -> None:
    tensors = dict(codec.prior.tensors)
    with pytest.raises(ValueError, match="groups"):
        IntegerTabulatedPrior(tensors, (24, 1), (9, 9))
    huge = {**tensors, "values": np.full(tensors["values"].shape, 2**30, np.int32)}
    huge["project"] = np.full(tensors["project"].shape, 2**30, np.int32)
    with pytest.raises(ValueError, match="exact integers"):
        IntegerTabulatedPrior(huge, codec.config.group_sizes, codec.config.group_symbols, 2)
    with pytest.raises(ValueError, match="checkerboard"):
        IntegerTabulatedPrior(tensors, codec.config.group_sizes, codec.config.group_symbols, 1)
    fewer = {**tensors, "neighbour.out": tensors["neighbour.out"][..., 1:]}
    with pytest.raises(ValueError, match="networks of 4 checkerboard channels"):
        IntegerTabulatedPrior(fewer, codec.config.group_sizes, codec.config.group_symbols, 2)
    without = {key: value for key, value in tensors.items() if not key.startswith("neighbour")}
    with pytest.raises(ModelFileError, match="networks of 0 hidden units, not 3"):
        integer_prior("this", codec.config, without)


def test_configurations() -> None:
    config = dataclasses.replace(SMALL, groups=(4, 20), cuts=(3, 24))
    assert config_from_dict(config.to_dict()) == config
    assert (config.group_sizes, config.cut_points) == ((4, 20), (3, 24))
    assert not dataclasses.replace(SMALL, quantizer="integer", prior="static", latent_channels=24).supports_rdoq
    larger = dataclasses.replace(config, analysis_blocks=(4, 5), neighbour_hidden=7)
    assert config_from_dict(larger.to_dict()) == larger
    unstated = ("analysis_blocks", "synthesis_blocks", "neighbour_hidden", "priced")
    older = {key: value for key, value in larger.to_dict().items() if key not in unstated}
    first = config_from_dict(older)
    assert isinstance(first, PhotoConfig)
    assert (first.analysis_blocks, first.synthesis_blocks, first.neighbour_hidden) == ((2, 3), (2, 3), 0)
    assert not first.supports_rdoq
    assert first.to_dict() == older  # so models that were made before keep their id
    alphabets = dataclasses.replace(SMALL, groups=(4, 20), alphabets=(9, 3), checkerboard_groups=1)
    assert config_from_dict(alphabets.to_dict()) == alphabets
    assert alphabets.group_symbols == (9, 3)
    assert config.group_symbols == (9, 9)
    for wrong in ({"alphabets": (9,)}, {"groups": (24,), "alphabets": (4,)}, {"groups": (24,), "alphabets": (11,)}):
        with pytest.raises(ConfigError, match="alphabets"):
            dataclasses.replace(SMALL, **wrong)
    with pytest.raises(ConfigError, match="checkerboard"):
        dataclasses.replace(SMALL, checkerboard_groups=2)
    quick = dataclasses.replace(config, distilled_channels=12, analysis_blocks=(0, 2))
    assert config_from_dict(quick.to_dict()) == quick
    with pytest.raises(ConfigError, match="no blocks at a quarter"):
        dataclasses.replace(config, distilled_channels=12, analysis_blocks=(1, 2))
    with pytest.raises(ConfigError, match="distilled_channels is -1"):
        dataclasses.replace(config, distilled_channels=-1)
    for wrong in ({"analysis_blocks": (2,)}, {"synthesis_blocks": (2, -1)}):
        with pytest.raises(ConfigError, match="two numbers of blocks"):
            dataclasses.replace(SMALL, **wrong)
    for wrong in (
        {"groups": (4, 4)},
        {"cuts": (5, 3, 24)},
        {"cuts": (5,)},
        {"latent_channels": 769},
        {"neighbour_hidden": 65},
    ):
        with pytest.raises(ConfigError):
            dataclasses.replace(SMALL, **wrong)
