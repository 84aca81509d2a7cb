"""The head in the graph: equal to its numpy twin for every meaning, operator set and temperature."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnx_files import linear, node

from fo_onnx.distributions.probabilities import apply_head, softmax
from fo_onnx.errors import OutputError
from fo_onnx.models import graph_head as head

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((9, 4)).astype(np.float32) * 4
PROBS = softmax(LOGITS)
BAD = np.array([[np.nan, 0, 0, 0], [0.5, 0.6, 0, 0], [-0.2, 1.2, 0, 0]], np.float32)
RAW = {
    "logits": np.concatenate([LOGITS, BAD[:1]]),
    "probs": np.concatenate([PROBS * np.float32(1.0005), BAD]),
    "log_probs": np.concatenate([np.log(PROBS), BAD]),
    "binary_logits": LOGITS[:, :1],
    "binary_probs": np.concatenate([PROBS[:, :1], [[1.5], [-0.5]]]).astype(np.float32),
}


def identity_model(shape, dtype=TensorProto.FLOAT, opset=18, name="raw"):
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], [name])],
        "g",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info(name, dtype, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model, x):
    onnx.checker.check_model(model, full_check=True)
    session = ort.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": x})


@pytest.mark.parametrize("opset", [7, 8, 9, 11, 12, 13, 17, 18, 21])
@pytest.mark.parametrize("kind", list(RAW))
def test_the_graph_gives_what_numpy_gives(kind, opset):
    raw = RAW[kind]
    model = identity_model(["n", raw.shape[1]], opset=opset)
    temperature = 1.7 if "log" in kind else 1.0
    probs, logits = head.fuse(model, "raw", kind, temperature, max(raw.shape[1], 2))
    found = run(model, raw)
    expected, expected_logits = apply_head(raw, kind, temperature)
    assert found[0].dtype == np.float32
    np.testing.assert_allclose(found[0], expected, atol=2e-7)
    assert (np.isnan(found[0]) == np.isnan(expected)).all()
    assert probs == "probs"
    assert (logits is None) == (expected_logits is None)
    if expected_logits is not None:
        np.testing.assert_array_equal(found[1], expected_logits)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are_cast(dtype):
    model = identity_model(["n", 4], helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
    head.fuse(model, "raw", "logits", 1.0, 4)
    found = run(model, LOGITS.astype(dtype))[0]
    np.testing.assert_allclose(found, softmax(LOGITS.astype(dtype).astype(np.float32)), atol=1e-6)


@pytest.mark.parametrize("kind", ["binary_logits", "binary_probs"])
def test_binary_outputs_without_a_class_axis(kind):
    raw = RAW[kind][:9, 0]
    model = identity_model(["n"])
    head.fuse(model, "raw", kind, 1.0, 2)
    np.testing.assert_allclose(run(model, raw)[0], apply_head(raw, kind)[0], atol=2e-7)


def test_infinite_binary_logits_are_certain_in_the_graph_as_in_numpy():
    raw = np.array([[-np.inf], [0.0], [np.nan]], np.float32)
    model = identity_model(["n", 1])
    head.fuse(model, "raw", "binary_logits", 1.0, 2)
    found = run(model, raw)[0]
    assert found[0].tolist() == [1.0, 0.0] == apply_head(raw, "binary_logits")[0][0].tolist()
    assert np.isnan(found[2]).all()


def test_names_that_are_taken_are_left_alone():
    model = identity_model(["n", 4], name="logits")
    assert head.fuse(model, "logits", "logits", 1.0, 4) == ("probs", "fo_onnx_logits")
    np.testing.assert_allclose(run(model, LOGITS)[0], PROBS, atol=2e-7)


def test_a_head_can_be_taken_out_again():
    model = identity_model(["n", 4])
    before, raw = model.SerializeToString(), model.graph.output[0]
    kept = onnx.ValueInfoProto()
    kept.CopyFrom(raw)
    head.fuse(model, "raw", "log_probs", 2.0, 4)
    head.remove(model, kept)
    assert model.SerializeToString() == before


@pytest.mark.parametrize("opset", [1, 5, 6])
def test_an_operator_set_before_the_heads_is_raised_to_it(opset):
    model = identity_model(["n", 4], opset=opset)
    head.fuse(model, "raw", "probs", 1.0, 4)
    assert head.opset_of(model) == head.LEAST_OPSET
    expected = apply_head(RAW["probs"], "probs")[0]
    np.testing.assert_allclose(run(model, RAW["probs"])[0], expected, atol=2e-7)


def test_onnx_runtime_has_no_older_operator_that_another_set_means_otherwise():
    """What `LEAST_OPSET` says of it, but for the Reshape of sets 1 to 4."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    def version(op, opset):
        return onnx.defs.get_schema(op, opset, "").since_version if onnx.defs.has(op, opset, "") else None

    kernels = [k for k in state.get_all_opkernel_def() if k.domain in ("", "ai.onnx")]
    old = {(k.op_name, k.version_range[0]) for k in kernels if k.version_range[0] < head.LEAST_OPSET}
    assert len(old) > 40
    others = {(op, since) for op, since in old if version(op, head.LEAST_OPSET) != version(op, since)}
    assert others == {("Reshape", 1)}


