"""Model files: freeze a trained model to integers, save, load, verify.

One ``.safetensors`` file holds the weights of the transforms and the quantizer, the integer tables of the prior, and
a JSON header (metadata key "ohmq") with family, configuration, format version, model id and training provenance.
Nothing in it can execute code.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes
from torch import nn

from ohmq.entropy import quantize_probabilities
from ohmq.entropy.frozen import (
    LOGIT_BITS,
    VALUE_BITS,
    WEIGHT_BITS,
    FrozenPrior,
    exp2_table,
)
from ohmq.entropy.frozen_choice import FrozenChoicePrior, feature_limits
from ohmq.entropy.kernels import LARGEST_PLACE, LEVEL_BITS
from ohmq.errors import ConfigError, ModelFileError
from ohmq.models import (
    CompressionModel,
    ModelConfig,
    PhotoConfig,
    PhotoIntegerModel,
    PhotoModel,
    build_model,
    config_from_dict,
)
from ohmq.models.integer_prior import integer_prior
from ohmq.models.photo import LATENT_SCALE
from ohmq.models.priors.context import ContextPrior
from ohmq.models.priors.factorized import FactorizedDensity
from ohmq.models.priors.static import StaticPrior
from ohmq.models.priors.tabulated import ChoicePrior
from ohmq.models.quantizers.directional import DirectionalOneHotMax
from ohmq.models.quantizers.rounding import IntegerRounding
from ohmq.networks import TorchNetworks
from ohmq.postfilter.filters import ClassFilters
from ohmq.shipped import shipped_models
from ohmq.utils.atomic_write import write_atomically

__all__ = [
    "MODEL_FORMAT",
    "FrozenModel",
    "freeze",
    "load_model",
    "resolve_model",
    "save_model",
    "thaw",
    "with_filters",
    "with_filters_of",
]

MODEL_FORMAT = 1
CHECKPOINT_FORMAT = 1
HALF_ROWS = ("project", "directions")
"""Tensors of the photo quantizer that are kept in half precision."""
NETWORK_BITS = (13, 11, 13)
"""Bits of the sum of a row's |weights| in the choice prior's networks, by layer; smaller steps are rounded away. Their inputs,
on photographs, then seldom make a sum of more than the 24 bits of float32."""
LEAST_ENTRY = 40 / 2**WEIGHT_BITS
"""Entries of the choice prior's directions below this do not count where no earlier channel has a larger one."""
_DECODES = ("synthesis_transform.", "quantizer.values", "quantizer.directions", "quantizer.output_bias")
"""Tensors of photo models whose names begin so make the picture that filters correct."""


@dataclass(frozen=True)
class FrozenModel:
    """A model ready to code: float transforms, integer prior.

    Attributes:
        name: for messages. config: its configuration. model: the network, in evaluation mode.
        prior: the integer prior; None for a model without a quantizer. model_id: 4 bytes that name the tables and
            weights: the same id, the same decoding. provenance: how it was trained, JSON-ready.
        tensors: weights and tables as a model file has them.
    """

    name: str
    config: ModelConfig
    model: CompressionModel
    prior: FrozenPrior | FrozenChoicePrior | None
    model_id: bytes
    provenance: dict[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)

    @cached_property
    def filters(self) -> ClassFilters | None:
        """What corrects its decoded pictures, if it has that."""
        return ClassFilters.of(
            {key.removeprefix("filters."): value for key, value in self.tensors.items() if key.startswith("filters.")}
        )

    @cached_property
    def networks(self) -> TorchNetworks:
        """The network as a codec uses it."""
        return TorchNetworks(self.model, self.filters)


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
    if isinstance(prior, FactorizedDensity):
        assert isinstance(quantizer, IntegerRounding)
        probabilities = prior.probabilities(quantizer.minimum, quantizer.num_symbols).numpy()
        return {"frequencies": quantize_probabilities(probabilities)[None].astype(np.int32)}
    if isinstance(prior, StaticPrior):
        probabilities = prior.class_logits().exp().numpy()[: None if prior.positional else 1]
        return {"frequencies": quantize_probabilities(probabilities).astype(np.int32)}
    if isinstance(prior, ChoicePrior):
        return _choice_tensors(model, prior)
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


def _choice_tensors(model: CompressionModel, prior: ChoicePrior) -> dict[str, NDArray[Any]]:
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
            _numpy(networks.weight).reshape(-1, 4), networks.bias, np.full(4, LARGEST_PLACE), 23
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


def _few_new(directions: NDArray[np.float64], prior: ChoicePrior) -> NDArray[np.float64]:
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
    if not isinstance(model, PhotoModel) or model.prior is None or not isinstance(frozen.prior, FrozenChoicePrior):
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


def _narrow(values: NDArray[Any]) -> NDArray[Any]:
    """As int16 where the values fit."""
    return values.astype(np.int16) if np.abs(values).max(initial=0) < 2**15 else values


