"""Freeze a trained model: probabilities become integer tables, weights arrays; and thaw it again for training."""

import copy
import functools
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
from ohmq.model_files.fixed_point import as_float64, fixed, fixed_layer, fixed_rows, narrow
from ohmq.model_files.frozen_model import FrozenModel, assemble_model, check_finite
from ohmq.models import CompressionModel, PhotoModel, build_model
from ohmq.models.photo import LATENT_SCALE
from ohmq.models.priors.context import ContextPrior
from ohmq.models.priors.factorized import FactorizedPrior
from ohmq.models.priors.static import StaticPrior
from ohmq.models.priors.tabulated import TabulatedPrior
from ohmq.models.quantizers.directional import DirectionalOneHotMax
from ohmq.models.quantizers.rounding import IntegerRounding
from ohmq.runtime.devices import coding_state

__all__ = ["freeze", "prior_tables", "thaw"]

Tables = dict[str, NDArray[Any]]

HALF_ROWS = ("project", "directions")
"""Tensors of the directional quantizer that are kept in half precision, where the configuration says so."""
NETWORK_BITS = (13, 11, 13)
"""Bits of the sum of a row's |weights| in the tabulated prior's networks, by layer; smaller steps are rounded away.

With the inputs that photographs have, sums then seldom need more than the 24 bits of float32.
"""
LEAST_ENTRY = 40 / 2**WEIGHT_BITS
"""Entries of the tabulated prior's directions below this are dropped where no earlier channel has a larger one."""


@coding_state()
def freeze(model: CompressionModel, name: str = "model", provenance: dict[str, Any] | None = None) -> FrozenModel:
    """Turn a trained model into one that codes: probabilities become integer tables.

    Args:
        model: trained weights; left as it is.
        name: for messages.
        provenance: JSON-ready, kept in the file.

    Raises:
        ModelFileError: weights that are not finite, or a context network out of the exact range.
        ConfigError: the model's configuration is of no registered family.
    """
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        model = copy.deepcopy(model).cpu()
    weights = _weights(model)
    check_finite(name, weights)
    try:
        tables = {} if model.prior is None else prior_tables(model.prior, model.quantizer)
    except ValueError as error:
        raise ModelFileError(f"{name}: {error}") from error
    tensors = weights | {f"prior.{key}": value for key, value in tables.items()}
    return assemble_model(name, model.config, tensors, provenance or {})


def _weights(model: CompressionModel) -> dict[str, NDArray[Any]]:
    """Return the weights of the transforms and the quantizer, with the names of a model file."""
    modules = {
        "analysis_transform": model.analysis_transform,
        "synthesis_transform": model.synthesis_transform,
        "quantizer": model.quantizer,
    }
    weights: dict[str, NDArray[Any]] = {}
    for part, module in modules.items():
        for key, value in module.state_dict().items():
            # Half precision halves the file, with no measurable difference; but scalars of each symbol need single.
            half = model.config.half_precision and (part != "quantizer" or key in HALF_ROWS)
            weights[f"{part}.{key}"] = (value.half() if half else value).detach().cpu().contiguous().numpy()
    return weights


@functools.singledispatch
def prior_tables(prior: nn.Module, quantizer: nn.Module) -> Tables:
    """Return the integer tables of a trained prior, names without "prior.".

    The function dispatches on the class of the prior: ``prior_tables.register`` adds a prior class, whose tables must
    be those of a prior of `docs/file-format.md`.

    Args:
        prior: trained prior.
        quantizer: the quantizer whose symbols it codes.

    Raises:
        ValueError: values that do not fit their fixed-point format.
        TypeError: a class of priors that no function is registered for.
    """
    raise TypeError(f"no integer tables of {type(prior).__name__} are known: register them with prior_tables.register")


@prior_tables.register
@torch.no_grad()
def _factorized_tables(prior: FactorizedPrior, quantizer: nn.Module) -> Tables:
    assert isinstance(quantizer, IntegerRounding)
    probabilities = prior.probabilities(quantizer.minimum, quantizer.num_symbols).numpy()
    return {"frequencies": quantize_probabilities(probabilities)[None].astype(np.int32)}


