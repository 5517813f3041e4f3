"""Index of photos in shards: where each lies and its size in pixels, from one pass that is kept in the user's cache."""

import fnmatch
import hashlib
import io
import json
import logging
import os
import random
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ohmq.datasets.parallel import ProcessMap
from ohmq.datasets.photo_sizes import PhotoSize, read_size
from ohmq.datasets.shard_cache import ShardCache
from ohmq.errors import ConfigError, OutputWriteError
from ohmq.imaging.listing import IMAGE_EXTENSIONS
from ohmq.storage.errors import NotFoundError
from ohmq.storage.keys import image_positions
from ohmq.storage.open_store import open_store
from ohmq.storage.parquet_shards import ParquetShard
from ohmq.storage.store import CONTROL, ObjectInfo
from ohmq.storage.tar_shards import index_tar, split_name
from ohmq.storage.urls import SCHEMES, expand_braces, redacted, scheme_of, split_url
from ohmq.utils.atomic_write import write_atomically
from ohmq.utils.progress import steps

__all__ = [
    "PhotoIndex",
    "Shard",
    "ShardPhotos",
    "find_shards",
    "index_photos",
    "is_shard_source",
    "photos_of_shard",
    "start_method",
]

log = logging.getLogger(__name__)

SHARD_EXTENSIONS = (".tar", ".parquet")
"""Extensions of shards, in lower case."""
OBJECTS_A_SHARD = 1000
"""Photos that are objects of their own and together count as a shard."""
_HEADER_BYTES = 1 << 16
"""Bytes of a photo that are read for its size; a photo whose header is longer is read whole."""
_THREADS = 16
"""Objects that are read at once for their sizes."""
_WILDCARD = re.compile(r"[*?\[]")
_BUFFER = re.compile(r" file <_io\.BytesIO object at 0x[0-9a-f]+>")
"""Name that Pillow gives to bytes in memory."""
_FORMAT = 1
"""Version of the files in the user's cache."""


class Shard(NamedTuple):
    """A shard of photos: a tar, a Parquet file, or photos that are objects of their own.

    Attributes:
        root: URL of the store.
        path: path below it; of the first one of several objects.
        size: bytes.
        version: text that changes with the content.
        kind: "tar", "parquet" or "objects".
        members: paths of the photos, if these are objects of their own.
    """

    root: str
    path: str
    size: int
    version: str
    kind: str
    members: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """URL or path of the shard, without secrets."""
        return redacted(f"{self.root}/{self.path}")


class ShardPhotos(NamedTuple):
    """Photos of one shard, in order.

    Attributes:
        offsets: (photos,), int64: first byte in the shard (tar), in all images of the shard one after the other
            (Parquet), or number of the object.
        lengths: (photos,), int64: bytes.
        widths: (photos,), int32: in pixels, as stored; 0 if the photo cannot be read.
        heights: (photos,), int32.
        names: member, row or object.
        problems: why a photo cannot be read, by its number.
    """

    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    widths: NDArray[np.int32]
    heights: NDArray[np.int32]
    names: list[str]
    problems: dict[int, str]


class PhotoIndex(NamedTuple):
    """Photos in shards that are large enough.

    Attributes:
        shards: the shards.
        shard: (photos,), int32: number of the photo's shard; it never decreases.
        offsets: (photos,), int64, see `ShardPhotos`.
        lengths: (photos,), int64.
        widths: (photos,), int32.
        heights: (photos,), int32.
    """

    shards: list[Shard]
    shard: NDArray[np.int32]
    offsets: NDArray[np.int64]
    lengths: NDArray[np.int64]
    widths: NDArray[np.int32]
    heights: NDArray[np.int32]

    def select(self, chosen: "NDArray[np.bool_] | slice") -> "PhotoIndex":
        """Return the index of some of the photos."""
        columns = (self.shard, self.offsets, self.lengths, self.widths, self.heights)
        return PhotoIndex(self.shards, *(column[chosen] for column in columns))  # type: ignore[arg-type]


def is_shard_source(source: Path | str | None) -> bool:
    """Tell whether data are read through an index: URLs, tar and Parquet files, patterns, and folders of these.

    A folder that has photos in files of their own is none of these.

    Args:
        source: text that names the data; None: none.
    """
    text = os.fspath(source) if source else ""
    if not text or scheme_of(text) != "file" or "://" in text:
        return bool(text)
    if os.path.isdir(text):
        return any(_has_shards(folder) for folder in (Path(text), Path(text, "train")))
    return text.lower().endswith(SHARD_EXTENSIONS)


