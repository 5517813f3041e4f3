"""Photos in shards, shuffled within a window of shards: an order that is a function of seed, epoch and index."""

import hashlib
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ohmq.datasets.photos import PhotoSet, read_rgb, warn_left_out
from ohmq.datasets.shard_cache import ShardCache
from ohmq.datasets.shard_index import PhotoIndex, Shard, find_shards, index_photos, photos_of_shard, start_method
from ohmq.errors import ConfigError, UnsupportedImageError
from ohmq.storage.errors import NotFoundError
from ohmq.storage.open_store import open_store

__all__ = ["WINDOW_SHARDS", "ShardedPhotos", "hold_out", "open_sharded_photos"]

WINDOW_SHARDS = 16
"""Shards whose photos are shuffled together. Another number would give other crops."""
HELD_OUT_PHOTOS = 500
"""Photos that are held out for validation where the source has no part for it, at most."""
HELD_OUT_FRACTION = 20
"""One in so many photos is held out, at most."""
HELD_OUT_SHARDS = 4
"""Shards that held-out photos come from: each has to be fetched for them."""


class ShardedPhotos(PhotoSet):
    """Photos in shards.

    An epoch takes the shards in random order, 16 at a time, and the photos of these in random order. While the photos of
    one window are read, the shards of the next one are fetched, if the cache has room for both.

    Args:
        index: the photos.
        cache: copies of shards.

    Raises:
        ConfigError: the cache is too small for a window.
    """

    def __init__(self, index: PhotoIndex, cache: ShardCache) -> None:
        self.index, self.cache = index, cache
        counts = np.bincount(index.shard, minlength=len(index.shards))
        self._first = np.concatenate([[0], np.cumsum(counts)])
        self._used = np.flatnonzero(counts)
        self.identity = _identity(index)
        self.start_method = start_method(index.shards)
        self._window_bytes = _window_bytes(
            [index.shards[number] for number in self._used if cache.copies(index.shards[number])]
        )
        if self._window_bytes > cache.max_bytes:
            raise ConfigError(
                f"the cache of shards may hold {cache.max_bytes:,} bytes, but {WINDOW_SHARDS} shards that are shuffled "
                f"together have up to {self._window_bytes:,}: raise --data-cache-bytes, or make smaller shards"
            )
        self._forget_process()

    def _forget_process(self) -> None:
        self._files: OrderedDict[int, BinaryIO] = OrderedDict()
        weakref.finalize(self, _close_all, self._files)
        self._windows: list[NDArray[np.int64]] = []
        self._window_of: dict[int, int] = {}
        self._fetched: set[int] = set()
        self._fetching: threading.Thread | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs: no open files."""
        names = ("index", "cache", "identity", "start_method", "_first", "_used", "_window_bytes")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Start without open files."""
        self.__dict__.update(state)
        self._forget_process()

    def __len__(self) -> int:
        """Number of photos."""
        return len(self.index.shard)

    def name(self, index: int) -> str:
        """Shard and member of a photo."""
        shard = self._shard(index)
        photos = photos_of_shard(shard, self.cache, self.cache.image_column)
        same = (photos.offsets == self.index.offsets[index]) & (photos.lengths == self.index.lengths[index])
        return f"{shard.url}: {photos.names[int(np.flatnonzero(same)[0])]}"

    def read(self, index: int) -> Image.Image:
        """Read a photo as an RGB image.

        Raises:
            UnsupportedImageError: it cannot be read.
            StorageError: its shard cannot be read.
            OutputWriteError: no room for a copy of its shard.
        """
        try:
            return read_rgb("photo", self._content(index))
        except UnsupportedImageError as error:
            raise UnsupportedImageError(f"{self.name(index)}: {str(error).removeprefix('photo: ')}") from error

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Order of the photos in an epoch, (photos,)."""
        rng = np.random.default_rng([seed, epoch])
        shards = rng.permutation(self._used)
        self._windows = [shards[start : start + WINDOW_SHARDS] for start in range(0, len(shards), WINDOW_SHARDS)]
        self._window_of = {int(shard): number for number, window in enumerate(self._windows) for shard in window}
        self._fetched = set()
        return np.concatenate(
            [
                rng.permutation(np.concatenate([np.arange(*self._first[shard : shard + 2]) for shard in window]))
                for window in self._windows
            ]
        )

    def _shard(self, index: int) -> Shard:
        return self.index.shards[self.index.shard[index]]

    def _content(self, index: int) -> bytes:
        """Bytes of a photo."""
        shard = self._shard(index)
        if shard.kind == "objects":
            try:
                return open_store(shard.root).read(shard.members[self.index.offsets[index]])
            except NotFoundError as error:
                raise UnsupportedImageError("photo: it is not there any more") from error
        self._fetch_ahead(int(self.index.shard[index]))
        file = self._open(int(self.index.shard[index]))
        # No common position: a batch that is read ahead may be read at the same time.
        return os.pread(file.fileno(), int(self.index.lengths[index]), int(self.index.offsets[index]))

    def _open(self, number: int) -> BinaryIO:
        """Open a shard, or take it from those that are open."""
        if number not in self._files:
            self._files[number] = self.cache.open(self.index.shards[number])
        self._files.move_to_end(number)
        while len(self._files) > 2 * WINDOW_SHARDS:
            self._files.popitem(last=False)[1].close()
        return self._files[number]

    def _fetch_ahead(self, number: int) -> None:
        """Fetch the other shards of a shard's window and those of the next window, in a thread."""
        window = self._window_of.get(number)
        busy = self._fetching is not None and self._fetching.is_alive()
        if window is None or window in self._fetched or busy:
            return
        self._fetched.add(window)
        ahead = 2 if 2 * self._window_bytes <= self.cache.max_bytes else 1
        numbers = np.concatenate(self._windows[window : window + ahead])
        shards = [shard for shard in (self.index.shards[number] for number in numbers) if self.cache.copies(shard)]
        if shards:
            self._fetching = threading.Thread(target=self.cache.prefetch, args=(shards,), daemon=True)
            self._fetching.start()


