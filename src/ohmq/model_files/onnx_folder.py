"""Models as ONNX: a folder that compresses and decompresses where torch is not installed.

The folder holds ``analysis.onnx`` (pictures in [0, 1] to latents), ``synthesis.onnx`` (latents to pictures) and
``model.safetensors`` (quantizer and integer tables; in its header configuration, model id and checksums of the two graphs).
Symbols are decoded by the same integers as everywhere; pixels may differ by 1 of 255.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ohmq.entropy.context_prior import IntegerContextPrior
from ohmq.entropy.tabulated_prior import IntegerTabulatedPrior
from ohmq.errors import ConfigError, ModelFileError
from ohmq.model_files.integer_prior import integer_prior
from ohmq.models.config import ModelConfig, config_from_dict
from ohmq.postfilter.filters import PostFilter
from ohmq.runtime.onnx_transforms import Array, OnnxTransforms

__all__ = ["ONNX_FORMAT", "OnnxModel", "load_onnx"]

ONNX_FORMAT = 2
GRAPHS = ("analysis", "synthesis")


@dataclass(frozen=True)
class OnnxModel:
    """A model that codes, as `ohmq.model_files.frozen_model.FrozenModel`, without torch.

    Attributes:
        name: for messages. config: its configuration. prior: the integer prior. model_id: 4 bytes.
        transforms: runs its transforms.
    """

    name: str
    config: ModelConfig
    prior: IntegerContextPrior | IntegerTabulatedPrior | None
    model_id: bytes
    transforms: OnnxTransforms


def load_onnx(folder: Path) -> OnnxModel:
    """Read and check a folder that `export_onnx` wrote. Needs ONNX Runtime, not torch.

    Raises:
        ModelFileError: not such a folder, damaged, or of a newer format. ConfigError: ONNX Runtime is missing.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise ModelFileError(f"{folder} is no folder that ohmq export --onnx wrote: it has no model.safetensors")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        header = json.loads(metadata["ohmq_onnx"])
        version = header["format"]
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ModelFileError(f"{path} was not written by ohmq export --onnx ({type(error).__name__})") from error
    if version != ONNX_FORMAT:
        old = isinstance(version, int) and version < ONNX_FORMAT
        hint = "export the model again" if old else "update ohmq"
        raise ModelFileError(f"{folder} has ONNX format {version}; this release reads {ONNX_FORMAT}: {hint}")
    graphs = {}
    for name in GRAPHS:
        place = folder / f"{name}.onnx"
        if not place.is_file():
            raise ModelFileError(f"{place} is missing")
        graphs[name] = place.read_bytes()
        if hashlib.sha256(graphs[name]).hexdigest() != header["sha256"].get(name):
            raise ModelFileError(f"{place} is damaged or of another model: its checksum does not match")
    try:
        config = config_from_dict(header["config"])
        model_id = bytes.fromhex(header["model_id"])
        halos = int(header["analysis_halo"]), int(header["synthesis_halo"])
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"{path}: {error}") from error
    name = str(header.get("name", folder.name))
    parts: dict[str, dict[str, Array]] = {"prior": {}, "quantizer": {}, "filters": {}, "synthesis_transform": {}}
    for key, value in tensors.items():
        part, _, rest = key.partition(".")
        parts.setdefault(part, {})[rest] = value
    prior = integer_prior(name, config, parts["prior"])
    try:
        block = parts["synthesis_transform"].get("block", np.zeros(0, np.float32)).astype(np.float32)
        filters = PostFilter.from_tensors(parts["filters"])
        transforms = OnnxTransforms(
            config, parts["quantizer"], OnnxTransforms.open_sessions(graphs), *halos, block, filters
        )
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed; it comes with: pip install 'ohmq[onnx]'") from error
    return OnnxModel(name, config, prior, model_id, transforms)
