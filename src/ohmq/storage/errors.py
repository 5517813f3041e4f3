"""Errors of storage."""

from ohmq.errors import OhmqError

__all__ = ["AccessError", "NotFoundError", "ShardError", "StorageError", "TargetLockedError", "TransientStorageError"]


class StorageError(OhmqError):
    """An object that cannot be read or written."""


class NotFoundError(StorageError):
    """No such object, bucket or folder."""


class AccessError(StorageError):
    """No credentials, wrong ones, or no permission."""


class TransientStorageError(StorageError):
    """A failure that may pass: throttling, a lost connection, an error of the server. Back-off was in vain."""


class TargetLockedError(StorageError):
    """Another job works on the target."""


class ShardError(StorageError):
    """A tar or Parquet shard that is damaged, or that breaks the rules of its format."""
