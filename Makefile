# make demo: compress and decompress real images with a shipped model.   make test: all tests.
# make check: format, lint, types, imports, spelling, links, numbers, licences.
# make format: put the code in form.
# make package: wheel and source distribution into dist/, used in an empty environment.
# make docs: the documentation, into site/; a warning is an error.
PYTHON ?= python3
BIN := .venv/bin
DATA ?=
JOBS ?= 2

.PHONY: demo test check format package docs clean help
help:
	@sed -n 's/^# //p' Makefile

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	touch $@

demo: .venv/.installed
	$(BIN)/python examples/demo.py $(if $(DATA),--data $(DATA))

test: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal

check: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python tools/check_prose.py
	$(BIN)/python tools/check_numbers.py
	$(BIN)/python tools/list_dependencies.py

format: .venv/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

package: .venv/.installed
	$(BIN)/python tools/check_package.py

docs: .venv/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "site/index.html opens from the disk; its search needs: $(PYTHON) -m http.server -d site"

clean:
	rm -rf .venv build dist site demo-output .mypy_cache .ruff_cache .hypothesis .import_linter_cache
