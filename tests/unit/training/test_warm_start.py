"""Warm starts and models of other sizes code as the models that they are made from."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from ohmq.errors import ConfigError
from ohmq.models import MnistConfig, build_model
from ohmq.models.quantizers.one_hot_max import OneHotMax
from ohmq.training.published.grow import grow_symbols, resize_channels
from ohmq.training.published.warm_start import ScalarBottleneck, VectorBottleneck


@pytest.fixture(scope="module")
def images(digits: list[Image.Image]) -> torch.Tensor:
    """240 noisy copies of the drawn digits, in [0, 1]."""
    rng = np.random.default_rng(0)
    drawn = np.stack([np.asarray(digit) for digit in digits]) / 255
    noisy = drawn[np.arange(240) % len(drawn)] * rng.uniform(0.5, 1, (240, 1, 1)) + rng.normal(0, 0.03, (240, 28, 28))
    return torch.from_numpy(noisy.clip(0, 1)).float()[:, None]


def vector_model(images: torch.Tensor, num_symbols: int = 12):  # type: ignore[no-untyped-def]
    torch.manual_seed(1)
    config = MnistConfig(channels_max=5, num_symbols=num_symbols, prior="context", residual_quantization=True)
    model = build_model(config)
    model.initialise_variance_preserving()  # type: ignore[operator]
    bottleneck = VectorBottleneck(model, num_codewords=8).eval()
    with torch.no_grad():
        bottleneck.start(model.normalise(images))
    return model, bottleneck


def test_vector_warm_start_sets_nearest_codewords(images: torch.Tensor) -> None:
    model, bottleneck = vector_model(images, num_symbols=8)
    bottleneck.transfer(model.normalise(images))
    quantizer = model.quantizer
    assert isinstance(quantizer, OneHotMax)
    with torch.no_grad():
        symbols = model.symbols(model.normalise(images)).flatten(0, 2)
        latent = model.analysis_transform(model.normalise(images)).relu().permute(0, 2, 3, 1).reshape(len(symbols), -1)
        residual = latent - quantizer.output_bias
        for c in range(5):
            nearest = torch.cdist(residual, quantizer.codewords[c]).argmin(1)
            assert (nearest == symbols[:, c]).float().mean() > 0.999
            residual = residual - quantizer.codewords[c][symbols[:, c]]
        assert residual.square().sum() < 0.3 * (latent - latent.mean(0)).square().sum()


def test_scalar_warm_start_sets_a_uniform_quantizer(images: torch.Tensor) -> None:
    torch.manual_seed(2)
    model = build_model(MnistConfig(channels_max=4, num_symbols=32))
    model.initialise_variance_preserving()  # type: ignore[operator]
    bottleneck = ScalarBottleneck(model).eval()
    bottleneck.transfer(model.normalise(images))
    active = torch.full((len(images),), 4)
    with torch.no_grad():
        expected = bottleneck(model.normalise(images), active).reconstruction
        output = model(model.normalise(images), active)
    assert (output.reconstruction - expected).square().mean() < 1e-6
    symbols = model.symbols(model.normalise(images)).flatten(0, 2)
    counted = sum(float(np.log2(len(symbols) / np.bincount(column)[column]).sum()) for column in symbols.T.numpy())
    assert float(output.bits.sum()) == pytest.approx(counted, rel=0.02)


def test_a_grown_model_codes_almost_as_before(images: torch.Tensor) -> None:
    model, bottleneck = vector_model(images)
    bottleneck.transfer(model.normalise(images))
    torch.manual_seed(0)
    grown = grow_symbols(model, 40, images)
    assert grown.config == dataclasses.replace(model.config, num_symbols=40)
    active = torch.full((len(images),), 5)
    with torch.no_grad():
        normalised = model.normalise(images)
        before, after = model(normalised, active), grown(normalised, active)
        errors = [(output.reconstruction - normalised).square().mean() for output in (before, after)]
        same = (model.symbols(normalised) == grown.symbols(normalised)).float().mean()
    assert same > 0.97
    assert errors[1] < 1.03 * errors[0]
    assert after.bits.sum() < 1.05 * before.bits.sum()
    quantizer = grown.quantizer
    assert isinstance(quantizer, OneHotMax)
    assert len(torch.unique(quantizer.codewords[0].detach(), dim=0)) == 40


@pytest.mark.parametrize("channels", [3, 5, 8])
def test_a_model_with_other_channels_codes_as_before(images: torch.Tensor, channels: int) -> None:
    model, bottleneck = vector_model(images)
    bottleneck.transfer(model.normalise(images))
    torch.manual_seed(0)
    for network in model.prior.networks:  # type: ignore[union-attr]
        torch.nn.init.normal_(network[-1].weight, std=0.1)  # as if trained
    config = dataclasses.replace(model.config, channels_min=1, channels_max=channels)
    resized = resize_channels(model, config, images)
    assert resized.config == config
    kept = min(channels, 5)
    normalised = model.normalise(images)
    with torch.no_grad():
        for count in (1, kept):
            active = torch.full((len(images),), count)
            before, after = model(normalised, active), resized(normalised, active)
            assert torch.equal(before.reconstruction, after.reconstruction)
            assert torch.allclose(before.bits, after.bits)
    if channels > 5:
        # The new channels quantize the residual, at about the bits of their counted symbols.
        symbols = resized.symbols(normalised).flatten(0, 2)
        counted = sum(float(np.log2(len(symbols) / np.bincount(c)[c]).sum()) for c in symbols.T[5:].numpy())
        with torch.no_grad():
            latent = resized.analysis_transform(normalised).relu()
            errors = [
                (resized.quantizer.dequantize(resized.symbols(normalised), n) - latent).square().mean() for n in (5, 8)
            ]
            more = resized(normalised, torch.full((len(images),), 8)).bits.sum() - after.bits.sum()
        assert errors[1] < 0.6 * errors[0]
        assert float(more) == pytest.approx(counted, rel=0.05)


def test_resizing_to_another_configuration_is_refused(images: torch.Tensor) -> None:
    model, _ = vector_model(images)
    for changes in ({"num_symbols": 8}, {"context_hidden": 16}, {"context_group": 2}, {"prior": "static"}):
        with pytest.raises(ConfigError, match="another configuration"):
            resize_channels(model, dataclasses.replace(model.config, **changes), images)  # type: ignore[arg-type]
