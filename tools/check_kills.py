"""Kill commands at random moments: no output is a part, and the same command run again gives what an undisturbed one gives.

    python tools/check_kills.py --count 200 --seed 1 --state kills-state

Each of compress (with one and with two jobs), decompress, export (model files, every tenth an ONNX folder) and train is started
and killed with its processes (kill -9) after a random part of the time that an undisturbed one takes, until COUNT kills of it
came before its end. Files under final names must be whole; others are hidden. Then the command is run again: compress,
decompress and export with --force, train with --resume. Outputs must have the bytes, and trained models the weights, of the
undisturbed command. Commands are forked from a process that has imported torch, every nineteenth is a process of its own.

How long an undisturbed command takes is measured at the start, before every tenth kill, and by each command that ends before its
kill: that one is counted apart, as too late. The state is kept in STATE/state.json; the same command line goes on after an
interruption, also with a larger COUNT. The exit code is 1 if anything was wrong.
"""

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import load_file

import ohmq.loading
from ohmq.cli import main as ohmq_main
from ohmq.utils.atomic_write import write_atomically

ROOT = Path(__file__).parents[1]
OWN_PROCESS_EVERY = 19
"""Odd, and no divisor of `ONNX_EVERY`, so that all kinds of a command have their turn."""
ONNX_EVERY = 10
MEASURE_EVERY = 10
PRELOADED = ("cli.compress", "cli.decompress", "cli.export", "cli.train", "model_files.export_onnx", "training.run")
"""Modules imported before commands are forked. Not at the top: each process of ``--jobs`` imports this file."""
TIMEOUT_S = 600
"""Seconds that a command may take."""


class Wrong(Exception):
    """A kill that left what it must not, or a command that failed afterwards."""


def run(arguments: Sequence[str], log: Path, kill_after: float | None = None, own: bool = False) -> tuple[int, float]:
    """Run a command, and kill it and its processes after a time.

    Args:
        arguments: of ``ohmq``.
        log: file for its output.
        kill_after: seconds; None: never.
        own: start a process of its own; else fork this one.

    Returns:
        Exit code, -9 after a kill, and the seconds it took.
    """
    start = time.monotonic()
    with log.open("wb") as output:
        if own:
            command = [sys.executable, "-m", "ohmq", *arguments]
            files = [(os.POSIX_SPAWN_DUP2, output.fileno(), stream) for stream in (1, 2)]
            pid = os.posix_spawn(sys.executable, command, os.environ, file_actions=files, setsid=True)
        else:
            pid = os.fork()
            if pid == 0:
                _be_command(arguments, output.fileno())
    end = start + (TIMEOUT_S if kill_after is None else kill_after)
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found or time.monotonic() >= end:
            break
        time.sleep(0.002)
    seconds = time.monotonic() - start
    if not found:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:  # forked a moment ago, and not a group yet
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if kill_after is None:
            raise Wrong(f"{' '.join(arguments)}: no end after {TIMEOUT_S} s")
    try:  # workers of a command that has ended
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return os.waitstatus_to_exitcode(status), seconds


def _be_command(arguments: Sequence[str], output: int) -> None:
    """Become the command; does not return."""
    code: Any = 70
    try:
        os.setsid()
        os.dup2(output, 1)
        os.dup2(output, 2)
        ohmq_main(list(arguments))
        code = 0
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


