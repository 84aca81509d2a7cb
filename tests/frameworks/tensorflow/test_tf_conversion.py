from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import onnx
import onnxruntime as ort
import tensorflow as tf
from fo_onnx_tensorflow import export, weights
from fo_onnx_tensorflow.export import LARGEST_OPSET, write_onnx
from fo_onnx_tensorflow.handlers import registry
from fo_onnx_tensorflow.onnx_edits import rename_tensors
from tf2onnx.handler import tf_op

from fo_onnx.contracts.spec import TensorSpec
from fo_onnx.errors import ExportError, PluginError

X = TensorSpec("x", "float32", (None, 4))
ROWS = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)


def run(path, **inputs):
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def converted(function, tmp_path, array, opset=18):
    """What a function of one array gives in ONNX Runtime."""
    spec = TensorSpec("x", str(array.dtype), (None, *array.shape[1:]))
    write_onnx(function, [spec], tmp_path / "model.onnx", opset=opset, model_name="net")
    return run(tmp_path / "model.onnx", x=array)


# ------------------------------------------------------------------------------------------ names, axes, inputs, output


def test_inputs_keep_their_names_and_order_whatever_they_are(tmp_path):
    inputs = [
        TensorSpec("image.left", "float32", (None, 4)),
        TensorSpec("0", "int64", (None,)),
        TensorSpec("never read", "bool", (None, None, 3)),
        TensorSpec("output", "uint8", (None, 4)),
    ]
    spec = write_onnx(
        lambda a, b, _, d: a * tf.cast(b, tf.float32)[:, None] + tf.cast(d, tf.float32),
        inputs, tmp_path / "m.onnx", opset=18, model_name="net",
    )  # fmt: skip
    assert spec == TensorSpec("output_1", "float32", (None, 4))
    session = ort.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert [(i.name, i.shape) for i in session.get_inputs()] == [
        ("image.left", ["batch", 4]),
        ("0", ["batch"]),
        ("never read", ["batch", "never read_1", 3]),
        ("output", ["batch", 4]),
    ]
    assert [(o.name, o.shape) for o in session.get_outputs()] == [("output_1", ["batch", 4])]
    feed = {
        "image.left": ROWS,
        "0": np.arange(7),
        "never read": np.ones((7, 2, 3), bool),
        "output": np.full((7, 4), 9, np.uint8),
    }
    np.testing.assert_allclose(session.run(None, feed)[0], ROWS * np.arange(7)[:, None] + 9, rtol=1e-6)


def test_names_are_changed_inside_of_loops_too(tmp_path):
    def function(x):
        return tf.while_loop(lambda i, _: i < 3, lambda i, a: (i + 1, a * x), (tf.constant(0), x))[1]

    write_onnx(function, [TensorSpec("0", "float32", (None, 4))], tmp_path / "m.onnx", opset=18, model_name="net")
    np.testing.assert_allclose(run(tmp_path / "m.onnx", **{"0": ROWS}), ROWS**4, rtol=1e-5)


def test_a_tensor_that_has_the_new_name_gets_another():
    nodes = [onnx.helper.make_node("Neg", ["a"], ["b"]), onnx.helper.make_node("Abs", ["b"], ["c"])]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(nodes, "g", [value("a", 1, ["n"])], [value("c", 1, ["n"])])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    rename_tensors(proto, {"a": "b", "c": "output"})
    assert [(list(n.input), list(n.output)) for n in proto.graph.node] == [(["b"], ["b_1"]), (["b_1"], ["output"])]
    onnx.checker.check_model(proto)


def test_a_function_that_returns_its_input_or_a_slice_of_it(tmp_path):
    np.testing.assert_array_equal(converted(lambda x: x, tmp_path, ROWS), ROWS)
    np.testing.assert_array_equal(converted(lambda x: x[:, :2], tmp_path, ROWS), ROWS[:, :2])


def test_dynamic_axes_beside_the_batch(tmp_path):
    tokens = TensorSpec("tokens", "int32", (None, None))
    table = tf.Variable(np.random.default_rng(1).standard_normal((9, 5)).astype(np.float32))
    spec = write_onnx(
        lambda t: tf.reduce_mean(tf.gather(table, t), 1), [tokens], tmp_path / "m.onnx", opset=18, model_name="net"
    )
    assert spec == TensorSpec("output", "float32", (None, 5))
    for shape in ((1, 3), (4, 8)):
        ids = np.random.default_rng(2).integers(0, 9, shape).astype(np.int32)
        np.testing.assert_allclose(run(tmp_path / "m.onnx", tokens=ids), table.numpy()[ids].mean(1), rtol=1e-5)


