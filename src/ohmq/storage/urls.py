"""URLs of folders and objects: schemes, brace patterns, and what may be shown of them."""

import importlib.util
import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

from ohmq.errors import ConfigError

__all__ = [
    "SCHEMES",
    "Location",
    "Scheme",
    "check_scheme",
    "expand_braces",
    "is_url",
    "redacted",
    "scheme_of",
    "split_url",
]


class Scheme(NamedTuple):
    """What a URL scheme needs.

    Attributes:
        package: package that opens it.
        extra: extra of ohmq that installs the package.
        writable: whether it can be a target.
        listable: whether its objects can be listed.
    """

    package: str
    extra: str
    writable: bool = True
    listable: bool = True


SCHEMES = {
    "s3": Scheme("s3fs", "s3"),
    "gs": Scheme("gcsfs", "gcs"),
    "gcs": Scheme("gcsfs", "gcs"),
    "az": Scheme("adlfs", "azure"),
    "abfs": Scheme("adlfs", "azure"),
    "hf": Scheme("huggingface_hub", "hub", writable=False),
    "http": Scheme("aiohttp", "bulk", writable=False, listable=False),
    "https": Scheme("aiohttp", "bulk", writable=False, listable=False),
    "memory": Scheme("fsspec", "bulk"),
}
"""Schemes besides ``file``."""

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_USER = re.compile(r"(?<=://)(?<!abfs://)[^/\s@]*@")  # abfs://container@account holds no secret
_QUERY = re.compile(r"\?[^\s/?'\"]*=[^\s'\"]*")
_BRACE = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


class Location(NamedTuple):
    """A URL or local path in two parts.

    Attributes:
        root: folder or prefix to open as a store, without the last slash.
        path: what lies below: an object, a pattern of `fnmatch`, or empty for all of it.
    """

    root: str
    path: str


def is_url(text: str) -> bool:
    """Tell whether a text is a URL, and not a path of this machine.

    Example:
        >>> is_url("s3://bucket/photos"), is_url("photos/a.png"), is_url("C:/a.png")
        (True, False, False)
    """
    return _URL.match(text) is not None


def scheme_of(text: str) -> str:
    """Return the scheme of a URL in lower case; ``file`` for a path.

    Example:
        >>> scheme_of("S3://bucket/photos"), scheme_of("photos")
        ('s3', 'file')
    """
    match = _URL.match(text)
    return match[1].lower() if match else "file"


def redacted(text: str) -> str:
    """Remove user names, passwords and queries, which may hold tokens, from the URLs in a text.

    Example:
        >>> redacted("https://me:secret@host/a.png?token=1234")
        'https://host/a.png'
    """
    return _QUERY.sub("", _USER.sub("", text)) if "://" in text else text


def expand_braces(pattern: str) -> Iterator[str]:
    """Expand ranges and lists in braces, one text at a time.

    Args:
        pattern: text with ``{first..last}``, zeros in front giving the width, or ``{one,other}``. Braces with neither,
            such as ``{}``, stay.

    Raises:
        ConfigError: a range runs backwards.

    Example:
        >>> list(expand_braces("{a,b}-{08..10}.tar"))
        ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar', 'b-09.tar', 'b-10.tar']
    """
    texts, choices = [], []
    end = 0
    for brace in _BRACE.finditer(pattern):
        values = _values(brace[1], pattern)
        if values is not None:
            texts.append(pattern[end : brace.start()])
            choices.append(values)
            end = brace.end()
    for chosen in itertools.product(*choices):
        yield "".join(itertools.chain.from_iterable(zip(texts, chosen, strict=True))) + pattern[end:]


def _values(content: str, pattern: str) -> list[str] | None:
    """Return the values of one pair of braces; None: it is no list or range."""
    bounds = _RANGE.fullmatch(content)
    if bounds:
        first, last = int(bounds[1]), int(bounds[2])
        if first > last:
            raise ConfigError(f"{redacted(pattern)}: the range {{{content}}} runs backwards")
        width = len(bounds[1]) if bounds[1].startswith("0") else 0
        return [f"{number:0{width}d}" for number in range(first, last + 1)]
    return content.split(",") if "," in content else None


def split_url(text: str) -> Location:
    """Split a URL or path into a root that `open_store` opens and what lies below.

    The root ends before the first part with a wildcard (``*``, ``?``, ``[``), else before the last part. The root of
    ``http(s)`` is the host, where a question mark begins a query.

    Example:
        >>> split_url("s3://lake/raw/*/a.jpg")
        Location(root='s3://lake/raw', path='*/a.jpg')
        >>> split_url("photos/a.jpg"), split_url("photos/")
        (Location(root='photos', path='a.jpg'), Location(root='photos', path=''))
    """
    match = _URL.match(text)
    start = match.end() if match else 0
    if scheme_of(text) in ("http", "https"):
        host, _, path = text[start:].partition("/")
        return Location(text[:start] + host, path)
    wildcard = re.search(r"[*?\[]", text[start:])
    end = text.rfind("/", start, start + wildcard.start() if wildcard else len(text))
    if end < start:  # no slash: a bucket, or a file of the current folder
        return Location(text, "") if match and not wildcard else Location(text[:start] or ".", text[start:])
    return Location(text[:end] or "/", text[end + 1 :])


def check_scheme(url: str, *, processes: int = 1, for_writing: bool = False) -> None:
    """Refuse a URL that cannot be opened here.

    Args:
        url: the URL.
        processes: number of processes that open it.
        for_writing: whether it is a target.

    Raises:
        ConfigError: unknown scheme, missing package, credentials in the URL, a target that can only be read, or memory
            with more than one process.
    """
    scheme = scheme_of(url)
    if scheme == "file":
        return
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in ("file", *SCHEMES))
        raise ConfigError(f"{redacted(url)}: unknown scheme {scheme}://; known are {known}")
    if _USER.search(url):
        raise ConfigError(
            f"{redacted(url)}: credentials do not belong in a URL; give them by environment variables or by a"
            " configuration file, on each machine that works"
        )
    needs = SCHEMES[scheme]
    if for_writing and not needs.writable:
        raise ConfigError(f"{redacted(url)}: {scheme}:// can be read only; choose another target")
    if scheme == "memory" and processes > 1:
        raise ConfigError(f"{url}: memory:// is seen by one process only; use a folder, or one worker in this process")
    for package in ("fsspec", needs.package):
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f'{redacted(url)}: {scheme}:// needs the package {package}: pip install "ohmq[{needs.extra}]"'
            )
