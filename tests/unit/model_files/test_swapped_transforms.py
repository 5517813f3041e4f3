"""Models with other transforms than the one that made a file: the bitstream id says what decodes it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from support.small_models import photo_picture, random_filters

from ohmq.codec import Codec
from ohmq.errors import ModelFileError
from ohmq.loading import load
from ohmq.model_files.export_onnx import export_onnx
from ohmq.model_files.frozen_model import (
    FrozenModel,
    load_model,
    save_model,
    with_analysis,
    with_post_filter,
    with_synthesis,
)
from ohmq.model_files.identity import bitstream_digest
from ohmq.models import PhotoConfig, build_model
from ohmq.models.config import config_from_dict

GOLDEN = Path(__file__).parents[2] / "golden"
FAMILIES = ("static", "context", "integer", "photo", "filters")


def golden_model(name: str) -> FrozenModel:
    return load_model(GOLDEN / f"{name}.safetensors", name)


def other_synthesis(frozen: FrozenModel, seed: int = 1) -> dict[str, np.ndarray]:
    """Weights of the model's synthesis transform, a little changed."""
    rng = np.random.default_rng(seed)
    state = frozen.model.synthesis_transform.state_dict()
    return {
        key: (value.numpy() * rng.uniform(0.8, 1.2, value.shape)).astype(np.float32) for key, value in state.items()
    }


def header_of(path: Path) -> dict[str, Any]:
    with safe_open(path, "np") as opened:
        return dict(json.loads(opened.metadata()["ohmq"]))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_swapped_synthesis_decodes_an_old_file(name: str, tmp_path: Path) -> None:
    old = golden_model(name)
    data = (GOLDEN / f"{name}_layers.ohm").read_bytes()
    save_model(with_synthesis(old, other_synthesis(old), {"made": "here"}), tmp_path / "new.safetensors")
    new = load(tmp_path / "new.safetensors")
    assert new.model_id == old.model_id
    file, symbols = new.decode(data)
    assert symbols.values.tolist() == json.loads((GOLDEN / f"{name}_layers.json").read_text())
    before, after = (np.asarray(codec.decompress(data), int) for codec in (Codec(old), new))
    assert after.shape == before.shape
    assert np.abs(after - before).max() > 1
    # The pixels are those that the new transform computes from these symbols.
    assert isinstance(new.frozen, FrozenModel)
    with torch.inference_mode():
        images = new.frozen.model.reconstruct(torch.from_numpy(symbols.values), file.num_channels)
    pixels = (images[0] * 255).permute(1, 2, 0).numpy()[: file.height, : file.width]
    assert np.abs(after.reshape(pixels.shape) - pixels).max() <= 1
    assert new.frozen.transforms_id != old.transforms_id
    assert new.frozen.provenance["synthesis"] == {"made": "here"}
    assert "filters" not in new.frozen.provenance
    assert new.frozen.filters is None  # they were fitted to the old synthesis


def test_a_synthesis_of_another_size_needs_its_own_configuration() -> None:
    old = golden_model("photo")
    assert isinstance(old.config, PhotoConfig)
    config = dataclasses.replace(old.config, synthesis_blocks=(1, 0))
    torch.manual_seed(0)
    state = {key: value.numpy() for key, value in build_model(config).synthesis_transform.state_dict().items()}
    with pytest.raises(ModelFileError, match="do not fit"):
        with_synthesis(old, state, {})
    new = with_synthesis(old, state, {}, config)
    assert (new.model_id, new.config) == (old.model_id, config)
    data = (GOLDEN / "photo_layers.ohm").read_bytes()
    assert np.array_equal(Codec(new).decode(data)[1].values, Codec(old).decode(data)[1].values)
    for changes in ({"cuts": (3, 24)}, {"checkerboard_groups": 1}):
        with pytest.raises(ModelFileError, match="decodes symbols in another way"):
            with_synthesis(old, state, {}, dataclasses.replace(config, **changes))
    state[next(iter(state))][:] = np.nan
    with pytest.raises(ModelFileError, match="not finite"):
        with_synthesis(old, state, {}, config)


