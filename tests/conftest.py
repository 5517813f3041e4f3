"""Small models and pictures that many tests use. Nothing here needs a network or data from outside."""

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.s3_server import S3Server, moto_server, seaweed_server
from support.small_models import CONFIGS, make_codec

from ohmq.codec import Codec
from ohmq.loading import load

# A shell's background jobs ignore Ctrl-C and hand that on to what they start; tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
PHOTOS = Path(__file__).parents[1] / "examples" / "photos"


@pytest.fixture(scope="session", params=sorted(CONFIGS))
def codec(request: pytest.FixtureRequest) -> Codec:
    """Each kind of model in turn."""
    return make_codec(request.param)


@pytest.fixture(scope="session")
def context_codec() -> Codec:
    """A model with a context prior."""
    return make_codec("context")


@pytest.fixture(scope="session")
def photo_codec() -> Codec:
    """The pretrained photo model."""
    return load("photo")


@pytest.fixture(scope="session")
def crop() -> Image.Image:
    """A piece of a photograph whose sides are no multiples of 16."""
    with Image.open(PHOTOS / "chelsea.png") as image:
        return image.convert("RGB").crop((100, 60, 219, 131))


@pytest.fixture(scope="session")
def digit() -> Image.Image:
    """One drawn digit, 28x28."""
    return Image.open(DIGITS / "digit_3_a.png").convert("L")


@pytest.fixture(scope="session")
def digits() -> list[Image.Image]:
    """All drawn digits, 28x28."""
    return [Image.open(path).convert("L") for path in sorted(DIGITS.glob("*.png"))]


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


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """An S3 server that knows the protocol; tests share it, so each makes a bucket of its own."""
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real object store, for races and wrong credentials; likewise shared."""
    with seaweed_server(tmp_path_factory.mktemp("seaweed")) as server:
        yield server
