"""Codecs on other devices: the same files, pixels up to rounding; the entropy coder stays on the CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.fake_device import FAKE, FakeTensor, fake_device
from support.small_models import CONFIGS, make_codec, make_model, make_photo_model

import ohmq.loading
from ohmq.codec import Codec
from ohmq.errors import ConfigError
from ohmq.loading import ModelRegistry, load
from ohmq.model_files.freeze import freeze
from ohmq.runtime.devices import available_devices, coding_state, find_device

NAMES = [*sorted(CONFIGS), "photo", "filters"]


def image_for(codec: Codec, digit: Image.Image, crop: Image.Image) -> Image.Image:
    return digit if codec.grey else crop


def test_unknown_and_absent_devices_are_refused() -> None:
    for name in ("cuda:99", "tpu", "", "cpu:3", "meta"):
        with pytest.raises(ConfigError, match=f"no device '{name}' here; choose auto or cpu"):
            find_device(name)
        with pytest.raises(ConfigError):
            load("mnist-ohm", device=name)
    assert find_device("cpu") == torch.device("cpu")


def test_names_of_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_device("auto") == torch.device([*available_devices()[1:], "cpu"][0])
    monkeypatch.setattr("ohmq.runtime.devices.available_devices", lambda: ["cpu", "cuda:0", "cuda:1"])
    assert find_device("auto") == find_device("cuda") == torch.device("cuda", 0)
    assert find_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match="auto or cpu or cuda:0 or cuda:1"):
        find_device("mps")


def test_onnx_folders_stay_on_the_cpu(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from ohmq.model_files.export_onnx import export_onnx

    export_onnx(freeze(make_model("static")), tmp_path / "folder")
    assert load(tmp_path / "folder", runtime="onnx", device="auto").device == "cpu"
    with pytest.raises(ConfigError, match="ONNX folders run on the CPU"):
        load(tmp_path / "folder", runtime="onnx", device="cuda")


def test_the_registry_keeps_a_codec_for_each_device(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(source: str, *, compiled: bool | None, device: str) -> Codec:
        made.append(device)
        return load(source, compiled=compiled)

    monkeypatch.setattr(ohmq.loading, "load", counted)
    registry = ModelRegistry()
    data = load("mnist-ohm").compress(np.zeros((28, 28), np.uint8))
    for device in ("cpu", "cuda", "cpu", "cuda"):
        registry.for_file(data, device=device)
    assert made == ["cpu", "cuda"]


@pytest.mark.parametrize("name", NAMES)
def test_another_device_codes_the_same(
    name: str, digit: Image.Image, crop: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = make_codec(name)
    image = image_for(codec, digit, crop)
    file, fixed_rate = codec.compress(image), codec.compress(image, fixed_rate=True)
    shown = codec.decompress(file)
    with fake_device(monkeypatch) as device:
        other = codec.to("meta")
        assert (codec.device, other.device) == ("cpu", "meta")
        assert all(isinstance(value, FakeTensor) for value in other.transforms.model.state_dict().values())
        assert not any(isinstance(value, FakeTensor) for value in codec.transforms.model.state_dict().values())
        for work in (
            lambda: other.compress(image) == file,
            lambda: other.compress(image, fixed_rate=True) == fixed_rate,
        ):
            device.operations = 0
            assert work()
            assert device.operations > 0  # the transforms did run there
        device.operations = 0
        _, symbols = other.decode(file)
        assert device.operations == 0  # nothing between bytes and symbols is on the device
        assert np.array_equal(symbols.values, codec.decode(file)[1].values)
        assert other.decompress(file).tobytes() == shown.tobytes()
        assert device.operations > 0
        assert other.to("cpu").decompress(file).tobytes() == shown.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_the_fake_device_refuses_tensors_of_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_device(monkeypatch):
        other = make_codec(name).to("meta")
        shape = (1, 1, 28, 28) if other.grey else (1, 3, 32, 32)
        with pytest.raises(RuntimeError, match="two devices|Expected all tensors"):
            other.transforms.model.analysis_transform(torch.zeros(shape))
        with pytest.raises(RuntimeError):
            torch.zeros(3).to(FAKE).numpy()


@pytest.mark.parametrize("name", [*sorted(CONFIGS), "photo"])
def test_shapes_on_the_meta_device(name: str) -> None:
    model = (make_photo_model() if name == "photo" else make_model(name)).eval().to("meta")
    height, width = (48, 64) if name == "photo" else (28, 28)
    images = torch.empty(2, model.config.image_channels, height, width, device="meta")
    _, rows, columns = model.config.latent_grid(width, height)
    with coding_state(torch.device("meta")):
        latent = model.analysis_transform(model.normalise(images))
        assert latent.shape[2:] == (rows, columns)
        symbols = torch.zeros(2, rows, columns, model.config.channels_max, dtype=torch.int64, device="meta")
        assert model.reconstruct(symbols, model.config.channels_max).shape == images.shape


def test_a_model_on_another_device_freezes_to_the_same_file(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CONFIGS:
        expected = freeze(make_model(name))
        with fake_device(monkeypatch):
            frozen = freeze(make_model(name).to("meta"))
        assert frozen.model_id == expected.model_id
