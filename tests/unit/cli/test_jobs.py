"""Jobs of a command: where outputs go, which kernels are used, and failures that do not stop the others."""

import itertools
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ohmq.cli.jobs import FEW_FILES, Job, compiled_for, find_files, place_outputs, run_jobs
from ohmq.errors import ConfigError, OhmqError
from ohmq.utils.streams import STDOUT


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


def test_a_slash_says_folder(tmp_path: Path) -> None:
    single = [job("a.png")]
    assert targets(place_outputs(single, "out.v1/", ".ohm")) == ["out.v1/a.ohm"]
    assert targets(place_outputs(single, "-/", ".ohm")) == ["-/a.ohm"]
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file; a folder is needed"):
        place_outputs(single, f"{tmp_path}/file/", ".ohm")


def place(names: Sequence[str], output: str | None = "out", extension: str = ".ohm", **options: Any) -> list[str]:
    jobs = [Job(Path(name), Path(name).relative_to(Path(name).parts[0]), in_folder=True) for name in names]
    return targets(place_outputs(jobs, output, extension, **options))


def test_inputs_of_one_stem_keep_their_extensions() -> None:
    assert place(["d/a.jpg", "d/a.png", "d/b.png"]) == ["out/a.jpg.ohm", "out/a.png.ohm", "out/b.ohm"]
    assert place(["d/a.jpg", "d/a.png"], None) == ["d/a.jpg.ohm", "d/a.png.ohm"]
    assert place(["d/a.jpg", "d/b.png"], keep_extension=True) == ["out/a.jpg.ohm", "out/b.png.ohm"]


def test_inputs_of_one_name_keep_their_folders() -> None:
    assert place(["s1/c.png", "s2/c.png", "s2/d.png"]) == ["out/s1/c.ohm", "out/s2/c.ohm", "out/d.ohm"]
    assert place(["/x/a/in/c.png", "/x/b/in/c.png"]) != place(["/x/a/in/c.png", "/x/a/in/d.png"])
    assert place(["s1/c.png", "s1/c.jpg", "s2/c.png"]) == ["out/s1/c.png.ohm", "out/s1/c.jpg.ohm", "out/s2/c.png.ohm"]
    assert place(["s1/c.png", "s2/c.png"], None) == ["s1/c.ohm", "s2/c.ohm"]


def test_names_do_not_depend_on_the_order() -> None:
    names = ["s1/c.png", "s2/d/c.jpg", "s2/c.png", "s1/c.jpg", "s1/e.png", "s2/d/c.png"]
    expected = dict(zip(names, place(names), strict=True))
    assert len(set(expected.values())) == len(names)
    for order in itertools.permutations(names):
        assert dict(zip(order, place(order), strict=True)) == expected


def test_decoded_images_get_their_names_back() -> None:
    assert place(["d/a.jpg.ohm", "d/a.png.ohm"], extension=".png") == ["out/a.jpg.png", "out/a.png"]
    assert place(["d/a.PNG.ohm"], extension=".png") == ["out/a.PNG"]
    assert place(["d/a.ohm", "d/a.png.ohm"], extension=".png") == ["out/a.ohm.png", "out/a.png.ohm.png"]


def test_an_output_that_is_named_like_another_is_refused() -> None:
    jobs = place_outputs([job("a.jpg"), job("a.png"), job("a.png.bmp")], "out", ".ohm")
    done = run_jobs(jobs, lambda job: {"target": str(job.target)}, "", quiet=True)
    assert [result["target"] for result in done.results] == ["out/a.jpg.ohm", "out/a.png.ohm"]
    assert done.failures == [
        {
            "input": "in/a.png.bmp",
            "error": "in/a.png.bmp: its output out/a.png.ohm is that of in/a.png too; rename one of them",
        }
    ]


@pytest.mark.parametrize("bad", ["a.jpg", "a.png"])
def test_an_input_that_cannot_be_read_does_not_count(bad: str) -> None:
    def probe(path: Path) -> None:
        if path.name == bad:
            raise OhmqError("broken")

    def work(job: Job) -> dict[str, Any]:
        probe(job.source)
        return {"target": str(job.target)}

    jobs = place_outputs([job("a.jpg"), job("a.png")], "out", ".ohm", probe=probe)
    done = run_jobs(jobs, work, "", quiet=True)
    good = "a.png" if bad == "a.jpg" else "a.jpg"
    assert done.results == [{"input": f"in/{good}", "target": "out/a.ohm"}]
    assert [failure["input"] for failure in done.failures] == [f"in/{bad}"]


def test_a_name_in_full_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    run_jobs(place_outputs([job("a.jpg"), job("a.png")], "out", ".ohm"), lambda job: {}, "", quiet=False)
    assert capsys.readouterr().err.splitlines() == [
        "  note: named in full, as in/a.png would be out/a.ohm too",
        "  note: named in full, as in/a.jpg would be out/a.ohm too",
    ]


def test_outputs_that_exist_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.ohm").touch()
    jobs = place_outputs([job("a.png"), job("b.png")], tmp_path, ".ohm", skip_existing=True)
    done = run_jobs(jobs, lambda job: {"target": job.target}, "", quiet=True)
    assert done.skipped == [{"input": "in/a.png", "output": str(tmp_path / "a.ohm")}]
    assert [result["input"] for result in done.results] == ["in/b.png"]
    assert done.failures == []


def test_a_stream_is_read_once_and_goes_to_standard_output(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.ohm"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"content",))
    writer.start()
    (found,) = find_files([str(pipe)], (".ohm",))
    writer.join()
    assert (found.read(), found.data) == (b"content", b"content")
    (placed,) = place_outputs([found], None, ".ohm")
    assert placed.target == STDOUT
    assert targets(place_outputs([found], "out", ".png")) == ["out/pipe.png"]
    with pytest.raises(ConfigError, match=r"2 inputs, and one stream \(/dev/stdout\) for their outputs"):
        place_outputs([found, job("a.ohm")], None, ".ohm")
    with pytest.raises(ConfigError, match="2 inputs, and one stream"):
        place_outputs([job("a.ohm"), job("b.ohm")], "-", ".ohm")


def test_a_terminal_is_no_input_and_no_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "isatty", lambda descriptor: descriptor in (0, 1))
    (found,) = find_files(["-"], (".ohm",))
    assert found.error == "standard input is a terminal, and the data are binary; redirect it, or name a file"
    with pytest.raises(ConfigError, match="standard output is a terminal"):
        place_outputs([job("a.png")], "-", ".ohm")


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
    results, failures, _ = run_jobs(
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
