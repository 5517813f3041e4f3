"""Export a model as an ONNX folder, which `ohmq.model_files.onnx_folder` loads without torch."""

import contextlib
import hashlib
import json
import logging
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save as safetensors_bytes

from ohmq.errors import ConfigError, ModelFileError
from ohmq.model_files.identity import content_digest
from ohmq.model_files.onnx_folder import DECODER_NAME, ONNX_FORMAT, decoder_graph
from ohmq.utils.atomic_write import write_atomically
from ohmq.utils.progress import steps

if TYPE_CHECKING:
    import torch

    from ohmq.model_files.frozen_model import FrozenModel

__all__ = ["export_onnx", "graph_names"]

_KEPT_TENSORS = ("prior.", "quantizer.", "filters.", "thumbnails.", "synthesis_transform.block")
"""Beginnings of the names of tensors that are used outside of the graphs."""
_DECODER_FILTERS = re.compile(r"decoders\.[^.]+\.filters\.")


def graph_names(frozen: "FrozenModel") -> list[str]:
    """List the ONNX files of a model's folder, without their suffix.

    Args:
        frozen: the model.

    Raises:
        ModelFileError: a decoder whose name makes no file name.
    """
    for name in frozen.decoders:
        if not DECODER_NAME.fullmatch(name):
            raise ModelFileError(
                f"{frozen.name}: the name of the decoder {name!r} has other characters than a-z, 0-9 and _"
            )
    return ["analysis", "synthesis", *(decoder_graph(name) for name in frozen.decoders)]


def export_onnx(frozen: "FrozenModel", folder: Path, *, force: bool = False) -> None:
    """Write a model with all its decoders as an ONNX folder. Needs torch and the extra ``onnx``.

    Args:
        frozen: the model.
        folder: made if it does not exist.
        force: overwrite existing files.

    Raises:
        OutputExistsError: a file of that name exists and force is not set.
        ConfigError: a package of the extra is missing.
        ModelFileError: a model without a quantizer.
    """
    if frozen.prior is None:
        raise ModelFileError(f"{frozen.name} has no quantizer: it cannot compress")
    graphs = _export_graphs(frozen)
    tensors = {
        key: np.ascontiguousarray(value)
        for key, value in frozen.tensors.items()
        if key.startswith(_KEPT_TENSORS) or _DECODER_FILTERS.match(key)
    }
    # The quantizer in numpy computes in single precision, as torch does.
    tensors |= {f"quantizer.{key}": value.numpy() for key, value in frozen.model.quantizer.state_dict().items()}
    sha256 = {name: hashlib.sha256(graph).hexdigest() for name, graph in graphs.items()}
    windowed = frozen.config.supports_tiles
    header = {
        "format": ONNX_FORMAT,
        "model_id": frozen.model_id.hex(),
        "transforms_id": frozen.transforms_id.hex(),
        "name": frozen.name,
        "config": frozen.config.to_dict(),
        "analysis_halo": int(frozen.transforms.analysis_halo) if windowed else 0,
        "synthesis_halo": int(frozen.transforms.synthesis_halo) if windowed else 0,
        "decoders": {
            name: {"synthesis_halo": int(frozen.transforms.with_decoder(name).synthesis_halo)}
            for name in frozen.decoders
        },
        "decoder_ids": {name: value.hex() for name, value in frozen.decoder_ids.items()},
        "sha256": sha256 | {"tensors": content_digest(frozen.config, tensors).hex()},
    }
    data = safetensors_bytes(tensors, metadata={"ohmq_onnx": json.dumps(header, sort_keys=True)})
    for name, graph in graphs.items():
        write_atomically(folder / f"{name}.onnx", graph, force=force)
    write_atomically(folder / "model.safetensors", data, force=force)


def _export_graphs(frozen: "FrozenModel") -> dict[str, bytes]:
    """Return the graphs as the bytes of ONNX files, by name."""
    import torch

    names = graph_names(frozen)

    try:
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed; it comes with: pip install 'ohmq[onnx]'") from error

    analysis, synthesis = _graph_modules(frozen)
    patch = frozen.config.patch_shape(64, 64)
    image = torch.zeros(1, frozen.config.image_channels, *patch)
    with torch.no_grad():
        latent = frozen.model.analysis_transform(frozen.model.normalise(image))
    image_shape, latent_shape = None, None
    if frozen.config.patch_shape(1, 1) != patch:  # patches, and so the graphs' inputs, have many sizes
        stride = patch[0] // latent.shape[2]
        height, width = torch.export.Dim("height", min=1, max=4096), torch.export.Dim("width", min=1, max=4096)
        image_shape, latent_shape = {2: stride * height, 3: stride * width}, {2: height, 3: width}
    parts: dict[str, tuple[torch.nn.Module, tuple[torch.Tensor, ...], dict[int, Any] | None]] = {
        "analysis": (analysis, (image,), image_shape),
        "synthesis": (synthesis, (latent,), latent_shape),
    }
    channels = torch.ones(1)
    for name, module in _decoder_modules(frozen).items():
        parts[decoder_graph(name)] = (module, (latent, channels), latent_shape)
    return {name: _export_graph(*parts[name]) for name in steps(names, "ONNX graphs")}


def _graph_modules(frozen: "FrozenModel") -> "tuple[torch.nn.Module, torch.nn.Module]":
    """Return modules from images in [0, 1] to latents, and from latents to images in [0, 1]."""
    import torch
    from torch import nn

    model = frozen.model

    class Analysis(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transform = model.analysis_transform

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            latent: torch.Tensor = self.transform(model.normalise(images))
            return latent

    class Synthesis(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transform = model.synthesis_transform

        def forward(self, latent: torch.Tensor) -> torch.Tensor:
            return model.denormalise(self.transform(latent)).clamp(0, 1)

    return Analysis().eval(), Synthesis().eval()


def _decoder_modules(frozen: "FrozenModel") -> "dict[str, torch.nn.Module]":
    """Return modules from latents and a number of channels, float32 (1,), to images in [0, 1], by name of the decoder."""
    import torch
    from torch import nn

    from ohmq.models.decoders import LadderDecoder

    model = frozen.model

    class Decoder(nn.Module):
        def __init__(self, transform: LadderDecoder) -> None:
            super().__init__()
            self.transform = transform

        def forward(self, latent: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
            return model.denormalise(self.transform(latent, channels)).clamp(0, 1)

    return {name: Decoder(entry.module).eval() for name, entry in frozen.ladder.items()}


def _export_graph(
    module: "torch.nn.Module", example: "tuple[torch.Tensor, ...]", shape: dict[int, Any] | None
) -> bytes:
    """Export a module; shape: which axes of its first input vary, None: none."""
    import torch

    shapes = None if shape is None else (shape, *({} for _ in example[1:]))
    with _quiet_exporter():
        program = torch.onnx.export(module, example, dynamo=True, verbose=False, dynamic_shapes=shapes)
    assert program is not None
    return program.model_proto.SerializeToString()


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what torch's exporter says about itself."""
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exporter.setLevel(logging.ERROR)
        try:
            yield
        finally:
            exporter.setLevel(level)
