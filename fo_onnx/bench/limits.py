"""How fast a model could run at most on this machine: its floating-point operations and bytes, and what the machine has shown.

Counted are the products and sums of matrix products, convolutions, recurrent layers and attention, and one operation per
number that any other node gives. Bytes are the rows, and the weights once per batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..runtime.devices import cpu_cores, placements
from ..runtime.session import Session, available_providers

Shapes = Mapping[str, tuple[int, ...]]
MULTIPLY_AND_ADD = 2


@dataclass(frozen=True)
class Work:
    """What a model has to do for one row.

    Attributes:
        flops: Floating-point operations per row.
        weight_bytes: Bytes of the weights.
        uncounted: Kinds of nodes whose shapes could not be inferred, so that they are not in it.
    """

    flops: float
    weight_bytes: int
    uncounted: tuple[str, ...]


@dataclass(frozen=True)
class Machine:
    """What this machine has shown.

    Attributes:
        flops_per_s: The best rate of a large matrix product in float32, over all cores.
        bytes_per_s: The best rate of copying memory, read and written bytes together.
    """

    flops_per_s: float
    bytes_per_s: float

    def limit_rows_per_s(self, flops_per_row: float, bytes_per_row: float) -> float:
        """Return the most rows per second that both rates allow."""
        seconds = max(flops_per_row / self.flops_per_s, bytes_per_row / self.bytes_per_s)
        return 1 / seconds if seconds else math.inf


def count_work(proto: onnx.ModelProto, row: Mapping[str, tuple[int, ...]], rows: int = 8) -> Work:
    """Return the operations of one row, counted for a batch.

    Args:
        proto: The model; its weights may be external.
        row: The shape of one row of each input.
        rows: Rows of the batch that is counted; constant work is spread over them.
    """
    shapes = _infer_shapes(proto, {name: (rows, *shape) for name, shape in row.items()})
    total, uncounted = 0.0, set()
    for node in proto.graph.node:
        flops = _flops_of(node, shapes)
        if flops is None:
            uncounted.add(node.op_type)
        else:
            total += flops
    weight_bytes = sum(
        math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in proto.graph.initializer
        if tensor.data_type != TensorProto.STRING
    )
    return Work(total / rows, weight_bytes, tuple(sorted(uncounted)))


def _infer_shapes(proto: onnx.ModelProto, inputs: Shapes) -> dict[str, tuple[int, ...]]:
    sized = onnx.ModelProto()
    sized.CopyFrom(proto)
    for value in sized.graph.input:
        if value.name in inputs:
            dims = value.type.tensor_type.shape.dim
            del dims[:]
            for size in inputs[value.name]:
                dims.add().dim_value = size
    del sized.graph.value_info[:]
    for value in sized.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(sized, data_prop=True)
    shapes = {t.name: tuple(t.dims) for t in proto.graph.initializer}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
            shapes[value.name] = tuple(d.dim_value for d in kind.shape.dim)
    for node in proto.graph.node:
        if node.op_type == "Constant":
            value = next((a.t for a in node.attribute if a.name == "value"), None)
            if value is not None:
                shapes[node.output[0]] = tuple(value.dims)
    return shapes


def _flops_of(node: onnx.NodeProto, shapes: Shapes) -> float | None:
    """Return the operations of a node; ``None`` if they are not known."""
    if node.op_type in FREE:
        return 0.0
    if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
        # How often it runs only a run tells.
        return None
    try:
        count = COUNTED.get(node.op_type, _count_elementwise)
        return float(count(node, [shapes[name] if name else () for name in node.input], shapes[node.output[0]]))
    except (KeyError, IndexError):
        return None


def _count_elementwise(node: onnx.NodeProto, inputs: list[tuple[int, ...]], output: tuple[int, ...]) -> float:
    return math.prod(output)


def _count_matmul(node: onnx.NodeProto, inputs: list[tuple[int, ...]], output: tuple[int, ...]) -> float:
    return MULTIPLY_AND_ADD * math.prod(output) * inputs[0][-1]


def _count_gemm(node: onnx.NodeProto, inputs: list[tuple[int, ...]], output: tuple[int, ...]) -> float:
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return MULTIPLY_AND_ADD * math.prod(output) * inputs[0][0 if transposed else 1]


def _count_convolution(node: onnx.NodeProto, inputs: list[tuple[int, ...]], output: tuple[int, ...]) -> float:
    return MULTIPLY_AND_ADD * math.prod(output) * math.prod(inputs[1][1:])


def _count_transposed_convolution(
    node: onnx.NodeProto, inputs: list[tuple[int, ...]], output: tuple[int, ...]
) -> float:
    return MULTIPLY_AND_ADD * math.prod(inputs[0]) * math.prod(inputs[1][1:])


def _count_recurrence(node: onnx.NodeProto, inputs: list[tuple[int, ...]], output: tuple[int, ...]) -> float:
    steps, rows = inputs[0][:2]
    return MULTIPLY_AND_ADD * steps * rows * (math.prod(inputs[1]) + math.prod(inputs[2]))


def _count_attention(node: onnx.NodeProto, inputs: list[tuple[int, ...]], output: tuple[int, ...]) -> float:
    return MULTIPLY_AND_ADD * inputs[1][-2] * (math.prod(inputs[0]) + math.prod(output))


def _count_einsum(node: onnx.NodeProto, inputs: list[tuple[int, ...]], output: tuple[int, ...]) -> float:
    terms = next(helper.get_attribute_value(a) for a in node.attribute if a.name == "equation").decode()
    sizes: dict[str, int] = {}
    for term, shape in zip(terms.replace(" ", "").split("->")[0].split(","), inputs, strict=True):
        sizes.update(zip(term, shape, strict=True))
    return MULTIPLY_AND_ADD * math.prod(sizes.values())


COUNTED: dict[str, Callable[[onnx.NodeProto, list[tuple[int, ...]], tuple[int, ...]], float]] = {
    "MatMul": _count_matmul,
    "Gemm": _count_gemm,
    "Conv": _count_convolution,
    "ConvTranspose": _count_transposed_convolution,
    "LSTM": _count_recurrence,
    "GRU": _count_recurrence,
    "RNN": _count_recurrence,
    "Attention": _count_attention,
    "Einsum": _count_einsum,
}
"""Kinds of nodes that do more than one operation per number that they give."""
FREE = frozenset({
    "Constant", "ConstantOfShape", "Shape", "Size", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose",
    "Slice", "Split", "Concat", "Expand", "Tile", "Gather", "GatherElements", "GatherND", "Cast", "CastLike", "Dropout",
    "Pad", "Range", "DepthToSpace", "SpaceToDepth",
})  # fmt: skip
"""Kinds of nodes that move numbers and compute none."""


MATRIX = 1024
COPIED_BYTES = 256 << 20
LEAST_RUNS = 5


def measure_machine(device: str = "cpu") -> Machine:
    """Return the best rates of this machine: a matrix product in ONNX Runtime, and copies of memory, over all cores."""
    cores = cpu_cores()
    placement = placements(device, "float32", available_providers())[0]
    session = Session(_matrix_product(), Path(), placement, cores, "a matrix product")
    x = np.random.default_rng(0).normal(size=(MATRIX, MATRIX)).astype(np.float32)
    seconds = _least_seconds(lambda: session.run(["y"], {"x": x}))
    return Machine(MULTIPLY_AND_ADD * MATRIX**3 / seconds, _measure_bandwidth(cores))


def _measure_bandwidth(cores: int) -> float:
    size = COPIED_BYTES // cores
    pairs = [(np.ones(size, np.uint8), np.empty(size, np.uint8)) for _ in range(cores)]
    with ThreadPoolExecutor(cores) as pool:
        seconds = _least_seconds(lambda: list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), pairs)))
    return 2 * size * cores / seconds


def _least_seconds(run: Callable[[], object]) -> float:
    seconds = []
    for _ in range(LEAST_RUNS):
        begun = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def _matrix_product() -> bytes:
    shape = (MATRIX, MATRIX)
    weights = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weights, "w")],
    )
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()
    )