@prior_tables.register
@torch.no_grad()
def _static_tables(prior: StaticPrior, quantizer: nn.Module) -> Tables:
    probabilities = prior.class_logits().exp().numpy()[: None if prior.positional else 1]
    return {"frequencies": quantize_probabilities(probabilities).astype(np.int32)}


@prior_tables.register
@torch.no_grad()
def _context_tables(prior: ContextPrior, quantizer: nn.Module) -> Tables:
    logits = prior.static.class_logits().numpy() / math.log(2)
    tables: Tables = {
        "logits": fixed(logits, LOGIT_BITS),
        "features": fixed(as_float64(prior.features) / math.log(2), LOGIT_BITS),
        "codewords": fixed(as_float64(quantizer.codewords) * float(prior.input_scale), VALUE_BITS),
        "exp2": exp2_table(prior.num_symbols).astype(np.int32),
    }
    for group, network in enumerate(prior.networks, start=1):
        for index, layer in enumerate(_linear_layers(network)):
            # The inputs of the first layer stay in the order of training: (neighbour, latent channel).
            tables[f"network.{group}.{index}.weight"] = fixed(as_float64(layer.weight), WEIGHT_BITS)
            tables[f"network.{group}.{index}.bias"] = fixed(as_float64(layer.bias), WEIGHT_BITS + VALUE_BITS)
    return tables


@prior_tables.register
@torch.no_grad()
def _tabulated_tables(prior: TabulatedPrior, quantizer: nn.Module) -> Tables:
    assert isinstance(quantizer, DirectionalOneHotMax)
    values = fixed(as_float64(quantizer.values), VALUE_BITS)
    largest = np.abs(values).max(1).astype(np.float64)
    directions = fixed_rows(_few_new(as_float64(quantizer.directions), prior).T, largest, 24)[0].T
    tables: Tables = {
        "logits": fixed(as_float64(torch.log_softmax(prior.logits, -1)) / math.log(2), LOGIT_BITS),
        "features": fixed(as_float64(prior.features) / math.log(2) / 2**LEVEL_BITS, LOGIT_BITS),
        "exp2": exp2_table(quantizer.num_symbols).astype(np.int32),
        "values": values,
        "directions": directions,
    }
    tables |= _feature_tables(prior, quantizer)
    tables |= _network_tables(prior, quantizer, largest, directions)
    return {name: narrow(value) for name, value in tables.items()}


def _feature_tables(prior: TabulatedPrior, quantizer: DirectionalOneHotMax) -> Tables:
    """Return the weights of a channel's own coefficient and, of checkerboard channels, of its neighbours."""
    num_channels, num_checkerboard = len(quantizer.values), len(prior.spatial)
    checkerboard, networks = slice(0, num_checkerboard), prior.neighbours
    outs = as_float64(networks.out) if networks is not None else np.zeros((num_checkerboard, 2, 2, 0))
    spatial = np.zeros((num_channels, 2, 2, 4 + outs.shape[3]))
    spatial[checkerboard] = np.concatenate([as_float64(prior.spatial), outs], 3)
    # The decoder adds up all of these features, so they share a step.
    together = np.concatenate([as_float64(prior.own), *np.moveaxis(spatial, 1, 0)], 2)
    limits = feature_limits(outs.shape[3])
    features = fixed_rows(together.reshape(-1, together.shape[2]), limits, 24)[0].reshape(together.shape)
    passes = np.stack(np.split(features[checkerboard, :, 4:], 2, 2), 1)
    scale = as_float64(prior.own_scale[checkerboard, None])
    tables = {
        "own": features[..., :4],
        "spatial": passes[..., :4],
        "places": fixed(as_float64(quantizer.values[checkerboard]) * scale, VALUE_BITS),
    }
    if networks is not None:
        shape, largest = networks.bias.shape, np.full(4, LARGEST_NEIGHBOUR)
        weight, bias = fixed_layer(as_float64(networks.weight).reshape(-1, 4), networks.bias, largest, room=23)
        tables |= {
            "neighbour.out": passes[..., 4:],
            "neighbour.weight": weight.reshape(*shape, 4),
            "neighbour.bias": bias.reshape(shape),
        }
    return tables


