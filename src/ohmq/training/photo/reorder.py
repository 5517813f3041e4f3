"""Order of the channels of a photo model by how much their errors show.

Channels follow each other by the squared error that they save per bit. That puts fine passes over low frequencies late, though
their errors show most. Here the slope of each channel is multiplied by a power of the `ohmq.encoder.tuning.sensitivity` of its
frequency, and channels are sorted again; the passes over a coefficient keep their sequence. A trained model keeps what belongs
to a channel. Context networks see other channels before them than they were trained with, so the prior must be trained on.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohmq.encoder.tuning import sensitivity
from ohmq.models import build_model
from ohmq.models.block_frequencies import block_frequencies
from ohmq.models.config import PhotoConfig
from ohmq.models.photo import PhotoModel
from ohmq.models.priors.tabulated import TabulatedPrior
from ohmq.training.photo.initialise import (
    ALPHABETS,
    CHECKERBOARD_GROUPS,
    CLIPPED_SHARE,
    PhotoDesign,
    group_sizes,
    set_lagrange_multipliers,
)

__all__ = ["reorder_channels"]

RARE = -3.0
"""Logit that each symbol beyond a channel's old alphabet has less than the one before."""


@torch.no_grad()
def reorder_channels(
    model: PhotoModel, design: PhotoDesign, exponent: float, sample: Tensor
) -> tuple[PhotoModel, PhotoDesign]:
    """Order the channels of a model by weighed slopes.

    Args:
        model: the model, with the design's number of channels.
        design: design of its channels.
        exponent: power of the sensitivity; 0 leaves nearly the same order.
        sample: images whose symbols the alphabets are chosen by, (N, 3, H, W), in [0, 1], sides multiples of 16.

    Returns:
        A model with the same channels in another order, and in groups of the usual sizes; and the design in that order.
    """
    config = model.config
    assert isinstance(config, PhotoConfig)
    order, slopes = _order(model, design, exponent)
    groups = group_sizes(model.quantizer.project.abs().argmax(1)[torch.from_numpy(order)].tolist())
    alphabets = _alphabets(model, order, groups, sample)
    changed = dataclasses.replace(
        config, groups=groups, alphabets=alphabets, checkerboard_groups=min(CHECKERBOARD_GROUPS, len(groups))
    )
    out = build_model(changed)
    assert isinstance(out, PhotoModel)
    for name in ("analysis_transform", "synthesis_transform"):
        getattr(out, name).load_state_dict(getattr(model, name).state_dict())
    _move_channels(model, out, order)
    assert model.prior is not None and out.prior is not None
    _move_networks(model.prior, out.prior, order)
    lambdas = torch.from_numpy(np.exp(-slopes)).to(design.lambdas)
    set_lagrange_multipliers(out, lambdas)
    rates = design.rates_bpp.diff(prepend=design.rates_bpp.new_zeros(1))[torch.from_numpy(order)].cumsum(0)
    passes = tuple(design.passes[channel] for channel in order)
    return out, dataclasses.replace(design, config=changed, passes=passes, rates_bpp=rates, lambdas=lambdas)


