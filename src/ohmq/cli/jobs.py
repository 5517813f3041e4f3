"""Jobs of a command: find input files, place outputs, and do the work in one process or several."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

from ohmq.cli.output import phase_progress, reserve_stdout
from ohmq.errors import ConfigError, OhmqError
from ohmq.imaging import listing
from ohmq.utils.counting import counted
from ohmq.utils.ordered import Workers, map_in_order
from ohmq.utils.streams import STDOUT, check_stream, is_stream, read_stream

__all__ = [
    "FEW_FILES",
    "Job",
    "Outcome",
    "Work",
    "compiled_for",
    "find_files",
    "place_outputs",
    "run_jobs",
    "skipped",
]

FEW_FILES = 5
"""Number of photographs up to which numba's start-up costs more time than it saves."""


class Job(NamedTuple):
    """One input file.

    Attributes:
        source: the file; a standard stream or a pipe also has ``data``.
        relative: path of the output below the output folder, still with the input's extension.
        in_folder: whether the file was found in a folder that was named.
        error: why it cannot be done; None: it can.
        data: content of a stream, which can be read once; None: a file.
        target: path of the output.
        rivals: other inputs whose outputs would have the same short name.
        short_target: target in place of ``target`` if none of the rivals can be read; None: there are no rivals.
        probe: function that reads a rival and raises an `OhmqError` if it cannot be read; None: all can.
        skip_existing: whether the job is skipped if its target exists.
    """

    source: Path
    relative: Path
    in_folder: bool = False
    error: str | None = None
    data: bytes | None = None
    target: Path = Path()
    rivals: tuple[Path, ...] = ()
    short_target: Path | None = None
    probe: Callable[[Path], Any] | None = None
    skip_existing: bool = False

    def read(self) -> bytes:
        """Return the content of the input.

        Raises:
            OSError: it cannot be read.
        """
        return self.source.read_bytes() if self.data is None else self.data


Work = Callable[[Job], dict[str, Any]]
"""A function that does one job and returns its result; it must be picklable to be sent to another process."""


def find_files(inputs: Iterable[str], extensions: Sequence[str]) -> list[Job]:
    """Find the files that are named, lie in named folders (searched recursively) or match glob patterns.

    Streams are read here, since other processes could not: ``-``, /dev/stdin and pipes.

    Args:
        inputs: files, folders, glob patterns and streams.
        extensions: extensions of the files to take from folders, in lower case, such as (".png",).

    Returns:
        A job for each file, in order of the inputs, without duplicates; it has an error if there is nothing to read.

    Raises:
        ConfigError: no file found.
    """
    return [_read_ahead(Job(*file)) for file in listing.find_files(inputs, extensions)]


def _read_ahead(job: Job) -> Job:
    """Read the input of a job if it is a stream."""
    if job.error or not is_stream(job.source):
        return job
    try:
        return job._replace(data=read_stream(job.source))
    except ConfigError as error:
        return job._replace(error=str(error))


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


