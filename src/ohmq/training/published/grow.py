"""OHM models of other sizes: larger alphabets, fewer or more channels."""

import dataclasses
from typing import NamedTuple

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
UNSEEN_COUNT = 0.05
"""Added to the count of each new symbol, so that symbols that do not occur have a finite code length."""


@torch.no_grad()
def grow_symbols(model: CompressionModel, num_symbols: int, images: Tensor) -> CompressionModel:
    """Build the same model with a larger alphabet.

    New codewords lie half-way between old ones and latents of the images that these represent badly. They start as rare
    symbols, so that the model codes almost as before; training finds out which are worth their bits.

    Args:
        model: an OHM model with residual quantization.
        num_symbols: the new S, larger than the model's.
        images: in [0, 1], shape (N, image_channels, H, W).
    """
    quantizer, prior = model.quantizer, model.prior
    assert isinstance(quantizer, OneHotMax)
    assert isinstance(prior, StaticPrior | ContextPrior)
    grown = build_model(dataclasses.replace(model.config, num_symbols=num_symbols))
    grown_quantizer, grown_prior = grown.quantizer, grown.prior
    assert isinstance(grown_quantizer, OneHotMax)
    assert isinstance(grown_prior, StaticPrior | ContextPrior)
    _copy_transforms(model, grown)
    grown_quantizer.output_bias.copy_(quantizer.output_bias)
    grown_quantizer.inverse_temperature.copy_(quantizer.inverse_temperature)
    residual = _latent_rows(model, images) - quantizer.output_bias
    channels = []
    for channel in range(len(quantizer.weight)):
        grown_channel = _grow_channel(quantizer, grown_quantizer, channel, residual)
        residual = grown_channel.residual
        channels.append(grown_channel)
    _grow_static(prior, grown_prior, torch.stack([channel.rarity for channel in channels]))
    if isinstance(grown_prior, ContextPrior) and isinstance(prior, ContextPrior):
        grown_prior.networks.load_state_dict(prior.networks.state_dict())
        grown_prior.input_scale.copy_(prior.input_scale)
        nearest = torch.stack([channel.nearest for channel in channels])
        copied = prior.features[torch.arange(len(channels))[:, None], nearest]
        grown_prior.features.copy_(torch.cat([prior.features, copied], 1))
    return grown


class _GrownChannel(NamedTuple):
    """New symbols of a channel, and the residual of the next channel.

    Attributes:
        nearest: old symbol whose codeword is nearest to that of each new symbol, (new symbols,), int64.
        rarity: negative log probability of each new symbol, (new symbols,).
        residual: (rows, D).
    """

    nearest: Tensor
    rarity: Tensor
    residual: Tensor


def _grow_channel(quantizer: OneHotMax, grown: OneHotMax, channel: int, rows: Tensor) -> _GrownChannel:
    """Set a channel of the grown quantizer: its old symbols, then new ones; rows (N, D) are the channel's residuals."""
    codewords, weight, bias = quantizer.codewords[channel], quantizer.weight[channel], quantizer.bias[channel]
    num_new = grown.num_symbols - len(codewords)
    activation = torch.addmm(bias, rows + quantizer.output_bias, weight.T).abs()
    best, symbols = activation.min(1)
    residual = rows - codewords[symbols]
    error = residual.square().sum(1)
    picked = torch.multinomial(error, num_new, replacement=len(error) < num_new)
    added = rows[picked] - residual[picked] / 2  # half-way: later channels expect a residual
    # After the vector warm start an activation is about scale * (squared distance - squared latent) + offset.
    distance = error - rows.square().sum(1)
    centred = distance - distance.mean()
    scale = ((best - best.mean()) * centred).sum() / centred.square().sum()
    offset = best.mean() - scale * distance.mean()
    squares = added.square().sum(1)
    added_activation = scale * (squares - 2 * rows @ added.T) + offset
    lift = -added_activation.amin(0).clamp_max(0)  # activations stay positive: the smallest is the nearest to zero
    best_added = (added_activation + lift).min(1)
    margin = (best - best_added.values).quantile(1 - GROWN_SHARE).clamp_min(0)
    takes_added = best_added.values + margin < best
    counts = torch.bincount(best_added.indices[takes_added], minlength=num_new).float()
    grown.codewords[channel] = torch.cat([codewords, added])
    grown.weight[channel] = torch.cat([weight, -2 * scale * added])
    added_bias = scale * (squares + 2 * added @ quantizer.output_bias) + offset + lift + margin
    grown.bias[channel] = torch.cat([bias, added_bias])
    return _GrownChannel(
        nearest=torch.cdist(added, codewords).argmin(1),
        rarity=-((counts + UNSEEN_COUNT) / len(rows)).log(),
        residual=torch.where(takes_added[:, None], rows - added[best_added.indices], residual),
    )


