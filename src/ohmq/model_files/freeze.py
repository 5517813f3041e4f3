"""src/ohmq/model_files/freeze.py."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ohmq.entropy import quantize_probabilities
from ohmq.entropy.context_prior import LOGIT_BITS, VALUE_BITS, WEIGHT_BITS, exp2_table
from ohmq.entropy.kernels import LARGEST_NEIGHBOUR, LEVEL_BITS
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior, feature_limits
from ohmq.errors import ConfigError, ModelFileError
from ohmq.model_files.fixed_point import _fixed, _fixed_layer, _fixed_rows, _narrow, _numpy
from ohmq.model_files.frozen_model import FrozenModel, _assemble
from ohmq.models import CompressionModel, PhotoIntegerModel, PhotoModel, build_model
from ohmq.models.photo import LATENT_SCALE
from ohmq.models.priors.context import ContextPrior
from ohmq.models.priors.factorized import FactorizedPrior
from ohmq.models.priors.static import StaticPrior
from ohmq.models.priors.tabulated import TabulatedPrior
from ohmq.models.quantizers.directional import DirectionalOneHotMax
from ohmq.models.quantizers.rounding import IntegerRounding

__all__ = ["freeze", "thaw"]
HALF_ROWS = ("project", "directions")
"""Tensors of the photo quantizer that are kept in half precision."""
NETWORK_BITS = (13, 11, 13)
"""Bits of the sum of a row's |weights| in the choice prior's networks, by layer; smaller steps are rounded away. Their inputs,
on photographs, then seldom make a sum of more than the 24 bits of float32."""
LEAST_ENTRY = 40 / 2**WEIGHT_BITS
"""Entries of the choice prior's directions below this do not count where no earlier channel has a larger one."""


def freeze(model: CompressionModel, name: str = "model", provenance: dict[str, Any] | None = None) -> FrozenModel:
    """Turn a trained model into one that codes: probabilities become integer tables.

    Args:
        model: trained weights; left as it is. name: for messages. provenance: JSON-ready, kept in the file.

    Raises:
        ModelFileError: weights that are not finite, or a context network out of the exact range.
    """
    weights = _weights(model)
    for key, value in weights.items():
        if not np.isfinite(value).all():
            raise ModelFileError(f"{name}: {key} holds values that are not finite; the training diverged")
    try:
        tables = _prior_tensors(model)
    except ValueError as error:
        raise ModelFileError(f"{name}: {error}") from error
    return _assemble(name, model.config, weights, tables, provenance or {})


def _weights(model: CompressionModel) -> dict[str, NDArray[Any]]:
    parts = {"analysis_transform": model.analysis_transform, "synthesis_transform": model.synthesis_transform}
    parts["quantizer"] = model.quantizer
    # Photo models are kept in half precision but for scalars a symbol: half the file, and no measurable difference.
    photo = isinstance(model, PhotoModel | PhotoIntegerModel)
    return {
        f"{part}.{key}": (value.half() if photo and (part != "quantizer" or key in HALF_ROWS) else value)
        .detach()
        .cpu()
        .contiguous()
        .numpy()
        for part, module in parts.items()
        for key, value in module.state_dict().items()
    }