class Kind:
    """A command that is killed: what it reads, writes and must leave.

    Args:
        name: of the kind.
        folder: of all kinds; inputs and the undisturbed outputs are kept there.
        command: arguments, given the output.
        again: what to add for the second run.
        output: name of the output, a file or a folder.
    """

    def __init__(
        self, name: str, folder: Path, command: Callable[[Path], list[str]], again: str, output: str = "out"
    ) -> None:
        self.name, self.folder, self.command, self.again, self.output = name, folder, command, again, output
        self.seconds: dict[bool, float] = {}
        self.cases_to_measure = {False: 0, True: 0}

    @property
    def reference(self) -> Path:
        """Folder of the undisturbed output."""
        return self.folder / f"reference-{self.name}"

    def prepare(self) -> None:
        """Run the command undisturbed once, for its output."""
        shutil.rmtree(self.reference, ignore_errors=True)
        self.reference.mkdir()
        log = self.folder / f"reference-{self.name}.log"
        if run(self.command(self.reference / self.output), log, own=True)[0]:
            raise SystemExit(f"{self.name} fails undisturbed:\n{log.read_text()}")

    def measure(self, work: Path, own: bool) -> None:
        """Run the command undisturbed in an empty folder: keep the seconds it takes, and check its output."""
        log = work / "log"
        code, self.seconds[own] = run(self.command(work / self.output), log, own=own)
        if code:
            raise Wrong(f"exit code {code} undisturbed:\n{log.read_text()}")
        self.cases_to_measure[own] = MEASURE_EVERY
        self.check(work, whole=True)

    def case(self, work: Path, random: Random, own: bool) -> tuple[float | None, int]:
        """Kill the command once, and run it again.

        Args:
            work: an empty folder.
            random: for the moment of the kill.
            own: start a process of its own; else fork this one. Its time must have been measured.

        Returns:
            The moment as a part of the command's time, None if the command ended before; and the number of hidden files left.
        """
        part = random.random()
        self.cases_to_measure[own] -= 1
        log = work / "log"
        code, seconds = run(self.command(work / self.output), log, part * self.seconds[own], own)
        if code == 0:
            self.seconds[own] = seconds
            self.check(work, whole=True)
            return None, 0
        if code != -signal.SIGKILL:
            raise Wrong(f"exit code {code} before the kill:\n{log.read_text()}")
        hidden = self.check(work, whole=False)
        code, _ = run([*self.command(work / self.output), self.again], log, own=own)
        if code:
            raise Wrong(f"exit code {code} after the kill:\n{log.read_text()}")
        self.check(work, whole=True)
        return part, hidden

    def check(self, work: Path, whole: bool) -> int:
        """Check the files under final names; ``whole``: there must be all. Returns the number of hidden files."""
        expected = _files(self.reference)
        found = _files(work)
        hidden = [name for name in found if Path(name).name.startswith(".ohmq-")]
        final = {name for name in found if name not in hidden and name != "log"}
        if strange := final - set(expected):
            raise Wrong(f"unexpected files {sorted(strange)}")
        for name in final:
            if not self.same(found[name], expected[name]):
                raise Wrong(f"{name} is not what an undisturbed command writes")
        if whole and (missing := set(expected) - final):
            raise Wrong(f"missing files {sorted(missing)}")
        return len(hidden)

    def same(self, path: Path, expected: Path) -> bool:
        """Say whether a file is the right one."""
        return path.read_bytes() == expected.read_bytes()


class ModelFile(Kind):
    """Model files: the provenance records the command line, which differs; all tensors and ids must be the same."""

    def same(self, path: Path, expected: Path) -> bool:
        """Compare the tensors and the id."""
        if path.suffix != ".safetensors" or "onnx" in self.name:
            return super().same(path, expected)
        one, other = load_file(path), load_file(expected)
        equal = one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)
        return equal and ohmq.load(path).model_id == ohmq.load(expected).model_id


class Training(Kind):
    """Trainings: checkpoints load at any time, and the last one has the weights of an undisturbed run."""

    def check(self, work: Path, whole: bool) -> int:
        """Load the checkpoints; ``whole``: compare the last one."""
        found = _files(work)
        for name, path in found.items():
            if path.suffix == ".ckpt":
                contents = torch.load(path, weights_only=True)
                if whole and path.name == "last.ckpt":
                    expected = torch.load(self.reference / self.output / "last.ckpt", weights_only=True)
                    state, right = contents["state_dict"], expected["state_dict"]
                    if contents["global_step"] != expected["global_step"]:
                        raise Wrong(f"{name} has {contents['global_step']} steps, not {expected['global_step']}")
                    if not all(torch.equal(state[key], right[key]) for key in right):
                        raise Wrong(f"{name} has other weights than an undisturbed run")
        if whole and f"{self.output}/last.ckpt" not in found:
            raise Wrong("no last.ckpt")
        return sum(Path(name).name.startswith(".ohmq-") for name in found)


def _files(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}


