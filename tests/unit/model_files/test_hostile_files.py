"""Model files and ONNX folders whose ids and digests are right, and whose content is not."""

import dataclasses
import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from support.small_models import make_codec

from ohmq.bitstream.reader import read_ohm
from ohmq.bitstream.writer import write_ohm
from ohmq.codec import Codec
from ohmq.errors import ModelFileError
from ohmq.model_files.frozen_model import load_model
from ohmq.model_files.identity import content_id
from ohmq.models import config_from_dict

GOLDEN = Path(__file__).parents[2] / "golden"


def read_parts(path: Path, key: str = "ohmq") -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with safe_open(path, framework="np") as file:
        return json.loads(file.metadata()[key]), load_file(path)


def write_signed(path: Path, record: dict[str, Any], tensors: dict[str, np.ndarray]) -> Path:
    """Write a model file with the id of its content, where that has one."""
    try:
        record["model_id"] = content_id(config_from_dict(record["config"]), tensors).hex()
    except Exception:
        pass
    save_file(tensors, path, {"ohmq": json.dumps(record)})
    return path


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "[]", '"x"', "{}", '{"format": 1}', '{"format": 1, "config": ["ab"]}', "{"]
)
def test_records_that_are_none(tmp_path: Path, text: str) -> None:
    save_file({"x": np.zeros(3)}, tmp_path / "m", {"ohmq": text})
    with pytest.raises(ModelFileError, match="ohmq header"):
        load_model(tmp_path / "m")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("family", ["mnist"], "family"),
        ("channels_max", "4", "channels_max is '4'"),
        ("channels_max", True, "channels_max is True"),
        ("channels_max", 2**31, "channels_max"),
        ("num_symbols", None, "num_symbols"),
        ("refinement", 1, "residual_quantization is 1"),
        ("prior", 3, "prior"),
        ("context_features", 255, "context network|configuration"),
        ("context_hidden", 2**40, "context_hidden"),
        ("latent_channels", 0, "latent_channels is 0"),
        ("quantizer", "none", "."),
    ],
)
def test_configurations_of_no_model(tmp_path: Path, field: str, value: Any, message: str) -> None:
    record, tensors = read_parts(GOLDEN / "context.safetensors")
    record["config"][field] = value
    with pytest.raises(ModelFileError, match=message):
        load_model(write_signed(tmp_path / "m", record, tensors))


@pytest.mark.parametrize(
    "changes",
    [
        {"channels_max": 65536, "num_symbols": 65536},
        {"channels_max": 65536, "context_group": 1, "num_symbols": 256, "prior": "context"},
    ],
)
def test_a_small_file_cannot_ask_for_large_tables(tmp_path: Path, changes: dict[str, Any]) -> None:
    record, tensors = read_parts(GOLDEN / "static.safetensors")
    record["config"] |= changes
    with pytest.raises(ModelFileError, match="all channels have at most"):
        load_model(write_signed(tmp_path / "m", record, tensors))


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ("context", {"channels_max": 65535, "num_symbols": 19, "context_group": 1}, "65535 groups of channels"),
        ("photo", {"groups": [1] * 2000, "channels_max": 2000}, "2000 groups of channels"),
        ("photo", {"synthesis_blocks": [65536, 1]}, "two numbers of blocks, 0 to 64"),
    ],
)
def test_a_small_file_cannot_ask_for_many_networks(
    tmp_path: Path, model: str, changes: dict[str, Any], message: str
) -> None:
    record, tensors = read_parts(GOLDEN / f"{model}.safetensors")
    record["config"] |= changes
    with pytest.raises(ModelFileError, match=message):
        load_model(write_signed(tmp_path / "m", record, tensors))


def test_no_prior_where_there_is_no_quantizer(tmp_path: Path) -> None:
    record, tensors = read_parts(GOLDEN / "static.safetensors")
    record["config"] |= {"quantizer": "none"}
    kept = {key: value for key, value in tensors.items() if not key.startswith("quantizer.")}
    with pytest.raises(ModelFileError, match="without a quantizer|do not fit"):
        load_model(write_signed(tmp_path / "m", record, kept))


