"""Models whose parts are slow, each on its own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from onnx_files import WEIGHTS, linear, rows

import fo_onnx as fo
from fo_onnx.contracts.options import ModelOptions, OutputOptions, RunOptions
from fo_onnx.contracts.spec import ModelSpec
from fo_onnx.models.callables import CallableExporter, CallableModel
from fo_onnx.runtime.request import RunRequest


class Model:
    """Of a framework of its own, each part of which can be slow. Rows are x·W."""

    export_s = digest_s = native_s = forward_s = one_row_s = nan_s = empty_s = 0.0
    fails = False
    reason: str | None = None


class Exporter:
    """The plugin of `Model`, as far as it is asked."""

    name, modules = "slow", ()

    def versions(self) -> dict[str, str]:
        return {}

    def prefer_native(self, model: Model, example: Any) -> str | None:
        return model.reason

    def fingerprint(self, model: Model, example: Any) -> str:
        time.sleep(model.digest_s)
        return "0" * 64

    def native(self, model: Model, example: Any, *rest: Any) -> Any:
        time.sleep(model.native_s)

        def forward(x: np.ndarray) -> np.ndarray:
            nan, empty, one = np.isnan(x).any(), len(x) == 0, len(x) == 1
            time.sleep(model.nan_s if nan else model.empty_s if empty else model.one_row_s if one else model.forward_s)
            return x @ WEIGHTS

        return CallableModel(forward, CallableExporter().native(forward, example, *rest).spec, None)

    def export(self, model: Model, example: Any, path: Path, *rest: Any) -> ModelSpec:
        time.sleep(model.export_s)
        if model.fails:
            raise fo.ExportError("it cannot be exported")
        linear(path)
        return fo.OnnxModel.open(path).spec


def request(model: Model, example: np.ndarray | None = None, **run: Any) -> RunRequest:
    x = rows(64) if example is None else example
    options = RunOptions(device="cpu", batch_size=16, **run)
    return RunRequest(model, Exporter(), {"0": x}, len(x), ModelOptions(), OutputOptions("logits"), options)  # type: ignore[arg-type]
