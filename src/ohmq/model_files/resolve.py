"""src/ohmq/model_files/resolve.py."""

from collections.abc import Mapping
from pathlib import Path

from ohmq.errors import ModelFileError
from ohmq.model_files.checkpoint import _from_checkpoint
from ohmq.model_files.frozen_model import FrozenModel, load_model
from ohmq.model_files.pretrained import pretrained_models

__all__ = ["resolve_model"]


def resolve_model(source: str | Path) -> FrozenModel:
    """A model from the name of a shipped one, a model file, or a training checkpoint.

    Raises:
        ModelFileError: nothing of the kind; the message lists the shipped names.
    """
    shipped = pretrained_models()
    if str(source) in shipped:
        return load_model(shipped[str(source)], str(source))
    path = Path(source)
    if path.is_dir():
        raise ModelFileError(
            f"{path} is a folder; give a .ckpt or .safetensors file in it, or one of {_names(shipped)}"
        )
    if not path.exists():
        raise ModelFileError(f"no model {str(source)!r}: neither a file nor one of {_names(shipped)}")
    if path.suffix == ".ckpt":
        return _from_checkpoint(path)
    return load_model(path)


def _names(shipped: Mapping[str, Path]) -> str:
    return ", ".join(shipped) or "the shipped models (there are none in this installation)"