@pytest.mark.parametrize(
    ("model", "tensor", "change"),
    [
        ("context", "prior.exp2", np.zeros_like),
        ("context", "prior.exp2", lambda x: x[:-1]),
        ("context", "prior.exp2", lambda x: np.full_like(x, 2**30)),
        ("context", "prior.network.1.0.bias", lambda x: x[:1]),
        ("context", "prior.network.1.2.weight", lambda x: np.ascontiguousarray(x.T)),
        ("context", "prior.codewords", lambda x: x[:1]),
        ("context", "prior.features", lambda x: x[:, :1]),
        ("photo", "prior.exp2", np.zeros_like),
        ("photo", "prior.network.1.0.bias", lambda x: x[:1]),
        ("photo", "prior.network.1.1.weight", lambda x: x[:, :-1]),
        ("photo", "prior.projection.1.weight", lambda x: x[:, :-1]),
        ("photo", "prior.projection.1.bias", lambda x: x[None]),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, model: str, tensor: str, change: Any) -> None:
    record, tensors = read_parts(GOLDEN / f"{model}.safetensors")
    tensors[tensor] = np.ascontiguousarray(change(tensors[tensor]))
    with pytest.raises(ModelFileError, match="the prior's tables are not usable"):
        load_model(write_signed(tmp_path / "m", record, tensors))


def test_numbers_that_numpy_has_not(tmp_path: Path) -> None:
    pytest.importorskip("ml_dtypes")
    data = (GOLDEN / "photo.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    entries = json.loads(data[8 : 8 + size])
    name = next(name for name, entry in entries.items() if entry.get("dtype") == "F16")
    entries[name]["dtype"] = "BF16"
    text = json.dumps(entries).encode()
    (tmp_path / "m").write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
    with pytest.raises(ModelFileError, match="bfloat16"):
        load_model(tmp_path / "m")


@pytest.fixture(scope="module")
def onnx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export a small model."""
    export_onnx = pytest.importorskip("ohmq.model_files.export_onnx").export_onnx
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(make_codec("static").frozen, folder)
    return folder


def damaged_folder(source: Path, target: Path, record: dict[str, Any], **graphs: bytes) -> Path:
    """Copy a folder with other graphs and another record; the checksums of the graphs are right."""
    _, tensors = read_parts(source / "model.safetensors", "ohmq_onnx")
    for name in ("analysis", "synthesis"):
        graph = graphs.get(name, (source / f"{name}.onnx").read_bytes())
        (target / f"{name}.onnx").write_bytes(graph)
        if isinstance(record.get("sha256"), dict):
            record["sha256"][name] = hashlib.sha256(graph).hexdigest()
    save_file(tensors, target / "model.safetensors", {"ohmq_onnx": json.dumps(record)})
    return target


def test_onnx_records(onnx_folder: Path, tmp_path: Path) -> None:
    from ohmq.model_files.onnx_folder import load_onnx

    for sums in (None, [], "x"):
        record, _ = read_parts(onnx_folder / "model.safetensors", "ohmq_onnx")
        with pytest.raises(ModelFileError, match="no checksums"):
            load_onnx(damaged_folder(onnx_folder, tmp_path, {**record, "sha256": sums}))


def test_graphs_that_do_not_run(onnx_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ohmq.model_files.onnx_folder import load_onnx

    whole = (onnx_folder / "synthesis.onnx").read_bytes()
    for graph in (b"", whole[:100], b"\xff" * 200, whole.replace(b"Conv", b"\xff\xff\xff\xff")):
        record, _ = read_parts(onnx_folder / "model.safetensors", "ohmq_onnx")
        with pytest.raises(ModelFileError, match="cannot run the graph 'synthesis'"):
            load_onnx(damaged_folder(onnx_folder, tmp_path, record, synthesis=graph))
    assert capsys.readouterr().out == ""


def test_graphs_in_each_others_place(onnx_folder: Path, tmp_path: Path) -> None:
    from ohmq.model_files.onnx_folder import load_onnx

    record, _ = read_parts(onnx_folder / "model.safetensors", "ohmq_onnx")
    graph = (onnx_folder / "analysis.onnx").read_bytes()
    codec = Codec(load_onnx(damaged_folder(onnx_folder, tmp_path, record, synthesis=graph)))
    file = make_codec("static").compress(Image.new("L", (28, 28)))
    with pytest.raises(ModelFileError, match="graph 'synthesis'"):
        codec.decompress(file)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("model", ["static", "filters"])
def test_weights_that_are_no_numbers(tmp_path: Path, model: str, value: float) -> None:
    record, tensors = read_parts(GOLDEN / f"{model}.safetensors")
    name = next(name for name in tensors if name.startswith("synthesis_transform.") and name.endswith("weight"))
    tensors[name] = np.full_like(tensors[name], value)
    codec = Codec(load_model(write_signed(tmp_path / "m", {**record, "format": 1}, tensors)))
    image = Image.new("L" if codec.grey else "RGB", (28, 28))
    data = make_codec(model).compress(image)
    data = write_ohm(dataclasses.replace(read_ohm(data), model_id=codec.model_id))
    with pytest.raises(ModelFileError, match="pixels that are no numbers"):
        codec.decompress(data)
