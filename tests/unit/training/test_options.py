"""Validation of training options."""

from pathlib import Path

import pytest

from ohmq.errors import ConfigError
from ohmq.experiments.catalogue import load_experiment
from ohmq.models import MnistConfig, OpenImagesConfig
from ohmq.training.fit import _check_same_run
from ohmq.training.options import TrainOptions, preset, recorded_options


def test_warm_starts_and_growing_need_their_quantizer() -> None:
    with pytest.raises(ConfigError, match="residual quantization"):
        TrainOptions(model=MnistConfig(), grow_epochs=2)
    with pytest.raises(ConfigError, match="residual quantization"):
        TrainOptions(model=MnistConfig(), initialisation="vector")
    with pytest.raises(ConfigError, match="without residual quantization"):
        TrainOptions(model=MnistConfig(residual_quantization=True), initialisation="scalar")


@pytest.mark.parametrize(("crop", "fitting"), [(1, 16), (8, 16), (50, 64), (257, 272)])
def test_crops_of_the_published_photo_network_are_whole_blocks(crop: int, fitting: int) -> None:
    with pytest.raises(ConfigError, match=f"crop_size is {crop}; .* choose {fitting}$"):
        TrainOptions(model=OpenImagesConfig(), initialisation="published", crop_size=crop)
    assert TrainOptions(model=OpenImagesConfig(), initialisation="published", crop_size=fitting).crop_size == fitting


def test_presets_are_the_published_trainings() -> None:
    for name, experiment in (("ohm", "openimages-ohm-c0-480"), ("int", "openimages-int-c0-480")):
        assert TrainOptions(**preset(f"openimages-{name}")) == load_experiment(experiment).options
    published = TrainOptions(**preset("mnist-published"))
    assert (published.epochs, published.batch_size, published.learning_rate) == (1000, 512, 1e-3)
    assert (published.warm_starts, published.schedule, published.weight_decay) == (False, "constant", 1e-5)


def test_options_that_older_releases_recorded_are_those_of_today() -> None:
    recorded = TrainOptions(initialisation="published").to_dict()
    del recorded["only"]
    recorded["num_workers"] = 0  # the default of a release before
    options = TrainOptions(initialisation="published", num_workers=None)
    _check_same_run(Path("last.ckpt"), "train", recorded_options(recorded), options)
    with pytest.raises(ConfigError, match="seed was 3, now 0"):
        _check_same_run(Path("last.ckpt"), "train", recorded_options({**recorded, "seed": 3}), options)
