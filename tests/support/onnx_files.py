"""Small ONNX classifiers made node by node, without any framework."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

FEATURES, CLASSES = 6, 4
WEIGHTS = np.random.default_rng(7).standard_normal((FEATURES, CLASSES)).astype(np.float32) * 2


def rows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, FEATURES)).astype(np.float32)


def expected(x: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """What a linear classifier with softmax gives, in float64."""
    z = x.astype(np.float64) @ WEIGHTS.astype(np.float64) / temperature
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def linear(
    path: Path,
    *tail: onnx.NodeProto,
    output: str = "z",
    weights: np.ndarray = WEIGHTS,
    batch: int | str = "batch",
    opset: int = 18,
    dtype: int = TensorProto.FLOAT,
    shape: list | None = None,
    more_outputs: tuple[str, ...] = (),
    initializers: dict[str, np.ndarray] | None = None,
) -> Path:
    """z = x·W, then the nodes of `tail`, written to `path`."""
    constants = {"w": weights, **(initializers or {})}
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["z"]), *tail],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, weights.shape[0]])],
        [
            helper.make_tensor_value_info(output, dtype, [batch, weights.shape[1]] if shape is None else shape),
            *(helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in more_outputs),
        ],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def node(op: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, **attributes)


def write_graph(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    constants: dict[str, Any],
    *,
    opsets: dict[str, int] | None = None,
    ir_version: int = 8,
) -> Path:
    """A file of any graph, which nothing checks; inputs and outputs are (type, shape) by name."""
    infos = [
        [helper.make_tensor_value_info(name, *of) for name, of in tensors.items()] for tensors in (inputs, outputs)
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", *infos, tensors)
    sets = [helper.make_opsetid(*s) for s in ({"": 17} if opsets is None else opsets).items()]
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=ir_version), path)
    return path


def convolutional(path: Path, batch: int | str = "batch") -> Path:
    """Three convolutions over images (3, 8, 8), with a pool between them, and a linear layer: logits (batch, 4)."""
    rng = np.random.default_rng(3)
    shapes = {"a": (8, 3, 3, 3), "b": (8, 8, 3, 3), "c": (8, 8, 3, 3), "w": (8, 4)}
    constants = {name: rng.standard_normal(shape).astype(np.float32) * 0.3 for name, shape in shapes.items()}
    nodes = [
        node("Conv", ["x", "a"], ["a1"], pads=[1, 1, 1, 1]), node("Relu", ["a1"], ["a2"]),
        node("MaxPool", ["a2"], ["a3"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["a3", "b"], ["b1"], pads=[1, 1, 1, 1]), node("Relu", ["b1"], ["b2"]),
        node("Conv", ["b2", "c"], ["c1"], pads=[1, 1, 1, 1]), node("Relu", ["c1"], ["c2"]),
        node("GlobalAveragePool", ["c2"], ["p"]), node("Flatten", ["p"], ["f"]), node("Gemm", ["f", "w", "v"], ["z"]),
    ]  # fmt: skip

    def write(size: int | str) -> Path:
        x, z = (TensorProto.FLOAT, [size, 3, 8, 8]), (TensorProto.FLOAT, [size, 4])
        return write_graph(path, nodes, {"x": x}, {"z": z}, constants)

    # The logits are standardised over rows; they would be nearly the same for all of them.
    constants["v"] = np.zeros(4, np.float32)
    logits = run_in_onnx_runtime(write("batch"), x=images(256, seed=9))
    scale = 5 * logits.std(axis=0)
    constants["w"] /= scale
    constants["v"] = -logits.mean(axis=0) / scale
    return write(batch)


def images(n: int, seed: int = 0) -> np.ndarray:
    """Rows for `convolutional`."""
    return np.random.default_rng(seed).standard_normal((n, 3, 8, 8)).astype(np.float32)


def run_in_onnx_runtime(path: Path, **feed: np.ndarray) -> np.ndarray:
    """What ONNX Runtime gives for the first output, without fo-onnx."""
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feed)[0]
