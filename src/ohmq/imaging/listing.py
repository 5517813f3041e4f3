"""src/ohmq/imaging/listing.py."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path

from ohmq.errors import ConfigError

__all__ = ["IMAGE_EXTENSIONS", "list_images"]

IMAGE_EXTENSIONS = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif", ".jp2")
    + (".ppm", ".pgm", ".pnm", ".tga")
)


def list_images(paths: Iterable[Path | str]) -> list[Path]:
    """Image files from files, folders and glob patterns: sorted, each once.

    Folders are searched recursively for the usual extensions (`IMAGE_EXTENSIONS`, upper or lower case). A file named
    directly is taken whatever its extension.

    Args:
        paths: files, folders, or patterns as of `glob` (`**` for any depth).

    Raises:
        ConfigError: one of the paths gives no image.

    Example:
        >>> list_images(["no such folder"])
        Traceback (most recent call last):
        ...
        ohmq.errors.ConfigError: no such file or folder: no such folder
    """
    found: dict[str, Path] = {}
    for name in paths:
        path = Path(name)
        if path.is_file():
            files = [path]
        elif path.is_dir():
            files = _images_below(path)
        elif matches := sorted(Path(match) for match in glob.glob(str(name), recursive=True)):
            files = [file for match in matches for file in (_images_below(match) if match.is_dir() else [match])]
            files = [file for file in files if file.suffix.lower() in IMAGE_EXTENSIONS]
        elif glob.has_magic(str(name)):
            raise ConfigError(f"nothing matches {name}")
        else:
            raise ConfigError(f"no such file or folder: {name}")
        if not files:
            raise ConfigError(f"no images in {name}; looked for {' '.join(sorted(IMAGE_EXTENSIONS))}")
        for file in files:
            found.setdefault(os.path.realpath(file), file)
    if not found:
        raise ConfigError("no images given")
    return sorted(found.values())


def _images_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_EXTENSIONS and path.is_file()]