@pytest.mark.parametrize("opset", [13, 15, 17, 18])
def test_the_operator_set_is_what_was_asked_for(opset, tmp_path):
    found = converted(lambda x: tf.nn.softmax(tf.math.log1p(tf.exp(x))), tmp_path, ROWS, opset)
    assert next(o.version for o in onnx.load(tmp_path / "model.onnx").opset_import if not o.domain) == opset
    np.testing.assert_allclose(found, tf.nn.softmax(tf.math.log1p(tf.exp(ROWS))), rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------- weights


def test_captured_tensors_become_constants_and_variables_stay_as_they_are(tmp_path):
    kernel = tf.Variable(np.random.default_rng(1).standard_normal((3, 3, 2, 4)).astype(np.float32))
    captured = tf.constant(np.random.default_rng(2).standard_normal((3, 3, 4, 5)).astype(np.float32))
    mean = tf.constant([1.0, -2.0])
    before = kernel.numpy().copy()

    @tf.function
    def net(x):
        x = tf.nn.conv2d((x - mean) / 3.0, kernel, 1, "SAME")
        return tf.reduce_mean(tf.nn.conv2d(tf.nn.relu(x), captured, 2, "VALID"), (1, 2))

    images = np.random.default_rng(3).standard_normal((5, 8, 8, 2)).astype(np.float32)
    found = converted(net, tmp_path, images)
    np.testing.assert_allclose(found, net(tf.constant(images)), atol=1e-5)
    model = onnx.load(tmp_path / "model.onnx")
    assert [i.name for i in model.graph.input] == ["x"]
    convolutions = [n for n in model.graph.node if n.op_type == "Conv"]
    constants = {i.name for i in model.graph.initializer}
    assert len(convolutions) == 2
    # Captured late, a kernel would be transposed in every run.
    assert {n.input[1] for n in convolutions} <= constants
    np.testing.assert_array_equal(kernel.numpy(), before)


def test_weights_above_the_limit_go_to_a_file_beside_the_model(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    variable = tf.Variable(rng.standard_normal((4, 300)).astype(np.float32))
    captured = tf.constant(rng.standard_normal((300, 40)).astype(np.float32))
    constant = rng.standard_normal((40, 60)).astype(np.float32)

    def net(x):
        return tf.tanh(tf.tanh(x @ variable) @ captured) @ constant

    converted(net, tmp_path, ROWS)
    assert not (tmp_path / "model.onnx.data").exists()
    monkeypatch.setattr(export, "EXTERNAL_DATA_BYTES", 60_000)
    monkeypatch.setattr(weights, "SET_ASIDE_BYTES", 1_000)
    found = converted(net, tmp_path, ROWS)
    np.testing.assert_allclose(found, net(tf.constant(ROWS)), rtol=1e-4, atol=1e-4)
    assert (tmp_path / "model.onnx").stat().st_size < 10_000
    assert (tmp_path / "model.onnx.data").stat().st_size >= 60_000
    again = converted(net, tmp_path, ROWS)
    np.testing.assert_array_equal(again, found)
    assert (tmp_path / "model.onnx.data").stat().st_size < 90_000


# -------------------------------------------------------------------------------------------------------------- errors


def failing(function, tmp_path, opset=18, inputs=(X,)):
    with pytest.raises(ExportError) as caught:
        write_onnx(function, inputs, tmp_path / "m.onnx", opset=opset, model_name="my net")
    assert not (tmp_path / "m.onnx").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_operator_that_onnx_lacks_is_named(tmp_path):
    message = failing(lambda x: tf.math.igamma(tf.abs(x), tf.abs(x)), tmp_path)
    assert message == "tf2onnx cannot convert my net: ONNX has no operator for Igamma (opset 18)."


def test_a_python_function_is_named(tmp_path):
    message = failing(lambda x: tf.ensure_shape(tf.numpy_function(np.sort, [x], tf.float32), [None, 4]), tmp_path)
    assert "tf2onnx cannot convert my net" in message
    assert "PyFunc" in message


def test_an_operator_of_a_newer_set_is_named(tmp_path):
    bits = TensorSpec("x", "int32", (None, 4))
    message = failing(lambda x: tf.bitwise.bitwise_xor(x, 5), tmp_path, 17, [bits])
    assert "BitwiseXor (opset 17)" in message


def test_what_a_handler_refuses_is_said(tmp_path):
    message = failing(lambda x: tf.linalg.cholesky(tf.eye(40) + x[:, :1, None])[:, 0], tmp_path)
    assert "a Cholesky factor of matrices of 40 rows; up to 32 rows can be converted" in message


def test_a_dtype_that_an_operator_does_not_take_is_said(tmp_path):
    images = TensorSpec("x", "int32", (None, 4, 4, 1))
    kernel = np.ones((2, 2, 1, 1), np.int32)
    message = failing(lambda x: tf.nn.conv2d(x, kernel, 1, "SAME"), tmp_path, inputs=[images])
    assert "tf2onnx made an invalid model of my net" in message
    assert "Conv" in message
    assert "int32" in message


def test_what_the_functions_own_code_raises_is_said(tmp_path):
    def net(x):
        raise KeyError("no such layer")

    assert "tf2onnx cannot convert my net: KeyError: 'no such layer'" in failing(net, tmp_path)


def test_an_export_error_of_the_function_goes_through(tmp_path):
    def net(x):
        raise ExportError("said already")

    assert failing(net, tmp_path) == "said already"


def test_outputs_without_a_batch_axis(tmp_path):
    assert "my net returns an array of shape () for every batch size" in failing(tf.reduce_sum, tmp_path)
    message = failing(lambda x: tf.ones((3, 5)) + tf.reduce_sum(x), tmp_path)
    assert "my net returns an array of shape (3, 5) for every batch size; (n, classes)" in message


def test_an_output_of_unknown_shape(tmp_path):
    message = failing(lambda x: tf.numpy_function(np.sort, [x], tf.float32), tmp_path)
    assert "the shape of what my net returns cannot be determined from its graph" in message


def test_an_operator_set_that_tf2onnx_does_not_write(tmp_path):
    message = failing(lambda x: x, tmp_path, 99)
    assert f"opset=99 was asked for my net, and tf2onnx writes operator sets up to {LARGEST_OPSET}" in message


# ---------------------------------------------------------------------------------------- operators added and corrected


@pytest.mark.parametrize(
    ("function", "points"),
    [
        (tf.math.expm1, [0.0, 1e-20, 1e-7, -1e-6, 0.3, -3.0, 20.0, -np.inf, np.inf]),
        (tf.math.log1p, [0.0, 1e-20, 1e-7, -1e-6, 0.3, -0.999, 20.0, 1e20, -1.0, np.inf]),
        (tf.math.erfinv, [0.0, 1e-6, -0.5, 0.95, 0.999999, -1.0, 1.0]),
        (tf.math.lgamma, [0.25, 0.5, 3.0, 17.3, 1e6, -0.5, -3.7]),
    ],
)  # fmt: skip
def test_functions_that_lose_no_digits(function, points, tmp_path):
    points = np.array(points, np.float32)
    found = converted(function, tmp_path, points)
    np.testing.assert_allclose(found, function(points.astype(np.float64)), rtol=2e-6)


def test_erfc_is_right_beside_one(tmp_path):
    points = np.linspace(-4, 4, 101, dtype=np.float32)
    np.testing.assert_allclose(converted(tf.math.erfc, tmp_path, points), tf.math.erfc(points), atol=3e-7)


def test_cholesky(tmp_path):
    a = np.random.default_rng(0).standard_normal((5, 6, 6)).astype(np.float32)
    matrices = a @ a.transpose(0, 2, 1) + np.eye(6, dtype=np.float32)
    found = converted(tf.linalg.cholesky, tmp_path, matrices)
    np.testing.assert_allclose(found, np.linalg.cholesky(matrices), atol=1e-4)
    assert (np.triu(found, 1) == 0).all()


@pytest.mark.parametrize("operation", [tf.bitwise.bitwise_and, tf.bitwise.bitwise_or, tf.bitwise.bitwise_xor])
@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
def test_bits(operation, dtype, tmp_path):
    numbers = np.arange(20, dtype=dtype).reshape(4, 5) * 7
    found = converted(lambda x: tf.bitwise.invert(operation(x, tf.constant(13, x.dtype))), tmp_path, numbers)
    np.testing.assert_array_equal(found, tf.bitwise.invert(operation(numbers, dtype(13))))


def log_or_zero(x):
    return tf.where(x > 0, tf.math.log(x), 0.0)


@pytest.fixture
def without_corrections(monkeypatch):
    monkeypatch.setattr(registry, "_REPLACED", {})


def test_what_where_does_not_choose_may_be_nan_or_infinite(tmp_path):
    np.testing.assert_allclose(converted(log_or_zero, tmp_path, ROWS), log_or_zero(ROWS), rtol=1e-5)


@pytest.mark.usefixtures("without_corrections")
def test_tf2onnx_itself_gives_nan_there(tmp_path):
    assert np.isnan(converted(log_or_zero, tmp_path, ROWS)).any()


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint8, np.uint16, np.uint32, np.int64, np.float16])
def test_where_of_any_dtype(dtype, tmp_path):
    numbers = (np.arange(12).reshape(4, 3) % 5).astype(dtype)

    def function(x):
        return tf.where(tf.cast(x, tf.float32)[:, :1] > 0, x, tf.ones_like(x))

    np.testing.assert_array_equal(converted(function, tmp_path, numbers), function(numbers))


