"""The folders in which data are looked for."""

from pathlib import Path

import pytest

from ohmq.datasets.folders import data_folders, find_data


def test_named_then_environment_then_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OHMQ_DATA", raising=False)
    assert data_folders() == [Path("data")]
    monkeypatch.setenv("OHMQ_DATA", "env")
    assert data_folders("named") == [Path("named"), Path("env"), Path("data")]


def test_the_first_folder_that_holds_the_data_is_found(tmp_path: Path) -> None:
    for name in ("b/one", "b/two", "a/two"):
        (tmp_path / name).mkdir(parents=True)
    bases = [tmp_path / name for name in ("none", "a", "b")]
    assert find_data(bases, ["one", "two"], Path.is_dir) == tmp_path / "a" / "two"
    assert find_data(bases[2:], ["", "one"], Path.is_dir) == tmp_path / "b"
    assert find_data(bases, ["three"], Path.is_dir) is None
