"""The checkpoint that a run resumes from."""

import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from ohmq.errors import ConfigError, OutputWriteError
from ohmq.training.fit import _checkpoint_callbacks
from ohmq.training.resume import output_folder, resume_point


def test_resume_point(tmp_path: Path) -> None:
    last = tmp_path / "last.ckpt"
    assert resume_point(tmp_path, None, False, {}) is None
    assert resume_point(tmp_path, None, False, {"SLURM_JOB_ID": "77"}) is None
    last.write_bytes(b"x")
    assert resume_point(tmp_path, None, False, {"SLURM_JOB_ID": "77"}) == last
    assert resume_point(tmp_path, None, True, {}) == last
    assert resume_point(tmp_path, Path("other"), False, {}) == Path("other")
    for environment in ({}, {"SLURM_JOB_ID": "78"}):
        for _ in range(2):  # a job that was refused is refused again
            with pytest.raises(ConfigError, match="--resume"):
                resume_point(tmp_path, None, False, environment)
    array = {"SLURM_JOB_ID": "80", "SLURM_ARRAY_JOB_ID": "79", "SLURM_ARRAY_TASK_ID": "2"}
    with pytest.raises(ConfigError):
        resume_point(tmp_path, None, False, array)
    assert resume_point(tmp_path, None, True, array) == last
    assert resume_point(tmp_path, None, False, {**array, "SLURM_JOB_ID": "81"}) == last


def test_an_output_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    for _ in range(2):
        with output_folder(tmp_path / "new" / "run"):
            assert (tmp_path / "new" / "run").is_dir()
    with pytest.raises(ValueError, match="failed"), output_folder(tmp_path / "other" / "run"):
        raise ValueError("the run failed before it wrote anything")
    assert not (tmp_path / "other").exists()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputWriteError, match="no folder can be made there"), output_folder(path):
            pass
        with pytest.raises(OutputWriteError):
            resume_point(path, None, False, {"SLURM_JOB_ID": "77"})


def test_the_best_checkpoint_stays_the_best_in_a_folder_that_moved(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    new.mkdir()
    _, callback = _checkpoint_callbacks(old, True)
    assert isinstance(callback, ModelCheckpoint)
    assert callback.state_key == ModelCheckpoint(old, monitor="val_loss").state_key  # older checkpoints have it
    path, score = str(old / "best.ckpt"), torch.tensor(0.25)
    state = {**callback.state_dict(), "best_k_models": {path: score}, "best_model_score": score, "kth_value": score}
    state |= {"best_model_path": path, "kth_best_model_path": path}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for best_is_there in (False, True):
            _, moved = _checkpoint_callbacks(new, True)
            assert isinstance(moved, ModelCheckpoint)
            if best_is_there:
                (new / "best.ckpt").write_bytes(b"x")
            moved.load_state_dict(state)
            assert moved.best_model_path == (str(new / "best.ckpt") if best_is_there else "")
            assert moved.best_model_score == (score if best_is_there else None)
            assert moved.best_k_models == ({str(new / "best.ckpt"): score} if best_is_there else {})
