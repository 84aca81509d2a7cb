"""The names of ONNX Runtime's fusions that sessions switch off are those of the installed version: unknown ones are passed over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from fused_graphs import model_of

from fo_onnx.runtime.session import SLOWER_FUSIONS


def operators_run(model: onnx.ModelProto, path: Path, disabled: list[str]) -> list[str]:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"], disabled_optimizers=disabled)
    return [node.op_type for node in onnx.load(path).graph.node]


def test_a_sum_and_its_layer_normalisation_stay_two_nodes(tmp_path: Path) -> None:
    text = (
        "(float[2, 5, 8] x, float[2, 5, 8] z) => (float[2, 5, 8] y) { s = Add(x, z)  y = LayerNormalization(s, w, b) }"
    )
    model = model_of(text, w=np.ones(8, np.float32), b=np.zeros(8, np.float32))
    assert operators_run(model, tmp_path / "by_default.onnx", []) == ["SkipLayerNormalization"]
    assert operators_run(model, tmp_path / "here.onnx", SLOWER_FUSIONS) == ["Add", "LayerNormalization"]
