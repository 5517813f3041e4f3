"""The list of dependencies: requirements of requirements, and licences that are not allowed."""

import importlib.util
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location(
    "list_dependencies", Path(__file__).parents[2] / "tools" / "list_dependencies.py"
)
assert SPEC is not None and SPEC.loader is not None
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)


def test_the_closure_has_indirect_requirements_of_the_asked_extras_only() -> None:
    core, compiled = tool.closure(tool.project()), tool.closure(tool.project(frozenset(["compiled"])))
    assert {"torch", "sympy", "mpmath"} <= set(core)  # torch requires sympy, which requires mpmath
    assert "pytest" not in core and "ohmq" not in core
    assert set(compiled) - set(core) >= {"llvmlite"}
    assert set(tool.closure(["ohmq[compiled]"])) == set(compiled)
    assert tool.closure(["no-such-package; sys_platform == 'no-such-platform'"]) == {}


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("MIT", []),
        ("BSD-2-Clause AND (Apache-2.0 WITH LLVM-exception)", []),
        ("MIT AND GPL-3.0-only", ["GPL-3.0-only"]),
        ("Proprietary", ["Proprietary"]),
        ("", ["no licence stated"]),
    ],
)
def test_licences_that_are_not_allowed_are_named(expression: str, wanted: list[str]) -> None:
    assert tool.refused(expression) == wanted
