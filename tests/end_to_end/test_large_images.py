"""Images in tiles through the real command line; a small image stands for a large one."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ohmq.bitstream.reader import read_header
from ohmq.cli import main

PHOTO = Path(__file__).parents[2] / "examples" / "photos" / "chelsea.png"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``ohmq ARGUMENTS`` in a folder with an image: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    with Image.open(PHOTO) as image:
        image.convert("RGB").crop((100, 60, 181, 125)).save("a.png")

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(list(arguments))
        captured = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, captured.out, captured.err

    return call


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image, int)


def test_tiled_files_decode_like_whole_ones(run: Run) -> None:
    whole = "--quality", "100", "--layers", "all"
    assert run("compress", "a.png", "-o", "one.ohm", *whole)[0] == 0
    assert run("compress", "a.png", "-o", "tiled.ohm", "--tile", "4", *whole)[0] == 0
    assert run("compress", "a.png", "-o", "whole.ohm", "--tile", "0", *whole)[0] == 0
    one, tiled = Path("one.ohm").read_bytes(), Path("tiled.ohm").read_bytes()
    assert Path("whole.ohm").read_bytes() == one
    assert (read_header(one).tile, read_header(tiled).tile) == (0, 4)
    assert len(one) < len(tiled) < 1.5 * len(one)
    _, out, _ = run("info", "tiled.ohm")
    assert "in tiles of 4x4 positions" in out
    assert json.loads(run("info", "tiled.ohm", "--json")[1])["results"][0]["tile"] == 4
    for name in ("one", "tiled"):
        assert run("truncate", f"{name}.ohm", "-o", f"{name}_cut.ohm", "--layers", "5")[0] == 0
        assert run("decompress", f"{name}.ohm", f"{name}_cut.ohm", "-o", "back")[0] == 0
    for kind in ("", "_cut"):  # contexts end at the border of a tile, so RDOQ chooses other symbols there
        errors = [np.square(pixels(f"back/{name}{kind}.png") - pixels("a.png")).mean() for name in ("tiled", "one")]
        assert errors[0] == pytest.approx(errors[1], rel=0.05)
    assert run("decompress", "tiled_cut.ohm", "--progressive", "steps")[0] == 0
    assert np.array_equal(pixels("steps/tiled_cut/layer_05.png"), pixels("back/tiled_cut.png"))
    Path("part.ohm").write_bytes(tiled[:-1])
    assert run("decompress", "part.ohm", "-o", "part.png")[0] == 1
    assert run("decompress", "part.ohm", "-o", "part.png", "--allow-truncated")[0] == 0
    assert pixels("part.png").shape == (65, 81, 3)


def test_tiled_files_meet_targets(run: Run) -> None:
    done = json.loads(run("compress", "a.png", "-o", "b.ohm", "--tile", "2", "--max-bytes", "700", "--json")[1])
    assert done["results"][0]["bytes"] == Path("b.ohm").stat().st_size <= 700
    done = json.loads(run("compress", "a.png", "-o", "p.ohm", "--tile", "2", "--psnr", "27", "--json")[1])
    run("decompress", "p.ohm", "-o", "p.png")
    error = np.square(pixels("p.png") - pixels("a.png")).mean()
    assert done["results"][0]["psnr_db"] >= 27
    assert 10 * np.log10(255**2 / error) == pytest.approx(done["results"][0]["psnr_db"])


def test_impossible_tiles_are_refused(run: Run) -> None:
    assert run("compress", "a.png", "-o", "x.ohm", "--tile", "257")[0] == 2
    code, _, err = run("compress", "a.png", "-o", "x.ohm", "--tile", "3", "-m", "mnist-ohm")
    assert code == 2
    assert "codes patches of its own size" in err
    assert run("compress", "a.png", "-o", "t.ohm", "--tile", "3", "--channels", "6")[0] == 0
    code, _, err = run("decompress", "t.ohm", "-o", "x.png", "--max-pixels", "5000")
    assert code == 1
    assert "81x65 pixels, more than the limit of 5000" in err
    assert not {path.name for path in Path().iterdir()} & {"x.ohm", "x.png"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_ctrl_c_in_the_middle_of_an_image_leaves_nothing(tmp_path: Path) -> None:
    import pty

    with Image.open(PHOTO) as image:
        image.convert("RGB").crop((0, 0, 400, 300)).save(tmp_path / "a.png")
    parent_side, child_side = pty.openpty()
    command = [sys.executable, "-m", "ohmq", "compress", "a.png", "-o", "out/a.ohm", "--tile", "1"]
    started = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=child_side, text=True, start_new_session=True
    )
    os.close(child_side)
    shown = b""
    while b"entropy coding" not in shown:  # the progress bar of the phase
        shown += os.read(parent_side, 1000)
    os.killpg(started.pid, signal.SIGINT)
    assert started.stdout is not None
    while True:
        try:
            piece = os.read(parent_side, 1000)
        except OSError:  # the other side of the pseudo-terminal is closed
            break
        if not piece:
            break
        shown += piece
    assert started.wait(60) == 130
    assert started.stdout.read() == ""
    started.stdout.close()
    os.close(parent_side)
    assert b"stopped" in shown
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.png"]
