"""Anybody's ONNX files: opened, told, served at any batch size, refused with a reason."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_files import CLASSES, FEATURES, WEIGHTS, expected, linear, node, rows

import fo_onnx as fo
from fo_onnx.conversion.parity import row_spread
from fo_onnx.distributions.probabilities import total_variation
from fo_onnx.errors import DataError, ModelError, ModelNotFoundError, OptionError, OutputError

X = rows(100)


def worst(dists, temperature=1.0):
    want = expected(X, temperature)
    assert row_spread(want) > 0.05
    return total_variation(dists.probs, want).max()


@pytest.fixture
def logits_file(tmp_path):
    return linear(tmp_path / "m.onnx")


def test_logits_are_detected_from_a_batch(logits_file):
    dists = fo.generate(logits_file, X)
    assert worst(dists) < 1e-6
    assert dists.meta["model"] | {"sha256": "…"} == {
        "name": "m", "framework": "onnx", "path": "m.onnx", "opset": 18, "sha256": "…", "class_names": None, "output": "logits",
        "temperature": 1.0,
    }  # fmt: skip
    assert dists.meta["runner"] == {"kind": "onnx", "reason": None, "foreign": [], "switched_at": None, "speed": None}


@pytest.mark.parametrize("batch", [1, 7, 64, 100, 1000])
def test_every_batch_size_gives_the_rows(logits_file, batch):
    dists = fo.generate(logits_file, X, batch_size=batch)
    assert worst(dists) < 1e-6
    assert dists.meta["engine"]["batch_size"] == batch


def test_a_softmax_at_the_end_is_seen_and_not_applied_twice(tmp_path):
    path = linear(tmp_path / "m.onnx", node("Softmax", ["z"], ["p"], axis=-1), output="p")
    dists = fo.generate(path, X)
    assert worst(dists) < 1e-6
    assert dists.meta["model"]["output"] == "probs"


def test_log_probabilities(tmp_path):
    path = linear(tmp_path / "m.onnx", node("LogSoftmax", ["z"], ["p"], axis=-1), output="p")
    assert worst(fo.generate(path, X)) < 1e-6
    assert worst(fo.generate(path, X, temperature=2.0), 2.0) < 1e-6


def test_a_temperature_and_kept_logits(logits_file):
    dists = fo.generate(logits_file, X, temperature=2.5, keep_logits=True)
    assert worst(dists, 2.5) < 1e-6
    np.testing.assert_allclose(dists.logits, X @ WEIGHTS, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [1, 8, 64])
def test_a_built_in_batch_size_is_padded_and_sliced(tmp_path, size):
    path = linear(tmp_path / "m.onnx", batch=size)
    dists = fo.generate(path, X, batch_size=50)
    assert worst(dists) < 1e-6
    assert dists.meta["engine"]["batch_size"] == size
    with fo.Engine(path) as engine:
        assert total_variation(engine.predict(X[:3]), expected(X[:3])).max() < 1e-6


def test_a_name_of_an_output_holds_for_an_opened_model_too(tmp_path):
    path = linear(tmp_path / "m.onnx", node("Neg", ["z"], ["other"]), more_outputs=("other",))
    opened = fo.OnnxModel.open(path, output_name="other")
    assert worst(fo.generate(opened, X, output_name="z")) < 1e-6
    assert worst(fo.generate(opened, X)) > 0.1


def test_a_file_that_changed_since_it_was_opened(tmp_path):
    opened = fo.OnnxModel.open(linear(tmp_path / "m.onnx"))
    linear(tmp_path / "m.onnx", weights=WEIGHTS * 2)
    with pytest.raises(ModelError, match="has changed since it was opened"):
        fo.generate(opened, X)


@pytest.mark.parametrize(("op", "width"), [("Softmax", 4), ("Sigmoid", 1)])
def test_a_last_node_whose_width_is_not_written_down(tmp_path, op, width):
    attributes = {"axis": -1} if op == "Softmax" else {}
    weights = WEIGHTS[:, :width]
    path = linear(
        tmp_path / "m.onnx", node(op, ["z"], ["p"], **attributes), output="p", weights=weights, shape=["n", "k"]
    )
    proto = onnx.load(path)
    if op == "Softmax":
        proto.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(proto, path)
    if op == "Softmax":
        assert worst(fo.generate(path, X)) < 1e-6
    else:
        with pytest.raises(OutputError, match="output='binary_probs' or output='binary_logits'"):
            fo.generate(path, X)
        assert fo.generate(path, X, output="binary_probs").probs.shape == (100, 2)


def test_a_batch_axis_of_minus_one_is_open(tmp_path):
    path = linear(tmp_path / "m.onnx")
    proto = onnx.load(path)
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = -1
    onnx.save(proto, path)
    assert worst(fo.generate(path, X)) < 1e-6


def test_a_name_for_a_file(tmp_path):
    assert fo.generate(linear(tmp_path / "m.onnx"), X, model_name="teacher").meta["model"]["name"] == "teacher"


def test_an_error_in_an_output_transform_is_the_callers(tmp_path):
    """No other runner steps in: it would call the same function."""

    def transform(raw):
        if len(raw) == 16 and abs(raw[0, 0] - late) < 1e-6:
            raise ValueError("my own mistake")
        return np.full((len(raw), 3), 1 / 3, np.float32)

    x = rows(400)
    late = (x @ WEIGHTS)[320, 0]
    with pytest.raises(OutputError, match=r"my own mistake.*rows 320 to 335"):
        fo.generate(linear(tmp_path / "m.onnx"), x, output_transform=transform, batch_size=16)


def test_several_outputs_ask_for_a_name(tmp_path):
    path = linear(tmp_path / "m.onnx", node("Relu", ["z"], ["hidden"]), more_outputs=("hidden",))
    with pytest.raises(ModelError, match=r"several outputs, \['z', 'hidden'\]; say which one with output_name="):
        fo.generate(path, X)
    assert worst(fo.generate(path, X, output_name="z")) < 1e-6
    with pytest.raises(ModelError, match=r"has no output 'q'; its outputs are \['z', 'hidden'\]"):
        fo.generate(path, X, output_name="q")


def test_binary_outputs(tmp_path):
    one = WEIGHTS[:, :1]
    want = 1 / (1 + np.exp(-(X @ one)[:, 0]))
    logits = fo.generate(linear(tmp_path / "z.onnx", weights=one), X)
    assert logits.meta["model"]["output"] == "binary_logits"
    sigmoid = fo.generate(linear(tmp_path / "p.onnx", node("Sigmoid", ["z"], ["p"]), output="p", weights=one), X)
    assert sigmoid.meta["model"]["output"] == "binary_probs"
    for dists in (logits, sigmoid):
        assert dists.probs.shape == (100, 2)
        np.testing.assert_allclose(dists.probs[:, 1], want, atol=1e-6)
        np.testing.assert_allclose(dists.probs.sum(axis=1), 1, atol=1e-6)


def test_the_caller_may_say_what_an_output_is(tmp_path):
    path = linear(tmp_path / "m.onnx", node("Softmax", ["z"], ["p"], axis=-1), output="p")
    twice = fo.generate(path, X, output="logits")
    assert twice.meta["model"]["output"] == "logits"
    assert worst(twice) > 0.1
    with pytest.raises(OutputError, match=r"was said to give output='probs', but .* rows are no such thing"):
        fo.generate(linear(tmp_path / "z.onnx"), X, output="probs")


def test_an_output_transform_takes_the_heads_place(tmp_path):
    path = linear(tmp_path / "m.onnx")

    def sharpened(raw):
        assert raw.shape[1] == CLASSES
        e = np.exp(2 * (raw - raw.max(axis=1, keepdims=True)))
        return e / e.sum(axis=1, keepdims=True)

    dists = fo.generate(path, X, output_transform=sharpened)
    assert worst(dists, 0.5) < 1e-6
    assert dists.meta["model"]["output"] is None
    with pytest.raises(OutputError, match=r"output_transform= gave an array of shape \(100,\)"):
        fo.generate(path, X, output_transform=lambda raw: raw[:, 0])
    with pytest.raises(OutputError, match="output_transform= failed .* ZeroDivisionError"):
        fo.generate(path, X, output_transform=lambda raw: 1 / 0)
    with pytest.raises(DataError, match="its output is no distribution"):
        fo.generate(path, X, output_transform=lambda raw: raw)


def test_class_names_are_counted(logits_file):
    names = ["a", "b", "c", "d"]
    assert fo.generate(logits_file, X, class_names=names).class_names == tuple(names)
    with pytest.raises(OptionError, match="class_names holds 3 names, and m has 4 classes"):
        fo.generate(logits_file, X, class_names=names[:3])
    with pytest.raises(OptionError, match="holds 'a' more than once"):
        fo.generate(logits_file, X, class_names=["a", "a", "b", "c"])


def test_files_that_are_none(tmp_path):
    with pytest.raises(ModelNotFoundError, match="found nothing; an .onnx file was expected"):
        fo.generate(tmp_path / "no.onnx", X)
    with pytest.raises(FileNotFoundError):
        fo.generate(tmp_path / "no.onnx", X)
    noise = tmp_path / "noise.onnx"
    noise.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(ModelError, match="no ONNX file, or it is truncated|holds no graph"):
        fo.generate(noise, X)
    noise.write_bytes(b"")
    with pytest.raises(ModelError, match="holds no graph"):
        fo.generate(noise, X)
    with pytest.raises(ModelError, match="known suffixes are .onnx, .*.pt"):
        fo.generate(__file__, X)


def test_a_truncated_file(tmp_path):
    path = linear(tmp_path / "m.onnx", weights=np.ones((FEATURES, 4000), np.float32))
    whole = path.read_bytes()
    for cut in (10, 1000, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelError, match="opening the model"):
            fo.OnnxModel.open(path)


def test_models_that_are_no_classifiers(tmp_path):
    with pytest.raises(OutputError, match=r"gives an output of shape \(n, 2, 2\)"):
        tail = node("Reshape", ["z", "s"], ["p"])
        path = linear(
            tmp_path / "a.onnx", tail, output="p", shape=["n", 2, 2], initializers={"s": np.array([-1, 2, 2])}
        )
        fo.generate(path, X)
    with pytest.raises(OutputError, match="of type int64; class scores as floating-point numbers"):
        tail = node("ArgMax", ["z"], ["p"], axis=1, keepdims=0)
        fo.generate(linear(tmp_path / "b.onnx", tail, output="p", dtype=TensorProto.INT64, shape=["n"]), X)
    with pytest.raises(OutputError, match="Sigmoid over 4 classes: a multi-label model"):
        fo.generate(linear(tmp_path / "c.onnx", node("Sigmoid", ["z"], ["p"]), output="p"), X)


def test_a_scalar_or_a_mean_over_the_batch_is_found_when_it_runs(tmp_path):
    tail = node("ReduceMean", ["z", "axes"], ["p"], keepdims=1)
    path = linear(tmp_path / "m.onnx", tail, output="p", shape=["n", 4], initializers={"axes": np.array([0])})
    with pytest.raises(OutputError, match=r"of shape \(1, 4\) for 100 rows; one row per sample was expected"):
        fo.generate(path, X)


def test_an_operator_that_the_runtime_lacks(tmp_path):
    path = linear(tmp_path / "m.onnx")
    proto = onnx.load(path)
    proto.graph.node.append(onnx.helper.make_node("Magic", ["z"], ["p"], domain="no.such"))
    proto.graph.output[0].name = "p"
    proto.opset_import.append(onnx.helper.make_opsetid("no.such", 1))
    onnx.save(proto, path)
    with pytest.raises(ModelError, match="ONNX Runtime refuses the model m: .*Magic"):
        fo.generate(path, X)


def test_no_other_runner_stands_behind_a_file(logits_file):
    with pytest.raises(OptionError, match="is an ONNX file and has no other runner"):
        fo.generate(logits_file, X, runner="native")


def test_a_row_that_is_not_finite_is_named(logits_file):
    x = X.copy()
    x[41, 2] = np.nan
    with pytest.raises(
        DataError, match=r"row 41 \(id 41\): .* NaN in its input .*on_error='skip'.*41 finished rows"
    ) as caught:
        fo.generate(logits_file, x, batch_size=16)
    assert caught.value.position == 41
    assert len(caught.value.finished) == 41
    skipped = fo.generate(logits_file, x, on_error="skip", ids=[f"r{i}" for i in range(100)])
    assert "r41" not in skipped
    assert len(skipped) == 99
    assert skipped.meta["rows"] == {"written": 99, "skipped": 1, "quarantined": 0}
    assert total_variation(skipped.probs, expected(np.delete(x, 41, axis=0))).max() < 1e-6


def test_too_many_bad_rows(logits_file):
    x = X.copy()
    x[::10] = np.inf
    with pytest.raises(DataError, match=r"\d+ rows could not be read or run, and max_errors=3"):
        fo.generate(logits_file, x, on_error="skip", max_errors=3, batch_size=4)
    assert len(fo.generate(logits_file, x, on_error="skip", max_errors=10)) == 90


def test_labels_that_are_no_class(logits_file):
    labels = np.zeros(100, np.int64)
    labels[60] = 4
    with pytest.raises(DataError, match="row with id 60: its label 4 is no class; the model has 4 classes, 0 to 3"):
        fo.generate(logits_file, X, labels=labels)


def test_a_failing_row_is_named(tmp_path):
    tail = [node("Gather", ["table", "row"], ["g"], axis=0), node("Add", ["z", "g"], ["p"])]
    index = [node("ReduceMax", ["x", "axes"], ["m"], keepdims=0), node("Cast", ["m"], ["row"], to=TensorProto.INT64)]
    path = linear(
        tmp_path / "m.onnx", *index, *tail, output="p",
        initializers={"table": np.zeros((5, CLASSES), np.float32), "axes": np.array([1])},
    )  # fmt: skip
    x = np.abs(rows(400))
    x[300] = 100
    with pytest.raises(DataError, match=r"row 300 \(id 300\): .*in ONNX Runtime failed: .*300 finished rows"):
        fo.generate(path, x, batch_size=16)


def test_a_file_that_changes_before_an_engine_runs_it_is_refused(tmp_path):
    path = linear(tmp_path / "m.onnx")
    with fo.Engine(path, output="logits") as engine:
        linear(path, weights=-np.ones((FEATURES, CLASSES), np.float32))
        with pytest.raises(fo.ModelError, match="m.onnx has changed since it was opened"):
            engine.predict(X[:3])
