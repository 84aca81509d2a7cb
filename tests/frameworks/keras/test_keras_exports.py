"""Every kind of Keras model gives in ONNX the rows that Keras gives, and is left as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("keras")
from keras_cases import CASES
from keras_truth import check_in_onnx

QUICK = [n for n, c in CASES.items() if c.onnx and not c.slow]
SLOW = [pytest.param(n, marks=pytest.mark.slow) for n, c in CASES.items() if c.onnx and c.slow]
ELSEWHERE = ("dict_in", "subclassed_dict", "mixed_bf16")
"""Those that run on the other backends by default."""
TENSORFLOW_ONLY = ("custom_tf_ops", "lstm_dyn_time")
"""Those of TensorFlow's own operators, and those that run natively elsewhere (see ``any_length`` in other_backend.py)."""


@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_onnx_gives_keras_rows(name: str) -> None:
    check_in_onnx(name)


def elsewhere(backend: str, *names: str, timeout_s: int = 280) -> None:
    pytest.importorskip(backend)
    found = subprocess.run(
        [sys.executable, str(Path(__file__).parents[2] / "support" / "other_backend.py"), *names],
        env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True, timeout=timeout_s,
    )  # fmt: skip
    assert found.stdout.split() == ["done", *names], f"{found.stdout}{found.stderr[-4000:]}"


@pytest.mark.parametrize("backend", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_on_another_backend(backend: str) -> None:
    elsewhere(
        backend,
        *ELSEWHERE,
        "any_length",
        "closure",
        "devices",
        "half",
        "sigmoid",
        "counting",
        "misfit",
        "identity",
        "text",
    )


@pytest.mark.slow
@pytest.mark.timeout(1300)
@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_every_kind_on_another_backend(backend: str) -> None:
    names = [n for n in QUICK if n not in (*ELSEWHERE, *TENSORFLOW_ONLY)]
    # Keras' loop on torch asks the mask's values whether there is anything to do.
    names = ["masked" if (backend, n) == ("torch", "lstm_mask_emb") else n for n in names]
    elsewhere(backend, *names, timeout_s=1200)


def test_on_a_backend_without_graphs() -> None:
    elsewhere("numpy", "without_graphs", "counting")
