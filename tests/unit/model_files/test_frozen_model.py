import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from support.small_models import make_codec, make_model

from ohmq.codec import Codec
from ohmq.errors import ModelFileError, OutputExistsError
from ohmq.loading import load
from ohmq.model_files.freeze import freeze
from ohmq.model_files.frozen_model import load_model, save_model
from ohmq.model_files.pretrained import pretrained_models
from ohmq.model_files.resolve import resolve_model


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "small.safetensors"
    save_model(freeze(make_model("context"), "small", {"epochs": 3}), path)
    return path


def test_a_reloaded_model_codes_the_same(codec: Codec, tmp_path: Path, digit: Image.Image) -> None:
    path = tmp_path / "m.safetensors"
    save_model(codec.frozen, path)
    again = load(path)
    assert again.model_id == codec.model_id
    data = codec.compress(digit)
    assert again.compress(digit) == data
    assert np.array_equal(again.decode(data)[1].values, codec.decode(data)[1].values)
    assert again.decompress(data).tobytes() == codec.decompress(data).tobytes()


def test_freezing_twice_gives_the_same_model() -> None:
    assert make_codec("context").model_id == make_codec("context").model_id
    model = make_model("context")
    before = freeze(model).model_id
    with torch.no_grad():
        model.quantizer.output_bias[0] += 1  # type: ignore[union-attr, operator]
    assert freeze(model).model_id != before


def test_header(model_path: Path) -> None:
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


def test_what_is_wrong_with_a_model_is_said(model_path: Path, tmp_path: Path) -> None:
    target = tmp_path / "bad.safetensors"
    bias = load_file(model_path)["quantizer.output_bias"]
    cases: list[tuple[Path, str]] = [
        (rewrite(model_path, tmp_path / "a", {"format": 3}), "format 3.*update"),
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


def test_resolving(model_path: Path, tmp_path: Path) -> None:
    assert resolve_model(model_path).name == "small.safetensors"
    with pytest.raises(ModelFileError, match="neither a file nor"):
        resolve_model("mnist-best")
    with pytest.raises(ModelFileError, match="is a folder"):
        resolve_model(tmp_path)
    for name, content in (("a.ckpt", b"no"), ("b.ckpt", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelFileError, match="not a checkpoint"):
            resolve_model(tmp_path / name)


class Evil:
    """Unpickling it would make a file."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (open, ("evil-was-here", "w"))


def test_a_checkpoint_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"ohmq": {"format": 1}, "state_dict": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(ModelFileError, match="not a checkpoint"):
        resolve_model(tmp_path / "evil.ckpt")
    assert not (tmp_path / "evil-was-here").exists()


def test_diverged_weights_are_not_frozen() -> None:
    model = make_model("static")
    with torch.no_grad():
        model.quantizer.codewords[0, 0, 0] = float("nan")  # type: ignore[union-attr, index, operator]
    with pytest.raises(ModelFileError, match="not finite"):
        freeze(model)


def test_saving_does_not_overwrite(model_path: Path, tmp_path: Path) -> None:
    target = tmp_path / "m.safetensors"
    shutil.copy(model_path, target)
    before = target.read_bytes()
    with pytest.raises(OutputExistsError, match="--force"):
        save_model(make_codec("static").frozen, target)
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_shipped_models_load_and_have_cards() -> None:
    shipped = pretrained_models()
    assert set(shipped) == {"mnist-int", "mnist-ohm", "photo"}
    for name, path in shipped.items():
        frozen = load_model(path, name)
        card = path.with_suffix(".md").read_text(encoding="utf-8")
        assert frozen.model_id.hex() in card
        assert frozen.provenance["command"] in card
        assert path.stat().st_size < 12e6
