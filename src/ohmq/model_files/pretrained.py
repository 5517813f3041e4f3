"""The models that come with this package. Standard library alone."""

import json
from pathlib import Path
from typing import Any

__all__ = ["pretrained_model_ids", "pretrained_models", "quality_table"]


def pretrained_models() -> dict[str, Path]:
    """Return the names of the models that come with this package, and their files."""
    return {path.stem: path for path in sorted(_folder().glob("*.safetensors"))}


def pretrained_model_ids() -> dict[bytes, str]:
    """Return the bitstream ids of the pretrained models, read from the headers of their files, and their names."""
    ids = {}
    for name, path in pretrained_models().items():
        with path.open("rb") as file:  # safetensors itself would load numpy
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        ids[bytes.fromhex(json.loads(header["__metadata__"]["ohmq"])["model_id"])] = name
    return ids


def quality_table(model_id: bytes) -> dict[str, Any] | None:
    """Return the calibration of a model's quality scale, for `ohmq.encoder.quality_scale`; None if it has none.

    Args:
        model_id: bitstream id of the model, 4 bytes.
    """
    for path in sorted(_folder().glob("*.quality.json")):
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if table["model_id"] == model_id.hex():
            return table
    return None


def _folder() -> Path:
    # Importing importlib.resources would take a tenth of the time of `ohmq info`.
    return Path(__file__).parents[1] / "pretrained"
