"""Read damaged files: every outcome but a result must be one of the errors that the reader documents.

    python tools/fuzz.py --count 1000000 --seed 1 --state fuzz-state

Readers: ``.ohm`` files (container, ``ohmq info``, decoder, truncated downloads, progressive decoder), their extras, metadata
of input images, model files and ONNX folders; see `tools/fuzzing`. Each case is made from the seed and its own number, and
belongs to one reader. Cases run in a second process with a limit on memory: a crash, a file that takes more than
`SLOW_S` seconds of processor time, and memory beyond the limit are findings, too. The state is kept in STATE/state.json and
findings in STATE/findings; the same command line goes on after an interruption, and ``--case N`` runs one case again.
"""

import argparse
import fcntl
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from fuzzing.reader import Files, Reader

from ohmq.utils.atomic_write import write_atomically

SLOW_S = 5.0
"""Processor time of a case, in seconds, above which it is a finding."""
STUCK_S = 120.0
"""Seconds without an answer after which a case counts as stuck."""
MEMORY_BYTES = 2**30
"""Memory that a case may take."""
REPORT_S = 2.0
"""Seconds between two reports of the second process, and between two saved states."""
MAX_FINDINGS = 200
"""Findings after which a run stops."""


class Outcome(NamedTuple):
    """Outcome of a case.

    Attributes:
        case: its number.
        reader: name of the reader.
        outcome: in words, or the name of the error.
        report: traceback of a forbidden outcome; else empty.
        files: of a forbidden outcome; else empty.
    """

    case: int
    reader: str
    outcome: str
    report: str
    files: Files


def make_readers(folder: Path) -> list[Reader]:
    """Return all readers.

    Args:
        folder: for the files that they read.
    """
    from fuzzing.container import Container, Decode, Info, Progressive, Truncated, seeds
    from fuzzing.extras import Extras, Images
    from fuzzing.models import ModelFiles, OnnxFolders

    files = seeds()
    return [
        Container(files),
        Info(files, folder),
        Decode(files),
        Truncated(files),
        Progressive(files),
        Extras(files),
        Images(folder),
        ModelFiles(files, folder),
        OnnxFolders(files, folder),
    ]


def run_case(readers: Sequence[Reader], seed: int, case: int) -> Outcome:
    """Make the files of a case and read them.

    Args:
        readers: all readers.
        seed: of the run.
        case: number of the case.
    """
    random = Random(f"{seed}:{case}")
    reader = random.choices(readers, [reader.share for reader in readers])[0]
    files = reader.make(random)
    start = time.process_time()
    try:
        outcome, report = reader.read(files), ""
    except reader.allowed as error:
        outcome, report = type(error).__name__, ""
    except Exception as error:
        outcome, report = f"WRONG: {type(error).__name__}", traceback.format_exc()
    seconds = time.process_time() - start
    if seconds > SLOW_S:
        outcome, report = "WRONG: slow", f"{seconds:.1f} s\n{report}"
    return Outcome(case, reader.name, outcome, report, files if report else {})


def run_cases(readers: Sequence[Reader], seed: int, cases: Collection[int]) -> Iterator[Outcome]:
    """Run cases in this process; arguments as `run_case`."""
    return (run_case(readers, seed, case) for case in cases)


class State:
    """State of a run, kept in a folder.

    Args:
        folder: the folder; a state that is there is read.
        seed: of the run; that of the state must be the same.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed, self.done, self.seconds = folder, seed, 0, 0.0
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.findings: list[dict[str, Any]] = []
        self.skipped: list[int] = []  # cases at or after `done` that ended the process
        path = folder / "state.json"
        if path.exists():
            values = json.loads(path.read_text())
            if values["seed"] != seed:
                raise SystemExit(f"{path} is of seed {values['seed']}; choose another --state")
            self.done, self.seconds, self.findings = values["done"], values["seconds"], values["findings"]
            self.skipped = values["skipped"]
            for reader, outcomes in values["outcomes"].items():
                self.outcomes.update({(reader, outcome): number for outcome, number in outcomes.items()})

    def save(self) -> None:
        """Write the state; it is complete or the old one."""
        outcomes: dict[str, dict[str, int]] = {}
        for (reader, outcome), number in sorted(self.outcomes.items()):
            outcomes.setdefault(reader, {})[outcome] = number
        values = {"seed": self.seed, "done": self.done, "seconds": round(self.seconds, 1), "skipped": self.skipped}
        values |= {"outcomes": outcomes, "findings": self.findings}
        write_atomically(self.folder / "state.json", json.dumps(values, indent=1).encode(), force=True)

    def add(self, outcomes: Sequence[Outcome], counts: Counter[tuple[str, str]], done: int) -> None:
        """Add the cases before ``done``.

        Args:
            outcomes: forbidden ones.
            counts: number of each (reader, outcome).
            done: cases that are done.
        """
        self.outcomes += counts
        self.done = done
        self.skipped = [case for case in self.skipped if case >= done]
        for outcome in outcomes:
            self.keep(outcome)

    def keep(self, outcome: Outcome) -> None:
        """Keep a finding and its files."""
        folder = self.folder / "findings" / f"{outcome.case:07d}"
        for name, data in outcome.files.items():
            write_atomically(folder / name.replace("/", "-"), data, force=True)
        write_atomically(folder / "report.txt", outcome.report.encode(), force=True)
        self.findings.append({"case": outcome.case, "reader": outcome.reader, "outcome": outcome.outcome})

    def table(self) -> str:
        """Return the counts and a sentence as text."""
        readers: Counter[str] = Counter()
        for (reader, _), number in self.outcomes.items():
            readers[reader] += number
        lines = [f"{reader:16} {outcome:28} {number:9,}" for (reader, outcome), number in sorted(self.outcomes.items())]
        lines += ["", *(f"{reader:16} {number:9,} files" for reader, number in sorted(readers.items()))]
        lines.append(
            f"{self.done:,} files, seed {self.seed}: {len(self.findings)} findings; {self.seconds:,.0f} s, "
            f"{self.done / max(self.seconds, 1e-9):,.0f} files a second"
        )
        return "\n".join(lines)


def limit_memory() -> None:
    """Limit the memory of this process to what it has and `MEMORY_BYTES` more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:
        limit = pages * resource.getpagesize() + MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def work(connection: Connection, current: Any, seed: int, cases: range, skipped: Collection[int]) -> None:
    """Run cases in the second process, and report to the first one.

    Args:
        connection: takes (forbidden outcomes, counts, cases that are done).
        current: shared number of the case that runs.
        seed: of the run.
        cases: the cases.
        skipped: cases that are left out.
    """
    import torch

    for number in (signal.SIGINT, signal.SIGTERM):  # the first process decides
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        connection.send(folder)
        readers = make_readers(Path(folder))
        for case in cases[:50]:  # what is loaded once does not count as memory of a case
            run_case(readers, seed, case) if case not in skipped else None
        limit_memory()
        found: list[Outcome] = []
        counts: Counter[tuple[str, str]] = Counter()
        reported = time.monotonic()
        for case in cases:
            current.value = case
            if case not in skipped:
                outcome = run_case(readers, seed, case)
                counts[outcome.reader, outcome.outcome] += 1
                if outcome.report:
                    found.append(outcome)
            if time.monotonic() - reported > REPORT_S or case == cases[-1]:
                connection.send((found, counts, case + 1))
                found, counts, reported = [], Counter(), time.monotonic()
    connection.close()


