"""Files as other tools write them: what ONNX Runtime runs is run, with the rows that it gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_files import CLASSES, FEATURES, WEIGHTS, expected, node, rows, run_in_onnx_runtime, write_graph

import fo_onnx as fo
from fo_onnx.distributions.probabilities import softmax, total_variation

X = rows(50)
FLOAT = TensorProto.FLOAT


def worst(dists: fo.Distributions, want: np.ndarray) -> float:
    return float(total_variation(dists.probs, want).max())


def test_an_operator_set_that_is_not_imported(tmp_path):
    """onnxruntime's own tools wrote such files, and onnx's checker refuses them."""
    fused = node("FusedMatMul", ["x", "w"], ["z"], domain="com.microsoft")
    io = ({"x": (FLOAT, ["n", FEATURES])}, {"z": (FLOAT, ["n", CLASSES])})
    path = write_graph(tmp_path / "m.onnx", [fused], *io, {"w": WEIGHTS})
    assert worst(fo.generate(path, X), expected(X)) < 1e-6


@pytest.mark.parametrize("opset", [1, 6, 7, 8])
@pytest.mark.parametrize("ending", ["logits", "probs"])
def test_old_operator_sets(tmp_path, opset, ending):
    nodes = [node("MatMul", ["x", "w"], ["z"]), node("Softmax" if ending == "probs" else "Identity", ["z"], ["o"])]
    inputs = {"x": (FLOAT, ["n", FEATURES]), "w": (FLOAT, WEIGHTS.shape)}
    path = write_graph(
        tmp_path / "m.onnx", nodes, inputs, {"o": (FLOAT, ["n", CLASSES])}, {"w": WEIGHTS}, opsets={"": opset}, ir_version=3
    )  # fmt: skip
    dists = fo.generate(path, X)
    assert worst(dists, expected(X)) < 1e-6
    assert dists.meta["model"]["output"] == ending


def test_a_classifier_that_imports_its_own_operator_set_alone(tmp_path):
    """CatBoost, H2O and the file that onnxruntime ships write so; the head's nodes are of the default set."""
    iris = Path(ort.__file__).parent / "datasets" / "logreg_iris.onnx"
    assert {o.domain for o in onnx.load(iris).opset_import} == {"ai.onnx.ml"}
    x = np.random.default_rng(0).uniform(0, 7, (7, 2)).astype(np.float32)
    session = ort.InferenceSession(iris, providers=["CPUExecutionProvider"])
    want = [list(row.values()) for part in (x[:3], x[3:6]) for row in session.run(None, {"float_input": part})[1]]
    dists = fo.generate(iris, x)
    assert dists.meta["model"]["opset"] is None
    assert dists.meta["engine"]["batch_size"] == 3
    assert worst(dists.slice(0, 6), np.array(want)) < 1e-6


@pytest.mark.parametrize("operator", ["MatMul", "Gemm"])
def test_a_quantised_file_gives_the_rows_that_its_integers_mean(tmp_path, operator):
    """Two products of 255 and 127 are more than 16 bits hold, in which a processor without VNNI may add them."""
    levels = np.random.default_rng(0).integers(100, 128, (FEATURES, CLASSES)).astype(np.int8)
    x = np.random.default_rng(1).integers(200, 256, (50, FEATURES)).astype(np.float32)
    nodes = [
        node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "one", "zero"], ["a"]),
        node("DequantizeLinear", ["w", "scale", "signed_zero"], ["v"]),
        node(operator, ["a", "v"], ["z"]),
    ]
    scale = np.float32(1e-3)
    constants = {
        "w": levels, "one": np.float32(1), "zero": np.uint8(0), "scale": scale, "signed_zero": np.int8(0),
    }  # fmt: skip
    io = ({"x": (FLOAT, ["n", FEATURES])}, {"z": (FLOAT, ["n", CLASSES])})
    path = write_graph(tmp_path / "m.onnx", nodes, *io, constants)
    want = softmax(x.astype(np.float64) @ levels * scale)
    assert total_variation(want[:1], want[1:]).max() > 0.01
    assert worst(fo.generate(path, x, output="logits"), want) < 1e-5


@pytest.mark.parametrize("classes", [2, 3])
def test_catboosts_own_files(tmp_path, classes):
    catboost = pytest.importorskip("catboost")
    labels = np.random.default_rng(0).integers(0, classes, len(X))
    model = catboost.CatBoostClassifier(iterations=5, verbose=0, thread_count=1, allow_writing_files=False)
    names = np.array(["red", "green", "blue"])
    model.fit(X, names[labels]).save_model(str(tmp_path / "m.onnx"), format="onnx")
    dists = fo.generate(tmp_path / "m.onnx", X, labels=names[labels])
    assert dists.class_names == tuple(model.classes_)
    assert worst(dists, model.predict_proba(X)) < 1e-6


