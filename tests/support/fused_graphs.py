"""Graphs in ONNX's text syntax, fused, and run with and without."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort

from fo_onnx.fusions.fused_graph import fuse_graph


def model_of(text: str, opset: int = 18, **constants: object) -> onnx.ModelProto:
    """Return a model of a graph in text, with constants by name; what is no array is a float32."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> g {text}')
    for name, value in constants.items():
        array = value if isinstance(value, np.ndarray) else np.asarray(value, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


def run(model: onnx.ModelProto, **feed: np.ndarray) -> np.ndarray:
    """Return the first output."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


def counts_of(model: onnx.ModelProto) -> dict[str, int]:
    """Return what is fused in a graph."""
    fused = fuse_graph(model)
    return {} if fused is None else fused.counts


def assert_same_fused(model: onnx.ModelProto, counts: dict[str, int], **feed: np.ndarray) -> onnx.ModelProto:
    """Check that so many nodes are fused, and that the graph gives the same; return it."""
    before = model.SerializeToString()
    fused = fuse_graph(model)
    assert fused is not None
    assert fused.counts == counts
    operators = [node.op_type for node in fused.model.graph.node]
    assert all(sum(o.endswith(kind) for o in operators) == count for kind, count in counts.items() if kind != "Softmax")
    expected, values = run(model, **feed), run(fused.model, **feed)
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-5)
    assert model.SerializeToString() == before
    return fused.model
