"""The encoder tuned for looks: other symbols, the same decoder."""

import dataclasses
import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from support.small_models import make_codec, photo_picture

import ohmq.pillow_plugin  # noqa: F401 (registers the format)
from ohmq.bitstream.reader import read_header
from ohmq.cli.compress import command
from ohmq.codec import Codec
from ohmq.encoder.options import EncodeOptions
from ohmq.encoder.tuning import (
    LEAST_ENERGY,
    LEAST_LUMINANCE,
    SMALLEST_LAMBDA,
    TUNINGS,
    PoorRange,
    Tuning,
    luma_energy,
    luminance,
    sensitivity,
    without_poor_ends,
)
from ohmq.errors import ConfigError
from ohmq.evaluation.bd_rate import bd_rate
from ohmq.evaluation.evaluate import CodedImage, evaluate_images
from ohmq.loading import load
from ohmq.metrics import ms_ssim, psnr_db
from ohmq.models.block_frequencies import block_frequencies
from ohmq.models.config import BLOCK, GREY_LEVELS
from ohmq.models.photo import block_filters

PHOTOS = Path(__file__).parents[3] / "examples" / "photos"


@pytest.fixture(scope="module")
def codec() -> Codec:
    return load("photo")


@pytest.fixture(scope="module")
def crop() -> Image.Image:
    with Image.open(PHOTOS / "chelsea.png") as image:
        return image.convert("RGB").crop((100, 60, 292, 252))


def test_it_trades_squared_error_for_structure(codec: Codec, crop: Image.Image) -> None:
    """Fewer bits at equal MS-SSIM, more at equal PSNR."""
    original = np.asarray(crop)
    curves: dict[str, list[Any]] = {}
    for tune in ("psnr", "visual"):
        files = [codec.compress(crop, channels=n, tune=tune) for n in codec.cut_points[8::2]]
        decoded = np.stack([np.asarray(codec.decompress(data)) for data in files])
        x, y = (images.transpose(0, 3, 1, 2) for images in (np.broadcast_to(original, decoded.shape), decoded))
        similarity = -10 * np.log10(1 - ms_ssim(x, y))
        curves[tune] = [[*map(len, files)], [psnr_db(original, image) for image in decoded], similarity]
    (bits, psnr, similar), (visual_bits, visual_psnr, visual_similar) = curves["psnr"], curves["visual"]
    assert bd_rate(bits, similar, visual_bits, visual_similar).percent < -1.5
    assert 0 < bd_rate(bits, psnr, visual_bits, visual_psnr).percent < 8


def test_the_default_depends_on_the_target(codec: Codec, crop: Image.Image) -> None:
    small = crop.crop((0, 0, 48, 32))

    def coded(**options: Any) -> tuple[bytes, bytes, bytes]:
        return tuple(codec.compress(small, **options, **tune) for tune in ({}, {"tune": "visual"}, {"tune": "psnr"}))  # type: ignore[return-value]

    for options in ({"quality": 70}, {"channels": 402}, {"max_bytes": 300}):
        default, visual, psnr = coded(**options)
        assert default == visual != psnr
    default, visual, psnr = coded(psnr=28.0)
    assert default == psnr != visual
    assert codec.encode(codec.latent(small), 402, layers=1) == codec.compress(small, channels=402)
    assert codec.latent(small, tune="psnr").weights is None
    saved = io.BytesIO()
    small.save(saved, "OHM", channels=402, tune="psnr")
    assert saved.getvalue() == codec.compress(small, channels=402, tune="psnr")


def test_weights_are_those_of_the_parts_in_tiles_and_batches(codec: Codec, crop: Image.Image) -> None:
    """The activity of a place is compared with the whole image, however it is coded."""
    whole, tiled = (codec.latent(crop, tile=tile) for tile in (0, 5))
    assert whole.weights is not None and tiled.weights is not None
    assert tiled.weights.places == pytest.approx(whole.weights.places, rel=1e-3)
    data = codec.compress(crop, channels=269, tile=5)
    assert data != codec.compress(crop, channels=269, tile=5, tune="psnr")
    other = np.asarray(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    images = [("one", np.asarray(crop)), ("two", other)]
    for tune in ("psnr", "visual"):
        coded: list[CodedImage] = []
        evaluate_images(codec, images, [269], tune=tune, on_coded=coded.append)  # type: ignore[arg-type]
        assert [item.data for item in coded] == [
            codec.compress(pixels, channels=269, tune=tune) for _, pixels in images
        ]


def test_energy_is_the_variance_of_luma() -> None:
    block, _ = block_filters(256 * 3)
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (BLOCK, BLOCK)).astype(np.float64)
    pixels = np.stack([grey] * 3)
    latent = (block.numpy().reshape(len(block), -1) @ pixels.ravel() / GREY_LEVELS).astype(np.float32)
    assert luma_energy(latent[None, None])[0, 0] == pytest.approx(3 * grey.var(), rel=1e-4)
    assert luma_energy(np.zeros((2, 3, 40), np.float32)).tolist() == [[0] * 3] * 2


def test_luminance_is_that_of_the_mean_colour() -> None:
    codec = load("photo")
    for level in (0, 40, 128, 200, 255):
        latent = codec.latent(Image.new("RGB", (64, 64), (level,) * 3), effort=0)
        assert luminance(latent.values[0]) == pytest.approx((level / 255) ** 2.2, abs=0.04)


