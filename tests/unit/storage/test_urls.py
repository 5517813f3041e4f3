import pytest

from ohmq.errors import ConfigError
from ohmq.storage import urls
from ohmq.storage.open_store import open_store
from ohmq.storage.urls import Location, expand_braces, is_url, redacted, split_url


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        ("plain.tar", ["plain.tar"]),
        ("a{}b", ["a{}b"]),
        ("{x}", ["{x}"]),
        ("a{8..10}", ["a8", "a9", "a10"]),
        ("a{008..010}", ["a008", "a009", "a010"]),
        ("{a,b}/{0..1}.tar", ["a/0.tar", "a/1.tar", "b/0.tar", "b/1.tar"]),
        ("{a,}x", ["ax", "x"]),
        ("data-{}-{1..2}", ["data-{}-1", "data-{}-2"]),
    ],
)
def test_expand_braces(pattern: str, texts: list[str]) -> None:
    assert list(expand_braces(pattern)) == texts


def test_a_thousand_shards() -> None:
    names = list(expand_braces("s3://lake/raw-{00000..00999}.tar"))
    assert len(names) == 1000 and names[0] == "s3://lake/raw-00000.tar" and names[-1] == "s3://lake/raw-00999.tar"


def test_backward_range() -> None:
    with pytest.raises(ConfigError, match=r"the range \{9\.\.1\} runs backwards"):
        list(expand_braces("a{9..1}"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:secret@bucket/a.png", "s3://bucket/a.png"),
        ("https://token@host/a.png?X-Amz-Signature=12&x=1", "https://host/a.png"),
        ("read https://me:pw@host/a?sig=1 and b", "read https://host/a and b"),
        ("abfs://photos@account.dfs.core.windows.net/a", "abfs://photos@account.dfs.core.windows.net/a"),
        ("s3://bucket/what?.png", "s3://bucket/what?.png"),
        ("me@home/a.png", "me@home/a.png"),
    ],
)
def test_redacted(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    ("text", "root", "path"),
    [
        ("s3://bucket", "s3://bucket", ""),
        ("s3://bucket/", "s3://bucket", ""),
        ("s3://bucket/a/b.tar", "s3://bucket/a", "b.tar"),
        ("s3://bucket/a/*.tar", "s3://bucket/a", "*.tar"),
        ("s3://bucket/a*/x/b.tar", "s3://bucket", "a*/x/b.tar"),
        ("https://host/a/b.png?t=a/b", "https://host", "a/b.png?t=a/b"),
        ("photos", ".", "photos"),
        ("*.png", ".", "*.png"),
        ("/a.png", "/", "a.png"),
        ("/photos/2026/", "/photos/2026", ""),
        ("file:///photos/*.png", "file:///photos", "*.png"),
    ],
)
def test_split_url(text: str, root: str, path: str) -> None:
    assert split_url(text) == Location(root, path)


def test_paths_are_no_urls() -> None:
    assert not is_url("/a/b") and not is_url("a:b") and is_url("GS://x/y")


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("ftp://host/a", {}, r"ftp://host/a: unknown scheme ftp://; known are file://, s3://"),
        ("s3://key:secret@bucket/a", {}, r"^s3://bucket/a: credentials do not belong in a URL"),
        ("https://host/a", {"for_writing": True}, "https:// can be read only"),
        ("hf://datasets/me/birds", {"for_writing": True}, "hf:// can be read only"),
        ("memory://a", {"processes": 2}, "memory:// is seen by one process only"),
    ],
)
def test_refused(url: str, options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_store(url, **options)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "package", "extra"), [("s3", "s3fs", "s3"), ("gs", "gcsfs", "gcs"), ("az", "adlfs", "azure")]
)
def test_missing_package(scheme: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = urls.importlib.util.find_spec
    monkeypatch.setattr(urls.importlib.util, "find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(ConfigError, match=rf'needs the package {package}: pip install "ohmq\[{extra}\]"'):
        open_store(f"{scheme}://bucket/a")
