"""Progress of a run on standard error."""

import contextlib
import fcntl
import os
import pty
import struct
import sys
import termios
from typing import Any

import pytest
from lightning.pytorch import LightningModule

from ohmq.training import progress
from ohmq.training.progress import StageProgress, duration, show_phases
from ohmq.utils.progress import steps


class Clock:
    """A clock that stands still unless it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


class TrainerStandIn:
    """The parts of Lightning's Trainer that progress reads."""

    is_global_zero, num_training_batches = True, 10

    def __init__(self) -> None:
        self.global_step, self.current_epoch = 0, 0
        self.progress_bar_metrics = {"loss": 0.123456, "val_loss": 2.0}

    @property
    def is_last_batch(self) -> bool:
        return self.global_step % self.num_training_batches == 0


def train(shown: StageProgress, clock: Clock, epochs: int, step_seconds: float) -> None:
    trainer: Any = TrainerStandIn()
    module = LightningModule()
    shown.on_train_start(trainer, module)
    for trainer.current_epoch in range(epochs):
        for batch in range(trainer.num_training_batches):
            clock.now += step_seconds
            trainer.global_step += 1
            shown.on_train_batch_end(trainer, module, None, None, batch)
        shown.on_train_epoch_end(trainer, module)
    shown.teardown(trainer, module, "fit")


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock(monkeypatch)
    train(StageProgress("train", 50), clock, 50, 0.125)  # an epoch takes 1.25 s
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train: epoch 8/50, loss 0.1235, val_loss 2, 8.0 steps/s, 52 s left"
    assert lines[-1] == "train: epoch 50/50, loss 0.1235, val_loss 2, 8.0 steps/s, took 62 s"
    assert len(lines) == 7
    train(StageProgress("train", 2), clock, 2, 4.0)  # an epoch takes longer than the time between lines
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train: epoch 1/2, loss 0.1235, val_loss 2, 4.0 s/step, 68 s left"
    assert len(lines) == 7  # after 12, 24, 36, 48, 60, 72 and 80 s


def test_time_left_counts_the_stages_that_follow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train(StageProgress("warm_start", 2, further_steps=100), Clock(monkeypatch), 2, 1.0)
    assert "10 s left of this stage, about 2 min of the run" in capsys.readouterr().err.replace("110 s", "2 min")


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    train(StageProgress("train", 3), Clock(monkeypatch), 3, 1.0)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "train: epoch 2/3 |" in shown.err
    assert "| 20/30 steps, 10 s left, 1.0 steps/s, loss 0.1235, val_loss" in shown.err


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (80, 0), (0, 0)])
def test_a_bar_says_the_time_left_on_any_terminal(monkeypatch: pytest.MonkeyPatch, columns: int, rows: int) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    with open(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        train(StageProgress("train", 1000), Clock(monkeypatch), 1, 1.0)
    shown = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while part := os.read(ours, 4096):
            shown += part
    os.close(ours)
    lines = shown.decode().replace("\n", "\r").split("\r")
    assert any("| 10/10000 steps, 2 h 46 min left, 1.0 steps/s, loss" in line for line in lines)
    assert all(len(line) < 80 for line in lines)


def test_long_phases_are_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock(monkeypatch)
    with show_phases():
        for _ in steps(range(10), "quick"):
            clock.now += 0.1
        for _ in steps(range(100), "sizes of photos"):
            clock.now += 1.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "sizes of photos: 2 of 100, 98 s left"
    assert 8 <= len(lines) <= 11


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0, 99, 600, 7200, 86400 * 3)] == [
        "0 s", "99 s", "10 min", "2 h 00 min", "3 d 0 h",
    ]  # fmt: skip
