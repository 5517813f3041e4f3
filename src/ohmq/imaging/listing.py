"""Find image files: in folders, by glob patterns, by name. The one list of image extensions of the project."""

import glob
import os
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ohmq.errors import ConfigError

__all__ = ["IMAGE_EXTENSIONS", "ListedFile", "find_files", "list_images", "walk_files"]

IMAGE_EXTENSIONS = tuple(
    ".apng .avif .bmp .dib .gif .j2k .jfif .jp2 .jpe .jpeg .jpg .jpx "
    ".pbm .pcx .pgm .png .pnm .ppm .qoi .tga .tif .tiff .webp".split()
)
"""Extensions of image files, in lower case and in alphabetical order. Folders are searched for them."""


class ListedFile(NamedTuple):
    """A file of a listing.

    Attributes:
        path: the file.
        relative: its path below the folder that was named; its name, if the file itself was named.
        in_folder: whether it was found in a folder.
    """

    path: Path
    relative: Path
    in_folder: bool


def walk_files(
    inputs: Iterable[Path | str], extensions: Container[str], *, recursive_globs: bool = False
) -> Iterator[ListedFile]:
    """List the files that are named, lie in named folders (searched recursively) or match glob patterns.

    A name that exists is taken as it is, though it may look like a pattern. A file that is named or matched by a pattern
    is listed whatever its extension, and a name that is no pattern is listed even if there is no such file: reading it
    gives the error.

    Args:
        inputs: files, folders and glob patterns.
        extensions: extensions of the files to take from folders, in lower case, such as (".png",).
        recursive_globs: whether `**` in a pattern stands for any depth.

    Yields:
        The files in order of the inputs, sorted within each of them. A file that is named twice is listed twice.
    """
    for name in map(str, inputs):
        matches = [Path(name)]
        if glob.has_magic(name) and not matches[0].exists():
            matches = [Path(match) for match in sorted(glob.glob(name, recursive=recursive_globs))]
        for match in matches:
            if not match.is_dir():
                yield ListedFile(match, Path(match.name), in_folder=False)
                continue
            for file in sorted(match.rglob("*")):
                if file.suffix.lower() in extensions and file.is_file():
                    yield ListedFile(file, file.relative_to(match), in_folder=True)


def find_files(inputs: Iterable[str], extensions: Sequence[str]) -> list[ListedFile]:
    """List files as `walk_files` does: in order of the inputs, each once.

    Args:
        inputs: files, folders and glob patterns (`*` and `**` for one level).
        extensions: extensions of the files to take from folders, in lower case, such as (".png",).

    Raises:
        ConfigError: no file found.
    """
    inputs = list(inputs)
    files: dict[Path, ListedFile] = {}
    for file in walk_files(inputs, extensions):
        files.setdefault(file.path, file)
    if not files:
        raise ConfigError(f"no files found in {', '.join(inputs)} (looked for {', '.join(extensions)})")
    return list(files.values())


def list_images(paths: Iterable[Path | str]) -> list[Path]:
    """List the image files among files, folders and glob patterns: sorted, each once.

    Folders are searched recursively for the usual extensions (`IMAGE_EXTENSIONS`, upper or lower case); the matches of a
    pattern must have one, too. A file named directly is taken whatever its extension.

    Args:
        paths: files, folders, or patterns as of `glob` (`**` for any depth).

    Returns:
        Paths of the images. Of several links to one file, the first is kept.

    Raises:
        ConfigError: one of the paths gives no image.

    Example:
        >>> list_images(["no such folder"])
        Traceback (most recent call last):
        ...
        ohmq.errors.ConfigError: no such file or folder: no such folder
    """
    images: dict[str, Path] = {}
    for name in paths:
        path = Path(name)
        if not path.exists() and not glob.has_magic(str(name)):
            raise ConfigError(f"no such file or folder: {name}")
        files = [listed.path for listed in walk_files([name], IMAGE_EXTENSIONS, recursive_globs=True)]
        if not path.is_file():
            files = [file for file in files if file.suffix.lower() in IMAGE_EXTENSIONS]
        if not files:
            if not path.exists() and not glob.glob(str(name), recursive=True):
                raise ConfigError(f"nothing matches {name}")
            raise ConfigError(f"no images in {name}; looked for {' '.join(IMAGE_EXTENSIONS)}")
        for file in files:
            images.setdefault(os.path.realpath(file), file)
    if not images:
        raise ConfigError("no images given")
    return sorted(images.values())
