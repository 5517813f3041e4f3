"""Frozen models: load, verify, save, and swap the parts that files do not depend on.

One ``.safetensors`` file holds the weights of the transforms and the quantizer, the integer tables of the prior, and
a JSON header (metadata key "ohmq") with family, configuration, format version, ids and training provenance. Nothing in
it can execute code. `ohmq.model_files.freeze` makes a frozen model from a trained one.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save as safetensors_bytes

from ohmq.entropy.context_prior import IntegerContextPrior
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior
from ohmq.errors import ConfigError, ModelFileError
from ohmq.model_files.identity import bitstream_digest, content_id, decoder_id, transforms_digest
from ohmq.model_files.integer_prior import integer_prior
from ohmq.model_files.tensor_file import read_tensor_file
from ohmq.models import CompressionModel, ModelConfig, PhotoConfig, build_model, config_from_dict
from ohmq.models.decoders import DecoderConfig, LadderDecoder
from ohmq.postfilter.filters import PostFilter
from ohmq.runtime.devices import coding_state
from ohmq.runtime.thumbnails import Thumbnails
from ohmq.runtime.torch_transforms import TorchDecoder, TorchTransforms
from ohmq.utils.atomic_write import write_atomically

Tensors = dict[str, NDArray[Any]]

__all__ = [
    "LADDER_FORMAT",
    "MODEL_FORMAT",
    "SWAPPED_FORMAT",
    "FrozenModel",
    "assemble_model",
    "check_finite",
    "load_model",
    "save_model",
    "with_analysis",
    "with_decoder",
    "with_decoder_filters",
    "with_post_filter",
    "with_post_filter_of",
    "with_synthesis",
    "with_thumbnails",
]

MODEL_FORMAT = 1
"""Format of a model file whose id is the hash of all that it holds, as freezing gives it."""
SWAPPED_FORMAT = 2
"""Format of a model file that keeps the id of another one, whose files it decodes, and has two digests."""
LADDER_FORMAT = 3
"""Format 2 with further decoders, or maps for thumbnails."""
_ANALYSIS, _SYNTHESIS, _DECODERS = "analysis_transform.", "synthesis_transform.", "decoders."
_DECODING_TENSORS = (_SYNTHESIS, "quantizer.values", "quantizer.directions", "quantizer.output_bias")
"""Beginnings of the names of tensors that the image before the post-filter depends on."""


@dataclass(frozen=True)
class FrozenModel:
    """A model ready to code: float transforms, integer prior.

    Attributes:
        name: for messages.
        config: its configuration.
        model: the network, in evaluation mode, without its trained prior.
        prior: the integer prior; None for a model without a quantizer.
        model_id: bitstream id, 4 bytes, which goes into files: models with the same one decode the same symbols.
        provenance: how it was trained, JSON-ready.
        tensors: weights and tables as a model file has them.
        decoders: configurations of further decoders, by name.
    """

    name: str
    config: ModelConfig
    model: CompressionModel
    prior: IntegerContextPrior | IntegerTabulatedPrior | None
    model_id: bytes
    provenance: dict[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, NDArray[Any]] = field(default_factory=dict, repr=False)
    decoders: Mapping[str, DecoderConfig] = field(default_factory=dict)

    @cached_property
    def transforms_id(self) -> bytes:
        """Version of the transforms and the post-filter, 4 bytes: with the same bitstream id, the same pixels."""
        return transforms_digest(self.config, self.tensors)[:4]

    @cached_property
    def decoder_ids(self) -> dict[str, bytes]:
        """Ids of the decoders, 4 bytes each, by name; "standard" is the model's own synthesis transform."""
        own = {key.removeprefix(_SYNTHESIS): self.tensors[key] for key in self.tensors if key.startswith(_SYNTHESIS)}
        own |= {key: value for key, value in self.tensors.items() if key.startswith("filters.")}
        ids = {
            name: decoder_id(config.to_dict(), _below(f"{_DECODERS}{name}.", self.tensors))
            for name, config in self.decoders.items()
        }
        return {"standard": decoder_id(self.config.to_dict(), own)} | ids

    @cached_property
    def filters(self) -> PostFilter | None:
        """The post-filter; None if the model has none."""
        return PostFilter.from_tensors(_below("filters.", self.tensors))

    @cached_property
    def thumbnails(self) -> Thumbnails | None:
        """Maps for thumbnails; None: they are reduced from decoded images."""
        depth = self.config.latent_channels if isinstance(self.config, PhotoConfig) else 0
        return Thumbnails.from_tensors(_below("thumbnails.", self.tensors), depth)

    @cached_property
    def transforms(self) -> TorchTransforms:
        """The transforms, run by torch."""
        return TorchTransforms(self.model, self.filters, decoders=self.ladder)

    @cached_property
    def ladder(self) -> dict[str, TorchDecoder]:
        """Further decoders with their post-filters, by name."""
        return {name: _ladder_decoder(self.name, name, config, self) for name, config in self.decoders.items()}