def test_the_older_select_takes_a_condition_of_one_axis(tmp_path):
    def function(x):
        return tf.raw_ops.Select(condition=x[:, 0] > 0, x=x, y=-x)

    np.testing.assert_array_equal(converted(function, tmp_path, ROWS), function(ROWS))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("comparison", [tf.less, tf.greater])
def test_large_integers_are_compared_as_integers(dtype, comparison, tmp_path):
    numbers = np.array([2**24, 2**24 + 1, 2**24 + 2], dtype)
    found = converted(lambda x: comparison(x, numbers[1]), tmp_path, numbers)
    np.testing.assert_array_equal(found, comparison(numbers, numbers[1]))


@pytest.mark.parametrize("operation", [tf.math.floordiv, tf.math.floormod, tf.truncatemod])
@pytest.mark.parametrize("divisor", [3, -3])
@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_quotients_and_remainders_of_negative_numbers(operation, divisor, dtype, tmp_path):
    numbers = np.array([-7, 7, -8, 8, 6, 0], dtype)
    found = converted(lambda x: operation(x, tf.constant(divisor, x.dtype)), tmp_path, numbers)
    np.testing.assert_array_equal(found, operation(numbers, dtype(divisor)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-15), (np.float32, 1e-6), (np.float16, 1e-3)])