def supervise(state: State, count: int, show: Callable[[State, float], None]) -> None:
    """Run the cases that a state lacks in a second process; start it anew where it ends early.

    Args:
        state: of the run.
        count: cases of the whole run.
        show: called with the state and the files a second of this session.
    """
    context = multiprocessing.get_context("spawn")
    session, first = time.monotonic(), state.done
    before = state.seconds
    while state.done < count and len(state.findings) < MAX_FINDINGS:
        receiver, sender = context.Pipe(duplex=False)
        current = context.Value("q", -1)
        cases = range(state.done, count)
        process = context.Process(
            target=work, args=(sender, current, state.seed, cases, set(state.skipped)), daemon=True
        )
        process.start()
        sender.close()
        folder = ""
        try:
            last, since = -2, time.monotonic()
            while True:
                if receiver.poll(1.0):
                    try:
                        message = receiver.recv()
                    except EOFError:
                        break
                    if isinstance(message, str):
                        folder = message
                        continue
                    state.add(*message)
                    state.seconds = before + time.monotonic() - session
                    state.save()
                    show(state, (state.done - first) / (time.monotonic() - session))
                    if len(state.findings) >= MAX_FINDINGS:
                        break
                if current.value != last:
                    last, since = current.value, time.monotonic()
                elif time.monotonic() - since > STUCK_S and last >= 0:
                    process.kill()
                    break
            stopped = len(state.findings) >= MAX_FINDINGS
        finally:
            if process.is_alive():
                process.join(5)
                process.kill()
            process.join()
            shutil.rmtree(folder, ignore_errors=True) if folder else None
        if state.done < count and not stopped:
            if current.value < 0:
                raise SystemExit(f"the readers do not start (exit code {process.exitcode})")
            _keep_crash(state, current.value, process.exitcode)


def _keep_crash(state: State, case: int, code: int | None) -> None:
    """Keep a case that ended the second process as a finding, and leave it out from now on."""
    outcome = f"WRONG: ended the process ({code})"
    state.keep(Outcome(case, "?", outcome, f"{outcome}; run it again: --case {case}", {}))
    state.outcomes["?", outcome] += 1
    state.skipped.append(case)
    state.save()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code is 1 if there is a finding, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000, help="files of the whole run (default: 10,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers (default: 0)")
    parser.add_argument(
        "--state", type=Path, default=Path("fuzz-state"), help="folder of the state (default: fuzz-state)"
    )
    parser.add_argument("--case", type=int, help="run this case alone, in this process")
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if options.case is not None:
        with tempfile.TemporaryDirectory() as folder:
            outcome = run_case(make_readers(Path(folder)), options.seed, options.case)
        print(f"case {outcome.case}, {outcome.reader}: {outcome.outcome}\n{outcome.report}")
        return 1 if outcome.report else 0
    options.state.mkdir(parents=True, exist_ok=True)
    lock = (options.state / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        parser.error(f"another process uses {options.state}; choose another --state")
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell starts background processes with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    state = State(options.state, options.seed)
    shown = time.monotonic()

    def show(state: State, rate: float) -> None:
        nonlocal shown
        if time.monotonic() - shown > 30 or sys.stderr.isatty():
            shown = time.monotonic()
            left = (options.count - state.done) / max(rate, 1e-9) / 60
            print(
                f"{state.done:,} of {options.count:,}, {rate:,.0f} files a second, {left:.0f} min left, "
                f"{len(state.findings)} findings",
                file=sys.stderr,
                flush=True,
            )

    try:
        supervise(state, options.count, show)
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on after file {state.done:,}", file=sys.stderr)
        return 130
    print(state.table())
    for finding in state.findings[:20]:
        path = options.state / "findings" / f"{finding['case']:07d}"
        print(f"\n{path}: {finding['reader']}\n{(path / 'report.txt').read_text()}")
    return 1 if state.findings else 0


if __name__ == "__main__":
    sys.exit(main())
