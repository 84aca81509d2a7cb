# Every target makes its own virtual environment in .venv; only Python >= 3.11 and the package index are needed.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check test-all coverage bench clean

demo: .venv/.user
	$(BIN)/fo-onnx demo

test: .venv/.dev
	$(BIN)/python -m pytest -m "not slow"

test-all: .venv/.dev
	$(BIN)/python -m pytest

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_public_names.py

coverage: .venv/.dev
	$(BIN)/python tests/coverage/table.py --write

bench: .venv/.dev
	$(BIN)/python -m benchmarks.bench_engine
	$(BIN)/python -m benchmarks.bench_import

clean:
	rm -rf .venv demo dist build

.venv/.made:
	$(PYTHON) -m venv .venv
	touch $@

.venv/.user: .venv/.made pyproject.toml constraints.txt
	$(INSTALL) --editable '.[demo]'
	touch $@

.venv/.dev: .venv/.user pyproject.toml constraints.txt
	$(INSTALL) --editable '.[all,dev]'
	touch $@
