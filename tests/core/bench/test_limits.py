"""The operations that a graph has to do, against counts by hand; and the rates of this machine."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from fo_onnx.bench.limits import count_work, measure_machine


def model_of(nodes, weights, inputs, output="y"):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape]) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def node(kind, inputs, outputs=("y",), **attributes):
    return helper.make_node(kind, inputs, list(outputs), **attributes)


CASES = {
    "matrix product": ([node("MatMul", ["x", "w"])], {"w": (5, 7)}, {"x": (5,)}, 2 * 5 * 7),
    "of sequences": ([node("MatMul", ["x", "w"])], {"w": (5, 7)}, {"x": (3, 5)}, 2 * 3 * 5 * 7),
    "Gemm with a transposed weight": ([node("Gemm", ["x", "w"], transB=1)], {"w": (7, 5)}, {"x": (5,)}, 2 * 5 * 7),
    "convolution": ([node("Conv", ["x", "w"], pads=[1, 1, 1, 1])], {"w": (4, 3, 3, 3)}, {"x": (3, 8, 8)}, 2 * 4 * 64 * 27),
    "convolution in groups": ([node("Conv", ["x", "w"], group=3)], {"w": (3, 1, 3, 3)}, {"x": (3, 8, 8)}, 2 * 3 * 36 * 9),
    "transposed convolution": ([node("ConvTranspose", ["x", "w"])], {"w": (3, 2, 2, 2)}, {"x": (3, 4, 4)}, 2 * 48 * 8),
    "recurrence": (
        [node("Transpose", ["x"], ["t"], perm=[1, 0, 2]), node("LSTM", ["t", "w", "r"], hidden_size=6)],
        {"w": (1, 24, 5), "r": (1, 24, 6)}, {"x": (9, 5)}, 2 * 9 * (24 * 5 + 24 * 6),
    ),
    "attention": ([node("Attention", ["x", "x", "x"])], {}, {"x": (2, 10, 8)}, 2 * 2 * (2 * 10 * 10 * 8)),
    "Einsum": ([node("Einsum", ["x", "w"], equation="nij, jk -> nik")], {"w": (5, 7)}, {"x": (3, 5)}, 2 * 3 * 5 * 7),
    "elementwise after a product": (
        [node("MatMul", ["x", "w"], ["z"]), node("Relu", ["z"])], {"w": (5, 7)}, {"x": (5,)}, 2 * 5 * 7 + 7,
    ),
    "nothing is computed": ([node("Transpose", ["x"], perm=[0, 2, 1])], {}, {"x": (3, 5)}, 0),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_operations_of_a_row(case):
    nodes, weights, inputs, expected = CASES[case]
    work = count_work(model_of(nodes, weights, inputs), inputs)
    assert work.uncounted == ()
    assert work.flops == pytest.approx(expected)


def test_what_is_not_known_is_named():
    body = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["b"])],
        "b",
        [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Cast", ["s"], ["c"], to=TensorProto.BOOL),
        helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body),
        node("MatMul", ["x", "w"]),
    ]
    work = count_work(model_of(nodes, {"w": (5, 7)}, {"x": (5,)}), {"x": (5,)})
    assert work.uncounted == ("If",)
    assert work.flops >= 2 * 5 * 7


def test_the_graph_stays_as_it_is():
    model = model_of(*CASES["matrix product"][:3])
    before = model.SerializeToString()
    count_work(model, {"x": (5,)})
    assert model.SerializeToString() == before


def test_rates_of_this_machine():
    machine = measure_machine()
    assert 1e8 < machine.flops_per_s < 1e16
    assert 1e8 < machine.bytes_per_s < 1e14
