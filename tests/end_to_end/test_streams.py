"""Streams, folders and reruns: what the commands read, where they write, and what they leave."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.images import photo, saved
from support.small_models import make_model

from ohmq.bitstream.truncate import truncate_ohm
from ohmq.cli import main
from ohmq.codec import Codec
from ohmq.loading import load
from ohmq.model_files.freeze import freeze
from ohmq.model_files.frozen_model import save_model

ROOT = Path(__file__).parents[2]
DIGIT = ROOT / "examples" / "digits" / "digit_3_a.png"

Run = Callable[..., tuple[int, bytes, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model file, 6 channels."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(freeze(make_model("context"), "small"), path)
    return path


@pytest.fixture(scope="module")
def codec(model: Path) -> Codec:
    return load(model)


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs ``ohmq ARGUMENTS < stdin`` in an empty folder: exit code, output, messages."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, stdin: bytes = b"") -> tuple[int, bytes, str]:
        with as_standard_input(stdin), pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capfdbinary.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, captured.out, captured.err.decode()

    return call


@contextlib.contextmanager
def as_standard_input(data: bytes) -> Iterator[None]:
    """Give this process a pipe with these bytes as its standard input."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    before = os.dup(0)
    os.dup2(reading, 0)
    os.close(reading)
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)


def pixels(data: bytes) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0"])
@pytest.mark.parametrize("output", [(), ("-o", "-"), ("-o", "/dev/stdout")])
def test_there_and_back_through_pipes(run: Run, model: Path, codec: Codec, name: str, output: tuple[str, ...]) -> None:
    image = DIGIT.read_bytes()
    code, coded, messages = run("compress", name, *output, "-m", model, stdin=image)
    with Image.open(DIGIT) as opened:
        expected = codec.compress(opened)
    assert (code, coded) == (0, expected)
    assert " -> /dev/stdout: " in messages
    code, cut, messages = run("truncate", name, *output, "--layers", 1, stdin=coded)
    assert (code, cut) == (0, truncate_ohm(coded, num_layers=1))
    code, decoded, messages = run("decompress", name, *output, "-m", model, stdin=cut)
    assert code == 0
    assert decoded.startswith(b"\x89PNG")
    assert np.array_equal(pixels(decoded), codec.decompress(cut))
    assert files(Path()) == []


def test_streams_to_files_and_formats(run: Run, model: Path, codec: Codec) -> None:
    image = saved(photo(), "BMP")
    assert run("compress", "-", "-o", "a.ohm", "-m", model, stdin=image)[0] == 0
    assert run("compress", "-", "-o", "coded.v1/", "-m", model, stdin=image)[0] == 0
    coded = Path("a.ohm").read_bytes()
    assert Path("coded.v1/stdin.ohm").read_bytes() == coded
    code, decoded, _ = run("decompress", "a.ohm", "-o", "-", "--format", "bmp", "-m", model)
    assert (code, decoded[:2]) == (0, b"BM")
    assert np.array_equal(pixels(decoded), codec.decompress(coded))
    layered = run("compress", "-", "-m", model, "--layers", "all", stdin=image)[1]
    assert run("decompress", "-", "--progressive", "steps", "-m", model, stdin=layered)[0] == 0
    assert len(files(Path("steps/stdin"))) == 6
    code, printed, messages = run("compress", "-", "-o", "-", "-m", model, "--json", stdin=image)
    assert (code, printed) == (0, coded)
    assert json.loads(messages[messages.index("{") :])["results"][0]["input"] == "/dev/stdin"


def test_info_and_evaluate_read_a_stream(run: Run, model: Path, codec: Codec) -> None:
    coded = codec.compress(photo().convert("L"))
    code, printed, _ = run("info", "-", stdin=coded)
    assert code == 0
    assert printed.startswith(b"/dev/stdin: 8x6 grey, model " + codec.model_id.hex().encode() + b" (not a shipped one)")
    code, printed, _ = run("evaluate", "-", "-m", model, "--channels", 3, "--json", stdin=DIGIT.read_bytes())
    with Image.open(DIGIT) as opened:
        expected = 8 * len(codec.compress(opened, channels=3, layers=1)) / opened.width / opened.height
    assert code == 0
    assert json.loads(printed)["points"][0]["file_bpp"] == pytest.approx(expected)


