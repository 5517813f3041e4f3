"""One finder of images: by name, in folders, by pattern."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ohmq.cli.jobs import find_files
from ohmq.cli.options import IMAGE_EXTENSIONS as OPTION_EXTENSIONS
from ohmq.errors import ConfigError, UnsupportedImageError
from ohmq.imaging.files import open_image
from ohmq.imaging.listing import IMAGE_EXTENSIONS, ListedFile, list_images, walk_files
from ohmq.imaging.listing import find_files as find_listed
from ohmq.utils.streams import STDIN

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
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "h.webp").touch()
    (folder / "deep" / "loop").symlink_to(folder)

    def walk(pattern: str) -> list[ListedFile]:
        return list(walk_files([f"{folder}/{pattern}"], IMAGE_EXTENSIONS))

    assert names(walk("*.txt")) == ["notes.txt"]  # whatever its extension
    matches = walk("d*")  # a file and a folder
    assert names(matches) == ["d[1].tif", "er/c.webp"]
    assert [file.in_folder for file in matches] == [False, True]
    assert names(walk("d*/")) == ["er/c.webp"]  # folders alone
    assert [file.path for file in walk("**/*.webp")] == [folder / "deep/er/c.webp"]  # once, in spite of the link
    assert names(walk("*/*/*.webp")) == ["c.webp"]
    assert names(walk("**/e?/c.*")) == ["c.webp"]
    assert names(walk(".h*/*")) == ["h.webp"]
    assert walk("*.gif") == []
    assert walk("*/missing.png") == []


def test_two_stars_stand_for_any_depth(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("x.png", "deep/x.png", "deep/er/x.png"):
        (folder / place).touch()
    monkeypatch.chdir(folder)
    found = [file.path for file in find_listed(["**/x.png"], IMAGE_EXTENSIONS)]
    assert found == [Path("x.png"), Path("deep/x.png"), Path("deep/er/x.png")]
    assert sorted(list_images(["**/x.png"])) == sorted(found)


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with an image, and a subfolder that this process may not search; as root, it gives up its rights."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        for place in ("a.png", "deep/locked/b.png", "deep/c.png"):
            (path / place).parent.mkdir(parents=True, exist_ok=True)
            (path / place).touch()
        path.chmod(0o755)
        (path / "deep/locked").chmod(0o000)
        root = hasattr(os, "geteuid") and os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            if os.access(path / "deep/locked", os.R_OK, effective_ids=os.access in os.supports_effective_ids):
                pytest.skip("this system does not refuse to search a folder")
            yield path
        finally:
            if root:
                os.seteuid(0)
            (path / "deep/locked").chmod(0o700)


@pytest.mark.parametrize("pattern", ["", "**/*.png", "*/*/*.png", "deep/locked"])
def test_a_folder_that_may_not_be_searched_is_listed(locked: Path, pattern: str) -> None:
    listed = find_listed([f"{locked}/{pattern}", str(locked / "a.png")], IMAGE_EXTENSIONS)
    errors = {str(file.path.relative_to(locked)): file.error for file in listed if file.error}
    assert errors == {"deep/locked": "the folder cannot be searched: Permission denied"}
    good = {file.path.relative_to(locked).as_posix() for file in listed if not file.error}
    assert good == ({"a.png"} if pattern.startswith(("*/", "deep")) else {"a.png", "deep/c.png"})
    with pytest.raises(ConfigError, match="locked: the folder cannot be searched"):
        list_images([f"{locked}/{pattern}"])
    if pattern != "deep/locked":
        told: list[ListedFile] = []
        with contextlib.suppress(ConfigError):
            list_images([f"{locked}/{pattern}"], on_error=told.append)
        assert [place.path for place in told] == [locked / "deep/locked"]


def test_a_file_in_a_folder_that_may_not_be_entered_is_listed(locked: Path) -> None:
    place = locked / "deep/locked/b.png"
    assert list(walk_files([place], IMAGE_EXTENSIONS)) == [ListedFile(place, Path("b.png"), in_folder=False)]
    with pytest.raises(UnsupportedImageError, match=r"b\.png: no permission to read it"):
        open_image(place)


def test_an_input_without_files_is_listed_beside_others(folder: Path) -> None:
    (folder / "empty").mkdir()
    inputs = [str(folder / "a.jpg"), str(folder / "empty"), str(folder / "*.gif"), ""]
    first, *others = find_listed(inputs, IMAGE_EXTENSIONS)
    assert (first.path, first.error) == (folder / "a.jpg", None)
    assert [str(other.error).split(" (")[0] for other in others] == [
        "no files found", "no files found", "an empty name among the inputs",
    ]  # fmt: skip


def test_what_is_no_file_in_a_folder_is_listed(folder: Path) -> None:
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "pipe.png")
    files = {str(file.relative): file.error for file in walk_files([folder], IMAGE_EXTENSIONS)}
    assert files["gone.png"] is None  # reading it gives the error
    assert files["pipe.png"] == "neither a file nor a folder"


def test_a_dash_is_standard_input() -> None:
    assert find_listed(["-", "/dev/stdin"], IMAGE_EXTENSIONS) == [ListedFile(STDIN, Path("stdin"), in_folder=False)]
    assert find_listed(["./-"], IMAGE_EXTENSIONS) == [ListedFile(Path("-"), Path("-"), in_folder=False)]


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
