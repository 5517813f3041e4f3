"""The option --device of the commands."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from ohmq.cli import main
from ohmq.cli.published_compress import build_parser, run
from ohmq.errors import ConfigError

ABSENT = "cuda:99"


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert isinstance(stop.value.code, int)
    return stop.value.code


@pytest.fixture
def image(digit: Image.Image, tmp_path: Path) -> Path:
    digit.save(tmp_path / "digit.png")
    return tmp_path / "digit.png"


def test_commands_name_the_devices_that_are_there(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coded = tmp_path / "digit.ohm"
    assert call("compress", image, "-m", "mnist-ohm", "-o", coded, "--device", "auto") == 0
    for arguments in (
        ("compress", image, "-m", "mnist-ohm", "-o", tmp_path / "other.ohm"),
        ("decompress", coded, "-o", tmp_path / "other.png"),
        ("decompress", coded, "-m", "mnist-ohm", "-o", tmp_path / "other.png"),
        ("evaluate", image, "-m", "mnist-ohm"),
        ("compare", image, "-m", "mnist-ohm"),
    ):
        assert call(*arguments, "--device", ABSENT) == 2
        assert capsys.readouterr().err.count(f"no device '{ABSENT}' here; choose auto or cpu") == 1
    assert not (tmp_path / "other.ohm").exists()
    assert not (tmp_path / "other.png").exists()
    assert call("decompress", coded, "-o", tmp_path / "other.png", "--device", "cpu") == 0


def test_cpu_of_the_published_command_line() -> None:
    needed = ["--image_path", "x", "--checkpoint", "mnist-ohm", "--output_dir", "y"]
    parser = build_parser()
    assert parser.parse_args(needed).device == "auto"
    assert parser.parse_args([*needed, "--cpu"]).device == "cpu"
    assert parser.parse_args([*needed, "--device", "cuda:1"]).device == "cuda:1"
    with pytest.raises(SystemExit):
        parser.parse_args([*needed, "--cpu", "--device", "cuda"])
    with pytest.raises(ConfigError, match="no device"):
        run([*needed, "--device", ABSENT])


@pytest.mark.filterwarnings("ignore:Checkpoint directory")  # the loggers made it
def test_training_names_the_devices_that_are_there(
    mnist_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.backends.mps.is_available():
        pytest.skip("there is one")
    options = ["--epochs", "1", "--quantizer", "integer", "--channels-max", "2", "--num-symbols", "8"]
    assert call("train", "-o", tmp_path / "run", "--data", mnist_folder, *options, "--device", "mps") == 1
    assert "no device 'mps' here; choose auto or cpu" in capsys.readouterr().err
    assert call("train", "-o", tmp_path / "run", "--data", mnist_folder, *options, "--device", "cpu") == 0
