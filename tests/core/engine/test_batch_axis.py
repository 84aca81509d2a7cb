"""The batch axis and the batch size of a file, as its whole graph and the caller say."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnx_files import CLASSES, FEATURES, WEIGHTS, expected, linear, node, rows, write_graph

import fo_onnx as fo
from fo_onnx.distributions.probabilities import softmax, total_variation
from fo_onnx.errors import DataError, ModelError, OutputError, RunError

X = rows(50)
FLOAT = TensorProto.FLOAT


def worst(dists: fo.Distributions, want: np.ndarray) -> float:
    return float(total_variation(dists.probs, want).max())


def with_state(path: Path, x_batch: Any, state: list[Any], out_batch: Any) -> Path:
    """Scores of x and of the first layer of a state of (layers, batch, width), as silero-vad's files take."""
    nodes = [
        node("MatMul", ["x", "w"], ["z"]), node("Split", ["state", "split"], ["a", "b"], axis=0), node("Squeeze", ["a", "axes"], ["first"]),
        node("MatMul", ["first", "u"], ["y"]), node("Add", ["z", "y"], ["o"]),
    ]  # fmt: skip
    u = np.random.default_rng(3).standard_normal((5, CLASSES)).astype(np.float32)
    constants = {"w": WEIGHTS, "u": u, "axes": np.array([0]), "split": np.array([1, 1])}
    inputs = {"x": (FLOAT, [x_batch, FEATURES]), "state": (FLOAT, state)}
    return write_graph(path, nodes, inputs, {"o": (FLOAT, [out_batch, CLASSES])}, constants)


@pytest.mark.parametrize(
    ("x_batch", "state", "out_batch"),
    [
        ("n", [2, "n", 5], "n"),
        ("n", ["layers", "n", 5], "n"),
        (None, [2, None, 5], None),
        (1, [2, 1, 5], 1),
        (1, [2, 1, 5], "n"),
    ],
)
def test_a_state_whose_first_axis_is_its_layers(tmp_path, x_batch, state, out_batch):
    """Two layers are no batch size of two: such rows would be other rows."""
    path = with_state(tmp_path / "m.onnx", x_batch, state, out_batch)
    states = np.random.default_rng(1).standard_normal((50, 2, 5)).astype(np.float32)
    data = {"x": X, "state": states}
    with pytest.raises(
        ModelError, match=r"batch axis of its input state: .* is not its first.* function over numpy arrays"
    ):
        fo.generate(path, data)

    # The way out that the message names.
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])

    def function(batch):
        pairs = zip(batch["x"][:, None], batch["state"][:, :, None], strict=True)
        return np.concatenate([session.run(None, {"x": x, "state": s})[0] for x, s in pairs])

    assert worst(fo.generate(function, data), softmax(function(data).astype(np.float64))) < 1e-6


def test_rows_in_which_time_comes_first(tmp_path):
    nodes = [node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=0), node("MatMul", ["m", "w"], ["o"])]
    outputs = {"o": (FLOAT, ["batch", CLASSES])}
    path = write_graph(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["time", "batch", FEATURES])}, outputs, {"w": WEIGHTS})
    with pytest.raises(ModelError, match="batch axis of its input x: .* is not its first"):
        fo.generate(path, np.repeat(X[:, None], len(X), axis=1))


def test_classes_that_are_an_input(tmp_path):
    """As CLIP's texts, which are another batch than its images."""
    nodes = [node("Transpose", ["texts"], ["t"], perm=[1, 0]), node("MatMul", ["x", "t"], ["o"])]
    inputs = {"x": (FLOAT, ["images", FEATURES]), "texts": (FLOAT, ["texts", FEATURES])}
    path = write_graph(tmp_path / "m.onnx", nodes, inputs, {"o": (FLOAT, ["images", "texts"])}, {})
    with pytest.raises(ModelError, match="batch axis of its input texts: .* is not its first.* a constant"):
        fo.generate(path, {"x": X, "texts": X[:, ::-1]})


