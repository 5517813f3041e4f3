"""Crops of photos that are kept in the memory of the device."""

from pathlib import Path

import pytest
import torch
from support.photo_folders import make_photo_folder

from ohmq.datasets import device_crops
from ohmq.datasets.device_crops import DeviceCropLoader
from ohmq.datasets.photos import CropLoader, PhotoFiles, photo_files, photo_folder
from ohmq.errors import ConfigError


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Drawn photos, one of which is damaged."""
    files = photo_files(photo_folder(make_photo_folder(tmp_path), "train"), 64)
    files[2].write_bytes(files[2].read_bytes()[:400])
    return files


def test_crops_are_those_of_the_other_loader(files: list[Path], caplog: pytest.LogCaptureFixture) -> None:
    step = 0
    there = DeviceCropLoader(PhotoFiles(files), 2, 64, seed=3, step=lambda: step)
    here = CropLoader(files, 2, 64, seed=3, step=lambda: step)
    for step in (0, 4, 6):  # an epoch, one resumed in its middle, another one
        expected, batches = list(here), list(there)
        assert len(batches) == 3 - step % 3
        assert all(torch.equal(a, b) for a, b in zip(batches, expected, strict=True))
    assert "left out 1 of 6 photos" in caplog.text
    shares = [DeviceCropLoader(PhotoFiles(files), 2, 64, seed=3, rank=r, world_size=2) for r in (0, 1)]
    step = 0
    assert torch.equal(torch.cat([next(iter(share)) for share in shares]), next(iter(here)))


def test_photos_that_do_not_fit_are_refused(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_crops, "MOST_BYTES", 100_000)
    with pytest.raises(ConfigError, match="more than 100,000 bytes; leave out --data-on-device"):
        next(iter(DeviceCropLoader(PhotoFiles(files), 2, 64)))
    monkeypatch.undo()
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(ConfigError, match="not one of 6 photos can be read"):
        next(iter(DeviceCropLoader(PhotoFiles(files), 2, 64)))
