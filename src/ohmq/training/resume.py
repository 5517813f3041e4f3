"""The checkpoint that a run resumes from."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from ohmq.errors import ConfigError, OutputWriteError
from ohmq.utils.atomic_write import new_folder

__all__ = ["output_folder", "resume_point"]


@contextlib.contextmanager
def output_folder(output_dir: Path) -> Iterator[None]:
    """Make the folder of a run for the work inside; if that fails, remove it again, unless something was put there.

    Args:
        output_dir: the folder; it may exist, and then it stays.

    Raises:
        OutputWriteError: it is a file, or cannot be made or written.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(new_folder(output_dir))
        except OSError as error:  # such as a file of this name, or one on the way
            raise OutputWriteError(
                f"{output_dir}: no folder can be made there ({error.strerror}); choose another"
            ) from error
        if not os.access(output_dir, os.W_OK | os.X_OK):
            raise OutputWriteError(f"{output_dir}: no permission to write into this folder; choose another")
        yield


def resume_point(
    output_dir: Path, ckpt: Path | None, resume: bool, environment: Mapping[str, str] | None = None
) -> Path | None:
    """Choose the checkpoint to resume from, or None for a new run.

    A named checkpoint takes precedence. Under Slurm, a requeued job finds its own checkpoint by the job id.

    Args:
        output_dir: folder of the run.
        ckpt: checkpoint named on the command line; None: none.
        resume: resume from output_dir/last.ckpt if it exists.
        environment: environment variables, for SLURM_JOB_ID; None: the process's.

    Returns:
        The checkpoint; None: start a new run.

    Raises:
        ConfigError: output_dir holds a checkpoint, and neither the arguments nor the job id ask to resume from it.
        OutputWriteError: the output folder cannot be made.
    """
    environment = os.environ if environment is None else environment
    job = environment.get("SLURM_JOB_ID", "")
    if task := environment.get("SLURM_ARRAY_TASK_ID"):
        job = f"{environment.get('SLURM_ARRAY_JOB_ID', job)}_{task}"
    last, job_file = output_dir / "last.ckpt", output_dir / "slurm_job_id"
    same_job = bool(job) and job_file.is_file() and job_file.read_text().strip() == job
    if ckpt is None and last.exists() and not resume and not same_job:
        raise ConfigError(
            f"{last} exists: resume from it by --resume (ohmq train) or --ckpt {last}, or choose another output folder"
        )
    if job:  # not before: a job that is refused does not own the run
        with output_folder(output_dir):
            job_file.write_text(job + "\n")
    if ckpt is not None:
        return ckpt
    return last if last.exists() else None
