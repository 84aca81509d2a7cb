"""What `import fo_onnx` loads: the core, and none of the heavy packages that it works with."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "tensorflow",
    "jax",
    "onnx",
    "onnxruntime",
    "pyarrow",
    "matplotlib",
    "pandas",
    "click",
    "tqdm",
    "orjson",
)


def loaded_by(code: str) -> set[str]:
    """The heavy packages in ``sys.modules`` of a fresh interpreter after `code`."""
    listing = f"import sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{listing}"], capture_output=True, text=True, check=True)
    return set(eval(done.stdout.splitlines()[-1]))


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("import fo_onnx") == set()


def test_importing_every_verb_loads_nothing_heavy():
    assert loaded_by("from fo_onnx import *") == set()


def test_the_torch_plugin_does_not_load_torch():
    code = "from fo_onnx.models import plugins; plugins.exporter_for(lambda x: x); list(plugins.source_factories())"
    assert "torch" not in loaded_by(code)


@pytest.mark.parametrize("module", ["onnx", "pyarrow"])
def test_the_test_can_fail(module):
    assert module in loaded_by(f"import fo_onnx, {module}")


def test_numpy_models_run_without_a_framework():
    code = "import fo_onnx as fo, numpy as np; fo.generate(lambda x: x @ np.eye(3), np.eye(3)).probs"
    assert not loaded_by(code) & {"torch", "tensorflow", "jax", "onnx", "onnxruntime", "pyarrow"}


def test_the_errors_are_there_at_once():
    assert loaded_by("import fo_onnx; assert issubclass(fo_onnx.errors.StoreExistsError, fo_onnx.StoreError)") == set()
