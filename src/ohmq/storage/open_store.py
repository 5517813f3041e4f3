"""Open a folder or a prefix of an object store by its path or URL."""

import os

from ohmq.storage.backoff import Backoff, default_backoff
from ohmq.storage.local import LocalStore
from ohmq.storage.remote import FsspecStore, S3Store
from ohmq.storage.store import Store
from ohmq.storage.urls import check_scheme, scheme_of

__all__ = ["open_store"]


def open_store(
    url: str | os.PathLike[str], *, processes: int = 1, for_writing: bool = False, backoff: Backoff | None = None
) -> Store:
    """Open a store; no request is made yet.

    Args:
        url: folder, ``file://`` URL, or URL of a prefix, such as ``s3://bucket/photos``. A relative folder is taken from
            the current one, once and for all.
        processes: number of processes that will open it.
        for_writing: whether it is a target.
        backoff: how long to try again on a failing object store. Default: `default_backoff`.

    Raises:
        ConfigError: unknown scheme, a package that is not installed, credentials in the URL, a target that can only be
            read, or ``memory://`` with more than one process.

    Example:
        >>> open_store("file:///photos").url
        '/photos'
    """
    text = os.fspath(url)
    check_scheme(text, processes=processes, for_writing=for_writing)
    scheme = scheme_of(text)
    if scheme == "file":
        return LocalStore(text[len("file://") :] if text[:7].lower() == "file://" else text)
    kind = S3Store if scheme == "s3" else FsspecStore
    return kind(text, backoff=backoff or default_backoff())
