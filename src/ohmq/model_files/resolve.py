"""Find a model by name or path."""

from collections.abc import Mapping
from pathlib import Path

from ohmq.errors import ModelFileError
from ohmq.model_files.checkpoint import freeze_checkpoint
from ohmq.model_files.frozen_model import FrozenModel, load_model
from ohmq.model_files.pretrained import pretrained_models

__all__ = ["resolve_model"]


def resolve_model(source: str | Path) -> FrozenModel:
    """Load a model from the name of a pretrained one, a model file, or a training checkpoint.

    Args:
        source: name or path.

    Raises:
        ModelFileError: no such model; the message lists the pretrained ones.
    """
    pretrained = pretrained_models()
    if str(source) in pretrained:
        return load_model(pretrained[str(source)], str(source))
    path = Path(source)
    if path.is_dir():
        raise ModelFileError(
            f"{path} is a folder; give a .ckpt or .safetensors file in it, or one of {_names(pretrained)}"
        )
    if not path.exists():
        raise ModelFileError(f"no model {str(source)!r}: neither a file nor one of {_names(pretrained)}")
    if path.suffix == ".ckpt":
        return freeze_checkpoint(path)
    return load_model(path)


def _names(pretrained: Mapping[str, Path]) -> str:
    return ", ".join(pretrained) or "the shipped models (there are none in this installation)"
