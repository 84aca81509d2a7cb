"""ONNX files written by hand, for tests that must not depend on an exporter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(7)
FIRST = RNG.standard_normal((5, 16)).astype(np.float32)
SECOND = (RNG.standard_normal((16, 3)) * 1.5).astype(np.float32)


def logits_of(rows: np.ndarray) -> np.ndarray:
    """tanh(x·A)·B in float64: what `classifier` computes."""
    return np.tanh(rows.astype(np.float64) @ FIRST.astype(np.float64)) @ SECOND.astype(np.float64)


def softmax64(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def write(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, np.ndarray]
) -> Path:
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)
    return path


def classifier(path: Path, ending: tuple[str, ...] = (), *, batch: int | str = "n", classes: int = 3) -> Path:
    """logits = tanh(x·A)·B for x (n, 5), and then the unary operators of `ending`.

    Args:
        path: Where it goes.
        ending: Names of operators that follow, ``Softmax`` over the last axis.
        batch: The batch axis: a name, or a number for a fixed batch size.
        classes: How many columns of the logits are kept.
    """
    nodes = [
        helper.make_node(*n)
        for n in (("MatMul", ["x", "A"], ["h"]), ("Tanh", ["h"], ["t"]), ("MatMul", ["t", "B"], ["z0"]))
    ]
    for i, op in enumerate(ending):
        nodes.append(helper.make_node(op, [f"z{i}"], [f"z{i + 1}"]))
    return write(
        path,
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 5])],
        [helper.make_tensor_value_info(f"z{len(ending)}", TensorProto.FLOAT, [batch, classes])],
        {"A": FIRST, "B": SECOND[:, :classes]},
    )


def endless(path: Path) -> Path:
    """A Loop of as many turns as the largest value of x, over logits x·B."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["keep_in"], ["keep"]),
            helper.make_node("Sin", ["v"], ["w"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("keep_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["n", 3]),
        ],
        [
            helper.make_tensor_value_info("keep", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, ["n", 3]),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["turns"], to=TensorProto.INT64),
        helper.make_node("Loop", ["turns", "true", "x"], ["z"], body=body),
    ]
    return write(
        path,
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 3])],
        {"true": np.asarray(True)},
    )


def never_ending(path: Path) -> Path:
    """A Loop of 2**62 turns over rows of 6 features: only ONNX Runtime itself can be told to stop."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("Mul", ["v", "one"], ["v2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["n", 6]),
        ],
        [
            helper.make_tensor_value_info("c2", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v2", TensorProto.FLOAT, ["n", 6]),
        ],
    )
    return write(
        path,
        [helper.make_node("Loop", ["turns", "yes", "x"], ["y"], body=body)],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 6])],
        {"turns": np.array(2**62), "yes": np.array(True), "one": np.array(1, np.float32)},
    )


MUTATIONS = (
    "uniform",
    "rows shifted by one",
    "softmax twice",
    "wrong temperature",
    "swapped columns",
    "a batch repeated",
)


def mutate(proto: Any, output: str, mutation: str, classes: int) -> None:
    """Puts a mistake behind `output` (n, k) of a model, in place."""
    graph = proto.graph
    for node in graph.node:
        node.output[:] = [f"{o}_right" if o == output else o for o in node.output]
        node.input[:] = [f"{o}_right" if o == output else o for o in node.input]
    right = f"{output}_right"

    def constant(name: str, value: Any, dtype: Any = np.int64) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), f"mutant_{name}"))
        return f"mutant_{name}"

    def add(op: str, inputs: list[str], result: str = output, **attributes: Any) -> None:
        graph.node.append(helper.make_node(op, inputs, [result], **attributes))

    if mutation == "uniform":
        add("Mul", [right, constant("zero", 0, np.float32)], "mutant_flat")
        add("Softmax", ["mutant_flat"], axis=1)
    elif mutation == "rows shifted by one":
        ends = [constant("one", [1]), constant("far", [2**31]), constant("start", [0])]
        add("Slice", [right, ends[0], ends[1], ends[2]], "mutant_rest")
        add("Slice", [right, ends[2], ends[0], ends[2]], "mutant_first")
        add("Concat", ["mutant_rest", "mutant_first"], axis=0)
    elif mutation == "softmax twice":
        add("Softmax", [right], "mutant_once", axis=1)
        add("Softmax", ["mutant_once"], axis=1)
    elif mutation == "wrong temperature":
        add("Div", [right, constant("two", 2, np.float32)], "mutant_cool")
        add("Softmax", ["mutant_cool"], axis=1)
    elif mutation == "swapped columns":
        add("Gather", [right, constant("order", [1, 0, *range(2, classes)])], axis=1)
    elif mutation == "a batch repeated":
        # The first half of a batch stands in for the second.
        add("Shape", [right], "mutant_shape")
        add("Gather", ["mutant_shape", constant("nought", 0)], "mutant_n")
        add("Range", [constant("from", 0), "mutant_n", constant("step", 1)], "mutant_all")
        add("Add", ["mutant_n", constant("up", 1)], "mutant_more")
        add("Div", ["mutant_more", constant("halves", 2)], "mutant_half")
        add("Mod", ["mutant_all", "mutant_half"], "mutant_rows")
        add("Gather", [right, "mutant_rows"], axis=0)
    else:
        raise AssertionError(mutation)
