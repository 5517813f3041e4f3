"""The documentation: it builds without a warning, its examples run as typed, its commands exist.

In README.md and docs/, blocks fenced as ``sh`` and ``python`` are run, in order, in one folder a page; the commands of all
other blocks are parsed. A block of commands that takes too long for a test is fenced as ``text``.
"""

import ast
import importlib.util
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import click
import pytest
from PIL import Image

from ohmq.cli import cli, published_compress, published_train

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "ohmq"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)(?:\{[^\n]*\})?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN = ("sh", "python")
MINUTES = 10


class Block(NamedTuple):
    """A fenced block: its kind and its text."""

    kind: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(*match) for match in FENCE.findall(page.read_text(encoding="utf-8"))]


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- the site --


class Page(HTMLParser):
    """A built page: its anchors, the addresses it fetches, its formulas and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.fetched: list[str] = []
        self.formulas = 0
        self.text: list[str] = []
        self.options: set[str] = set()
        self._code = 0
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("id"):
            self.anchors.add(str(values["id"]))
        if tag in ("script", "img", "iframe", "source") and values.get("src"):
            self.fetched.append(str(values["src"]))
        if tag == "link" and values.get("href") and values.get("rel") not in ("canonical", "next", "prev"):
            self.fetched.append(str(values["href"]))
        self.formulas += tag == "math"
        self._code += tag in ("code", "pre", "script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag in ("code", "pre", "script", "style")

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.text.append(data)
        self.options.update(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", data))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation, built strictly: a warning is an error."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60 * MINUTES, check=False
    )
    assert built.returncode == 0, built.stderr
    return target


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {str(path.relative_to(site)): Page(path) for path in sorted(site.rglob("*.html"))}


def test_every_page_is_built_and_needs_no_other_site(site: Path, pages: dict[str, Page]) -> None:
    for page in PAGES[1:]:
        assert str(page.relative_to(ROOT / "docs").with_suffix(".html")) in pages
    for name, page in pages.items():
        assert page.fetched
        assert not [address for address in page.fetched if "//" in address], name
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_maths_and_examples_are_rendered(pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        assert "doctest:" not in "".join(page.text), f"{name}: an example that is not read as one"
        assert not re.search(r"\$\$|\\[(\[]|\\(?:frac|mathrm|sum)", "".join(page.text)), name
    for name in (
        "how-it-works",
        "experiments/digits-training",
        "api/quantizers",
        "api/priors",
        "api/evaluation",
        "api/training",
    ):
        assert pages[f"{name}.html"].formulas > 0, name


def test_every_command_and_option_is_in_the_reference(pages: dict[str, Page]) -> None:
    page = pages["commands.html"]
    found = 0
    for command, context in tool("mkdocs_commands").commands(cli, click.Context(cli, info_name="ohmq")):
        assert context.command_path.replace(" ", "-") in page.anchors
        for option in command.get_params(context):
            if isinstance(option, click.Option) and not option.hidden:
                assert set(option.opts) - page.options <= {"-h", "--help"}, context.command_path
                found += 1
    assert found > 100


def test_every_public_function_and_class_is_documented(pages: dict[str, Page]) -> None:
    anchors = set().union(*(page.anchors for page in pages.values()))
    wanted = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        if "cli" in parts or parts[-1] == "__main__":
            continue
        module = ".".join(part for part in parts if part != "__init__")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        exported: set[str] = set()
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                exported = set(ast.literal_eval(node.value))
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name in exported:
                wanted.append(f"{module}.{node.name}")
    assert len(wanted) > 100
    assert [name for name in wanted if name not in anchors] == []


def test_the_short_forms_of_docstrings_are_read() -> None:
    normalise = tool("griffe_items").normalise
    text = """What.

Args:
    data: the file. width, height: in
    pixels. Not: an item. table: by [a][b].

Shape:
    data: untouched. width: too.

Raises:
    ValueError: one. TypeError: two.

References: A and B,
    a paper.

Example:
    >>> 1
"""
    wanted = """What.

Args:
    data: the file.
    width: in
        pixels. Not: an item.
    height: in
        pixels. Not: an item.
    table: by [a]\\[b].

Shape:
    data: untouched. width: too.

Raises:
    ValueError: one.
    TypeError: two.

References: A and B, a paper.

Examples:
    >>> 1
