"""Exit codes and messages of errors that no command expects."""

import click
import pytest

from ohmq.cli import main, published_compress, run_published


def test_a_path_that_may_not_be_looked_at_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied() -> int:
        raise PermissionError(13, "Permission denied", "locked/x.ohm")  # as pathlib does in a folder without search

    monkeypatch.setattr(published_compress, "run", denied)
    with pytest.raises(SystemExit, match="^1$"):
        main([], click.Command("denied", callback=denied))
    with pytest.raises(SystemExit, match="^1$"):
        run_published("compress")
    assert capsys.readouterr().err.splitlines() == [
        "ohmq: locked/x.ohm: Permission denied",
        "compress.py: locked/x.ohm: Permission denied",
    ]


def test_an_error_without_a_path_is_a_fault_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing() -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(published_compress, "run", failing)
    with pytest.raises(OSError, match="Input/output"):
        main([], click.Command("failing", callback=failing))
    with pytest.raises(OSError, match="Input/output"):
        run_published("compress")
