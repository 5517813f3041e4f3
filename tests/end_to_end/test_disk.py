"""A full disk, and several processes that write into one folder: no partial files, and one line for each failure."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.small_models import make_model

from ohmq.bitstream.reader import read_ohm
from ohmq.imaging.files import open_image
from ohmq.loading import load
from ohmq.model_files.freeze import freeze
from ohmq.model_files.frozen_model import save_model

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
OHMQ = [sys.executable, "-m", "ohmq"]
ON_A_FULL_DISK = """
mkdir disk && mount -t tmpfs -o size=16k none disk || exit 99
"$@"
code=$?
cp -a disk kept
exit $code
"""
"""Script that mounts a file system of 4 pages on the folder disk, runs a command, and copies its files to the folder kept."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model file."""
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_model(freeze(make_model("static"), "small"), path)
    return path


def on_a_full_disk(folder: Path, arguments: Sequence[object]) -> "subprocess.CompletedProcess[str]":
    """Run ``ohmq ARGUMENTS`` where the folder disk has room for four small files."""
    command = ["unshare", "-Urm", "sh", "-c", ON_A_FULL_DISK, "sh", *OHMQ, *map(str, arguments)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        pytest.skip("needs unshare, to mount a small file system without being root")
    if done.returncode == 99 or done.stderr.startswith("unshare:"):
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    return done


def test_compressing_until_the_disk_is_full(model: Path, tmp_path: Path) -> None:
    done = on_a_full_disk(tmp_path, ["compress", DIGITS, "-o", "disk/coded", "-m", model, "--layers", "1"])
    kept = sorted(path.name for path in (tmp_path / "kept").rglob("*") if path.is_file())
    total = len(list(DIGITS.glob("*.png")))
    assert done.returncode == 1
    assert 2 <= len(kept) <= 4
    codec = load(model)
    for name in kept:
        image = open_image(DIGITS / name.replace(".ohm", ".png")).image
        assert (tmp_path / "kept" / "coded" / name).read_bytes() == codec.compress(image, layers=1)
    lines = done.stderr.splitlines()
    assert len(lines) == total - len(kept)
    for line in lines:
        assert line.endswith(".ohm cannot be written: No space left on device; make room or choose another output")
    assert f"{len(kept)} of {total} files compressed" in done.stdout
    assert f"{total - len(kept)} failed" in done.stdout


@pytest.mark.parametrize("command", ["decompress", "progressive", "truncate", "export"])
def test_other_commands_on_a_full_disk(model: Path, tmp_path: Path, command: str) -> None:
    """Nothing is left of a file that does not fit."""
    image = open_image(DIGITS / "digit_3_a.png").image.convert("L").resize((280, 280))
    data = load(model).compress(image, layers="all")
    (tmp_path / "a.ohm").write_bytes(data)
    arguments = {
        "decompress": ["decompress", "a.ohm", "-o", "disk/a.bmp", "-m", model],
        "progressive": ["decompress", "a.ohm", "--progressive", "disk", "--format", "bmp", "-m", model],
        "truncate": ["truncate", *["a.ohm", "b.ohm", "c.ohm", "d.ohm", "e.ohm"], "-o", "disk", "--layers", "1"],
        "export": ["export", model, "-o", "disk/m.safetensors"],
    }[command]
    if command == "truncate":
        for name in "bcde":
            (tmp_path / f"{name}.ohm").write_bytes(data)
    done = on_a_full_disk(tmp_path, arguments)
    assert done.returncode == 1, done
    assert len(done.stderr.splitlines()) == (
        1 if command != "truncate" else done.stderr.count("No space left on device")
    )
    assert "cannot be written: No space left on device; make room or choose another output" in done.stderr
    assert done.stderr.startswith("ohmq: ")
    kept = [path for path in (tmp_path / "kept").rglob("*") if path.is_file()]
    if command == "truncate":
        assert 0 < len(kept) < 5
        for path in kept:
            assert len(read_ohm(path.read_bytes()).layers) == 1
    else:
        assert kept == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["parameters", "--help"]])
def test_standard_output_on_a_full_disk(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*OHMQ, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == "ohmq: standard output: No space left on device; make room for it\n"


@pytest.mark.parametrize("force", [False, True])
def test_two_processes_with_the_same_inputs_and_outputs(model: Path, tmp_path: Path, force: bool) -> None:
    command = [*OHMQ, "compress", str(DIGITS), "-o", "out", "-m", str(model), *(["--force"] if force else [])]
    started = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in started]
    codec = load(model)
    expected = {
        path.with_suffix(".ohm").name: codec.compress(open_image(path).image) for path in sorted(DIGITS.glob("*.png"))
    }
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == expected
    written = [line.split(": ")[0] for out, _ in outputs for line in out.splitlines() if " -> " in line]
    errors = [line for _, err in outputs for line in err.splitlines()]
    if force:
        assert [process.returncode for process in started] == [0, 0]
        assert (len(written), errors) == (2 * len(expected), [])
    else:  # Each file was written by one process, and the other reported that it exists.
        assert len(written) == len(set(written)) == len(expected) == len(errors)
        assert all(line.endswith(".ohm exists; add --force to overwrite it") for line in errors)
