"""Sources of a bulk job: folders, prefixes, patterns, single objects and lists, listed one object at a time."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

from ohmq.bulk.job import CONTROL, BulkJob, check_credentials
from ohmq.bulk.rows import UNKNOWN_SIZE, SourceKind, bytes_to_path
from ohmq.errors import ConfigError
from ohmq.imaging.listing import IMAGE_EXTENSIONS
from ohmq.storage.errors import NotFoundError
from ohmq.storage.open_store import open_store
from ohmq.storage.probe import probe_source
from ohmq.storage.store import ObjectInfo, Store
from ohmq.storage.urls import expand_braces, is_url, redacted, scheme_of, split_url

__all__ = ["Listed", "OutputCheck", "SourceListing", "extensions_of", "kind_of", "normal_url"]

REQUESTS_AT_ONCE = 16
"""Number of objects that are named one by one, whose sizes are asked for at once."""


class Listed(NamedTuple):
    """An object of a source: the URL of its store's root, and the object."""

    root: str
    info: ObjectInfo


def extensions_of(job: BulkJob) -> tuple[str, ...]:
    """Return the extensions that a job takes from folders and patterns: images or .ohm, and shards."""
    return (*(IMAGE_EXTENSIONS if job.operation == "compress" else (".ohm",)), ".tar", ".parquet")


def kind_of(path: str) -> SourceKind:
    """Tell a shard from a single file by the extension."""
    lower = path.lower()
    return "tar" if lower.endswith(".tar") else "parquet" if lower.endswith(".parquet") else "object"


class _Source(NamedTuple):
    """A named source: a store's root, a prefix below it, and what is taken of the objects below the prefix."""

    name: str
    root: str
    prefix: str
    pattern: re.Pattern[str] | None
    single: bool = False

    def takes(self, path: str, extensions: tuple[str, ...]) -> bool:
        """Whether an object below the root belongs to the source."""
        if self.single:
            return path == self.prefix
        if CONTROL in path.split("/") or not path.lower().endswith(extensions):
            return False
        return path.startswith(self.prefix) and (self.pattern is None or self.pattern.match(path) is not None)


