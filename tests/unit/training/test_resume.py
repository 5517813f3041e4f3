"""The checkpoint that a run resumes from."""

from pathlib import Path

import pytest

from ohmq.errors import ConfigError, OutputWriteError
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
