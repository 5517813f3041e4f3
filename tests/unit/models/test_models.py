"""The published models: parameter counts, and coding against training."""

import pytest
import torch

from ohmq.models import MnistConfig, ModelConfig, OpenImagesConfig, build_model
from ohmq.models.priors.factorized import FactorizedPrior
from ohmq.models.priors.static import StaticPrior


@pytest.mark.parametrize(
    ("family", "channels", "symbols", "quantizer", "parts", "total"),
    [
        (MnistConfig, 16, 256, "ohm", (7120, 7865, 266288, 135488), 416777),
        (MnistConfig, 32, 256, "ohm", (7120, 7865, 532544, 270656), 818217),
        (MnistConfig, 16, 16, "ohm", (7120, 7865, 16688, 8768), 40457),
        (MnistConfig, 16, 256, "integer", (4800, 5561, 0, 704), 11065),
        (MnistConfig, 32, 64, "integer", (7120, 7865, 0, 1408), 16393),
        (OpenImagesConfig, 480, 32, "ohm", (3_447_360, 36_646_563, 14_761_920, 18_916_800), 73_773_123),
        (OpenImagesConfig, 480, 32, "integer", (3_447_360, 36_646_563, 0, 21_120), 40_115_043),
        (OpenImagesConfig, 16, 32, "ohm", (1_441_488, 1_479_075, 16_928, 4_647_872), 7_585_379),
    ],
)
def test_parameter_counts_are_the_published_ones(
    family: type[ModelConfig], channels: int, symbols: int, quantizer: str, parts: tuple[int, ...], total: int
) -> None:
    model = build_model(family(channels_max=channels, num_symbols=symbols, quantizer=quantizer))  # type: ignore[arg-type]
    modules = (model.analysis_transform, model.synthesis_transform, model.quantizer, model.prior)
    counted = [sum(p.numel() for p in module.parameters()) for module in modules if module is not None]
    if quantizer == "ohm":  # the published split leaves the prior's C temperatures to the total
        counted[3] -= channels
    assert tuple(counted) == parts
    assert sum(p.numel() for p in model.parameters()) == total


def every_config() -> list[ModelConfig]:
    return [
        MnistConfig(channels_max=4, num_symbols=5),
        MnistConfig(channels_max=4, num_symbols=5, residual_quantization=True),
        MnistConfig(channels_max=5, num_symbols=8, prior="context", context_group=2),
        MnistConfig(channels_max=5, num_symbols=8, prior="context", residual_quantization=True),
        MnistConfig(channels_max=4, num_symbols=16, quantizer="integer"),
    ]


@pytest.mark.parametrize("config", every_config())
def test_coding_reconstructs_what_training_saw(config: MnistConfig) -> None:
    torch.manual_seed(0)
    model = build_model(config).eval()
    images = model.normalise(torch.rand(6, 1, 28, 28))
    symbols = model.symbols(images)
    for n in range(config.channels_max + 1):
        forward = model(images, torch.full((6,), n))
        trained = model.denormalise(forward.reconstruction).clamp(0, 1)
        torch.testing.assert_close(model.reconstruct(symbols, n), trained, atol=1e-5, rtol=0)
        assert (forward.bits > 0).all() == (n > 0)


@pytest.mark.parametrize("config", every_config())
def test_images_of_a_batch_do_not_meet(config: MnistConfig) -> None:
    torch.manual_seed(0)
    model = build_model(config).eval()
    images, active = torch.randn(5, 1, 28, 28), torch.tensor([1, 4, 0, 2, 4])
    together = model(images, active)
    for i in range(5):
        alone = model(images[i : i + 1], active[i : i + 1])
        torch.testing.assert_close(together.reconstruction[i], alone.reconstruction[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together.bits[i], alone.bits[0], atol=1e-3, rtol=1e-4)


def test_every_trained_parameter_gets_a_gradient() -> None:
    for config in every_config():
        model = build_model(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        output = model(torch.randn(8, 1, 28, 28), torch.full((8,), config.channels_max))
        (output.reconstruction.square().sum() + output.bits.sum()).backward()
        missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert not missing, (config, missing)


def test_static_prior_sees_only_the_border() -> None:
    prior = StaticPrior(2, 6)
    large = prior.logits(5, 6).view(5, 6, 2, 6)
    small = prior.logits(3, 3).view(3, 3, 2, 6)
    for rows, row in (([0], 0), ([1, 2, 3], 1), ([4], 2)):
        for columns, column in (([0], 0), ([1, 2, 3, 4], 1), ([5], 2)):
            for y in rows:
                for x in columns:
                    torch.testing.assert_close(large[y, x], small[row, column])
    assert large.exp().sum(-1).sub(1).abs().max() < 1e-5


def test_factorized_density_is_a_distribution() -> None:
    density = FactorizedPrior(3)
    p = density.probabilities(-7, 16)
    assert p.shape == (3, 16)
    assert torch.allclose(p.sum(-1), torch.ones(3, dtype=torch.float64))
    values = torch.arange(-6, 8).float().expand(3, -1)
    inner = density.likelihood(values).double()
    torch.testing.assert_close(inner, p[:, 1:-1], atol=1e-5, rtol=1e-3)
