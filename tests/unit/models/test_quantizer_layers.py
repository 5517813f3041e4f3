"""The quantizers as layers: shapes, rates, gradients and orders of active channels, with every prior."""

import math

import pytest
import torch
from support.small_models import make_model, make_photo_model
from torch import nn

from ohmq.models import PhotoModel
from ohmq.models.bottleneck import Bottleneck
from ohmq.models.priors.context import ContextPrior
from ohmq.models.priors.factorized import FactorizedPrior
from ohmq.models.priors.static import StaticPrior
from ohmq.models.priors.tabulated import TabulatedPrior
from ohmq.models.quantizers.directional import DirectionalOneHotMax
from ohmq.models.quantizers.one_hot_max import OneHotMax
from ohmq.models.quantizers.quantized_latent import QuantizedLatent
from ohmq.models.quantizers.rounding import Identity, IntegerRounding

CHANNELS, SYMBOLS, DIM = 5, 7, 4
GROUPS = (2, 2, 1)
KINDS = ["none", "static", "factorized", "context", "tabulated", "checkerboard"]


def make_prior(kind: str) -> nn.Module | None:
    """A prior whose tables are far from flat."""
    prior: nn.Module
    if kind == "none":
        return None
    if kind == "static":
        prior = StaticPrior(CHANNELS, SYMBOLS)
    elif kind == "factorized":
        prior = FactorizedPrior(CHANNELS)
    elif kind == "context":
        prior = ContextPrior(CHANNELS, SYMBOLS, DIM, GROUPS)
    else:
        prior = TabulatedPrior(
            CHANNELS, SYMBOLS, DIM, GROUPS, projection=3, hidden_channels=5, checkerboard_groups=2 * (kind == "checkerboard"),
            neighbour_hidden=2 * (kind == "checkerboard"),
        )  # fmt: skip
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return prior


def make_quantizer(kind: str) -> OneHotMax | DirectionalOneHotMax:
    """A quantizer of each kind that uses most of its symbols."""
    if kind == "directional":
        return DirectionalOneHotMax(CHANNELS, SYMBOLS, DIM)
    if kind == "rdoq":
        quantizer = DirectionalOneHotMax(CHANNELS, SYMBOLS, DIM, supports_rdoq=True)
        quantizer.lagrange_multiplier.copy_(torch.linspace(0.5, 0.1, CHANNELS))
        return quantizer
    return OneHotMax(CHANNELS, SYMBOLS, DIM, residual_quantization=kind == "residual")


@pytest.mark.parametrize("prior_kind", KINDS)
@pytest.mark.parametrize("kind", ["plain", "residual", "directional", "rdoq"])
@pytest.mark.parametrize("training", [True, False])
def test_layer_gives_latent_symbols_and_bits(kind: str, prior_kind: str, training: bool) -> None:
    torch.manual_seed(0)
    layer = Bottleneck(make_quantizer(kind), make_prior(prior_kind)).train(training)
    latent = (2 * torch.randn(6, DIM, 3, 4)).requires_grad_()
    active = torch.tensor([2, 5, 0, 1, 5, 3])
    result = layer(latent, active)
    assert isinstance(result, QuantizedLatent)
    latent_hat, symbols, bits = result
    assert latent_hat.shape == latent.shape
    assert (symbols.shape, symbols.dtype) == ((6, 3, 4, CHANNELS), torch.int64)
    assert symbols.min() >= 0
    assert symbols.max() < SYMBOLS
    assert bits.shape == (6,)
    for i, count in enumerate(active.tolist()):
        assert not symbols[i, ..., count:].any()
        decoded = layer.quantizer.dequantize(symbols[i : i + 1], count)
        torch.testing.assert_close(decoded, latent_hat[i : i + 1], atol=1e-5, rtol=0)
        alone = layer(latent[i : i + 1], count)
        assert torch.equal(alone.symbols[0], symbols[i])
        torch.testing.assert_close(alone.bits[0], bits[i], atol=1e-3, rtol=1e-5)
        assert (bits[i] > 0) == (count > 0)
        if prior_kind == "none":
            assert bits[i].item() == pytest.approx(12 * count * math.log2(SYMBOLS), rel=1e-5)
    (latent_hat.square().sum() + bits.sum()).backward()
    assert latent.grad is not None
    assert latent.grad.isfinite().all()
    assert latent.grad[0].abs().sum() > 0
    assert latent.grad[2].abs().sum() == 0  # no active channel