def test_info_names_the_model(run: Run) -> None:
    golden = ROOT / "tests" / "golden" / "photo_one.ohm"
    data = load("photo").compress(photo(), channels=6)
    code, printed, _ = run("info", "-", golden, "--json", stdin=data)
    assert code == 0
    assert [row["model"] for row in json.loads(printed)["results"]] == ["photo", None]
    assert b", model photo (" in run("info", "-", stdin=data)[1]


def test_streams_that_cannot_be_used(run: Run, model: Path) -> None:
    two = ("compress", DIGIT, DIGIT.with_name("digit_3_b.png"), "-m", model)
    for arguments, words in (
        ((*two, "-o", "-"), "2 inputs, and one stream (/dev/stdout)"),
        (("compress", "-", "-m", model), "/dev/stdin: the file is empty"),
        (("decompress", "-", "-m", model), "/dev/stdin"),
        (("compress", "/dev/null", "-m", model, "-o", "a.ohm"), "/dev/null: the file is empty"),
        (("info", "-"), "/dev/stdin"),
        (("evaluate", "-", "-m", model), "/dev/stdin: the file is empty"),
    ):
        code, printed, messages = run(*arguments)
        assert (code, printed, words in messages) == (1, b"", True), (arguments, messages)
    assert run("truncate", "a.ohm", "--layers", 1)[0] == 2
    assert files(Path()) == []


def test_process_substitution(model: Path, tmp_path: Path) -> None:
    ohmq = f"{sys.executable} -m ohmq"
    line = f"{ohmq} compress <(cat {DIGIT}) -m {model} -j 2 | {ohmq} info -; {ohmq} compress {DIGIT} -m {model} -o >(cat > b.ohm)"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("/dev/stdin: 28x28 grey")
    assert (tmp_path / "b.ohm").stat().st_size > 40


def test_a_reader_that_goes_away(model: Path, tmp_path: Path) -> None:
    line = f"{sys.executable} -m ohmq compress {DIGIT} -m {model} -o - | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1)  # 0 if the bytes fitted into the pipe in time
    assert "Traceback" not in done.stderr


def test_two_stars_find_all(run: Run, model: Path) -> None:
    for place in ("in/a.png", "in/deep/b.png", "in/deep/er/c.png"):
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        Path(place).write_bytes(DIGIT.read_bytes())
    code, printed, _ = run("compress", "in/**/*.png", "-o", "out", "-m", model, "--json")
    assert (code, len(json.loads(printed)["results"])) == (0, 3)
    assert run("evaluate", "in/**/*.png", "-m", model, "--channels", 3, "-o", "measured")[0] == 0
    assert "3 images" in json.loads(Path("measured/rate_distortion.json").read_text())["data"]
    assert run("compress", "in/**/*.png", "no*.png", "-o", "more", "-m", model)[0] == 1


