"""The literal formulation of OHM, written from the published description: the baseline of tests and benchmarks.

Every activation, softmax and one-hot vector is stored; the prior's network runs for every image.
"""

import copy

import torch
from torch import Tensor, nn

from ohmq.models import CompressionModel, ModelOutput
from ohmq.models.priors.static import StaticPrior
from ohmq.models.quantizers.one_hot_max import OneHotMax


class LiteralOhm(nn.Module):
    """A model with the static prior, computed literally, with the same weights.

        a = Conv1x1(ReLU(z)); soft = softmax_s(-|a| * tau); q = one_hot(argmax_s -|a|), gradient of soft;
        q = q * (channel < active); z_hat = ReLU(Conv1x1(q)); bits = sum of -log2(p + 1e-8) weighed by q

    Args:
        model: an OHM model without residual quantization; its weights are copied.

    Shape:
        images: (batch, image_channels, H, W). active: (batch,).
    """

    def __init__(self, model: CompressionModel) -> None:
        super().__init__()
        quantizer, prior = model.quantizer, model.prior
        assert isinstance(quantizer, OneHotMax)
        assert isinstance(prior, StaticPrior)
        channels, symbols, dim = quantizer.weight.shape
        self.channels, self.symbols = channels, symbols
        self.analysis_transform = copy.deepcopy(model.analysis_transform)
        self.synthesis_transform = copy.deepcopy(model.synthesis_transform)
        self.conv_in, self.conv_out = nn.Conv2d(dim, channels * symbols, 1), nn.Conv2d(channels * symbols, dim, 1)
        self.inverse_temperature = nn.Parameter(quantizer.inverse_temperature.detach().clone())
        self.prior = copy.deepcopy(prior)
        with torch.no_grad():  # output index = symbol * C + channel
            self.conv_in.weight.copy_(quantizer.weight.transpose(0, 1).reshape(channels * symbols, dim, 1, 1))
            self.conv_in.bias.copy_(quantizer.bias.T.reshape(-1))
            self.conv_out.weight.copy_(quantizer.codewords.permute(2, 1, 0).reshape(dim, channels * symbols, 1, 1))
            self.conv_out.bias.copy_(quantizer.output_bias)

    def forward(self, images: Tensor, active: Tensor) -> ModelOutput:
        """Reconstruct images; arguments as `CompressionModel.forward`."""
        latent = self.analysis_transform(images)
        batch, _, height, width = latent.shape
        shape = (batch, self.symbols, self.channels, height, width)
        scores = -self.conv_in(latent.relu()).view(shape).abs()
        soft = torch.softmax(scores * self.inverse_temperature[:, None, None], 1)
        hard = torch.zeros_like(soft).scatter_(1, scores.argmax(1, keepdim=True), 1.0)
        one_hot = hard + soft - soft.detach()
        mask = torch.arange(self.channels, device=active.device) < active[:, None]
        one_hot = one_hot * mask[:, None, :, None, None]
        latent = self.conv_out(one_hot.view(batch, -1, height, width)).relu()
        out = self.prior.network(latent.new_ones(batch, 1, height, width))
        # The prior's own network orders its outputs channel by channel.
        out = out.view(batch, self.channels, self.symbols, height, width).transpose(1, 2)
        p = torch.softmax(-out.abs() * self.prior.inverse_temperature[:, None, None], 1)
        bits = (one_hot * -torch.log2(p + 1e-8)).flatten(1).sum(1)
        return ModelOutput(self.synthesis_transform(latent), bits)

    def gradients(self) -> dict[str, Tensor]:
        """Return the gradients under the names and in the shapes of the fast model's parameters."""
        channels, symbols = self.channels, self.symbols
        dim = self.conv_out.out_channels
        gradients = {name: p.grad for name, p in self.named_parameters() if not name.startswith("conv_")}
        gradients["quantizer.inverse_temperature"] = gradients.pop("inverse_temperature")
        weight, bias = self.conv_in.weight.grad, self.conv_in.bias.grad
        assert weight is not None
        assert bias is not None
        assert self.conv_out.weight.grad is not None
        gradients["quantizer.weight"] = weight.view(symbols, channels, dim).transpose(0, 1)
        gradients["quantizer.bias"] = bias.view(symbols, channels).T
        gradients["quantizer.codewords"] = self.conv_out.weight.grad.view(dim, symbols, channels).permute(2, 1, 0)
        gradients["quantizer.output_bias"] = self.conv_out.bias.grad if self.conv_out.bias is not None else None
        return {name: value for name, value in gradients.items() if value is not None}
