from __future__ import annotations

import logging
import threading

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import onnxruntime as ort
import tensorflow as tf
import tf2onnx
from fo_onnx_tensorflow.export import write_onnx
from fo_onnx_tensorflow.foreign_nodes import foreign_op, foreign_ops
from tf2onnx.handler import tf_op

from fo_onnx.contracts.spec import TensorSpec
from fo_onnx.errors import ExportError


def onnx_of(function, *specs):
    traced = tf.function(function, autograph=False, input_signature=list(specs))
    model, _ = tf2onnx.convert.from_function(traced, input_signature=list(specs), opset=18)
    return model


def rows_of(model, *arrays):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip([i.name for i in session.get_inputs()], arrays, strict=True)))


def sum_and_difference(graph, inputs):
    return [graph.make_node(op, list(inputs)).output[0] for op in ("Add", "Sub")]


ROWS = tf.TensorSpec([None, 3], tf.float32, name="x")
X = np.arange(12, dtype=np.float32).reshape(4, 3) - 5


def test_given_nodes_take_the_place_of_the_placeholder():
    def function(x):
        total, difference = foreign_op([x, x * 2], [(tf.float32, (None, 3))] * 2, sum_and_difference)
        return tf.nn.relu(total) + difference

    with foreign_ops():
        model = onnx_of(function, ROWS)
    for batch in (1, 4):
        np.testing.assert_allclose(rows_of(model, X[:batch])[0], np.maximum(X * 3, 0)[:batch] - X[:batch])


def test_shapes_reach_what_follows():
    seen = []

    def function(x):
        (found,) = foreign_op([x], [(np.float32, (None, 3))], lambda g, i: [g.make_node("Neg", list(i)).output[0]])
        seen.append(found.shape.as_list())
        return tf.linalg.matmul(found, tf.ones((3, 5)))

    with foreign_ops():
        model = onnx_of(function, ROWS)
    assert set(map(tuple, seen)) == {(None, 3)}
    assert model.graph.output[0].type.tensor_type.shape.dim[1].dim_value == 5


def test_outputs_of_the_graph_may_be_foreign_and_constants_are_not_folded():
    def function(x):
        constant = tf.constant(X[:1])
        (found,) = foreign_op([constant], [(tf.float32, (1, 3))], lambda g, i: [g.make_node("Exp", list(i)).output[0]])
        return x + found, found

    with foreign_ops():
        model = onnx_of(function, ROWS)
    assert "Exp" in [n.op_type for n in model.graph.node]
    both = rows_of(model, X)
    np.testing.assert_allclose(both[1], np.exp(X[:1]), rtol=1e-6)
    np.testing.assert_allclose(both[0], X + np.exp(X[:1]), rtol=1e-6)


def test_weights_and_other_dtypes():
    weights = np.array([2, 0, 1], np.int64)

    def build(graph, inputs):
        order = graph.make_const("order", weights).output[0]
        return [graph.make_node("Gather", [inputs[0], order], attr={"axis": 1}).output[0]]

    with foreign_ops():
        model = onnx_of(
            lambda x: foreign_op([tf.cast(x, tf.int32)], [(tf.int32, (None, 3))], build, name="pick")[0], ROWS
        )
    np.testing.assert_array_equal(rows_of(model, X)[0], X.astype(np.int32)[:, weights])


def test_inside_of_a_loop():
    def function(x):
        def body(i, a):
            (a,) = foreign_op([a], [(tf.float32, (None, 3))], lambda g, n: [g.make_node("Sin", list(n)).output[0]])
            return i + 1, a

        return tf.while_loop(lambda i, a: i < 3, body, (tf.constant(0), x))[1]

    with foreign_ops():
        model = onnx_of(function, ROWS)
    np.testing.assert_allclose(rows_of(model, X)[0], np.sin(np.sin(np.sin(X))), rtol=1e-5, atol=1e-6)


def test_outside_of_the_context():
    with pytest.raises(
        ExportError, match=r"foreign operation \(GRU\) was put into a TensorFlow graph outside of foreign"
    ):
        foreign_op([tf.constant(1.0)], [(tf.float32, ())], sum_and_difference, name="GRU")


def refusal(build, tmp_path):
    spec = TensorSpec("x", "float32", (None, 3))
    with pytest.raises(ExportError) as caught:
        write_onnx(
            lambda x: foreign_op([x], [(tf.float32, (None, 3))], build, name="GRU")[0],
            [spec], tmp_path / "m.onnx", opset=18, model_name="net",
        )  # fmt: skip
    return str(caught.value)


def test_a_build_that_fails_is_named(tmp_path):
    def build(graph, inputs):
        raise KeyError("weights")

    message = refusal(build, tmp_path)
    assert message.startswith("tf2onnx cannot convert net: node ")
    assert "nodes of the foreign operation GRU could not be made: KeyError: 'weights'" in message


def test_a_build_with_too_few_outputs(tmp_path):
    assert "it gave 0 outputs instead of 1" in refusal(lambda g, i: [], tmp_path)


def test_a_python_function_of_the_model_stays_foreign_to_onnx(caplog):
    caplog.set_level(logging.CRITICAL)

    def function(x):
        found = tf.numpy_function(np.sort, [x], tf.float32, stateful=False)
        found.set_shape([None, 3])
        return found + 1.0

    with foreign_ops():
        model = onnx_of(function, ROWS)
    assert "PyFuncStateless" in [n.op_type for n in model.graph.node]


def test_the_handler_is_there_only_during_conversions():
    with foreign_ops():
        with foreign_ops():
            pass
        assert "PyFuncStateless" in tf_op.get_opsets()[""][1]
    assert "PyFuncStateless" not in tf_op.get_opsets()[""][1]
    with pytest.raises(ZeroDivisionError), foreign_ops():
        raise ZeroDivisionError
    assert "PyFuncStateless" not in tf_op.get_opsets()[""][1]


def test_threads_have_contexts_of_their_own():
    failures = []

    def elsewhere():
        try:
            foreign_op([tf.constant(1.0)], [(tf.float32, ())], sum_and_difference)
        except ExportError as err:
            failures.append(err)

    with foreign_ops():
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert len(failures) == 1
