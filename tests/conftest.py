"""Small models and pictures that many tests use. Nothing here needs a network or data from outside."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ohmq.codec import Codec
from ohmq.model_file import freeze
from ohmq.models import MnistConfig, build_model

DIGITS = Path(__file__).parents[1] / "examples" / "digits"

CONFIGS = {
    "static": MnistConfig(channels_max=5, num_symbols=7),
    "context": MnistConfig(channels_max=6, num_symbols=19, prior="context", refinement=True, context_group=2),
    "integer": MnistConfig(channels_max=4, num_symbols=16, quantizer="integer"),
}


def make_codec(name: str) -> Codec:
    """A codec with random weights; its context networks and priors are far from flat."""
    torch.manual_seed(7)
    model = build_model(CONFIGS[name])
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.startswith("prior.networks"):
                parameter.normal_(std=0.3)
            if key == "quantizer.codewords":
                parameter.mul_(5)
            if key.startswith("analysis_transform") or key.startswith("prior.static.network.2"):
                parameter.mul_(4)
    return Codec(freeze(model, name))


@pytest.fixture(scope="session", params=sorted(CONFIGS))
def codec(request: pytest.FixtureRequest) -> Codec:
    """Each kind of model in turn."""
    return make_codec(request.param)


@pytest.fixture(scope="session")
def context_codec() -> Codec:
    """A model with a context prior."""
    return make_codec("context")


@pytest.fixture(scope="session")
def digit() -> Image.Image:
    """One drawn digit, 28x28."""
    return Image.open(DIGITS / "digit_3_a.png").convert("L")


@pytest.fixture
def mnist_folder(tmp_path: Path) -> Path:
    """A folder with a small MNIST: 300 training and 40 test images, drawn digits with noise."""
    rng = np.random.default_rng(3)
    drawn = np.stack([np.asarray(Image.open(path).convert("L")) for path in sorted(DIGITS.glob("*.png"))])
    folder = tmp_path / "data"
    folder.mkdir()
    for name, count in (("train-images-idx3-ubyte", 300), ("t10k-images-idx3-ubyte", 40)):
        pixels = drawn[rng.integers(0, len(drawn), count)] * rng.uniform(0.6, 1, (count, 1, 1))
        header = np.array([2051, count, 28, 28], ">u4").tobytes()
        (folder / name).write_bytes(header + pixels.astype(np.uint8).tobytes())
    return folder
