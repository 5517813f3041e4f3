"""A small model file for the tests of this folder."""

from pathlib import Path

import pytest
from support.small_models import make_model

from ohmq.model_files.freeze import freeze
from ohmq.model_files.frozen_model import save_model


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    save_model(freeze(make_model("context"), "small", {"epochs": 3}), path)
    return path
