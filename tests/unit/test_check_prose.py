"""The check of Markdown files finds dead links, dead paths and phrases, and nothing in code."""

import importlib.util
from pathlib import Path

SPEC = importlib.util.spec_from_file_location("check_prose", Path(__file__).parents[2] / "tools" / "check_prose.py")
assert SPEC is not None and SPEC.loader is not None
tool = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tool)


def test_problems_are_found_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "b.md").write_text('# The `b` page\n\n<a id="mark"></a>\n')
    page = tmp_path / "a.md"
    page.write_text(
        "[well](docs/b.md#the-b-page), [well](docs/b.md#mark), [other site](https://example.org/x)\n"
        "[dead](docs/c.md)\n[dead](docs/b.md#no-heading) and `docs/gone.py`, `docs/b.md`\n"
        "```\n[in code](nowhere.md) so many\n```\nUse so many.\n"
    )
    assert list(tool.problems(page, tmp_path)) == [
        "a.md:3: no file docs/gone.py",
        "a.md:2: no file docs/c.md",
        "a.md:3: docs/b.md has no heading #no-heading",
        "a.md:7: 'so many': give the number",
    ]
