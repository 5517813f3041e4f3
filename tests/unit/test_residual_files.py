"""Files with a residual: what all channels lack."""

import dataclasses
import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.small_models import make_codec, photo_picture

import ohmq
import ohmq.pillow_plugin
from ohmq.bitstream.format import FLAG_RESIDUAL, ExtraType, Layer, OhmFile, ResidualInfo
from ohmq.bitstream.psnr_table import psnr_table
from ohmq.bitstream.reader import read_header, read_ohm
from ohmq.bitstream.truncate import truncate_ohm
from ohmq.bitstream.writer import write_ohm
from ohmq.cli import cli
from ohmq.codec import Codec
from ohmq.encoder.options import EncodeOptions
from ohmq.encoder.residual import STEPS
from ohmq.errors import BitstreamError, ConfigError, ModelMismatchError, UnreachableTargetError
from ohmq.metrics import Ssimulacra2, psnr_db

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


@pytest.fixture(scope="module")
def codec() -> Codec:
    return make_codec("photo")


@pytest.fixture(scope="module")
def shipped() -> Codec:
    return ohmq.load("photo")


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    with Image.open(PHOTOS / "chelsea.png") as image:
        return Image.fromarray(np.asarray(image.convert("RGB").crop((60, 40, 253, 200))))


def reached(codec: Codec, image: Image.Image, data: bytes) -> float:
    return psnr_db(np.asarray(image), np.asarray(codec.decompress(data)))


def test_targets_beyond_all_channels_are_met(shipped: Codec, photo: Image.Image) -> None:
    everything = shipped.compress(photo, channels=1000, tune="psnr")
    best = reached(shipped, photo, everything)
    for goal in (best + 2, 44.0):
        coded = shipped.compress_prepared(photo, EncodeOptions(psnr=goal))
        assert coded.channels == 1000 and coded.residual is not None
        assert goal <= reached(shipped, photo, coded.data) < goal + 0.5
        assert coded.psnr_db == pytest.approx(reached(shipped, photo, coded.data), abs=1e-9)
    score = Ssimulacra2(np.asarray(photo))
    assert 92 <= score.score(np.asarray(shipped.decompress(shipped.compress(photo, ssimulacra2=92)))) < 93
    for factor in (1.5, 3.0):
        limit = round(factor * len(everything))
        coded = shipped.compress_prepared(photo, EncodeOptions(max_bytes=limit))
        assert coded.residual is not None
        assert 0.93 * limit < len(coded.data) <= limit
    limit = len(coded.data)
    with_table = shipped.compress(photo, max_bytes=limit, psnr_table=True)
    assert 0.93 * limit < len(with_table) <= limit
    assert psnr_table(with_table)[-1] == pytest.approx(reached(shipped, photo, with_table), abs=0.011)
    with pytest.raises(UnreachableTargetError, match=r"with 1000 channels and the finest residual; 80 dB"):
        shipped.compress(photo, psnr=80)


def test_targets_within_reach_have_none(shipped: Codec, photo: Image.Image) -> None:
    for target in ({"psnr": 32}, {"bpp": 0.5}, {"quality": 100}, {"channels": 1000}, {"ssimulacra2": 50}, {}):
        assert read_header(shipped.compress(photo, **target)).residual is None


def test_finer_steps_cost_more_and_come_nearer(shipped: Codec, photo: Image.Image) -> None:
    coded = [shipped.compress_prepared(photo, EncodeOptions(residual=step)) for step in (16, 8, 4, 2, 1)]
    assert [one.residual for one in coded] == [16, 8, 4, 2, 1]
    sizes = [len(one.data) for one in coded]
    quality = [reached(shipped, photo, one.data) for one in coded]
    assert sizes == sorted(sizes) and quality == sorted(quality)
    assert quality[2] > 40
    assert quality[4] > 46
    assert list(STEPS) == sorted(set(STEPS), reverse=True)