@pytest.mark.parametrize("booster", ["lightgbm", "xgboost"])
def test_boosted_trees_by_onnxmltools(tmp_path, booster):
    pytest.importorskip("sklearn")  # both need it
    onnxmltools, package = pytest.importorskip("onnxmltools"), pytest.importorskip(booster)
    from onnxmltools.convert.common.data_types import FloatTensorType

    labels = np.random.default_rng(0).integers(0, 3, len(X))
    types = [("x", FloatTensorType([None, FEATURES]))]
    if booster == "lightgbm":
        model = package.LGBMClassifier(n_estimators=5, verbose=-1, min_child_samples=2).fit(X, labels)
        proto = onnxmltools.convert_lightgbm(model, initial_types=types)
    else:
        model = package.XGBClassifier(n_estimators=5).fit(X, labels)
        proto = onnxmltools.convert_xgboost(model, initial_types=types)
    onnx.save(proto, tmp_path / "m.onnx")
    assert worst(fo.generate(tmp_path / "m.onnx", X), model.predict_proba(X)) < 1e-6


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_floats_of_every_width(tmp_path, dtype):
    of = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    io = ({"x": (of, ["n", FEATURES])}, {"z": (of, ["n", CLASSES])})
    path = write_graph(tmp_path / "m.onnx", [node("MatMul", ["x", "w"], ["z"])], *io, {"w": WEIGHTS.astype(dtype)})
    want = softmax(run_in_onnx_runtime(path, x=X.astype(dtype)).astype(np.float64))
    # ONNX Runtime computes in float32 here, and leaves out the rounding to float16 in front of the head.
    assert worst(fo.generate(path, X.astype(dtype)), want) < (1e-3 if dtype == "float16" else 1e-6)


def test_graphs_of_other_forms(tmp_path):
    """Not in order, with weights among the inputs, with functions, with branches over outer values, with sparse weights."""
    inputs, outputs = {"x": (FLOAT, ["n", FEATURES])}, {"o": (FLOAT, ["n", CLASSES])}
    product = node("MatMul", ["x", "w"], ["z"])

    def branch(factor: str) -> onnx.GraphProto:
        # Its names are those that the head would take.
        result = helper.make_tensor_value_info("probs", FLOAT, None)
        return helper.make_graph([node("Mul", ["z", factor], ["probs"])], "branch", [], [result])

    choice = node("If", ["yes"], ["o"], then_branch=branch("one"), else_branch=branch("two"))
    constants = {"w": WEIGHTS, "yes": np.array(True), "one": np.float32(1), "two": np.float32(2)}
    files = [
        write_graph(tmp_path / "order.onnx", [node("Identity", ["z"], ["o"]), product], inputs, outputs, {"w": WEIGHTS}),
        write_graph(tmp_path / "if.onnx", [product, choice], inputs, outputs, constants),
        write_graph(
            tmp_path / "default.onnx", [product, node("Div", ["z", "t"], ["o"])],
            {**inputs, "w": (FLOAT, WEIGHTS.shape), "t": (FLOAT, [1])}, outputs, {"w": WEIGHTS, "t": np.ones(1, np.float32)},
        ),
        write_graph(tmp_path / "function.onnx", [node("f", ["x"], ["o"], domain="own")], inputs, outputs, {}, opsets={"": 17, "own": 1}),
        write_graph(tmp_path / "sparse.onnx", [node("MatMul", ["x", "w"], ["o"])], inputs, outputs, {}),
    ]  # fmt: skip
    proto = onnx.load(files[3])
    body = [node("Constant", [], ["w"], value=numpy_helper.from_array(WEIGHTS)), node("MatMul", ["a", "w"], ["b"])]
    proto.functions.append(helper.make_function("own", "f", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    onnx.save(proto, files[3])
    proto = onnx.load(files[4])
    values, places = numpy_helper.from_array(WEIGHTS.ravel(), "w"), numpy_helper.from_array(np.arange(WEIGHTS.size))
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, WEIGHTS.shape))
    onnx.save(proto, files[4])
    for path in files:
        assert worst(fo.generate(path, X), expected(X)) < 1e-6, path.name


def test_the_output_called_logits_is_taken_among_several(tmp_path):
    nodes = [node("Neg", ["logits"], ["hidden"]), node("MatMul", ["x", "w"], ["logits"])]
    outputs = {"hidden": (FLOAT, ["n", CLASSES]), "logits": (FLOAT, ["n", CLASSES])}
    path = write_graph(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["n", FEATURES])}, outputs, {"w": WEIGHTS})
    assert worst(fo.generate(path, X), expected(X)) < 1e-6
    assert worst(fo.generate(path, X, output_name="hidden"), expected(X)) > 0.1


