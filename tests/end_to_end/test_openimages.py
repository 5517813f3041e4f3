"""The published photo network through the published command line: two training steps, then coding."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ohmq.cli import main
from ohmq.loading import load
from ohmq.models import OpenImagesConfig, build_model

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "examples" / "photos"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Crops of the example photos as openimages/{train,validation}."""
    for split, count in (("train", 4), ("validation", 2)):
        folder = tmp_path / "data" / "openimages" / split
        folder.mkdir(parents=True)
        for number in range(count):
            with Image.open(PHOTOS / ("coffee.png", "astronaut.png")[number % 2]) as photo:
                left = 30 * number
                photo.crop((left, 40, left + 200, 200)).save(folder / f"{number}.{('png', 'jpg')[number % 2]}")
    return tmp_path / "data"


@pytest.mark.parametrize("flags", ["-no_quant_symbols 8", "-integer_quant", "-no_quant"])
def test_train_two_steps_export_compress_and_decompress(data: Path, tmp_path: Path, flags: str) -> None:
    line = f"-batch_size 2 -n_epochs 1 -learning_rate 1e-4 -lambda_rd 0.95 0.999 -bottleneck_channels 0 6 {flags}"
    more = f"-crop_size 64 --data_base_path {data} --output_dir out --warm_start_epochs 1 -cpu"
    more += f" --test_sets {data}/openimages/validation"
    command = [sys.executable, str(ROOT / "train.py"), *line.split(), *more.split()]
    completed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert completed.returncode == 0, completed.stderr
    assert (tmp_path / "out" / "test_validation" / "rate_distortion.csv").stat().st_size > 0
    assert "validation" in completed.stdout and "PSNR dB" in completed.stdout
    if flags == "-no_quant":
        return
    image, model = tmp_path / "image.png", tmp_path / "openimages.safetensors"
    with Image.open(PHOTOS / "chelsea.png") as photo:
        photo.crop((0, 0, 75, 50)).save(image)
    for arguments in (
        ["export", tmp_path / "out" / "last.ckpt", "-o", model],
        ["compress", image, "-o", tmp_path / "p.ohm", "-m", model],
        ["decompress", tmp_path / "p.ohm", "-o", tmp_path / "p.png", "-m", model],
    ):
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        assert stop.value.code == 0, arguments
    codec = load(model)
    with Image.open(image) as original, Image.open(tmp_path / "p.png") as decoded:
        symbols = codec.analyse(original)
        assert np.array_equal(np.asarray(decoded), np.asarray(codec.synthesise(symbols, 6)))
    assert np.array_equal(codec.decode((tmp_path / "p.ohm").read_bytes())[1].values, symbols.values)


def test_the_static_prior_is_the_same_at_every_position() -> None:
    model = build_model(OpenImagesConfig(channels_max=2, num_symbols=4))
    prior = model.prior
    assert prior is not None
    with torch.no_grad():
        everywhere = prior.network(torch.ones(1, 1, 5, 7))  # type: ignore[operator, union-attr]
        once = prior.network(torch.ones(1, 1, 1, 1))  # type: ignore[operator, union-attr]
    assert torch.allclose(everywhere, once.expand_as(everywhere), atol=1e-5)
