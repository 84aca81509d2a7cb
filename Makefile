# Every target makes its own virtual environment in .venv; only Python >= 3.11 and the package index are needed.
PYTHON ?= python3
BIN := .venv/bin
# Both took less than 8 GB of memory together; the tests of a file stay in one of them, since they share models.
WORKERS := --numprocesses 2 --dist loadfile
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-core check test-all coverage bench bench-all bench-openvino clean

demo: .venv/.user
	$(BIN)/fo-onnx demo

# The faults fork a process at every call: one that has imported all frameworks takes ten times as long for it.
test: .venv/.dev
	$(BIN)/python -m pytest $(WORKERS) -m "not slow" tests/faults
	$(BIN)/python -m pytest $(WORKERS) -m "not slow" --durations=40 --ignore tests/faults

# The inner loop: the core, as if no framework was installed.
test-core: .venv/.core
	$(BIN)/python -m pytest $(WORKERS) -q -m "not slow" --without-frameworks tests/core

test-all: .venv/.all .venv-openvino/.core
	$(BIN)/python -m pytest $(WORKERS) tests/faults
	$(BIN)/python -m pytest $(WORKERS) --ignore tests/faults
	.venv-openvino/bin/python -m pytest -q -m openvino --without-frameworks tests/core

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/core/test_public_names.py

coverage: .venv/.dev
	$(BIN)/python tests/coverage/table.py --write

bench: .venv/.dev
	$(BIN)/python -m benchmarks.bench_models
	$(BIN)/python -m benchmarks.bench_import

bench-all: .venv/.all
	$(BIN)/python -m benchmarks.bench_models --all --docs

bench-openvino: .venv/.dev .venv-openvino/.core
	$(BIN)/python -m benchmarks.bench_openvino --python .venv-openvino/bin/python

# Removes what these targets make, and nothing else that may lie there.
clean:
	for venv in .venv .venv-openvino; do test ! -f $$venv/.made || rm -rf $$venv; done
	rm -f dist/fo_onnx-*.whl dist/fo_onnx-*.tar.gz
	rm -f demo/digits.onnx demo/train.parquet demo/train.json demo/held-out.parquet demo/held-out.json
	for folder in demo dist; do test ! -d $$folder || rmdir --ignore-fail-on-non-empty $$folder; done

.venv/.made .venv-openvino/.made:
	@test ! -e $(@D) || { echo "$(@D) is there, and no target of this Makefile made it: move it away, or remove it."; exit 1; }
	$(PYTHON) -m venv $(@D)
	touch $@

# The two builds of ONNX Runtime overwrite each other.
.venv-openvino/.core: .venv-openvino/.made pyproject.toml constraints.txt
	.venv-openvino/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[openvino,images,test,rivals]'
	touch $@

.venv/.core: .venv/.made pyproject.toml constraints.txt
	$(INSTALL) --editable '.[cpu,images,test]'
	touch $@

.venv/.user: .venv/.made pyproject.toml constraints.txt
	$(INSTALL) --editable '.[demo]'
	touch $@

.venv/.dev: .venv/.user pyproject.toml constraints.txt
	$(INSTALL) --editable '.[all,dev]'
	touch $@

.venv/.all: .venv/.dev pyproject.toml constraints.txt
	$(INSTALL) --editable '.[all,dev-all]'
	touch $@
