"""Widths and heights of the photos in a folder, kept from run to run in the user's cache."""

import csv
import hashlib
import io
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from ohmq.datasets.parallel import ProcessMap
from ohmq.errors import OutputWriteError
from ohmq.utils.atomic_write import write_atomically
from ohmq.utils.progress import steps

__all__ = ["PhotoSize", "photo_sizes", "read_size", "size_cache"]

log = logging.getLogger(__name__)

LEAST_CACHED = 100
"""Photos of a folder from which on their sizes are kept: fewer are opened in no time."""
PHOTOS_A_TASK = 64
"""Photos that a process opens at a time."""


class PhotoSize(NamedTuple):
    """Size of a photo, or the reason why it has none.

    Attributes:
        width: in pixels; 0 if it cannot be read.
        height: in pixels; 0 if it cannot be read.
        problem: reason why it cannot be read; "" if it can.
    """

    width: int
    height: int
    problem: str = ""


class _Stamp(NamedTuple):
    """State of a file: it is read again when one of both changes.

    Attributes:
        size_bytes: size of the file.
        mtime_ns: time of the last change, in nanoseconds.
    """

    size_bytes: int
    mtime_ns: int


def read_size(file: Path | BinaryIO) -> PhotoSize:
    """Read the size of a photo from the header of its file.

    Args:
        file: path of an image file, or the open file.

    Returns:
        The size as stored, without EXIF orientation; or the problem of a file that cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the number of pixels; reading the photo checks it
            with Image.open(file) as image:
                return PhotoSize(*image.size)
    except Exception as error:  # damaged files make Pillow raise nearly anything
        return PhotoSize(0, 0, f"it cannot be read ({error})")


def size_cache(folder: Path) -> Path:
    """Return the file in the user's cache that keeps the sizes of the photos in a folder.

    Args:
        folder: folder of photos; nothing is ever written into it.
    """
    import pooch

    key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:24]
    return Path(pooch.os_cache("ohmq")) / "photo_sizes" / f"{key}.csv"


def photo_sizes(folder: Path, files: Sequence[Path], *, num_workers: int = 0) -> list[PhotoSize]:
    """Read the sizes of photos; those of files that did not change since the last time come from the cache.

    Args:
        folder: folder of the photos; it names the cache.
        files: photos in it.
        num_workers: processes that open photos; 0: this one.

    Returns:
        A size for each photo, in order.
    """
    known = _read_cache(size_cache(folder)) if len(files) >= LEAST_CACHED else {}
    names, stamps = [os.path.relpath(path, folder) for path in files], [_stamp(path) for path in files]
    sizes = [known.get(key) for key in zip(names, stamps, strict=True)]
    missing = [index for index, size in enumerate(sizes) if size is None]
    tasks = [missing[start : start + PHOTOS_A_TASK] for start in range(0, len(missing), PHOTOS_A_TASK)]
    reader = _SizeReader(files)
    results = ProcessMap(reader, tasks, num_workers) if num_workers and len(tasks) > 1 else None
    try:
        iterator = iter(results) if results else map(reader, tasks)
        for indexes in steps(tasks, "sizes of photos"):
            for index, size in zip(indexes, next(iterator), strict=True):
                sizes[index] = size
    finally:
        if results:
            results.close()
    complete = [size for size in sizes if size is not None]
    if missing and len(files) >= LEAST_CACHED:
        _write_cache(size_cache(folder), names, stamps, complete)
    return complete


class _SizeReader:
    """Sizes of some photos of a list, by their indexes."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    def __call__(self, indexes: Sequence[int]) -> list[PhotoSize]:
        return [read_size(self.files[index]) for index in indexes]


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return _Stamp(-1, -1)  # reading it gives the reason
    return _Stamp(status.st_size, status.st_mtime_ns)


def _read_cache(path: Path) -> dict[tuple[str, _Stamp], PhotoSize]:
    """Read a cache: sizes by name and stamp; a missing or damaged one is empty."""
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
        return {
            (name, _Stamp(int(size), int(mtime))): PhotoSize(int(width), int(height))
            for name, size, mtime, width, height in csv.reader(io.StringIO(text, newline=""))
        }
    except (OSError, ValueError, csv.Error):
        return {}


def _write_cache(path: Path, names: Sequence[str], stamps: Sequence[_Stamp], sizes: Sequence[PhotoSize]) -> None:
    """Write a cache of the photos that can be read."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    for name, stamp, size in zip(names, stamps, sizes, strict=True):
        if not size.problem:
            writer.writerow([name, *stamp, size.width, size.height])
    try:
        write_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"), force=True)
    except (OSError, OutputWriteError) as error:
        log.info("sizes of photos are not kept: %s", error)