def test_every_layer_is_an_image_and_the_table_says_how_good(shipped: Codec, photo: Image.Image) -> None:
    data = shipped.compress(photo, residual=4, layers="all", psnr_table=True)
    header, table = read_header(data), psnr_table(data)
    assert len(table) == len(header.layers) == len(shipped.cut_points) + 4
    images = list(shipped.decompress_progressive(data))
    np.testing.assert_array_equal(np.asarray(images[-1]), np.asarray(shipped.decompress(data)))
    for image, value in zip(images, table, strict=True):
        assert psnr_db(np.asarray(photo), np.asarray(image)) == pytest.approx(value, abs=0.011)
    assert list(table[-4:]) == sorted(table[-4:])
    ends = list(itertools.accumulate(layer.channels for layer in header.layers))
    for count in (len(ends), len(ends) - 2, len(ends) - 4, 3):
        cut = truncate_ohm(data, num_layers=count)
        np.testing.assert_array_equal(np.asarray(shipped.decompress(cut)), np.asarray(images[count - 1]))
        limited = shipped.decompress(data, channels=ends[count - 1])
        np.testing.assert_array_equal(np.asarray(limited), np.asarray(images[count - 1]))
    early = shipped.decompress(data[:-40], allow_truncated=True)
    np.testing.assert_array_equal(np.asarray(early), np.asarray(images[-2]))
    assert len(truncate_ohm(data, psnr=table[-2])) < len(data)


def test_the_residual_corrects_the_fast_decoder(shipped: Codec, photo: Image.Image) -> None:
    data = shipped.compress(photo, residual=6)
    assert read_header(data).residual.decoder_id == shipped.frozen.decoder_ids["fast"]
    for decoder in shipped.decoders:
        np.testing.assert_array_equal(
            np.asarray(shipped.decompress(data, decoder=decoder)), np.asarray(shipped.decompress(data))
        )
    base = {name: np.asarray(shipped.decompress(data, channels=1000, decoder=name)) for name in shipped.decoders}
    assert (base["fast"] != base["best"]).any()


def test_the_decoder_that_files_refer_to_is_still_there(shipped: Codec) -> None:
    """Files with a residual name this decoder. Another "fast" must leave it in the model, under another name."""
    assert bytes.fromhex("60f38d03") in shipped.frozen.decoder_ids.values()


def test_all_ways_of_decoding_agree(shipped: Codec, photo: Image.Image) -> None:
    files = [shipped.compress(photo, residual=5), shipped.compress(photo, residual=5, tile=4, layers="all")]
    whole = [np.asarray(shipped.decompress(data)) for data in files]
    for image, expected in zip(shipped.decompress_batch(files), whole, strict=True):
        np.testing.assert_array_equal(np.asarray(image), expected)
    plain = Codec(shipped.frozen, compiled=False)
    for data, expected in zip(files, whole, strict=True):
        assert plain.decode(data)[1].sha256(1192) == shipped.decode(data)[1].sha256(1192)
        difference = np.abs(np.asarray(plain.decompress(data), int) - expected)
        assert (difference > 1).mean() < 1e-3  # rounding tips the class of single pixels in the post-filter
        assert (difference > 0).mean() < 0.02
        assert shipped.decompress(data, scale=8).size == (25, 20)
    assert np.abs(whole[0].astype(int) - whole[1]).mean() < 2


def test_hashes_tell_residuals_apart(codec: Codec) -> None:
    image = photo_picture(40, 50, 3)
    coded = [codec.compress_prepared(image, EncodeOptions(residual=step), hash_symbols=True) for step in (8, 8.125, 30)]
    assert len({one.symbols_sha256 for one in coded}) == 3
    for one in coded:
        file, symbols = codec.decode(one.data)
        assert symbols.sha256(file.num_channels) == one.symbols_sha256
    limited = codec.compress_prepared(image, EncodeOptions(max_bytes=9000), hash_symbols=True)
    assert limited.residual is not None
    file, symbols = codec.decode(limited.data)
    assert symbols.sha256(file.num_channels) == limited.symbols_sha256
    assert symbols.sha256(codec.num_channels) == symbols._replace(residual=None).sha256(codec.num_channels)


def test_transparency_and_metadata_stay(codec: Codec) -> None:
    image = photo_picture(40, 50, 4).convert("RGBA")
    mask = Image.radial_gradient("L").resize(image.size).point(lambda value: 255 * (value < 150))
    image.putalpha(mask)
    data = codec.compress(image, psnr=40, psnr_table=True)
    assert {extra.type for extra in read_header(data).extras} == {ExtraType.ALPHA, ExtraType.PSNR}
    decoded = codec.decompress(data)
    np.testing.assert_array_equal(np.asarray(decoded)[..., 3], np.asarray(mask))
    visible = np.asarray(mask) > 0
    assert psnr_db(np.asarray(image)[visible][..., :3], np.asarray(decoded)[visible][..., :3]) >= 40


