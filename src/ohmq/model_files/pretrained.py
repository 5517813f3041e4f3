"""The models that come with this package."""

import json
from importlib import resources
from pathlib import Path

from safetensors import safe_open

__all__ = ["pretrained_model_ids", "pretrained_models"]


def pretrained_models() -> dict[str, Path]:
    """Names of the models that come with this package, and their files."""
    folder = Path(str(resources.files("ohmq"))) / "pretrained"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def pretrained_model_ids() -> dict[bytes, str]:
    """Ids of the shipped models, from the headers of their files alone, and their names."""
    ids = {}
    for name, path in pretrained_models().items():
        with safe_open(path, framework="np") as file:
            ids[bytes.fromhex(json.loads(file.metadata()["ohmq"])["model_id"])] = name
    return ids
