"""OHM models of other sizes: larger alphabets, fewer or more channels."""

import dataclasses

import torch
from torch import Tensor, nn

from ohmq.errors import ConfigError
from ohmq.models import CompressionModel, ModelConfig, build_model
from ohmq.models.priors.context import ContextPrior
from ohmq.models.priors.static import StaticPrior
from ohmq.models.quantizers.one_hot_max import OneHotMax
from ohmq.training.published.warm_start import set_nearest_codewords

__all__ = ["grow_symbols", "resize_channels"]

GROWN_SHARE = 0.002
"""Share of a channel's symbols that are new ones just after growing."""


@torch.no_grad()
def grow_symbols(model: CompressionModel, num_symbols: int, images: Tensor) -> CompressionModel:
    """The same model with a larger alphabet.

    New codewords lie half-way between old ones and latents of the images that these represent badly. They start as rare
    symbols, so that the model codes almost as before; training finds out which are worth their bits.

    Args:
        model: an OHM model with refinement. num_symbols: the new S.
        images: in [0, 1], shape (N, image_channels, H, W).
    """
    quantizer, old_prior = model.quantizer, model.prior
    assert isinstance(quantizer, OneHotMax)
    assert isinstance(old_prior, StaticPrior | ContextPrior)
    grown = build_model(dataclasses.replace(model.config, num_symbols=num_symbols))
    new, prior = grown.quantizer, grown.prior
    assert isinstance(new, OneHotMax)
    assert isinstance(prior, StaticPrior | ContextPrior)
    channels, old, dim = quantizer.weight.shape
    grown.analysis_transform.load_state_dict(model.analysis_transform.state_dict())
    grown.synthesis_transform.load_state_dict(model.synthesis_transform.state_dict())
    new.output_bias.copy_(quantizer.output_bias)
    new.inverse_temperature.copy_(quantizer.inverse_temperature)
    latent = model.analysis_transform(model.normalise(images)).relu()
    rest = latent.permute(0, 2, 3, 1).reshape(-1, dim) - quantizer.output_bias
    nearest = torch.empty(channels, num_symbols - old, dtype=torch.int64)
    rarity = torch.empty(channels, num_symbols - old)
    for c in range(channels):
        activation = torch.addmm(quantizer.bias[c], rest + quantizer.output_bias, quantizer.weight[c].T).abs()
        best, symbols = activation.min(1)
        left = rest - quantizer.codewords[c][symbols]
        error = left.square().sum(1)
        picked = torch.multinomial(error, num_symbols - old, replacement=len(error) < num_symbols - old)
        added = rest[picked] - left[picked] / 2  # half of the way: later channels expect something to be left
        # After the vector start an activation is about scale * (squared distance - squared latent) + offset.
        distance = error - rest.square().sum(1)
        centred = distance - distance.mean()
        scale = ((best - best.mean()) * centred).sum() / centred.square().sum()
        offset = best.mean() - scale * distance.mean()
        squares = added.square().sum(1)
        candidate = scale * (squares - 2 * rest @ added.T) + offset
        lift = -candidate.amin(0).clamp_max(0)  # activations stay positive: the smallest is the nearest to zero
        rivals = (candidate + lift).min(1)
        margin = (best - rivals.values).quantile(1 - GROWN_SHARE).clamp_min(0)
        taken = rivals.values + margin < best
        count = torch.bincount(rivals.indices[taken], minlength=len(added)).float()
        new.codewords[c] = torch.cat([quantizer.codewords[c], added])
        new.weight[c] = torch.cat([quantizer.weight[c], -2 * scale * added])
        bias = scale * (squares + 2 * added @ quantizer.output_bias) + offset + lift + margin
        new.bias[c] = torch.cat([quantizer.bias[c], bias])
        nearest[c] = torch.cdist(added, quantizer.codewords[c]).argmin(1)
        rarity[c] = -((count + 0.05) / len(rest)).log()
        rest = torch.where(taken[:, None], rest - added[rivals.indices], left)
    _grow_static(old_prior, prior, rarity)
    if isinstance(prior, ContextPrior) and isinstance(old_prior, ContextPrior):
        prior.networks.load_state_dict(old_prior.networks.state_dict())
        prior.input_scale.copy_(old_prior.input_scale)
        copied = old_prior.features[torch.arange(channels)[:, None], nearest]
        prior.features.copy_(torch.cat([old_prior.features, copied], 1))
    return grown


