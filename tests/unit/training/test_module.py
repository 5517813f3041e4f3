"""The parts that the modules of all stages share: a run that diverges stops."""

import math

import pytest
import torch
from torch import nn

from ohmq.errors import ConfigError
from ohmq.training import module
from ohmq.training.module import TrainingModule
from ohmq.training.options import TrainOptions


def watched(**options: float) -> TrainingModule:
    return TrainingModule(TrainOptions(**options), 10, 1e-3, "constant")  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_the_run_unless_its_step_is_left_out(loss: float) -> None:
    with pytest.raises(ConfigError, match=r"diverged at step 0: the loss is (nan|inf); .*smaller learning rate"):
        watched().watch_loss(torch.tensor(loss))
    watched(clip_norm=1.0).watch_loss(torch.tensor(loss))


def test_a_mean_loss_that_rises_stops_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WATCHED_STEPS", 4)
    stage = watched()
    stage.recent_losses = module.deque(maxlen=4)
    for value in (1.0, 0.5, 0.5, 0.5, 0.5, 30.0, 0.5, 0.5, 0.5, 0.5, 4.0, 4.0, 4.0):
        if value == 30.0:
            continue
        stage.watch_loss(torch.tensor(value))
    with pytest.raises(ConfigError, match="the mean loss of 4 steps rose from 0.5 to 7"):
        stage.watch_loss(torch.tensor(16.0))


def test_weights_that_are_not_finite_stop_the_run_before_a_checkpoint() -> None:
    stage = watched()
    stage.layer = nn.Linear(2, 2)
    stage.on_train_epoch_end()
    with torch.no_grad():
        stage.layer.bias[1] = math.nan
    with pytest.raises(ConfigError, match=r"layer.bias is not finite"):
        stage.on_train_epoch_end()
