"""Checkpoints are read without running code from them."""

from pathlib import Path

import pytest
import torch

from ohmq.errors import ModelFileError
from ohmq.model_files.resolve import resolve_model


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    for name, content in (("a.ckpt", b"no"), ("b.ckpt", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelFileError, match="not a checkpoint"):
            resolve_model(tmp_path / name)


class Evil:
    """Unpickling it would make a file."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (open, ("evil-was-here", "w"))


def test_a_checkpoint_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"ohmq": {"format": 1}, "state_dict": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(ModelFileError, match="not a checkpoint"):
        resolve_model(tmp_path / "evil.ckpt")
    assert not (tmp_path / "evil-was-here").exists()
