"""Training modules whose networks are on another device than the data."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.fake_device import FAKE, fake_device
from support.small_models import CONFIGS, make_model, make_photo_model

from ohmq.errors import ConfigError
from ohmq.model_files.freeze import freeze
from ohmq.models import MnistConfig, build_model
from ohmq.training.options import TrainOptions
from ohmq.training.published.modules import WarmStartModule
from ohmq.training.run import train


@pytest.fixture(scope="module")
def sample(digits: list[Image.Image]) -> torch.Tensor:
    """Noisy drawn digits, (60, 1, 28, 28), in [0, 1]."""
    drawn = np.stack([np.asarray(digit) for digit in digits])[np.arange(60) % len(digits)] / 255
    noisy = drawn * np.random.default_rng(0).uniform(0.5, 1, (60, 1, 1))
    return torch.from_numpy(noisy).float()[:, None]


def warm_start(initialisation: str, prior: str, sample: torch.Tensor) -> WarmStartModule:
    torch.manual_seed(1)
    config = MnistConfig(
        channels_max=4,
        num_symbols=8,
        prior=prior,
        residual_quantization=initialisation == "vector",  # type: ignore[arg-type]
    )
    options = TrainOptions(model=config, initialisation=initialisation, warm_start_epochs=1)
    model = build_model(config)
    model.initialise_variance_preserving()  # type: ignore[operator]
    return WarmStartModule(options, model, 1, sample)


@pytest.mark.parametrize("prior", ["static", "context"])
@pytest.mark.parametrize("initialisation", ["scalar", "vector"])
def test_a_warm_start_on_another_device(
    initialisation: str, prior: str, sample: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = warm_start(initialisation, prior, sample)
    expected.on_train_epoch_start()
    with fake_device(monkeypatch):
        module = warm_start(initialisation, prior, sample).to(FAKE)
        module.on_train_epoch_start()
        model = module.finish()
        assert {parameter.device for parameter in model.parameters()} == {FAKE}
        frozen = freeze(model)
    assert frozen.model_id == freeze(expected.finish()).model_id


@pytest.mark.parametrize("name", [*sorted(CONFIGS), "photo"])
def test_a_step_on_another_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gradients(device: str) -> list[torch.Tensor]:
        model = make_photo_model() if name == "photo" else make_model(name)
        model = model.to(device).train()
        images = torch.rand(3, model.config.image_channels, *((32, 48) if name == "photo" else (28, 28)))
        images = torch.linspace(-1, 1, images.numel()).view_as(images).to(device)
        torch.manual_seed(0)
        output = model.eval()(images, torch.tensor([1, 4, 3]))
        (output.bits.sum() / 1000 + output.reconstruction.square().sum()).backward()
        return [p.grad.cpu() for p in model.parameters() if p.grad is not None]

    expected = gradients("cpu")
    with fake_device(monkeypatch):
        found = gradients("meta")
    assert len(found) == len(expected) > 10
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_an_accelerator_that_is_not_here_is_refused(mnist_folder: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    options = TrainOptions(
        model=CONFIGS["static"], accelerator="cuda", output_dir=tmp_path, data_base_path=mnist_folder, epochs=1
    )
    with pytest.raises(ConfigError, match="no device 'cuda' here; choose auto or cpu"):
        train(options)
    with pytest.raises(ConfigError, match="accelerator is 'tpu'"):
        TrainOptions(accelerator="tpu")
