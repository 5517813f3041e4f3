"""Sizes of photos, and their cache."""

import logging
from pathlib import Path

import pytest
from PIL import Image

from ohmq.datasets import photo_sizes as sizes
from ohmq.datasets.photo_sizes import PhotoSize, photo_sizes, size_cache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four photos and a broken one; sizes of any number of photos are kept, in a cache of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sizes, "LEAST_CACHED", 1)
    monkeypatch.setattr(sizes, "PHOTOS_A_TASK", 2)
    folder = tmp_path / "photos, \udcff\nfolder"
    folder.mkdir()
    for number in range(4):
        Image.new("RGB", (30 + number, 20)).save(folder / f'{number},"\n.png')
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Count the photos that are opened."""
    opened: list[Path] = []
    read = sizes.read_size
    monkeypatch.setattr(sizes, "read_size", lambda path: opened.append(path) or read(path))
    return opened


def test_sizes_are_read_once_and_again_after_a_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(folder.iterdir())
    names = [path.name for path in files]
    opened = counted(monkeypatch)
    expected = [PhotoSize(30 + number, 20) for number in range(4)]
    first = photo_sizes(folder, files)
    assert first[:4] == expected and first[4].problem.startswith("it cannot be read")
    assert len(opened) == 5
    assert photo_sizes(folder, files)[:4] == expected
    assert [path.name for path in opened[5:]] == ["broken.png"]
    Image.new("RGB", (99, 98)).save(files[2])
    assert photo_sizes(folder, files)[2] == PhotoSize(99, 98)
    assert [path.name for path in opened[6:]] == [names[2], "broken.png"]
    assert sorted(path.name for path in folder.iterdir()) == names  # nothing is written beside the photos
    assert folder not in size_cache(folder).parents


@pytest.mark.parametrize("content", [b"not,five", b"a,b,c,d,e", b"\x00\xff,1,2,3,4\n", b""])
def test_a_damaged_cache_is_read_anew(folder: Path, content: bytes) -> None:
    files = sorted(folder.iterdir())
    expected = photo_sizes(folder, files)
    size_cache(folder).write_bytes(content)
    assert photo_sizes(folder, files) == expected
    assert size_cache(folder).read_bytes() != content


def test_sizes_are_read_without_a_cache_that_can_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.INFO):
        assert photo_sizes(folder, sorted(folder.iterdir()))[0] == PhotoSize(30, 20)
    assert "not kept" in caplog.text


def test_processes_read_the_same_sizes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = sorted(folder.iterdir())
    alone = photo_sizes(folder, files)
    size_cache(folder).unlink()
    assert photo_sizes(folder, files, num_workers=2) == alone


def test_a_photo_above_pillows_limit_is_a_problem_or_silent(
    folder: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    files = sorted(folder.iterdir())[:1]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # the photo has 600: Pillow warns
    assert photo_sizes(folder, files) == [PhotoSize(30, 20)]
    assert not recwarn.list
    size_cache(folder).unlink()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # more than twice: Pillow refuses
    assert "exceeds limit" in photo_sizes(folder, files)[0].problem
