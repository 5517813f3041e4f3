# make demo: compress and decompress real images with a shipped model.   make test: all tests.
# make check: format, lint, types, import contract.                      make format: put the code in form.
PYTHON ?= python3
BIN := .venv/bin
DATA ?=

.PHONY: demo test check format clean help
help:
	@sed -n 's/^# //p' Makefile

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	touch $@

demo: .venv/.installed
	$(BIN)/python examples/demo.py $(if $(DATA),--data $(DATA))

test: .venv/.installed
	$(BIN)/python -m pytest -q

check: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist demo-output .mypy_cache .ruff_cache .hypothesis .import_linter_cache
