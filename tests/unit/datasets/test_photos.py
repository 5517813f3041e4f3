"""Loaders of photos."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.photo_folders import draw_photo, make_photo_folder

from ohmq.datasets.photos import CropLoader, WholePhotos, photo_files, photo_folder
from ohmq.errors import ConfigError
from ohmq.imaging.files import open_image


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
    with pytest.raises(ConfigError, match="not one of 6 photos"):
        list(CropLoader(files, 3, 64))


@pytest.mark.parametrize("num_workers", [1, 3])
def test_batches_are_the_same_with_any_number_of_processes(photos: Path, num_workers: int) -> None:
    files = photo_files(photo_folder(photos, "train"), 64, num_workers=num_workers)
    step = 0
    alone = CropLoader(files, 2, 64, seed=3, scale=(0.75, 0.95), step=lambda: step)
    shared = CropLoader(files, 2, 64, seed=3, scale=(0.75, 0.95), step=lambda: step, num_workers=num_workers)
    for step in (0, 4, 6):  # an epoch, one resumed in its middle, another one
        expected, batches = list(alone), list(shared)
        assert len(batches) == 3 - step % 3
        assert all(torch.equal(a, b) for a, b in zip(batches, expected, strict=True))
    assert torch.equal(next(iter(shared)), next(iter(alone)))  # left in the middle
    step = 9
    assert all(torch.equal(a, b) for a, b in zip(shared, alone, strict=True))
    shared.close()
    assert all(torch.equal(a, b) for a, b in zip(shared, alone, strict=True))  # with new processes
    shared.close()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_damaged_photo_is_named_once(photos: Path, caplog: pytest.LogCaptureFixture, num_workers: int) -> None:
    files = photo_files(photo_folder(photos, "train"), 64)
    files[2].write_bytes(files[2].read_bytes()[:400])
    caplog.clear()
    loader = CropLoader(files, 3, 64, num_workers=num_workers)
    for _ in range(3):
        assert len(list(loader)) == 2
    loader.close()
    (record,) = caplog.records
    assert record.getMessage().startswith(f"left out {files[2]}: damaged image")
    for file in files:
        file.write_bytes(b"")
    with pytest.raises(ConfigError, match="not one of 6 photos"):
        list(CropLoader(files, 3, 64, num_workers=num_workers))


def test_photos_that_cannot_be_used_are_named_and_counted(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    photo_files(photo_folder(photos, "train"), 64)
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    assert "broken.jpg: it cannot be read" in messages[0]
    assert "small.png: 200x20 is smaller than 64 pixels" in messages[1]
    assert messages[2] == "left out 2 of 8 photos"


def test_whole_photos_leave_out_what_cannot_be_read(
    photos: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photo_folder(photos, "validation")
    (folder / "cut.png").write_bytes((folder / "0.png").read_bytes()[:300])
    Image.fromarray(np.full((40, 40), 1e9, np.float32)).save(folder / "range.tif")
    draw_photo(folder / "large.png", 96, 96, 3)
    files = photo_files(folder, 16)
    assert len(files) == 5
    monkeypatch.setattr("ohmq.datasets.photos.open_image", partial(open_image, max_pixels=8000))
    caplog.clear()
    whole = WholePhotos(files, 16)
    assert [tuple(photo.shape) for photo in whole] == [(1, 3, 80, 64)] * 2
    messages = [record.getMessage() for record in caplog.records]
    for name in ("cut.png", "large.png", "range.tif"):
        assert any(message.startswith(f"left out {folder / name}: ") for message in messages)
    assert messages[-1] == "left out 3 of 5 photos"
    with pytest.raises(ConfigError, match=r"not one of 1 photos can be read; the first is .*cut.png"):
        WholePhotos([folder / "cut.png"], 16)


def test_photos_are_found_in_the_usual_places(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OHMQ_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert photo_folder(None, "train") == Path("data/openimages/train")  # ./data
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "photos" / "train").mkdir(parents=True)
    monkeypatch.setenv("OHMQ_DATA", str(elsewhere))
    assert photo_folder(None, "train") == elsewhere / "photos" / "train"
    assert photo_folder(photos, "train") == photos / "openimages" / "train"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError) as caught:  # other photos are not taken for those that are named
        photo_folder(tmp_path / "empty", "train")
    for words in ("empty/openimages/train", "empty/photos/train", "--data ", "--data_base_path", "OHMQ_DATA"):
        assert words in str(caught.value)