class SourceListing:
    """All objects of the sources of a job, in order, a page in memory at a time.

    Folders, prefixes and patterns give the files with `extensions_of` the job; files that are named themselves, and those
    of a list, are taken whatever their extension. The control folders of other jobs are left out.

    Args:
        job: the job.

    Raises:
        ConfigError: a source that does not exist, a target that is a source or lies in one, or a URL that holds
            credentials or cannot be opened.
    """

    def __init__(self, job: BulkJob):
        self.job = job
        self._extensions = extensions_of(job)
        self._stores: dict[str, Store] = {}
        self._sources = [source for name in job.sources for source in self._resolve(name)]
        self.overlapping = len(self._sources) > 1 or job.from_list is not None
        self._check_target()

    def store(self, root: str) -> Store:
        """Open a source's store, once."""
        if root not in self._stores:
            self._stores[root] = open_store(root, processes=2)
        return self._stores[root]

    def __iter__(self) -> Iterator[Listed]:
        """List all objects.

        Raises:
            ConfigError: a source without a single object that the job can take; a bad line in the list.
            StorageError: as the stores say.
        """
        groups = iter(self._sources)
        while batch := list(islice(groups, 64 * REQUESTS_AT_ONCE)):
            for source in batch:
                if source.single:
                    continue
                found = False
                store = self.store(source.root)
                for info in store.list(source.prefix, suffixes=self._extensions):
                    if source.takes(info.path, self._extensions):
                        if not found and not store.is_local:  # who may list may not be allowed to read
                            with contextlib.suppress(NotFoundError):  # deleted meanwhile: its row will say so
                                probe_source(store, info.path)
                        found = True
                        yield Listed(source.root, info)
                if not found:
                    raise ConfigError(
                        f"nothing to {self.job.operation} in {redacted(source.name)} (looked for {' '.join(self._extensions)})"
                    )
            singles = [Listed(s.root, ObjectInfo(s.prefix, UNKNOWN_SIZE, "")) for s in batch if s.single]
            yield from self._with_sizes(singles)
        if self.job.from_list is not None:
            yield from self._with_sizes(self._read_list(self.job.from_list))

    def _resolve(self, name: str) -> list[_Source]:
        """Find out what a source's name stands for."""
        if not is_url(name) and os.path.lexists(name):
            return [self._local(name)]
        found = []
        for text in expand_braces(name):
            path = _local_path(text)
            if scheme_of(text) in ("http", "https"):
                found.append(_Source(text, *split_url(text), None, single=True))
            elif path is not None and os.path.lexists(path):
                found.append(self._local(path))
            elif _is_pattern(text):
                root, pattern = split_url(path or text)
                root = os.path.abspath(root) if path is not None else root
                found.append(_Source(text, root, _fixed_start(pattern), _compiled(pattern)))
            elif path is not None:
                raise ConfigError(f"no such file or folder: {path}")
            else:
                found.append(self._remote(text))
        return found

    def _local(self, name: str) -> _Source:
        path = os.path.abspath(name)
        if os.path.isdir(path):
            return _Source(name, path, "", None)
        return _Source(name, os.path.dirname(path), os.path.basename(path), None, single=True)

    def _remote(self, url: str) -> _Source:
        """Tell an object from a prefix: a name with an extension that the job takes may be either."""
        root, path = split_url(url)
        if path and path.lower().endswith(self._extensions) and self.store(root).info(path) is not None:
            return _Source(url, root, path, None, single=True)
        return _Source(url, url.rstrip("/"), "", None)

    def _with_sizes(self, listed: Iterable[Listed]) -> Iterator[Listed]:
        """Ask for the sizes of objects that were named one by one, where they are unknown. A missing one stays."""

        def known(item: Listed) -> Listed:
            if item.info.size != UNKNOWN_SIZE:
                return item
            return Listed(item.root, self.store(item.root).info(item.info.path) or item.info)

        items = iter(listed)
        first = list(islice(items, 1))
        if not first:
            return
        with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
            yield known(first[0])  # opens the store before threads share it
            while batch := list(islice(items, 64 * REQUESTS_AT_ONCE)):
                if all(item.info.size != UNKNOWN_SIZE for item in batch):
                    yield from batch
                    continue
                for root in {item.root for item in batch}:
                    self.store(root)
                yield from pool.map(known, batch)

    def _read_list(self, name: str) -> Iterator[Listed]:
        """Read a list: a path or URL a line; after a tab its size in bytes, after another its version."""
        path = _local_path(name)
        root, base = split_url(os.path.abspath(path) if path is not None else name)
        with self.store(root).fetch(base) as file:
            for number, line in enumerate(file, start=1):
                text = bytes_to_path(line).rstrip("\r\n")
                place = f"line {number} of {redacted(name)}"
                if not text or text.startswith("#"):
                    continue
                where, _, rest = text.partition("\t")
                size, _, version = rest.partition("\t")
                if size and not size.isdecimal():
                    raise ConfigError(f"{place}: {size!r} is no size in bytes; separate path and size by a tab")
                check_credentials(where, place)
                entry_root, entry_path = _listed_location(where)
                if not entry_path:
                    raise ConfigError(f"{place} names no object: {redacted(where)}")
                yield Listed(entry_root, ObjectInfo(entry_path, int(size) if size else UNKNOWN_SIZE, version))

    def _check_target(self) -> None:
        """Refuse a target whose outputs the sources would take for inputs, by names such as those of outputs."""
        target = normal_url(self.job.target_root)
        names = [self.job.output_of(kind, 0, "x") for kind in ("object", "tar", "parquet")]
        names = [f"{name}x{self.job.output_extension}" if name.endswith("/") else name for name in names]
        for source in self._sources:
            root = normal_url(source.root)
            below = "" if target == root else target.removeprefix(root.rstrip("/") + "/") + "/"
            if target != root and below == target + "/":
                continue  # elsewhere
            if not source.single and (
                not source.pattern or any(source.takes(below + name, self._extensions) for name in names)
            ):
                raise ConfigError(
                    f"target {redacted(self.job.target)} is or lies in source {redacted(source.name)}, which would take the "
                    "outputs for inputs; choose another target"
                )