def test_weights_by_channel_and_place() -> None:
    filters = block_frequencies(40)
    project = -2 * np.eye(40, dtype=np.float32)
    weights = Tuning(frequency_exponent=0.5).channel_weights(project)
    for number, item in enumerate(filters):
        assert weights[number] == pytest.approx(sensitivity(item) ** -0.5)
    luma = [weights[number] for number, item in enumerate(filters) if item.component == 0]
    assert luma == sorted(luma)  # low frequencies come first
    assert weights[0] < 0.4 < 1 < Tuning(frequency_exponent=0.5).channel_weights(np.eye(320)[299:])[0]
    assert Tuning().channel_weights(project).tolist() == [1] * 40
    codec = make_codec("photo")
    latent = codec.latent(photo_picture(64, 96, 3), tune="psnr")
    weighted = TUNINGS["visual"].apply(latent, codec.transforms.quantizer["project"])
    assert weighted.weights is not None
    assert np.log(weighted.weights.places).mean() == pytest.approx(0, abs=1e-5)
    energy, light = luma_energy(latent.values[0]) + LEAST_ENERGY, luminance(latent.values[0]) + LEAST_LUMINANCE
    expected = energy**0.5 * light**0.25
    assert weighted.weights.places == pytest.approx(expected / np.exp(np.log(expected).mean()), rel=1e-4)
    assert energy.max() > 2 * energy.min()
    assert light.max() > 2 * light.min()
    assert TUNINGS["psnr"].apply(weighted, codec.transforms.quantizer["project"]).weights is None


def test_what_has_no_rdoq_is_refused(crop: Image.Image) -> None:
    digits = make_codec("context")
    with pytest.raises(ConfigError, match=r"tune is visual: context is no photo model with RDOQ; leave it out"):
        digits.compress(Image.new("L", (28, 28)), tune="visual")
    assert digits.compress(Image.new("L", (28, 28)), tune="psnr") == digits.compress(Image.new("L", (28, 28)))
    with pytest.raises(ValueError, match="with a fixed rate"):
        EncodeOptions(tune="visual", fixed_rate=True)
    with pytest.raises(ValueError, match="tune is 'fine'; it must be psnr or visual"):
        EncodeOptions(tune="fine")  # type: ignore[arg-type]


def test_numbers_of_channels_that_look_poor_are_avoided(codec: Codec, crop: Image.Image) -> None:
    """Sizes and qualities between the ends of a poor range are met by λ."""
    image = crop.crop((0, 0, 128, 96))
    ranges = TUNINGS["visual"].poor_ranges(codec.model_id)
    poor = ranges[1]
    start, middle, end = (len(codec.compress(image, channels=count)) for count in poor[:3])
    for limit in (middle, (middle + end) // 2):
        visual = codec.compress(image, max_bytes=limit)
        assert max(start, 0.95 * limit) <= len(visual) <= limit
        assert sum(layer.channels for layer in read_header(visual).layers) in (poor.start, poor.end)
    found = {}
    for quality in range(50, 76, 3):
        options = EncodeOptions(quality=quality, effort=0)
        coded, plain = (
            codec.compress_prepared(image, dataclasses.replace(options, tune=tune))  # type: ignore[arg-type]
            for tune in ("visual", "psnr")
        )
        found[plain.channels] = coded.channels, len(coded.data)
    assert any(poor.start < count < poor.end for count in found)
    for count, (chosen, _) in found.items():
        assert chosen == without_poor_ends(count, ranges)[0]
    sizes = [size for _, (_, size) in sorted(found.items())]
    assert all(one <= 1.02 * two for one, two in itertools.pairwise(sizes))


def test_what_stands_for_a_poor_number_of_channels() -> None:
    ranges = [PoorRange(10, 20, 40, 6), PoorRange(50, 60, 70, 9), PoorRange(80, 80, 90, 3)]
    for count in (1, 10, 40, 45, 50, 70, 80, 90, 99):
        assert without_poor_ends(count, ranges) == (count, 1)
    assert without_poor_ends(15, ranges) == (10, (1 + SMALLEST_LAMBDA) / 2)
    assert without_poor_ends(20, ranges) == (10, SMALLEST_LAMBDA)
    assert without_poor_ends(30, ranges) == (40, (1 + 6) / 2)
    assert without_poor_ends(69, ranges) == (70, pytest.approx(1 + (9 - 1) / 10))
    assert without_poor_ends(81, ranges) == (90, pytest.approx(1 + (3 - 1) * 0.9))
    other = make_codec("photo")
    assert TUNINGS["visual"].poor_ranges(other.model_id) == ()
    assert TUNINGS["psnr"].poor_ranges(bytes.fromhex("cf07d25e")) == ()


def test_command_line(tmp_path: Path) -> None:
    digit = str(Path(__file__).parents[3] / "examples" / "digits" / "digit_3_a.png")
    found = CliRunner().invoke(command, [digit, "-m", "mnist-ohm", "--tune", "visual", "-o", str(tmp_path / "x.ohm")])
    assert found.exit_code == 2
    assert "tune is visual: mnist-ohm is no photo model with RDOQ; leave it out" in found.output
    assert not any(tmp_path.iterdir())
