"""A short run of tools/check_kills.py, and a check that it finds errors."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Load the tool as a module; each command is a process of its own, as this one has threads."""
    spec = importlib.util.spec_from_file_location("check_kills", ROOT / "tools" / "check_kills.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "OWN_PROCESS_EVERY", 1)
    return module


def test_kills_before_the_end_are_counted_apart(tool: ModuleType, tmp_path: Path) -> None:
    """Truncation takes no model, so that it is quick."""
    line = ["truncate", str(ROOT / "tests" / "golden" / "context_layers.ohm"), "--layers", "2", "-o"]
    kind = tool.Kind("truncate", tmp_path, lambda out: [*line, str(out)], "--force", "out.ohm")
    kind.prepare()
    record: dict[str, Any] = tool.new_record()
    while record["kills"] < 2:
        assert tool.run_case("truncate", [kind], record, tmp_path, 1) == ""
    assert record["wrong"] == [] and sum(record["moments"]) == 2
    assert record["cases"] == 2 + record["too_late"] == tool.checked(record) + record["too_late"]

    kind.seconds[True] *= 100  # a moment far beyond the end
    case = record["cases"]
    assert tool.run_case("truncate", [kind], record, tmp_path, 1) == ""
    assert (record["cases"], record["kills"]) == (case + 1, 2)
    assert kind.seconds[True] < 30  # measured by the command that ended

    (kind.reference / "out.ohm").write_bytes(b"other")
    assert "is not what an undisturbed command writes" in tool.run_case("truncate", [kind], record, tmp_path, 1)
    assert (len(record["wrong"]), record["kills"], tool.checked(record)) == (1, 2, 3)
    assert (tmp_path / f"wrong-truncate-{case + 1}" / "out.ohm").exists()
