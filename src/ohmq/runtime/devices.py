"""Devices of torch, and the state of torch in which a codec computes."""

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from ohmq.errors import ConfigError

__all__ = ["available_devices", "coding_state", "find_device", "has_bfloat16"]

CPU = torch.device("cpu")
EXACT = ("ieee", "none")
"""Names that torch has for float32 products without a loss of precision."""


def available_devices() -> list[str]:
    """List the devices that torch can use here: "cpu", then the accelerators, such as "cuda:0" or "mps:0"."""
    devices = ["cpu"]
    if torch.accelerator.is_available():
        accelerator = torch.accelerator.current_accelerator()
        assert accelerator is not None
        devices += [f"{accelerator.type}:{index}" for index in range(torch.accelerator.device_count())]
    return devices


def find_device(name: str) -> torch.device:
    """Find a device by name.

    Args:
        name: "cpu", "cuda", "cuda:1", "mps", or "auto": the first accelerator, and the CPU where there is none.

    Returns:
        The device, with its index; a type alone stands for its first device.

    Raises:
        ConfigError: no such device here; the message lists those that are there.
    """
    if name == "cpu":
        return CPU  # without looking for accelerators, after which some cannot be used in a forked process
    devices = available_devices()
    if name == "auto":
        return torch.device(devices[1] if len(devices) > 1 else "cpu")
    for device in devices:
        if name in (device, device.partition(":")[0]):
            return torch.device(device)
    raise ConfigError(f"no device {name!r} here; choose {' or '.join(['auto', *devices])}")


def has_bfloat16(cpu: bool) -> bool:
    """Check whether the hardware multiplies bfloat16.

    Args:
        cpu: ask about the processor, even where an accelerator is present.
    """
    if torch.cuda.is_available() and not cpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # missing in some supported releases of torch
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)


@contextlib.contextmanager
def coding_state(device: torch.device = CPU) -> Iterator[None]:
    """Compute as torch does by default, whatever the program around has set; its settings come back at the end.

    Autocast, the grad modes and the default device belong to a thread, and so does the change. Precision, cuDNN's choice of
    algorithms and the deterministic mode belong to the process: where they differ from what coding needs, other threads
    see the change while any thread codes. In a process that was forked, torch gets one thread, for good: those that it
    had before are not there any more, and it would wait for them for ever.

    Args:
        device: where the tensors are. Default: the CPU.

    Raises:
        ConfigError: the device has too little memory.
    """
    if _fork.is_child and torch.get_num_threads() > 1:
        torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        if torch.get_default_device() != CPU:
            stack.enter_context(CPU)
        if torch.amp.is_autocast_available(device.type):
            stack.enter_context(torch.autocast(device.type, enabled=False))
        stack.enter_context(_switches(device.type))
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise ConfigError(f"{device} has too little memory ({error}); choose the device cpu") from error


class _Switch(NamedTuple):
    """A setting of torch for the whole process."""

    get: Callable[[], Any]
    set: Callable[[Any], Any]
    wanted: tuple[Any, ...]


def _attribute(owner: Any, name: str, *wanted: Any) -> _Switch:
    return _Switch(lambda: getattr(owner, name), lambda value: setattr(owner, name, value), wanted)


class _SwitchHolder:
    """Holds switches of torch at the values that coding needs, from the first thread that codes to the last."""

    def __init__(self, switches: tuple[_Switch, ...]) -> None:
        self._switches = switches
        self.forget()

    def forget(self) -> None:
        """Start anew, as after a fork, when a thread that is not there any more may hold the lock."""
        self._lock, self._users = threading.Lock(), 0
        self._before: list[tuple[_Switch, Any]] = []

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                values = [(switch, switch.get()) for switch in self._switches]
                self._before = [(switch, value) for switch, value in values if value not in switch.wanted]
                for switch, _ in self._before:
                    switch.set(switch.wanted[0])

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                for switch, value in self._before:
                    switch.set(value)


@functools.cache
def _switches(device_type: str) -> _SwitchHolder:
    """Return the switches that change results on devices of a type."""
    backends: Any = torch.backends
    switches: list[_Switch] = []
    by_backend = hasattr(backends, "fp32_precision")  # since torch 2.9; reading the older switches then may fail
    if device_type == "cpu" and by_backend:
        switches += [
            _attribute(part, "fp32_precision", *EXACT) for part in (backends.mkldnn.matmul, backends.mkldnn.conv)
        ]
    elif device_type == "cuda":
        # Transposed convolutions have algorithms that give other sums each time.
        switches += [_attribute(backends.cudnn, "deterministic", True), _attribute(backends.cudnn, "benchmark", False)]
        # Forbids operations that have no deterministic algorithm, also those whose results cuDNN's switch makes so.
        switches += [_Switch(_deterministic, _set_deterministic, ((False, False), (False, True)))]
        if by_backend:
            parts = (backends.cuda.matmul, backends.cudnn.conv)
            switches += [_attribute(part, "fp32_precision", *EXACT) for part in parts]
        else:
            switches += [_attribute(backends.cudnn, "allow_tf32", False)]
    if device_type in ("cpu", "cuda") and not by_backend:
        get, set_ = torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
        switches.append(_Switch(get, set_, ("highest",)))
    holder = _SwitchHolder(tuple(switches))
    _fork.holders.append(holder)
    return holder


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _set_deterministic(mode: tuple[bool, bool]) -> None:
    torch.use_deterministic_algorithms(mode[0], warn_only=mode[1])


class _Fork:
    """Whether this process was forked from one that had loaded this module."""

    def __init__(self) -> None:
        self.is_child = False
        self.holders: list[_SwitchHolder] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._note)

    def _note(self) -> None:
        self.is_child = True
        for holder in self.holders:
            holder.forget()


_fork = _Fork()
