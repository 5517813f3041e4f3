"""Training in several processes."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch


def train(folder: Path, output: str, *more: str, code: int = 0) -> str:
    command = [sys.executable, "-m", "ohmq", "train", "--quantizer", "ohm", "--channels-max", "4", "--num-symbols", "8"]
    command += ["--batch-size", "90", "--epochs", "2", "--log-interval", "1", "--cpu", "--ema-decay", "0.5"]
    command += ["--data", str(folder / "data"), "-o", output, *more]
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "LOCAL_RANK", "WORLD_SIZE"))
    }
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=400, env=inherited)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def losses(folder: Path) -> list[float]:
    with (folder / "logs_train" / "metrics.csv").open() as file:
        return [float(row["train_loss"]) for row in csv.DictReader(file) if row["train_loss"]]


def test_two_processes_have_the_same_loss_as_one(mnist_folder: Path, tmp_path: Path) -> None:
    train(tmp_path, "one", "--initialisation", "published")
    output = train(tmp_path, "two", "--initialisation", "published", "--devices", "2")
    assert output.count("2 processes on cpu") == 1
    assert output.count("last checkpoint") == 1
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 6  # 270 digits, 90 a step
    assert two == pytest.approx(one, rel=1e-4)
    a, b = (torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"] for name in ("one", "two"))
    for key, value in a.items():
        torch.testing.assert_close(b[key], value, rtol=1e-3, atol=1e-4)


def test_a_warm_start_in_two_processes(mnist_folder: Path, tmp_path: Path) -> None:
    train(tmp_path, "out", "--warm-start-epochs", "1", "--devices", "2")
    assert len(losses(tmp_path / "out")) == 6
    assert (tmp_path / "out" / "warm_start.ckpt").stat().st_size > 0


def test_a_batch_that_cannot_be_shared_is_refused(mnist_folder: Path, tmp_path: Path) -> None:
    output = train(tmp_path, "out", "--devices", "2", "--batch-size", "45", "--initialisation", "published", code=1)
    assert "a batch of 45 images over 2 processes" in output
