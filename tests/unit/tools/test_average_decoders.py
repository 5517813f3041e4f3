"""The mean of a decoder over several model files, by tools/average_decoders.py."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support.small_models import make_codec

from ohmq.model_files.frozen_model import FrozenModel, load_model, save_model, with_decoder
from ohmq.models.decoders import DecoderConfig, LadderDecoder

ROOT = Path(__file__).parents[3]
SIZE = DecoderConfig((8, 8, 0), (1, 1, 0))


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("average_decoders", ROOT / "tools" / "average_decoders.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model_with(base: FrozenModel, seed: int, size: DecoderConfig = SIZE) -> FrozenModel:
    torch.manual_seed(seed)
    state = {key: value.numpy() for key, value in LadderDecoder(12, size).state_dict().items()}
    return with_decoder(base, "small", size, state, {"command": f"seed {seed}", "filters": {}})


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    base = make_codec("photo").frozen
    assert isinstance(base, FrozenModel)
    paths = []
    for seed in (1, 2):
        paths.append(str(tmp_path / f"{seed}.safetensors"))
        save_model(model_with(base, seed), Path(paths[-1]))
    save_model(model_with(base, 3, DecoderConfig((8, 8, 0), (2, 1, 0))), tmp_path / "other.safetensors")
    return paths


def test_the_mean(tool: ModuleType, files: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    result = CliRunner().invoke(tool.command, ["small", files[0], "0.25", files[1], "0.75", "-o", str(out)])
    assert result.exit_code == 0, result.output
    one, two, mean = (load_model(Path(path)) for path in (*files, out))
    assert mean.model_id == one.model_id
    changed = 0
    for key, value in mean.tensors.items():
        if key.startswith("decoders.small."):
            expected = 0.25 * one.tensors[key].astype(float) + 0.75 * two.tensors[key].astype(float)
            np.testing.assert_allclose(value.astype(float), expected, atol=2e-3)
            changed += not np.array_equal(value, one.tensors[key])
        else:
            np.testing.assert_array_equal(value, one.tensors[key])
    assert changed
    record = mean.provenance["decoders"]["small"]["mean_of"]
    assert [(item["share"], item["command"]) for item in record] == [(0.25, "seed 1"), (0.75, "seed 2")]


@pytest.mark.parametrize(
    ("shares", "words"),
    [(("0.5", "0.6"), "sum to 1"), (("1.5", "-0.5"), "positive"), (("a", "0.5"), "could not convert")],
)
def test_wrong_shares(tool: ModuleType, files: list[str], tmp_path: Path, shares: tuple[str, str], words: str) -> None:
    arguments = ["small", files[0], shares[0], "--", files[1], shares[1]]
    result = CliRunner().invoke(tool.command, ["-o", str(tmp_path / "out.safetensors"), *arguments])
    assert result.exit_code == 1 and words in result.output
    assert not (tmp_path / "out.safetensors").exists()


def test_models_that_do_not_fit_together(tool: ModuleType, files: list[str], tmp_path: Path) -> None:
    other = str(tmp_path / "other.safetensors")
    result = CliRunner().invoke(tool.command, ["small", files[0], "0.5", other, "0.5", "-o", str(tmp_path / "out")])
    assert result.exit_code == 1 and "has no decoder 'small' of the size" in result.output
    result = CliRunner().invoke(tool.command, ["small", files[0], "1", "-o", str(tmp_path / "out")])
    assert result.exit_code == 2 and "two or more" in result.output
