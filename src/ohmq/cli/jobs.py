"""Jobs of a command: find input files, place outputs, and do the work in one process or several."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from ohmq.cli.output import phase_progress
from ohmq.errors import ConfigError, OhmqError, OutputExistsError
from ohmq.imaging import listing

__all__ = ["FEW_FILES", "Job", "Work", "compiled_for", "find_files", "place_outputs", "run_jobs"]

FEW_FILES = 5
"""Number of photographs up to which numba's start-up costs more time than it saves."""


class Job(NamedTuple):
    """One input file.

    Attributes:
        source: the file.
        relative: path of the output below the output folder, still with the input's extension.
        in_folder: whether the file was found in a folder that was named.
        target: path of the output.
        rival: earlier input whose output has the same path; None if there is none.
    """

    source: Path
    relative: Path
    in_folder: bool = False
    target: Path = Path()
    rival: Path | None = None


Work = Callable[[Job], dict[str, Any]]
"""A function that does one job and returns its result; it must be picklable to be sent to another process."""


def find_files(inputs: Iterable[str], extensions: Sequence[str]) -> list[Job]:
    """Find the files that are named, lie in named folders (searched recursively) or match glob patterns.

    Args:
        inputs: files, folders and glob patterns.
        extensions: extensions of the files to take from folders, in lower case, such as (".png",).

    Returns:
        A job for each file, in order of the inputs, without duplicates.

    Raises:
        ConfigError: no file found.
    """
    return [Job(*file) for file in listing.find_files(inputs, extensions)]


def compiled_for(option: bool | None, jobs: Sequence[Job], processes: int) -> bool | None:
    """Choose the argument ``compiled`` of `ohmq.load`.

    Args:
        option: value of ``--compiled/--no-compiled``; None if it was not given.
        jobs: all jobs of the command.
        processes: number of processes that share them.

    Returns:
        The option; False if it was not given and there are few files.
    """
    return False if option is None and len(jobs) <= FEW_FILES * processes else option


def place_outputs(jobs: Sequence[Job], output: Path | None, extension: str) -> list[Job]:
    """Set the targets of jobs: the file named, a path below the folder named, or a path beside the input.

    Only a single file that was named itself goes to a file; the files of a folder keep their paths below the folder.
    Where two inputs, such as a.png and a.jpg, have the same target, the second is refused when its turn comes.

    Args:
        jobs: jobs without targets.
        output: output file or folder; None: beside the inputs.
        extension: extension of the outputs, with its dot.

    Returns:
        The jobs with their targets, in the same order.

    Raises:
        ConfigError: the output is a file, and the inputs need a folder; or an .ohm file would have another extension.
    """
    single = len(jobs) == 1 and not jobs[0].in_folder
    if output is not None and not single and output.is_file():
        raise ConfigError(f"{output} is a file; a folder is needed for the outputs of folders and of several files")
    suffix = "" if output is None or not single or output.is_dir() else output.suffix.lower()
    if extension == ".ohm" and suffix not in ("", ".ohm"):
        raise ConfigError(f"{output} does not end in .ohm; name a file that does, or a folder that is there")
    placed, first_inputs = [], dict[Path, Path]()
    for job in jobs:
        if output is None:
            target = job.source.with_suffix(extension)
        elif single and not output.is_dir() and output.suffix:
            target = output
        else:
            target = output / job.relative.with_suffix(extension)
        placed.append(job._replace(target=target, rival=first_inputs.get(target)))
        first_inputs.setdefault(target, job.source)
    return placed


def run_jobs(
    jobs: Sequence[Job],
    work: Work,
    verb: str,
    quiet: bool,
    *,
    show: Callable[[dict[str, Any]], None] = lambda result: None,
    processes: int = 1,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Do each job; a bad file does not stop the others.

    Args:
        jobs: the jobs.
        work: function that does one job; with more than one process it is sent to each of them.
        verb: label of the progress bar.
        quiet: whether to show no results and no progress.
        show: function that shows a result; called in the order of the jobs.
        processes: number of jobs done at once.

    Returns:
        Results, and failures with the keys "input" and "error".

    Raises:
        OhmqError: a process was killed.
    """
    results, failures = [], []
    terminal = not quiet and sys.stderr.isatty()
    visible = len(jobs) > 1 and terminal
    processes = min(processes, len(jobs))
    outcomes = _in_processes(jobs, work, processes) if processes > 1 else (_attempt(job, work) for job in jobs)
    with click.progressbar(length=len(jobs), label=verb, file=sys.stderr, hidden=not visible) as bar:
        with contextlib.closing(outcomes), phase_progress(terminal and len(jobs) == 1):
            for outcome in outcomes:
                if "error" in outcome:
                    failures.append(outcome)
                    click.echo(f"ohmq: {outcome['error']}", err=True)
                else:
                    results.append(outcome)
                    if not quiet:
                        show(outcome)
                bar.update(1)
    return results, failures


def _attempt(job: Job, work: Work) -> dict[str, Any]:
    """Do one job: its result, or a failure."""
    try:
        if job.rival is not None:
            raise OutputExistsError(f"its output {job.target} is that of {job.rival} too; rename one of them")
        return {"input": str(job.source), **work(job)}
    except BrokenPipeError:  # The reader of standard output has closed it: no fault of the file. click ends quietly.
        raise
    except (OhmqError, OSError) as error:
        message = str(error) if isinstance(error, OhmqError) else error.strerror or str(error)
        names_source = str(job.source) in message
        return {"input": str(job.source), "error": message if names_source else f"{job.source}: {message}"}


def _in_processes(jobs: Sequence[Job], work: Work, processes: int) -> Generator[dict[str, Any], None, None]:
    """Attempt jobs in processes; outcomes in order. Closing it early stops the processes; none leaves a partial file."""
    import multiprocessing
    from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _start_process, (work,))
    futures = []
    try:
        with _worker_environment(threads=max(1, cores // processes)):
            futures = [pool.submit(_attempt_in_process, job) for job in jobs]
        for future in futures:
            yield future.result()
    except BrokenProcessPool as error:
        raise OhmqError("a process was killed, perhaps for want of memory; try fewer --jobs") from error
    finally:
        if not all(future.done() for future in futures):
            for future in futures:
                future.cancel()
            for child in multiprocessing.active_children():
                child.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _worker_environment(threads: int) -> Iterator[None]:
    """Let processes started inside use this number of threads, and leave Ctrl-C to this process, which stops them."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = before if before == "1" else str(threads)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


_work: Work | None = None
_busy = False
"""Whether this process does a job, which may have a partial file to remove."""


def _start_process(work: Work) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent was killed."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _terminate(number: int, frame: Any) -> None:
    # The pool sends SIGTERM again as soon as one process has ended; that would stop the unwinding.
    signal.signal(number, signal.SIG_IGN)
    if _busy:
        sys.exit(128 + number)  # The stack unwinds, which removes partial files.
    os._exit(128 + number)  # Outside a job the pool would catch SystemExit, and the process would stay.


def _attempt_in_process(job: Job) -> dict[str, Any]:
    global _busy
    assert _work is not None
    try:
        _busy = True
        try:
            return _attempt(job, _work)
        finally:
            _busy = False
    except SystemExit as stop:
        os._exit(stop.code if isinstance(stop.code, int) else 1)
