"""Safetensors files with a JSON record in their metadata; no torch."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray
from safetensors import safe_open

from ohmq.errors import ModelFileError

__all__ = ["TensorFile", "read_tensor_file"]


class TensorFile(NamedTuple):
    """Content of a model file.

    Attributes:
        record: the JSON record.
        tensors: by name.
    """

    record: dict[str, Any]
    tensors: dict[str, NDArray[Any]]


def read_tensor_file(path: Path, key: str) -> TensorFile:
    """Read a file.

    Args:
        path: of the file.
        key: of the record in the metadata.

    Returns:
        The record and the tensors. The record has the keys "format" and "config", a JSON object; nothing else is checked.

    Raises:
        ModelFileError: missing, damaged, or without such a record.
    """
    if not path.is_file():
        raise ModelFileError(f"no model file {path}")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # damaged files make safetensors raise errors of many classes
        raise ModelFileError(f"{path} is not a safetensors file: {error}") from error
    for name, value in tensors.items():
        if value.dtype.isbuiltin != 1 or value.dtype.kind not in "fiu":  # such as bfloat16, which numpy has not
            raise ModelFileError(
                f"{path}: the tensor {name} is of type {value.dtype}, which no model of this project has"
            )
    try:
        record = json.loads(metadata[key])
    except (KeyError, ValueError, RecursionError) as error:
        raise ModelFileError(
            f"{path} holds no {key} header that can be read: it is not a model file of this project"
        ) from error
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict) or "format" not in record:
        raise ModelFileError(f"{path} holds no {key} header with a format and a configuration")
    return TensorFile(record, tensors)