def test_logarithms_keep_their_precision(dtype, tolerance, tmp_path):
    numbers = np.linspace(0.1, 9, 50).astype(dtype)
    np.testing.assert_allclose(
        converted(tf.math.log, tmp_path, numbers), np.log(numbers), rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("axis", [-1, 1])
def test_one_hot_of_what_is_no_class_is_all_off(axis, tmp_path):
    numbers = np.array([[-1, 0, 3], [4, 2, -4]], np.int64)
    for dtype in (tf.float32, tf.bool, tf.int32):
        on, off = (True, False) if dtype == tf.bool else (2, 1)
        found = converted(lambda x, d=dtype, v=(on, off): tf.one_hot(x, 4, *v, axis, d), tmp_path, numbers)
        np.testing.assert_array_equal(found, tf.one_hot(numbers, 4, on, off, axis, dtype))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32])
def test_padding_with_a_number(dtype, tmp_path):
    rows = ROWS.astype(dtype)
    found = converted(lambda x: tf.pad(x, [[0, 0], [2, 1]], constant_values=7), tmp_path, rows)
    np.testing.assert_array_equal(found, np.pad(rows, ((0, 0), (2, 1)), constant_values=7))


@pytest.mark.usefixtures("without_corrections")
def test_tf2onnx_itself_rounds_compares_and_counts_otherwise(tmp_path):
    assert converted(lambda x: tf.one_hot(x, 3), tmp_path, np.array([-1], np.int64)).tolist() == [[0, 0, 1]]
    assert converted(lambda x: x // 3, tmp_path, np.array([-7], np.int32)).tolist() == [-2]
    assert converted(lambda x: x < 2**24 + 1, tmp_path, np.array([2**24], np.int32)).tolist() == [False]


def test_handlers_are_registered_only_during_a_conversion(tmp_path):
    def registered():
        return [dict(h) for h in tf_op.get_opsets()[""]]

    before, during = registered(), []

    def net(x):
        during.append(registered())
        return x

    converted(net, tmp_path, ROWS)
    with pytest.raises(ExportError):
        write_onnx(lambda x: tf.reduce_sum(x), [X], tmp_path / "m.onnx", opset=18, model_name="net")
    assert "Erfc" in during[0][13]
    assert not any("Erfc" in h for h in registered())
    assert [h for h in registered() if h] == [h for h in before if h]


def test_another_version_of_tf2onnx_is_remarked(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(registry, "WRITTEN_FOR", "1.16.9")
    with registry.register_own_handlers():
        pass
    assert "fo-onnx extends tf2onnx 1.16.9; 1.17.0 is installed." in caplog.text


def test_a_tf2onnx_that_keeps_its_handlers_elsewhere_is_refused(monkeypatch):
    monkeypatch.setattr(tf_op, "_OPSETS", {})
    with (
        pytest.raises(PluginError, match="keeps them in another way; pip install tf2onnx==1.17.0"),
        registry.register_own_handlers(),
    ):
        pass


# ---------------------------------------------------------------------------------------------- nothing is left behind


def test_nothing_of_the_process_is_changed(tmp_path, monkeypatch, capfd, recwarn):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    loggers = [logging.getLogger(n) for n in ("tf2onnx", "tf2onnx.tfonnx", "tensorflow", "absl")]
    before = [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    devices, jit, eager = tf.config.get_visible_devices(), tf.config.optimizer.get_jit(), tf.executing_eagerly()
    filters, streams = list(warnings.filters), (sys.stdout, sys.stderr)
    with tf.Graph().as_default() as graph:
        pass
    default = tf.compat.v1.get_default_graph()

    def net(x):
        print("traced")
        warnings.warn("traced", stacklevel=1)
        return tf.math.igamma(x, x)

    with pytest.raises(ExportError):
        write_onnx(net, [X], tmp_path / "m.onnx", opset=18, model_name="net")
    converted(lambda x: tf.nn.relu(x), tmp_path, ROWS)
    assert [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers] == before
    assert tf.config.get_visible_devices() == devices
    assert tf.config.optimizer.get_jit() == jit
    assert tf.executing_eagerly() is eager
    assert list(warnings.filters) == filters
    assert (sys.stdout, sys.stderr) == streams
    assert tf.compat.v1.get_default_graph() is default
    assert not graph.get_operations()
    assert "TF_CPP_MIN_LOG_LEVEL" not in os.environ
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_a_first_conversion_in_a_process_says_nothing(tmp_path):
    # What TensorFlow's C++ part says when it starts cannot be had twice in one process.
    code = (
        "from pathlib import Path; from fo_onnx.contracts.spec import TensorSpec; from fo_onnx_tensorflow.quiet import quiet\n"
        "with quiet():\n    from fo_onnx_tensorflow.export import write_onnx\n    import tensorflow as tf\n"
        "write_onnx(tf.nn.relu, [TensorSpec('x', 'float32', (None, 2))], Path('m.onnx'), opset=18, model_name='net')\n"
        "import sys; print('to the user', file=sys.stderr)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "to the user\n")


def test_what_others_write_to_standard_error_meanwhile_is_kept(capfd, tmp_path):
    def net(x):
        os.write(2, b"a message of another thread\nI0000 00:00:1795376838.105200 20293 devices.cc:67] Number of GPUs\n")
        return x

    converted(net, tmp_path, ROWS)
    assert capfd.readouterr().err == "a message of another thread\n"


def test_several_threads_convert_at_once(tmp_path):
    found = {}

    def convert(i):
        path = tmp_path / f"{i}.onnx"
        write_onnx(lambda x: x * float(i), [X], path, opset=18, model_name=f"net {i}")
        found[i] = run(path, x=ROWS)

    threads = [threading.Thread(target=convert, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(3):
        np.testing.assert_allclose(found[i], ROWS * i)


# -------------------------------------------------------------------------------------------------------------- sigmoids


def operators(path):
    return [n.op_type for n in onnx.load(path).graph.node if n.op_type != "Identity"]


@pytest.mark.parametrize("one", [lambda y: 1 / (1 + y), lambda y: tf.math.reciprocal(y + tf.ones([1]))])
def test_a_sigmoid_that_is_written_out_becomes_one(one, tmp_path):
    points = np.array([[-200.0, 0.0, 200.0], [-1.0, 0.5, 3.0]], np.float32)

    found = converted(lambda x: one(tf.exp(-x)), tmp_path, points)

    assert operators(tmp_path / "model.onnx") == ["Sigmoid"]
    expected = [[0, 0.5, 1], [0.2689414, 0.6224593, 0.9525741]]
    np.testing.assert_allclose(found, expected, atol=1e-7)


@pytest.mark.parametrize(
    "other", [lambda x: 1 / (2 + tf.exp(-x)), lambda x: 1 / (1 + tf.exp(x)), lambda x: 2 / (1 + tf.exp(-x))]
)
def test_what_is_no_sigmoid_stays(other, tmp_path):
    np.testing.assert_allclose(converted(other, tmp_path, ROWS), other(ROWS), atol=1e-6)
    assert "Sigmoid" not in operators(tmp_path / "model.onnx")


def test_parts_of_a_sigmoid_that_are_read_elsewhere_stay(tmp_path):
    def both(x):
        power = tf.exp(-x)
        return 1 / (1 + power) + power

    np.testing.assert_allclose(converted(both, tmp_path, ROWS), both(ROWS), atol=1e-6)
    assert {"Sigmoid", "Exp"} <= set(operators(tmp_path / "model.onnx"))
