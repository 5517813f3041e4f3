"""The quality scale: errors of a probe, predicted scores, and what quality means for the pretrained photo model."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.small_models import make_codec, photo_picture

from ohmq.bitstream.reader import read_header
from ohmq.codec import Codec
from ohmq.encoder.options import DEFAULT_QUALITY, EncodeOptions
from ohmq.encoder.quality_scale import ProbeErrors, QualityScale, measure_probe
from ohmq.errors import ConfigError
from ohmq.metrics.fidelity import C1, C2
from ohmq.model_files.pretrained import pretrained_models, quality_table
from ohmq.runtime import windowed

RESULT = Path(__file__).parents[3] / "results" / "quality.json"


@pytest.fixture
def scale() -> QualityScale:
    return QualityScale(
        probe_channels=4,
        best_score=80.0,
        ranges=np.array([[-3.0, 0.0], [0.0, 6.0]]),
        channels=np.array([2, 4, 8, 16]),
        coefficients=np.array([[0.0, 0.0, 0.0], [20, 0, 0], [60, -10, 0], [50, -10, -5]]),
    )


def test_errors_of_a_probe() -> None:
    """A constant block that is off by a constant has the luminance term of SSIM alone; other parts count by their size."""
    original = np.full((3, 16, 32), 100, np.uint8)
    errors = measure_probe([(original, original + np.uint8(30)), (original[:, :, :16], original[:, :, :16])])
    luminance = (2 * 100 * 130 + C1) / (100**2 + 130**2 + C1)
    assert errors.squared == pytest.approx(900 * 2 / 3)
    assert errors.structure == pytest.approx(math.sqrt(1 - luminance) * 2 / 3, rel=1e-3)


def test_structure_is_that_of_cells() -> None:
    """Detail inside cells of 4x4 pixels does not count, the contrast between them does."""
    cells = np.kron(np.indices((4, 4)).sum(0) % 2, np.ones((4, 4))) * 80 + 60
    original = np.broadcast_to(cells.astype(np.uint8), (3, 16, 16))
    inside = original + np.indices((16, 16)).sum(0).astype(np.uint8) % 2 * 2 - 1
    assert measure_probe([(original, inside.astype(np.uint8))]).structure < 0.01
    errors = measure_probe([(original, np.full_like(original, 100))])
    assert errors.structure == pytest.approx(math.sqrt(1 - C2 / (1600 + C2)), rel=1e-3)


def test_the_least_number_of_channels_that_reaches_a_score(scale: QualityScale) -> None:
    errors = ProbeErrors(math.exp(-1), math.exp(2))  # predicted: 0, 20, 70, 50
    assert scale.predicted_scores(errors).tolist() == pytest.approx([0, 20, 70, 70])  # more channels never score less
    assert [scale.channel_count(q, errors) for q in (0, 25, 87.5, 100)] == [2, 4, 8, 16]
    assert scale.channel_count(12.5, errors) == 3
    assert scale.channel_count(99, errors) == 16  # out of its reach: all channels
    counts = [scale.channel_count(q, errors) for q in np.linspace(0, 100, 301)]
    assert counts == sorted(counts)


def test_errors_outside_of_the_calibration_are_clipped(scale: QualityScale) -> None:
    for far, near in (
        (ProbeErrors(0.0, 0.0), ProbeErrors(math.exp(-3), 1.0)),
        (ProbeErrors(9, 1e9), ProbeErrors(1, math.exp(6))),
    ):
        assert scale.predicted_scores(far).tolist() == scale.predicted_scores(near).tolist()


def test_quality_chooses_channels_of_one_layer(photo_codec: Codec, crop: Image.Image) -> None:
    prepared = photo_codec.prepare(crop)
    coded = [photo_codec.compress_prepared(prepared, EncodeOptions(quality=q)) for q in (0, 30, 60, 80, 95, 100)]
    assert all(a.channels < b.channels and len(a.data) < len(b.data) for a, b in itertools.pairwise(coded[:-1]))
    assert coded[-1].channels == photo_codec.num_channels
    for one in coded:
        assert [layer.channels for layer in read_header(one.data).layers] == [one.channels]
    for one in (coded[0], coded[-1]):  # the others avoid poor numbers of channels by λ
        assert one.data == photo_codec.compress(crop, channels=one.channels)
    assert photo_codec.compress_prepared(prepared, EncodeOptions()) == coded[3]._replace(quality=DEFAULT_QUALITY)
    assert len(read_header(photo_codec.compress(crop, layers="all")).layers) > 9


def test_harder_images_get_more_channels(photo_codec: Codec) -> None:
    flat, noise = Image.new("RGB", (64, 64), (90, 120, 30)), Image.effect_noise((64, 64), 90).convert("RGB")
    few, many = (photo_codec.compress_prepared(image, EncodeOptions(quality=60)).channels for image in (flat, noise))
    assert few < many


def test_quality_of_an_image_in_windows(photo_codec: Codec, crop: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe is measured window by window, with the same result up to rounding."""
    whole = photo_codec.compress_prepared(crop, EncodeOptions(quality=70)).channels
    monkeypatch.setattr(windowed, "WINDOW", 3)
    assert abs(photo_codec.compress_prepared(crop, EncodeOptions(quality=70, tile=4)).channels - whole) <= 1


def test_models_without_a_scale(digit: Image.Image) -> None:
    """All channels, unless asked; also of a photo model that was not calibrated."""
    for codec, image in ((make_codec("context"), digit), (make_codec("photo"), photo_picture(40, 40, 1))):
        assert codec.quality_scale is None
        assert codec.compress_prepared(codec.prepare(image), EncodeOptions()).channels == codec.num_channels
        with pytest.raises(ConfigError, match="quality is 50: .* has no quality scale"):
            codec.compress(image, quality=50)


def test_a_fixed_rate_has_all_channels(photo_codec: Codec, crop: Image.Image) -> None:
    assert photo_codec.compress_prepared(crop, EncodeOptions(fixed_rate=True)).channels == photo_codec.num_channels


def test_the_table_belongs_to_the_pretrained_model(photo_codec: Codec) -> None:
    table = quality_table(photo_codec.model_id)
    assert table is not None
    assert table["transforms_id"] == photo_codec.frozen.transforms_id.hex()  # calibrate again with other transforms
    assert tuple(point["channels"] for point in table["points"]) == photo_codec.cut_points
    assert table["best_score"] == pytest.approx(table["points"][-1]["mean_score"], abs=0.01)
    assert (pretrained_models()["photo"].parent / "photo.quality.json").exists()
    assert quality_table(b"none") is None


def test_equal_quality_looks_as_equal_as_with_jpeg_from_70_on() -> None:
    """On 47 photographs that calibration did not see, at the same mean score, by ``tools/calibrate_quality.py --check``."""
    result = json.loads(RESULT.read_text())
    jpeg = sorted((row["mean_score"], row["score_deviation"]) for row in result["JPEG"])
    compared = [row for row in result["ohmq"] if 70 <= row["quality"] < 100]
    assert result["images"] == 47 and len(compared) == 3
    for row in compared:
        assert row["score_deviation"] <= np.interp(row["mean_score"], *np.transpose(jpeg))
        assert row["mean_score"] == pytest.approx(row["quality"] / 100 * 75.78, abs=4)
