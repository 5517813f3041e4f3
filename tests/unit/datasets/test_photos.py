"""Loaders of photos."""

from pathlib import Path

import pytest
import torch
from support.photo_folders import make_photo_folder

from ohmq.datasets.photos import CropLoader, photo_files, photo_folder
from ohmq.errors import ConfigError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A data folder of drawn photos."""
    return make_photo_folder(tmp_path)


def test_crops_depend_on_the_seed_and_the_step_alone(photos: Path) -> None:
    files = photo_files(photo_folder(photos, "train"), 64)
    assert [path.name for path in files] == [f"{number}.png" for number in range(6)]
    whole = list(CropLoader(files, 2, 64, seed=3, scale=(0.75, 0.95)))
    assert [tuple(batch.shape) for batch in whole] == [(2, 3, 64, 64)] * 3
    rest = list(CropLoader(files, 2, 64, seed=3, scale=(0.75, 0.95), step=lambda: 1))
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[1:], strict=True))
    other = next(iter(CropLoader(files, 2, 64, seed=3, step=lambda: 3)))
    assert not torch.equal(other, whole[0])
    halves = [next(iter(CropLoader(files, 2, 64, seed=3, scale=(0.75, 0.95), rank=r, world_size=2))) for r in (0, 1)]
    assert torch.equal(torch.cat(halves), whole[0])


def test_a_damaged_photo_is_replaced_with_a_warning(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = photo_files(photo_folder(photos, "train"), 64)
    files[2].write_bytes(files[2].read_bytes()[:400])
    batches = list(CropLoader(files, 3, 64))
    assert len(batches) == 2
    assert "2.png" in caplog.text
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(ConfigError, match="not one photo"):
        list(CropLoader(files, 3, 64))
