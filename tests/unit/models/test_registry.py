"""Families of models that are not part of ohmq."""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support.small_models import photo_picture

import ohmq.models
from ohmq.codec import Codec
from ohmq.errors import ConfigError, ModelFileError
from ohmq.loading import load
from ohmq.model_files.export_onnx import export_onnx
from ohmq.model_files.freeze import freeze
from ohmq.model_files.frozen_model import load_model, save_model
from ohmq.models import CompressionModel, MnistConfig, ModelConfig, build_model, config_from_dict, register_family
from ohmq.models.base import published_bottleneck
from ohmq.models.config import FAMILIES

ROOT = Path(__file__).parents[3]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallConfig(ModelConfig):
    """8x8 blocks of RGB images."""

    channels_max: int = 6
    num_symbols: int = 5
    latent_channels: int = 12
    residual_quantization: bool = True

    def patch_shape(self, height: int, width: int) -> tuple[int, int]:
        return -(-height // 8) * 8, -(-width // 8) * 8

    def latent_shape(self, height: int, width: int) -> tuple[int, int]:
        return height // 8, width // 8


class SmallModel(CompressionModel):
    """One convolution there, one back."""

    mean = 0.5
    std = 0.25

    def __init__(self, config: SmallConfig) -> None:
        dim = config.latent_channels
        analysis = torch.nn.Sequential(torch.nn.Conv2d(3, dim, 8, stride=8))
        synthesis = torch.nn.Sequential(torch.nn.ConvTranspose2d(dim, 3, 8, stride=8))
        super().__init__(config, analysis, synthesis, *published_bottleneck(config, dim))


@pytest.fixture(autouse=True)
def small_family(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Register the small family for one test."""
    families, builders = dict(FAMILIES), dict(ohmq.models._BUILDERS)
    register_family("small", SmallConfig, SmallModel)
    yield
    for registry, before in ((FAMILIES, families), (ohmq.models._BUILDERS, builders)):
        registry.clear()
        registry.update(before)  # type: ignore[arg-type]


@pytest.mark.parametrize("prior", ["static", "context"])
def test_a_family_of_ones_own_codes(prior: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = SmallConfig(prior=prior)  # type: ignore[arg-type]
    assert config_from_dict(config.to_dict()) == config
    frozen = freeze(build_model(config), "small", {"by": "hand"})
    path = tmp_path / "small.safetensors"
    save_model(frozen, path)
    codec = load(path)
    assert (codec.model_id, codec.config) == (frozen.model_id, config)
    image = photo_picture(37, 50, 1)
    data = codec.compress(image, layers=3)
    assert Codec(frozen).compress(image, layers=3) == data
    symbols = codec.decode(data)[1].values
    assert symbols.shape == (1, 5, 7, 6)
    assert np.array_equal(symbols, codec.analyse(image).values)
    assert codec.decompress(data).size == image.size
    export_onnx(frozen, tmp_path / "onnx")
    other = load(tmp_path / "onnx", runtime="onnx")
    assert np.array_equal(other.decode(data)[1].values, symbols)
    one, two = (np.asarray(each.decompress(data), int) for each in (codec, other))
    assert np.abs(one - two).max() <= 1


def test_a_family_that_is_not_registered(tmp_path: Path) -> None:
    save_model(freeze(build_model(SmallConfig())), tmp_path / "small.safetensors")
    del FAMILIES["small"]
    with pytest.raises(ModelFileError, match="unknown model family 'small'.*import the module that registers it"):
        load_model(tmp_path / "small.safetensors")
    with pytest.raises(ConfigError, match="SmallConfig is no registered family"):
        build_model(SmallConfig())
    register_family("small", SmallConfig, SmallModel)
    assert load_model(tmp_path / "small.safetensors").config == SmallConfig()


def test_what_cannot_be_registered() -> None:
    for name in ("mnist", "photo", ""):
        with pytest.raises(ValueError, match="choose another name|needs a name"):
            register_family(name, SmallConfig, SmallModel)
    with pytest.raises(TypeError, match="no subclass"):
        register_family("other", SmallModel, SmallModel)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="registered as 'small'"):
        register_family("other", SmallConfig, SmallModel)
    with pytest.raises(TypeError, match="registered as 'mnist'"):
        register_family("other", MnistConfig, SmallModel)  # type: ignore[arg-type]

    class Undecorated(ModelConfig):
        pass

    with pytest.raises(TypeError, match="no dataclass"):
        register_family("other", Undecorated, SmallModel)  # type: ignore[arg-type]
    register_family("small", SmallConfig, SmallModel)  # again, as in a notebook


def test_installed_packages_bring_families(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "brought-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[ohmq.families]\ntiny = tiny_family\n")
    (tmp_path / "tiny_family.py").write_text((ROOT / "examples" / "tiny_family.py").read_text())
    monkeypatch.syspath_prepend(tmp_path)
    config = config_from_dict({"family": "tiny", "width": 8})
    assert config == sys.modules["tiny_family"].TinyConfig(width=8)
    assert sum(parameter.numel() for parameter in build_model(config).parameters()) > 1000
    with pytest.raises(ConfigError, match="unknown model family 'huge'"):
        config_from_dict({"family": "huge"})
