"""Model files: freeze a trained model to integers, save, load, verify.

One ``.safetensors`` file holds the weights of the transforms and the quantizer, the integer tables of the prior, and
a JSON header (metadata key "ohmq") with family, configuration, format version, model id and training provenance.
Nothing in it can execute code.
"""

import hashlib
import json
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

from ohmq.entropy.context_prior import IntegerContextPrior
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior
from ohmq.errors import ConfigError, ModelFileError
from ohmq.model_files.integer_prior import integer_prior
from ohmq.models import CompressionModel, ModelConfig, PhotoConfig, build_model, config_from_dict
from ohmq.postfilter.filters import PostFilter
from ohmq.runtime.torch_transforms import TorchTransforms
from ohmq.utils.atomic_write import write_atomically

__all__ = ["MODEL_FORMAT", "FrozenModel", "load_model", "save_model", "with_post_filter", "with_post_filter_of"]

MODEL_FORMAT = 1
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
    prior: IntegerContextPrior | IntegerTabulatedPrior | None
    model_id: bytes
    provenance: dict[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)

    @cached_property
    def filters(self) -> PostFilter | None:
        """What corrects its decoded pictures, if it has that."""
        return PostFilter.from_tensors(
            {key.removeprefix("filters."): value for key, value in self.tensors.items() if key.startswith("filters.")}
        )

    @cached_property
    def transforms(self) -> TorchTransforms:
        """The network as a codec uses it."""
        return TorchTransforms(self.model, self.filters)


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


def with_post_filter(frozen: FrozenModel, filters: PostFilter, provenance: dict[str, Any]) -> FrozenModel:
    """A photo model whose decoded pictures are corrected by filters; it has another id.

    Args:
        frozen: the model; filters it has are replaced. filters: what to add. provenance: of the filters, JSON-ready.
    """
    weights = {key: value for key, value in frozen.tensors.items() if not key.startswith(("prior.", "filters."))}
    weights |= {f"filters.{key}": value for key, value in filters.tensors.items()}
    tables = {key.removeprefix("prior."): value for key, value in frozen.tensors.items() if key.startswith("prior.")}
    return _assemble(frozen.name, frozen.config, weights, tables, {**frozen.provenance, "filters": provenance})


def with_post_filter_of(frozen: FrozenModel, other: FrozenModel) -> FrozenModel:
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
    return with_post_filter(frozen, other.filters, dict(other.provenance.get("filters", {})))


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
