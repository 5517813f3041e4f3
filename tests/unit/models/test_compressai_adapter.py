"""The adapter against the interface of CompressAI's ``EntropyBottleneck``.

CompressAI 1.2.8 asks for numpy below 2, torchvision and torch-geometric and imports them all at once, so it is no dependency of
the tests. They check the adapter against the documented interface of ``compressai.entropy_models.EntropyBottleneck``; where
CompressAI happens to be installed, the last test compares the two.
"""

import inspect
import math

import pytest
import torch
from torch import Tensor, nn

from ohmq.models.compressai_adapter import OneHotMaxBottleneck
from ohmq.models.priors.context import ContextPrior
from ohmq.models.priors.static import StaticPrior
from ohmq.models.quantizers.one_hot_max import OneHotMax

SIGNATURES = {
    "forward": ["x", "training"],
    "update": ["force", "update_quantiles"],
    "compress": ["x"],
    "decompress": ["strings", "size"],
    "loss": [],
}
"""Parameters of the methods of ``EntropyBottleneck`` that the adapter has too, without self."""


def make_adapter(with_prior: bool = True) -> OneHotMaxBottleneck:
    torch.manual_seed(0)
    prior = StaticPrior(5, 16) if with_prior else None
    if prior is not None:
        with torch.no_grad():
            prior.network[2].weight.mul_(4)  # type: ignore[union-attr, operator]
    return OneHotMaxBottleneck(OneHotMax(5, 16, 6), prior)


class SmallAutoencoder(nn.Module):
    """A model as one writes it for CompressAI: the rate comes from the likelihoods."""

    def __init__(self, entropy_bottleneck: nn.Module) -> None:
        super().__init__()
        self.g_a, self.g_s = nn.Conv2d(1, 6, 4, stride=4), nn.ConvTranspose2d(6, 1, 4, stride=4)
        self.entropy_bottleneck = entropy_bottleneck

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y_hat, likelihoods = self.entropy_bottleneck(self.g_a(x))
        return {"x_hat": self.g_s(y_hat), "y": likelihoods}


def rate_distortion(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The rate term of CompressAI's RateDistortionLoss, in bits a pixel, and the squared error."""
    out = model(x)
    bits_per_pixel = torch.log(out["y"]).sum() / (-math.log(2) * x.shape[0] * x.shape[-2] * x.shape[-1])
    return bits_per_pixel, (out["x_hat"] - x).square().mean()


def test_likelihoods_sum_to_the_rate_and_carry_its_gradient() -> None:
    adapter = make_adapter()
    y = torch.randn(3, 6, 2, 4, requires_grad=True)
    for active in (None, 2, torch.tensor([1, 5, 0])):
        y_hat, likelihoods = adapter(y, active=active)
        expected = adapter.quantizer(y, active, adapter.prior)
        assert torch.equal(y_hat, expected.latent_hat)
        assert likelihoods.shape == (3, 5, 2, 4)
        assert (likelihoods > 0).all()
        assert (likelihoods <= 1).all()
        bits = -likelihoods.log2().flatten(1).sum(1)
        torch.testing.assert_close(bits, expected.bits, atol=1e-4, rtol=1e-5)
        ours, theirs = (torch.autograd.grad(total.sum(), y)[0] for total in (bits, expected.bits))
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_an_autoencoder_trains_around_it() -> None:
    model = SmallAutoencoder(make_adapter())
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    x = torch.rand(8, 1, 16, 16)
    losses = []
    for _ in range(30):
        rate, distortion = rate_distortion(model, x)
        loss = 0.02 * rate + distortion + model.entropy_bottleneck.loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("with_prior", [True, False])
def test_bytes_decode_to_what_the_layer_quantized(with_prior: bool) -> None:
    adapter = make_adapter(with_prior).eval()
    y = torch.randn(4, 6, 3, 5)
    with pytest.raises(ValueError, match="update"):
        adapter.compress(y)
    assert adapter.update()
    assert not adapter.update()
    assert adapter.update(force=True)
    strings = adapter.compress(y)
    with torch.no_grad():
        y_hat, likelihoods = adapter(y)
    torch.testing.assert_close(adapter.decompress(strings, (3, 5)), y_hat)
    ideal = -likelihoods.log2().flatten(1).sum(1)
    for string, bits in zip(strings, ideal.tolist(), strict=True):
        assert 8 * len(string) == pytest.approx(bits, abs=12)
    restored = make_adapter(with_prior)
    restored.load_state_dict(adapter.state_dict())  # the tables travel with the weights
    torch.testing.assert_close(restored.decompress(strings, (3, 5)), y_hat)


def test_a_context_prior_trains_but_has_no_tables_here() -> None:
    adapter = OneHotMaxBottleneck(OneHotMax(4, 8, 6), ContextPrior(4, 8, 6, (2, 2)))  # type: ignore[arg-type]
    assert adapter(torch.randn(2, 6, 3, 3)).likelihoods.shape == (2, 4, 3, 3)
    with pytest.raises(ValueError, match="StaticPrior"):
        adapter.update()


def test_methods_take_what_an_entropy_bottleneck_takes() -> None:
    for name, expected in SIGNATURES.items():
        parameters = list(inspect.signature(getattr(OneHotMaxBottleneck, name)).parameters.values())[1:]
        positional = [p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        assert ["x" if p == "y" else p for p in positional] == expected


def test_compressai_itself_has_this_interface() -> None:
    entropy_models = pytest.importorskip("compressai.entropy_models", exc_type=ImportError)
    for name, expected in SIGNATURES.items():
        parameters = list(inspect.signature(getattr(entropy_models.EntropyBottleneck, name)).parameters)[1:]
        assert parameters == expected
    for bottleneck in (entropy_models.EntropyBottleneck(6), make_adapter()):
        y = torch.randn(2, 6, 3, 5)
        y_hat, likelihoods = bottleneck(y)
        assert y_hat.shape == y.shape
        assert likelihoods.shape[::2] == y.shape[::2]
        assert rate_distortion(SmallAutoencoder(bottleneck), torch.rand(2, 1, 16, 16))[0] > 0
        bottleneck.update(force=True)
        strings = bottleneck.eval().compress(y)
        assert [type(string) for string in strings] == [bytes, bytes]
        assert bottleneck.decompress(strings, (3, 5)).shape == y.shape