def _has_shards(folder: Path) -> bool:
    """Whether a folder holds shards, and neither photos nor folders besides those of the splits."""
    if not folder.is_dir():
        return False
    names = [entry.name.lower() for entry in os.scandir(folder)]
    return any(name.endswith(SHARD_EXTENSIONS) for name in names) and not any(
        name.endswith(IMAGE_EXTENSIONS) or name in ("photos", "openimages") for name in names
    )


def start_method(shards: Iterable[Shard]) -> str | None:
    """Return how processes that read shards are started; None: torch's default.

    Connections and threads, which object stores and Parquet need, do not survive a fork.

    Args:
        shards: the shards.
    """
    return "spawn" if any(shard.kind == "parquet" or "://" in shard.root for shard in shards) else None


def find_shards(source: str) -> dict[str, list[Shard]]:
    """List the shards of a source, without reading them.

    Photos that are objects of their own are taken in groups of 1,000, in order.

    Args:
        source: URL or path of a shard, a pattern (``{0000..0999}``, ``*``) of shards, or a folder or prefix.

    Returns:
        The shards of each part, sorted. If parts are named ``train`` and ``validation``, by a folder or by the first word
        of the file names, these two; else all shards as "train".

    Raises:
        ConfigError: nothing to train on there.
        StorageError: the store cannot be read, or a named shard is not there.
    """
    found: dict[tuple[str, str], ObjectInfo] = {}
    for root, patterns in _by_root(source):
        for url, info in _matching(root, patterns):
            found[info.path, url] = info
    if not found:
        looked_for = " ".join(SHARD_EXTENSIONS)
        raise ConfigError(f"{redacted(source)}: neither shards ({looked_for}) nor photos there")
    parts: dict[str, list[tuple[str, ObjectInfo]]] = {}
    for (path, root), info in sorted(found.items(), key=lambda item: item[0]):
        parts.setdefault(_part(f"{root}/{path}", source), []).append((root, info))
    if not ("train" in parts and "validation" in parts):
        everything = [place for places in parts.values() for place in places]
        parts = {"train": sorted(everything, key=lambda place: (place[1].path, place[0]))}
    return {name: list(_shards(parts[name])) for name in ("train", "validation") if name in parts}


def _by_root(source: str) -> Iterator[tuple[str, list[str]]]:
    """Split a source into stores and patterns below them; the pattern "" stands for everything."""
    roots: dict[str, list[str]] = {}
    for text in expand_braces(source):
        root, path = split_url(text)
        last = path.rpartition("/")[2].lower()
        if path and not _is_pattern(path) and not last.endswith((*SHARD_EXTENSIONS, *IMAGE_EXTENSIONS)):
            root, path = text.rstrip("/"), ""  # a folder or prefix
        roots.setdefault(root, []).append(path)
    yield from roots.items()


def _matching(root: str, patterns: list[str]) -> Iterator[tuple[str, ObjectInfo]]:
    """List the shards and photos of a store that match one of the patterns, each with the store's URL."""
    store = open_store(root)
    extensions = (*SHARD_EXTENSIONS, *IMAGE_EXTENSIONS)
    if scheme_of(root) != "file" and not SCHEMES[scheme_of(root)].listable:
        for path in patterns:
            if (info := store.info(path)) is None:
                raise NotFoundError(f"{redacted(root)}/{path}: there is none")
            yield store.url, info
        return
    plain = {pattern for pattern in patterns if pattern and not _is_pattern(pattern)}
    wild = [pattern for pattern in patterns if pattern not in plain]
    missing = set(plain)
    # Characters and not folders: a prefix of names is enough for a listing.
    prefix = os.path.commonprefix([_WILDCARD.split(pattern)[0] for pattern in patterns])  # noqa: RUF071
    for info in store.list(prefix, suffixes=extensions):
        if f"/{CONTROL}/" in f"/{info.path}":
            continue
        if info.path in plain or any(_matches(info.path, pattern) for pattern in wild):
            missing.discard(info.path)
            yield store.url, info
    if missing:
        of_how_many = f" ({len(missing)} of {len(plain)} are missing)" if len(plain) > 1 else ""
        raise NotFoundError(f"{redacted(root)}/{min(missing)}: there is none{of_how_many}")


def _is_pattern(path: str) -> bool:
    return _WILDCARD.search(path) is not None


def _matches(path: str, pattern: str) -> bool:
    """Whether a path matches a pattern; "" matches all. A star stands for a part of one name, two for folders, too."""
    same_depth = "**" in pattern or path.count("/") == pattern.count("/")
    return not pattern or (same_depth and fnmatch.fnmatchcase(path, pattern))


def _part(url: str, source: str) -> str:
    """Name the part that a shard belongs to: the last folder or first word called train or validation."""
    *folders, base = url.split("/")
    common = len(split_url(source).root.split("/"))  # a folder above the source tells nothing
    words = [*folders[max(0, common - 1) :], base.split("-")[0].split("_")[0].split(".")[0]]
    return next((word for word in reversed(words) if word in ("train", "validation")), "")