@pytest.mark.parametrize("prior_kind", KINDS)
@pytest.mark.parametrize("kind", ["plain", "residual", "directional"])
def test_all_channels_are_active_unless_told(kind: str, prior_kind: str) -> None:
    torch.manual_seed(1)
    quantizer, prior = make_quantizer(kind), make_prior(prior_kind)
    latent = 2 * torch.randn(3, DIM, 2, 2)
    everything = quantizer(latent, None, prior)
    for active in (CHANNELS, torch.full((3,), CHANNELS)):
        for one, other in zip(everything, quantizer(latent, active, prior), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("prior_kind", KINDS)
def test_every_parameter_of_layer_and_prior_gets_a_gradient(prior_kind: str) -> None:
    torch.manual_seed(2)
    for kind in ("residual", "directional"):
        layer = Bottleneck(make_quantizer(kind), make_prior(prior_kind))
        latent_hat, _, bits = layer(2 * torch.randn(8, DIM, 4, 4))
        (latent_hat.square().sum() + bits.sum()).backward()
        parameters = [(name, p) for name, p in layer.named_parameters() if p.numel()]
        missing = [name for name, p in parameters if p.grad is None or not p.grad.abs().sum() > 0]
        assert not missing, (kind, missing)


@pytest.mark.parametrize("prior_kind", KINDS)
@pytest.mark.parametrize("residual", [False, True])
def test_gradcheck_of_the_soft_layer(prior_kind: str, residual: bool) -> None:
    torch.manual_seed(3)
    prior = make_prior(prior_kind)
    quantizer = OneHotMax(CHANNELS, SYMBOLS, DIM, residual_quantization=residual)
    layer = Bottleneck(quantizer, prior).double()
    quantizer.inverse_temperature.data.fill_(2.0)
    quantizer.output_bias.data.fill_(1.0)  # away from the kink of the last ReLU
    latent = torch.rand(2, DIM, 2, 2, dtype=torch.float64).add(0.1).requires_grad_()
    active = torch.tensor([2, 4])
    # The tables of the tabulated prior stand on a grid, whose gradient passes straight through: its sums are no test.
    checked = [latent, quantizer.weight, quantizer.bias, quantizer.codewords]
    if prior_kind in ("tabulated", "checkerboard"):
        assert isinstance(prior, TabulatedPrior)
        checked = [prior.logits]
    elif prior is not None:
        checked += list(prior.parameters())[:2]

    def run(*_inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        result = layer(latent, active, soft=True)
        return result.latent_hat, result.bits

    assert torch.autograd.gradcheck(run, checked)


@pytest.mark.parametrize("name", ["static", "context"])
def test_layer_of_a_model_codes_as_the_model(name: str) -> None:
    model = make_model(name).eval()
    images = torch.randn(5, 1, 28, 28)
    with torch.no_grad():
        latent = model.analysis_transform(images)
        latent_hat, symbols, bits = model.quantizer(latent, None, model.prior)
        output = model(images, torch.full((5,), model.config.channels_max))
    assert torch.equal(model.synthesis_transform(latent_hat), output.reconstruction)
    assert torch.equal(bits, output.bits)
    assert torch.equal(symbols, model.symbols(images))


def test_directional_layer_follows_the_photo_model() -> None:
    model: PhotoModel = make_photo_model()
    model.quantizer.lagrange_multiplier.zero_()
    images = torch.randn(3, 3, 32, 48)
    with torch.no_grad():
        latent_hat, symbols, _ = model.quantizer(model.analysis_transform(images), None, model.prior)
        nearest = model.symbols(images)
    assert (symbols == nearest).float().mean() > 0.999  # floats near a threshold may be rounded to either side
    torch.testing.assert_close(model.quantizer.dequantize(symbols, 24), latent_hat, atol=1e-4, rtol=0)


def test_rdoq_minimises_distortion_plus_lambda_times_rate() -> None:
    """Between two neighbouring codewords, |a| + κ b chooses the symbol with the lower D + λR."""
    torch.manual_seed(4)
    spacing, lagrange_multiplier = 0.5, 0.08
    quantizer = DirectionalOneHotMax(1, 3, 1, supports_rdoq=True)
    with torch.no_grad():
        quantizer.project.fill_(1)
        quantizer.directions.fill_(1)
        quantizer.centres.copy_(torch.tensor([[-spacing, 0, spacing]]))
        quantizer.values.copy_(quantizer.centres)
        quantizer.lagrange_multiplier.fill_(lagrange_multiplier)
    x = torch.linspace(0.01, spacing - 0.01, 997)[:, None]
    logits = torch.tensor([[-30.0, 1.0, 0.0]])
    weight = quantizer.rdoq_weight(torch.tensor([1]), slice(0, 1), 3)
    torch.testing.assert_close(weight, torch.tensor([[lagrange_multiplier / spacing]]))
    chosen = quantizer.quantize(x, slice(0, 1), logits, rdoq_weight=weight.expand_as(x)).symbols[:, 0]
    bits = -torch.log_softmax(logits[0], 0) / math.log(2)
    cost = (x - quantizer.values).square() + lagrange_multiplier * bits
    assert torch.equal(chosen, cost[:, 1:].argmin(1) + 1)
    assert 0 < (chosen == 1).float().mean() < 1
    assert (chosen == 1).float().mean() > 0.6  # the likelier symbol wins beyond the middle


def test_rounding_layer() -> None:
    torch.manual_seed(5)
    prior = FactorizedPrior(CHANNELS)
    layer = Bottleneck(IntegerRounding(CHANNELS, 16), prior)
    latent = (3 * torch.randn(4, CHANNELS, 2, 3)).requires_grad_()
    active = torch.tensor([1, 5, 0, 3])
    noisy = layer(latent, active)
    assert (noisy.latent_hat - latent)[1].abs().max() <= 0.5
    noisy.bits.sum().backward()
    assert latent.grad is not None
    assert latent.grad[0, 0].abs().sum() > 0
    assert latent.grad[0, 1:].abs().sum() == 0
    layer.eval()
    latent_hat, symbols, bits = layer(latent, active)
    for i, count in enumerate(active.tolist()):
        decoded = layer.quantizer.dequantize(symbols[i : i + 1], count)
        assert torch.equal(decoded, latent_hat[i : i + 1])
        expected = prior.bits(latent_hat[i : i + 1])[:, :count].sum()
        torch.testing.assert_close(bits[i], expected)
    fixed = layer.quantizer(latent, active).bits
    assert fixed.tolist() == [6 * 4 * count for count in active.tolist()]


def test_identity_layer() -> None:
    latent = torch.randn(2, 3, 2, 2)
    latent_hat, symbols, bits = Identity(3)(latent, torch.tensor([1, 3]))
    assert not latent_hat[0, 1:].any()
    assert torch.equal(latent_hat[1], latent[1])
    assert symbols.shape == (2, 2, 2, 0)
    assert not bits.any()
    with pytest.raises(ValueError, match="no symbols"):
        Identity(3).symbols(latent)


def test_wrong_calls_are_refused() -> None:
    latent = torch.randn(2, DIM, 2, 2)
    for kind in ("plain", "directional"):
        quantizer = make_quantizer(kind)
        for active in (6, -1, torch.tensor([1, 6]), torch.tensor([1]), torch.tensor([[1, 2]])):
            with pytest.raises(ValueError, match="active channels"):
                quantizer(latent, active)
        with pytest.raises(ValueError, match="8 symbols"):
            quantizer(latent, None, StaticPrior(CHANNELS, 8))
    with pytest.raises(ValueError, match="groups of"):
        OneHotMax(CHANNELS, SYMBOLS, DIM, group_sizes=(3, 2))(latent, None, make_prior("context"))
    with pytest.raises(ValueError, match="sum to 5"):
        OneHotMax(CHANNELS, SYMBOLS, DIM, group_sizes=(3, 3))
    with pytest.raises(ValueError, match="alphabets"):
        DirectionalOneHotMax(CHANNELS, SYMBOLS, DIM, group_sizes=(3, 2), alphabets=(3,))
    with pytest.raises(ValueError, match="at least 3"):
        DirectionalOneHotMax(CHANNELS, 2, DIM, supports_rdoq=True)


@pytest.mark.parametrize("prior_kind", KINDS)
@pytest.mark.parametrize("kind", ["residual", "rdoq"])
def test_layers_stay_on_the_device_of_the_latent(kind: str, prior_kind: str) -> None:
    """On a GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    layer = Bottleneck(make_quantizer(kind), make_prior(prior_kind)).to(device)
    latent = torch.randn(2, DIM, 3, 3, device=device)
    result = layer(latent, torch.tensor([1, 5]))
    assert {value.device.type for value in result} == {device}
    assert layer.quantizer.symbols(latent).device.type == device
    assert layer.quantizer.dequantize(result.symbols, 5).device.type == device
