"""One finder of images: by name, in folders, by pattern."""

from pathlib import Path

import pytest

from ohmq.cli.jobs import find_files
from ohmq.cli.options import IMAGE_EXTENSIONS as OPTION_EXTENSIONS
from ohmq.errors import ConfigError
from ohmq.imaging.listing import IMAGE_EXTENSIONS, ListedFile, list_images, walk_files

NAMES = ("b.PNG", "a.jpg", "notes.txt", "deep/er/c.webp", "d[1].tif")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with four images, a file that is none, and a folder named like an image."""
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    return tmp_path


def names(files: list[ListedFile]) -> list[str]:
    return [str(file.relative) for file in files]


def test_there_is_one_list_of_extensions() -> None:
    assert OPTION_EXTENSIONS is IMAGE_EXTENSIONS
    assert list(IMAGE_EXTENSIONS) == sorted(set(IMAGE_EXTENSIONS))
    assert {".png", ".jpg", ".jfif", ".tga", ".jp2", ".qoi", ".apng", ".j2k"} < set(IMAGE_EXTENSIONS)


def test_walk_a_folder(folder: Path) -> None:
    files = list(walk_files([folder], IMAGE_EXTENSIONS))
    assert names(files) == ["a.jpg", "b.PNG", "d[1].tif", "deep/er/c.webp"]
    assert all(file.in_folder and file.path == folder / file.relative for file in files)
    assert names(list(walk_files([folder], (".txt",)))) == ["notes.txt"]


def test_walk_files_that_are_named(folder: Path) -> None:
    missing = folder / "missing.png"
    inputs = [folder / "notes.txt", folder / "deep/er/c.webp", missing, folder / "d[1].tif"]
    files = list(walk_files(inputs, IMAGE_EXTENSIONS))
    assert files == [ListedFile(path, Path(path.name), in_folder=False) for path in inputs]


def test_walk_patterns(folder: Path) -> None:
    def walk(pattern: str, recursive: bool) -> list[ListedFile]:
        return list(walk_files([f"{folder}/{pattern}"], IMAGE_EXTENSIONS, recursive_globs=recursive))

    assert names(walk("*.txt", False)) == ["notes.txt"]  # whatever its extension
    matches = walk("d*", False)  # a file and a folder
    assert names(matches) == ["d[1].tif", "er/c.webp"]
    assert [file.in_folder for file in matches] == [False, True]
    assert names(walk("**/*.webp", False)) == []
    assert names(walk("**/*.webp", True)) == ["c.webp"]
    assert walk("*.gif", False) == []


def test_find_files_keeps_the_order_and_each_file_once(folder: Path) -> None:
    jobs = find_files([str(folder / "notes.txt"), str(folder), str(folder / "a.jpg")], IMAGE_EXTENSIONS)
    assert [str(job.source.relative_to(folder)) for job in jobs] == [
        "notes.txt", "a.jpg", "b.PNG", "d[1].tif", "deep/er/c.webp",
    ]  # fmt: skip
    assert [job.in_folder for job in jobs] == [False, True, True, True, True]
    assert str(jobs[4].relative) == "deep/er/c.webp"
    with pytest.raises(ConfigError, match=r"no files found in .*\.gif \(looked for \.apng, \.avif"):
        find_files([str(folder / "*.gif")], IMAGE_EXTENSIONS)


def test_list_images(folder: Path) -> None:
    (folder / "link.png").symlink_to(folder / "b.PNG")
    every = [folder / name for name in ("a.jpg", "b.PNG", "d[1].tif", "deep/er/c.webp")]
    images = list_images([folder])
    assert {path.resolve() for path in images} == set(every)
    assert len(images) == 4
    assert list_images([folder / "deep", folder / "a.jpg", folder / "a.jpg"]) == [every[0], every[3]]
    assert list_images([str(folder / "**/*.webp"), str(folder / "*.jpg")]) == [every[0], every[3]]
    assert list_images([folder / "d[1].tif"]) == [every[2]]  # a file's name, though it looks like a pattern
    assert list_images([folder / "notes.txt"]) == [folder / "notes.txt"]  # named directly
    assert list_images([str(folder / "d*")]) == [every[2], every[3]]  # pattern that matches a file and a folder


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.png", "no such"),
        ("*.gif", "nothing matches"),
        ("e", "no images in"),
        ("e*", "no images in"),
        ("*.txt", "no images in"),
    ],
)
def test_list_images_finds_nothing(folder: Path, name: str, message: str) -> None:
    (folder / "e").mkdir()
    with pytest.raises(ConfigError, match=message):
        list_images([folder / name])


def test_list_images_of_nothing() -> None:
    with pytest.raises(ConfigError, match="no images given"):
        list_images([])
