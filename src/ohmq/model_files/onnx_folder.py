"""Models as ONNX: a folder that compresses and decompresses where torch is not installed.

The folder holds ``analysis.onnx`` (images in [0, 1] to latents), ``synthesis.onnx`` (latents to images),
``decoder_NAME.onnx`` for each further decoder (latents and a number of channels to images) and ``model.safetensors``
(quantizer, integer tables, post-filters; in its header configuration, ids and checksums).
Symbols are decoded by the same integers as everywhere; pixels may differ by 1 of 255, single values by more (docs/devices.md).
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ohmq.entropy.context_prior import IntegerContextPrior
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior
from ohmq.errors import ConfigError, ModelFileError
from ohmq.model_files.identity import content_digest
from ohmq.model_files.integer_prior import integer_prior
from ohmq.model_files.tensor_file import read_tensor_file
from ohmq.models.config import ModelConfig, config_from_dict
from ohmq.postfilter.filters import PostFilter
from ohmq.runtime.onnx_transforms import Array, OnnxDecoder, OnnxTransforms
from ohmq.runtime.thumbnails import Thumbnails

__all__ = ["DECODER_NAME", "GRAPHS", "ONNX_FORMAT", "OnnxModel", "decoder_graph", "load_onnx"]

ONNX_FORMAT = 2
GRAPHS = ("analysis", "synthesis")
"""Names of the ONNX files that every folder has, without their suffix."""
DECODER_NAME = re.compile(r"[a-z0-9_]{1,40}")
"""Names of decoders that make file names."""


def decoder_graph(decoder: str) -> str:
    """Return the name of the ONNX file of a decoder, without its suffix.

    Args:
        decoder: name of the decoder, which matches `DECODER_NAME`.
    """
    return f"decoder_{decoder}"


@dataclass(frozen=True)
class OnnxModel:
    """A model that codes without torch, as `ohmq.model_files.frozen_model.FrozenModel` does with it.

    Attributes:
        name: for messages.
        config: its configuration.
        prior: the integer prior.
        model_id: bitstream id, 4 bytes.
        transforms_id: version of the transforms and the post-filter, 4 bytes; empty in folders of older releases.
        transforms: runs its transforms.
        thumbnails: maps for thumbnails; None: they are reduced from decoded images.
        decoder_ids: ids of the decoders, 4 bytes each, by name; empty in folders of older releases.
    """

    name: str
    config: ModelConfig
    prior: IntegerContextPrior | IntegerTabulatedPrior | None
    model_id: bytes
    transforms_id: bytes
    transforms: OnnxTransforms
    thumbnails: Thumbnails | None = None
    decoder_ids: Mapping[str, bytes] = field(default_factory=dict)


def load_onnx(folder: Path) -> OnnxModel:
    """Read and check a folder that `export_onnx` wrote. Needs ONNX Runtime, not torch.

    Args:
        folder: of these files.

    Raises:
        ModelFileError: not such a folder, damaged, or of a newer format.
        ConfigError: ONNX Runtime is missing.
    """
    path = folder / "model.safetensors"
    header, tensors = _read_tensors(folder, path)
    sums = header.get("sha256")
    if not isinstance(sums, dict):
        raise ModelFileError(f"{path} is damaged: its header has no checksums")
    decoder_halos = _decoder_halos(path, header.get("decoders", {}))
    names = [*GRAPHS, *map(decoder_graph, decoder_halos)]
    graphs = {name: _read_graph(folder / f"{name}.onnx", sums.get(name)) for name in names}
    try:
        config = config_from_dict(header["config"])
        model_id, transforms_id = (bytes.fromhex(header.get(key, "")) for key in ("model_id", "transforms_id"))
        halos = int(header["analysis_halo"]), int(header["synthesis_halo"])
        ids = {str(decoder): bytes.fromhex(value) for decoder, value in header.get("decoder_ids", {}).items()}
    except (AttributeError, ConfigError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: {error}") from error
    name = str(header.get("name", folder.name))
    prior = integer_prior(name, config, _below("prior", tensors))
    recorded = sums.get("tensors")  # older releases wrote none
    if recorded is not None and content_digest(config, tensors).hex() != recorded:
        raise ModelFileError(f"{path} is damaged: its configuration and tensors do not match their checksum")
    block = tensors.get("synthesis_transform.block", np.zeros(0, np.float32)).astype(np.float32)
    filters = PostFilter.from_tensors(_below("filters", tensors))
    thumbnails = Thumbnails.from_tensors(_below("thumbnails", tensors), len(block))
    try:
        sessions = OnnxTransforms.open_sessions(graphs)
        decoders = {
            name: OnnxDecoder(
                sessions[decoder_graph(name)],
                halo,
                PostFilter.from_tensors(_below(f"decoders.{name}.filters", tensors)),
            )
            for name, halo in decoder_halos.items()
        }
        transforms = OnnxTransforms(
            config,
            _below("quantizer", tensors),
            sessions,
            decoders=decoders,
            analysis_halo=halos[0],
            synthesis_halo=halos[1],
            block=block,
            filters=filters,
        )
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed; it comes with: pip install 'ohmq[onnx]'") from error
    except ModelFileError as error:
        raise ModelFileError(f"{folder}: {error}") from error
    return OnnxModel(name, config, prior, model_id, transforms_id, transforms, thumbnails, ids)


def _decoder_halos(path: Path, record: Any) -> dict[str, int]:
    """Return the halo of each further decoder's synthesis, by name."""
    try:
        halos = {str(name): int(values["synthesis_halo"]) for name, values in record.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path} is damaged: its decoders are no JSON object of halos") from error
    if any(not DECODER_NAME.fullmatch(name) or halo < 0 for name, halo in halos.items()):
        raise ModelFileError(f"{path} is damaged: its decoders have wrong names or halos")
    return halos


def _read_tensors(folder: Path, path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the header and the tensors of a folder's model.safetensors."""
    if not path.is_file():
        raise ModelFileError(f"{folder} is no folder that ohmq export --onnx wrote: it has no model.safetensors")
    try:
        header, tensors = read_tensor_file(path, "ohmq_onnx")
    except ModelFileError as error:
        raise ModelFileError(f"{folder} was not written by ohmq export --onnx: {error}") from error
    version = header["format"]
    if version != ONNX_FORMAT:
        old = isinstance(version, int) and version < ONNX_FORMAT
        hint = "export the model again" if old else "update ohmq"
        raise ModelFileError(f"{folder} has ONNX format {version}; this release reads {ONNX_FORMAT}: {hint}")
    return header, tensors


def _read_graph(path: Path, sha256: str | None) -> bytes:
    if not path.is_file():
        raise ModelFileError(f"{path} is missing")
    graph = path.read_bytes()
    if hashlib.sha256(graph).hexdigest() != sha256:
        raise ModelFileError(f"{path} is damaged or of another model: its checksum does not match")
    return graph


def _below(part: str, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Return the tensors of a part of the model, names without it."""
    prefix = f"{part}."
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
