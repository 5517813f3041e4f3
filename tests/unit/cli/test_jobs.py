"""Jobs of a command: where outputs go, which kernels are used, and failures that do not stop the others."""

from pathlib import Path
from typing import Any

import pytest

from ohmq.cli.jobs import FEW_FILES, Job, compiled_for, find_files, place_outputs, run_jobs
from ohmq.errors import ConfigError, OhmqError


def job(path: str, *, in_folder: bool = False) -> Job:
    return Job(Path("in", path), Path(path), in_folder)


def targets(jobs: list[Job]) -> list[str]:
    return [str(placed.target) for placed in jobs]


def test_outputs_of_a_single_file(tmp_path: Path) -> None:
    single = [job("a.png")]
    assert targets(place_outputs(single, None, ".ohm")) == ["in/a.ohm"]
    assert targets(place_outputs(single, Path("b.ohm"), ".ohm")) == ["b.ohm"]
    assert targets(place_outputs(single, Path("folder"), ".ohm")) == ["folder/a.ohm"]
    assert targets(place_outputs(single, tmp_path, ".ohm")) == [str(tmp_path / "a.ohm")]
    assert targets(place_outputs([job("a.ohm")], Path("b.jpg"), ".png")) == ["b.jpg"]
    with pytest.raises(ConfigError, match=r"b\.png does not end in \.ohm"):
        place_outputs(single, Path("b.png"), ".ohm")


def test_outputs_of_folders_and_of_several_files(tmp_path: Path) -> None:
    from_folder = [job("deep/a.png", in_folder=True)]
    assert targets(place_outputs(from_folder, Path("out.v2"), ".ohm")) == ["out.v2/deep/a.ohm"]
    several = [job("a.png"), job("b.png")]
    assert targets(place_outputs(several, Path("out"), ".ohm")) == ["out/a.ohm", "out/b.ohm"]
    (tmp_path / "file").touch()
    for jobs in (from_folder, several):
        with pytest.raises(ConfigError, match="is a file; a folder is needed"):
            place_outputs(jobs, tmp_path / "file", ".ohm")


def test_two_inputs_with_one_output() -> None:
    first, second = place_outputs([job("a.jpg"), job("a.png")], Path("out"), ".ohm")
    assert (first.rival, second.rival) == (None, Path("in/a.jpg"))
    results, failures = run_jobs([first, second], lambda job: {"target": job.target}, "", quiet=True)
    assert results == [{"input": "in/a.jpg", "target": Path("out/a.ohm")}]
    assert failures == [
        {"input": "in/a.png", "error": "in/a.png: its output out/a.ohm is that of in/a.jpg too; rename one of them"}
    ]


@pytest.mark.parametrize("processes", [1, 3])
def test_numba_is_left_out_for_few_files(processes: int) -> None:
    few = [job("a.png")] * (FEW_FILES * processes)
    many = [*few, job("a.png")]
    assert [compiled_for(None, jobs, processes) for jobs in (few, many)] == [False, None]
    assert [compiled_for(option, few, processes) for option in (True, False)] == [True, False]


def test_a_failure_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    def work(job: Job) -> dict[str, Any]:
        if job.source.name == "b":
            raise OhmqError("in/b is broken")
        if job.source.name == "c":
            raise FileNotFoundError(2, "No such file or directory", "in/c")
        return {"name": job.source.name}

    shown: list[str] = []
    results, failures = run_jobs(
        [job(name) for name in "abcd"], work, "", quiet=False, show=lambda result: shown.append(result["name"])
    )
    assert [result["input"] for result in results] == ["in/a", "in/d"]
    assert shown == ["a", "d"]
    assert [failure["error"] for failure in failures] == ["in/b is broken", "in/c: No such file or directory"]
    assert capsys.readouterr().err == "ohmq: in/b is broken\nohmq: in/c: No such file or directory\n"


def test_a_missing_file_becomes_a_job(tmp_path: Path) -> None:
    assert find_files([str(tmp_path / "missing.ohm")], (".ohm",)) == [
        Job(tmp_path / "missing.ohm", Path("missing.ohm"))
    ]
    with pytest.raises(ConfigError, match=r"no files found in .* \(looked for \.ohm\)"):
        find_files([str(tmp_path)], (".ohm",))