class OutputCheck:
    """A check that no output lies in a folder of sources, replaces its own source or bears a reserved name.

    Args:
        job: the job.
    """

    def __init__(self, job: BulkJob):
        self._job = job
        self._target = normal_url(job.target_root).rstrip("/") + "/"
        self._roots: dict[str, str] = {}
        name = job.target_pattern or f"shard-{{}}.{job.layout_for('object')}"
        self._shard_name = re.compile(r"\d{6,}".join(map(re.escape, name.split("{}"))))

    def __call__(self, output: str, root: str, path: str) -> None:
        """Check one output.

        Args:
            output: its path below the target's root.
            root: root of its source.
            path: path of its source below that.

        Raises:
            ConfigError: the output cannot be written there.
        """
        if output.startswith(CONTROL):
            raise ConfigError(f"{output} cannot be an output: names that begin with {CONTROL} are the job's own")
        if root not in self._roots:
            self._roots[root] = normal_url(root).rstrip("/") + "/"
        folder, full = self._roots[root], self._target + output
        inside = folder != self._target and folder.startswith(self._target) and full.startswith(folder)
        source = folder + path
        is_shard = source.startswith(self._target) and self._shard_name.fullmatch(source.removeprefix(self._target))
        if inside or is_shard or full == source:
            raise ConfigError(
                f"output {output} of target {redacted(self._job.target)} would lie among the sources; choose another target"
            )


def normal_url(text: str) -> str:
    """Return a text that is equal for equal places: an absolute path without links, or a URL without its last slash."""
    path = _local_path(text)
    return redacted(text).rstrip("/") if path is None else os.path.realpath(path)


def _local_path(text: str) -> str | None:
    """Return the path of a local name or ``file://`` URL; None: another URL."""
    if not is_url(text):
        return text
    return text[len("file://") :] if scheme_of(text) == "file" else None


def _listed_location(text: str) -> tuple[str, str]:
    """Split an entry of a list into root and path so that few roots hold many entries: a bucket, the folder, or "/"."""
    path = _local_path(text)
    if path is None:
        head, _, rest = text.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme_of(text) == "hf":  # hf://datasets/owner/name/path
            parts = key.split("/", 2)
            bucket, key = "/".join([bucket, *parts[:2]]), "".join(parts[2:])
        return f"{head}://{bucket}", key
    path = os.path.normpath(path)
    if path.startswith("../"):
        path = os.path.abspath(path)
    return ("/", path.lstrip("/")) if path.startswith("/") else (os.getcwd(), path)


def _is_pattern(text: str) -> bool:
    return any(character in text for character in "*?[")


def _fixed_start(pattern: str) -> str:
    """Return the start of a pattern before its first wildcard, which the store lists."""
    return re.split(r"[*?\[]", pattern, maxsplit=1)[0]


def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile a glob: ``*`` and ``?`` stay within a folder, ``**/`` is folders of any depth; a folder stands for all below."""
    text, place = "", 0
    while place < len(pattern):
        rest = pattern[place:]
        if rest.startswith("**/"):
            text, place = text + r"(?:[^/]+/)*", place + 3
        elif rest.startswith("**"):
            text, place = text + ".*", place + 2
        elif rest[0] == "*":
            text, place = text + "[^/]*", place + 1
        elif rest[0] == "?":
            text, place = text + "[^/]", place + 1
        elif match := re.match(r"\[(!?)(\]?[^\]]*)\]", rest):
            inside = match[2].replace("\\", "\\\\").replace("[", r"\[").replace("^", r"\^")
            text, place = text + f"[{'^/' if match[1] else ''}{inside}]", place + match.end()
        else:
            text, place = text + re.escape(rest[0]), place + 1
    return re.compile(f"{text}(?:/.*)?\\Z" if not pattern.endswith("/") else f"{text}.*\\Z", re.DOTALL)
