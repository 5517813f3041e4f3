import importlib.util
import math
from pathlib import Path

import pytest
import torch

from ohmq.models import MnistConfig, build_model
from ohmq.models.config import active_channels
from ohmq.models.quantizers.directional import DirectionalOneHotMax
from ohmq.models.quantizers.one_hot_max import OneHotMax, one_hot_to_symbols, symbols_to_one_hot
from ohmq.models.quantizers.rounding import Identity, IntegerRounding
from ohmq.training.losses import rate_distortion_loss

_path = Path(__file__).parents[3] / "benchmarks" / "literal.py"
_spec = importlib.util.spec_from_file_location("literal", _path)
assert _spec is not None
assert _spec.loader is not None
literal = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(literal)


@pytest.mark.parametrize("symbols", [2, 7, 32])
@pytest.mark.parametrize("tau", [100.0, 3.0])
def test_fast_layer_equals_the_literal_formulation(symbols: int, tau: float) -> None:
    torch.manual_seed(symbols)
    model = build_model(MnistConfig(channels_max=5, num_symbols=symbols))
    with torch.no_grad():
        model.quantizer.inverse_temperature.fill_(tau)
        model.quantizer.codewords.mul_(10)
    slow = literal.LiteralOhm(model)
    images = torch.randn(37, 1, 28, 28)
    active = torch.randint(0, 6, (37,))
    lagrangian = torch.rand(37)
    losses = []
    for net in (model, slow):
        output = net(images, active)
        result = rate_distortion_loss(images, output.reconstruction, output.bits, lagrangian)
        result.loss.backward()
        losses.append(result.loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    wanted = slow.gradients()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        error = (parameter.grad - wanted[name]).norm() / wanted[name].norm().clamp_min(1e-12)
        assert error < 1e-4, (name, float(error))


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("positions_in_table", [1, 4])
def test_gradcheck_of_the_soft_assignment(context: bool, positions_in_table: int) -> None:
    torch.manual_seed(0)
    quantizer = OneHotMax(3, 5, 2).double()
    quantizer.inverse_temperature.data.fill_(2.0)
    latent = torch.rand(4, 3, 2, dtype=torch.float64, requires_grad=True)
    table = torch.rand(positions_in_table, 3, 5, dtype=torch.float64, requires_grad=True)
    coefficients = torch.rand(4, 3, 3, 2, dtype=torch.float64, requires_grad=True) if context else None
    features = torch.rand(3, 5, 2, dtype=torch.float64, requires_grad=True) if context else None
    active = torch.tensor([3, 2, 1])
    inputs = [latent, table, *quantizer.parameters()] + ([coefficients, features] if context else [])

    def run(*_inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        group = quantizer.quantize_group(latent, active, range(3), table, coefficients, features, soft=True)
        return group.latent, group.bits

    used = [x for x in inputs if x is not quantizer.output_bias]
    assert torch.autograd.gradcheck(run, used)


def test_hard_and_soft_backward_share_the_gradient_of_the_choice() -> None:
    """With a sharp softmax the soft path is the hard one, in values and in every gradient."""
    torch.manual_seed(1)
    quantizer = OneHotMax(2, 6, 3).double()
    quantizer.weight.data.zero_()
    quantizer.bias.data.copy_(torch.tensor([0.0, 5, 6, 7, 8, 9]).expand(2, 6))
    quantizer.inverse_temperature.data.fill_(30.0)
    table = torch.rand(1, 2, 6, dtype=torch.float64)
    latent = torch.rand(2, 4, 3, dtype=torch.float64)
    out = []
    for soft in (False, True):
        quantizer.zero_grad()
        group = quantizer.quantize_group(latent, torch.full((4,), 2), range(2), table, soft=soft)
        (group.latent.square().sum() + group.bits.sum()).backward()
        out.append((group.latent.detach(), group.bits.detach(), quantizer.codewords.grad.clone()))
    for hard, soft_value in zip(*out, strict=True):
        torch.testing.assert_close(hard, soft_value)


def test_every_alphabet_size_gives_its_own_symbols() -> None:
    for symbols in (2, 3, 5, 17, 256):
        quantizer = OneHotMax(4, symbols, 6)
        chosen = quantizer.symbols(torch.randn(50, 6, 3, 3))
        assert chosen.shape == (50, 3, 3, 4)
        assert chosen.min() >= 0
        assert chosen.max() < symbols


def test_dequantize_adds_the_codewords_of_active_channels() -> None:
    quantizer = OneHotMax(3, 4, 5)
    symbols = torch.randint(0, 4, (2, 3, 3, 3))
    expected = quantizer.output_bias.detach().clone().expand(2, 3, 3, 5).clone()
    for c in range(2):
        expected += quantizer.codewords.detach()[c][symbols[..., c]]
    torch.testing.assert_close(quantizer.dequantize(symbols, 2), expected.relu().permute(0, 3, 1, 2))
    bare = quantizer.dequantize(symbols, 0)
    torch.testing.assert_close(bare[0, :, 0, 0], quantizer.output_bias.detach().relu())
    with pytest.raises(ValueError, match="has 3"):
        quantizer.dequantize(symbols, 4)


def test_scalar_start_rounds() -> None:
    quantizer = OneHotMax(2, 16, 2)
    identity = torch.eye(2)
    quantizer.initialise_scalar(identity, torch.tensor([0.0, 0.5]), identity, torch.zeros(2))
    latent = torch.tensor([0.2, 2.4])[None, :, None, None]
    symbols = quantizer.symbols(latent)[0, 0, 0] - 8
    assert symbols.tolist() == [0, 3]
    assert quantizer.dequantize(symbols[None, None, None] + 8, 2).flatten().tolist() == [0.0, 3.0]


def test_residual_quantization_sees_the_rest() -> None:
    quantizer = OneHotMax(2, 8, 1)
    line = torch.ones(2, 1)
    quantizer.initialise_scalar(line, torch.zeros(2), torch.tensor([[1.0], [0.1]]), torch.zeros(1))
    quantizer.weight.data[1] *= 10
    latent = torch.full((1, 1, 1, 1), 2.3)
    symbols = quantizer.symbols(latent, (1, 1))
    assert (symbols - 4).flatten().tolist() == [2, 3]
    assert quantizer.dequantize(symbols, 2).item() == pytest.approx(2.3)


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("use_rdoq", [False, True])
@pytest.mark.parametrize("block", [1, 40, 10_000])
def test_scalar_channels_equal_the_literal_formulation(
    context: bool, use_rdoq: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values, bits and all gradients, of a straight-through softmax written out with autograd."""
    monkeypatch.setattr("ohmq.models.quantizers.directional.SCALAR_BLOCK_ELEMENTS", block)
    torch.manual_seed(block)
    quantizer = DirectionalOneHotMax(6, 7, 3).double()
    with torch.no_grad():
        quantizer.centres.add_(torch.randn_like(quantizer.centres) / 4)
        quantizer.values.add_(torch.randn_like(quantizer.values) / 4)
        quantizer.log_temperature.fill_(0.7)
    used, size = slice(1, 5), 5
    projected, logits, u, features = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 3, 4, 4), (4, size), (2, 3, 4, 4, 2), (4, size, 2))
    )
    inputs = [projected, logits, quantizer.centres, quantizer.values, quantizer.log_temperature]
    inputs += [u, features] if context else []
    centres, values = quantizer.centres[used, :size], quantizer.values[used, :size]
    distance = (projected[..., None] - centres).abs()
    tables = logits + torch.einsum("...ck,csk->...cs", u, features) if context else logits
    rdoq_weight = torch.rand(2, 3, 4, 4, dtype=torch.float64) * 0.5 if use_rdoq else None
    nearest = distance.argmin(-1)
    if rdoq_weight is not None:
        distance = distance - rdoq_weight[..., None] * torch.log_softmax(tables, -1).detach() / math.log(2)
        assert (distance.argmin(-1) != nearest).any()
    soft = torch.softmax(-distance * quantizer.log_temperature[used].exp()[:, None], -1)
    assignment = (symbols_to_one_hot(distance.argmin(-1), size) - soft).detach() + soft
    wanted = (assignment * values).sum(-1), -(assignment * torch.log_softmax(tables, -1)).sum(-1) / math.log(2)
    context_tables = (u, features) if context else (None, None)
    choice = quantizer.quantize(projected, used, logits, *context_tables, rdoq_weight=rdoq_weight)
    assert torch.equal(choice.symbols, distance.argmin(-1))
    if not use_rdoq:
        assert torch.allclose(quantizer.nearest_values(projected, used, size), choice.values)
        assert torch.equal(quantizer.nearest(projected, used, size), choice.symbols)
    quantized = choice.values, choice.bits
    weights = [torch.randn_like(projected) for _ in wanted]
    gradients = []
    for output in (wanted, quantized):
        total = sum((part * weight).sum() for part, weight in zip(output, weights, strict=True))
        gradients.append(torch.autograd.grad(total, inputs))
    for ours, theirs in zip((*quantized, *gradients[1]), (*wanted, *gradients[0]), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_one_hot_round_trip() -> None:
    symbols = torch.randint(0, 9, (3, 4))
    assert torch.equal(one_hot_to_symbols(symbols_to_one_hot(symbols, 9)), symbols)


def test_integer_rounding() -> None:
    quantizer = IntegerRounding(2, 8)
    assert (quantizer.minimum, quantizer.maximum) == (-3, 4)
    latent = torch.tensor([[-9.0, -1.4], [0.6, 9.0]]).view(1, 2, 1, 2)
    quantizer.eval()
    assert quantizer(latent).latent_hat.flatten().tolist() == [-3.0, -1.0, 1.0, 4.0]
    symbols = quantizer.symbols(latent)
    torch.testing.assert_close(quantizer.dequantize(symbols, 2), quantizer(latent).latent_hat)
    assert quantizer.dequantize(symbols, 1)[0, 1].abs().sum() == 0
    quantizer.train()
    noise = quantizer(torch.zeros(1, 2, 50, 50)).latent_hat
    assert noise.abs().max() <= 0.5
    assert noise.std() == pytest.approx(math.sqrt(1 / 12), rel=0.1)


def test_identity_passes() -> None:
    latent = torch.randn(1, 2, 3, 3)
    assert Identity(2)(latent).latent_hat is latent


def test_active_channels() -> None:
    assert [active_channels(k / 16, 0, 16) for k in range(17)] == list(range(17))
    assert active_channels(0.33, 8, 16) == 11
    for arguments in ((1.1, 0, 16), (-0.1, 0, 16), (0.5, 5, 4), (0.5, -1, 4)):
        with pytest.raises(ValueError):
            active_channels(*arguments)


@pytest.mark.parametrize("arguments", [(4, 1, 8), (0, 4, 8)])
def test_impossible_alphabets_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError):
        OneHotMax(*arguments)