def assemble_model(
    name: str,
    config: ModelConfig,
    tensors: Mapping[str, NDArray[Any]],
    provenance: dict[str, Any],
    model_id: bytes | None = None,
    decoders: Mapping[str, DecoderConfig] | None = None,
) -> FrozenModel:
    """Build a frozen model from the tensors of a model file.

    Args:
        name: for messages.
        config: its configuration.
        tensors: weights and tables, with the names of the model file.
        provenance: JSON-ready.
        model_id: recorded bitstream id, 4 bytes; None: the hash of the configuration and all tensors.
        decoders: configurations of further decoders, by name; default: none.

    Raises:
        ModelFileError: tensors that do not fit the configuration.
    """
    if not config.supports_post_filter and _below("filters.", tensors):
        raise ModelFileError(f"{name}: only photo models have filters after the synthesis")
    if not config.supports_post_filter and _below("thumbnails.", tensors):
        raise ModelFileError(f"{name}: only photo models have maps for thumbnails")
    others = ("prior.", "filters.", "thumbnails.", _DECODERS)
    weights = {key: value for key, value in tensors.items() if not key.startswith(others)}
    model = _evaluation_model(name, config, weights)
    prior = integer_prior(name, config, _below("prior.", tensors))
    decoders = dict(decoders or {})
    unnamed = {key.split(".")[1] for key in tensors if key.startswith(_DECODERS)} - set(decoders)
    if unnamed:
        raise ModelFileError(f"{name}: the decoder {sorted(unnamed)[0]!r} has weights, and no configuration")
    frozen = FrozenModel(
        name,
        config,
        model,
        prior,
        model_id or content_id(config, tensors),
        provenance,
        tensors=dict(tensors),
        decoders=decoders,
    )
    _ = frozen.filters, frozen.ladder, frozen.thumbnails  # checked now
    return frozen


@coding_state()
def _ladder_decoder(model: str, name: str, config: DecoderConfig, frozen: FrozenModel) -> TorchDecoder:
    """Build a decoder of the ladder from the tensors of its model."""
    if not isinstance(frozen.config, PhotoConfig) or frozen.config.quantizer != "ohm":
        raise ModelFileError(f"{model}: only photo models with OHM have further decoders")
    tensors = _below(f"{_DECODERS}{name}.", frozen.tensors)
    filters = PostFilter.from_tensors(_below("filters.", tensors))
    with torch.device("meta"):
        module = LadderDecoder(frozen.config.latent_channels, config)
    weights = {key: value for key, value in tensors.items() if not key.startswith("filters.")}
    expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    if expected != shapes:
        wrong = sorted(set(expected.items()) ^ set(shapes.items()))
        raise ModelFileError(f"{model}: weights do not fit the decoder {name!r}: {wrong[0]}")
    check_finite(model, weights)
    module.load_state_dict(
        {key: torch.from_numpy(np.array(value)).float() for key, value in weights.items()}, assign=True
    )
    return TorchDecoder(module.eval().requires_grad_(False), filters)


@coding_state()
def _evaluation_model(name: str, config: ModelConfig, weights: Mapping[str, NDArray[Any]]) -> CompressionModel:
    """Build the network with these weights, float32, in evaluation mode and without its prior."""
    # The meta device takes no memory, time or random numbers for weights that are replaced. Arithmetic there would
    # import torch's compiler, which takes longer than torch itself: modules compute their first weights in numpy.
    try:
        with torch.device("meta"):
            model = build_model(config)
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise ModelFileError(f"{name}: there is no {config.family} network of this configuration: {error}") from error
    state = {key: torch.from_numpy(np.array(value)) for key, value in weights.items()}
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items() if not key.startswith("prior.")}
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    if expected != shapes:
        wrong = sorted(set(expected.items()) ^ set(shapes.items()))
        raise ModelFileError(f"{name}: weights do not fit the {config.family} network: {wrong[0]}")
    model.prior = None  # its integer form codes; the training form is not kept
    model.load_state_dict({key: value.float() for key, value in state.items()}, assign=True)
    return model.eval().requires_grad_(False)


