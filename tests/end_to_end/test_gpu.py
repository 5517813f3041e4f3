"""Coding and training on an accelerator of torch, where there is one: see tools/check_gpu.sh."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.photo_folders import make_photo_folder

from ohmq.codec import Codec
from ohmq.loading import load
from ohmq.runtime.devices import available_devices

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
DEVICE = available_devices()[-1]
KIND = DEVICE.partition(":")[0]

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(DEVICE == "cpu", reason="torch finds no accelerator")]

STATES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast(KIND),
    "default device": lambda: torch.device(DEVICE),
    "inference mode": torch.inference_mode,
}


@pytest.fixture(scope="module", params=["mnist-ohm", "mnist-int", "photo"])
def codecs(request: pytest.FixtureRequest) -> tuple[Codec, Codec]:
    """A pretrained model on the CPU and on the accelerator."""
    return load(request.param), load(request.param, device=DEVICE)


def image_for(codec: Codec, digit: Image.Image) -> Image.Image:
    if codec.grey:
        return digit
    with Image.open(PHOTOS / "chelsea.png") as photo:
        return photo.convert("RGB")


def test_each_device_decodes_the_files_of_the_other(codecs: tuple[Codec, Codec], digit: Image.Image) -> None:
    image = image_for(codecs[0], digit)
    for fixed_rate in (False, True):
        files = [codec.compress(image, fixed_rate=fixed_rate) for codec in codecs]
        assert len(files[1]) == pytest.approx(len(files[0]), rel=0.01)
        for file in files:
            symbols = [codec.decode(file)[1].values for codec in codecs]
            assert np.array_equal(*symbols)
            first, second = (np.asarray(codec.decompress(file), int) for codec in codecs)
            # The class of a pixel in the post-filter may differ where rounding does.
            assert (np.abs(first - second) > 1).mean() < 1e-4
            assert (first != second).mean() < 0.01


@pytest.mark.parametrize("state", STATES)
def test_no_state_changes_a_byte_or_a_pixel(codecs: tuple[Codec, Codec], digit: Image.Image, state: str) -> None:
    codec, image = codecs[1], image_for(codecs[0], digit)
    file = codec.compress(image)
    pixels = codec.decompress(file).tobytes()
    assert codec.compress(image) == file
    with STATES[state]():
        assert codec.compress(image) == file
        assert codec.decompress(file).tobytes() == pixels


@pytest.mark.skipif(KIND != "cuda", reason="a setting of CUDA")
def test_tensor_cores_and_deterministic_mode_change_nothing(codecs: tuple[Codec, Codec], digit: Image.Image) -> None:
    codec, image = codecs[1], image_for(codecs[0], digit)
    file = codec.compress(image)
    pixels = codec.decompress(file).tobytes()
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = True
    try:
        assert codec.compress(image) == file
        assert codec.decompress(file).tobytes() == pixels
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = False


def train(folder: Path, data: Path, *options: str) -> Codec:
    command = [sys.executable, "-m", "ohmq", "train", "--data", str(data), "-o", str(folder / "run"), "--device", KIND]
    done = subprocess.run([*command, "--devices", "1", *options], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return load(folder / "run" / "last.ckpt", device=DEVICE)


DIGITS = "--channels-max 4 --num-symbols 8 --batch-size 90 --epochs 1 --warm-start-epochs 3 --quantizer ohm"


@pytest.mark.parametrize(
    "options",
    [
        "--initialisation published --prior static",
        "--initialisation scalar --prior context",
        "--initialisation vector --prior context --refinement --initial-symbols 6 --grow-epochs 1",
    ],
)
def test_digits_train(mnist_folder: Path, tmp_path: Path, digit: Image.Image, options: str) -> None:
    codec = train(tmp_path, mnist_folder, *DIGITS.split(), *options.split())
    file = codec.compress(digit)
    assert np.array_equal(codec.decode(file)[1].values, codec.to("cpu").decode(file)[1].values)


@pytest.mark.parametrize("length", ["--epochs 2 --quick-epochs 1", "--minutes 0.1 --data-on-device"])
def test_photos_train(tmp_path: Path, length: str) -> None:
    options = f"--preset photo --batch-size 3 --crop-size 64 --val-every 1 {length}"
    codec = train(tmp_path, make_photo_folder(tmp_path), *options.split())
    with Image.open(PHOTOS / "chelsea.png") as photo:
        file = codec.compress(photo.convert("RGB"))
    assert np.array_equal(codec.decode(file)[1].values, codec.to("cpu").decode(file)[1].values)
