"""Configurations: fields, refusals and the arithmetic of channels."""

import dataclasses

import pytest

from ohmq.errors import ConfigError
from ohmq.models import MnistConfig, OpenImagesConfig, PhotoConfig, config_from_dict

CONFIGS = [
    MnistConfig(channels_max=4, num_symbols=5, residual_quantization=True),
    MnistConfig(channels_max=5, num_symbols=8, prior="context", context_group=2),
    MnistConfig(channels_max=4, num_symbols=16, quantizer="integer"),
    OpenImagesConfig(),
    PhotoConfig(),
    PhotoConfig(distilled_channels=8, analysis_blocks=(0, 2), supports_rdoq=False, groups=(400, 600)),
]


def test_configuration_round_trip_and_refusals() -> None:
    for config in CONFIGS:
        assert config_from_dict(config.to_dict()) == config
    with pytest.raises(ConfigError, match="unknown keys.*colour"):
        config_from_dict({"family": "mnist", "colour": 1})
    with pytest.raises(ConfigError, match="family 'vgg'"):
        config_from_dict({"family": "vgg"})
    for changes in (
        {"quantizer": "best"},
        {"prior": "none"},
        {"prior": "context", "quantizer": "integer"},
        {"channels_min": 9},
        {"channels_max": 0},
        {"num_symbols": 1},
        {"context_group": 0},
    ):
        with pytest.raises(ConfigError):
            dataclasses.replace(MnistConfig(channels_max=8), **changes)


def test_cut_points() -> None:
    assert MnistConfig(channels_max=16).cut_points == tuple(range(1, 17))
    assert MnistConfig(channels_max=5).cut_points == (1, 2, 3, 4, 5)
    many = MnistConfig(channels_max=40).cut_points
    assert len(many) == 16
    assert many[-1] == 40
    assert list(many) == sorted(set(many))


def test_names_on_disk() -> None:
    values = PhotoConfig(
        distilled_channels=8, analysis_blocks=(0, 2), checkerboard_groups=1, groups=(400, 600)
    ).to_dict()
    assert (values["family"], values["analysis_patches"], values["interlaced_groups"]) == ("photo", 8, 1)
    assert (values["priced"], values["refinement"]) == (True, True)
    assert "neighbour_hidden" in values  # not the value of the first models
    assert "neighbour_hidden" not in PhotoConfig(neighbour_hidden=0).to_dict()


def test_capabilities() -> None:
    digits, photo = MnistConfig(), PhotoConfig()
    twin = PhotoConfig(
        quantizer="integer", prior="static", residual_quantization=False, channels_max=320, latent_channels=320
    )
    assert (digits.supports_tiles, digits.supports_rdoq, digits.tabulated_prior) == (False, False, False)
    assert (photo.supports_tiles, photo.supports_rdoq, photo.tabulated_prior) == (True, True, True)
    assert (twin.supports_tiles, twin.supports_rdoq, twin.tabulated_prior) == (True, False, False)
    assert not PhotoConfig(supports_rdoq=False).supports_rdoq
    assert (digits.checkerboard_groups, digits.neighbour_hidden) == (0, 0)


def test_latent_grids() -> None:
    assert MnistConfig().latent_grid(60, 28) == (3, 3, 3)
    assert MnistConfig().num_patches(29, 57) == 6
    assert PhotoConfig().latent_grid(33, 17) == (1, 2, 3)


def test_layer_ends_and_channel_counts() -> None:
    config = MnistConfig(channels_max=8, channels_min=2)
    assert config.layer_ends(5) == (1, 2, 3, 4, 5)
    assert config.layer_ends(8, layers=2) == (4, 8)
    assert config.layer_ends(8, layers=99) == tuple(range(1, 9))
    assert [config.channels_for(fraction) for fraction in (0.0, 0.5, 1.0)] == [2, 5, 8]
    assert [config.channel_count(*pair) for pair in ((None, None), (0.5, None), (None, 3))] == [8, 5, 3]
    for pair, message in (((None, 9), "codes 1 to 8"), ((None, 0), "codes 1 to 8"), ((1.5, None), r"\[0, 1\]")):
        with pytest.raises(ValueError, match=message):
            config.channel_count(*pair)
    with pytest.raises(ValueError, match="stands for 0 channels"):
        MnistConfig(channels_max=8).channel_count(0.0, None)
    with pytest.raises(ValueError, match="at least 1"):
        config.layer_ends(8, layers=0)


def test_bitstream_fields_leave_transforms_out() -> None:
    config = PhotoConfig()
    for changes in ({"wide": 8}, {"synthesis_blocks": (0, 0)}, {"distilled_channels": 8, "analysis_blocks": (0, 1)}):
        assert dataclasses.replace(config, **changes).bitstream_fields() == config.bitstream_fields()
    for changes in ({"num_symbols": 15}, {"cuts": (5, 1000)}, {"checkerboard_groups": 1}, {"neighbour_hidden": 3}):
        assert dataclasses.replace(config, **changes).bitstream_fields() != config.bitstream_fields()
    assert MnistConfig().bitstream_fields()["geometry"] == [[28, 28, 3, 3]] * 2
    assert config.bitstream_fields()["geometry"] == [[16, 16, 1, 1], [112, 304, 7, 19]]