def check_finite(name: str, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Raise ModelFileError if a tensor of the model with this name holds values that are not finite."""
    for key, value in tensors.items():
        if not np.isfinite(value).all():
            raise ModelFileError(f"{name}: {key} holds values that are not finite; the training diverged")


def _below(prefix: str, tensors: Mapping[str, NDArray[Any]]) -> Tensors:
    """Return the tensors whose names have a prefix, without the prefix."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def with_post_filter(frozen: FrozenModel, filters: PostFilter, provenance: dict[str, Any]) -> FrozenModel:
    """Return a photo model with a post-filter; it keeps its bitstream id.

    Args:
        frozen: the model; a post-filter that it has is replaced.
        filters: the post-filter.
        provenance: of the post-filter, JSON-ready.

    Raises:
        ModelFileError: not a photo model.
    """
    tensors = {key: value for key, value in frozen.tensors.items() if not key.startswith("filters.")}
    tensors |= {f"filters.{key}": value for key, value in filters.tensors.items()}
    return _swapped(frozen, frozen.config, tensors, {"filters": provenance})


def with_post_filter_of(frozen: FrozenModel, other: FrozenModel) -> FrozenModel:
    """Return a photo model with the post-filter of one that decodes alike, as one that differs in its analysis alone.

    Args:
        frozen: the model; a post-filter that it has is replaced.
        other: the model that has the post-filter.

    Raises:
        ModelFileError: the other has no post-filter, or decodes in another way.
    """
    if other.filters is None:
        raise ModelFileError(f"{other.name} has no filters after the synthesis")
    for name in sorted({*frozen.tensors, *other.tensors}):
        same = np.array_equal(frozen.tensors.get(name, ()), other.tensors.get(name, ()))
        if name.startswith(_DECODING_TENSORS) and not same:
            raise ModelFileError(f"{other.name} decodes in another way ({name}): fit filters to photos")
    return with_post_filter(frozen, other.filters, dict(other.provenance.get("filters", {})))


def with_synthesis(
    frozen: FrozenModel,
    tensors: Mapping[str, NDArray[Any]],
    provenance: dict[str, Any],
    config: ModelConfig | None = None,
) -> FrozenModel:
    """Return a model with another synthesis transform; it decodes the files of the old one.

    The bitstream id is kept. A post-filter is left out, as it was fitted to the old synthesis transform.

    Args:
        frozen: the model.
        tensors: the state of the new synthesis transform as arrays, names without "synthesis_transform.".
        provenance: of the synthesis transform, JSON-ready.
        config: the new configuration, where the new transform has another size; None: that of the model.

    Raises:
        ModelFileError: tensors that are not finite or do not fit the configuration, or a configuration with which
            symbols decode in another way.
    """
    kept = {key: value for key, value in frozen.tensors.items() if not key.startswith((_SYNTHESIS, "filters."))}
    kept |= _transform_tensors(frozen, _SYNTHESIS, tensors)
    return _swapped(frozen, config or frozen.config, kept, {"synthesis": provenance})


def with_analysis(
    frozen: FrozenModel,
    tensors: Mapping[str, NDArray[Any]],
    provenance: dict[str, Any],
    config: ModelConfig | None = None,
) -> FrozenModel:
    """Return a model with another analysis transform; both models decode each other's files.

    The bitstream id is kept, and so is the post-filter.

    Args:
        frozen: the model.
        tensors: the state of the new analysis transform as arrays, names without "analysis_transform.".
        provenance: of the analysis transform, JSON-ready.
        config: the new configuration, where the new transform has another size; None: that of the model.

    Raises:
        ModelFileError: as `with_synthesis`.
    """
    kept = {key: value for key, value in frozen.tensors.items() if not key.startswith(_ANALYSIS)}
    kept |= _transform_tensors(frozen, _ANALYSIS, tensors)
    return _swapped(frozen, config or frozen.config, kept, {"analysis": provenance})


def with_decoder(
    frozen: FrozenModel,
    name: str,
    config: DecoderConfig,
    tensors: Mapping[str, NDArray[Any]],
    provenance: dict[str, Any],
    filters: PostFilter | None = None,
) -> FrozenModel:
    """Return a photo model with a further decoder; it keeps its bitstream id and all its other parts.

    Args:
        frozen: the model; a decoder of this name is replaced.
        name: of the decoder, such as "fast".
        config: its size.
        tensors: its state as arrays.
        provenance: of the decoder, JSON-ready.
        filters: its post-filter; None: none.

    Raises:
        ModelFileError: tensors that are not finite or do not fit the configuration, or not a photo model with OHM.
    """
    prefix = f"{_DECODERS}{name}."
    kept = {key: value for key, value in frozen.tensors.items() if not key.startswith(prefix)}
    with np.errstate(over="ignore"):  # infinite values are refused
        new = {key: np.asarray(value, np.float16) for key, value in tensors.items()}
    check_finite(frozen.name, new)
    kept |= {f"{prefix}{key}": value for key, value in new.items()}
    if filters is not None:
        kept |= {f"{prefix}filters.{key}": value for key, value in filters.tensors.items()}
    record = {"decoders": {**frozen.provenance.get("decoders", {}), name: provenance}}
    return _swapped(frozen, frozen.config, kept, record, {**frozen.decoders, name: config})


def with_decoder_filters(
    frozen: FrozenModel, name: str, filters: PostFilter, provenance: dict[str, Any]
) -> FrozenModel:
    """Return a photo model whose decoder ``name`` has a post-filter.

    Args:
        frozen: the model; a post-filter that the decoder has is replaced.
        name: of the decoder.
        filters: the post-filter.
        provenance: of the post-filter, JSON-ready.

    Raises:
        ModelFileError: no such decoder.
    """
    if name not in frozen.decoders:
        raise ModelFileError(f"{frozen.name} has no decoder {name!r}")
    prefix = f"{_DECODERS}{name}.filters."
    tensors = {key: value for key, value in frozen.tensors.items() if not key.startswith(prefix)}
    tensors |= {f"{prefix}{key}": value for key, value in filters.tensors.items()}
    record = dict(frozen.provenance.get("decoders", {}))
    record[name] = {**record.get(name, {}), "filters": provenance}
    return _swapped(frozen, frozen.config, tensors, {"decoders": record})


def with_thumbnails(frozen: FrozenModel, thumbnails: Thumbnails, provenance: dict[str, Any]) -> FrozenModel:
    """Return a photo model with maps for thumbnails; it keeps its bitstream id and all its other parts.

    Args:
        frozen: the model; maps that it has are replaced.
        thumbnails: the maps.
        provenance: of the maps, JSON-ready.

    Raises:
        ModelFileError: not a photo model, or maps of another latent.
    """
    tensors = {key: value for key, value in frozen.tensors.items() if not key.startswith("thumbnails.")}
    tensors |= {f"thumbnails.{key}": value for key, value in thumbnails.tensors.items()}
    return _swapped(frozen, frozen.config, tensors, {"thumbnails": provenance})


def _transform_tensors(frozen: FrozenModel, prefix: str, tensors: Mapping[str, NDArray[Any]]) -> Tensors:
    """Return the tensors of a new transform as a model file has them."""
    new = {f"{prefix}{key}": np.asarray(value) for key, value in tensors.items()}
    if frozen.config.half_precision:
        new = {key: value.astype(np.float16) for key, value in new.items()}
    check_finite(frozen.name, new)
    return new


def _swapped(
    frozen: FrozenModel,
    config: ModelConfig,
    tensors: Mapping[str, NDArray[Any]],
    provenance: dict[str, Any],
    decoders: Mapping[str, DecoderConfig] | None = None,
) -> FrozenModel:
    """Build a model with other transforms and the bitstream id of its parent."""
    if config.bitstream_fields() != frozen.config.bitstream_fields():
        raise ModelFileError(f"{frozen.name}: the new configuration decodes symbols in another way")
    inherited = dict(frozen.provenance)
    if not _below("filters.", tensors):
        inherited.pop("filters", None)
    decoders = frozen.decoders if decoders is None else decoders
    return assemble_model(frozen.name, config, tensors, inherited | provenance, frozen.model_id, decoders)


def save_model(frozen: FrozenModel, path: Path, *, force: bool = False) -> None:
    """Write a model file.

    Args:
        frozen: the model.
        path: of the file.
        force: overwrite an existing file.

    Raises:
        OutputExistsError: path exists and force is not set.
    """
    header: dict[str, Any] = {
        "format": MODEL_FORMAT,
        "model_id": frozen.model_id.hex(),
        "config": frozen.config.to_dict(),
        "provenance": frozen.provenance,
    }
    if frozen.model_id != content_id(frozen.config, frozen.tensors):
        header |= {
            "format": SWAPPED_FORMAT,
            "bitstream_sha256": bitstream_digest(frozen.config, frozen.tensors).hex(),
            "transforms_sha256": transforms_digest(frozen.config, frozen.tensors).hex(),
        }
    if frozen.decoders or frozen.thumbnails:
        decoders = {name: config.to_dict() for name, config in frozen.decoders.items()}
        header |= {"format": LADDER_FORMAT, "decoders": decoders}
    # safetensors writes the memory of an array as it lies, whatever the strides of the array.
    tensors = {key: np.ascontiguousarray(value) for key, value in frozen.tensors.items()}
    data = safetensors_bytes(tensors, metadata={"ohmq": json.dumps(header, sort_keys=True)})
    write_atomically(path, data, force=force)


def load_model(path: Path, name: str | None = None) -> FrozenModel:
    """Read and verify a model file.

    Args:
        path: of the file.
        name: for messages; None: the name of the file.

    Raises:
        ModelFileError: missing, damaged, of a newer format, or not a model of this project.
    """
    record, tensors = read_tensor_file(path, "ohmq")
    header = _read_header(path, record)
    try:
        config = config_from_dict(header.config)
    except ConfigError as error:
        raise ModelFileError(f"{path}: {error}") from error
    frozen = assemble_model(name or path.name, config, tensors, header.provenance, header.model_id, header.decoders)
    _verify(path, header, frozen)
    return frozen


class _Header(NamedTuple):
    """The header of a model file; the digests are None in format 1."""

    model_id: bytes
    config: dict[str, Any]
    provenance: dict[str, Any]
    bitstream_digest: bytes | None
    transforms_digest: bytes | None
    decoders: dict[str, DecoderConfig]


def _read_header(path: Path, record: Mapping[str, Any]) -> _Header:
    """Check the types of a record, and read its ids and digests."""
    version, provenance = record["format"], record.get("provenance", {})
    if version not in (MODEL_FORMAT, SWAPPED_FORMAT, LADDER_FORMAT):
        raise ModelFileError(f"{path} has model format {version}; this release reads 1, 2 and 3: update ohmq")
    if not isinstance(provenance, dict):
        raise ModelFileError(f"{path} is damaged: its provenance is no JSON object")
    model_id = _hash_value(path, record, "model_id", 4)
    if version == MODEL_FORMAT:
        return _Header(model_id, record["config"], provenance, None, None, {})
    bitstream, transforms = (_hash_value(path, record, key, 32) for key in ("bitstream_sha256", "transforms_sha256"))
    decoders = _read_decoders(path, record.get("decoders", {}))
    return _Header(model_id, record["config"], provenance, bitstream, transforms, decoders)


def _read_decoders(path: Path, record: Any) -> dict[str, DecoderConfig]:
    """Return the configurations of further decoders."""
    try:
        return {str(name): DecoderConfig.from_dict(values) for name, values in record.items()}
    except (AttributeError, TypeError, ConfigError) as error:
        raise ModelFileError(f"{path} is damaged: its decoders are no configurations ({error})") from error


def _hash_value(path: Path, record: Mapping[str, Any], key: str, size: int) -> bytes:
    """Return an id or digest of ``size`` bytes, which a record holds in hexadecimal digits."""
    try:
        value = bytes.fromhex(record[key])
    except (KeyError, ValueError, TypeError) as error:
        kind = "id" if key == "model_id" else "digest"
        raise ModelFileError(f"{path} is damaged: its header has no {kind} in hexadecimal digits ({key})") from error
    if len(value) != size:
        raise ModelFileError(f"{path} is damaged: its {key} has {len(value)} bytes, not {size}")
    return value


def _verify(path: Path, header: _Header, frozen: FrozenModel) -> None:
    """Raise ModelFileError unless a model is the one that its header announces."""
    config, tensors = frozen.config, frozen.tensors
    if header.bitstream_digest is None:
        content = content_id(config, tensors)
        if content != header.model_id:
            raise ModelFileError(f"{path} is damaged: its content has id {content.hex()}, not {header.model_id.hex()}")
        return
    if bitstream_digest(config, tensors) != header.bitstream_digest:
        raise ModelFileError(
            f"{path} is damaged: its prior or quantizer is not that of bitstream id {header.model_id.hex()}"
        )
    if transforms_digest(config, tensors) != header.transforms_digest:
        raise ModelFileError(f"{path} is damaged: its transforms do not match their digest")