def _grow_static(old: StaticPrior | ContextPrior, new: StaticPrior | ContextPrior, rarity: Tensor) -> None:
    """Copy a static prior; new symbols have the given negative log probabilities, shape (C, new symbols)."""
    source, target = (p.static if isinstance(p, ContextPrior) else p for p in (old, new))
    target.network[0].load_state_dict(source.network[0].state_dict())
    target.inverse_temperature.copy_(source.inverse_temperature)
    channels = source.num_channels
    before, after = source.network[2], target.network[2]
    assert isinstance(before, nn.Conv2d)
    assert isinstance(after, nn.Conv2d)
    assert before.bias is not None
    assert after.bias is not None
    weight = before.weight.view(channels, source.num_symbols, -1)
    after.weight.copy_(torch.cat([weight, weight.new_zeros(*rarity.shape, weight.shape[2])], 1).view_as(after.weight))
    # The old scores are not normalised: what is added is in proportion to their smallest sum at any position.
    scores = source.network(rarity.new_ones(1, 1, 3, 3)).view(channels, source.num_symbols, 9).abs()
    total = torch.logsumexp(-scores * source.inverse_temperature[:, None, None], 1).amin(1)
    added = (rarity - total[:, None]).clamp_min(0.01) / source.inverse_temperature[:, None]
    after.bias.copy_(torch.cat([before.bias.view(channels, -1), added], 1).flatten())


@torch.no_grad()
def resize_channels(model: CompressionModel, config: ModelConfig, images: Tensor) -> CompressionModel:
    """The same model with the first of its channels, or with more.

    More channels start as nearest codewords of what the old ones leave of the images, with counted tables.

    Args:
        model: an OHM model with refinement. config: as the model's, but for channels_min and channels_max.
        images: in [0, 1], shape (N, image_channels, H, W).

    Raises:
        ConfigError: configurations that differ in more, or other groups of channels.
    """
    found, wanted = model.config.to_dict(), config.to_dict()
    free = ("channels_min", "channels_max")
    changed = [f"{key} is {found.get(key)!r}, not {value!r}" for key, value in wanted.items()
               if key not in free and found.get(key) != value]  # fmt: skip
    if changed:
        raise ConfigError(f"what training starts from has another configuration: {'; '.join(changed)}")
    resized = build_model(config)
    old, new, old_prior, prior = model.quantizer, resized.quantizer, model.prior, resized.prior
    assert isinstance(old, OneHotMax)
    assert isinstance(new, OneHotMax)
    assert isinstance(old_prior, StaticPrior | ContextPrior)
    assert isinstance(prior, StaticPrior | ContextPrior)
    kept = min(old.num_channels, new.num_channels)
    groups, old_groups = config.group_sizes, model.config.group_sizes
    shared = min(len(groups), len(old_groups))
    if groups[:shared] != old_groups[:shared]:
        raise ConfigError(
            f"a start with groups of {old_groups} channels, wanted {groups}: one must begin with the other"
        )
    resized.analysis_transform.load_state_dict(model.analysis_transform.state_dict())
    resized.synthesis_transform.load_state_dict(model.synthesis_transform.state_dict())
    new.output_bias.copy_(old.output_bias)
    for name in ("weight", "bias", "inverse_temperature", "codewords"):
        getattr(new, name)[:kept] = getattr(old, name)[:kept]
    static, old_static = (p.static if isinstance(p, ContextPrior) else p for p in (prior, old_prior))
    if new.num_channels > kept:
        latent = model.analysis_transform(model.normalise(images)).relu()
        residual = latent.permute(0, 2, 3, 1).reshape(-1, latent.shape[1]) - old.output_bias
        symbols = old.symbols(latent, old_groups).flatten(0, 2)
        for c in range(kept):
            residual = residual - old.codewords[c][symbols[:, c]]
        counts = torch.ones(new.num_channels, config.num_symbols)
        for c in range(kept, new.num_channels):
            counts[c], residual = set_nearest_codewords(new, c, residual)
        static.initialise_from_counts(counts)
    static.network[0].load_state_dict(old_static.network[0].state_dict())
    static.inverse_temperature[:kept] = old_static.inverse_temperature[:kept]
    for name in ("weight", "bias"):
        before, after = getattr(old_static.network[2], name), getattr(static.network[2], name)
        after[: kept * config.num_symbols] = before[: kept * config.num_symbols]
    if isinstance(prior, ContextPrior) and isinstance(old_prior, ContextPrior):
        prior.input_scale.copy_(old_prior.input_scale)
        prior.features[:kept] = old_prior.features[:kept]
        for network, old_network in zip(prior.networks, old_prior.networks, strict=False):
            network.load_state_dict(old_network.state_dict())
    return resized