def test_nothing_of_onnx_runtime_is_printed(tmp_path):
    """Neither where it refuses a file nor where a batch fails: the error says it."""
    io = ({"x": (FLOAT, ["n", FEATURES])}, {"o": (FLOAT, ["n", CLASSES])})
    unknown = node("Normalizer", ["x"], ["o"], domain="ai.onnx.ml", norm="L7")
    write_graph(tmp_path / "refused.onnx", [unknown], *io, {}, opsets={"": 17, "ai.onnx.ml": 3})
    nodes = [node("MatMul", ["x", "w"], ["z"]), node("Reshape", ["z", "s"], ["o"])]
    write_graph(tmp_path / "fails.onnx", nodes, *io, {"w": WEIGHTS, "s": np.array([7, 1])})
    for name, said in (("refused", "Invalid normalize value of L7"), ("fails", "cannot be reshaped")):
        code = f"""
import numpy as np, fo_onnx as fo
try:
    fo.generate({str(tmp_path / name)!r} + ".onnx", np.zeros((9, {FEATURES}), np.float32), progress=False)
except fo.FoOnnxError as err:
    assert {said!r} in str(err), err
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("zipmap", [True, False, "columns"])
@pytest.mark.parametrize("classes", [["a", "b", "c"], [10, 20, 30], [0, 1, 2]])
@pytest.mark.parametrize("kind", ["LogisticRegression", "RandomForestClassifier", "GaussianNB"])
def test_classes_have_the_names_that_the_predicted_class_has(tmp_path, kind, classes, zipmap):
    pytest.importorskip("skl2onnx")
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.naive_bayes import GaussianNB

    kinds = {
        "LogisticRegression": LogisticRegression(),
        "RandomForestClassifier": RandomForestClassifier(5, random_state=0),
        "GaussianNB": GaussianNB(),
    }
    labels = np.array(classes)[np.random.default_rng(0).integers(0, 3, len(X))]
    model = kinds[kind].fit(X, labels)
    onnx.save(to_onnx(model, X[:1], options={id(model): {"zipmap": zipmap}}), tmp_path / "m.onnx")
    dists = fo.generate(tmp_path / "m.onnx", X)
    assert worst(dists, model.predict_proba(X)) < 1e-5
    assert dists.class_names == (None if classes == [0, 1, 2] else tuple(map(str, classes)))


@pytest.mark.parametrize("text", [False, True])
def test_a_pipeline_over_the_columns_of_a_table(tmp_path, text):
    """skl2onnx gives each column an input of its own, (n, 1); some are text."""
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("skl2onnx")
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "age": rng.normal(40, 10, 60).astype("f"),
            "city": rng.choice(["rome", "oslo"], 60),
            "kids": rng.integers(0, 4, 60),
        }
    )
    steps = [(StandardScaler(), ["age", "kids"])]
    types = [("age", FloatTensorType([None, 1])), ("kids", Int64TensorType([None, 1]))]
    if text:
        steps.append((OneHotEncoder(), ["city"]))
        types.append(("city", StringTensorType([None, 1])))
    model = make_pipeline(make_column_transformer(*steps), LogisticRegression()).fit(
        frame, rng.choice(["no", "yes"], 60)
    )
    proto = convert_sklearn(model, initial_types=types, options={id(model): {"zipmap": False}})
    onnx.save(proto, tmp_path / "m.onnx")
    dists = fo.generate(tmp_path / "m.onnx", frame)
    assert worst(dists, model.predict_proba(frame)) < 1e-6
    assert dists.class_names == ("no", "yes")


def test_slices_of_a_tensor_that_are_no_classes_stay_apart(tmp_path):
    """Two outputs of a model, without a predicted class beside them."""
    nodes, outputs, constants = [node("MatMul", ["x", "w"], ["z"])], {}, {"w": WEIGHTS, "column": np.array([-1])}
    for i, name in enumerate(("mean", "spread")):
        constants |= {f"at{i}": np.array([i]), f"end{i}": np.array([i + 1]), "one": np.array([1])}
        nodes += [
            node("Slice", ["z", f"at{i}", f"end{i}", "one"], [f"s{i}"]),
            node("Reshape", [f"s{i}", "column"], [name]),
        ]
        outputs[name] = (FLOAT, ["n"])
    path = write_graph(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["n", FEATURES])}, outputs, constants)
    with pytest.raises(fo.ModelError, match=r"several outputs, \['mean', 'spread'\]; say which one with output_name="):
        fo.generate(path, X)
