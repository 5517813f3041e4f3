"""The tutorial notebook runs as it stands, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOK = EXAMPLES / "one_hot_max_in_your_model.ipynb"


def notebook_cells() -> list[dict[str, object]]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells: list[dict[str, object]] = notebook["cells"]
    return cells


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = notebook_cells()
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert {cell["cell_type"] for cell in cells} == {"markdown", "code"}
    for cell in cells:
        assert "".join(cell["source"]).strip()  # type: ignore[arg-type]
        if cell["cell_type"] == "code":
            assert (cell["execution_count"], cell["outputs"]) == (None, [])


def test_the_notebook_trains_codes_and_decodes() -> None:
    code = "\n\n".join("".join(cell["source"]) for cell in notebook_cells() if cell["cell_type"] == "code")  # type: ignore[arg-type]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLES.parent / "src")}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=EXAMPLES,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "20 images decode to the symbols that were coded" in result.stdout
