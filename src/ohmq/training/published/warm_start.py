"""Warm starts: train the transforms around a simpler quantizer, then set OHM to that quantizer.

A uniform scalar quantizer of C linear combinations of the latent is a special case of OHM: equal steps along one
direction per channel. It trains about ten times faster (additive noise, no softmax; Ballé et al., End-to-end optimized
image compression, 2017), so OHM starts with nearly converged transforms, channels in order of importance, and priors
of counted symbols. The same holds for residual vector quantization, whose codebooks are running means (van den Oord et
al., Neural discrete representation learning, 2017).
"""

import torch
from torch import Tensor, nn

from ohmq.models import CompressionModel, ModelOutput
from ohmq.models.priors.context import ContextPrior
from ohmq.models.priors.factorized import FactorizedPrior
from ohmq.models.priors.static import StaticPrior
from ohmq.models.quantizers.one_hot_max import OneHotMax

__all__ = ["ScalarBottleneck", "VectorBottleneck", "set_nearest_codewords"]


class ScalarBottleneck(nn.Module):
    r"""The transforms of an OHM model around C uniformly quantized scalars.

    $$ y = P\,\mathrm{ReLU}(z) + o, \quad \tilde y = y + U(-\tfrac12, \tfrac12), \quad
       \hat z = \mathrm{ReLU}(Q \tilde y + \beta) $$

    Args:
        model: an OHM model; its transforms are trained in place.

    Shape:
        images: (batch, image_channels, H, W), normalised.
        active: (batch,), int64 in [0, C].
    """

    def __init__(self, model: CompressionModel) -> None:
        super().__init__()
        assert isinstance(model.quantizer, OneHotMax)
        self.model = model
        dim, channels = model.quantizer.latent_channels, model.quantizer.num_channels
        self.project, self.expand = nn.Linear(dim, channels), nn.Linear(channels, dim)
        nn.init.orthogonal_(self.project.weight, gain=3.0)
        nn.init.zeros_(self.project.bias)
        self.expand.weight.data.copy_(torch.linalg.pinv(self.project.weight.data))
        nn.init.zeros_(self.expand.bias)
        self.density = FactorizedPrior(channels)

    def forward(self, images: Tensor, active: Tensor) -> ModelOutput:
        """Reconstruct images from their first ``active`` scalars, with noise in training, else rounded.

        Args:
            images: normalised images.
            active: channels of each image.

        Returns:
            Reconstructions, and estimated bits of each image.
        """
        scalars = self._scalars(images)
        noisy = scalars + torch.rand_like(scalars) - 0.5 if self.training else scalars.round()
        mask = (torch.arange(noisy.shape[-1], device=active.device) < active[:, None]).to(noisy.dtype)[:, None, None]
        latent = self.expand(noisy * mask).relu().permute(0, 3, 1, 2)
        bits = self.density.bits(noisy.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) * mask
        return ModelOutput(self.model.synthesis_transform(latent), bits.flatten(1).sum(1))

    def _scalars(self, images: Tensor) -> Tensor:
        return self.project(self.model.analysis_transform(images).relu().permute(0, 2, 3, 1))

    @torch.no_grad()
    def transfer(self, images: Tensor) -> None:
        """Set the model's OHM quantizer and prior to this scalar quantizer.

        Args:
            images: normalised images whose symbols are counted, shape (batch, image_channels, H, W).
        """
        quantizer = self.model.quantizer
        assert isinstance(quantizer, OneHotMax)
        quantizer.initialise_scalar(
            self.project.weight, self.project.bias, self.expand.weight.T.contiguous(), self.expand.bias
        )
        symbols = self.model.symbols(images).flatten(0, 2)
        counts = torch.stack([torch.bincount(s, minlength=quantizer.num_symbols) for s in symbols.T]).float()
        if isinstance(self.model.prior, ContextPrior):
            levels = (symbols - quantizer.num_symbols // 2).float()
            self.model.prior.initialise_from_counts(counts, float((levels @ self.expand.weight.T).std()))
        elif isinstance(self.model.prior, StaticPrior):
            self.model.prior.initialise_from_counts(counts)


class VectorBottleneck(nn.Module):
    r"""The transforms of an OHM model around residual vector quantization, one small codebook per channel.

    Channel c quantizes the residual of the channels before it, with the nearest of K codewords. Gradients pass straight
    through; codebooks are running means. The nearest codeword is a special case of OHM with residual quantization:
    $a_s = o + \|e_s\|^2 - 2 e_s \cdot r$, with o large enough that every activation is positive, is smallest for the
    codeword nearest to the residual r.

    Args:
        model: an OHM model with residual quantization; its transforms are trained in place.
        num_codewords: K, codewords of a channel in the warm start, at most the model's alphabet.
        commitment: weight of the squared distance between latent and codewords.

    Shape:
        images: (batch, image_channels, H, W), normalised.
        active: (batch,), int64 in [0, C].
    """

    DECAY = 0.98
    """Decay of the running means, per step."""
    RARE_SHARE = 0.002
    """A codeword used by a smaller share of the residuals starts again at one of them."""
    RESTART_SHARE = 0.01
    """Share of the residuals that a restarted codeword counts as."""

    def __init__(self, model: CompressionModel, num_codewords: int = 32, commitment: float = 2e-4) -> None:
        super().__init__()
        assert isinstance(model.quantizer, OneHotMax)
        num_codewords = min(num_codewords, model.quantizer.num_symbols)
        self.model, self.num_codewords, self.commitment = model, num_codewords, commitment
        channels, dim = model.quantizer.num_channels, model.quantizer.latent_channels
        self.register_buffer("codewords", torch.zeros(channels, num_codewords, dim))
        self.register_buffer("counts", torch.zeros(channels, num_codewords))
        self.register_buffer("sums", torch.zeros(channels, num_codewords, dim))
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("started", torch.tensor(False))
        self.codewords: Tensor
        self.counts: Tensor
        self.sums: Tensor
        self.centre: Tensor
        self.started: Tensor

    def _rows(self, images: Tensor) -> Tensor:
        latent = self.model.analysis_transform(images).relu()
        return latent.permute(0, 2, 3, 1).reshape(-1, latent.shape[1])

    @torch.no_grad()
    def start(self, images: Tensor) -> None:
        """Set the codebooks by k-means on the latents of images; from now on `forward` quantizes.

        Args:
            images: normalised images.
        """
        rows = self._rows(images)
        self.centre.copy_(rows.mean(0))
        residual = rows - self.centre
        for c in range(len(self.codewords)):
            codewords, index = _lloyd(residual, _sample(residual, self.num_codewords), rounds=10)
            count = torch.bincount(index, minlength=self.num_codewords) + 0.1
            self.codewords[c], self.counts[c], self.sums[c] = codewords, count, codewords * count[:, None]
            residual = residual - codewords[index]
        self.started.fill_(True)

    @torch.no_grad()
    def _quantize(self, rows: Tensor, active: Tensor) -> Tensor:
        residual, total = rows - self.centre, self.centre.expand_as(rows).clone()
        for c in range(len(self.codewords)):
            codewords = self.codewords[c]
            index = _nearest(residual, codewords)
            total += codewords[index] * (active > c)[:, None]
            if self.training:
                self._update(c, residual, index)
            residual = residual - codewords[index]
        return total

    def _update(self, c: int, residual: Tensor, index: Tensor) -> None:
        count = torch.bincount(index, minlength=self.num_codewords).to(residual.dtype)
        self.counts[c].lerp_(count, 1 - self.DECAY)
        self.sums[c].lerp_(torch.zeros_like(self.sums[c]).index_add_(0, index, residual), 1 - self.DECAY)
        rare = self.counts[c] < len(residual) * self.RARE_SHARE
        if rare.any():
            restart = len(residual) * self.RESTART_SHARE
            self.sums[c][rare] = _sample(residual, int(rare.sum())) * restart
            self.counts[c][rare] = restart
        self.codewords[c] = self.sums[c] / self.counts[c][:, None]

    def forward(self, images: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruct images from their first ``active`` channels.

        Args:
            images: normalised images.
            active: channels of each image.

        Returns:
            Reconstructions, and the commitment loss (scalar; 0 before `start`).
        """
        rows = self._rows(images)
        batch = len(images)
        positions = len(rows) // batch
        loss = rows.new_zeros(())
        if self.started:
            quantized = self._quantize(rows.detach(), active.repeat_interleave(positions))
            loss = self.commitment * (rows - quantized).square().sum(1).mean()
            rows = rows + (quantized - rows).detach()
        side = int(positions**0.5)
        latent = rows.relu().view(batch, side, side, -1).permute(0, 3, 1, 2)
        return self.model.synthesis_transform(latent), loss

    @torch.no_grad()
    def transfer(self, images: Tensor, sharpness: float = 0.8) -> None:
        """Set the model's OHM quantizer and prior to these codebooks, extended to all symbols of the model.

        Args:
            images: normalised images whose residuals and symbols are counted.
            sharpness: mean of the largest softmax weight, which sets each channel's inverse temperature.
        """
        quantizer = self.model.quantizer
        assert isinstance(quantizer, OneHotMax)
        rows = self._rows(images)
        residual = rows - self.centre
        quantizer.output_bias.copy_(self.centre)
        counts = torch.zeros(quantizer.num_channels, quantizer.num_symbols)
        for c in range(quantizer.num_channels):
            extra = _sample(residual, max(0, quantizer.num_symbols - self.num_codewords))
            start = torch.cat([self.codewords[c], extra])[: quantizer.num_symbols]
            counts[c], residual = set_nearest_codewords(quantizer, c, residual, start, sharpness)
        if isinstance(self.model.prior, ContextPrior):
            self.model.prior.initialise_from_counts(counts, float((rows - self.centre).std()))
        elif isinstance(self.model.prior, StaticPrior):
            self.model.prior.initialise_from_counts(counts)


@torch.no_grad()
def set_nearest_codewords(
    quantizer: OneHotMax, channel: int, residual: Tensor, start: Tensor | None = None, sharpness: float = 0.8
) -> tuple[Tensor, Tensor]:
    """Set a channel of a quantizer with residual quantization to S codewords, the k-means of its residuals.

    Args:
        quantizer: the quantizer; its output bias is set already.
        channel: index of the channel.
        residual: latents less the output bias and the codewords of earlier channels, (rows, D).
        start: codewords that k-means starts from, (S, D); None: random rows.
        sharpness: mean of the largest softmax weight, which sets the channel's inverse temperature.

    Returns:
        Counts of the symbols, (S,), and the residual of the next channel, (rows, D).
    """
    start = _sample(residual, quantizer.num_symbols) if start is None else start
    codewords, index = _lloyd(residual, start, rounds=8)
    offset = residual.square().sum(1).max() * 1.3
    quantizer.codewords[channel] = codewords
    quantizer.weight[channel] = -2 * codewords
    # Channels see the latent minus earlier codewords: the output bias is still in it.
    quantizer.bias[channel] = codewords.square().sum(1) + offset + 2 * codewords @ quantizer.output_bias
    quantizer.inverse_temperature[channel] = _temperature(_distances(residual, codewords), sharpness)
    return torch.bincount(index, minlength=len(codewords)), residual - codewords[index]


def _sample(rows: Tensor, count: int) -> Tensor:
    return rows[torch.randint(len(rows), (count,), device=rows.device)]


def _distances(rows: Tensor, codewords: Tensor) -> Tensor:
    """Squared distances less the squared norms of the rows, (rows, codewords)."""
    return torch.addmm(codewords.square().sum(1), rows, codewords.T, alpha=-2)


def _nearest(rows: Tensor, codewords: Tensor) -> Tensor:
    return _distances(rows, codewords).argmin(1)


def _lloyd(rows: Tensor, codewords: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """Lloyd's k-means: codewords (K, D), and the nearest for each row. A codeword without rows starts again at one."""
    for _ in range(rounds):
        index = _nearest(rows, codewords)
        count = torch.bincount(index, minlength=len(codewords))[:, None]
        means = torch.zeros_like(codewords).index_add_(0, index, rows) / count.clamp_min(1)
        codewords = torch.where(count > 0, means, _sample(rows, len(codewords)))
    return codewords, _nearest(rows, codewords)


def _temperature(distances: Tensor, sharpness: float) -> float:
    """Find the inverse temperature at which the largest softmax weight is ``sharpness`` on average, by bisection."""
    low, high = 1e-4, 1e5
    for _ in range(40):
        middle = (low * high) ** 0.5
        peak = float(torch.softmax(-middle * distances, -1).amax(-1).mean())
        low, high = (middle, high) if peak < sharpness else (low, middle)
    return middle