def test_a_number_for_a_whole_batch_is_refused(tmp_path):
    inputs = {"x": (FLOAT, ["n", FEATURES]), "t": (FLOAT, [])}
    nodes = [node("MatMul", ["x", "w"], ["z"]), node("Div", ["z", "t"], ["o"])]
    path = write_graph(tmp_path / "m.onnx", nodes, inputs, {"o": (FLOAT, ["n", CLASSES])}, {"w": WEIGHTS})
    with pytest.raises(ModelError, match="its input 't' is one number for a whole batch; .* a constant"):
        fo.generate(path, {"x": X, "t": np.ones(50, np.float32)})


@pytest.mark.parametrize(
    ("inputs", "out", "size"),
    [
        ({"x": ["?", FEATURES], "m": [1, "?"]}, "?", 1),
        ({"x": ["n", FEATURES], "m": [1, 1]}, "n", 1),
        ({"x": ["n", FEATURES], "m": [4, 1]}, 4, 4),
        ({"x": [4, FEATURES], "m": [4, 1]}, "n", 4),
        ({"x": ["n", FEATURES], "m": ["n", "n"]}, "n", 16),
        ({"x": ["n", FEATURES], "m": ["m", 1]}, 1, 16),
    ],
)
def test_batch_axes_that_are_the_first(tmp_path, inputs, out, size):
    """Names and lengths that do not speak against it, some of them written carelessly."""
    nodes = [node("MatMul", ["x", "w"], ["z"]), node("Mul", ["z", "m"], ["o"])]
    tensors = {name: (FLOAT, shape) for name, shape in inputs.items()}
    path = write_graph(tmp_path / "m.onnx", nodes, tensors, {"o": (FLOAT, [out, CLASSES])}, {"w": WEIGHTS})
    factors = np.random.default_rng(2).uniform(0.5, 2, (50, 1)).astype(np.float32)
    want = softmax(np.float64(X) @ np.float64(WEIGHTS) * factors)
    dists = fo.generate(path, {"x": X, "m": factors}, batch_size=16)
    assert worst(dists, want) < 1e-6
    assert dists.meta["engine"]["batch_size"] == size


def test_a_batch_of_one_that_is_built_in_though_the_axis_is_open(tmp_path):
    """As tracing leaves it in a Reshape."""
    tail, constants = node("Reshape", ["z", "shape"], ["p"]), {"shape": np.array([1, 4])}
    path = linear(tmp_path / "m.onnx", tail, output="p", initializers=constants)
    for options in ({}, {"output": "logits"}, {"output_transform": softmax}):
        assert worst(fo.generate(path, X, batch_size=1, **options), expected(X)) < 1e-6
    # The automatic size fails, and then each row is run alone.
    for options in ({}, {"output": "logits"}, {"output_transform": softmax}):
        assert worst(fo.generate(path, X, **options), expected(X)) < 1e-6


def test_a_batch_axis_that_is_lost_for_one_row(tmp_path):
    """Graphs that squeeze their output lose it; the last batch of 50 rows in sevens is one row."""
    nodes, axes = [node("Unsqueeze", ["z", "axes"], ["u"]), node("Squeeze", ["u"], ["p"])], {"axes": np.array([1])}
    reshape, four = node("Reshape", ["z", "shape"], ["p"]), {"shape": np.array([4])}
    files = [
        linear(tmp_path / "lengths.onnx", *nodes, output="p", initializers=axes),
        linear(tmp_path / "unknown.onnx", *nodes, output="p", initializers=axes, shape=["n", "k"]),
        linear(tmp_path / "built_in.onnx", reshape, output="p", shape=[4], batch=1, initializers=four),
    ]
    for path in files:
        for size in (1, 7):
            assert worst(fo.generate(path, X, batch_size=size), expected(X)) < 1e-6
            assert worst(fo.generate(path, X, batch_size=size, output_transform=softmax), expected(X)) < 1e-6
    one = linear(tmp_path / "binary.onnx", *nodes, output="p", weights=WEIGHTS[:, :1], initializers=axes, shape=["n"])
    want = softmax(np.float64(X) @ np.concatenate([0 * WEIGHTS[:, :1], WEIGHTS[:, :1]], axis=1))
    assert worst(fo.generate(one, X, batch_size=7), want) < 1e-6