def test_models_with_other_analyses_read_each_others_files() -> None:
    old = golden_model("filters")
    assert isinstance(old.config, PhotoConfig)
    config = dataclasses.replace(old.config, distilled_channels=8, analysis_blocks=(0, 1))
    torch.manual_seed(0)
    state = {key: value.numpy() + 0.01 for key, value in build_model(config).analysis_transform.state_dict().items()}
    new = with_analysis(old, state, {"made": "here"}, config)
    assert new.model_id == old.model_id
    assert new.filters is not None  # the images that it corrects are the same
    image = photo_picture(40, 50, 2)
    codecs = Codec(old), Codec(new)
    files = [codec.compress(image) for codec in codecs]
    assert files[0] != files[1]
    for data in files:
        one, two = (codec.decompress(data) for codec in codecs)
        assert one.tobytes() == two.tobytes()


def test_unchanged_models_are_written_as_before(tmp_path: Path) -> None:
    for name in FAMILIES:
        save_model(golden_model(name), tmp_path / name)
        assert (tmp_path / name).read_bytes() == (GOLDEN / f"{name}.safetensors").read_bytes()
    frozen = golden_model("photo")
    swapped = with_synthesis(frozen, other_synthesis(frozen), {})
    state = {key: value.numpy() for key, value in frozen.model.synthesis_transform.state_dict().items()}
    back = with_synthesis(swapped, state, {})
    save_model(back, tmp_path / "back")
    assert header_of(tmp_path / "back")["format"] == 1  # its id is again the hash of all that it holds
    assert back.transforms_id == frozen.transforms_id


def test_headers_of_swapped_models(tmp_path: Path) -> None:
    frozen = golden_model("photo")
    path = tmp_path / "m.safetensors"
    save_model(with_post_filter(frozen, random_filters(), {}), path)
    header = header_of(path)
    assert header["format"] == 2
    assert header["model_id"] == frozen.model_id.hex()
    assert header["bitstream_sha256"] == bitstream_digest(frozen.config, frozen.tensors).hex()
    assert header["transforms_sha256"][:8] == load_model(path).transforms_id.hex()


def test_a_damaged_swapped_model_is_refused(tmp_path: Path) -> None:
    frozen = golden_model("photo")
    path = tmp_path / "m.safetensors"
    save_model(with_synthesis(frozen, other_synthesis(frozen), {}), path)
    header, tensors = header_of(path), load_file(path)
    other_config = {**header["config"], "cuts": [5, 24]}
    assert config_from_dict(other_config) != frozen.config
    cases: list[tuple[dict[str, np.ndarray], dict[str, Any], str]] = [
        ({"prior.logits": tensors["prior.logits"] + 1}, {}, "prior or quantizer is not that of bitstream id"),
        ({"quantizer.values": tensors["quantizer.values"] * 2}, {}, "prior or quantizer is not that of"),
        ({"quantizer.output_bias": tensors["quantizer.output_bias"] + 1}, {}, "prior or quantizer is not that of"),
        ({}, {"config": other_config}, "prior or quantizer is not that of"),
        ({"synthesis_transform.block": tensors["synthesis_transform.block"] + 1}, {}, "transforms do not match"),
        ({"quantizer.centres": tensors["quantizer.centres"] + 1}, {}, "transforms do not match"),
        ({}, {"config": {**header["config"], "channels_min": 1}}, "transforms do not match"),
        ({}, {"bitstream_sha256": None}, "no digest"),
        ({}, {"transforms_sha256": "xyz"}, "no digest"),
        ({}, {"model_id": "00"}, "1 bytes, not 4"),
        ({}, {"format": 1}, "its content has id"),
    ]
    for changes, fields, message in cases:
        save_file({**tensors, **changes}, path, {"ohmq": json.dumps({**header, **fields})})
        with pytest.raises(ModelFileError, match=message):
            load_model(path)


def test_an_onnx_folder_has_both_ids(tmp_path: Path) -> None:
    frozen = golden_model("static")
    swapped = with_synthesis(frozen, other_synthesis(frozen), {})
    export_onnx(swapped, tmp_path)
    codec = load(tmp_path, runtime="onnx")
    assert codec.model_id == frozen.model_id
    assert codec.frozen.transforms_id == swapped.transforms_id
    data = (GOLDEN / "static_layers.ohm").read_bytes()
    assert codec.decode(data)[1].values.tolist() == json.loads((GOLDEN / "static_layers.json").read_text())
