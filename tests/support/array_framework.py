"""A framework of its own over numpy, whose models say both what the original gives and what the exported file does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_files import WEIGHTS, linear

from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.spec import InputSignature, ModelSpec, TensorSpec
from fo_onnx.errors import RunError
from fo_onnx.models import plugins


@dataclass
class Pair:
    """x·W as logits in the exported file, after nodes from z to z; `original` says what the original gives."""

    original: Callable[[np.ndarray], np.ndarray] = lambda x: x @ WEIGHTS
    nodes: tuple[onnx.NodeProto, ...] = ()
    output: str = "z"
    initializers: dict[str, np.ndarray] = field(default_factory=dict)


class PairExporter:
    """The plugin of `Pair`."""

    name, modules = "pair", ("array_framework",)

    def accepts(self, model: Any) -> bool:
        return isinstance(model, Pair)

    def signature(self, model: Pair) -> InputSignature | None:
        return None

    def versions(self) -> dict[str, str]:
        return {}

    def fingerprint(self, model: Pair, example: Inputs) -> str:
        return "0" * 64

    def native(self, model: Pair, example: Inputs, *rest: Any) -> Any:
        return _Native(model, example)

    def export(self, model: Pair, example: Inputs, path: Path, *rest: Any) -> ModelSpec:
        linear(path, *model.nodes, output=model.output, initializers=model.initializers)
        return ModelSpec(
            (TensorSpec("x", "float32", (None, 6)),),
            TensorSpec(model.output, "float32", (None, 4)),
            framework="pair",
            name="Pair",
        )


class _Native:
    device, original = "cpu", None

    def __init__(self, model: Pair, example: Inputs) -> None:
        self._model = model
        inputs = tuple(TensorSpec(n, str(a.dtype), (None, *a.shape[1:])) for n, a in example.items())
        self.spec = ModelSpec(inputs, TensorSpec("output", "float32", ()), framework="pair", name="Pair")

    def forward(self, inputs: Inputs) -> np.ndarray:
        try:
            return self._model.original(next(iter(inputs.values())))
        except ValueError as err:
            raise RunError(f"running Pair failed: {err}") from err

    def close(self) -> None:
        pass


@pytest.fixture
def pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Pair` is a framework's model."""
    exporters = {**plugins._all_entry_points(plugins.EXPORTERS)}
    exporters["pair"] = [EntryPoint("pair", "array_framework:PairExporter", plugins.EXPORTERS)]
    sources = plugins._all_entry_points(plugins.SOURCES)
    monkeypatch.setattr(
        plugins, "_all_entry_points", {plugins.EXPORTERS: exporters, plugins.SOURCES: sources}.__getitem__
    )
