"""The benchmarks run, at sizes that say nothing about speed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.small_models import make_codec

import ohmq
from ohmq.model_files.frozen_model import load_model, save_model, with_decoder
from ohmq.model_files.pretrained import pretrained_models
from ohmq.models.decoders import DecoderConfig, LadderDecoder

ROOT = Path(__file__).parents[2]
DIGIT = ROOT / "examples" / "digits" / "digit_3_a.png"
PARTS = {
    "training": ["adaptive, fraction = sqrt(U)", "all channels active"],
    "entropy": ["encode", "encode with choice of tables", "decode", "decode with choice of tables"],
    "codecs": ["encode", "decode"],
    "start-up": [
        f"ohmq {line}"
        for line in ("--help", "--version", "info FILE", "truncate FILE", "models", "compress IMAGE", "decompress FILE")
    ],
    "memory": [
        *("python -c pass", "ohmq info FILE", "ohmq compress IMAGE", "ohmq decompress FILE"),
        *("fast training step", "literal training step"),
    ],
}


def run(script: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a benchmark with warnings as errors."""
    command = [sys.executable, "-W", "error", str(ROOT / "benchmarks" / script), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("context", ["training", "entropy"]),
        ("photo", ["entropy", "codecs"]),
        ("static", ["entropy", "start-up", "memory"]),
    ],
)
def test_side_by_side(tmp_path: Path, kind: str, parts: list[str]) -> None:
    model, out = tmp_path / "small.safetensors", tmp_path / "out" / "speed.json"
    codec = make_codec(kind)
    save_model(codec.frozen, model)
    arguments = [DIGIT, "--model", model, "--bpp", "16", "--rounds", "2", "--step", "4", "3", "5", "-o", out]
    done = run("side_by_side.py", *arguments, "--only", *parts)
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads(out.read_text())
    assert (content["model_id"], content["versions"]["ohmq"]) == (codec.model_id.hex(), ohmq.__version__)
    assert content["data"] == "digit_3_a.png 28x28"
    assert str(tmp_path) not in out.read_text()
    rows = content["rows"]
    assert set(rows[0]) == set(content["definitions"])
    assert list(dict.fromkeys(row["part"] for row in rows)) == parts
    for part in parts:
        assert list(dict.fromkeys(row["what"] for row in rows if row["part"] == part)) == PARTS[part]
    for row in rows:
        assert 0 < row["lowest"] <= row["highest"]
        assert row["value"] > 0
        assert row["what"] in done.stdout
    again = run("side_by_side.py", *arguments, "--only", "entropy")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == f"side_by_side.py: {out} exists; add --force to overwrite it\n"


def test_side_by_side_without_images(tmp_path: Path) -> None:
    done = run("side_by_side.py", tmp_path, "--only", "entropy")
    assert done.returncode == 1
    assert done.stderr == f"side_by_side.py: no .png or .jpg files in {tmp_path}\n"


