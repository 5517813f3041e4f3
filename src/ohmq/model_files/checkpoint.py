"""Training checkpoints: read them without running code from them, and freeze them."""

import re
from pathlib import Path
from typing import Any

import torch

from ohmq.errors import ModelFileError
from ohmq.model_files.freeze import freeze
from ohmq.model_files.frozen_model import FrozenModel
from ohmq.models import CompressionModel, build_model, config_from_dict
from ohmq.runtime.devices import coding_state

__all__ = ["CHECKPOINT_FORMAT", "freeze_checkpoint", "model_of_checkpoint", "read_checkpoint"]

CHECKPOINT_FORMAT = 1


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the contents of a training checkpoint, loaded without running code from it.

    Args:
        path: of the checkpoint.

    Raises:
        ModelFileError: missing, damaged, or not a checkpoint of this project.
    """
    if not path.is_file():
        raise ModelFileError(f"no checkpoint {path}")
    try:
        contents = torch.load(path, map_location="cpu", weights_only=True)
        version = contents["ohmq"]["format"]
    except Exception as error:  # torch raises errors of many classes for foreign files
        raise ModelFileError(f"{path} is not a checkpoint that ohmq train wrote ({type(error).__name__})") from error
    if version != CHECKPOINT_FORMAT:
        raise ModelFileError(f"{path} has checkpoint format {version}; this release reads {CHECKPOINT_FORMAT}")
    return dict(contents)


@coding_state()
def model_of_checkpoint(path: Path) -> tuple[CompressionModel, dict[str, Any]]:
    """Return the model of a checkpoint, with the averaged weights where it has them, and all its contents.

    Args:
        path: of the checkpoint.

    Raises:
        ModelFileError: as `read_checkpoint`; or one of the warm start.
    """
    contents = read_checkpoint(path)
    record, state = contents["ohmq"], contents["state_dict"]
    if record["stage"] == "warm_start":
        raise ModelFileError(f"{path} was written during the warm start; there is no codec in it yet: go on training")
    with torch.device("meta"):  # all weights come from the checkpoint, with their number formats
        model = build_model(config_from_dict(record["model"]))
    prefix = "averaged.module." if any(key.startswith("averaged.module.") for key in state) else "model."
    model.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}, assign=True)
    return model, contents


def freeze_checkpoint(path: Path) -> FrozenModel:
    """Freeze the model of a checkpoint; its provenance says how it was trained.

    Args:
        path: of the checkpoint; the model is named after it.

    Raises:
        ModelFileError: as `model_of_checkpoint` and `ohmq.model_files.freeze.freeze`.
    """
    model, contents = model_of_checkpoint(path)
    record = contents["ohmq"]
    provenance = {
        **{key: record[key] for key in ("ohmq", "command", "description", "options", "stage")},
        "epoch": contents["epoch"],
        "step": contents["global_step"],
        "seconds": record.get("seconds"),
    }
    name = re.sub(r"[^\w.-]", "_", path.stem)
    return freeze(model, name, provenance)
