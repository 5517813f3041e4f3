"""Exceptions of fsspec, botocore and other clients, told apart and turned into those of ohmq."""

import errno
import re
from collections.abc import Iterator

from ohmq.errors import OhmqError, OutputWriteError
from ohmq.storage.errors import AccessError, NotFoundError, StorageError, TransientStorageError
from ohmq.storage.urls import redacted

__all__ = ["already_exists", "beyond_end", "one_line", "storage_error"]

_NO_BUCKET = {"NoSuchBucket", "InvalidBucketName"}
_MISSING = {"NoSuchKey", "NoSuchVersion", "404", "410"}
_CREDENTIALS = {
    "401", "AuthorizationHeaderMalformed", "ExpiredToken", "InvalidAccessKeyId", "InvalidSecurity", "InvalidToken",
    "NotSignedUp", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired",
}  # fmt: skip
_FORBIDDEN = {"403", "AccessDenied", "AccountProblem", "AllAccessDisabled", "Forbidden", "InvalidObjectState"}
_PASSING = {
    "408", "425", "429", "500", "502", "503", "504", "509", "ConditionalRequestConflict", "InternalError", "OperationAborted",
    "RequestTimeout", "RequestLimitExceeded", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException",
    "TooManyRequests", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "ServerBusy", "OperationTimedOut",
}  # fmt: skip
_PASSING_CLASSES = {
    # botocore, aiohttp, urllib3, http.client, azure.core, google.api_core, requests and httpx
    "HTTPClientError", "ResponseParserError", "IncompleteReadError", "ResponseStreamingError", "FlexibleChecksumError",
    "ClientConnectionError", "ClientPayloadError", "ServerDisconnectedError", "IncompleteRead", "ProtocolError",
    "ServiceRequestError", "ServiceResponseError", "RetryError", "ConnectionError", "Timeout", "TransportError",
}  # fmt: skip
_CREDENTIAL_CLASSES = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound", "TokenRetrievalError",
    "DefaultCredentialsError", "RefreshError", "ClientAuthenticationError", "GatedRepoError",
}  # fmt: skip
_FULL = (errno.ENOSPC, errno.EDQUOT)


def one_line(error: BaseException, limit: int = 300) -> str:
    """Return the message of an exception in one line without credentials, or the name of its class."""
    message = (isinstance(error, OSError) and error.strerror) or str(error)
    text = " ".join(message.split()) or type(error).__name__
    return redacted(re.sub(r"\b(AKIA|ASIA)[A-Z0-9]{8,}", r"\1...", text))[:limit]


def already_exists(error: BaseException) -> bool:
    """Tell whether a store refused to replace an object."""
    return isinstance(error, FileExistsError) or bool(_codes(error) & {"PreconditionFailed", "412"})


def beyond_end(error: BaseException) -> bool:
    """Tell whether a range begins behind the end of its object."""
    return bool(_codes(error) & {"InvalidRange", "416"})


def storage_error(error: BaseException, name: str, what: str = "cannot be read") -> OhmqError:
    """Turn an exception of a client into one of ohmq.

    Args:
        error: the exception.
        name: URL of the object, without credentials.
        what: what could not be done.

    Returns:
        An error whose message is one line.
    """
    if isinstance(error, OhmqError):
        return error
    codes, classes, text = _codes(error), _classes(error), one_line(error)
    if codes & _NO_BUCKET:
        bucket = "/".join(name.split("/")[:3])
        return NotFoundError(f"{bucket}: no such bucket")
    if codes & _CREDENTIALS or classes & _CREDENTIAL_CLASSES:
        return AccessError(f"{name} {what}: no credentials, or wrong ones ({text}); set them on this machine")
    if codes & _FORBIDDEN or (isinstance(error, PermissionError) and not codes & _PASSING):
        return AccessError(f"{name} {what}: no permission, or wrong credentials ({text})")
    if isinstance(error, OSError) and error.errno in _FULL and not codes:
        return OutputWriteError(f"{name} {what}: {text}; make room in the folder for temporary files, or set TMPDIR")
    missing = bool(codes & _MISSING)
    passing = codes & _PASSING or classes & _PASSING_CLASSES or isinstance(error, TimeoutError | ConnectionError)
    if passing and not missing:  # before FileNotFoundError, which the client for HTTP makes of every failure
        return TransientStorageError(f"{name} {what}: {text}")
    if missing or isinstance(error, FileNotFoundError):
        return NotFoundError(f"{name} does not exist")
    if isinstance(error, UnicodeEncodeError):
        return StorageError(f"{name!r} {what}: object stores take names in UTF-8 only")
    return StorageError(f"{name} {what}: {text}")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it was raised from."""
    current: BaseException | None = error
    for _ in range(10):
        if current is None:
            return
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _codes(error: BaseException) -> set[str]:
    """Return the codes of replies: those of S3, and HTTP status numbers."""
    codes = set()
    for link in _chain(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            codes.add(str(response.get("Error", {}).get("Code")))
            codes.add(str(response.get("ResponseMetadata", {}).get("HTTPStatusCode")))
            continue
        for owner, name in ((link, "status"), (link, "status_code"), (response, "status_code"), (link, "code")):
            status = getattr(owner, name, None)
            if isinstance(status, int):
                codes.add(str(status))
                break  # asking aiohttp for ``code`` is deprecated
    return codes


def _classes(error: BaseException) -> set[str]:
    """Return the names of the classes of an exception, of what it was raised from, and of their bases."""
    return {kind.__name__ for link in _chain(error) for kind in type(link).__mro__}