def test_bulk_coding(tmp_path: Path) -> None:
    model, out = tmp_path / "small.safetensors", tmp_path / "bulk.json"
    save_model(make_codec("static").frozen, model)
    arguments = [
        "--small",
        "--only",
        "memory",
        "rerun",
        "--model",
        model,
        "--data",
        ROOT / "examples" / "photos",
        "-o",
        out,
    ]
    done = run("bulk.py", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads(out.read_text())
    assert str(tmp_path) not in out.read_text()
    assert content["machine"].endswith("CPU only")
    rows = {(row["row"], row["what"]): row for row in content["rows"]}
    assert 0.5 < rows["memory", "driver, large plan against small"]["value"] < 2
    assert rows["rerun", "images read"]["value"] == 0
    assert rows["rerun", "images read"]["met"]
    assert all(row["what"] in done.stdout for row in content["rows"])


def test_decoders(tmp_path: Path) -> None:
    frozen, config = load_model(pretrained_models()["photo"]), DecoderConfig((8, 6, 0), (1, 1, 0))
    model, out = tmp_path / "ladder.safetensors", tmp_path / "decoders.json"
    state = {name: value.numpy() for name, value in LadderDecoder(320, config).state_dict().items()}
    save_model(with_decoder(frozen, "fast", config, state, {"made": "here"}), model)
    arguments: list[object] = [
        "--only",
        "fast",
        "effort-0",
        "busy",
        "folder",
        "--width",
        192,
        "--height",
        128,
        "--rounds",
        1,
    ]
    arguments += ["--encode-rounds", 1, "--files", 2, "--images", 1, "-o", out, "--model", model]
    done = run("decoders.py", *arguments)
    assert done.returncode in (0, 1) and done.stderr == ""  # whether so small an image meets the bounds says nothing
    content = json.loads(out.read_text())
    assert str(tmp_path) not in out.read_text() and content["machine"].endswith("CPU only")
    rows = {found["row"]: found for found in content["rows"]}
    assert set(rows) == {"fast", "effort-0", "busy", "folder"}
    for found in rows.values():
        assert found["what"] in done.stdout and found["met"] == (found["value"] <= found["must"])
    assert rows["fast"]["aim"] == 8 and len(content["seconds"]["fast"]["avif"]) == 1
    assert done.returncode == (0 if all(found["met"] for found in rows.values()) else 1)


def test_decoders_that_a_model_lacks_are_one_line(tmp_path: Path) -> None:
    small = ROOT / "tests" / "golden" / "filters.safetensors"
    done = run("decoders.py", "--only", "fast", "--model", small)
    assert (done.returncode, done.stdout.count("\n")) == (1, 1)
    assert done.stderr == "decoders.py: filters.safetensors has no decoder 'fast'; it has standard\n"


def test_the_ohm_layer() -> None:
    done = run("ohm_layer.py", "--batch", 4, "--channels", 3, "--symbols", 5, "--rounds", 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert "all channels active: fast is" in done.stdout
    assert "peak memory of the step:" in done.stdout


def test_a_coder_that_gives_other_bytes_is_reported(tmp_path: Path) -> None:
    """The literal coder's bytes are really compared."""
    save_model(make_codec("static").frozen, tmp_path / "small.safetensors")
    program = (
        "import sys; import side_by_side as s\n"
        "finish = s.LiteralEncoder.finish\n"
        "s.LiteralEncoder.finish = lambda self: finish(self) + b'x'\n"
        f"sys.exit(s.main([{str(DIGIT)!r}, '--model', 'small.safetensors', '--bpp', '16', '--only', 'entropy']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "benchmarks"), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "side_by_side.py: literal: encode does not give what it should: this is a bug\n"


def test_kinds(tmp_path: Path) -> None:
    model, out, folder = tmp_path / "small.safetensors", tmp_path / "kinds.json", tmp_path / "kinds"
    codec = make_codec("photo")
    save_model(codec.frozen, model)
    arguments = [folder, "--model", model, "--only", "faces", "--per-kind", "1", "--rates", "3", "--side", "192"]
    (folder / "faces").mkdir(parents=True)
    shutil.copy(ROOT / "examples" / "photos" / "astronaut.png", folder / "faces" / "portrait.png")
    done = run("kinds.py", *arguments, "--codec", "jpeg", "--codec", "webp", "-o", out)
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads(out.read_text())
    assert (content["model_id"], content["not_the_pixels_of_the_table"]) == (codec.model_id.hex(), ["faces/portrait"])
    assert list(content["kinds"]) == ["faces"]
    faces = content["kinds"]["faces"]
    assert list(faces["points"]) == ["model", "jpeg", "webp"] and len(faces["points"]["jpeg"]) == 3
    for by_quality in faces["bd_rate_percent"].values():
        for found in by_quality.values():  # A figure or a reason.
            assert (found["percent"] is None) == bool(found["refused"])


def test_pictures_by_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of pictures is whole; those of installed packages have the pixels that it says."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import kinds_set
    from kinds_pages import PAGES, page_html

    table = kinds_set.read_table()
    pictures = table["pictures"]
    assert len({(picture["kind"], picture["name"]) for picture in pictures}) == len(pictures) == 38
    assert all(len(picture["sha256"]) == 64 and picture["licence"] and picture["author"] for picture in pictures)
    assert {picture["package"] for picture in pictures} <= {*table["packages"], "page"}
    pages = {picture["name"] for picture in pictures if picture["package"] == "page"}
    assert pages == {*PAGES, "contours"}
    assert all(page_html(name).count("<style>") == 1 for name in PAGES)
    packages = kinds_set.Packages(table, tmp_path)
    installed = [picture for picture in pictures if "module" in table["packages"].get(picture["package"], {})]
    assert len(installed) == 4
    for picture in installed:
        assert kinds_set.pixel_hash(kinds_set.draw_picture(picture, packages, tmp_path)) == picture["sha256"]
