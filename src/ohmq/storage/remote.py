"""Prefixes of object stores, opened with fsspec."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ohmq.errors import OutputWriteError
from ohmq.storage.backoff import Backoff
from ohmq.storage.errors import NotFoundError, StorageError
from ohmq.storage.failures import already_exists, beyond_end, storage_error
from ohmq.storage.store import ObjectInfo
from ohmq.storage.urls import SCHEMES, redacted, scheme_of

__all__ = ["FsspecStore", "S3Store"]

Result = TypeVar("Result")

_OPTIONS: dict[str, dict[str, Any]] = {
    # One request an image: with more connections s3fs asks for the size first. Botocore repeats nothing: Backoff does.
    "s3": {
        "max_concurrency": 1,
        "config_kwargs": {"retries": {"total_max_attempts": 1}, "connect_timeout": 10, "read_timeout": 60},
    }
}
_ATOMIC = ("s3", "gs", "gcs", "az", "abfs")
"""Schemes whose file systems ask the store itself not to replace an object."""
_VERSIONS = (
    "ETag",
    "etag",
    "generation",
    "blob_id",
    "md5Hash",
    "content_md5",
    "LastModified",
    "last_modified",
    "mtime",
    "created",
)
_PAGE_OBJECTS = 1000


class FsspecStore:
    """A prefix of an object store. It is opened at the first request, in each process anew.

    Objects are listed folder by folder, sorted by the bytes of their names; memory holds one folder a level. Every
    operation is repeated with `Backoff` while the store fails for a while. Reads are ranges or whole objects, writes are
    one put (above 100 MB a multipart upload that is completed at its end): an exception never leaves a cut object.

    Args:
        url: URL of the prefix. A query is kept for requests but not shown.
        backoff: how long to try again.

    Attributes:
        url: the URL without the last slash.
        creates_only: whether the store itself refuses to replace an object; a probe may set it to False.
        is_local: False.
    """

    is_local = False

    def __init__(self, url: str, *, backoff: Backoff | None = None):
        self.url = url.rstrip("/")
        self.backoff = backoff or Backoff()
        self.scheme = scheme_of(url)
        self.creates_only = self.scheme in _ATOMIC
        self._opened: tuple[int, Any, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def list(self, prefix: str = "", *, suffixes: tuple[str, ...] = ()) -> Iterator[ObjectInfo]:
        """List the objects whose paths begin with a text; none if there is no such prefix.

        Raises:
            StorageError: ``http(s)``, which has no listing.
        """
        if not SCHEMES[self.scheme].listable:
            raise StorageError(
                f"{redacted(self.url)}: {self.scheme}:// has no listing; give a list of URLs or a brace pattern"
            )
        for info in self._list(prefix):
            if not info.path.endswith("/") and (not suffixes or info.path.lower().endswith(suffixes)):
                yield info

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder, _, start = prefix.rpartition("/")
        yield from self._walk(folder + "/" if folder else "", start)

    def _walk(self, folder: str, start: str) -> Iterator[ObjectInfo]:
        file_system, root = self._open()
        full = self._full(folder).rstrip("/")
        try:
            entries = self._call(lambda: file_system.ls(full, detail=True), folder or ".")
        except NotFoundError:
            return
        named = []
        for entry in entries:
            is_folder = entry["type"] == "directory"
            path = entry["name"].strip("/")[len(root.strip("/")) :].lstrip("/") + ("/" if is_folder else "")
            if path.startswith(folder + start) and path != folder:
                named.append((path.encode(errors="surrogateescape"), entry))
        for encoded, entry in sorted(named, key=lambda pair: pair[0]):
            path = encoded.decode(errors="surrogateescape")
            if path.endswith("/"):
                yield from self._walk(path, "")
            else:
                yield _object_info(path, entry)

    def info(self, path: str) -> ObjectInfo | None:
        """Return one object; None: there is none."""
        file_system, _ = self._open()
        try:
            entry = self._call(lambda: file_system.info(self._full(path)), path)
        except NotFoundError:
            return None
        return None if entry["type"] == "directory" else _object_info(path, entry)

    def read(self, path: str, start: int = 0, length: int | None = None) -> bytes:
        """Read an object, or at most ``length`` bytes of it from ``start`` on, with one request."""
        if length == 0:
            return b""
        file_system, _ = self._open()
        bounds: dict[str, int] = {"start": start} if start or length is not None else {}
        if length is not None:
            bounds["end"] = start + length

        def request() -> bytes:
            try:
                return file_system.cat_file(self._full(path), **bounds)
            except Exception as error:
                if bounds and beyond_end(error):
                    return b""
                raise

        data = self._call(request, path)
        if bounds and self.scheme in ("http", "https") and length is not None and len(data) > length:
            return data[start : start + length]  # a server that knows no ranges sent the whole
        return data

    @contextlib.contextmanager
    def fetch(self, path: str) -> Iterator[BinaryIO]:
        """Open an object for reading at random, through a local copy that goes when it is closed.

        Raises:
            OutputWriteError: the folder for temporary files is full.
        """
        file_system, _ = self._open()
        with contextlib.ExitStack() as stack:
            try:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ohmq-"))
            except OSError as error:
                raise OutputWriteError(
                    f"no folder for temporary files: {error.strerror or error}; set TMPDIR"
                ) from error
            copy = os.path.join(folder, "object")
            self._call(lambda: file_system.get_file(self._full(path), copy), path)
            with open(copy, "rb") as file:
                yield file

    def write(self, path: str, data: bytes | Path) -> None:
        """Write an object whole.

        Args:
            path: path below the root.
            data: content, or a local file to upload.
        """
        file_system, _ = self._open()
        full = self._full(path)
        if isinstance(data, Path):
            self._call(lambda: file_system.put_file(str(data), full), path, "cannot be written")
        else:
            self._call(lambda: file_system.pipe_file(full, data), path, "cannot be written")

    def create(self, path: str, data: bytes) -> bool:
        """Write an object unless it exists. Where `creates_only` is False, another writer may come between.

        Returns:
            False: it exists with other data. With the same data it counts as created: a reply may have been lost.
        """
        file_system, _ = self._open()

        def request() -> bool:
            try:
                if not self.creates_only and file_system.exists(self._full(path)):
                    return False
                file_system.pipe_file(self._full(path), data, mode="create")
            except Exception as error:
                if already_exists(error):
                    return False
                raise
            return True

        if self._call(request, path, "cannot be written"):
            return True
        with contextlib.suppress(NotFoundError):  # The reply to a put that worked may be lost, and the put repeated.
            return self.read(path) == data
        return False

    def delete(self, path: str) -> None:
        """Delete an object; a missing one is no error."""
        file_system, _ = self._open()
        with contextlib.suppress(NotFoundError):
            self._call(lambda: file_system.rm_file(self._full(path)), path, "cannot be deleted")

    def age_s(self, path: str) -> float | None:
        """Return the seconds since an object was written, by the clock of the store; None: there is no such object.

        A second object, which is deleted again, gives the present time.
        """
        file_system, _ = self._open()
        beside = f"{path}.{secrets.token_hex(4)}.clock"
        try:
            written = self._call(lambda: file_system.modified(self._full(path)), path)
            self.write(beside, b"-")
            try:
                now = self._call(lambda: file_system.modified(self._full(beside)), beside)
            finally:
                self.delete(beside)
        except NotFoundError:
            return None
        return (now - written).total_seconds()

    def impatient(self) -> "FsspecStore":
        """Return this store with a patience of at most 10 s, for checks before a job."""
        quick = type(self)(
            self.url,
            backoff=Backoff(self.backoff.first_s, self.backoff.longest_s, min(self.backoff.patience_s, 10.0)),
        )
        quick.creates_only = self.creates_only
        return quick

    def _open(self) -> tuple[Any, str]:
        """Return the file system of this process, and the root as it names it."""
        if self._opened is None or self._opened[0] != os.getpid():
            import fsspec

            options = _OPTIONS.get(self.scheme, {})
            listings = {} if self.scheme == "memory" else {"use_listings_cache": False}
            try:
                file_system = fsspec.filesystem(self.scheme, **listings, **options)
            except Exception as error:
                raise storage_error(error, self.url) from error
            if self.scheme == "s3":
                file_system.retries = 1
            self._opened = (os.getpid(), file_system, file_system._strip_protocol(self.url))
        return self._opened[1], self._opened[2]

    def _full(self, path: str) -> str:
        root = self._open()[1].rstrip("/")
        return f"{root}/{path}" if path else root

    def _name(self, path: str) -> str:
        return redacted(f"{self.url}/{path}" if path else self.url)

    def _call(self, function: Callable[[], Result], path: str, what: str = "cannot be read") -> Result:
        """Call a function with back-off, and turn its exceptions into those of ohmq."""

        def translated() -> Result:
            try:
                return function()
            except Exception as error:
                raise storage_error(error, self._name(path), what) from error

        return self.backoff.call(translated)


class S3Store(FsspecStore):
    """A prefix of a bucket of S3 or of a server with its interface: listed page by page, in the order of the server.

    Endpoint, region and credentials come from the environment and the files that botocore reads: AWS_ENDPOINT_URL,
    AWS_PROFILE, AWS_ACCESS_KEY_ID and so on. For a server that does not know the checksums of current clients set
    AWS_REQUEST_CHECKSUM_CALCULATION=when_required.
    """

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        file_system, root = self._open()
        bucket, _, key = root.partition("/")
        start = key.rstrip("/") + "/" if key else ""
        more: dict[str, str] = {}
        while True:
            request = {"Bucket": bucket, "Prefix": start + prefix, "MaxKeys": _PAGE_OBJECTS, **more}
            page = self._call(lambda request=request: file_system.call_s3("list_objects_v2", **request), prefix)  # type: ignore[misc]
            for entry in page.get("Contents", []):
                yield _object_info(entry["Key"][len(start) :], {"size": entry["Size"], "ETag": entry.get("ETag")})
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def age_s(self, path: str) -> float | None:
        """Return the seconds since an object was written: ``LastModified`` against the reply's ``Date``."""
        file_system, _ = self._open()
        bucket, _, key = self._full(path).partition("/")
        try:
            head = self._call(lambda: file_system.call_s3("head_object", Bucket=bucket, Key=key), path)
        except NotFoundError:
            return None
        now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
        return (now - head["LastModified"]).total_seconds()


def _object_info(path: str, entry: dict[str, Any]) -> ObjectInfo:
    """Build an `ObjectInfo`; the size is 0 where a web server does not tell it."""
    value = next((entry[name] for name in _VERSIONS if entry.get(name)), entry.get("size"))
    version = str(value.timestamp() if isinstance(value, datetime) else value)
    return ObjectInfo(path, int(entry.get("size") or 0), version.strip('"'))
