"""Options of the encoder: validated once, for the Python call, the command line and the Pillow plugin alike."""

import inspect
import math

import numpy as np
import pytest
from support.small_models import make_codec

from ohmq.cli.compress import command
from ohmq.encoder.options import DEFAULT_EFFORT, DEFAULT_QUALITY, MAX_EFFORT, TARGETS, EncodeOptions
from ohmq.encoder.refine import PASSES
from ohmq.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bpp": 0.5, "channels": 3}, "at most one of"),
        ({"fraction": 0.5, "psnr": 30.0}, "at most one of"),
        ({"bpp": 0.0}, "bpp is 0.0; it must be positive"),
        ({"bpp": math.nan}, "bpp is nan"),
        ({"max_bytes": -1}, "max_bytes is -1"),
        ({"psnr": math.inf}, "psnr is inf"),
        ({"effort": 3}, "effort is 3; it must be 0 to 2"),
        ({"effort": -1}, "effort is -1"),
        ({"effort": 1, "fixed_rate": True}, "with a fixed rate"),
        ({"quality": 100.5}, "quality is 100.5; it must be 0 to 100"),
        ({"quality": -1}, "quality is -1"),
        ({"quality": math.nan}, "quality is nan"),
        (
            {"quality": 60, "bpp": 0.5},
            "at most one of quality, fraction, channels, bpp, max_bytes, psnr, ssimulacra2 and residual",
        ),
        ({"quality": 60, "fixed_rate": True}, "does not hold at a fixed rate"),
        ({"layers": 0}, "layers is 0; it must be a number from 1, or 'all'"),
        ({"layers": "some"}, "layers is 'some'"),
    ],
)
def test_impossible_options_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncodeOptions(**arguments)  # type: ignore[arg-type]


def test_targets_are_numbers() -> None:
    for name in TARGETS:  # such as quality="keep", which Pillow has for JPEG
        with pytest.raises(TypeError, match=f"{name} is 'keep'; it must be a number"):
            EncodeOptions(**{name: "keep"})  # type: ignore[arg-type]
        assert EncodeOptions(**{name: np.float32(1)}).has_target  # type: ignore[arg-type]


def test_options_are_merged() -> None:
    options = EncodeOptions(layers=3, effort=2)
    assert EncodeOptions.merge(options, {"layers": "all"}) == EncodeOptions(layers="all", effort=2)
    assert EncodeOptions.merge(None, {}) == EncodeOptions()
    with pytest.raises(TypeError, match="no option 'colour'; choose from quality, fraction, channels"):
        EncodeOptions.merge(None, {"colour": 90})
    with pytest.raises(ValueError, match="at most one"):
        EncodeOptions.merge(EncodeOptions(bpp=1.0), {"psnr": 30.0})


def test_effort_depends_on_the_model() -> None:
    assert len(PASSES) == MAX_EFFORT + 1
    photo, digits = make_codec("photo").config, make_codec("context").config
    assert EncodeOptions().effort_for(photo, "photo") == DEFAULT_EFFORT
    assert EncodeOptions(fixed_rate=True).effort_for(photo, "photo") == 0
    assert EncodeOptions(effort=0).effort_for(photo, "photo") == 0
    assert EncodeOptions().effort_for(digits, "digits") == 0
    with pytest.raises(ConfigError, match="digits is no photo model with RDOQ"):
        EncodeOptions(effort=1).effort_for(digits, "digits")


def test_quality_is_the_default_of_models_that_have_a_scale() -> None:
    assert EncodeOptions().quality_for(True, "photo") == DEFAULT_QUALITY
    assert EncodeOptions(quality=0).quality_for(True, "photo") == 0
    for other in (
        {"channels": 3},
        {"fraction": 0.0},
        {"bpp": 1.0},
        {"max_bytes": 9},
        {"psnr": 30.0},
        {"fixed_rate": True},
    ):
        assert EncodeOptions(**other).quality_for(True, "photo") is None  # type: ignore[arg-type]
    assert EncodeOptions().quality_for(False, "digits") is None
    with pytest.raises(ConfigError, match="quality is 60: digits has no quality scale; give channels"):
        EncodeOptions(quality=60).quality_for(False, "digits")


def test_one_layer_unless_asked() -> None:
    assert EncodeOptions().layer_limit() == 1
    assert EncodeOptions(layers=3).layer_limit() == 3
    assert EncodeOptions(layers="all").layer_limit() is None


def test_limits_in_bytes() -> None:
    assert EncodeOptions().byte_limit(100, 30) is None
    assert EncodeOptions(max_bytes=99).byte_limit(100, 30) == 99
    assert EncodeOptions(bpp=0.5).byte_limit(100, 30) == 187


def test_the_command_has_every_option() -> None:
    flags = {parameter.name for parameter in command.params}
    assert set(EncodeOptions.names()) <= flags
    assert set(EncodeOptions.names()) == set(inspect.signature(EncodeOptions).parameters)
