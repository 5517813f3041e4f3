"""Checkpoints are whole after a kill at any moment."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from ohmq.errors import OutputWriteError
from ohmq.training import fit
from ohmq.training.checkpoint_io import AtomicCheckpoints
from ohmq.training.options import TrainOptions, preset

WRITER = """
import sys, torch
from pathlib import Path
from ohmq.training.checkpoint_io import AtomicCheckpoints
io, value = AtomicCheckpoints(), torch.zeros(4_000_000)
for number in range(10**9):
    io.save_checkpoint({"number": number, "value": value + number}, Path(sys.argv[1]))
    print(number, flush=True)
"""


def test_a_kill_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    path, pick = tmp_path / "last.ckpt", random.Random(4)
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()  # the first is written
        time.sleep(pick.uniform(0, 0.2))
        process.kill()
        written = process.stdout.read().split()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        contents = torch.load(path, weights_only=True)
        assert contents["number"] >= int(written[-1] if written else 0)
        assert bool((contents["value"] == contents["number"]).all())
    others = [file.name for file in tmp_path.iterdir() if file != path]
    assert all(name.startswith(".ohmq-") and name.endswith(".part") for name in others)


def test_the_new_checkpoint_takes_the_place_of_the_old_one_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written to the file itself, wherever the folder for temporary files is."""
    path, io = tmp_path / "last.ckpt", AtomicCheckpoints()
    io.save_checkpoint({"number": 1}, path)
    replaced: list[tuple[str, str]] = []
    original = Path.replace

    def replace(self: Path, target: Path) -> Path:
        assert torch.load(path, weights_only=True) == {"number": 1}
        assert torch.load(self, weights_only=True) == {"number": 2}
        replaced.append((str(self.parent), str(target)))
        return original(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    io.save_checkpoint({"number": 2}, path)
    assert replaced == [(str(tmp_path), str(path))]
    assert torch.load(path, weights_only=True) == {"number": 2}


def test_an_old_checkpoint_is_kept_where_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, io = tmp_path / "last.ckpt", AtomicCheckpoints()
    io.save_checkpoint({"number": 1}, path)

    def replace(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OutputWriteError, match="last.ckpt cannot be written"):
        io.save_checkpoint({"number": 2}, path)
    assert torch.load(path, weights_only=True) == {"number": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_training_writes_its_checkpoints_this_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trainer(**arguments: Any) -> None:
        raise InterruptedError(*arguments["plugins"])

    monkeypatch.setattr(fit, "Trainer", trainer)
    options = TrainOptions(output_dir=tmp_path, **preset("mnist-ohm"))
    stage = fit.Stage("train", options.model, 1)
    nothing: Any = None
    with pytest.raises(InterruptedError) as caught:
        fit.fit(nothing, stage, options, loader=nothing, validation=nothing, checkpoint=None, started_at=0.0)
    (plugin,) = caught.value.args
    assert isinstance(plugin, AtomicCheckpoints)