@pytest.mark.parametrize(("shape", "axes"), [((9, 1, 4), "n1k"), ((9, 4, 1, 1), "nk11"), ((1, 4, 1), "nk1")])
@pytest.mark.parametrize("kind", ["logits", "log_probs", "probs"])
@pytest.mark.parametrize("declared", ["lengths", "nothing"])
def test_axes_of_one_are_dropped_in_the_graph_as_in_numpy(kind, shape, axes, declared):
    raw = RAW[kind][: shape[0]].reshape(shape)
    model = identity_model([{"n": "n", "k": 4, "1": 1}[axis] for axis in axes])
    if declared == "nothing":
        # Some converters leave out a shape that they do not know; the checker refuses that, and ONNX Runtime does not.
        model.graph.output[0].type.tensor_type.ClearField("shape")
    head.fuse(model, "raw", kind, 1.0, 4)
    found, expected = run(model, raw)[0], apply_head(raw, kind)[0]
    assert found.shape == expected.shape == (shape[0], 4)
    np.testing.assert_allclose(found, expected, atol=2e-7)
    np.testing.assert_allclose(expected, apply_head(RAW[kind][: shape[0]], kind)[0], atol=0)


@pytest.mark.parametrize("kind", ["binary_logits", "binary_probs"])
@pytest.mark.parametrize("rows", [1, 9])
def test_axes_of_one_of_binary_outputs_are_dropped(kind, rows):
    raw = RAW[kind][:rows].reshape(rows, 1, 1)
    model = identity_model(["n", 1, 1])
    head.fuse(model, "raw", kind, 1.0, 2)
    expected = apply_head(raw, kind)[0]
    assert expected.shape == (rows, 2)
    np.testing.assert_allclose(run(model, raw)[0], expected, atol=2e-7)


def told(tmp_path, *tail, output="p", opset=18, shape=None):
    model = onnx.load(linear(tmp_path / "m.onnx", *tail, output=output, opset=opset, shape=shape))
    return head.output_kind_of_graph(model, output)


def test_a_softmax_at_the_end_tells(tmp_path):
    assert told(tmp_path, node("Softmax", ["z"], ["p"], axis=-1)) == "probs"
    assert told(tmp_path, node("Softmax", ["z"], ["p"], axis=1)) == "probs"
    assert told(tmp_path, node("Softmax", ["z"], ["p"])) == "probs"
    assert told(tmp_path, node("Softmax", ["z"], ["p"]), opset=11) == "probs"
    assert told(tmp_path, node("LogSoftmax", ["z"], ["p"], axis=-1)) == "log_probs"


def test_nodes_that_keep_values_are_walked_over(tmp_path):
    tail = [node("Softmax", ["z"], ["s"], axis=-1), node("Identity", ["s"], ["i"]), node("Cast", ["i"], ["p"], to=1)]
    assert told(tmp_path, *tail) == "probs"


@pytest.mark.parametrize(
    ("shape", "axis", "opset", "kind"),
    [
        (["n", 4, 1, 1], 1, 18, "probs"),
        (["n", 4, 1, 1], -3, 18, "probs"),
        (["n", 4, 1, 1], -1, 18, None),
        (["n", 4, 1, 1], None, 11, "probs"),
        (["n", 1, 4], -1, 18, "probs"),
        (["n", 1, 4], None, 11, "probs"),
        (["n", 1, 4], 1, 18, None),
        (["n", 7, 4], -1, 18, None),
        (["n", None, 4], -1, 18, None),
    ],
)
def test_a_softmax_over_the_classes_beside_axes_of_one_tells(shape, axis, opset, kind):
    """Over another axis it tells nothing, and where lengths are not written down a batch tells."""
    model = identity_model(shape, opset=opset)
    model.graph.node.append(node("Softmax", ["raw"], ["p"], **({} if axis is None else {"axis": axis})))
    model.graph.output[0].name = "p"
    assert head.output_kind_of_graph(model, "p") == kind


def test_a_softmax_over_the_batch_tells_nothing(tmp_path):
    assert told(tmp_path, node("Softmax", ["z"], ["p"], axis=0)) is None


def test_a_softmax_in_the_middle_tells_nothing(tmp_path):
    assert told(tmp_path, node("Softmax", ["z"], ["s"], axis=-1), node("Relu", ["s"], ["p"])) is None
    assert told(tmp_path, node("Softmax", ["z"], ["s"], axis=-1), node("Neg", ["s"], ["p"])) is None


def test_a_sigmoid_over_classes_is_refused(tmp_path):
    with pytest.raises(OutputError, match="Sigmoid over 4 classes: a multi-label model"):
        told(tmp_path, node("Sigmoid", ["z"], ["p"]))


def test_a_sigmoid_of_one_score_is_binary(tmp_path):
    path = linear(tmp_path / "m.onnx", node("Sigmoid", ["z"], ["p"]), output="p", weights=np.ones((6, 1), np.float32))
    assert head.output_kind_of_graph(onnx.load(path), "p") == "binary_probs"