def _numpy(tensor: Any) -> NDArray[np.float64]:
    return tensor.detach().cpu().double().numpy()


def _fixed(values: NDArray[Any], bits: int) -> NDArray[np.int32]:
    scaled = np.round(values * 2.0**bits)
    if not np.isfinite(scaled).all() or np.abs(scaled).max(initial=0) >= 2**31:
        raise ValueError("a value of the prior does not fit its fixed-point format; the training diverged")
    return scaled.astype(np.int32)


def _fixed_rows(
    rows: NDArray[np.float64], inputs: NDArray[Any], room: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Rows of weights in fixed point, each in steps so coarse that its products with some inputs sum to few bits.

    Args:
        rows: (out, in). inputs: the largest of each input, (in,). room: bits of a sum, in steps.

    Returns:
        The weights, multiples of their row's step, and the steps, powers of two, (out,).

    Raises:
        ValueError: weights that do not fit.
    """
    step = np.ones(len(rows), np.int64)
    while True:
        weights = _fixed(rows / step[:, None], WEIGHT_BITS) * step[:, None]
        wide = np.abs(weights) @ inputs >= 0.99 * 2**room * step  # what the reader computes may be a little more
        if not wide.any():
            return _fixed(weights, 0), step
        step[wide] *= 2


def _fixed_layer(
    rows: NDArray[np.float64], bias: torch.Tensor, inputs: NDArray[Any], room: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Weights as `_fixed_rows` gives them, and the biases of the rows, multiples of the same steps, (out,)."""
    weight, step = _fixed_rows(rows, inputs, room)
    return weight, _fixed(_fixed(_numpy(bias).reshape(-1) / step, WEIGHT_BITS + VALUE_BITS) * step, 0)


def _assemble(
    name: str,
    config: ModelConfig,
    weights: Mapping[str, NDArray[Any]],
    tables: Mapping[str, NDArray[Any]],
    provenance: dict[str, Any],
) -> FrozenModel:
    # No memory, no time and no random numbers for weights that are replaced. Arithmetic there would import torch's compiler,
    # which takes longer than torch itself: what modules compute to start from, they compute in numpy.
    with torch.device("meta"):
        model = build_model(config)
    state = {key: torch.from_numpy(np.array(value)) for key, value in weights.items() if not key.startswith("filters.")}
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items() if not key.startswith("prior.")}
    found = {key: tuple(value.shape) for key, value in state.items()}
    if expected != found:
        wrong = sorted(set(expected.items()) ^ set(found.items()))
        raise ModelFileError(f"{name}: weights do not fit the {config.to_dict()['family']} network: {wrong[0]}")
    model.prior = None  # its integer form codes; the training form is not kept
    model.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    model.eval().requires_grad_(False)
    prior = integer_prior(name, config, tables)
    tensors = {**weights, **{f"prior.{key}": value for key, value in tables.items()}}
    frozen = FrozenModel(name, config, model, prior, _model_id(config, tensors), provenance, tensors)
    if frozen.filters is not None and not isinstance(config, PhotoConfig):
        raise ModelFileError(f"{name}: only photo models have filters after the synthesis")
    return frozen


def with_filters(frozen: FrozenModel, filters: ClassFilters, provenance: dict[str, Any]) -> FrozenModel:
    """A photo model whose decoded pictures are corrected by filters; it has another id.

    Args:
        frozen: the model; filters it has are replaced. filters: what to add. provenance: of the filters, JSON-ready.
    """
    weights = {key: value for key, value in frozen.tensors.items() if not key.startswith(("prior.", "filters."))}
    weights |= {f"filters.{key}": value for key, value in filters.tensors.items()}
    tables = {key.removeprefix("prior."): value for key, value in frozen.tensors.items() if key.startswith("prior.")}
    return _assemble(frozen.name, frozen.config, weights, tables, {**frozen.provenance, "filters": provenance})


def with_filters_of(frozen: FrozenModel, other: FrozenModel) -> FrozenModel:
    """A photo model with the filters of another one that decodes alike, as one has that differs in its analysis alone.

    Args:
        frozen: the model; filters it has are replaced. other: the one that has them.

    Raises:
        ModelFileError: the other has no filters, or decodes in another way.
    """
    if other.filters is None:
        raise ModelFileError(f"{other.name} has no filters after the synthesis")
    for name in sorted({*frozen.tensors, *other.tensors}):
        same = np.array_equal(frozen.tensors.get(name, ()), other.tensors.get(name, ()))
        if name.startswith(_DECODES) and not same:
            raise ModelFileError(f"{other.name} decodes in another way ({name}): fit filters to photos")
    return with_filters(frozen, other.filters, dict(other.provenance.get("filters", {})))