def _close_all(files: dict[int, BinaryIO]) -> None:
    for file in files.values():
        file.close()


def _window_bytes(shards: Sequence[Shard]) -> int:
    """Bytes of the largest shards that may make up a window."""
    return sum(sorted((shard.size for shard in shards), reverse=True)[:WINDOW_SHARDS])


def _identity(index: PhotoIndex) -> str:
    """Describe photos and order: shards by their paths, so that the same shards elsewhere are the same."""
    digest = hashlib.sha256(
        str([WINDOW_SHARDS, *(shard.path for shard in index.shards)]).encode(errors="surrogateescape")
    )
    for array in index[1:]:
        digest.update(np.ascontiguousarray(array).tobytes())
    return f"{len(index.shard)} photos, index {digest.hexdigest()[:16]}"


def hold_out(index: PhotoIndex) -> tuple[PhotoIndex, PhotoIndex]:
    """Split photos into those to train on and those held out, which are the same in every run.

    One photo in 20, at most 500, is held out, from at most 4 shards. Hashes of their places choose both.

    Args:
        index: all photos.

    Returns:
        Photos to train on, and photos held out.

    Raises:
        ConfigError: a single photo.
    """
    total = len(index.shard)
    if total < 2:
        raise ConfigError(f"a single photo in {index.shards[0].url}: one is needed to train on, one to validate on")
    used = np.unique(index.shard)
    by_hash = sorted(
        used.tolist(),
        key=lambda number: hashlib.sha256(index.shards[number].path.encode(errors="surrogateescape")).digest(),
    )
    candidates = np.flatnonzero(np.isin(index.shard, by_hash[:HELD_OUT_SHARDS]))
    # A multiplicative hash of the place in the shard (Knuth): evenly spread, the same everywhere.
    places = index.offsets[candidates].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)
    count = min(max(1, total // HELD_OUT_FRACTION), HELD_OUT_PHOTOS, max(1, len(candidates) // 2))
    held_out = np.zeros(total, bool)
    held_out[candidates[np.lexsort((candidates, places))[:count]]] = True
    return index.select(~held_out), index.select(held_out)


def open_sharded_photos(
    source: str,
    cache: ShardCache,
    *,
    smallest_side: int,
    smallest_held_out: int,
    num_train: int | None = None,
    num_held_out: int | None = None,
    num_workers: int = 0,
) -> tuple[ShardedPhotos, ShardedPhotos]:
    """Open the photos of a source: those to train on, and those held out.

    Args:
        source: URL or path, see `ohmq.datasets.shard_index.find_shards`. If it has parts called train and validation,
            these are taken; else `hold_out` splits it.
        cache: copies of shards.
        smallest_side: least width and height of a photo to train on, in pixels.
        smallest_held_out: least width and height of a photo of the part validation, in pixels.
        num_train: photos to train on: the first ones. Default: all.
        num_held_out: photos held out: the first ones. Default: all.
        num_workers: processes that read shards for the index; 0: this one.

    Raises:
        ConfigError: no usable photo, or an unclear column of images.
        StorageError: shards that cannot be read.
    """
    parts = find_shards(source)

    def index(part: str, smallest: int) -> PhotoIndex:
        return index_photos(
            parts[part],
            smallest,
            cache,
            image_column=cache.image_column,
            num_workers=num_workers,
            report=lambda problems, left_out, total: warn_left_out(problems, total, left_out),
        )

    train = index("train", smallest_side)
    if "validation" in parts:
        held_out = index("validation", smallest_held_out)
    else:
        train, held_out = hold_out(train)
    train, held_out = train.select(slice(num_train)), held_out.select(slice(num_held_out))
    return ShardedPhotos(train, cache), ShardedPhotos(held_out, cache)
