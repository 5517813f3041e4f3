"""Where a run goes on from."""

import os
from collections.abc import Mapping
from pathlib import Path

from ohmq.errors import ConfigError

__all__ = ["resume_point"]


def resume_point(
    output_dir: Path, ckpt: Path | None, resume: bool, environment: Mapping[str, str] | None = None
) -> Path | None:
    """The checkpoint to resume from, or None for a new run.

    A checkpoint that is named wins. Under Slurm, a job that was requeued finds its own checkpoint by the job id.

    Args:
        output_dir: of the run. ckpt: named on the command line. resume: go on with output_dir/last.ckpt if it is there.
        environment: for SLURM_JOB_ID; default: the process's.

    Raises:
        ConfigError: output_dir holds a checkpoint and nobody asked to go on with it.
    """
    environment = os.environ if environment is None else environment
    job = environment.get("SLURM_JOB_ID", "")
    if task := environment.get("SLURM_ARRAY_TASK_ID"):
        job = f"{environment.get('SLURM_ARRAY_JOB_ID', job)}_{task}"
    last, note = output_dir / "last.ckpt", output_dir / "slurm_job_id"
    same_job = bool(job) and note.is_file() and note.read_text().strip() == job
    if job:
        output_dir.mkdir(parents=True, exist_ok=True)
        note.write_text(job + "\n")
    if ckpt is not None:
        return ckpt
    if not last.exists():
        return None
    if resume or same_job:
        return last
    raise ConfigError(
        f"{last} exists: go on with it by --resume (ohmq train) or --ckpt {last}, or choose another output folder"
    )
