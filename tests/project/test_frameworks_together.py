"""JAX, Keras and torch in one process, in any order of import, and each alone where the others are not installed."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[1] / "support" / "one_of_each.py"
ORDERS = list(itertools.permutations(("torch", "keras", "jax")))
QUICK = {("jax", "keras", "torch")}


def ran(*arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments], capture_output=True, text=True, timeout=280, check=False,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "order",
    [pytest.param(o, marks=[] if o in QUICK else [pytest.mark.slow], id=", ".join(o)) for o in ORDERS],
)
def test_all_in_one_process(order: tuple[str, ...]) -> None:
    found = ran(*order)

    for framework in order:
        assert found[framework]["framework"] == framework
        assert (found[framework]["kind"], found[framework]["reason"]) == ("onnx", None)
        assert found[framework]["max_tv"] < 1e-5


@pytest.mark.parametrize(
    ("framework", "without"),
    [("torch", ["tensorflow", "keras", "jax", "jaxlib"]), ("keras", ["torch", "jax", "jaxlib"]),
     ("jax", ["torch"])],
)  # fmt: skip
def test_alone(framework: str, without: list[str]) -> None:
    found = ran(framework, *(a for name in without for a in ("--without", name)))

    assert (found[framework]["kind"], found[framework]["reason"]) == ("onnx", None)
    assert found[framework]["max_tv"] < 1e-5
    assert not set(found["loaded"]) & set(without)


def test_jax_without_tensorflow_runs_natively_and_says_what_is_missing() -> None:
    found = ran("jax", *(a for name in ("torch", "tensorflow", "keras") for a in ("--without", name)))["jax"]

    assert found["kind"] == "native"
    assert "pip install 'fo-onnx[jax]'" in found["reason"]
    assert found["max_tv"] < 1e-5


def test_keras_without_tf2onnx_runs_natively_and_says_what_is_missing() -> None:
    found = ran("keras", "--without", "tf2onnx")["keras"]

    assert found["kind"] == "native"
    assert "pip install 'fo-onnx[keras]'" in found["reason"]
    assert found["max_tv"] < 1e-5
