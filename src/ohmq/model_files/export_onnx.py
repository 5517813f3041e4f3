"""src/ohmq/model_files/export_onnx.py."""

import hashlib
import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save as safetensors_bytes

from ohmq.errors import ConfigError, ModelFileError
from ohmq.model_files.onnx_folder import ONNX_FORMAT
from ohmq.utils.atomic_write import write_atomically

if TYPE_CHECKING:
    from ohmq.model_files.frozen_model import FrozenModel

__all__ = ["export_onnx"]


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

    return int(getattr(frozen.transforms, f"{name}_halo")) if isinstance(frozen.config, PhotoConfig) else 0


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

    side = frozen.config.patch_shape(64, 64)
    tile = torch.zeros(1, frozen.config.image_channels, *side)
    with torch.no_grad():
        latent = model.analysis_transform(model.normalise(tile))
    fixed = frozen.config.patch_shape(1, 1) == frozen.config.patch_shape(64, 64)
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