def _shards(places: Iterable[tuple[str, ObjectInfo]]) -> Iterator[Shard]:
    """Make shards of objects; photos are taken together."""
    photos: list[tuple[str, ObjectInfo]] = []
    for root, info in places:
        if not info.path.lower().endswith(SHARD_EXTENSIONS):
            if photos and (photos[0][0] != root or len(photos) == OBJECTS_A_SHARD):
                yield _group(photos)
                photos = []
            photos.append((root, info))
            continue
        kind = "tar" if info.path.lower().endswith(".tar") else "parquet"
        yield Shard(root, info.path, info.size, info.version, kind)
    if photos:
        yield _group(photos)


def _group(photos: list[tuple[str, ObjectInfo]]) -> Shard:
    infos = [info for _, info in photos]
    version = hashlib.sha256(json.dumps(infos).encode()).hexdigest()
    members = tuple(info.path for info in infos)
    return Shard(photos[0][0], members[0], sum(info.size for info in infos), version, "objects", members)


def index_photos(
    shards: Sequence[Shard],
    smallest_side: int,
    cache: ShardCache,
    *,
    image_column: str | None = None,
    num_workers: int = 0,
    report: Callable[[dict[str, str], int, int], None],
) -> PhotoIndex:
    """Index the photos of shards that can be read and are large enough.

    Each shard is read once; what is found is kept in the user's cache. Processes of several machines that share this
    cache share the work.

    Args:
        shards: the shards.
        smallest_side: least width and height, in pixels.
        cache: copies of shards.
        image_column: column of images in Parquet files; None: the only one that may hold images.
        num_workers: processes that read shards; 0: this one.
        report: called with photos that are left out and why, at most 20 of them, their number, and that of all photos.

    Raises:
        ConfigError: no usable photo, or an unclear column of images.
        ShardError: a damaged shard.
        StorageError: a shard that cannot be read.
    """
    _fill_cache(shards, cache, image_column, num_workers)
    parts: list[list[NDArray[Any]]] = []
    problems: dict[str, str] = {}
    left_out = total = 0
    for shard in shards:
        photos = photos_of_shard(shard, cache, image_column)
        usable = np.minimum(photos.widths, photos.heights) >= smallest_side
        for number in np.flatnonzero(~usable)[: max(0, 20 - len(problems))].tolist():
            size = f"{photos.widths[number]}x{photos.heights[number]} is smaller than {smallest_side} pixels"
            problems[f"{shard.url}: {photos.names[number]}"] = photos.problems.get(number, size)
        left_out, total = left_out + int((~usable).sum()), total + len(usable)
        parts.append([array[usable] for array in photos[:4]])
    report(problems, left_out, total)
    if left_out == total:
        raise ConfigError(
            f"no usable photo in {len(shards)} shards, the first of which is {shards[0].url}: each needs at least "
            f"{smallest_side} pixels on a side"
        )
    numbers = np.repeat(np.arange(len(shards), dtype=np.int32), [len(part[0]) for part in parts])
    columns = [np.concatenate([part[column] for part in parts]) for column in range(4)]
    return PhotoIndex(list(shards), numbers, *columns)


def _fill_cache(shards: Sequence[Shard], cache: ShardCache, image_column: str | None, num_workers: int) -> None:
    """Read the shards that are not in the user's cache, in an order that differs from process to process."""
    missing = [shard for shard in shards if not _cache_file(shard, image_column).exists()]
    random.Random(f"{os.getpid()} {os.urandom(8).hex()}").shuffle(missing)
    reader = _ShardReader(cache, image_column)
    results = (
        ProcessMap(reader, missing, num_workers, start_method(shards)) if num_workers and len(missing) > 1 else None
    )
    try:
        iterator = iter(results) if results else map(reader, missing)
        for _ in steps(missing, "index of shards"):
            next(iterator)
    finally:
        if results:
            results.close()


class _ShardReader:
    """Puts the photos of a shard into the user's cache."""

    def __init__(self, cache: ShardCache, image_column: str | None) -> None:
        self.cache, self.image_column = cache, image_column

    def __call__(self, shard: Shard) -> None:
        photos_of_shard(shard, self.cache, self.image_column)