@torch.no_grad()
def _prior_tensors(model: CompressionModel) -> dict[str, NDArray[Any]]:
    prior, quantizer = model.prior, model.quantizer
    if isinstance(prior, FactorizedPrior):
        assert isinstance(quantizer, IntegerRounding)
        probabilities = prior.probabilities(quantizer.minimum, quantizer.num_symbols).numpy()
        return {"frequencies": quantize_probabilities(probabilities)[None].astype(np.int32)}
    if isinstance(prior, StaticPrior):
        probabilities = prior.class_logits().exp().numpy()[: None if prior.positional else 1]
        return {"frequencies": quantize_probabilities(probabilities).astype(np.int32)}
    if isinstance(prior, TabulatedPrior):
        return _tabulated_tensors(model, prior)
    if not isinstance(prior, ContextPrior):
        return {}
    logits = prior.static.class_logits().numpy() / math.log(2)
    tensors: dict[str, NDArray[Any]] = {
        "logits": _fixed(logits, LOGIT_BITS),
        "features": _fixed(_numpy(prior.features) / math.log(2), LOGIT_BITS),
        "codewords": _fixed(_numpy(quantizer.codewords) * float(prior.input_scale), VALUE_BITS),
        "exp2": exp2_table(prior.num_symbols).astype(np.int32),
    }
    for group, network in enumerate(prior.networks, start=1):
        layers = [layer for layer in network.children() if isinstance(layer, nn.Linear)]
        for index, layer in enumerate(layers):
            weight = _numpy(layer.weight)
            if index == 0:  # trained on (neighbour, latent channel) inputs, in this order: kept
                weight = weight.reshape(weight.shape[0], -1)
            tensors[f"network.{group}.{index}.weight"] = _fixed(weight, WEIGHT_BITS)
            tensors[f"network.{group}.{index}.bias"] = _fixed(_numpy(layer.bias), WEIGHT_BITS + VALUE_BITS)
    return tensors


def _tabulated_tensors(model: CompressionModel, prior: TabulatedPrior) -> dict[str, NDArray[Any]]:
    quantizer = model.quantizer
    assert isinstance(quantizer, DirectionalOneHotMax)
    values = _fixed(_numpy(quantizer.values), VALUE_BITS)
    largest = np.abs(values).max(1).astype(np.float64)
    directions = _fixed_rows(_few_new(_numpy(quantizer.directions), prior).T, largest, 24)[0].T
    project = _numpy(quantizer.project) * _numpy(prior.own_scale)[:, None]
    tensors = {
        "logits": _fixed(_numpy(torch.log_softmax(prior.logits, -1)) / math.log(2), LOGIT_BITS),
        "features": _fixed(_numpy(prior.features) / math.log(2) / 2**LEVEL_BITS, LOGIT_BITS),
        "exp2": exp2_table(quantizer.num_symbols).astype(np.int32),
        "values": values,
        "directions": directions,
        "project": _fixed(project, WEIGHT_BITS),
    }
    interlaced, networks = len(prior.spatial), prior.neighbours
    outs = _numpy(networks.out) if networks is not None else np.zeros((interlaced, 2, 2, 0))
    spatial = np.zeros((len(values), 2, 2, 4 + outs.shape[3]))
    spatial[:interlaced] = np.concatenate([_numpy(prior.spatial), outs], 3)
    together = np.concatenate([_numpy(prior.own), *np.moveaxis(spatial, 1, 0)], 2)  # they are summed up together
    limits = feature_limits(outs.shape[3])
    features = _fixed_rows(together.reshape(-1, together.shape[2]), limits, 24)[0].reshape(together.shape)
    tensors["own"] = features[..., :4]
    fixed = np.stack(np.split(features[:interlaced, :, 4:], 2, 2), 1)
    tensors["spatial"] = fixed[..., :4]
    if networks is not None:
        tensors["neighbour.out"] = fixed[..., 4:]
        shape = networks.bias.shape
        weight, bias = _fixed_layer(
            _numpy(networks.weight).reshape(-1, 4), networks.bias, np.full(4, LARGEST_NEIGHBOUR), 23
        )
        tensors["neighbour.weight"], tensors["neighbour.bias"] = weight.reshape(*shape, 4), bias.reshape(shape)
    tensors["places"] = _fixed(
        _numpy(quantizer.values[:interlaced]) * _numpy(prior.own_scale[:interlaced, None]), VALUE_BITS
    )
    for group, (projection, network) in enumerate(zip(prior.projections, prior.networks, strict=True), start=1):
        layers = [layer for layer in network.children() if isinstance(layer, nn.Linear)]
        start = sum(prior.group_sizes[:group])
        channels = slice(start, start + prior.group_sizes[group])
        reach = largest[:start] @ np.abs(directions[:start]) / 2**WEIGHT_BITS + 1  # of what these channels see
        tensors["project"][channels] = _fixed_rows(project[channels], reach, 24)[0]
        parts: list[tuple[str, Any, float, NDArray[np.float64], int]] = [
            (f"projection.{group}", projection, float(prior.input_scale), reach, 25)
        ]
        for index, (layer, room) in enumerate(zip(layers, NETWORK_BITS, strict=True)):
            parts.append((f"network.{group}.{index}", layer, 1.0, np.ones(layer.in_features), room))
        for name, layer, scale, inputs, room in parts:
            weight, bias = _fixed_layer(_numpy(layer.weight) * scale, layer.bias, inputs, room)
            tensors[f"{name}.weight"], tensors[f"{name}.bias"] = weight, bias
    return {name: _narrow(value) for name, value in tensors.items()}


