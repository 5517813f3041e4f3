"""Bulk jobs with real processes: kills, signals, limits, an S3 server, the command line."""

import contextlib
import io
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.bulk import (
    MODEL,
    InlineEngine,
    assert_equal_targets,
    delete_killed_writes,
    digit,
    digits_folder,
    manifest,
    outputs,
)
from support.s3_server import S3Server, make_bucket, s3_environment

from ohmq.bulk.driver import run
from ohmq.bulk.job import BulkJob
from ohmq.bulk.local_engine import LocalEngine
from ohmq.bulk.tasks import ShardOutcome, ShardTask
from ohmq.bulk.verify import verify
from ohmq.cli import main
from ohmq.loading import named_codec
from ohmq.storage.open_store import open_store

SOURCE = str(Path(__file__).parents[2] / "src")


def start(arguments: list[str]) -> "subprocess.Popen[str]":
    path = os.pathsep.join([SOURCE, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-m", "ohmq", "bulk", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )


def bulk(*arguments: str, code: int = 0) -> str:
    process = start(list(arguments))
    output, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    return output + errors


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_for(condition: Any, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("it did not happen")


@pytest.fixture(scope="module")
def coded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 300 .ohm files in 4 layers, for jobs that need no model."""
    folder = tmp_path_factory.mktemp("coded")
    codec = named_codec(MODEL)
    files = [codec.compress(Image.open(io.BytesIO(digit(seed))), layers="all") for seed in range(5)]
    for number in range(300):
        (folder / f"{number:04d}.ohm").write_bytes(files[number % 5])
    return folder


def truncate_job(source: Path, target: Path) -> BulkJob:
    return BulkJob(
        operation="truncate", sources=(str(source),), target=str(target), cut={"num_layers": 1}, images_per_shard=5
    )


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_kills_of_workers_and_driver_change_nothing(coded: Path, tmp_path: Path) -> None:
    run(truncate_job(coded, tmp_path / "whole"), start_engine=InlineEngine)
    command = ["truncate", str(coded), str(tmp_path / "out"), "--layers", "1", "--images-per-shard", "5", "-j", "2"]
    command += ["--max-attempts", "20", "--quiet"]
    markers, rng, kills = tmp_path / "out/_ohmq/markers", random.Random(4), 0
    process = start(command)

    def done() -> int:
        return len(list(markers.glob("*.json"))) if markers.is_dir() else 0

    wait_for(lambda: done() > 0)
    for goal in (5, 10, 15):
        wait_for(lambda goal=goal: done() >= goal)
        if victims := children(process.pid):
            os.kill(rng.choice(victims), signal.SIGKILL)
            kills += 1
    workers = children(process.pid)
    process.kill()
    process.communicate()
    assert workers and kills >= 2 and done() < 60
    wait_for(lambda: not any(map(alive, workers)), 20)
    bulk(*command)
    delete_killed_writes(tmp_path / "out", kills + 1 + len(workers))
    assert_equal_targets(tmp_path / "out", tmp_path / "whole")


def test_stopped_job_goes_on(coded: Path, tmp_path: Path) -> None:
    run(truncate_job(coded, tmp_path / "whole"), start_engine=InlineEngine)
    command = ["truncate", str(coded), str(tmp_path / "out"), "--layers", "1", "--images-per-shard", "5", "-j", "1"]
    process = start(command)
    wait_for(lambda: (tmp_path / "out/_ohmq/markers/000001.json").exists())
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "shards left" in output and errors == "stopped; the same command goes on from here\n"
    assert not (tmp_path / "out/_ohmq/lock.json").exists()
    summary = json.loads(bulk(*command, "--json"))
    assert summary["shards_run"] < 60 and summary["shards_done"] == 60 and summary["images"] == 300
    assert_equal_targets(tmp_path / "out", tmp_path / "whole")


def test_processes_write_the_bytes_of_one_process(tmp_path: Path) -> None:
    folder = digits_folder(tmp_path / "in", 12)
    (folder / "bad.png").write_bytes(b"")
    job = BulkJob(
        operation="compress", sources=(str(folder),), target=str(tmp_path / "one"), model=MODEL, images_per_shard=4
    )
    run(job, start_engine=InlineEngine)
    text = bulk(
        "compress", str(folder), str(tmp_path / "two"), "-m", MODEL, "--images-per-shard", "4", "-j", "2", code=1
    )
    assert text.startswith("12 of 13 images done, ") and "; 1 failed" in text
    assert_equal_targets(tmp_path / "one", tmp_path / "two")
    assert {row.worker for row in manifest(tmp_path / "two")}.isdisjoint(
        {row.worker for row in manifest(tmp_path / "one")}
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on file sizes")
def test_full_disk_is_one_line_and_the_same_command_goes_on(coded: Path, tmp_path: Path) -> None:
    arguments = ["truncate", str(coded), str(tmp_path / "out"), "--layers", "1", "-j", "1", "--quiet"]
    command = shlex.join([sys.executable, "-m", "ohmq", "bulk", *arguments])
    environment = {**os.environ, "PYTHONPATH": SOURCE, "OMP_NUM_THREADS": "1"}
    limited = subprocess.run(
        ["bash", "-c", f"ulimit -f 100; {command}"], env=environment, capture_output=True, text=True, check=False
    )
    assert limited.returncode == 1
    (line,) = limited.stderr.splitlines()
    assert "shard-000000.tar cannot be written: File too large; make room" in line
    assert outputs(tmp_path / "out") == {}
    assert bulk(*arguments).startswith("300 of 300 images done")


# -- the local engine --


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module that worker processes can import, with a function that does tasks (here: pairs of number and action)."""
    (tmp_path / "bulk_work.py").write_text(
        "import os, time\n"
        "from ohmq.bulk.tasks import ShardOutcome\n"
        "class Task:\n"
        "    def __init__(self, shard, action): self.shard, self.action = shard, action\n"
        "def work(task):\n"
        "    if task.action == 'sleep': time.sleep(600)\n"
        "    if task.action == 'die': os._exit(3)\n"
        "    if task.action == 'print': print('noise')\n"
        "    return ShardOutcome(task.shard, 'done', worker=str(os.getpid()))\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(tmp_path)
    import bulk_work  # type: ignore[import-not-found]

    yield bulk_work
    sys.modules.pop("bulk_work")


def gather(engine: LocalEngine, count: int) -> list[ShardOutcome]:
    found: list[ShardOutcome] = []
    end = time.monotonic() + 60
    while len(found) < count and time.monotonic() < end:
        found += engine.wait(1.0)
    return found


def test_local_engine_replaces_the_dead_and_the_old(work: Any) -> None:
    engine = LocalEngine(workers=2, work=work.work, shards_per_process=2)
    with contextlib.closing(engine):
        for shard, action in enumerate(["print", "die", "sleep", "", "", ""]):
            engine.submit(work.Task(shard, action))
        assert len(engine.pids()) == 2
        first = gather(engine, 5)
        assert {outcome.shard: outcome.kind for outcome in first} == {
            0: "done",
            1: "died",
            3: "done",
            4: "done",
            5: "done",
        }
        assert next(outcome.error for outcome in first if outcome.kind == "died") == "the worker ended (exit code 3)"
        workers = [outcome.worker for outcome in first if outcome.kind == "done"]
        assert len(workers) == 4 and max(map(workers.count, workers)) <= 2
        assert list(engine.running()) == [2]
        pids = engine.pids()
    assert not any(map(alive, pids))


def test_local_engine_gives_up_when_workers_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with contextlib.closing(LocalEngine(workers=1)) as engine:
        engine.submit(ShardTask(None, None, (), "", None, ""))  # type: ignore[arg-type]
        monkeypatch.setattr(ShardTask, "shard", 0)
        (outcome,) = gather(engine, 1)
    assert outcome.kind == "fatal" and outcome.error == "workers end at their start: the worker ended (exit code 1)"


def test_image_that_takes_too_long_is_a_row(coded: Path, tmp_path: Path) -> None:
    """The worker is ended, and the other images of the shard are done."""
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / f"in/{number}.ohm").write_bytes((coded / "0000.ohm").read_bytes())
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import time\n"
        "import ohmq.bulk.operations as operations\n"
        "real = operations.Truncate.__call__\n"
        "def slow(self, name, data):\n"
        "    if name == '1.ohm': time.sleep(600)\n"
        "    return real(self, name, data)\n"
        "operations.Truncate.__call__ = slow\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(site), SOURCE]))
        text = bulk(
            "truncate",
            str(tmp_path / "in"),
            str(tmp_path / "out"),
            "--layers",
            "1",
            "-j",
            "1",
            "--image-timeout",
            "1",
            code=1,
        )
    assert text.startswith("2 of 3 images done")
    assert [row.error for row in manifest(tmp_path / "out")] == [None, "took longer than the limit of 1 s", None]
    assert list((tmp_path / "out/_ohmq/crumbs").iterdir()) == []


# -- object storage --


def test_job_on_an_object_store(moto: S3Server, tmp_path: Path) -> None:
    url = make_bucket(moto, "bulk-commands")
    folder = digits_folder(tmp_path / "in", 5)
    with s3_environment(moto):
        lake = open_store(f"{url}/raw")
        for path in sorted(folder.iterdir()):
            lake.write(path.name, path.read_bytes())
        job = BulkJob(
            operation="compress",
            sources=(f"{url}/raw/",),
            target=f"{url}/ohm/data-{{}}.tar",
            model=MODEL,
            images_per_shard=3,
        )
        assert run(job, start_engine=InlineEngine).images == 5
        assert [info.path for info in open_store(f"{url}/ohm").list("data-")] == ["data-000000.tar", "data-000001.tar"]
        report = verify(f"{url}/ohm/", against_sources=True)
        assert (report.faults, report.decoded, report.sources) == ([], 5, 5)
        lake.delete("0003.png")
        (fault,) = verify(f"{url}/ohm/", against_sources=True).faults
        assert "0003.png does not exist" in fault.message


# -- the command line --


def command_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    with pytest.raises(SystemExit) as stop:
        main(["bulk", *arguments])
    captured = capsys.readouterr()
    assert isinstance(stop.value.code, int)
    return stop.value.code, (captured.out + captured.err).splitlines()


def test_wrong_places_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = digits_folder(tmp_path / "in", 1)
    for arguments, line in (
        (["compress", str(tmp_path / "none"), str(tmp_path / "out"), "-m", MODEL], "no such file or folder"),
        (["compress", str(folder), str(folder), "-m", MODEL], "target"),
        (["verify", str(folder)], "holds no bulk job"),
        (["retry", str(folder)], "holds no bulk job"),
        (["compress", str(folder), str(tmp_path / "out"), "-m", "no-such-model"], "no-such-model"),
        (["truncate", str(folder), "memory://out", "--layers", "1"], "memory://"),
    ):
        code, lines = command_line(capsys, *arguments)
        assert code == 1 and len(lines) == 1 and line in lines[0], lines
    for arguments, line in (
        (["compress", str(folder)], "give at least one source"),
        (["truncate", str(folder), "out"], "give exactly one of"),
        (["verify", str(folder), "--sample", "x"], "neither a percentage"),
        (["compress", str(folder), "out", "-q", "5", "--bpp", "1"], "give at most one of"),
        (["decompress", str(folder), "out", "--format", "gif"], "cannot write 'gif'"),
    ):
        code, lines = command_line(capsys, *arguments)
        assert code == 2 and line in lines[-1], lines


def test_command_lines_of_the_documentation_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The options of each kind of user reach the job."""
    jobs: list[BulkJob] = []
    monkeypatch.setattr("ohmq.cli.bulk._run", lambda job, as_json, quiet: jobs.append(job) or 0)
    for line in (
        "compress /photos /archive --update --keep-metadata -j 8",
        "compress s3://lake/raw/ s3://lake/ohm/data-{}.tar --bpp 0.3 --engine ray --address auto",
        "compress hf://datasets/me/birds birds-ohm --image-column image --psnr 38",
        "truncate s3://lake/ohm/ s3://lake/preview/ --max-bytes 4000",
        "transcode a b c -m mnist-ohm --decode-model mnist-int --stall-timeout 2 --image-timeout 5 --layers all",
    ):
        with pytest.raises(SystemExit):
            main(["bulk", *line.split()])
    nightly, lake, hub, preview, transcode = jobs
    assert nightly.update and nightly.options.keep_metadata and nightly.workers == 8
    assert (lake.engine, lake.address, lake.options.bpp, lake.target_root) == ("ray", "auto", 0.3, "s3://lake/ohm")
    assert (hub.image_column, hub.options.psnr, hub.sources) == ("image", 38, ("hf://datasets/me/birds",))
    assert (preview.operation, preview.cut) == ("truncate", {"max_bytes": 4000})
    assert (transcode.sources, transcode.model, transcode.decode_model) == (("a", "b"), "mnist-ohm", "mnist-int")
    assert (transcode.stall_timeout_s, transcode.image_timeout_s, transcode.options.layers) == (120, 5, "all")
