"""A training step of a photo model queues its work on an accelerator and does not wait for a result."""

from typing import Any

import pytest
import torch
from support.photo_modules import make_photo_module
from support.small_models import make_photo_model
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ohmq.models.quantizers import directional
from ohmq.training import module
from ohmq.training.photo.module import PhotoModule

DEVICE = torch.device("meta")
"""Its tensors have no values: all that reads one raises an error."""


class NoWaiting(TorchDispatchMode):
    """Refuse copies to the device that wait for the work that is queued there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        moves = func is torch.ops.aten._to_copy.default and kwargs.get("device") == DEVICE
        if moves and args[0].device != DEVICE and not kwargs.get("non_blocking"):
            raise AssertionError(f"a copy of {tuple(args[0].shape)} that waits")
        return func(*args, **kwargs)


class NoConstants(TorchFunctionMode):
    """Refuse constants that torch copies to the device out of sight of dispatch modes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and torch.device(kwargs.get("device") or "cpu") == DEVICE:
            raise AssertionError("a constant made on the device")
        if func is torch.Tensor.new_tensor and args[0].device == DEVICE:
            raise AssertionError("a constant made on the device")
        return func(*args, **kwargs)


def test_a_training_step_does_not_wait_for_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PhotoModule, "log", lambda *_, **__: None)
    monkeypatch.setattr(PhotoModule, "log_dict", lambda *_, **__: None)
    stage = make_photo_module(crop_size=128, perceptual=0.6)
    stage.draw_channels = lambda batch: torch.tensor([24, 9, 3][:batch])  # type: ignore[method-assign]
    assert stage.averaged is not None
    stage.averaged.update_parameters(stage.model)
    stage.to(DEVICE)
    batch = torch.empty(3, 3, 128, 128, device=DEVICE)
    with NoConstants(), NoWaiting():
        for _ in range(module.READ_EVERY - 1):
            loss = stage.training_step(batch, 0)
        loss.backward()
        stage.averaged.update_parameters(stage.model)
    assert stage.model.quantizer.project.grad.shape == stage.model.quantizer.project.shape
    with pytest.raises((RuntimeError, NotImplementedError)):  # now the losses are read
        stage.training_step(batch, 0)


def test_blocks_of_another_size_choose_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = make_photo_model(), torch.rand(2, 3, 64, 64)
    results = []
    for elements in (2**28, 500):
        monkeypatch.setattr(directional, "SCALAR_BLOCK_ELEMENTS", elements)
        results.append(model(model.normalise(images), torch.tensor([24, 11])))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_a_step_is_left_out_on_the_device() -> None:
    stage = make_photo_module(learning_rate=0.1)
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight], 0.1, fused=True)
    for bad in (False, True, False):
        weight.grad = torch.full((3,), float("nan") if bad else 1.0)
        before = weight.detach().clone()
        stage.leave_out(optimizer, torch.tensor(bad))
        optimizer.step()
        assert torch.equal(weight, before) == bad
    assert int(stage._left_out) == 1  # type: ignore[arg-type]
    assert int(optimizer.state[weight]["step"]) == 2


def test_losses_are_read_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = make_photo_module()
    seen: list[float] = []
    monkeypatch.setattr(stage, "_watch", lambda loss, step: seen.append(loss))
    for value in (3.0, 1.0, 2.0):
        stage.watch_loss(torch.tensor(value))
    assert seen == [3.0, 1.0, 2.0]