def refuse_to_search(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the system refuse to search folders of this name, as it does not refuse root."""
    scandir = os.scandir

    def refusing(path: "str | os.PathLike[str]" = ".") -> object:
        if Path(path).name == name:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)


@pytest.mark.parametrize("place", ["in", "in/**/*.png", "in/deep/locked"])
def test_a_folder_that_may_not_be_searched(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    for name in ("in/a.png", "in/deep/locked/b.png", "good/c.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(DIGIT.read_bytes())
    refuse_to_search(monkeypatch, "locked")
    code, printed, messages = run("compress", place, "good", "-o", "out", "-m", model)
    assert code == 1
    assert messages == "ohmq: in/deep/locked: the folder cannot be searched: Permission denied\n"
    expected = ["c.ohm"] if place.endswith("locked") else ["a.ohm", "c.ohm"]
    assert files(Path("out")) == expected
    assert f"{len(expected)} of {len(expected) + 1} files compressed" in printed.decode()
    code, _, messages = run("evaluate", place, "good", "-m", model, "--channels", 3)
    assert (code, "skipped: in/deep/locked: the folder cannot be searched" in messages) == (1, True)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("bad", ["b.jpg", "b.png"])
def test_a_bad_rival_leaves_the_short_name(run: Run, model: Path, bad: str, processes: int) -> None:
    Path("in").mkdir()
    for name in ("b.jpg", "b.png"):
        data = saved(photo(64, 64), "JPEG" if name == "b.jpg" else "PNG")
        Path("in", name).write_bytes(data[: len(data) // 2] if name == bad else data)
    code, _, messages = run("compress", "in", "-o", "out", "-m", model, "-j", processes)
    assert (code, files(Path("out"))) == (1, ["b.ohm"])
    assert f"in/{bad}: damaged image" in messages


def test_a_rerun_skips_what_is_done(run: Run, model: Path) -> None:
    Path("in/deep").mkdir(parents=True)
    for name in ("in/a.png", "in/deep/b.png", "in/c.png"):
        Path(name).write_bytes(DIGIT.read_bytes())
    steps = (
        ("compress", "in", "-o", "coded", "-m", model),
        ("truncate", "coded", "-o", "cut", "--layers", 1),
        ("decompress", "coded", "-o", "decoded", "-m", model),
        ("decompress", "coded", "--progressive", "steps", "-m", model),
    )
    for arguments in steps:
        folder = Path(str(arguments[3]))
        assert run(*arguments)[0] == 0
        assert run(*arguments)[0] == 1  # without the option: refused
        removed = sorted(path for path in folder.rglob("*") if path.is_file())[-1]
        content = removed.read_bytes()
        removed.unlink()
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
        code, printed, messages = run(*arguments, "--skip-existing")
        assert (code, messages) == (0, "")
        assert printed.decode().splitlines()[-1].startswith("1 of 3 files ")
        assert printed.decode().splitlines()[-1].endswith("; 2 skipped, whose outputs exist")
        assert removed.read_bytes() == content
        assert {path: path.stat().st_mtime_ns for path in before} == before
        code, printed, _ = run(*arguments, "--skip-existing", "--json")
        outcome = json.loads(printed)
        assert (code, outcome["results"], len(outcome["skipped"])) == (0, [], 3)
        assert run(*arguments, "--skip-existing", "--force")[0] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("compress", "empty", "-o", "new/"),
        ("compress", "bad.png", "-o", "new/deep/"),
        ("decompress", "bad.png", "-o", "new/"),
        ("decompress", "bad.png", "--progressive", "new"),
        ("truncate", "bad.png", "-o", "new/", "--layers", 1),
        ("evaluate", "bad.png", "-o", "new"),
        ("compare", "bad.png", "-o", "new"),
        ("plot", "empty", "-o", "new"),
        ("export", "bad.png", "-o", "new/a.safetensors"),
        ("export", "bad.png", "--onnx", "new"),
        ("experiments", "run", "photo", "--data", "empty", "-o", "new"),
        ("train", "--preset", "photo", "--data", "empty", "-o", "new/run"),
    ],
    ids=lambda arguments: " ".join(map(str, arguments[:2])),
)
def test_a_command_that_fails_leaves_no_folder(run: Run, arguments: tuple[object, ...]) -> None:
    Path("empty").mkdir()
    Path("bad.png").write_bytes(b"neither an image nor a model")
    code, _, messages = run(*arguments)
    assert (code, messages != "") == (1, True)
    assert files(Path()) == ["bad.png", "empty"]


@pytest.mark.parametrize("value", ["", ".", "a/b", "gif", "xyz"])
def test_a_format_that_is_none(run: Run, model: Path, value: str) -> None:
    code, printed, messages = run("decompress", "a.ohm", "-o", "out", "-m", model, "--format", value)
    assert (code, printed) == (2, b"")
    assert f"cannot write {value!r}; choose from png, webp" in messages


def test_empty_names_are_wrong(run: Run, model: Path) -> None:
    for arguments in (("compress", DIGIT, "-m", model, "-o", ""), ("truncate", "a.ohm", "-o", "", "--layers", 1)):
        code, _, messages = run(*arguments)
        assert (code, "an empty name" in messages) == (2, True)
    for command in (("compress", "", "-m", model), ("decompress", ""), ("info", "")):
        Path("a.png").write_bytes(DIGIT.read_bytes())
        code, _, messages = run(*command)
        assert (code, "an empty name among the inputs" in messages) == (1, True), messages
    assert files(Path()) == ["a.png"]
