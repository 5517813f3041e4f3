"""The commands, run as a user would: real files in, real files out, one clear line when something is wrong."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from support.small_models import make_model

import ohmq
from ohmq.bitstream.psnr_table import psnr_table
from ohmq.bitstream.reader import read_ohm
from ohmq.cli import cli, main
from ohmq.cli.jobs import Job, run_jobs
from ohmq.errors import OhmqError
from ohmq.loading import load
from ohmq.metrics import psnr_db, ssimulacra2
from ohmq.model_files.freeze import freeze
from ohmq.model_files.frozen_model import save_model
from ohmq.models import MnistConfig, build_model
from ohmq.utils.atomic_write import write_atomically

ROOT = Path(__file__).parents[2]
DIGITS, PHOTOS = ROOT / "examples" / "digits", ROOT / "examples" / "photos"


class Result(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs ``ohmq ARGUMENTS`` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Result:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return Result(stop.value.code, captured.out, captured.err)

    return call


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model file with a context prior, 6 channels."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(freeze(make_model("context"), "small"), path)
    return path


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model file."""
    path = tmp_path_factory.mktemp("model") / "other.safetensors"
    save_model(freeze(make_model("static"), "other"), path)
    return path


def read_image(path: str | Path) -> Image.Image:
    """Read an image and close its file."""
    with Image.open(path) as image:
        image.load()
        return image.copy()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", [None, *cli.list_commands(None)])  # type: ignore[arg-type]
def test_help_shows_an_example(run: Run, name: str | None) -> None:
    result = run(*([name] if name else []), "--help")
    assert result.code == 0
    assert "Example: ohmq" in result.out or "Example:\n" in result.out
    assert max(map(len, result.out.splitlines())) <= 110


def test_wrong_usage_is_exit_code_2(run: Run, model: Path) -> None:
    for arguments in (
        ("compress",),
        ("compress", DIGITS, "--no-such-option"),
        ("compress", DIGITS, "-m", model, "--fraction", "0.5", "--channels", "3"),
        ("compress", DIGITS, "-m", model, "--channels", "7"),
        ("compress", DIGITS, "-m", model, "--fraction", "1.5"),
        ("compress", DIGITS, "-m", model, "--fraction", "0"),
        ("truncate", "x.ohm", "-o", "y.ohm"),
        ("truncate", "x.ohm", "-o", "y.ohm", "--layers", "1", "--channels", "2"),
        ("evaluate", "-m", model),
        ("evaluate", DIGITS, "-m", model, "--against", "no-such-curve"),
        ("evaluate", DIGITS, "-m", model, "--fraction", "0.5", "--channels", "3"),
        ("nonsense",),
    ):
        result = run(*arguments)
        assert result.code == 2, (arguments, result)
        assert "Error:" in result.err


def test_a_file_there_and_back(run: Run, model: Path, tmp_path: Path) -> None:
    assert run("compress", DIGITS / "digit_3_a.png", "-o", "three.ohm", "-m", model).code == 0
    result = run("decompress", "three.ohm", "-o", "three.png", "-m", model)
    assert (result.code, result.out) == (0, "three.ohm -> three.png: 28x28\n")
    codec = load(model)
    expected = codec.decompress(codec.compress(read_image(DIGITS / "digit_3_a.png")))
    assert np.array_equal(read_image("three.png"), expected)
    assert files(tmp_path) == ["three.ohm", "three.png"]