def place_outputs(
    jobs: Sequence[Job],
    output: Path | str | None,
    extension: str,
    *,
    keep_extension: bool = False,
    skip_existing: bool = False,
    probe: Callable[[Path], Any] | None = None,
) -> list[Job]:
    """Set the targets of jobs: the file named, a path below the folder named, or a path beside the input.

    Only a single file that was named itself goes to a file; the files of a folder keep their paths below the folder. A
    stream without an output goes to standard output; text that is printed from then on goes to standard error.

    Where several inputs have one output, all of them are named in full: they keep their extensions (a.jpg.ohm, a.png.ohm),
    or else the paths below the common folder of all inputs (s1/c.ohm, s2/c.ohm). This depends on the inputs alone, not
    on the order of the work. Extensions are kept only if another of these inputs can be read.

    Args:
        jobs: jobs without targets.
        output: output file, folder (always, if it ends in a slash), ``-`` or another stream; None: beside the inputs.
        extension: extension of the outputs, with its dot.
        keep_extension: whether all outputs keep the extension of their input.
        skip_existing: whether to skip jobs whose target exists.
        probe: function that reads an input and raises an `OhmqError` if it cannot be read; picklable.

    Returns:
        The jobs with their targets, in the same order.

    Raises:
        ConfigError: the output is a file, and the inputs need a folder; an .ohm file would have another extension; or
            several inputs have one stream as output.
    """
    if output is None and any(job.data is not None for job in jobs):
        output = STDOUT
    is_folder = output is not None and str(output).endswith(("/", os.sep))
    if output is not None:
        output = STDOUT if str(output) == "-" else Path(output)
    if output is not None and not is_folder and is_stream(output):
        return [_place_stream(jobs, output)]
    is_folder = is_folder or (output is not None and output.is_dir())
    single = len(jobs) == 1 and not jobs[0].in_folder
    if output is not None and (is_folder or not single) and output.is_file():
        raise ConfigError(f"{output} is a file; a folder is needed for the outputs of folders and of several files")
    if output is not None and single and not is_folder and output.suffix:
        if extension == ".ohm" and output.suffix.lower() != ".ohm":
            raise ConfigError(
                f"{output} does not end in .ohm; name a file that does, or a folder with a slash at its end"
            )
        return [jobs[0]._replace(target=output, skip_existing=skip_existing)]

    common = _common_folder(jobs)

    def place(job: Job, *, in_full: bool = keep_extension, below_common: bool = False) -> Path:
        relative = _below(job, common) if below_common else job.relative
        path = relative.with_name(_file_name(relative, extension, in_full))
        return job.source.parent / path.name if output is None else output / path

    namings: list[Callable[[Job], Path]] = [
        place,
        partial(place, in_full=True),
        partial(place, below_common=True),
        partial(place, in_full=True, below_common=True),
    ]
    groups: dict[Path, list[Job]] = {}
    for job in jobs:
        if not job.error:
            groups.setdefault(place(job), []).append(job)
    named: dict[Path, Job] = {}
    for short_target, group in groups.items():
        targets = next(t for t in ([n(job) for job in group] for n in namings) if len(set(t)) == len(group))
        sources = tuple(job.source for job in group)
        for job, target in zip(group, targets, strict=True):
            job = job._replace(target=target, skip_existing=skip_existing)
            if len(group) > 1 and target.parent == short_target.parent:
                rivals = tuple(source for source in sources if source != job.source)
                job = job._replace(rivals=rivals, short_target=short_target, probe=probe)
            named[job.source] = job
    placed, first_inputs = [], dict[Path, Path]()
    for job in (named.get(job.source, job) for job in jobs):
        other = job.source if job.error else first_inputs.setdefault(job.target, job.source)
        if other != job.source:
            job = job._replace(error=f"its output {job.target} is that of {other} too; rename one of them")
        placed.append(job)
    return placed


def _place_stream(jobs: Sequence[Job], stream: Path) -> Job:
    """Send the output of a single job to a stream."""
    if len(jobs) != 1:
        raise ConfigError(
            f"{counted(len(jobs), 'input')}, and one stream ({stream}) for their outputs; name a folder with -o"
        )
    check_stream(stream)
    if stream == STDOUT:
        reserve_stdout()
    return jobs[0]._replace(target=stream)


def _file_name(path: Path, extension: str, in_full: bool) -> str:
    """Name an output; without doubling an extension, unless in full: a.png.ohm gives a.png."""
    if in_full:
        return path.name + extension
    return path.stem if Path(path.stem).suffix.lower() == extension.lower() else path.stem + extension


def _common_folder(jobs: Sequence[Job]) -> str:
    """Find the deepest folder that holds all inputs."""
    folders = [os.path.dirname(os.path.abspath(job.source)) for job in jobs if not job.error]
    return os.path.commonpath(folders) if folders else os.curdir