def _model_id(config: ModelConfig, tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """The first 4 bytes of a SHA-256 over the configuration and all tensors."""
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode())
    for key in sorted(tensors):
        value = np.ascontiguousarray(tensors[key])
        little = value.astype(value.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{key}:{value.dtype.name}:{value.shape}".encode() + little.tobytes())
    return digest.digest()[:4]


def save_model(frozen: FrozenModel, path: Path, *, force: bool = False) -> None:
    """Write a model file.

    Raises:
        OutputExistsError: path exists and force is not set.
    """
    header = {
        "format": MODEL_FORMAT,
        "model_id": frozen.model_id.hex(),
        "config": frozen.config.to_dict(),
        "provenance": frozen.provenance,
    }
    # It writes the memory of an array as it lies, whatever the array's view of it.
    tensors = {key: np.ascontiguousarray(value) for key, value in frozen.tensors.items()}
    data = safetensors_bytes(tensors, metadata={"ohmq": json.dumps(header, sort_keys=True)})
    write_atomically(path, data, force=force)


def load_model(path: Path, name: str | None = None) -> FrozenModel:
    """Read and verify a model file.

    Raises:
        ModelFileError: missing, damaged, of a newer format, or not a model of this project.
    """
    name = name or path.name
    if not path.is_file():
        raise ModelFileError(f"no model file {path}")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelFileError(f"{path} is not a safetensors file: {error}") from error
    try:
        header = json.loads(metadata["ohmq"])
        version, model_id, config = header["format"], bytes.fromhex(header["model_id"]), header["config"]
    except (KeyError, ValueError, TypeError) as error:
        raise ModelFileError(f"{path} holds no ohmq header: it is not a model file of this project") from error
    if version != MODEL_FORMAT:
        raise ModelFileError(f"{path} has model format {version}; this release reads {MODEL_FORMAT}: update ohmq")
    try:
        parsed = config_from_dict(config)
    except (ConfigError, TypeError) as error:
        raise ModelFileError(f"{path}: {error}") from error
    weights = {key: value for key, value in tensors.items() if not key.startswith("prior.")}
    tables = {key.removeprefix("prior."): value for key, value in tensors.items() if key.startswith("prior.")}
    frozen = _assemble(name, parsed, weights, tables, header.get("provenance", {}))
    if frozen.model_id != model_id:
        raise ModelFileError(f"{path} is damaged: its content has id {frozen.model_id.hex()}, not {model_id.hex()}")
    return frozen


def resolve_model(source: str | Path) -> FrozenModel:
    """A model from the name of a shipped one, a model file, or a training checkpoint.

    Raises:
        ModelFileError: nothing of the kind; the message lists the shipped names.
    """
    shipped = shipped_models()
    if str(source) in shipped:
        return load_model(shipped[str(source)], str(source))
    path = Path(source)
    if path.is_dir():
        raise ModelFileError(
            f"{path} is a folder; give a .ckpt or .safetensors file in it, or one of {_names(shipped)}"
        )
    if not path.exists():
        raise ModelFileError(f"no model {str(source)!r}: neither a file nor one of {_names(shipped)}")
    if path.suffix == ".ckpt":
        return _from_checkpoint(path)
    return load_model(path)


def _names(shipped: Mapping[str, Path]) -> str:
    return ", ".join(shipped) or "the shipped models (there are none in this installation)"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The contents of a training checkpoint, loaded without running code from it.

    Raises:
        ModelFileError: missing, damaged, or not a checkpoint of this project.
    """
    if not path.is_file():
        raise ModelFileError(f"no checkpoint {path}")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
        version = contents["ohmq"]["format"]
    except Exception as error:  # torch raises many kinds for files that are not its own
        raise ModelFileError(f"{path} is not a checkpoint that ohmq train wrote ({type(error).__name__})") from error
    if version != CHECKPOINT_FORMAT:
        raise ModelFileError(f"{path} has checkpoint format {version}; this release reads {CHECKPOINT_FORMAT}")
    return dict(contents)


def model_of_checkpoint(path: Path) -> tuple[CompressionModel, dict[str, Any]]:
    """The model of a checkpoint, with the averaged weights where there are any, and all its contents.

    Raises:
        ModelFileError: as `read_checkpoint`; or one of the warm start.
    """
    contents = read_checkpoint(path)
    record, state = contents["ohmq"], contents["state_dict"]
    if record["stage"] == "warm_start":
        raise ModelFileError(f"{path} was written during the warm start; there is no codec in it yet: go on training")
    model = build_model(config_from_dict(record["model"]))
    prefix = "averaged.module." if any(key.startswith("averaged.module.") for key in state) else "model."
    model.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    return model, contents


def _from_checkpoint(path: Path) -> FrozenModel:
    model, contents = model_of_checkpoint(path)
    record = contents["ohmq"]
    provenance = {
        **{key: record[key] for key in ("ohmq", "command", "description", "options", "stage")},
        "epoch": contents["epoch"],
        "step": contents["global_step"],
        "seconds": record.get("seconds"),
    }
    name = re.sub(r"[^\w.-]", "_", path.stem)
    return freeze(model, name, provenance)