"""
    assert normalise(text, {"data", "width", "height", "table"}) == wanted
    assert normalise("One line.", set()) == "One line."


def test_a_formula_that_is_none_stops_the_build() -> None:
    maths = tool("mkdocs_maths")

    class File:
        src_uri = "page.md"

    class SomePage:
        file = File()

    content = r'<p>a <span class="arithmatex">\(x &lt; 1\)</span></p>'
    assert "<mo>&lt;</mo><mn>1</mn></math>" in maths.on_page_content(content, page=SomePage())
    with pytest.raises(Exception, match=r"page\.md: formula .*nonsense"):
        maths.on_page_content(content.replace("(x", r"(\nonsense"), page=SomePage())
    assert maths.to_mathml(r"a, \quad b", display=True).count("<mtr>") == 2


# -- the examples --


def script(page: Path, folder: Path, port: int) -> str:
    """Write a page's examples as a shell script, which waits for a server in the background and stops it at the end."""
    lines = ["set -euo pipefail", "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"]
    for number, (kind, text) in enumerate(blocks(page)):
        text = text.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace("--port 8000", f"--port {port}")
        if kind == "sh":
            lines.append(text)
            if text.rstrip().endswith("&"):
                lines.append(
                    f"until (: < /dev/tcp/127.0.0.1/{port}) 2>/dev/null; do jobs %1 >/dev/null; sleep 0.1; done"
                )
        elif kind == "python":
            (folder / f"block_{number}.py").write_text(text, encoding="utf-8")
            lines.append(f"python block_{number}.py")
    return "\n".join(lines)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.kind in RUN for block in blocks(page))], ids=page_name
)
def test_the_examples_run_as_typed(page: Path, tmp_path: Path) -> None:
    work, programs = tmp_path / "work", tmp_path / "bin"
    work.mkdir()
    programs.mkdir()
    for name, call in (("python", ""), ("ohmq", "-m ohmq ")):
        (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {call}"$@"\n')
        (programs / name).chmod(0o755)
    shutil.copytree(ROOT / "examples", work / "examples")
    shutil.copy(ROOT / "compress.py", work)
    if page.name == "README.md":  # measuring and comparing take long: one photo, and a part of it
        for photo in ("astronaut.png", "chelsea.png"):
            (work / "examples" / "photos" / photo).unlink()
        coffee = work / "examples" / "photos" / "coffee.png"
        with Image.open(coffee) as image:
            part = image.crop((160, 100, 448, 292))
        part.save(coffee)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = script(page, work, port)
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(SOURCE.parent),
    }
    done = subprocess.run(
        ["bash", "-c", text],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60 * MINUTES,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for output in re.findall(r" (?:-o|--output_dir|--progressive) (\S+)", text):
        assert (work / output).exists(), output
    assert not list(work.rglob("*.part"))


def test_the_quick_tour_is_short() -> None:
    tour = (ROOT / "README.md").read_text(encoding="utf-8").split("[start:tour]")[1].split("[end:tour]")[0]
    assert len(tour.splitlines()) <= 60


def test_the_messages_of_troubleshooting_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    sources = [path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")]
    messages = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert len(messages) > 5
    for message in messages:
        pieces = [piece.strip() for piece in message.split("…")]
        assert any(all(piece in source for piece in pieces) for source in sources), message


class Command(NamedTuple):
    """A call in a page."""

    page: str
    words: tuple[str, ...]


def commands() -> list[Command]:
    """List every call of ohmq, train.py and compress.py in a fenced block."""
    calls = []
    for page in PAGES:
        for kind, text in blocks(page):
            if kind == "python":
                continue
            for line in text.replace("\\\n", " ").splitlines():
                try:
                    words = shlex.split(line, comments=True)
                except ValueError:
                    continue  # a drawing or a table
                words = words[: next((i for i, word in enumerate(words) if word in ("&", "|", ">", "&&")), None)]
                if words[:1] == ["ohmq"] or (words[:1] == ["python"] and words[1] in ("train.py", "compress.py")):
                    calls.append(Command(page_name(page), tuple(words[words[0] == "python" :])))
    return sorted(set(calls))


def test_there_are_commands_of_every_kind() -> None:
    names = {words[1] if words[0] == "ohmq" else words[0] for _, words in commands()}
    assert {"compress", "decompress", "truncate", "info", "evaluate", "compare", "train", "export"} < names
    assert {"train.py", "compress.py"} < names


@pytest.mark.parametrize(
    "command", commands(), ids=lambda command: f"{command.page}: {' '.join(command.words)}"[:80] if command else ""
)
def test_the_commands_have_options_that_exist(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    program, *words = command.words
    if program == "ohmq":
        # Files that a reader would have are not here.
        monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: Path(value))
        parse(cli, words)
    else:
        parser: Any = {"train.py": published_train, "compress.py": published_compress}[program].build_parser()
        parser.parse_args(words)


def parse(command: click.Command, words: list[str]) -> None:
    """Parse words as a command line, with subcommands, and run nothing."""
    context = command.make_context(command.name, list(words))
    if isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        name, inner, rest = command.resolve_command(context, rest)
        assert inner is not None, name
        parse(inner, rest)


def test_a_wrong_option_would_be_found() -> None:
    with pytest.raises(click.UsageError):
        parse(cli, ["compress", "a.png", "-o", "b.ohm", "--no-such-option"])
    with pytest.raises(click.UsageError):
        parse(cli, ["no-such-command"])
