"""Count the trainable parameters of a model, part by part."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from ohmq.models import build_model
from ohmq.models.config import FAMILIES, ModelConfig, PhotoConfig
from ohmq.models.openimages import ChannelNorm
from ohmq.models.priors.static import StaticPrior

__all__ = ["PUBLISHED_FAMILIES", "Counts", "Parts", "count_parameters", "published_channels", "variants"]

PUBLISHED_FAMILIES = ("mnist", "openimages")
"""Families of the published networks."""

_PUBLISHED_CHANNELS = {"mnist": (8, 16, 32), "openimages": (480,), "photo": (PhotoConfig().channels_max,)}


class Parts(NamedTuple):
    """Trainable parameters of each part of a model.

    Attributes:
        encoder: parameters of the analysis transform.
        decoder: parameters of the synthesis transform.
        quantizer: parameters of the quantizer.
        prior: parameters of the prior, without temperatures, as in the published table.
        temperatures: inverse temperatures of the static prior, one a channel.
        total: all parameters.
    """

    encoder: int
    decoder: int
    quantizer: int
    prior: int
    temperatures: int
    total: int


class Counts(NamedTuple):
    """Trainable parameters of a model, split among its parts in two ways.

    Attributes:
        ours: the quantizer counts alone.
        published: the last layer of the encoder (with its normalisation) and the first layer of the decoder count with
            the quantizer; None for a network that is not published.
    """

    ours: Parts
    published: Parts | None


def published_channels(family: str, quantizer: str) -> tuple[int, ...]:
    """Return the numbers of channels C of the published runs; for the photo codec its default.

    Args:
        family: name of the family.
        quantizer: quantizer.

    Example:
        >>> published_channels("openimages", "integer")
        (480, 960)
    """
    more = (960,) if (family, quantizer) == ("openimages", "integer") else ()
    return _PUBLISHED_CHANNELS[family] + more


def variants(
    family: str, quantizers: Iterable[str], channels: Iterable[int], num_symbols: Sequence[int], prior: str
) -> list[ModelConfig]:
    """Combine settings to configurations of a family; one for all S where S changes nothing.

    Args:
        family: name of the family.
        quantizers: quantizers.
        channels: numbers of channels C.
        num_symbols: alphabet sizes S; none: the family's own.
        prior: prior of OHM models; the photo codec has its own.

    Returns:
        The configurations; none for a photo codec with another quantizer than OHM.

    Raises:
        ConfigError: settings that do not fit together.
    """
    configurations: list[ModelConfig] = []
    for quantizer in quantizers:
        for count in channels:
            sizes = num_symbols if quantizer == "ohm" and num_symbols else (FAMILIES[family]().num_symbols,)
            for size in sizes:
                settings: dict[str, Any] = {"quantizer": quantizer, "channels_max": count, "num_symbols": size}
                if family != "photo":
                    settings["prior"] = prior if quantizer == "ohm" else "static"
                elif quantizer != "ohm":
                    continue  # The photo codec has no other quantizer.
                configurations.append(FAMILIES[family](**settings))
    return configurations


def count_parameters(config: ModelConfig) -> Counts:
    """Count the parameters of a model without allocating its weights.

    Args:
        config: configuration of the model.

    Example:
        >>> from ohmq.models import MnistConfig
        >>> counts = count_parameters(MnistConfig())
        >>> counts.ours.quantizer, counts.published.quantizer, counts.ours.total
        (266288, 275552, 416777)
    """
    with torch.device("meta"):
        model = build_model(config)
    temperatures = model.prior.inverse_temperature.numel() if isinstance(model.prior, StaticPrior) else 0
    prior = _count(model.prior) - temperatures if model.prior is not None else 0
    encoder, decoder, quantizer = (
        _count(part) for part in (model.analysis_transform, model.synthesis_transform, model.quantizer)
    )
    ours = Parts(encoder, decoder, quantizer, prior, temperatures, _count(model))
    if config.family not in PUBLISHED_FAMILIES:
        return Counts(ours, None)
    last, first = _last_layer(model.analysis_transform), _first_layer(model.synthesis_transform)
    moved = Parts(encoder - last, decoder - first, quantizer + last + first, prior, temperatures, ours.total)
    return Counts(ours, moved)


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _layers(transform: nn.Module) -> list[nn.Module]:
    return [m for m in transform.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | ChannelNorm)]


def _last_layer(transform: nn.Module) -> int:
    layers = _layers(transform)
    count = _count(layers[-1])
    return count + _count(layers[-2]) if isinstance(layers[-1], ChannelNorm) else count


def _first_layer(transform: nn.Module) -> int:
    layers = _layers(transform)
    count = _count(layers[0])
    return count + _count(layers[1]) if isinstance(layers[1], ChannelNorm) else count
