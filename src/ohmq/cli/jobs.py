"""src/ohmq/cli/jobs.py."""

import contextlib
import glob
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from ohmq.cli.output import _progress_within
from ohmq.errors import ConfigError, OhmqError, OutputExistsError

__all__ = ["Job", "compiled_for", "find_files", "place_outputs", "run_jobs"]
FEW_FILES = 5
"""Up to so many, of photographs, take less time than numba takes to start."""


class Job(NamedTuple):
    """One input file.

    Attributes:
        source: the file. relative: the path under which its output goes. in_folder: found in a folder that was named.
        target: where the output goes. rival: the earlier input whose output has the same place.
    """

    source: Path
    relative: Path
    in_folder: bool = False
    target: Path = Path()
    rival: Path | None = None


Work = Callable[[Job], dict[str, Any]]


def find_files(inputs: Iterable[str], extensions: Sequence[str]) -> list[Job]:
    """Files named, in folders named (searched recursively), or matched by globs; in order, without duplicates.

    Args:
        inputs: files, folders and globs. extensions: lower-case endings taken from folders, such as (".png",).

    Raises:
        ConfigError: nothing found.
    """
    jobs: dict[Path, Job] = {}
    inputs = list(inputs)
    for text in inputs:
        path = Path(text)
        matches = [path] if path.exists() or not glob.has_magic(text) else [Path(m) for m in sorted(glob.glob(text))]
        for match in matches:
            if not match.is_dir():  # also a missing file: reading it gives the error
                jobs.setdefault(match, Job(match, Path(match.name)))
                continue
            for file in sorted(match.rglob("*")):
                if file.suffix.lower() in extensions and file.is_file():
                    jobs.setdefault(file, Job(file, file.relative_to(match), in_folder=True))
    if not jobs:
        raise ConfigError(f"no files found in {', '.join(inputs)} (looked for {', '.join(extensions)})")
    return list(jobs.values())


def compiled_for(wanted: bool | None, jobs: Sequence[Job], processes: int) -> bool | None:
    """What `ohmq.load` is told of ``compiled``, given the option."""
    return False if wanted is None and len(jobs) <= FEW_FILES * processes else wanted


def place_outputs(jobs: Sequence[Job], output: Path | None, extension: str) -> list[Job]:
    """The jobs with their targets: the file named, below the folder named, or beside the input.

    Only a single file that was named itself goes to a file; the files of a folder keep their paths below the folder.
    Where two inputs, such as a.png and a.jpg, would go to one place, the second is refused when its turn comes.

    Raises:
        ConfigError: the output is a file, and the inputs need a folder; or an .ohm file would have another ending.
    """
    single = len(jobs) == 1 and not jobs[0].in_folder
    if output is not None and not single and output.is_file():
        raise ConfigError(f"{output} is a file; a folder is needed for the outputs of folders and of several files")
    ending = "" if output is None or not single or output.is_dir() else output.suffix.lower()
    if extension == ".ohm" and ending not in ("", ".ohm"):
        raise ConfigError(f"{output} does not end in .ohm; name a file that does, or a folder that is there")
    placed, taken = [], dict[Path, Path]()
    for job in jobs:
        if output is None:
            target = job.source.with_suffix(extension)
        elif single and not output.is_dir() and output.suffix:
            target = output
        else:
            target = output / job.relative.with_suffix(extension)
        placed.append(job._replace(target=target, rival=taken.get(target)))
        taken.setdefault(target, job.source)
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
        jobs: what to do. work: does one job; with more than one process it is sent to them. verb: for the progress bar.
        quiet: show nothing. show: shows a result, in the order of the jobs. processes: how many jobs are done at once.

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
        with contextlib.closing(outcomes), _progress_within(terminal and len(jobs) == 1):
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
    """The result of a job, or a failure."""
    try:
        if job.rival is not None:
            raise OutputExistsError(f"its output {job.target} is that of {job.rival} too; rename one of them")
        return {"input": str(job.source), **work(job)}
    except BrokenPipeError:  # whoever reads our output has enough: no fault of the file; click ends quietly
        raise
    except (OhmqError, OSError) as error:
        message = str(error) if isinstance(error, OhmqError) else error.strerror or str(error)
        named = str(job.source) in message
        return {"input": str(job.source), "error": message if named else f"{job.source}: {message}"}


def _in_processes(jobs: Sequence[Job], work: Work, processes: int) -> Generator[dict[str, Any], None, None]:
    """What `_attempt` gives for each job, in order. Closing it early stops the processes; none leaves a partial file."""
    import multiprocessing
    from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _start_process, (work,))
    futures = []
    try:
        with _inherited(threads=max(1, cores // processes)):
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
def _inherited(threads: int) -> Iterator[None]:
    """Processes started inside use so many threads each, and leave Ctrl-C to this one, which stops them in order."""
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
"""Whether this process is at a job, which may have a partial file to remove."""


def _start_process(work: Work) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process whose parent was killed must not stay."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _terminate(number: int, frame: Any) -> None:
    # The pool sends another one as soon as a process has ended; that would stop the unwinding.
    signal.signal(number, signal.SIG_IGN)
    if _busy:
        sys.exit(128 + number)  # unwinds: partial files are removed
    os._exit(128 + number)  # outside a job the pool would catch SystemExit, and the process would stay


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
