"""Models as ONNX: a folder that compresses and decompresses where torch is not installed.

The folder holds ``analysis.onnx`` (pictures in [0, 1] to latents), ``synthesis.onnx`` (latents to pictures) and
``model.safetensors`` (quantizer and integer tables; in its header configuration, model id and checksums of the two graphs).
Symbols are decoded by the same integers as everywhere; pixels may differ by 1 of 255.
"""

import hashlib
import json
import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from ohmq.entropy.frozen import FrozenPrior
from ohmq.entropy.frozen_choice import FrozenChoicePrior
from ohmq.errors import ConfigError, ModelFileError
from ohmq.models.config import ModelConfig, config_from_dict
from ohmq.models.integer_prior import integer_prior
from ohmq.postfilter.filters import ClassFilters, finished
from ohmq.utils.atomic_write import write_atomically

if TYPE_CHECKING:
    from ohmq.model_file import FrozenModel

__all__ = ["ONNX_FORMAT", "OnnxModel", "OnnxNetworks", "export_onnx", "load_onnx"]

ONNX_FORMAT = 2
GRAPHS = ("analysis", "synthesis")
ROWS_AT_ONCE = 4096
Array = NDArray[Any]


class OnnxNetworks:
    """The networks of a model, run by ONNX Runtime; the quantizer in numpy.

    Args:
        config: the configuration. quantizer: its tensors, names without "quantizer.". graphs: the two ONNX files.
        analysis_halo, synthesis_halo: latent positions around a window that each needs.
        block: the filters of a photo model's block transform, (D, 3, 16, 16); of another model empty.
        filters: what corrects the decoded picture, if anything does.
    """

    def __init__(
        self,
        config: ModelConfig,
        quantizer: dict[str, Array],
        graphs: dict[str, bytes],
        analysis_halo: int,
        synthesis_halo: int,
        block: Array,
        filters: ClassFilters | None = None,
    ) -> None:
        import onnxruntime

        self.config, self.quantizer, self.block, self.filters = config, quantizer, block, filters
        self.analysis_halo, self.synthesis_halo = analysis_halo, synthesis_halo
        self._sessions = {
            name: onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
            for name, graph in graphs.items()
        }

    def _run(self, name: str, values: Array) -> Array:
        session = self._sessions[name]
        found: Array = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(values, np.float32)})[0]
        return found

    def symbols(self, tiles: NDArray[np.uint8], /) -> NDArray[np.int64]:
        """The symbols of tiles (T, image_channels, H, W), all channels: (T, h, w, C)."""
        latent = self.latent(tiles)
        rows = latent.reshape(-1, latent.shape[-1])
        parts = [self._quantize(rows[start : start + ROWS_AT_ONCE]) for start in range(0, len(rows), ROWS_AT_ONCE)]
        return np.concatenate(parts).reshape(*latent.shape[:-1], -1)

    def latent(self, tiles: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """The latents of tiles (T, image_channels, H, W): (T, h, w, D)."""
        latent = np.concatenate([self._run("analysis", tile[None] / np.float32(255)) for tile in tiles])
        return latent.transpose(0, 2, 3, 1)

    def _quantize(self, rows: Array) -> NDArray[np.int64]:
        config, tensors = self.config, self.quantizer
        if config.quantizer == "integer":
            lowest = 1 - config.num_symbols // 2
            return np.clip(np.round(rows), lowest, lowest + config.num_symbols - 1).astype(np.int64) - lowest
        tied = "directions" in tensors
        rest = rows.copy() if tied else np.maximum(rows, 0)
        out = np.empty((len(rows), config.channels_max), np.int64)
        start = 0
        for size, alphabet in zip(config.group_sizes, config.group_symbols, strict=True):
            channels = range(start, start + size)
            for c in channels:
                if tied:
                    activations = (rest @ tensors["project"][c])[:, None] - tensors["centres"][c, :alphabet]
                else:
                    activations = rest @ tensors["weight"][c].T + tensors["bias"][c]
                out[:, c] = np.abs(activations).argmin(1)
            if config.refinement:
                rest = rest - self._codewords(out, channels)
            start += size
        return out

    def _codewords(self, symbols: Array, channels: range) -> Array:
        """The sum of the codewords of some channels of symbols (rows, C)."""
        tensors, part = self.quantizer, slice(channels.start, channels.stop)
        if "directions" in tensors:
            chosen = tensors["values"][np.arange(channels.start, channels.stop), symbols[:, part]]
            return np.asarray(chosen @ tensors["directions"][part])
        total = np.zeros((len(symbols), tensors["codewords"].shape[2]), np.float32)
        for c in channels:
            total += tensors["codewords"][c][symbols[:, c]]
        return total

    def pixels(self, symbols: NDArray[np.int64], channels: int, /) -> NDArray[np.uint8]:
        """What the first ``channels`` channels of symbols (T, h, w, C) decode to: (T, image_channels, H, W)."""
        rows = symbols.reshape(-1, symbols.shape[-1])
        if self.config.quantizer == "integer":
            latent = np.zeros((len(rows), self.config.channels_max), np.float32)
            latent[:, :channels] = rows[:, :channels] + (1 - self.config.num_symbols // 2)
        else:
            latent = self._codewords(rows, range(channels)) + self.quantizer["output_bias"]
            if "directions" not in self.quantizer:
                latent = np.maximum(latent, 0)
        return self._decoded(latent.reshape(*symbols.shape[:3], -1), channels)

    def picture(self, codewords: NDArray[np.float32], channels: int, /) -> NDArray[np.uint8]:
        """The same of a photo model, from the sum of the chosen codewords (T, h, w, D)."""
        return self._decoded(codewords + self.quantizer["output_bias"], channels)

    def _decoded(self, latent: Array, channels: int) -> NDArray[np.uint8]:
        planes = latent.transpose(0, 3, 1, 2)
        pictures = np.concatenate([self._run("synthesis", plane[None]) for plane in planes])
        return finished(pictures * np.float32(255), channels, self.filters, os.cpu_count() or 1)


@dataclass(frozen=True)
class OnnxModel:
    """A model that codes, as `ohmq.model_file.FrozenModel`, without torch.

    Attributes:
        name: for messages. config: its configuration. prior: the integer prior. model_id: 4 bytes.
        networks: what runs its networks.
    """

    name: str
    config: ModelConfig
    prior: FrozenPrior | FrozenChoicePrior | None
    model_id: bytes
    networks: OnnxNetworks


def export_onnx(frozen: "FrozenModel", folder: Path, *, force: bool = False) -> None:
    """Write a model as an ONNX folder. Needs torch and the extra ``onnx``.

    Args:
        frozen: the model. folder: made if it is not there. force: overwrite what is there.

    Raises:
        OutputExistsError: a file of that name is there and force is not set.
        ConfigError: a package of the extra is missing. ModelFileError: a model without a quantizer.
    """
    if frozen.prior is None:
        raise ModelFileError(f"{frozen.name} has no quantizer: it cannot compress")
    graphs = _graphs(frozen)
    weights = {f"quantizer.{key}": value.numpy() for key, value in frozen.model.quantizer.state_dict().items()}
    tables = {f"prior.{key}": np.asarray(value) for key, value in frozen.prior.tensors.items()}
    header = {
        "format": ONNX_FORMAT,
        "model_id": frozen.model_id.hex(),
        "name": frozen.name,
        "config": frozen.config.to_dict(),
        "analysis_halo": _halo(frozen, "analysis"),
        "synthesis_halo": _halo(frozen, "synthesis"),
        "sha256": {name: hashlib.sha256(graph).hexdigest() for name, graph in graphs.items()},
    }
    block = "synthesis_transform.block"
    more = {key: np.asarray(value) for key, value in frozen.tensors.items() if key.startswith(("filters.", block))}
    data = safetensors_bytes(weights | tables | more, metadata={"ohmq_onnx": json.dumps(header, sort_keys=True)})
    for name, graph in graphs.items():
        write_atomically(folder / f"{name}.onnx", graph, force=force)
    write_atomically(folder / "model.safetensors", data, force=force)


def _halo(frozen: "FrozenModel", name: str) -> int:
    """Only photo models are coded window by window."""
    from ohmq.models.config import PhotoConfig

    return int(getattr(frozen.networks, f"{name}_halo")) if isinstance(frozen.config, PhotoConfig) else 0


def _graphs(frozen: "FrozenModel") -> dict[str, bytes]:
    import torch
    from torch import nn

    try:
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed; it comes with: pip install 'ohmq[onnx]'") from error

    model = frozen.model

    class Analysis(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transform = model.analysis_transform

        def forward(self, pictures: torch.Tensor) -> torch.Tensor:
            latent: torch.Tensor = self.transform(model.normalise(pictures))
            return latent

    class Synthesis(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transform = model.synthesis_transform

        def forward(self, latent: torch.Tensor) -> torch.Tensor:
            return model.denormalise(self.transform(latent)).clamp(0, 1)

    side = frozen.config.tile_shape(64, 64)
    tile = torch.zeros(1, frozen.config.image_channels, *side)
    with torch.no_grad():
        latent = model.analysis_transform(model.normalise(tile))
    fixed = frozen.config.tile_shape(1, 1) == frozen.config.tile_shape(64, 64)
    step = 1 if fixed else side[0] // latent.shape[2]
    height, width = torch.export.Dim("height", min=1, max=4096), torch.export.Dim("width", min=1, max=4096)
    shapes: dict[str, Any] = {
        "analysis": None if fixed else ({2: step * height, 3: step * width},),
        "synthesis": None if fixed else ({2: height, 3: width},),
    }
    found = {}
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    for name, module, example in (("analysis", Analysis(), tile), ("synthesis", Synthesis(), latent)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about itself
            exporter.setLevel(logging.ERROR)
            try:
                program = torch.onnx.export(
                    module.eval(), (example,), dynamo=True, verbose=False, dynamic_shapes=shapes[name]
                )
            finally:
                exporter.setLevel(level)
        assert program is not None
        found[name] = program.model_proto.SerializeToString()
    return found


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
        filters = ClassFilters.of(parts["filters"])
        networks = OnnxNetworks(config, parts["quantizer"], graphs, *halos, block, filters)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed; it comes with: pip install 'ohmq[onnx]'") from error
    return OnnxModel(name, config, prior, model_id, networks)
