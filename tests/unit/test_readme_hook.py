"""The README on the package index: no picture and no link leads nowhere."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    interface = SimpleNamespace(MetadataHookInterface=object)  # hatchling is there only while a package is built
    for name in ("hatchling", "hatchling.metadata", "hatchling.metadata.plugin", "hatchling.metadata.plugin.interface"):
        monkeypatch.setitem(sys.modules, name, interface)  # type: ignore[arg-type]
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_repository(hook: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text()
    shown = hook.standalone(readme, None)
    assert re.findall(r"!?\[[^\]]*\]\((?!https?:)[^)]*\)", shown) == []
    assert "*A detail of" in readme and "*A detail of" not in shown
    for line in readme.splitlines():
        if line.startswith("## ") or line.startswith("* **"):
            assert line.partition("[")[0] in shown


def test_with_a_repository(hook: ModuleType) -> None:
    text = "![A](docs/a.png)\n\n*Caption.*\n\n[b](b.md) and [c](https://example.org)\n"
    assert hook.standalone(text, "https://example.org/o/r/") == (
        "![A](https://example.org/o/r/raw/HEAD/docs/a.png)\n\n*Caption.*\n\n"
        "[b](https://example.org/o/r/blob/HEAD/b.md) and [c](https://example.org)\n"
    )
    assert hook.standalone(text, None) == "\n\nb and [c](https://example.org)\n"
