"""Settings of the program around a codec: they change no byte and no pixel, and stay as they are."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from support.small_models import CONFIGS, make_model

from ohmq.codec import Codec
from ohmq.loading import load
from ohmq.model_files.checkpoint import freeze_checkpoint
from ohmq.model_files.freeze import freeze
from ohmq.model_files.frozen_model import save_model
from ohmq.runtime.devices import coding_state


class Coded(NamedTuple):
    """Files of an image, with RDOQ where the model has it and at a fixed rate, and their decoded pixels."""

    file: bytes
    fixed_rate: bytes
    pixels: bytes
    fixed_rate_pixels: bytes


def code(codec: Codec, image: Image.Image) -> Coded:
    file, fixed_rate = codec.compress(image), codec.compress(image, fixed_rate=True)
    return Coded(file, fixed_rate, codec.decompress(file).tobytes(), codec.decompress(fixed_rate).tobytes())


@contextmanager
def setting(set_: Callable[[Any], object], inside: Any, outside: Any) -> Iterator[None]:
    set_(inside)
    try:
        yield
    finally:
        set_(outside)


STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu"),
    "autocast float16": lambda: torch.autocast("cpu", torch.float16),
    "float64": lambda: setting(torch.set_default_dtype, torch.float64, torch.float32),
    "bfloat16": lambda: setting(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "default device": lambda: setting(torch.set_default_device, "meta", None),
    "device": lambda: torch.device("meta"),
    "inference mode": torch.inference_mode,
    "gradients": torch.enable_grad,
    "no gradients": torch.no_grad,
    "deterministic": lambda: setting(torch.use_deterministic_algorithms, True, False),
    "flush denormal": lambda: setting(torch.set_flush_denormal, True, False),
    "matmul precision": lambda: setting(torch.set_float32_matmul_precision, "medium", "highest"),
}


@pytest.fixture(scope="module", params=["mnist-ohm", "mnist-int", "photo"])
def case(request: pytest.FixtureRequest) -> tuple[str, Image.Image, Coded]:
    """A pretrained model, an image, and the image coded in torch's default state."""
    rng = np.random.default_rng(0)
    waves = 128 + 90 * np.sin(np.add.outer(np.arange(64), np.arange(80)) / 7)[..., None] + rng.normal(0, 8, (64, 80, 3))
    image = Image.fromarray(waves.clip(0, 255).astype(np.uint8))
    if request.param != "photo":
        image = image.convert("L").crop((0, 0, 28, 28))
    return request.param, image, code(load(request.param), image)


@pytest.mark.parametrize("state", STATES)
def test_no_state_changes_a_byte_or_a_pixel(case: tuple[str, Image.Image, Coded], state: str) -> None:
    name, image, expected = case
    before = load(name)
    with STATES[state]():
        assert code(before, image) == expected
        inside = load(name)
        assert code(inside, image) == expected
    assert code(inside, image) == expected  # what was loaded inside works outside


@pytest.mark.parametrize("state", ["float64", "bfloat16", "default device", "inference mode", "autocast"])
@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_no_state_changes_a_frozen_model(tmp_path: Path, name: str, state: str) -> None:
    model = make_model(name)
    record = {"format": 1, "stage": "train", "model": CONFIGS[name].to_dict(), "ohmq": "0", "command": ""}
    record |= {"description": "", "options": {}}
    weights = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"ohmq": record, "state_dict": weights, "epoch": 1, "global_step": 1}, tmp_path / "last.ckpt")
    save_model(freeze_checkpoint(tmp_path / "last.ckpt"), tmp_path / "expected.safetensors")
    with STATES[state]():
        save_model(freeze_checkpoint(tmp_path / "last.ckpt"), tmp_path / "found.safetensors")
        save_model(freeze(model, "last", {}), tmp_path / "direct.safetensors")
    expected = (tmp_path / "expected.safetensors").read_bytes()
    assert (tmp_path / "found.safetensors").read_bytes() == expected
    assert Codec(freeze(model)).model_id == Codec(freeze_checkpoint(tmp_path / "last.ckpt")).model_id


def test_a_checkpoint_is_read_without_random_numbers(tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    load("mnist-ohm")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_another_number_of_threads_changes_rounding_alone(photo_codec: Codec, crop: Image.Image) -> None:
    file = photo_codec.compress(crop)
    pixels = np.asarray(photo_codec.decompress(file)).astype(int)
    with setting(torch.set_num_threads, 3, torch.get_num_threads()):
        assert np.abs(np.asarray(photo_codec.decompress(file)) - pixels).max() <= 1
        (_, again), (_, symbols) = (codec.decode(file) for codec in (photo_codec, load("photo")))
        assert np.array_equal(again.values, symbols.values)


def test_switches_of_the_process_come_back_after_the_last_thread() -> None:
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with coding_state():
            held.set()
            go_on.wait(10)

    def precision() -> object:
        by_backend = hasattr(torch.backends, "fp32_precision")
        return torch.backends.mkldnn.matmul.fp32_precision if by_backend else torch.get_float32_matmul_precision()

    with setting(torch.set_float32_matmul_precision, "medium", "highest"):
        before = precision()
        thread = threading.Thread(target=hold)
        thread.start()
        assert held.wait(10)
        with coding_state():
            exact = precision()
        assert precision() == exact != before  # the other thread still codes
        go_on.set()
        thread.join()
        assert precision() == before


@coding_state()
def fail() -> None:
    assert not torch.is_autocast_enabled("cpu")
    assert not torch.is_inference_mode_enabled()
    raise KeyError


def test_the_state_ends_with_an_error() -> None:
    with torch.autocast("cpu"), torch.inference_mode():
        with pytest.raises(KeyError):
            fail()
        assert torch.is_autocast_enabled("cpu")
        assert torch.is_inference_mode_enabled()
