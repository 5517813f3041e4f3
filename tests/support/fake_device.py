"""A second device for machines without one: its tensors compute on the CPU, but refuse to meet tensors of the CPU."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

import ohmq.runtime.devices
import ohmq.runtime.torch_transforms

FAKE = torch.device("meta")
"""Name of the device; on it torch itself computes nothing, so that all numbers come from the double."""


class FakeTensor(torch.Tensor):
    """Tensor of the fake device around a tensor of the CPU."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "FakeTensor":
        made: FakeTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=FAKE,
            requires_grad=inner.requires_grad,
        )
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _inner(value: Any) -> Any:
    return value.inner if isinstance(value, FakeTensor) else value


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the CPU; its result is on the device of its arguments or on the one that it names."""
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
    fake = any(isinstance(value, FakeTensor) for value in tensors)
    moves = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
    strangers = [value for value in tensors if not isinstance(value, FakeTensor) and value.dim()]
    if fake and strangers and not moves:
        raise RuntimeError(f"{func}: tensors on two devices, {FAKE} and {strangers[0].device}")
    named = kwargs.get("device")
    if named is not None:
        fake = torch.device(named) == FAKE
        kwargs = kwargs | {"device": torch.device("cpu")}
    result = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if func is torch.ops.aten._local_scalar_dense.default or not fake:
        return result
    for before in tensors:  # operations in place return their argument
        if isinstance(before, FakeTensor) and result is before.inner:
            return before
    return tree_map(lambda value: FakeTensor(value) if isinstance(value, torch.Tensor) else value, result)


class FakeDevice(TorchDispatchMode):
    """While active, tensors can be made on the fake device and moved there and back."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        values = tree_flatten((args, kwargs or {}))[0]
        if any(isinstance(value, FakeTensor) for value in values):
            self.operations += 1
        return _run(func, args, kwargs or {})


class _Constants(TorchFunctionMode):
    """Makes constants on the fake device by a copy from the CPU, which torch does out of sight of dispatch modes."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.new_tensor and isinstance(args[0], FakeTensor):
            return torch.tensor(args[1], dtype=args[0].dtype).to(FAKE)
        if func is torch.tensor and kwargs.get("device") == FAKE:
            return func(*args, **kwargs | {"device": "cpu"}).to(FAKE)
        return func(*args, **kwargs)


@contextmanager
def fake_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDevice]:
    """Let codecs find the fake device under the name "meta"."""
    real: Callable[[], list[str]] = ohmq.runtime.devices.available_devices
    with monkeypatch.context() as patch, _Constants(), FakeDevice() as mode:
        patch.setattr(ohmq.runtime.devices, "available_devices", lambda: [*real(), "meta"])
        yield mode
