"""Model files: written, read again, and refused where they are damaged."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from support.small_models import make_codec

from ohmq.codec import Codec
from ohmq.errors import ModelFileError, OutputExistsError
from ohmq.loading import load
from ohmq.model_files.frozen_model import load_model, save_model


def test_a_reloaded_model_codes_the_same(codec: Codec, tmp_path: Path, digit: Image.Image) -> None:
    path = tmp_path / "m.safetensors"
    save_model(codec.frozen, path)
    again = load(path)
    assert again.model_id == codec.model_id
    data = codec.compress(digit)
    assert again.compress(digit) == data
    assert np.array_equal(again.decode(data)[1].values, codec.decode(data)[1].values)
    assert again.decompress(data).tobytes() == codec.decompress(data).tobytes()


def test_header_of_a_model_file(model_path: Path) -> None:
    with safe_open(model_path, framework="np") as file:
        header = json.loads(file.metadata()["ohmq"])
    assert header["format"] == 1
    assert header["config"]["family"] == "mnist"
    assert header["provenance"] == {"epochs": 3}
    assert load_model(model_path).provenance == {"epochs": 3}


def rewrite(source: Path, target: Path, header: dict[str, object] | None = None, **tensors: np.ndarray) -> Path:
    with safe_open(source, framework="np") as file:
        metadata = json.loads(file.metadata()["ohmq"])
    save_file({**load_file(source), **tensors}, target, metadata={"ohmq": json.dumps({**metadata, **(header or {})})})
    return target


def test_damaged_and_foreign_files_are_refused(model_path: Path, tmp_path: Path) -> None:
    target = tmp_path / "bad.safetensors"
    bias = load_file(model_path)["quantizer.output_bias"]
    cases: list[tuple[Path, str]] = [
        (rewrite(model_path, tmp_path / "a", {"format": 4}), "format 4.*update"),
        (rewrite(model_path, tmp_path / "b", {"config": {"family": "x"}}), "family 'x'"),
        (rewrite(model_path, tmp_path / "c", **{"quantizer.output_bias": bias + 1}), "damaged"),
        (rewrite(model_path, tmp_path / "d", **{"quantizer.output_bias": bias[1:]}), "do not fit"),
        (rewrite(model_path, tmp_path / "e", **{"prior.logits": np.zeros((1, 2, 3), np.int32)}), "tables"),
        (tmp_path / "missing", "no model file"),
    ]
    save_file({"x": np.zeros(3)}, target)
    cases.append((target, "no ohmq header"))
    for name, data in (("empty", b""), ("text", b"hello"), ("cut", model_path.read_bytes()[:1000])):
        (tmp_path / name).write_bytes(data)
        cases.append((tmp_path / name, "not a safetensors file"))
    for path, message in cases:
        with pytest.raises(ModelFileError, match=message):
            load_model(path)


def test_saving_does_not_overwrite(model_path: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.safetensors"
    shutil.copy(model_path, target)
    before = target.read_bytes()
    with pytest.raises(OutputExistsError, match="--force"):
        save_model(make_codec("static").frozen, target)
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
