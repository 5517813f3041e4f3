"""Output of the commands: progress without a terminal, summaries, tables."""

import json

import pytest

from ohmq.cli.jobs import Outcome
from ohmq.cli.output import echo_error, finish, phase_progress, print_rate_points, progress_bar
from ohmq.evaluation.results import RatePoint
from ohmq.utils.progress import steps


def test_progress_without_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ohmq.cli.output.SECONDS_BETWEEN_LINES", 0.0)
    with progress_bar(3, "evaluate") as update:
        update(1)
        update(2)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == ["evaluate: 1 of 3", "evaluate: 3 of 3"]
    assert lines[1].endswith("0 min left")


def test_short_work_has_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(1, "evaluate") as update:
        update(1)
    assert capsys.readouterr().err == ""


def test_summary_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    done, failed, skipped = {"input": "a"}, {"input": "b", "error": "broken"}, {"input": "c", "output": "c.ohm"}
    assert finish(Outcome([done], [], []), False, "read") == 0
    assert capsys.readouterr().out == ""  # one file needs no summary
    assert finish(Outcome([done], [failed], []), False, "read") == 1
    assert capsys.readouterr().out == "1 of 2 files read; 1 failed\n"
    assert finish(Outcome([], [], [skipped]), False, "read") == 0
    assert capsys.readouterr().out == "0 of 1 file read; 1 skipped, whose outputs exist\n"
    assert finish(Outcome([done], [failed], [skipped]), True, "read", {"bytes": 7}) == 1
    printed = {"results": [done], "failures": [failed], "skipped": [skipped], "totals": {"bytes": 7}}
    assert json.loads(capsys.readouterr().out) == printed


def test_a_phase_inside_another_does_not_move_its_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with phase_progress(True):
        for _ in steps(range(4), "layers"):
            for total in (1, 3):
                list(steps(range(total), "synthesis"))
    shown = capsys.readouterr().err
    assert "synthesis" not in shown
    assert shown == "layers\n"  # no terminal: click shows the label alone, once


def test_phases_one_after_the_other_have_bars(capsys: pytest.CaptureFixture[str]) -> None:
    with phase_progress(True):
        for phase, total in (("analysis", 2), ("single", 1), ("synthesis", 3)):
            list(steps(range(total), phase))
    assert capsys.readouterr().err == "analysis\nsynthesis\n"


def test_table_of_rates(capsys: pytest.CaptureFixture[str]) -> None:
    print_rate_points([RatePoint(5, 0.5, 0.1, 0.125, 0.25, 31.5)], "noise, 3 images")
    echo_error("skipped")
    captured = capsys.readouterr()
    name, header, row = captured.out.splitlines()
    assert name == "noise, 3 images"
    assert header.split()[:2] == ["channels", "estimated"]
    assert row.split() == ["5", "0.1000", "0.1250", "0.2500", "31.500", "-", "-", "-", "-"]
    assert len(row) == len(header)
    assert captured.err == "skipped\n"


def test_table_shows_perceptual_metrics_that_were_measured(capsys: pytest.CaptureFixture[str]) -> None:
    point = RatePoint(5, 0.5, 0.1, 0.125, 0.25, 31.5, ssimulacra2=61.25)
    print_rate_points([point], "noise, 3 images")
    _, header, row = capsys.readouterr().out.splitlines()
    assert "SSIMULACRA2" in header and "PSNR-HVS-M" not in header
    assert row.split()[7] == "61.250" and len(row) == len(header)


def test_table_of_a_model_without_a_quantizer(capsys: pytest.CaptureFixture[str]) -> None:
    nan = float("nan")
    print_rate_points([RatePoint(32, 1.0, nan, nan, nan, 29.5, 0.98)], "noise, 3 images")
    *_, row, note = capsys.readouterr().out.splitlines()
    assert row.split() == ["32", "-", "-", "-", "29.500", "0.9800", "-", "-", "-"]
    assert note == "no quantizer, no rate"