def _few_new(directions: NDArray[np.float64], prior: TabulatedPrior) -> NDArray[np.float64]:
    """Directions (C, D) without what alone would bring in a coefficient: early groups then look at few."""
    out = directions.copy()
    touched = np.zeros(directions.shape[1], bool)
    start = 0
    for size in prior.group_sizes:
        group = out[start : start + size]
        touched |= (np.abs(group) >= LEAST_ENTRY).any(0)
        group[:, ~touched] = 0
        start += size
    return out


@torch.no_grad()
def thaw(frozen: FrozenModel) -> PhotoModel:
    """A photo model to train on from, the inverse of `freeze` up to the rounding to integers.

    Raises:
        ConfigError: a model of another family or quantizer.
    """
    with torch.random.fork_rng(devices=[]):  # the random numbers of its first weights are nobody's business
        model = build_model(frozen.config)
    if not isinstance(model, PhotoModel) or model.prior is None or not isinstance(frozen.prior, IntegerTabulatedPrior):
        raise ConfigError(f"{frozen.name} is no photo model with OHM: training can go on from such a model file only")
    model.load_state_dict(frozen.model.state_dict(), strict=False)
    prior, quantizer = model.prior, model.quantizer
    tensors = {name: torch.from_numpy(value.astype(np.float64)) for name, value in frozen.prior.tensors.items()}
    prior.logits.copy_(tensors["logits"] * (math.log(2) / 2**LOGIT_BITS))
    prior.features.copy_(tensors["features"] * (math.log(2) * 2**LEVEL_BITS / 2**LOGIT_BITS))
    prior.own.copy_(tensors["own"] / 2**WEIGHT_BITS)
    prior.spatial.copy_(tensors["spatial"] / 2**WEIGHT_BITS)
    if prior.neighbours is not None:
        prior.neighbours.weight.copy_(tensors["neighbour.weight"] / 2**WEIGHT_BITS)
        prior.neighbours.bias.copy_(tensors["neighbour.bias"] / 2 ** (WEIGHT_BITS + VALUE_BITS))
        prior.neighbours.out.copy_(tensors["neighbour.out"] / 2**WEIGHT_BITS)
    project = quantizer.project.double()
    prior.own_scale.copy_((tensors["project"] * project).sum(1) / 2**WEIGHT_BITS / project.square().sum(1))
    prior.input_scale.fill_(LATENT_SCALE)
    for group, (projection, network) in enumerate(zip(prior.projections, prior.networks, strict=True), start=1):
        assert isinstance(projection, nn.Linear)
        projection.weight.copy_(tensors[f"projection.{group}.weight"] / 2**WEIGHT_BITS / LATENT_SCALE)
        projection.bias.copy_(tensors[f"projection.{group}.bias"] / 2 ** (WEIGHT_BITS + VALUE_BITS))
        for index, layer in enumerate(layer for layer in network.children() if isinstance(layer, nn.Linear)):
            layer.weight.copy_(tensors[f"network.{group}.{index}.weight"] / 2**WEIGHT_BITS)
            layer.bias.copy_(tensors[f"network.{group}.{index}.bias"] / 2 ** (WEIGHT_BITS + VALUE_BITS))
    return model.requires_grad_(True).train()
