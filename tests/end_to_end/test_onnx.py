"""Models as ONNX folders: the same symbols, pixels within one level, and no torch."""

import importlib.metadata
import json
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from support.small_models import make_codec, photo_picture, random_filters

import ohmq
from ohmq.cli import main
from ohmq.codec import Codec
from ohmq.errors import ConfigError, ModelFileError
from ohmq.loading import load
from ohmq.model_files.export_onnx import export_onnx
from ohmq.model_files.frozen_model import FrozenModel, save_model, with_decoder, with_thumbnails
from ohmq.models.decoders import DecoderConfig, LadderDecoder
from ohmq.runtime.thumbnails import SCALES, ThumbnailMap, Thumbnails

ROOT = Path(__file__).parents[2]
NEEDED = (
    "numpy",
    "Pillow",
    "constriction",
    "safetensors",
    "click",
    "onnxruntime",
    "flatbuffers",
    "protobuf",
    "threadpoolctl",
)
"""Packages of the environment without torch."""


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


@pytest.mark.parametrize("name", ["context", "integer", "static", "photo", "filters"])
def test_the_same_symbols_and_pixels(name: str, tmp_path: Path) -> None:
    codec, photo = make_codec(name), name in ("photo", "filters")
    export_onnx(codec.frozen, tmp_path / "model")  # type: ignore[arg-type]
    other = load(tmp_path / "model", runtime="onnx")
    assert (other.model_id, other.cut_points) == (codec.model_id, codec.cut_points)
    sizes = [(50, 70), (17, 1), (33, 64)] if photo else [(28, 28), (45, 31)]
    for height, width in sizes:
        image = photo_picture(height, width, 3)
        image = image if photo else image.convert("L")
        data = codec.compress(image)
        assert other.decode(data)[1].values.tobytes() == codec.decode(data)[1].values.tobytes()
        symbols = codec.analyse(image)
        for channels in (1, codec.num_channels // 2, codec.num_channels):
            one, two = (np.asarray(c.synthesise(symbols, channels), int) for c in (codec, other))
            if name == "filters":  # a pixel at the border of two classes may take the other's filter
                assert (np.abs(one - two) <= 1).mean() > 0.99
            else:
                assert np.abs(one - two).max() <= 1
        # Symbols that the other runtime chooses differ where a number lies on a threshold at most.
        assert (other.analyse(image).values != symbols.values).mean() < 0.001
        file = other.compress(image)
        assert len(file) == pytest.approx(len(data), rel=0.01, abs=5)
        assert codec.decompress(file).size == (width, height)
    if photo:
        image = photo_picture(90, 75, 5)
        latent = codec.latent(image, effort=0).values
        one, two = (c.transforms.pixels_from_codewords(latent, 9).astype(int) for c in (codec, other))
        assert np.abs(one - two).max() <= 1
        one, two = (c.compress(image, channels=9, effort=1) for c in (codec, other))
        assert len(one) == pytest.approx(len(two), rel=0.02, abs=5)
        assert codec.decompress(two).size == image.size
        data = codec.compress(image, tile=2)
        one, two = (np.asarray(c.decompress(data), int) for c in (codec, other))
        assert np.abs(one - two).max() <= 1


def with_random_decoder(frozen: FrozenModel, name: str, config: DecoderConfig, filters: bool) -> FrozenModel:
    decoder = LadderDecoder(12, config)
    for parameter in decoder.path.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    state = {key: value.numpy() for key, value in decoder.state_dict().items()}
    return with_decoder(frozen, name, config, state, {}, random_filters() if filters else None)


def test_a_folder_has_all_decoders_and_thumbnails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ohmq.runtime.torch_transforms.has_bfloat16", lambda **options: False)
    torch.manual_seed(1)
    frozen = make_codec("photo").frozen
    assert isinstance(frozen, FrozenModel)
    frozen = with_random_decoder(frozen, "fast", DecoderConfig((8, 6, 0), (1, 2, 0), last_kernel=1), filters=True)
    frozen = with_random_decoder(frozen, "best", DecoderConfig((8, 6, 4), (1, 1, 1)), filters=False)
    rng = np.random.default_rng(3)
    maps = {
        scale: ThumbnailMap(
            rng.normal(0, 9, (12, 3, 16 // scale, 16 // scale)).astype(np.float32),
            np.full((3, 16 // scale, 16 // scale), 120, np.float32),
        )
        for scale in SCALES
    }
    frozen = with_thumbnails(frozen, Thumbnails(maps, 12), {})
    export_onnx(frozen, tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "analysis.onnx", "synthesis.onnx", "decoder_fast.onnx", "decoder_best.onnx", "model.safetensors",
    }  # fmt: skip
    codec, other = Codec(frozen), load(tmp_path / "model", runtime="onnx")
    assert other.decoders == codec.decoders == ("fast", "standard", "best")
    data = codec.compress(photo_picture(90, 75, 5))
    symbols = codec.decode(data)[1]
    found = []
    for decoder in codec.decoders:
        for channels in (6, 24):
            one, two = (np.asarray(c.synthesise(symbols, channels, decoder=decoder), int) for c in (codec, other))
            assert np.abs(one - two).max() <= 1
            found.append(two)
    assert all((one != two).any() for number, one in enumerate(found) for two in found[:number])
    tiled = codec.compress(photo_picture(90, 75, 5), tile=2)
    one, two = (np.asarray(c.decompress(tiled, decoder="fast"), int) for c in (codec, other))
    assert np.abs(one - two).max() <= 1
    for scale in SCALES:
        one, two = (np.asarray(c.decompress(data, scale=scale), int) for c in (codec, other))
        assert np.abs(one - two).max() <= 1
    with pytest.raises(ConfigError, match="has no decoder 'slow'; it has fast, standard, best"):
        other.decompress(data, decoder="slow")
    (tmp_path / "p.ohm").write_bytes(data)
    command = (
        "decompress",
        tmp_path / "p.ohm",
        "-m",
        tmp_path / "model",
        "--runtime",
        "onnx",
        "-o",
        tmp_path / "p.png",
    )
    assert run(*command, "--decoder", "slow") == 1
    assert "it has fast, standard, best" in capsys.readouterr().err
    assert run(*command, "--decoder", "fast") == 0
    with Image.open(tmp_path / "p.png") as image:
        # The command filters a single small image without numba, in another order.
        difference = np.asarray(image, int) - np.asarray(other.decompress(data, decoder="fast"), int)
        assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 0.001
    session = other.transforms._sessions["decoder_fast"]  # type: ignore[attr-defined]
    assert session.get_session_options().get_session_config_entry("session.intra_op.allow_spinning") == "0"

    file = tmp_path / "model" / "model.safetensors"
    with safe_open(file, "np") as opened:
        header = json.loads(opened.metadata()["ohmq_onnx"])
    tensors = load_file(file)
    for decoders, words in (
        ({"../fast": {"synthesis_halo": 1}}, "wrong names or halos"),
        ({"fast": {"synthesis_halo": -1}}, "wrong names or halos"),
        ({"fast": 1}, "no JSON object of halos"),
        ({"slow": {"synthesis_halo": 1}}, "decoder_slow.onnx is missing"),
    ):
        save_file(tensors, file, {"ohmq_onnx": json.dumps({**header, "decoders": decoders})})
        with pytest.raises(ModelFileError, match=words):
            load(tmp_path / "model", runtime="onnx")


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, folder = tmp_path / "small.safetensors", tmp_path / "onnx"
    save_model(make_codec("photo").frozen, model)  # type: ignore[arg-type]
    photo_picture(40, 52, 1).save(tmp_path / "p.png")
    assert run("compress", tmp_path / "p.png", "-o", tmp_path / "p.ohm", "-m", model) == 0
    assert run("export", model, "--onnx", folder) == 0
    assert "for ONNX Runtime" in capsys.readouterr().out
    coded = (tmp_path / "p.ohm", "-m", folder, "--runtime", "onnx", "-o")
    assert run("decompress", *coded, tmp_path / "onnx.png") == 0
    assert run("decompress", tmp_path / "p.ohm", "-m", model, "-o", tmp_path / "torch.png") == 0
    one, two = (np.asarray(Image.open(tmp_path / name), int) for name in ("onnx.png", "torch.png"))
    assert np.abs(one - two).max() <= 1
    capsys.readouterr()

    before = {path: path.read_bytes() for path in folder.iterdir()}
    for arguments, code, words in (
        (("export", model, "--onnx", folder), 1, "exists"),
        (("export", model), 2, "one of -o and --onnx"),
        (("export", model, "--onnx", folder, "-o", model), 2, "one of -o and --onnx"),
        (("decompress", tmp_path / "p.ohm", "--runtime", "onnx"), 2, "needs --model"),
        (("decompress", tmp_path / "p.ohm", "--runtime", "onnx", "-m", tmp_path), 1, "has no model.safetensors"),
        (("decompress", tmp_path / "p.ohm", "-m", folder), 1, "is a folder"),
    ):
        assert run(*arguments) == code, arguments
        assert words in capsys.readouterr().err, arguments
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert run("export", model, "--onnx", folder, "--force") == 0


def test_damaged_folders(tmp_path: Path) -> None:
    export_onnx(make_codec("static").frozen, tmp_path)  # type: ignore[arg-type]
    file, graph = tmp_path / "model.safetensors", tmp_path / "synthesis.onnx"
    whole = {path: path.read_bytes() for path in (file, graph)}
    with safe_open(file, "np") as opened:
        header = json.loads(opened.metadata()["ohmq_onnx"])
    tensors = load_file(file)

    def header_of(**changes: object) -> None:
        save_file(tensors, file, {"ohmq_onnx": json.dumps({**header, **changes})})

    for damage, words in (
        (lambda: graph.write_bytes(whole[graph][:-1]), "checksum"),
        (graph.unlink, "missing"),
        (lambda: file.write_bytes(b"no"), "not written by"),
        (lambda: save_file(tensors, file), "not written by"),
        (lambda: header_of(format=3), "update ohmq"),
        (lambda: header_of(format=1), "export the model again"),
        (lambda: header_of(model_id="xx"), "model.safetensors"),
        (lambda: header_of(config={**header["config"], "channels_max": 3}), "not usable"),
    ):
        damage()
        with pytest.raises(ModelFileError, match=words):
            load(tmp_path, runtime="onnx")
        for path, data in whole.items():
            path.write_bytes(data)
    load(tmp_path, runtime="onnx")
    with pytest.raises(ValueError, match="choose 'torch' or 'onnx'"):
        load(tmp_path, runtime="jax")


@pytest.fixture(scope="module")
def python_without_torch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own with links to the packages that decoding needs, and nothing else."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False, symlinks=True)
    target = next(place.glob("lib/python*/site-packages"))
    for package in NEEDED:
        distribution = importlib.metadata.distribution(package)
        tops = {file.parts[0] for file in distribution.files or [] if not file.parts[0].startswith((".", "_"))}
        for top in tops:
            source = Path(str(distribution.locate_file(top)))
            if source.exists() and not (target / top).exists():
                (target / top).symlink_to(source)
    (target / "ohmq.pth").write_text(str(ROOT / "src"))
    return place / "bin" / "python"


def test_decoding_where_torch_is_not_installed(python_without_torch: Path, tmp_path: Path) -> None:
    codec = load("photo")
    export_onnx(codec.frozen, tmp_path / "model")  # type: ignore[arg-type]
    with Image.open(ROOT / "examples" / "photos" / "chelsea.png") as opened:
        image = opened.convert("RGB").crop((60, 20, 220, 150))
    data = codec.compress(image, bpp=0.8)
    (tmp_path / "p.ohm").write_bytes(data)

    def python(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(python_without_torch), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)

    assert "No module named 'torch'" in python("-c", "import torch").stderr
    done = python("-m", "ohmq", "decompress", "p.ohm", "--runtime", "onnx", "-m", "model", "-o", "p.png")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "p.png") as decoded:
        difference = np.abs(np.asarray(decoded, int) - np.asarray(codec.decompress(data), int))
    # Rounding may tip a class of the post-filter: single values then differ by more, see docs/devices.md.
    assert (difference > 1).mean() < 1e-4 and difference.max() <= 15
    script = (
        "import ohmq, numpy as np, sys; codec = ohmq.load('model', runtime='onnx');"
        "np.save('symbols.npy', codec.decode(open('p.ohm', 'rb').read())[1].values); assert 'torch' not in sys.modules"
    )
    done = python("-c", script)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "symbols.npy"), codec.decode(data)[1].values)
    done = python("-m", "ohmq", "decompress", "p.ohm", "-o", "q.png")
    assert (done.returncode, done.stderr.strip()) == (
        1,
        "ohmq: p.ohm: torch is not installed; without it, models run as ONNX folders: --runtime onnx",
    )
    assert not (tmp_path / "q.png").exists()


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = make_codec("static")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ohmq.ConfigError, match=r"ohmq\[onnx\]"):
        export_onnx(codec.frozen, tmp_path)  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())