def _below(job: Job, folder: str) -> Path:
    """Return the path of an input below a folder that holds it."""
    return Path(os.path.relpath(os.path.abspath(job.source), folder))


class Outcome(NamedTuple):
    """Outcome of the jobs of a command.

    Attributes:
        results: results of the files that were done.
        failures: the files that failed, with the keys "input" and "error".
        skipped: the files whose outputs exist, with the keys "input" and "output".
    """

    results: list[dict[str, Any]]
    failures: list[dict[str, Any]]
    skipped: list[dict[str, Any]]


def run_jobs(
    jobs: Sequence[Job],
    work: Work,
    verb: str,
    quiet: bool,
    *,
    show: Callable[[dict[str, Any]], None] = lambda result: None,
    processes: int = 1,
    workers: Workers | None = None,
    alone: Callable[[Job], bool] = lambda job: False,
) -> Outcome:
    """Do each job; a bad file does not stop the others.

    Args:
        jobs: the jobs.
        work: function that does one job; with more than one process it is sent to each of them.
        verb: label of the progress bar.
        quiet: whether to show no results and no progress.
        show: function that shows a result; called in the order of the jobs. Its "notes" are shown after it.
        processes: number of jobs done at once, each in a process.
        workers: threads that do jobs at once, if there is one process; None: none.
        alone: whether a job is done while no other is, where threads do them.

    Raises:
        OhmqError: a process was killed.
    """
    done = Outcome([], [], [])
    terminal = not quiet and sys.stderr.isatty()
    visible = len(jobs) > 1 and terminal
    processes = min(processes, len(jobs))
    if processes > 1:
        outcomes = _in_processes(jobs, work, processes)
    else:
        outcomes = map_in_order(partial(_attempt, work=work), jobs, workers, alone)
    with click.progressbar(length=len(jobs), label=verb, file=sys.stderr, hidden=not visible) as bar:
        with contextlib.closing(outcomes), phase_progress(terminal and len(jobs) == 1):
            for outcome in outcomes:
                if "error" in outcome:
                    done.failures.append(outcome)
                    click.echo(f"ohmq: {outcome['error']}", err=True)
                elif outcome.pop("skipped", False):
                    done.skipped.append(outcome)
                else:
                    done.results.append(outcome)
                    if not quiet:
                        show(outcome)
                        for note in outcome.get("notes", ()):
                            click.echo(f"  note: {note}", err=True)
                bar.update(1)
    return done


def _attempt(job: Job, work: Work) -> dict[str, Any]:
    """Do one job: its result, a failure, or the output that is there already."""
    try:
        if job.error:
            raise OhmqError(job.error)
        rival = _readable_rival(job)
        if job.short_target and not rival:
            job = job._replace(target=job.short_target)
        if job.skip_existing and job.target.is_file():
            return skipped(job, job.target)
        result = {"input": str(job.source), **work(job)}
        if rival:
            result["notes"] = [*result.get("notes", ()), f"named in full, as {rival} would be {job.short_target} too"]
        return result
    except BrokenPipeError:  # The reader of standard output has closed it: no fault of the file. click ends quietly.
        raise
    except (OhmqError, OSError) as error:
        message = str(error) if isinstance(error, OhmqError) else error.strerror or str(error)
        names_source = str(job.source) in message
        return {"input": str(job.source), "error": message if names_source else f"{job.source}: {message}"}


def skipped(job: Job, output: Path) -> dict[str, Any]:
    """Return the result of a job whose output exists.

    Args:
        job: the job.
        output: its output.
    """
    return {"input": str(job.source), "output": str(output), "skipped": True}


def _readable_rival(job: Job) -> Path | None:
    """Find the first rival of a job that can be read."""
    for rival in job.rivals:
        try:
            if job.probe:
                job.probe(rival)
        except OhmqError:
            continue
        return rival
    return None


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
