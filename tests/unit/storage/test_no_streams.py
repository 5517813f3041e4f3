"""No stream is opened for writing on a store: one that an exception passes commits the bytes written so far."""

import ast
from pathlib import Path

import pytest

import ohmq

SOURCE = Path(ohmq.__file__).parent
FILES_ONLY = {"tarfile", "Image", "temporary", "zipfile", "gzip"}
"""Names whose ``open`` takes local files or file objects, and no URL."""


def writing_streams(source: str) -> list[int]:
    """Return the lines with ``x.open(...)`` for writing."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        name, owner = node.func.attr, node.func.value
        if name in ("open_output_stream", "open_append_stream"):
            lines.append(node.lineno)
        if name not in ("open", "open_async") or (isinstance(owner, ast.Name) and owner.id in FILES_ONLY):
            continue
        modes = [*node.args[:2], *(word.value for word in node.keywords if word.arg == "mode")]
        texts = [set(str(mode.value)) for mode in modes if isinstance(mode, ast.Constant)]
        if any(text <= set("rwaxbt+") and text & set("wax+") for text in texts):
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize("package", ["storage", "bulk"])
def test_no_stream_is_opened_for_writing(package: str) -> None:
    found = {path.name: writing_streams(path.read_text()) for path in (SOURCE / package).rglob("*.py")}
    assert found and {name: lines for name, lines in found.items() if lines} == {}


def test_the_search_finds_them() -> None:
    bad = ["fs.open(url, 'wb')", "self.fs.open(url, mode='xb')", "fsspec.open(url, 'w')", "fs.open_output_stream(url)"]
    good = ["open(path, 'wb')", "fs.open(url)", "fs.open(url, 'rb')", "tarfile.open(fileobj=file, mode='w')"]
    assert [len(writing_streams(text)) for text in bad + good] == [1, 1, 1, 1, 0, 0, 0, 0]