def _order(model: PhotoModel, design: PhotoDesign, exponent: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the channels in their new order, and the logarithms of their weighed slopes."""
    coefficients = model.quantizer.project.abs().argmax(1).tolist()
    filters = block_frequencies(model.quantizer.latent_channels)
    slopes = -design.lambdas.double().log().numpy()
    slopes = slopes + exponent * np.log([sensitivity(filters[coefficient]) for coefficient in coefficients])
    last: dict[int, int] = {}
    for channel, coefficient in enumerate(coefficients):  # a pass needs those before it
        if coefficient in last:
            slopes[channel] = min(slopes[channel], slopes[last[coefficient]])
        last[coefficient] = channel
    order = np.argsort(-slopes, kind="stable")
    return order, slopes[order]


def _alphabets(model: PhotoModel, order: NDArray[np.int64], groups: tuple[int, ...], sample: Tensor) -> tuple[int, ...]:
    """Choose the alphabet of each group: the smallest that clips few symbols of each of its channels."""
    latent = torch.cat([model.analysis_transform(model.normalise(image[None])) for image in sample])
    symbols = model.quantizer(latent, None, model.prior).symbols.flatten(0, 2)
    config = model.config
    assert isinstance(config, PhotoConfig)
    middle = torch.from_numpy(np.repeat(np.array(config.group_symbols) // 2, config.group_sizes)).to(symbols)
    levels = (symbols - middle).abs()
    sizes = [*(size for size in ALPHABETS if size < config.num_symbols), config.num_symbols]
    clipped = torch.stack([(levels > size // 2).double().mean(0) for size in sizes[:-1]])
    needed = np.array(sizes)[(clipped >= CLIPPED_SHARE).sum(0).numpy()][order]
    return tuple(int(part.max()) for part in np.split(needed, np.cumsum(groups)[:-1]))


def _move_channels(model: PhotoModel, out: PhotoModel, order: NDArray[np.int64]) -> None:
    """Copy what belongs to a channel to its new place, with the alphabet of its new group."""
    config, changed = model.config, out.config
    assert isinstance(config, PhotoConfig) and isinstance(changed, PhotoConfig)
    assert model.prior is not None and out.prior is not None
    old, new = (np.repeat(np.array(c.group_symbols), c.group_sizes) for c in (config, changed))
    where = torch.from_numpy(order)
    for name in ("project", "directions", "log_temperature"):
        getattr(out.quantizer, name).copy_(getattr(model.quantizer, name)[where])
    out.quantizer.output_bias.copy_(model.quantizer.output_bias)
    for name in ("own", "own_scale"):
        getattr(out.prior, name).copy_(getattr(model.prior, name)[where])
    out.prior.input_scale.copy_(model.prior.input_scale)
    rows: tuple[tuple[nn.Module, nn.Module, str, Callable[[Tensor, int], Tensor]], ...] = (
        (model.quantizer, out.quantizer, "centres", _along),
        (model.quantizer, out.quantizer, "values", _along),
        (model.prior, out.prior, "logits", lambda row, size: torch.tensor(RARE)),
        (model.prior, out.prior, "features", _along),
    )
    for source, target, name, step in rows:
        values, table = getattr(source, name), getattr(target, name)
        for place, channel in enumerate(order):
            table[place, : new[place]] = _resized(values[channel, : old[channel]], int(new[place]), step)


def _along(row: Tensor, side: int) -> Tensor:
    """Return the step of the outermost symbols at a side (0 or -1) of a row."""
    return row[0] - row[1] if side == 0 else row[-1] - row[-2]


def _resized(row: Tensor, size: int, step: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Cut or extend a row, (S, ...), on both sides."""
    more = (size - len(row)) // 2
    if more <= 0:
        return row[-more : len(row) + more]
    lower = [row[0] + step(row, 0) * (more - i) for i in range(more)]
    upper = [row[-1] + step(row, -1) * (i + 1) for i in range(more)]
    return torch.stack([*lower, *row, *upper])


def _move_networks(prior: TabulatedPrior, out: TabulatedPrior, order: NDArray[np.int64]) -> None:
    """Copy checkerboard weights of the channels that still have them, and context networks.

    Each group takes the network of the old group that most of its channels come from; outputs for the others start at zero.
    """
    out.spatial.zero_()
    if out.neighbours is not None:
        out.neighbours.out.zero_()
    for place, channel in enumerate(order[: len(out.spatial)]):
        if channel < len(prior.spatial):
            out.spatial[place] = prior.spatial[channel]
            if prior.neighbours is not None and out.neighbours is not None:
                for name in ("weight", "bias", "out"):
                    getattr(out.neighbours, name)[place] = getattr(prior.neighbours, name)[channel]
    group_of = np.repeat(np.arange(len(prior.group_sizes)), prior.group_sizes)
    first = np.cumsum([0, *prior.group_sizes])
    parts = np.split(order, np.cumsum(out.group_sizes)[:-1])
    for group, channels in enumerate(parts[1:]):
        counts = np.bincount(group_of[channels], minlength=len(prior.group_sizes))
        source = int(counts[1:].argmax()) + 1
        out.projections[group].load_state_dict(prior.projections[source - 1].state_dict())
        old, new = (
            [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
            for network in (prior.networks[source - 1], out.networks[group])
        )
        for one, other in zip(old[:-1], new[:-1], strict=True):
            other.load_state_dict(one.state_dict())
        for place, channel in enumerate(channels):
            if group_of[channel] == source:
                rows = slice(2 * (channel - first[source]), 2 * (channel - first[source]) + 2)
                new[-1].weight[2 * place : 2 * place + 2] = old[-1].weight[rows]
                new[-1].bias[2 * place : 2 * place + 2] = old[-1].bias[rows]