def test_a_built_in_batch_whose_output_is_not_one_row_per_sample(tmp_path):
    tail = node("ReduceMean", ["z"], ["p"], axes=[0], keepdims=1)
    path = linear(tmp_path / "m.onnx", tail, output="p", shape=["n", 4], batch=4, opset=13)
    with pytest.raises(
        OutputError, match=r"shape \(1, 4\) for a batch of 4, which is built into it; one row per sample"
    ):
        fo.generate(path, X)


@pytest.mark.parametrize(
    ("dtype", "input_dtype", "large"),
    [("float32", "float16", 1e5), ("float64", "float32", 1e39), ("int64", "int8", 300)],
)
def test_numbers_that_do_not_fit_into_an_input_are_refused(tmp_path, dtype, input_dtype, large):
    """They would become infinite, or others, and some nets give a distribution for them all the same."""
    of = helper.np_dtype_to_tensor_dtype(np.dtype(input_dtype))
    nodes = [node("Cast", ["x"], ["f"], to=FLOAT), node("Tanh", ["f"], ["t"]), node("MatMul", ["t", "w"], ["z"])]
    io = ({"x": (of, ["n", FEATURES])}, {"z": (FLOAT, ["n", CLASSES])})
    path = write_graph(tmp_path / "m.onnx", nodes, *io, {"w": WEIGHTS})
    x = (X * 3).astype(dtype)
    assert worst(fo.generate(path, x), softmax(np.tanh(np.float64(x.astype(input_dtype))) @ np.float64(WEIGHTS))) < 1e-6
    x[7, 2] = large
    with pytest.raises(
        DataError,
        match=rf"{dtype} values do not fit into its input x: {input_dtype} .*, {re.escape(str(x[7, 2]))} for one",
    ):
        fo.generate(path, x)


def test_a_row_that_a_file_refuses_does_not_end_the_first_pass(tmp_path):
    """What the output means is decided with the others."""
    nodes = [node("Cast", ["x"], ["i"], to=TensorProto.INT64), node("Gather", ["table", "i"], ["g"], axis=0)]
    nodes += [node("Squeeze", ["g", "axes"], ["s"]), node("Mul", ["s", "two"], ["p"])]
    table = np.random.default_rng(0).standard_normal((5, CLASSES)).astype(np.float32) * 3
    constants = {"table": table, "axes": np.array([1]), "two": np.float32(2)}
    path = write_graph(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["n", 1])}, {"p": (FLOAT, ["n", CLASSES])}, constants)
    x = (np.arange(20)[:, None] % 5).astype(np.float32)
    x[11] = 9
    with fo.Engine(path, batch_size=5) as engine:
        plan = engine.plan(x)
    assert (plan.classes, plan.batch_size) == (CLASSES, 5)
    x[:] = 9
    with fo.Engine(path) as engine, pytest.raises(RunError, match="indices element out of data bounds"):
        engine.plan(x)


def test_the_first_pass_keeps_the_batch_size(tmp_path):
    """A matrix of a megabyte for each row: four at once are few, and 64 at once are many."""
    psutil = pytest.importorskip("psutil")
    nodes = [
        node("MatMul", ["x", "wide"], ["a"]), node("Reshape", ["a", "column"], ["b"]), node("Reshape", ["a", "row"], ["c"]),
        node("MatMul", ["b", "c"], ["square"]), node("ReduceMean", ["square"], ["m"], axes=[1], keepdims=0),
        node("MatMul", ["m", "w"], ["o"]),
    ]  # fmt: skip
    constants = {
        "wide": np.ones((FEATURES, 512), np.float32), "column": np.array([-1, 512, 1]), "row": np.array([-1, 1, 512]),
        "w": np.random.default_rng(0).standard_normal((512, CLASSES)).astype(np.float32),
    }  # fmt: skip
    io = ({"x": (FLOAT, ["n", FEATURES])}, {"o": (FLOAT, ["n", CLASSES])})
    path = write_graph(tmp_path / "m.onnx", nodes, *io, constants)
    process, most, is_over = psutil.Process(), 0, False

    def watch() -> None:
        nonlocal most
        while not is_over:
            most = max(most, process.memory_info().rss)
            time.sleep(0.001)

    before = process.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    fo.generate(path, rows(256), batch_size=4, output="logits")
    is_over = True
    watcher.join()
    assert most - before < 128 << 20
