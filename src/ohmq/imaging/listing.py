"""Find image files: in folders, by glob patterns, by name. The one list of image extensions of the project."""

import fnmatch
import glob
import os
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ohmq.errors import ConfigError
from ohmq.utils.streams import STDIN

__all__ = ["IMAGE_EXTENSIONS", "ListedFile", "find_files", "list_images", "walk_files"]

IMAGE_EXTENSIONS = tuple(
    ".apng .avif .bmp .dib .gif .j2k .jfif .jp2 .jpe .jpeg .jpg .jpx "
    ".pbm .pcx .pgm .png .pnm .ppm .qoi .tga .tif .tiff .webp".split()
)
"""Extensions of image files, in lower case and in alphabetical order. Folders are searched for them."""

OnError = Callable[[OSError], None]


class ListedFile(NamedTuple):
    """A file of a listing, or a place that could not be searched.

    Attributes:
        path: the file; `ohmq.utils.streams.STDIN` for ``-``.
        relative: its path below the folder that was named; its name, if the file itself was named.
        in_folder: whether it was found in a folder.
        error: why there is nothing to read here, such as a folder without permission; None: a file.
    """

    path: Path
    relative: Path
    in_folder: bool
    error: str | None = None


def walk_files(inputs: Iterable[Path | str], extensions: Container[str]) -> Iterator[ListedFile]:
    """List the files that are named, lie in named folders (searched recursively) or match glob patterns.

    A name that exists is taken as it is, though it may look like a pattern. A file that is named or matched by a pattern
    is listed whatever its extension, and a name that is no pattern is listed even if there is no such file: reading it
    gives the error. Links to folders are followed only where they are named. ``-`` is standard input.

    Args:
        inputs: files, folders and glob patterns; ``**`` stands for folders of any depth, hidden ones excepted.
        extensions: extensions of the files to take from folders, in lower case, such as (".png",).

    Yields:
        The files in order of the inputs, sorted within each of them. A file that is named twice is listed twice. A folder
        that may not be searched, and an empty name, are listed with their error.
    """
    for name in map(str, inputs):
        if not name:
            yield ListedFile(Path(), Path(), False, "an empty name among the inputs")
            continue
        failures: list[ListedFile] = []
        matches = [STDIN if name == "-" else Path(name)]
        if glob.has_magic(name) and not os.path.lexists(name):
            matches = list(dict.fromkeys(_matches(name, lambda error, to=failures: to.append(_unsearched(error)))))  # type: ignore[misc]
        for match in matches:
            if os.path.isdir(match):
                yield from _walk_folder(match, extensions)
            else:
                yield ListedFile(match, Path(match.name), in_folder=False)
        yield from failures


def _unsearched(error: OSError) -> ListedFile:
    """Describe a folder that cannot be searched."""
    path = Path(error.filename)
    return ListedFile(path, Path(path.name), True, f"the folder cannot be searched: {error.strerror}")


def _walk_folder(folder: Path, extensions: Container[str]) -> list[ListedFile]:
    """List the files of a folder, and its subfolders that may not be searched."""
    files: list[ListedFile] = []
    for root, _, names in os.walk(folder, onerror=lambda error: files.append(_unsearched(error))):
        for path in (Path(root, name) for name in names):
            if path.suffix.lower() in extensions:
                usable = os.path.isfile(path) or not os.path.exists(path)  # reading a dangling link gives the error
                error = None if usable else "neither a file nor a folder"
                files.append(ListedFile(path, path.relative_to(folder), True, error))
    return sorted(files)


def _matches(pattern: str, on_error: OnError) -> Iterator[Path]:
    """Find what a pattern matches, sorted. Unlike `glob.glob`, report folders that may not be searched."""
    path = Path(pattern)
    folders_only = pattern.endswith(("/", os.sep))
    parts = path.parts[1:] if path.anchor else path.parts
    for match in _matches_below(Path(path.anchor), parts, on_error):
        if os.path.isdir(match) or not folders_only:
            yield match


def _matches_below(folder: Path, parts: Sequence[str], on_error: OnError) -> Iterator[Path]:
    if not parts:
        if os.path.lexists(folder):
            yield folder
        return
    first, *rest = parts
    if first == "**":
        for root, folders, _ in os.walk(folder, onerror=on_error):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from _matches_below(Path(root), rest, on_error)
    elif not glob.has_magic(first):
        yield from _matches_below(folder / first, rest, on_error)
    elif os.path.isdir(folder):
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries)
        except OSError as error:
            on_error(error)
            return
        for name in fnmatch.filter(names, first):
            if first.startswith(".") or not name.startswith("."):
                yield from _matches_below(folder / name, rest, on_error)


def find_files(inputs: Iterable[str], extensions: Sequence[str]) -> list[ListedFile]:
    """List files as `walk_files` does: in order of the inputs, each once.

    Args:
        inputs: files, folders and glob patterns.
        extensions: extensions of the files to take from folders, in lower case, such as (".png",).

    Returns:
        The files, and with its error each place that cannot be searched and each input that gives no file.

    Raises:
        ConfigError: no file found.
    """
    inputs = list(inputs)
    looked_for = f"(looked for {', '.join(extensions)})"
    files: dict[str, ListedFile] = {}
    nothing = []
    for name in inputs:
        found = list(walk_files([name], extensions))
        if not found:
            nothing.append(name)
            found = [ListedFile(Path(name), Path(name), False, f"no files found {looked_for}")]
        for file in found:
            files.setdefault(os.path.abspath(file.path), file)
    if len(nothing) == len(inputs):
        raise ConfigError(f"no files found in {', '.join(inputs)} {looked_for}")
    return list(files.values())


def list_images(paths: Iterable[Path | str], *, on_error: Callable[[ListedFile], None] | None = None) -> list[Path]:
    """List the image files among files, folders and glob patterns: sorted, each once.

    Folders are searched recursively for the usual extensions (`IMAGE_EXTENSIONS`, upper or lower case); the matches of a
    pattern must have one, too. A file named directly is taken whatever its extension.

    Args:
        paths: files, folders, or patterns as of `walk_files`.
        on_error: called with each place that cannot be searched; default: raise an error.

    Returns:
        Paths of the images. Of several links to one file, the first is kept.

    Raises:
        ConfigError: one of the paths gives no image, or cannot be searched.

    Example:
        >>> list_images(["no such folder"])
        Traceback (most recent call last):
        ...
        ohmq.errors.ConfigError: no such file or folder: no such folder
    """
    images: dict[str, Path] = {}
    for name in paths:
        listed = list(walk_files([name], IMAGE_EXTENSIONS))
        if not listed and not os.path.lexists(name) and not glob.glob(str(name), recursive=True):
            raise ConfigError(f"nothing matches {name}")
        for place in listed:
            if place.error and on_error is None:
                raise ConfigError(f"{place.path}: {place.error}")
            if place.error and on_error is not None:
                on_error(place)
        files = [file.path for file in listed if not file.error]
        if files == [Path(name)] and not os.path.lexists(name):
            raise ConfigError(f"no such file or folder: {name}")
        if not os.path.isfile(name):
            files = [file for file in files if file.suffix.lower() in IMAGE_EXTENSIONS]
        if not files:
            raise ConfigError(f"no images in {name}; looked for {' '.join(IMAGE_EXTENSIONS)}")
        for file in files:
            images.setdefault(os.path.realpath(file), file)
    if not images:
        raise ConfigError("no images given")
    return sorted(images.values())
