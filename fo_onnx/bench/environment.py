"""What a benchmark depends on: the machine, the versions, the model."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from ..contracts.batch import Inputs
from ..models.resolve import ResolvedModel
from ..runtime.devices import cpu_cores
from ..runtime.session import runtime
from ..version import __version__
from .limits import Machine


def describe_environment(resolved: ResolvedModel, inputs: Inputs, machine: Machine, device: str) -> dict[str, Any]:
    """Return machine, versions, precision, model, what a row is, and commit, as JSON types."""
    model = resolved.onnx.spec.name if resolved.onnx is not None else type(resolved.model).__name__
    return {
        **describe_machine(),
        "flops_per_s": machine.flops_per_s,
        "bytes_per_s": machine.bytes_per_s,
        "device": device,
        "precision": "float32",
        "model": model,
        "row": {name: f"{array.dtype} {list(array.shape[1:])}" for name, array in inputs.items()},
        "versions": {
            "fo_onnx": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "onnxruntime": str(runtime().__version__),
            **({} if resolved.plugin is None else resolved.plugin.versions()),
        },
    }


def describe_machine() -> dict[str, Any]:
    """Return the processor, the cores that may be used, and the commit of the folder that the benchmark runs in."""
    return {"processor": _processor(), "cores": cpu_cores(), "commit": _commit()}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _commit() -> str | None:
    """Return the commit of the folder that the benchmark runs in, if it is one of git's."""
    completed = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return completed.stdout.strip() or None