def _network_tables(
    prior: TabulatedPrior, quantizer: DirectionalOneHotMax, largest: NDArray[np.float64], directions: NDArray[np.int32]
) -> Tables:
    """Return the projections and the context networks of all groups.

    Args:
        prior: trained prior.
        quantizer: its quantizer.
        largest: largest |value| of each channel, fixed point, (C,).
        directions: fixed point, (C, D).
    """
    project = as_float64(quantizer.project) * as_float64(prior.own_scale)[:, None]
    tables: Tables = {"project": fixed(project, WEIGHT_BITS)}
    for group, (projection, network) in enumerate(zip(prior.projections, prior.networks, strict=True), start=1):
        start = sum(prior.group_sizes[:group])
        channels = slice(start, start + prior.group_sizes[group])
        reach = largest[:start] @ np.abs(directions[:start]) / 2**WEIGHT_BITS + 1  # largest |latent| before this group
        tables["project"][channels] = fixed_rows(project[channels], reach, 24)[0]
        weight = as_float64(projection.weight) * float(prior.input_scale)
        rows = fixed_layer(weight, projection.bias, reach, room=25)
        tables[f"projection.{group}.weight"], tables[f"projection.{group}.bias"] = rows
        for index, (layer, room) in enumerate(zip(_linear_layers(network), NETWORK_BITS, strict=True)):
            rows = fixed_layer(as_float64(layer.weight), layer.bias, np.ones(layer.in_features), room=room)
            tables[f"network.{group}.{index}.weight"], tables[f"network.{group}.{index}.bias"] = rows
    return tables


def _linear_layers(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network.children() if isinstance(layer, nn.Linear)]


def _few_new(directions: NDArray[np.float64], prior: TabulatedPrior) -> NDArray[np.float64]:
    """Return directions (C, D) without small entries in coefficients that no earlier channel has.

    The channels of early groups then look at few coefficients.
    """
    kept = directions.copy()
    touched = np.zeros(directions.shape[1], bool)
    start = 0
    for size in prior.group_sizes:
        group = kept[start : start + size]
        touched |= (np.abs(group) >= LEAST_ENTRY).any(0)
        group[:, ~touched] = 0
        start += size
    return kept


@coding_state()
def thaw(frozen: FrozenModel) -> PhotoModel:
    """Return a photo model to train further: the inverse of `freeze` up to the rounding to integers.

    Args:
        frozen: a photo model with OHM; left as it is.

    Raises:
        ConfigError: a model of another family or quantizer.
    """
    with torch.random.fork_rng(devices=[]):  # keep the caller's random state unchanged
        model = build_model(frozen.config)
    if not isinstance(model, PhotoModel) or model.prior is None or not isinstance(frozen.prior, IntegerTabulatedPrior):
        raise ConfigError(f"{frozen.name} is no photo model with OHM: training can go on from such a model file only")
    model.load_state_dict(frozen.model.state_dict(), strict=False)
    tensors = {name: torch.from_numpy(value.astype(np.float64)) for name, value in frozen.prior.tensors.items()}
    _thaw_features(model.prior, model.quantizer, tensors)
    _thaw_networks(model.prior, tensors)
    return model.requires_grad_(True).train()


def _thaw_features(prior: TabulatedPrior, quantizer: DirectionalOneHotMax, tensors: dict[str, torch.Tensor]) -> None:
    """Set what `_feature_tables` rounded, and the scales."""
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


def _thaw_networks(prior: TabulatedPrior, tensors: dict[str, torch.Tensor]) -> None:
    """Set what `_network_tables` rounded."""
    for group, (projection, network) in enumerate(zip(prior.projections, prior.networks, strict=True), start=1):
        assert isinstance(projection, nn.Linear)
        projection.weight.copy_(tensors[f"projection.{group}.weight"] / 2**WEIGHT_BITS / LATENT_SCALE)
        projection.bias.copy_(tensors[f"projection.{group}.bias"] / 2 ** (WEIGHT_BITS + VALUE_BITS))
        for index, layer in enumerate(_linear_layers(network)):
            layer.weight.copy_(tensors[f"network.{group}.{index}.weight"] / 2**WEIGHT_BITS)
            layer.bias.copy_(tensors[f"network.{group}.{index}.bias"] / 2 ** (WEIGHT_BITS + VALUE_BITS))