def photos_of_shard(shard: Shard, cache: ShardCache, image_column: str | None = None) -> ShardPhotos:
    """List the photos of a shard: from the user's cache, or by reading the shard.

    Args:
        shard: the shard.
        cache: copies of shards.
        image_column: column of images in Parquet files; None: the only one that may hold images.

    Raises:
        ConfigError: an unclear column of images.
        ShardError: a damaged shard.
        StorageError: a shard that cannot be read.
    """
    path = _cache_file(shard, image_column)
    try:
        with np.load(path) as arrays:
            text = json.loads(arrays["text"].tobytes())
            return ShardPhotos(
                arrays["offsets"],
                arrays["lengths"],
                arrays["widths"],
                arrays["heights"],
                text["names"],
                {int(number): problem for number, problem in text["problems"].items()},
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # not there, or damaged
    photos = _READERS[shard.kind](shard, cache, image_column)
    encoded = json.dumps({"names": photos.names, "problems": photos.problems}).encode()
    buffer = io.BytesIO()
    np.savez(
        buffer,
        text=np.frombuffer(encoded, np.uint8),
        offsets=photos.offsets,
        lengths=photos.lengths,
        widths=photos.widths,
        heights=photos.heights,
    )
    try:
        write_atomically(path, buffer.getvalue(), force=True)
    except (OSError, OutputWriteError) as error:
        log.info("the index of %s is not kept: %s", shard.url, error)
    return photos


def _cache_file(shard: Shard, image_column: str | None) -> Path:
    import pooch

    identity = json.dumps([_FORMAT, *shard[:5], image_column if shard.kind == "parquet" else None])
    return Path(pooch.os_cache("ohmq")) / "photo_index" / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npz"


def _listed(photos: Iterable[tuple[str, int, int, PhotoSize]]) -> ShardPhotos:
    """Collect the photos of a shard: names, offsets, lengths and sizes."""
    rows = list(photos)
    return ShardPhotos(
        np.array([offset for _, offset, _, _ in rows], np.int64),
        np.array([length for _, _, length, _ in rows], np.int64),
        np.array([size.width for _, _, _, size in rows], np.int32),
        np.array([size.height for _, _, _, size in rows], np.int32),
        [name for name, _, _, _ in rows],
        {number: size.problem for number, (_, _, _, size) in enumerate(rows) if size.problem},
    )


def _read_tar(shard: Shard, cache: ShardCache, image_column: str | None) -> ShardPhotos:
    with cache.open(shard) as file:
        members = [
            member
            for member in index_tar(file, shard.url)
            if member.problem or image_positions([split_name(member.name)[1]], IMAGE_EXTENSIONS)
        ]
        return _listed(
            (member.name, member.offset, member.size, _tar_size(file, member.offset, member.size, member.problem))
            for member in members
        )


def _tar_size(file: BinaryIO, offset: int, length: int, problem: str) -> PhotoSize:
    if problem:
        return PhotoSize(0, 0, problem)
    return _header_size(length, lambda count: (file.seek(offset), file.read(count))[1])


def _read_parquet(shard: Shard, cache: ShardCache, image_column: str | None) -> ShardPhotos:
    def photos() -> Iterator[tuple[str, int, int, PhotoSize]]:
        offset = 0
        with open_store(shard.root).fetch(shard.path) as file:
            for rows in ParquetShard(file, shard.url, image_column).read():
                for number, (image, name) in enumerate(zip(rows.images, rows.names, strict=True), rows.first):
                    data = image or b""
                    size = _header_size(len(data), lambda count, data=data: data[:count])  # type: ignore[misc]
                    yield f"row {number}" + (f" ({name})" if name else ""), offset, len(data), size
                    offset += len(data)

    return _listed(photos())


def _read_objects(shard: Shard, cache: ShardCache, image_column: str | None) -> ShardPhotos:
    store = open_store(shard.root)

    def size(path: str) -> PhotoSize:
        try:
            return _header_size(
                _HEADER_BYTES + 1, lambda count: store.read(path, 0, count if count <= _HEADER_BYTES else None)
            )
        except NotFoundError as error:
            return PhotoSize(0, 0, str(error))

    with ThreadPoolExecutor(1 if store.is_local else _THREADS) as pool:
        sizes = pool.map(size, shard.members)
        return _listed(
            (path, number, 0, size) for number, (path, size) in enumerate(zip(shard.members, sizes, strict=True))
        )


_READERS = {"tar": _read_tar, "parquet": _read_parquet, "objects": _read_objects}


def _header_size(length: int, read: Callable[[int], bytes]) -> PhotoSize:
    """Read the size of a photo from its first bytes, or from all of them.

    Args:
        length: bytes of the photo.
        read: returns the first bytes, as many as it is called with.
    """
    if not length:
        return PhotoSize(0, 0, "it is empty")
    size = read_size(io.BytesIO(read(min(length, _HEADER_BYTES))))
    if size.problem and length > _HEADER_BYTES:
        size = read_size(io.BytesIO(read(length)))
    return size._replace(problem=_BUFFER.sub("", size.problem))