def test_folders_globs_and_json(run: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for number, place in enumerate(["in/a.png", "in/deep/b.png"]):
        read_image(sorted(DIGITS.glob("*.png"))[number]).save(place)
    (tmp_path / "in" / "notes.txt").write_text("not an image, not asked for")
    done = json.loads(run("compress", "in", "-o", "coded", "-m", model, "--json", "--fraction", "0.5").out)
    assert files(tmp_path / "coded") == ["a.ohm", "deep/b.ohm"]
    assert done["failures"] == []
    assert [row["bytes"] for row in done["results"]] == [
        (tmp_path / "coded" / name).stat().st_size for name in ("a.ohm", "deep/b.ohm")
    ]
    assert read_ohm((tmp_path / "coded" / "a.ohm").read_bytes()).num_channels == 3
    result = run("decompress", "coded/*.ohm", "coded/deep", "-o", "out", "-m", model)
    assert result.code == 0
    assert files(tmp_path / "out") == ["a.png", "b.png"]
    assert result.out.splitlines()[-1] == "2 of 2 files decompressed"
    beside = run("compress", "in/deep", "-m", model, "--channels", "2", "--layers", "1", "--fixed-rate")
    assert beside.code == 0
    assert read_ohm((tmp_path / "in/deep/b.ohm").read_bytes()).fixed_rate


def test_one_bad_file_does_not_stop_the_others(run: Run, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    good = (DIGITS / "digit_3_a.png").read_bytes()
    (folder / "a_empty.png").write_bytes(b"")
    (folder / "b_text.png").write_text("this is no image")
    (folder / "c_cut.png").write_bytes(good[: len(good) // 2])
    (folder / "d_good.png").write_bytes(good)
    result = run("compress", folder, tmp_path / "missing.png", "-o", "coded", "-m", model)
    assert result.code == 1
    assert files(tmp_path / "coded") == ["d_good.ohm"]
    assert result.out.splitlines()[-1].startswith("1 of 5 files compressed")
    assert result.out.splitlines()[-1].endswith("4 failed")
    lines = result.err.splitlines()
    assert len(lines) == 4
    for name, line in zip(("a_empty.png", "b_text.png", "c_cut.png", "missing.png"), lines, strict=True):
        assert line.startswith("ohmq: ")
        assert name in line
    (tmp_path / "coded" / "e.ohm").write_bytes(b"\x93OHM\x01")
    result = run("decompress", "coded", "-o", "back", "-m", model, "--json")
    assert result.code == 1
    assert [Path(failure["input"]).name for failure in json.loads(result.out)["failures"]] == ["e.ohm"]
    assert files(tmp_path / "back") == ["d_good.png"]


def test_one_clear_line(run: Run, model: Path, other_model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert run("compress", DIGITS / "digit_3_a.png", "-o", "a.ohm", "-m", model).code == 0
    data = (tmp_path / "a.ohm").read_bytes()
    Path("cut.ohm").write_bytes(data[:-2])
    Path("flipped.ohm").write_bytes(data[:-1] + bytes([data[-1] ^ 4]))
    Path("newer.ohm").write_bytes(data[:4] + b"\x02" + data[5:])
    Path("other.ohm").write_bytes(b"GIF89a" + data)
    Path("nothing.ohm").write_bytes(b"")
    ids = [load(path).model_id.hex() for path in (model, other_model)]
    cases: list[tuple[tuple[object, ...], tuple[str, ...]]] = [
        (("compress", "empty", "-m", model), ("no files found in empty",)),
        (("compress", DIGITS, "-m", "no/such.ckpt"), ("no/such.ckpt",)),
        (("compress", DIGITS, "-m", "no-such-model"), ("no-such-model",)),
        (("compress", DIGITS, "-m", "a.ohm"), ("a.ohm",)),
        (
            ("decompress", "cut.ohm", "-m", model),
            ("cut.ohm", f"{len(data) - 2} bytes; its header announces {len(data)}"),
        ),
        (("decompress", "flipped.ohm", "-m", model), ("flipped.ohm", "checksum")),
        (("decompress", "newer.ohm", "-m", model), ("newer.ohm", "version 2")),
        (("decompress", "other.ohm", "-m", model), ("other.ohm", "not an .ohm file")),
        (("decompress", "nothing.ohm", "-m", model), ("nothing.ohm",)),
        (("decompress", "a.ohm", "-m", other_model), ("a.ohm", *ids)),
        (("decompress", "a.ohm"), ("a.ohm", ids[0], "--model")),
        (("decompress", "a.ohm", "-m", model, "-o", "a.xyz"), ("a.xyz",)),
        (("decompress", "a.ohm", "-m", model, "-o", "filled"), ()),
        (("info", "nothing.ohm"), ("nothing.ohm",)),
        (("info", "missing.ohm"), ("missing.ohm",)),
        (("truncate", "cut.ohm", "-o", "c.ohm", "--max-bytes", 20), ("cut.ohm",)),
        (("evaluate", "empty", "-m", model), ("no files found",)),
        (("export", "a.ohm", "-o", "m.safetensors"), ("a.ohm",)),
        (("export", model, "-o", "m.bin"), (".safetensors",)),
        (("train", "--preset", "nothing", "-o", "run"), ("no preset 'nothing'", "mnist-ohm")),
        (("compress", DIGITS / "digit_3_a.png", "-m", model, "--max-pixels", "100", "-o", "b.ohm"), ("28x28",)),
    ]
    before = files(tmp_path)
    for arguments, words in cases:
        result = run(*arguments)
        if not words:
            assert result.code == 0
            continue
        assert result.code == 1, (arguments, result)
        assert len(result.err.splitlines()) == 1, (arguments, result.err)
        assert all(word in result.err for word in words), (words, result.err)
    assert files(tmp_path) == sorted([*before, "filled/a.png"])


def test_existing_files_are_kept(run: Run, model: Path, tmp_path: Path) -> None:
    Path("a.ohm").write_bytes(b"mine")
    Path("a.png").write_bytes(b"mine too")
    source = DIGITS / "digit_3_a.png"
    for arguments in (
        ("compress", source, "-o", "a.ohm", "-m", model),
        ("export", model, "-o", model),
        ("truncate", "b.ohm", "-o", "a.ohm", "--layers", 1),
        ("decompress", "b.ohm", "-o", "a.png", "-m", model),
    ):
        if arguments[0] == "truncate":
            assert run("compress", source, "-o", "b.ohm", "-m", model).code == 0
        result = run(*arguments)
        assert result.code == 1
        assert "--force" in result.err
    assert Path("a.ohm").read_bytes() == b"mine"
    assert Path("a.png").read_bytes() == b"mine too"
    assert run("compress", source, "-o", "a.ohm", "-m", model, "--force").code == 0
    assert run("decompress", "a.ohm", "-o", "a.png", "-m", model, "--force").code == 0
    assert read_image("a.png").size == (28, 28)
    assert files(tmp_path) == ["a.ohm", "a.png", "b.ohm"]


def test_a_failed_write_leaves_nothing(run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os, "link", full)
    result = run("compress", DIGITS / "digit_3_a.png", "-o", "out", "-m", model)
    assert (result.code, files(tmp_path / "out")) == (1, [])
    assert "No space left on device" in result.err


def test_truncate_and_info_agree(run: Run, model: Path, tmp_path: Path) -> None:
    assert run("compress", DIGITS / "digit_3_a.png", "-o", "a.ohm", "-m", model, "--layers", "all").code == 0
    (described,) = json.loads(run("info", "a.ohm", "--json").out)["results"]
    assert [row["channels"] for row in described["layers"]] == [1, 2, 3, 4, 5, 6]
    assert described["file_bytes"] == described["expected_bytes"] == described["layers"][-1]["bytes"]
    codec = load(model)
    for number, row in enumerate(described["layers"], start=1):
        assert run("truncate", "a.ohm", "-o", "cut.ohm", "--layers", number, "--force").code == 0
        cut = Path("cut.ohm").read_bytes()
        assert len(cut) <= row["bytes"]
        assert run("truncate", "a.ohm", "-o", "cut2.ohm", "--channels", row["channels"], "--force").code == 0
        assert run("truncate", "a.ohm", "-o", "cut3.ohm", "--max-bytes", len(cut), "--force").code == 0
        assert Path("cut2.ohm").read_bytes() == cut == Path("cut3.ohm").read_bytes()
        whole = codec.decompress(Path("a.ohm").read_bytes(), channels=row["channels"])
        assert np.array_equal(codec.decompress(cut), whole)
    printed = run("info", "a.ohm", "cut.ohm").out
    assert "2 of 2 files read" in printed
    assert codec.model_id.hex() in printed
    Path("part.ohm").write_bytes(Path("a.ohm").read_bytes()[:-1])
    assert "not whole" in run("info", "part.ohm").out
    assert run("decompress", "part.ohm", "-m", model, "--allow-truncated").code == 0
    assert np.array_equal(read_image("part.png"), codec.decompress(Path("a.ohm").read_bytes(), channels=5))


def test_colour_and_odd_sizes(run: Run, model: Path) -> None:
    rng = np.random.default_rng(4)
    for size in ((1, 1), (29, 3), (3, 300)):
        Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8)).save("c.png")
        result = run("compress", "c.png", "-o", "c.ohm", "-m", model, "--force")
        assert result.code == 0
        assert "note:" in result.err  # colours are lost, and it says so
        assert run("decompress", "c.ohm", "-o", "back.png", "-m", model, "--force").code == 0
        assert (read_image("back.png").size, read_image("back.png").mode) == (size, "L")


def test_the_longest_side(run: Run, model: Path) -> None:
    Image.new("L", (65536, 1), 9).save("long.png")
    assert run("compress", "long.png", "-o", "long.ohm", "-m", model, "--channels", 1).code == 0
    assert run("decompress", "long.ohm", "-o", "back.png", "-m", model).code == 0
    assert read_image("back.png").size == (65536, 1)
    Image.new("L", (1, 65537)).save("longer.png")
    result = run("compress", "longer.png", "-o", "longer.ohm", "-m", model)
    assert result.code == 1
    assert "65,536" in result.err or "65536" in result.err


def test_a_header_that_promises_too_much(run: Run, model: Path) -> None:
    assert run("compress", DIGITS / "digit_3_a.png", "-o", "a.ohm", "-m", model, "--layers", 1).code == 0
    data = Path("a.ohm").read_bytes()
    assert data[10:12] == b"\x1c\x1c"  # 28 x 28
    ids, rest = data[:10], data[12:]
    layers = rest[: -len(read_ohm(data).layers[0].payload) - 4]
    header = ids + b"\x80\x80\x04" * 2 + layers  # 65536 x 65536
    Path("b.ohm").write_bytes(header + struct.pack(">I", zlib.crc32(header)) + rest[len(layers) + 4 :])
    result = run("decompress", "b.ohm", "-m", model)
    assert result.code == 1
    assert "65536x65536" in result.err


def test_models_and_export(run: Run, model: Path) -> None:
    rows = json.loads(run("models", "--json").out)
    printed = run("models").out
    for name in ("mnist-ohm-c0-8", "mnist-ohm-c0-32", "mnist-published-c0-16"):
        assert f"ohmq experiments run {name}-lambda0.95-0.999" in printed
    for row in rows:
        assert row["name"] in printed
        assert row["model_id"] in printed
        assert "ohmq train --preset" in row["provenance"]["command"]
    assert run("export", model, "-o", "again.safetensors").code == 0
    assert load("again.safetensors").model_id == load(model).model_id


def test_evaluate_measures_decoded_bytes(run: Run, model: Path, mnist_folder: Path) -> None:
    result = run("evaluate", "--mnist", "test", "--data", mnist_folder, "-m", model, "--limit", 12, "-o", "out")
    assert result.code == 0
    written = json.loads(Path("out/rate_distortion.json").read_text())
    assert written["model_id"] == load(model).model_id.hex()
    assert "12 images" in written["data"]
    rows = Path("out/fraction_1.0000.csv").read_text().splitlines()
    assert len(rows) == 1 + 12 + 1
    assert rows[-1].startswith("avg,")
    assert read_image("out/rate_distortion.png").width > 300
    again = ("evaluate", "--mnist", "test", "--data", mnist_folder, "-m", model, "--limit", 3, "-o", "out")
    refused = run(*again)
    assert (refused.code, "add --force" in refused.err) == (1, True)
    assert json.loads(Path("out/rate_distortion.json").read_text()) == written
    assert run(*again, "--force").code == 0
    assert "3 images" in json.loads(Path("out/rate_distortion.json").read_text())["data"]
    result = run("evaluate", DIGITS, "-m", model, "--fraction", "0.5", "--fraction", "1", "--json")
    points = json.loads(result.out)["points"]
    assert [point["channels"] for point in points] == [3, 6]
    assert all(p["estimated_bpp"] < p["payload_bpp"] < p["file_bpp"] for p in points)
    result = run("evaluate", DIGITS, "-m", model, "--channels", 5, "--channels", 3, "--json")
    again = json.loads(result.out)["points"]
    assert [point["channels"] for point in again] == [3, 5]
    assert (again[0]["payload_bpp"], again[0]["psnr_db"]) == (points[0]["payload_bpp"], points[0]["psnr_db"])
    result = run("evaluate", DIGITS, "-m", model, "--channels", 7)
    assert (result.code, "channels is 7" in result.err, "has 6" in result.err) == (1, True, True)


def test_a_log_tells_how_far_long_work_is(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = len(list(DIGITS.glob("*.png")))
    assert run("evaluate", DIGITS, "-m", model, "--json").err == ""  # done within half a minute
    monkeypatch.setattr("ohmq.cli.output.SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr("ohmq.evaluation.evaluate.BATCH_SYMBOLS", 1)
    lines = run("evaluate", DIGITS, "-m", model, "--json").err.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"evaluate: {n + 1} of {count}" for n in range(count)]
    assert lines[-1].endswith(" 0 min left")


def test_a_model_can_be_measured_below_its_fewest_channels(run: Run) -> None:
    trained = build_model(MnistConfig(channels_min=4, channels_max=6, num_symbols=7))
    save_model(freeze(trained, "at-least-four"), Path("model.safetensors"))
    result = run("evaluate", DIGITS, "-m", "model.safetensors", "--channels", 2, "--channels", 6, "--json")
    points = json.loads(result.out)["points"]
    assert [(p["channels"], p["fraction"]) for p in points] == [(2, -1.0), (6, 1.0)]
    assert points[0]["payload_bpp"] < points[1]["payload_bpp"]


def test_the_published_compression_line(model: Path, tmp_path: Path) -> None:
    (tmp_path / "images" / "deep").mkdir(parents=True)
    for number, place in enumerate(["a.png", "deep/b.png"]):
        read_image(sorted(DIGITS.glob("*.png"))[number]).save(tmp_path / "images" / place)
    (tmp_path / "images" / "bad.jpg").write_bytes(b"no")
    line = f"--image_path images --checkpoint {model} --output_dir out --channel_fractions 0.5 1.0"
    more = "--do_save --do_plot --batch_size 8 --cpu"
    done = subprocess.run(
        [sys.executable, ROOT / "compress.py", *line.split(), *more.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1  # one file is no image, and an error says so
    assert "bad.jpg" in done.stderr
    header, *rows = (tmp_path / "out" / "fraction_1.0000.csv").read_text().splitlines()
    for column in ("psnr_db", "ssim", "ms_ssim", "estimated_bpp", "payload_bpp", "file_bpp", "encode_s", "decode_s"):
        assert column in header.split(","), header
    assert [row.split(",")[0] for row in rows] == ["a.png", "deep/b.png", "avg"]
    assert (tmp_path / "out" / "rate_distortion.png").stat().st_size > 5000
    curve = (tmp_path / "out" / "rate_distortion.csv").read_text().splitlines()
    assert len(curve) == 3
    codec = load(model)
    for fraction, channels in (("0.5000", 3), ("1.0000", 6)):
        folder = tmp_path / "out" / f"fraction_{fraction}"
        assert files(folder) == ["a.ohm", "a.png", "deep/b.ohm", "deep/b.png"]
        data = (folder / "deep" / "b.ohm").read_bytes()
        assert read_ohm(data).num_channels == channels
        assert np.array_equal(codec.decompress(data), read_image(folder / "deep" / "b.png"))
        original = np.asarray(read_image(tmp_path / "images" / "deep" / "b.png").convert("L"))
        line = next(r for r in (tmp_path / "out" / f"fraction_{fraction}.csv").read_text().splitlines() if "b.png" in r)
        reported = float(line.split(",")[header.split(",").index("psnr_db")])
        assert reported == pytest.approx(psnr_db(original, np.asarray(codec.decompress(data))), abs=1e-3)


def test_the_published_line_with_images_of_one_stem(model: Path, tmp_path: Path) -> None:
    for name in ("a.png", "a.bmp", "deep/a.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        read_image(DIGITS / "digit_3_a.png").save(tmp_path / "images" / name)

    def published(images: str) -> "subprocess.CompletedProcess[str]":
        line = f"--image_path {images} --checkpoint {model} --output_dir out --do_save --channel_fractions 1"
        command = [sys.executable, str(ROOT / "compress.py"), *line.split()]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)

    done = published("images/**/*.png")
    assert done.stderr == (
        "compress.py: 2 images named a.png would be saved under one name; give a folder that holds them\n"
    )
    assert (done.returncode, (tmp_path / "out").exists()) == (1, False)
    assert published("images").returncode == 0
    saved = [f"{name}.{end}" for name in ("a.bmp", "a.png", "deep/a.png") for end in ("ohm", "png")]
    assert files(tmp_path / "out" / "fraction_1.0000") == saved


def test_files_that_cannot_be_read_are_counted(run: Run, model: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    read_image(DIGITS / "digit_3_a.png").save(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "b.png").touch()
    (tmp_path / "images" / "c.png").touch()
    result = run("evaluate", tmp_path / "images", "-m", model, "--channels", 6)
    assert (result.code, result.err.splitlines()[-1]) == (1, "2 files skipped, which could not be read")


def test_standard_output_that_is_closed(model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ohmq", "info", "nothing.ohm"]
    done = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "ohmq: nothing.ohm: No such file or directory\n")


def test_the_published_line_with_a_wrong_checkpoint(tmp_path: Path) -> None:
    line = "--image_path x.png --checkpoint nothing.ckpt --output_dir out"
    command = [sys.executable, str(ROOT / "compress.py"), *line.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "nothing.ckpt" in done.stderr


@pytest.mark.parametrize("arguments", [["info", "a.ohm"], ["truncate", "a.ohm", "-o", "b.ohm", "--layers", "1"]])
def test_reading_headers_loads_neither_torch_nor_numpy(
    run: Run, model: Path, tmp_path: Path, arguments: list[str]
) -> None:
    assert run("compress", DIGITS / "digit_3_a.png", "-o", "a.ohm", "-m", model).code == 0
    program = (
        "import sys; from ohmq.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as stop: code = stop.code\n"
        "heavy = {'torch', 'numpy', 'PIL', 'lightning'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("timeout", [None, "20"])
def test_threads_of_products_do_not_spin(monkeypatch: pytest.MonkeyPatch, run: Run, timeout: str | None) -> None:
    monkeypatch.setenv(
        "OPENBLAS_THREAD_TIMEOUT", timeout or ""
    )  # restored after the test, even if the command changes it
    if not timeout:
        del os.environ["OPENBLAS_THREAD_TIMEOUT"]
    assert run("--version").code == 0
    assert os.environ["OPENBLAS_THREAD_TIMEOUT"] == (timeout or "4")


def test_help_and_version_load_nothing_heavy() -> None:
    """All commands run in one process, because starting each takes time; loaded modules stay in sys.modules."""
    lines = [["--help"], ["--version"], *([name, "--help"] for name in cli.list_commands(None))]  # type: ignore[arg-type]
    program = (
        "import sys; from ohmq.cli import main\n"
        f"for line in {lines!r}:\n"
        "    try: main(line)\n"
        "    except SystemExit as stop: assert stop.code == 0, line\n"
        "    heavy = {'torch', 'numpy', 'PIL', 'lightning', 'constriction', 'importlib.metadata'} & set(sys.modules)\n"
        "    if heavy: sys.exit(f'{line} loaded {heavy}')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("Usage: ohmq") == len(lines) - 1
    assert f"version {ohmq.__version__}" in done.stdout


@pytest.mark.parametrize("name", ["photo", "mnist-ohm", "mnist-int"])
def test_coding_does_not_load_the_compiler_of_torch(tmp_path: Path, name: str) -> None:
    source = PHOTOS / "chelsea.png" if name == "photo" else DIGITS / "digit_3_a.png"
    lines = [["compress", str(source), "-o", "a.ohm", "-m", name], ["decompress", "a.ohm", "-o", "a.png"]]
    program = (
        "import sys; from ohmq.cli import main\n"
        f"for line in {lines!r}:\n"
        "    try: main(line)\n"
        "    except SystemExit as stop: assert stop.code == 0, line\n"
        "slow = {'torch._dynamo', 'sympy', 'lightning', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'loaded {slow}' if slow else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_has_enough_is_no_error(run: Run, model: Path, tmp_path: Path) -> None:
    assert run("compress", DIGITS / "digit_3_a.png", "-o", "a.ohm", "-m", model).code == 0
    command = [sys.executable, "-m", "ohmq", "info", "a.ohm"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")  # silent, as click ends it


# Targets, and many files at once


def test_targets_are_hit(run: Run, model: Path, tmp_path: Path) -> None:
    codec = load(model)
    original = read_image(DIGITS / "digit_3_a.png").convert("L")
    cuts = [codec.compress(original, channels=point) for point in codec.cut_points]
    sizes = [len(cut) for cut in cuts]
    for target, expected in (
        (("--max-bytes", sizes[3]), cuts[3]),
        (("--max-bytes", sizes[3] - 1), cuts[2]),
        (("--bpp", 8 * (sizes[1] + 0.5) / 784), cuts[1]),
        (("--bpp", 99), cuts[-1]),
        (("--psnr", 0.1), cuts[0]),
    ):
        result = run("compress", DIGITS / "digit_3_a.png", "-o", "a.ohm", "-m", model, "--force", *target)
        assert result.code == 0
        assert Path("a.ohm").read_bytes() == expected
        assert f"{len(expected):,} bytes, {8 * len(expected) / 784:.3f} bpp" in result.out
    assert " dB\n" in result.out
    done = run("compress", DIGITS / "digit_3_a.png", "-o", "b.ohm", "-m", model, "--json", "--psnr", 0.1)
    (row,) = json.loads(done.out)["results"]
    assert row["psnr_db"] == psnr_db(np.asarray(original), np.asarray(codec.decompress(cuts[0])))
    assert (row["channels"], row["bytes"], row["input_bytes"]) == (1, sizes[0], 281)
    for target, words in (
        (("--max-bytes", sizes[0] - 1), f"has {sizes[0]} bytes"),
        (("--bpp", 0.001), f"has {sizes[0]} bytes"),
        (("--psnr", 90), "90 dB are out of its reach"),
        (("--ssimulacra2", 99), "; 99 is out of its reach"),
    ):
        result = run("compress", DIGITS / "digit_3_a.png", "-o", "c.ohm", "-m", model, *target)
        assert result.code == 1
        assert len(result.err.splitlines()) == 1
        assert "digit_3_a.png" in result.err and words in result.err
    assert files(tmp_path) == ["a.ohm", "b.ohm"]
    for wrong in (
        ("--bpp", 1, "--psnr", 30),
        ("-q", 9, "--bpp", 1),
        ("-q", 101),
        ("-q", "nan"),
        ("--layers", 0),
        ("--layers", "x"),
        ("--bpp", "nan"),
        ("--psnr", 0),
        ("--psnr", "inf"),
        ("--ssimulacra2", 0),
        ("--ssimulacra2", 101),
        ("--ssimulacra2", 50, "--psnr", 30),
        ("--max-bytes", 0),
    ):
        assert run("compress", DIGITS, "-o", "out", "-m", model, *wrong).code == 2


def test_where_outputs_go(run: Run, model: Path, tmp_path: Path) -> None:
    digit = read_image(DIGITS / "digit_3_a.png")
    Path("in/deep").mkdir(parents=True)
    digit.save("in/deep/a.png")
    assert run("compress", "in", "-o", "out.v2", "-m", model).code == 0  # a folder's only file still goes into a folder
    assert files(tmp_path / "out.v2") == ["deep/a.ohm"]
    digit.save("in/deep/a.bmp")
    result = run("compress", "in", "-o", "both", "-m", model, "--force")
    assert (result.code, files(tmp_path / "both")) == (0, ["deep/a.bmp.ohm", "deep/a.png.ohm"])
    assert "note: named in full, as in/deep/a.bmp would be both/deep/a.ohm too" in result.err
    Path("in/deep/a.bmp").unlink()
    result = run("compress", "in", "-o", "out.v2/deep/a.ohm", "-m", model, "--force")
    assert result.code == 1
    assert "out.v2/deep/a.ohm is a file; a folder is needed" in result.err


@pytest.mark.parametrize("processes", [1, 2])
def test_the_summary_and_files_at_once(run: Run, model: Path, tmp_path: Path, processes: int) -> None:
    shutil.copytree(DIGITS, "in/deep")
    Path("in/bad.png").write_bytes(b"no image")
    shutil.copy(DIGITS / "digit_3_a.png", "in/first.png")
    result = run("compress", "in", "-o", "out", "-m", model, "--jobs", processes, "--channels", 3)
    names = sorted(["first.ohm", *(f"deep/{path.stem}.ohm" for path in DIGITS.glob("*.png"))])
    assert result.code == 1
    assert files(tmp_path / "out") == names
    codec = load(model)
    assert Path("out/first.ohm").read_bytes() == codec.compress(read_image("in/first.png").convert("L"), channels=3)
    assert "bad.png" in result.err
    lines = result.out.splitlines()
    assert [line.split(" -> ")[1].split(":")[0] for line in lines[:-1]] == sorted(f"out/{name}" for name in names)
    before = sum(path.stat().st_size for path in Path("in").rglob("*.png") if path.name != "bad.png")
    after = sum(path.stat().st_size for path in Path("out").rglob("*.ohm"))
    assert lines[-1] == (
        f"21 of 22 files compressed, {after:,} bytes from {before:,} ({before / after:.2f} to 1), "
        f"{8 * after / (21 * 784):.3f} bpp; 1 failed"
    )
    totals = json.loads(run("compress", "in", "-o", "more", "-m", model, "--json", "--channels", 3).out)["totals"]
    assert totals == {
        "input_bytes": before,
        "bytes": after,
        "ratio": before / after,
        "file_bpp": 8 * after / (21 * 784),
    }
    assert run("decompress", "out", "-o", "back", "-m", model, "--jobs", processes).code == 0
    assert files(tmp_path / "back") == [name.replace(".ohm", ".png") for name in names]


MANY = 2000
"""Images that take long enough to be stopped, on a busy machine, too."""


def start_compressing(model: Path, folder: Path, processes: int) -> "subprocess.Popen[str]":
    """``ohmq compress`` on `MANY` images, after the first three are done."""
    digit = np.asarray(read_image(DIGITS / "digit_3_a.png").convert("L"))
    (folder / "in").mkdir()
    Image.fromarray(np.tile(digit, (4, 4))).save(folder / "image.png")
    for number in range(MANY):
        shutil.copyfile(folder / "image.png", folder / "in" / f"{number:04d}.png")
    command = [sys.executable, "-m", "ohmq", "compress", "in", "-o", "out", "-m", model, "--jobs", str(processes)]
    started = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert started.stdout is not None
    for _ in range(3):
        assert started.stdout.readline().startswith("in/")
    return started


@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_leaves_whole_files(model: Path, tmp_path: Path, processes: int) -> None:
    started = start_compressing(model, tmp_path, processes)
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does: to all processes
    _, err = started.communicate(timeout=120)
    assert (started.returncode, err.strip()) == (130, "stopped")
    written = files(tmp_path / "out")
    assert 3 <= len(written) < MANY
    for name in written:
        assert name.endswith(".ohm")
        read_ohm((tmp_path / "out" / name).read_bytes())


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes in /proc")
def test_a_killed_process_is_reported(model: Path, tmp_path: Path) -> None:
    started = start_compressing(model, tmp_path, 2)
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 2
    os.kill(int(workers[0]), signal.SIGKILL)
    _, err = started.communicate(timeout=120)
    assert started.returncode == 1
    assert err == "ohmq: a process was killed, perhaps for want of memory; try fewer --jobs\n"
    assert not Path(f"/proc/{workers[1]}").exists()


class TerminatedWhenSent:
    """A part of a result whose pickling sends SIGTERM to its process."""

    def __reduce__(self) -> tuple[type[int], tuple[()]]:
        os.kill(os.getpid(), signal.SIGTERM)
        return int, ()


def terminated_when_sent(job: Job) -> dict[str, object]:
    return {"bytes": TerminatedWhenSent()}


def test_a_process_ends_on_sigterm_outside_a_job() -> None:
    # The pool catches SystemExit there; the pool would wait for ever for a process that stayed.
    jobs = [Job(Path(str(number)), Path(str(number))) for number in range(4)]
    with pytest.raises(OhmqError, match="a process was killed"):
        run_jobs(jobs, terminated_when_sent, "", quiet=True, processes=2)
    assert not multiprocessing.active_children()


def terminated_twice(job: Job) -> dict[str, object]:
    """Write a file; receive SIGTERM meanwhile, and again while the partial file is removed."""
    remove = Path.unlink

    def stop(*arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def stop_again(self: Path, missing_ok: bool = False) -> None:
        stop()
        remove(self, missing_ok=missing_ok)

    ohmq.utils.atomic_write._put_in_place = stop  # in a process of its own
    Path.unlink = stop_again  # type: ignore[method-assign]
    write_atomically(job.target, b"part")
    return {}


def test_a_second_sigterm_does_not_stop_the_clean_up(tmp_path: Path) -> None:
    jobs = [Job(tmp_path / name, tmp_path, target=tmp_path / "out" / name) for name in ("a", "b")]
    with pytest.raises(OhmqError, match="a process was killed"):
        run_jobs(jobs, terminated_twice, "", quiet=True, processes=2)
    assert not files(tmp_path / "out")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes in /proc")
def test_no_process_stays_when_the_first_is_killed(model: Path, tmp_path: Path) -> None:
    started = start_compressing(model, tmp_path, 2)
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    workers = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 2
    started.kill()
    started.communicate(timeout=120)  # ends when no process holds its output any more
    limit = time.monotonic() + 60
    while any(running(pid) for pid in workers) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not any(running(pid) for pid in workers)
    for name in files(tmp_path / "out"):
        read_ohm((tmp_path / "out" / name).read_bytes())


def running(pid: str) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_default_says_what_was_chosen(run: Run, model: Path) -> None:
    with read_image(PHOTOS / "chelsea.png") as image:
        image.convert("RGB").crop((100, 60, 180, 124)).save("a.png")
    image, codec = read_image("a.png"), load("photo")
    for arguments, options, words in (
        ((), {}, r"quality 80 (default; -q 0 to 100), \d+ of 1000 channels"),
        (("-q", 35), {"quality": 35}, r"quality 35, \d+ of 1000 channels"),
        (
            ("--quality", 100, "--layers", "all"),
            {"quality": 100, "layers": "all"},
            "quality 100, 1000 of 1000 channels",
        ),
        (("--channels", 64, "--layers", 3), {"channels": 64, "layers": 3}, "64 of 1000 channels"),
        (
            ("--fixed-rate",),
            {"fixed_rate": True},
            "1000 of 1000 channels (default; --bpp, --psnr or --channels for less)",
        ),
    ):
        result = run("compress", "a.png", "-o", "a.ohm", "--force", *arguments)
        assert result.code == 0
        assert Path("a.ohm").read_bytes() == codec.compress(image, **options)  # type: ignore[arg-type]
        assert re.search("bpp, " + words.replace("(", r"\(").replace(")", r"\)") + "$", result.out.strip()), result.out
    (row,) = json.loads(run("compress", "a.png", "-o", "b.ohm", "--json").out)["results"]
    assert (row["quality"], row["layers"]) == (80, 1)
    digit = DIGITS / "digit_3_a.png"
    assert "6 of 6 channels (default" in run("compress", digit, "-o", "c.ohm", "-m", model).out
    result = run("compress", digit, "-o", "d.ohm", "-m", model, "-q", 50)
    assert result.code == 2 and "has no quality scale" in result.err
    assert not Path("d.ohm").exists()


def test_truncate_to_bpp_and_fraction(run: Run, model: Path, tmp_path: Path) -> None:
    assert run("compress", DIGITS / "digit_3_a.png", "-o", "a.ohm", "-m", model, "--layers", "all").code == 0
    codec = load(model)
    original = read_image(DIGITS / "digit_3_a.png").convert("L")
    for target, expected in (
        (("--fraction", 0.5), codec.compress(original, fraction=0.5, layers="all")),
        (("--fraction", 1), codec.compress(original, layers="all")),
        (("--fraction", 0.01), codec.compress(original, channels=1, layers="all")),
        (("--bpp", 0.9), codec.compress(original, bpp=0.9, layers="all")),
    ):
        assert run("truncate", "a.ohm", "-o", "b.ohm", "--force", *target).code == 0
        assert Path("b.ohm").read_bytes() == expected, target
    for target, words in ((("--fraction", 0), "fraction is 0.0"), (("--bpp", 0.01), "bpp"), (("--bpp", "nan"), "nan")):
        result = run("truncate", "a.ohm", "-o", "c.ohm", *target)
        assert result.code == 1
        assert "a.ohm" in result.err and words in result.err
    assert files(tmp_path) == ["a.ohm", "b.ohm"]


def test_cut_to_a_psnr(run: Run, model: Path, tmp_path: Path) -> None:
    table_line = "compress", DIGITS / "digit_3_a.png", "-o", "a.ohm", "-m", model, "--psnr-table", "--layers", "all"
    assert run(*table_line).code == 0
    table = psnr_table(Path("a.ohm").read_bytes())
    assert table is not None
    result = run("info", "a.ohm")
    assert "PSNR table 12 bytes" in result.out
    rows = result.out.splitlines()[-6:]
    assert [float(row.split()[-1]) for row in rows] == [round(value, 2) for value in table]
    shown = json.loads(run("info", "a.ohm", "--json").out)["results"][0]["layers"]
    assert [row["psnr_db"] for row in shown] == list(table)
    goal = sorted(table)[3]
    assert run("truncate", "a.ohm", "-o", "b.ohm", "--psnr", goal).code == 0
    assert max(psnr_table(Path("b.ohm").read_bytes()) or ()) >= goal
    for arguments, words in (
        (("a.ohm", "--psnr", 90), "the file reaches"),
        (("plain.ohm", "--psnr", 9), "--psnr-table"),
    ):
        run("compress", DIGITS / "digit_3_a.png", "-o", "plain.ohm", "-m", model, "--force")
        result = run("truncate", *arguments, "-o", "c.ohm")
        assert result.code == 1
        assert words in result.err
    assert not Path("c.ohm").exists()


def test_effort(run: Run, model: Path) -> None:
    with read_image(PHOTOS / "chelsea.png") as image:
        image.convert("RGB").crop((100, 60, 180, 124)).save("a.png")
        codec, crop = load("photo"), image.convert("RGB").crop((100, 60, 180, 124))
    for target, arguments in (
        (("--channels", 72), {"channels": 72}),
        (("--bpp", 0.9), {"bpp": 0.9}),
        (("--psnr", 28), {"psnr": 28}),
        (("--ssimulacra2", 30), {"ssimulacra2": 30}),
    ):
        assert run("compress", "a.png", "-o", "a.ohm", "--effort", 1, "--force", *target).code == 0
        assert Path("a.ohm").read_bytes() == codec.compress(crop, effort=1, **arguments), target  # type: ignore[arg-type]
    done = run("compress", "a.png", "-o", "a.ohm", "--force", "--ssimulacra2", 30, "--json")
    (row,) = json.loads(done.out)["results"]
    decoded = np.asarray(codec.decompress(Path("a.ohm").read_bytes()))
    assert row["ssimulacra2"] >= 30  # a pixel may differ by 1 with another kernel of the filters
    assert row["ssimulacra2"] == pytest.approx(ssimulacra2(np.asarray(crop), decoded), abs=0.02)
    Path("a.ohm").unlink()
    for command in (("evaluate", "a.png", "--channels", 72), ("compare", "a.png", "--rates", 2, "--codec", "jpeg")):
        plain, moved = (json.loads(run(*command, "--effort", effort, "--json").out) for effort in (0, 1))
        assert plain["model_id"] == moved["model_id"]
        points = [x["points"] if "points" in x else x["codecs"][0]["points"] for x in (plain, moved)]
        assert points[0][0]["psnr_db"] < points[1][0]["psnr_db"]
    for command in (("evaluate", "a.png", "--channels", 2), ("compare", "a.png")):
        result = run(*command, "--effort", 1, "-m", model)
        assert result.code == 1
        assert "no photo model" in result.err
    for arguments, words in (
        (("--effort", 3), "0<=x<=2"),
        (("--effort", 1, "--fixed-rate"), "leave it out"),
        (("--effort", 1, "-m", model), "no photo model"),
    ):
        result = run("compress", "a.png", "-o", "a.ohm", *arguments)
        assert result.code == 2
        assert words in result.err
    assert not Path("a.ohm").exists()


def test_progressive_images(run: Run, model: Path, tmp_path: Path) -> None:
    assert run("compress", DIGITS / "digit_3_a.png", "-o", "a.ohm", "-m", model, "--layers", "all").code == 0
    data = Path("a.ohm").read_bytes()
    codec = load(model)
    result = run("decompress", "a.ohm", "--progressive", "steps", "-m", model)
    assert (result.code, result.out) == (0, "a.ohm -> steps/a: 28x28, 6 layers\n")
    assert files(tmp_path / "steps") == [f"a/layer_{n:02d}.png" for n in range(1, 7)]
    for number in range(1, 7):
        assert np.array_equal(read_image(f"steps/a/layer_{number:02d}.png"), codec.decompress(data, channels=number))
    Path("part.ohm").write_bytes(data[:-1])
    result = run("decompress", "part.ohm", "--progressive", "steps", "-m", model)
    assert (result.code, Path("steps/part").exists()) == (1, False)
    more = ("--allow-truncated", "--channels", 3, "--format", "bmp")
    assert run("decompress", "part.ohm", "--progressive", "steps", "-m", model, *more).code == 0
    assert files(tmp_path / "steps" / "part") == ["layer_01.bmp", "layer_02.bmp", "layer_03.bmp"]
    assert run("decompress", "part.ohm", "-o", "part.png", "-m", model, *more).code == 0
    assert np.array_equal(read_image("part.png"), codec.decompress(data, channels=3))
    assert "--force" in run("decompress", "a.ohm", "--progressive", "steps", "-m", model).err
    assert run("decompress", "a.ohm", "--progressive", "steps", "-o", "x", "-m", model).code == 2


def test_fewer_channels_than_the_first_layer_holds(run: Run, model: Path) -> None:
    assert run("compress", DIGITS / "digit_3_a.png", "-o", "a.ohm", "-m", model, "--layers", 2).code == 0
    result = run("decompress", "a.ohm", "-o", "a.png", "-m", model, "--channels", 2)
    assert (result.code, result.err) == (1, "ohmq: a.ohm: the first layer alone holds 3 channels; raise --channels\n")


def test_an_image_is_not_overwritten_by_its_own_file(run: Run, model: Path) -> None:
    Path("a.ohm").write_bytes(Path(DIGITS / "digit_3_a.png").read_bytes())
    before = Path("a.ohm").read_bytes()
    for arguments in (("a.ohm",), ("a.ohm", "-o", "a.ohm")):
        result = run("compress", *arguments, "-m", model, "--force")
        assert (result.code, "is the image itself" in result.err) == (1, True)
        assert Path("a.ohm").read_bytes() == before
    for command in (
        ("compress", "a.ohm", "-o", "b.png", "-m", model),
        ("truncate", "a.ohm", "-o", "b.png", "--layers", 1),
    ):
        result = run(*command)
        assert (result.code, "b.png does not end in .ohm" in result.err) == (1, True)
    assert files(Path()) == ["a.ohm"]


def test_numbers_that_are_nan_and_names_that_are_too_long(run: Run, model: Path) -> None:
    digit = DIGITS / "digit_3_a.png"
    for command in ("compress", "evaluate"):
        result = run(command, digit, "-m", model, "--fraction", "nan")
        assert (result.code, "nan is not a number" in result.err) == (2, True)
    result = run("compare", digit, "-m", model, "--match", "nan")
    assert (result.code, "nan is not a number" in result.err) == (2, True)
    result = run("compress", digit, "-m", model, "-o", "x" * 300)
    assert (result.code, "File name too long" in result.err) == (1, True)
    Path("file").write_text("no folder")
    result = run("compress", digit, "-m", model, "-o", "file/a.ohm")
    assert (result.code, "file is not a folder" in result.err) == (1, True)
    assert run("compress", digit, "-o", "a.ohm", "-m", model, "--bpp", 1e308).code == 0
    assert run("truncate", "a.ohm", "-o", "b.ohm", "--bpp", 1e308).code == 0
    assert Path("a.ohm").read_bytes() == Path("b.ohm").read_bytes()
    Path("long.ohm").write_bytes(Path("a.ohm").read_bytes() + b"\0\0\0")
    assert "3 bytes after its end" in run("info", "long.ohm").out


def test_an_infinite_psnr_is_strict_json(run: Run) -> None:
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save("clear.png")
    result = run("compress", "clear.png", "--psnr", 30, "--json")
    assert "Infinity" not in result.out
    assert json.loads(result.out)["results"][0]["psnr_db"] is None


def test_results_survive_a_bd_rate_that_is_refused(run: Run, model: Path) -> None:
    result = run("evaluate", DIGITS, "-m", model, "--channels", 3, "--against", "jpeg", "--against", "webp", "--json")
    assert result.code == 1
    assert [point["channels"] for point in json.loads(result.out)["points"]] == [3]
    assert [f"BD-rate against {name}: refused" in result.err for name in ("jpeg", "webp")] == [True, True]
