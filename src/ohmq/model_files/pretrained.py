"""The models that come with this package; no torch."""

import json
from importlib import resources
from pathlib import Path

from safetensors import safe_open

__all__ = ["pretrained_model_ids", "pretrained_models"]


def pretrained_models() -> dict[str, Path]:
    """Return the names of the models that come with this package, and their files."""
    folder = Path(str(resources.files("ohmq"))) / "pretrained"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def pretrained_model_ids() -> dict[bytes, str]:
    """Return the bitstream ids of the pretrained models, read from the headers of their files, and their names."""
    ids = {}
    for name, path in pretrained_models().items():
        with safe_open(path, framework="np") as file:
            ids[bytes.fromhex(json.loads(file.metadata()["ohmq"])["model_id"])] = name
    return ids
