"""Validation of training options."""

import pytest

from ohmq.errors import ConfigError
from ohmq.models import MnistConfig
from ohmq.training.options import TrainOptions


def test_warm_starts_and_growing_need_their_quantizer() -> None:
    with pytest.raises(ConfigError, match="residual quantization"):
        TrainOptions(model=MnistConfig(), grow_epochs=2)
    with pytest.raises(ConfigError, match="residual quantization"):
        TrainOptions(model=MnistConfig(), initialisation="vector")
    with pytest.raises(ConfigError, match="without residual quantization"):
        TrainOptions(model=MnistConfig(residual_quantization=True), initialisation="scalar")
