"""Outputs of files that are not (n, classes) of floats: axes of one are dropped, the rest is for an output_transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_files import expected, linear, node, rows, run_in_onnx_runtime

import fo_onnx as fo
from fo_onnx.distributions.probabilities import softmax, total_variation
from fo_onnx.errors import OutputError

X = rows(50)
FLOAT = TensorProto.FLOAT


def worst(dists: fo.Distributions, want: np.ndarray) -> float:
    return float(total_variation(dists.probs, want).max())


@pytest.mark.parametrize("declared", ["lengths", "names", "nothing"])
@pytest.mark.parametrize("ending", ["logits", "probs"])
@pytest.mark.parametrize("shape", [(-1, 1, 4), (-1, 4, 1, 1), (-1, 4, 1)])
def test_axes_of_one_beside_the_classes_are_dropped(tmp_path, shape, ending, declared):
    """The model zoo's SqueezeNet gives (n, 1000, 1, 1)."""
    lengths: list[Any] = ["n", *shape[1:]]
    if declared == "names":
        lengths = ["n", *(f"axis_{i}" for i in range(1, len(shape)))]
    nodes = [node("Softmax", ["z"], ["s"], axis=-1)] if ending == "probs" else [node("Identity", ["z"], ["s"])]
    path = linear(
        tmp_path / "m.onnx", *nodes, node("Reshape", ["s", "shape"], ["p"]), output="p", shape=lengths,
        initializers={"shape": np.array(shape)},
    )  # fmt: skip
    if declared == "nothing":
        proto = onnx.load(path)
        proto.graph.output[0].type.tensor_type.ClearField("shape")
        onnx.save(proto, path)
    for n in (50, 1):
        dists = fo.generate(path, X[:n], keep_logits=ending == "logits")
        assert worst(dists, expected(X[:n])) < 1e-6
        assert dists.meta["model"]["output"] == ending


def test_a_batch_of_one_that_is_built_in_beside_axes_of_one(tmp_path):
    tail, constants = node("Reshape", ["z", "shape"], ["p"]), {"shape": np.array([1, 4, 1, 1])}
    path = linear(tmp_path / "m.onnx", tail, output="p", shape=[1, 4, 1, 1], batch=1, initializers=constants)
    dists = fo.generate(path, X)
    assert worst(dists, expected(X)) < 1e-6
    assert dists.meta["engine"]["batch_size"] == 1


def test_rows_of_positions_are_refused_as_soon_as_they_are_seen(tmp_path):
    nodes = [node("Unsqueeze", ["z", "axes"], ["u"]), node("Concat", ["u", "u"], ["p"], axis=1)]
    for name, shape in (("written.onnx", ["n", 2, 4]), ("open.onnx", ["n", "positions", 4])):
        path = linear(tmp_path / name, *nodes, output="p", shape=shape, opset=13, initializers={"axes": np.array([1])})
        with pytest.raises(
            OutputError, match=r"2, 4\); \(n, classes\) was expected.* reduce it with output_transform="
        ):
            fo.generate(path, X)
        first = fo.generate(path, X, output_transform=lambda raw: softmax(raw[:, 0]))
        assert worst(first, expected(X)) < 1e-6
        assert (
            worst(fo.generate(fo.OnnxModel.open(path), X, output_transform=lambda raw: softmax(raw[:, 1])), expected(X))
            < 1e-6
        )


def test_scores_of_whole_numbers_are_for_an_output_transform(tmp_path):
    """Quantised files end in a QuantizeLinear."""
    path = linear(
        tmp_path / "m.onnx", node("QuantizeLinear", ["z", "scale", "zero"], ["q"]), output="q", dtype=TensorProto.UINT8,
        initializers={"scale": np.float32(0.2), "zero": np.uint8(128)},
    )  # fmt: skip
    with pytest.raises(OutputError, match=r"'q' is of type uint8; .* make distributions of it with output_transform="):
        fo.generate(path, X)
    dists = fo.generate(path, X, output_transform=lambda raw: softmax(raw * 0.2), batch_size=7)
    want = softmax(run_in_onnx_runtime(path, x=X).astype(np.float64) * 0.2)
    assert worst(dists, want) < 1e-6
    assert worst(dists, expected(X)) < 0.15


def test_an_output_transform_gets_batches_of_the_size_that_was_asked_for(tmp_path):
    sizes = []

    def transform(raw):
        sizes.append(len(raw))
        return softmax(raw)

    assert (
        worst(fo.generate(linear(tmp_path / "m.onnx"), X, output_transform=transform, batch_size=4), expected(X)) < 1e-6
    )
    assert max(sizes) == 4
