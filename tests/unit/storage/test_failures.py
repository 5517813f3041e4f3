import errno

import pytest

from ohmq.errors import OutputWriteError
from ohmq.storage.errors import AccessError, NotFoundError, StorageError, TransientStorageError
from ohmq.storage.failures import already_exists, beyond_end, one_line, storage_error


class Reply(Exception):
    """An exception with a reply, as botocore's."""

    def __init__(self, code: str, status: int):
        super().__init__(f"An error occurred ({code})")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


class Status(Exception):
    """An exception with the number of a status, as aiohttp's and azure's."""

    def __init__(self, status: int):
        super().__init__("a message\nin two lines")
        self.status = status


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (Reply("NoSuchBucket", 404), NotFoundError, "s3://lake: no such bucket"),
        (Reply("NoSuchKey", 404), NotFoundError, "s3://lake/a does not exist"),
        (FileNotFoundError("a"), NotFoundError, "s3://lake/a does not exist"),
        (Reply("ExpiredToken", 400), AccessError, "no credentials, or wrong ones"),
        (Reply("AccessDenied", 403), AccessError, "no permission"),
        (PermissionError("Forbidden"), AccessError, "no permission"),
        (Status(401), AccessError, "no credentials, or wrong ones"),
        (Status(403), AccessError, "no permission"),
        (Status(404), NotFoundError, "does not exist"),
        (Status(429), TransientStorageError, "a message in two lines"),
        (caused(OSError(errno.EBUSY, "Please reduce your request rate."), Reply("SlowDown", 503)), TransientStorageError,
         r"s3://lake/a cannot be read: Please reduce your request rate\."),
        (caused(FileNotFoundError("a"), Status(503)), TransientStorageError, "s3://lake/a cannot be read"),
        (ConnectionResetError("reset"), TransientStorageError, "reset"),
        (TimeoutError(), TransientStorageError, "TimeoutError"),
        (OSError(errno.ENOSPC, "No space left on device"), OutputWriteError, "make room in the folder for temporary files"),
        (ValueError("odd"), StorageError, "s3://lake/a cannot be read: odd"),
    ],
)  # fmt: skip
def test_kinds(error: Exception, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        raise storage_error(error, "s3://lake/a")
    assert type(caught.value) is kind and "\n" not in str(caught.value)


def test_names_that_are_not_utf8() -> None:
    with pytest.raises(UnicodeEncodeError) as caught:
        "\udcff".encode()
    assert "UTF-8 only" in str(storage_error(caught.value, "s3://lake/\udcff"))
    str(storage_error(caught.value, "s3://lake/\udcff")).encode()  # can be printed


def test_errors_of_ohmq_stay() -> None:
    error = TransientStorageError("x")
    assert storage_error(error, "s3://lake/a") is error


def test_answers_that_are_no_failures() -> None:
    assert already_exists(FileExistsError()) and already_exists(caused(OSError("x"), Reply("PreconditionFailed", 412)))
    assert beyond_end(caused(OSError("x"), Reply("InvalidRange", 416)))
    assert not already_exists(Reply("NoSuchKey", 404)) and not beyond_end(ValueError())


def test_messages_hold_no_credentials() -> None:
    error = ValueError("key AKIAIOSFODNN7EXAMPLE of https://me:pw@host/a?X-Amz-Signature=5 \n is odd")
    assert one_line(error) == "key AKIA... of https://host/a is odd"
