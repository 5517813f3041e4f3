"""Devices, loader processes and schedulers of a run."""

import logging
import os
import warnings
from pathlib import Path

import pytest
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities import rank_zero_only

from ohmq.errors import ConfigError
from ohmq.training.options import TrainOptions
from ohmq.training.processes import cluster_environment, device_count, loader_processes, quiet_lightning


@pytest.fixture(autouse=True)
def isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the variables of schedulers; restore the rank."""
    for name in list(os.environ):
        if name.startswith("SLURM") or name == "LOCAL_RANK":
            monkeypatch.delenv(name)
    monkeypatch.setattr(rank_zero_only, "rank", 0, raising=False)


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("devices", "on_cpu", "on_four_gpus"),
    [("auto", 1, 4), (1, 1, 1), (2, 2, 2), (-1, 1, 4), ("0,2", "list of GPUs", 2), ("5,", "list of GPUs", "0 to 3")]
    + [(99999, "has .* processors", "has 4 accelerators"), (0, "1 to", "1 to"), ("foo", "'foo'", "'foo'")],
)
def test_devices(
    monkeypatch: pytest.MonkeyPatch, devices: int | str, on_cpu: int | str, on_four_gpus: int | str
) -> None:
    for count, expected in ((0, on_cpu), (4, on_four_gpus)):
        gpus(monkeypatch, count)
        options = TrainOptions(devices=devices)
        if isinstance(expected, int):
            assert device_count(options) == expected
        else:
            with pytest.raises(ConfigError, match=expected):
                device_count(options)
    gpus(monkeypatch, 4)
    assert device_count(TrainOptions(cpu=True)) == 1


def test_loader_processes_share_the_processors_among_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(24)), raising=False)
    gpus(monkeypatch, 0)
    assert loader_processes(TrainOptions()) == 0
    assert loader_processes(TrainOptions(num_workers=3)) == 3
    gpus(monkeypatch, 4)
    assert loader_processes(TrainOptions()) == 6
    assert loader_processes(TrainOptions(devices=1)) == 8
    assert loader_processes(TrainOptions(num_workers=0)) == 0
    assert loader_processes(TrainOptions(cpu=True)) == 0


JOB = {"SLURM_JOB_ID": "5", "SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "2", "SLURM_NODEID": "1"}
STEP = {**JOB, "SLURM_STEP_NUM_TASKS": "4", "SLURM_TASK_PID": "77"}


def test_variables_of_a_job_do_not_make_a_shell_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    assert cluster_environment(TrainOptions()) is None
    for variables in (JOB, {**JOB, "SLURM_STEP_NUM_TASKS": "4"}, {**STEP, "SLURM_STEP_NUM_TASKS": "1"}):
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.setattr(rank_zero_only, "rank", 2)  # as Lightning reads it from SLURM_PROCID
            environment = cluster_environment(TrainOptions())
            assert isinstance(environment, LightningEnvironment)
            assert rank_zero_only.rank == 0  # this process reports


def test_tasks_of_srun_must_be_the_processes_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0)
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    assert cluster_environment(TrainOptions(devices=2, num_nodes=2)) is None  # Lightning's own for Slurm
    with pytest.raises(ConfigError, match="srun started 4 tasks .* but 2 processes"):
        cluster_environment(TrainOptions(devices=2))


def test_chatter_is_silenced_and_warnings_of_others_are_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lightning = logging.getLogger("lightning.pytorch")
    level = lightning.level
    with quiet_lightning():
        assert not lightning.isEnabledFor(logging.INFO) and lightning.isEnabledFor(logging.WARNING)
        warnings.warn(f"Checkpoint directory {tmp_path} exists and is not empty.", stacklevel=1)
        with pytest.raises(UserWarning, match="mine"):
            warnings.warn("mine", stacklevel=1)
    assert lightning.level == level