def test_large_images_go_window_by_window(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    image = photo_picture(100, 90, 5)
    data = codec.compress(image, residual=6, tile=3)
    whole = np.asarray(codec.decompress(data))
    monkeypatch.setattr("ohmq.runtime.windowed.WINDOW", 2)
    monkeypatch.setattr("ohmq.encoder.residual.WINDOW", 2)
    assert np.abs(np.asarray(codec.decompress(data), int) - whole).max() <= 1
    again = codec.compress(image, residual=6, tile=3)
    assert abs(len(again) - len(data)) < 0.02 * len(data)


def test_bad_input_is_one_clear_error(shipped: Codec, photo: Image.Image) -> None:
    data = shipped.compress(photo, residual=8)
    file = read_ohm(data)
    assert data[5] & FLAG_RESIDUAL
    assert write_ohm(file) == data
    other = write_ohm(dataclasses.replace(file, residual=ResidualInfo(64, b"else")))
    with pytest.raises(ModelMismatchError, match="corrects the decoder 656c7365, .* decode 1000 channels"):
        shipped.decompress(other)
    assert shipped.decompress(other, channels=1000).size == photo.size
    with pytest.raises(BitstreamError, match="more channels than the 1000 of photo"):
        shipped.decompress(write_ohm(dataclasses.replace(file, residual=None)))
    joined = OhmFile(
        file.model_id, file.width, file.height, False, False, (Layer(1192, b"xy"),), residual=file.residual
    )
    with pytest.raises(BitstreamError, match="a layer of the file has channels of photo and of a residual"):
        shipped.decompress(write_ohm(joined))
    long = dataclasses.replace(file, layers=(*file.layers, Layer(1, b"")))
    with pytest.raises(BitstreamError, match="more channels than the 1192 of photo"):
        shipped.decompress(write_ohm(long))
    for residual, words in (
        (ResidualInfo(7, b"abcd"), "step of 7"),
        (ResidualInfo(2048, b"abcd"), "step of 2048"),
        (ResidualInfo(9, b"abc"), "decoder id has 4 bytes"),
    ):
        with pytest.raises(ValueError, match=words):
            write_ohm(dataclasses.replace(file, residual=residual))
    with pytest.raises(ValueError, match="residual of a grey"):
        write_ohm(dataclasses.replace(file, grey=True))
    for step in (0.9, 256, float("nan")):
        with pytest.raises(ValueError, match="its step must be 1 to 255"):
            EncodeOptions(residual=step)
    with pytest.raises(ValueError, match="none at a fixed rate"):
        EncodeOptions(residual=4, fixed_rate=True)
    with pytest.raises(ConfigError, match="residual is 4: mnist-ohm is no photo model"):
        ohmq.load("mnist-ohm").compress(Image.new("L", (28, 28)), residual=4)


def test_the_command_line_and_pillow(tmp_path: Path, photo: Image.Image) -> None:
    photo.save(tmp_path / "photo.png")
    run = CliRunner().invoke
    result = run(cli, ["compress", str(tmp_path / "photo.png"), "--residual", "4"])
    assert result.exit_code == 0, result.output
    assert "all channels, residual with steps of 4" in result.output
    target = tmp_path / "photo.ohm"
    shown = run(cli, ["info", str(target)]).output
    assert "after the model's channels a residual: steps of 4 grey levels" in shown
    assert '"residual": {' in run(cli, ["info", "--json", str(target)]).output
    assert run(cli, ["decompress", str(target), "-o", str(tmp_path / "back.png")]).exit_code == 0
    with Image.open(tmp_path / "back.png") as image:
        back = np.asarray(image)
    assert psnr_db(np.asarray(photo), back) > 40
    refused = run(cli, ["compress", str(tmp_path / "photo.png"), "--residual", "4", "-q", "80", "-o", "x.ohm"])
    assert refused.exit_code == 2 and "only one of" in refused.output
    stream = io.BytesIO()
    photo.save(stream, "OHM", residual=4)
    with Image.open(stream) as image:
        assert psnr_db(np.asarray(image), back) > 50  # the encoder's choices differ where numba is left out


def test_without_torch_the_same_files_decode(codec: Codec, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    from ohmq.model_files.export_onnx import export_onnx

    export_onnx(codec.frozen, tmp_path / "model")
    other = ohmq.load(tmp_path / "model", runtime="onnx")
    image = photo_picture(50, 70, 3)
    data = codec.compress(image, residual=4)
    one, two = (np.asarray(each.decompress(data), int) for each in (codec, other))
    assert np.abs(one - two).max() <= 1
    assert codec.decompress(other.compress(image, psnr=42)).size == image.size
