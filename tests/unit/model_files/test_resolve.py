"""Models by name or path."""

from pathlib import Path

import pytest

from ohmq.errors import ModelFileError
from ohmq.model_files.resolve import resolve_model


def test_resolving(model_path: Path, tmp_path: Path) -> None:
    assert resolve_model(model_path).name == "small.safetensors"
    with pytest.raises(ModelFileError, match="neither a file nor"):
        resolve_model("mnist-best")
    with pytest.raises(ModelFileError, match="is a folder"):
        resolve_model(tmp_path)
