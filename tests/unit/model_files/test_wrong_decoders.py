"""What cannot decode a file is told in one line: decoders, models, weights and runtimes."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from support.small_models import make_codec, photo_picture

from ohmq.cli import main
from ohmq.codec import Codec
from ohmq.errors import ConfigError, ModelFileError
from ohmq.loading import load
from ohmq.model_files.export_onnx import export_onnx
from ohmq.model_files.frozen_model import FrozenModel, load_model, save_model, with_decoder
from ohmq.models.decoders import DecoderConfig, LadderDecoder

GOLDEN = Path(__file__).parents[2] / "golden"
SMALL = DecoderConfig((8, 6, 0), (1, 1, 0), last_kernel=1)


def with_fast(frozen: FrozenModel) -> FrozenModel:
    state = {key: value.numpy() for key, value in LadderDecoder(12, SMALL).state_dict().items()}
    return with_decoder(frozen, "fast", SMALL, state, {})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file x.ohm, its model mine.safetensors with a fast decoder, and other.safetensors with one, of another id."""
    folder = tmp_path_factory.mktemp("decoders")
    frozen = load_model(GOLDEN / "filters.safetensors")
    save_model(with_fast(frozen), folder / "mine.safetensors")
    other = make_codec("photo").frozen
    assert isinstance(other, FrozenModel) and other.model_id != frozen.model_id
    save_model(with_fast(other), folder / "other.safetensors")
    (folder / "x.ohm").write_bytes(Codec(frozen).compress(photo_picture(40, 50)))
    return folder


def error_of(arguments: Sequence[object], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that fails with one line."""
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    assert stopped.value.code == 1 and error.count("\n") == 1
    return error


def decompress(folder: Path, model: str, *options: object) -> list[object]:
    return ["decompress", folder / "x.ohm", "-o", folder / "x.png", "-m", folder / model, *options]


def test_a_decoder_that_the_model_lacks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(decompress(folder, "mine.safetensors", "--decoder", "best"), capsys)
    assert "mine.safetensors has no decoder 'best'; it has fast, standard" in error
    (folder / "shipped.ohm").write_bytes(load("photo").compress(photo_picture(32, 32), effort=0))
    error = error_of(["decompress", folder / "shipped.ohm", "-o", folder / "x.png", "--decoder", "slow"], capsys)
    assert "shipped.ohm: photo has no decoder 'slow'; it has " in error
    assert not (folder / "x.png").exists()


def test_a_decoder_of_another_bitstream_id(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [load_model(folder / name).model_id.hex() for name in ("mine.safetensors", "other.safetensors")]
    error = error_of(decompress(folder, "other.safetensors", "--decoder", "fast"), capsys)
    assert f"x.ohm: the file was made with model {ids[0]}, this is other.safetensors ({ids[1]})" in error
    with safe_open(folder / "mine.safetensors", "np") as opened:
        header = opened.metadata()
    # The header and the decoders of a model, and the quantizer of another.
    tensors = load_file(folder / "mine.safetensors")
    tensors["quantizer.values"] = tensors["quantizer.values"] * np.float16(2)
    save_file(tensors, tmp_path / "mixed.safetensors", header)
    with pytest.raises(ModelFileError, match=f"is not that of bitstream id {ids[0]}"):
        load_model(tmp_path / "mixed.safetensors")
    # A decoder that was put into a file by hand, without its digest.
    tensors = load_file(folder / "mine.safetensors")
    tensors["decoders.fast.path.0.bias"] = tensors["decoders.fast.path.0.bias"] + np.float16(1)
    save_file(tensors, tmp_path / "changed.safetensors", header)
    with pytest.raises(ModelFileError, match="transforms do not match their digest"):
        load_model(tmp_path / "changed.safetensors")
    assert not (folder / "x.png").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(
    folder: Path, tmp_path: Path, value: float, capsys: pytest.CaptureFixture[str]
) -> None:
    with safe_open(folder / "mine.safetensors", "np") as opened:
        header = opened.metadata()
    tensors = load_file(folder / "mine.safetensors")
    tensors["decoders.fast.block"][0, 0, 0, 0] = value
    save_file(tensors, tmp_path / "bad.safetensors", header)
    arguments = ["decompress", folder / "x.ohm", "-o", folder / "x.png", "-m", tmp_path / "bad.safetensors"]
    assert "block holds values that are not finite" in error_of(arguments, capsys)
    assert not (folder / "x.png").exists()


def test_weights_beyond_half_precision() -> None:
    state = {key: value.numpy() for key, value in LadderDecoder(12, SMALL).state_dict().items()}
    state["block"] = state["block"] + 1e6
    frozen = load_model(GOLDEN / "filters.safetensors")
    with pytest.raises(ModelFileError, match="block holds values that are not finite"):
        with_decoder(frozen, "fast", SMALL, state, {})


def test_a_runtime_that_is_not_installed(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    export_onnx(make_codec("static").frozen, tmp_path / "onnx")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"onnxruntime is not installed; it comes with: pip install 'ohmq\[onnx\]'"):
        load(tmp_path / "onnx", runtime="onnx")
    arguments = ["decompress", folder / "x.ohm", "-o", folder / "x.png", "-m", tmp_path / "onnx", "--runtime", "onnx"]
    assert "onnxruntime is not installed; it comes with: pip install" in error_of(arguments, capsys)
    assert not (folder / "x.png").exists()


def test_several_files_without_torch(folder: Path) -> None:
    (folder / "y.ohm").write_bytes((folder / "x.ohm").read_bytes())
    script = "import sys; sys.modules['torch'] = None; from ohmq.cli import main; main(sys.argv[1:])"
    arguments = ["decompress", folder / "x.ohm", folder / "y.ohm", "-o", folder / "images/"]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("ohmq: ")]
    assert done.returncode == 1 and len(errors) == 2 and "Traceback" not in done.stderr, done.stderr
