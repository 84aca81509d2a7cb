"""Operators that mean something else at rare values: which graphs hold them, and what a guard does."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_files import node

from fo_onnx.conversion.hazards import HAZARDS, find_hazards
from fo_onnx.conversion.probes import may_be_probed
from fo_onnx.models.index_guard import IndexRange, guard_indices, table_lengths

TABLE = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)


def graph(nodes, *, opset=18, shape=("n", 5), dtype=TensorProto.INT64, **values):
    values = {"table": TABLE, **values}
    made = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("ids", dtype, list(shape))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", 4])], [numpy_helper.from_array(v, k) for k, v in values.items()],
    )  # fmt: skip
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def lookup(opset):
    if opset < 13:
        return graph(
            [node("Gather", ["table", "ids"], ["e"]), node("ReduceSum", ["e"], ["out"], axes=[1], keepdims=0)],
            opset=opset,
        )
    nodes = [node("Gather", ["table", "ids"], ["e"]), node("ReduceSum", ["e", "axes"], ["out"], keepdims=0)]
    return graph(nodes, opset=opset, axes=np.array([1]))


def run(model, ids):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": ids})[0]


@pytest.mark.parametrize("opset", [11, 13, 18, 21])
def test_a_guarded_row_is_nan_and_others_are_as_before(opset):
    ids = np.random.default_rng(0).integers(0, 20, (8, 5))
    expected = run(lookup(opset), ids)
    model = lookup(opset)
    assert table_lengths(model) == [20]
    guard_indices(model, "out", [IndexRange("ids", 0, 19)])
    onnx.checker.check_model(model)
    np.testing.assert_array_equal(run(model, ids), expected)
    for row, index in ((1, -1), (3, 20), (6, 2**40)):
        ids[row, row % 5] = index
    rows = run(model, ids)
    assert np.flatnonzero(np.isnan(rows).any(axis=1)).tolist() == [1, 3, 6]
    np.testing.assert_array_equal(np.delete(rows, [1, 3, 6], 0), np.delete(expected, [1, 3, 6], 0))


@pytest.mark.parametrize("dtype", [TensorProto.INT32, TensorProto.INT64])
def test_one_index_per_row(dtype):
    model = graph([node("Gather", ["table", "ids"], ["out"])], shape=("n",), dtype=dtype)
    guard_indices(model, "out", [IndexRange("ids", -20, 19)])
    rows = run(model, np.array([-20, -21, 19, 20], helper.tensor_dtype_to_np_dtype(dtype)))
    assert np.isnan(rows).any(axis=1).tolist() == [False, True, False, True]
    np.testing.assert_array_equal(rows[[0, 2]], TABLE[[0, 19]])


def test_indices_that_depend_on_shapes_alone_are_no_hazard():
    nodes = [node("Shape", ["ids"], ["s"]), node("Gather", ["s", "zero"], ["n"]), node("Cast", ["ids"], ["out"], to=1)]
    assert find_hazards(graph(nodes, zero=np.array(0))) == []
    by_value = [hazard.operators for hazard in find_hazards(lookup(18))]
    assert by_value == [HAZARDS[0].operators]


def test_hazards_in_subgraphs_count():
    branch = helper.make_graph(
        [node("Cast", ["ids"], ["f"], to=1), node("TopK", ["f", "k"], ["v", "i"])], "then", [],
        [helper.make_tensor_value_info("v", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes = [helper.make_node("If", ["yes"], ["out"], then_branch=branch, else_branch=branch)]
    hazards = find_hazards(graph(nodes, yes=np.array(True), k=np.array([4])))
    assert [hazard.values for hazard in hazards] == ["ties"]


def test_a_cuda_device_is_not_given_indices_that_would_end_it():
    ids, x = {"ids": np.zeros((2, 3), np.int64)}, {"x": np.zeros((2, 3), np.float32)}
    assert may_be_probed(SimpleNamespace(device="cpu"), ids)
    assert not may_be_probed(SimpleNamespace(device="cuda:0"), ids)
    assert may_be_probed(SimpleNamespace(device="cuda:0"), x)