def make_kinds(folder: Path) -> dict[str, list[Kind]]:
    """Make the inputs; return the kinds in groups that are counted together.

    Args:
        folder: for inputs and undisturbed outputs.
    """
    photos, data = folder / "photos", folder / "data"
    photos.mkdir(parents=True, exist_ok=True)
    data.mkdir(exist_ok=True)
    for number, path in enumerate(sorted((ROOT / "examples" / "photos").glob("*.png"))[:3]):
        for part in range(2):
            with Image.open(path) as image:
                image.convert("RGB").crop((80 * part, 40, 80 * part + 64, 88)).save(photos / f"{number}-{part}.png")
    rng = np.random.default_rng(3)
    for name, count in (("train-images-idx3-ubyte", 300), ("t10k-images-idx3-ubyte", 40)):
        pixels = rng.integers(0, 256, (count, 28, 28)) * (rng.random((count, 28, 28)) < 0.2)
        header = np.array([2051, count, 28, 28], ">u4").tobytes()
        (data / name).write_bytes(header + pixels.astype(np.uint8).tobytes())

    def train(out: Path) -> list[str]:
        line = "--quantizer ohm --channels-max 4 --num-symbols 8 --prior static --initialisation published --epochs 3"
        line += " --batch-size 32 --num-train-samples 96 --num-val-samples 20 --cpu --seed 1"
        return ["train", *line.split(), "--data", str(data), "-o", str(out)]

    def compress(jobs: int) -> Callable[[Path], list[str]]:
        line = ["compress", str(photos), "--model", "photo", "--effort", "0", "--jobs", str(jobs), "--layers", "3"]
        return lambda out: [*line, "-o", str(out)]

    trained = Training("train", folder, train, "--resume", "run")
    trained.prepare()
    checkpoint = str(trained.reference / trained.output / "last.ckpt")
    one = Kind("compress", folder, compress(1), "--force")
    one.prepare()
    coded = str(one.reference / one.output)
    groups = {
        "compress": [one, Kind("compress-jobs", folder, compress(2), "--force")],
        "decompress": [
            Kind("decompress", folder, lambda out: ["decompress", coded, "--model", "photo", "-o", str(out)], "--force")
        ],
        "export": [
            ModelFile(
                "export", folder, lambda out: ["export", checkpoint, "-o", str(out)], "--force", "model.safetensors"
            ),
            ModelFile("export-onnx", folder, lambda out: ["export", checkpoint, "--onnx", str(out)], "--force"),
        ],
        "train": [trained],
    }
    for kind in (kind for kinds in groups.values() for kind in kinds if kind not in (trained, one)):
        kind.prepare()
    return groups


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="kills before the end, of each command (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (default: 0)")
    parser.add_argument("--state", type=Path, default=Path("kills-state"), help="folder (default: kills-state)")
    parser.add_argument("--only", nargs="*", help="commands: compress, decompress, export, train")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in PRELOADED:
        importlib.import_module(f"ohmq.{name}")
    folder = options.state.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "state.json"
    state: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"seed": options.seed, "commands": {}}
    if state["seed"] != options.seed:
        parser.error(f"{path} is of seed {state['seed']}; choose another --state")
    if any(record.keys() != new_record().keys() for record in state["commands"].values()):
        parser.error(f"{path} was written by an earlier version of this tool; choose another --state")
    groups = {name: kinds for name, kinds in make_kinds(folder).items() if not options.only or name in options.only}
    records = {name: state["commands"].setdefault(name, new_record()) for name in groups}
    # In turns, so that a run that is interrupted has some of each.
    while unfinished := [name for name, record in records.items() if checked(record) < options.count]:
        for name in unfinished:
            if report := run_case(name, groups[name], records[name], folder, options.seed):
                print(report, flush=True)
            write_atomically(path, json.dumps(state, indent=1).encode(), force=True)
        if checked(records[unfinished[0]]) % 10 == 0:
            print(_summary(state), file=sys.stderr, flush=True)
    print(_summary(state))
    return int(any(record["wrong"] for record in state["commands"].values()))


def new_record() -> dict[str, Any]:
    """Return what is counted of a command. ``moments``: kills in each tenth of the command's time."""
    return {"cases": 0, "kills": 0, "too_late": 0, "moments": [0] * 10, "left_hidden_files": 0, "wrong": []}


def checked(record: dict[str, Any]) -> int:
    """Return the number of cases that need not be run again: kills before the end, and whatever was wrong."""
    return int(record["kills"]) + len(record["wrong"])


def run_case(name: str, kinds: Sequence[Kind], record: dict[str, Any], folder: Path, seed: int) -> str:
    """Kill a command once, after measuring it if it is time to, and count what happened.

    Args:
        name: of the command.
        kinds: of the command, taken in turns.
        record: of `new_record`, changed in place.
        folder: of the state; what was wrong is kept there.
        seed: of the random moments.

    Returns:
        What was wrong, a line or more; else empty.
    """
    number, case = checked(record), record["cases"]
    own = number % OWN_PROCESS_EVERY == OWN_PROCESS_EVERY - 1
    kind = kinds[int(number % ONNX_EVERY == ONNX_EVERY - 1) if name == "export" else number % len(kinds)]
    record["cases"] += 1
    work = folder / "work"
    try:
        if kind.cases_to_measure[own] == 0:
            kind.measure(_emptied(work), own)
        part, hidden = kind.case(_emptied(work), Random(f"{seed}:{name}:{case}"), own)
    except Wrong as error:
        record["wrong"].append({"case": case, "error": str(error)})
        shutil.copytree(work, folder / f"wrong-{name}-{case}", dirs_exist_ok=True)
        return f"{name} {case}: {error}"
    record["left_hidden_files"] += hidden
    if part is None:
        record["too_late"] += 1
    else:
        record["kills"] += 1
        record["moments"][int(10 * part)] += 1
    return ""


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _summary(state: dict[str, Any]) -> str:
    return "; ".join(
        f"{name}: {record['kills']} kills, {record['too_late']} more too late, {len(record['wrong'])} wrong, "
        f"{record['left_hidden_files']} hidden files left"
        for name, record in state["commands"].items()
    )


if __name__ == "__main__":
    sys.exit(main())