def _grow_static(prior: StaticPrior | ContextPrior, grown: StaticPrior | ContextPrior, rarity: Tensor) -> None:
    """Copy a static prior; rarity: negative log probabilities of the new symbols, (C, new symbols)."""
    source, target = (p.static if isinstance(p, ContextPrior) else p for p in (prior, grown))
    target.network[0].load_state_dict(source.network[0].state_dict())
    target.inverse_temperature.copy_(source.inverse_temperature)
    channels = source.num_channels
    old_layer, new_layer = source.network[2], target.network[2]
    assert isinstance(old_layer, nn.Conv2d)
    assert isinstance(new_layer, nn.Conv2d)
    assert old_layer.bias is not None
    assert new_layer.bias is not None
    weight = old_layer.weight.view(channels, source.num_symbols, -1)
    added_weight = weight.new_zeros(*rarity.shape, weight.shape[2])
    new_layer.weight.copy_(torch.cat([weight, added_weight], 1).view_as(new_layer.weight))
    # The old scores are not normalised: the new ones are relative to the smallest of their sums at any position.
    scores = source.network(rarity.new_ones(1, 1, 3, 3)).view(channels, source.num_symbols, 9).abs()
    total = torch.logsumexp(-scores * source.inverse_temperature[:, None, None], 1).amin(1)
    added_bias = (rarity - total[:, None]).clamp_min(0.01) / source.inverse_temperature[:, None]
    new_layer.bias.copy_(torch.cat([old_layer.bias.view(channels, -1), added_bias], 1).flatten())


@torch.no_grad()
def resize_channels(model: CompressionModel, config: ModelConfig, images: Tensor) -> CompressionModel:
    """Build the same model with the first of its channels, or with more.

    More channels start as nearest codewords of the old channels' residuals, with counted tables.

    Args:
        model: an OHM model with residual quantization.
        config: the model's configuration, with other channels_min or channels_max.
        images: in [0, 1], shape (N, image_channels, H, W).

    Raises:
        ConfigError: configurations that differ in more, or other channel-conditional groups.
    """
    _check_resizable(model.config, config)
    resized = build_model(config)
    quantizer, prior, new_quantizer, new_prior = model.quantizer, model.prior, resized.quantizer, resized.prior
    assert isinstance(quantizer, OneHotMax)
    assert isinstance(new_quantizer, OneHotMax)
    assert isinstance(prior, StaticPrior | ContextPrior)
    assert isinstance(new_prior, StaticPrior | ContextPrior)
    kept = min(quantizer.num_channels, new_quantizer.num_channels)
    _copy_transforms(model, resized)
    new_quantizer.output_bias.copy_(quantizer.output_bias)
    for name in ("weight", "bias", "inverse_temperature", "codewords"):
        getattr(new_quantizer, name)[:kept] = getattr(quantizer, name)[:kept]
    static, new_static = (p.static if isinstance(p, ContextPrior) else p for p in (prior, new_prior))
    if new_quantizer.num_channels > kept:
        new_static.initialise_from_counts(_add_channels(model, new_quantizer, images))
    new_static.network[0].load_state_dict(static.network[0].state_dict())
    new_static.inverse_temperature[:kept] = static.inverse_temperature[:kept]
    outputs = kept * config.num_symbols
    for name in ("weight", "bias"):
        getattr(new_static.network[2], name)[:outputs] = getattr(static.network[2], name)[:outputs]
    if isinstance(new_prior, ContextPrior) and isinstance(prior, ContextPrior):
        new_prior.input_scale.copy_(prior.input_scale)
        new_prior.features[:kept] = prior.features[:kept]
        for new_network, network in zip(new_prior.networks, prior.networks, strict=False):
            new_network.load_state_dict(network.state_dict())
    return resized


def _check_resizable(config: ModelConfig, wanted: ModelConfig) -> None:
    values, wanted_values = config.to_dict(), wanted.to_dict()
    changed = [
        f"{key} is {values.get(key)!r}, not {value!r}"
        for key, value in wanted_values.items()
        if key not in ("channels_min", "channels_max") and values.get(key) != value
    ]
    if changed:
        raise ConfigError(f"the model that training starts from has another configuration: {'; '.join(changed)}")
    sizes, wanted_sizes = config.group_sizes, wanted.group_sizes
    shared = min(len(sizes), len(wanted_sizes))
    if wanted_sizes[:shared] != sizes[:shared]:
        raise ConfigError(
            f"a start with groups of {sizes} channels, wanted {wanted_sizes}: one must begin with the other"
        )


def _add_channels(model: CompressionModel, quantizer: OneHotMax, images: Tensor) -> Tensor:
    """Set the channels that a model does not have to its residuals; returns counts of their symbols, (C, S)."""
    old = model.quantizer
    assert isinstance(old, OneHotMax)
    latent = model.analysis_transform(model.normalise(images)).relu()
    residual = latent.permute(0, 2, 3, 1).reshape(-1, latent.shape[1]) - old.output_bias
    symbols = old.symbols(latent, model.config.group_sizes).flatten(0, 2)
    for channel in range(old.num_channels):
        residual = residual - old.codewords[channel][symbols[:, channel]]
    counts = torch.ones(quantizer.num_channels, quantizer.num_symbols)
    for channel in range(old.num_channels, quantizer.num_channels):
        counts[channel], residual = set_nearest_codewords(quantizer, channel, residual)
    return counts


def _copy_transforms(model: CompressionModel, target: CompressionModel) -> None:
    target.analysis_transform.load_state_dict(model.analysis_transform.state_dict())
    target.synthesis_transform.load_state_dict(model.synthesis_transform.state_dict())


def _latent_rows(model: CompressionModel, images: Tensor) -> Tensor:
    """Latents of images in [0, 1], a row for each position, (rows, D)."""
    latent = model.analysis_transform(model.normalise(images)).relu()
    return latent.permute(0, 2, 3, 1).reshape(-1, latent.shape[1])
