"""Keras and TensorFlow models and weights in files: safe mode, damage, SavedModel folders."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.distributions.probabilities import softmax, total_variation
from fo_onnx.errors import ModelError, ModelNotFoundError, TrustError

keras = pytest.importorskip("keras")
import tensorflow as tf  # noqa: E402
from fo_onnx_keras.plugin import KerasExporter  # noqa: E402
from keras import layers  # noqa: E402
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel  # noqa: E402

# Keras 3.15 saves variables by numpy.array, of which TensorFlow 2.21 does not know numpy 2's arguments.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
EXPORTER = KerasExporter()
ROWS = np.random.default_rng(0).standard_normal((20, 4), dtype=np.float32)
FEATURES = [tf.TensorSpec([None, 4], tf.float32, name="features")]


def dense(classes: int = 3, name: str = "classifier", inputs: int = 4) -> Any:
    keras.utils.set_random_seed(0)
    head = layers.Dense(classes, kernel_initializer=keras.initializers.RandomNormal(stddev=2), name="head")
    return keras.Sequential([layers.Input((inputs,)), head], name=name)


def with_lambda(folder: Path) -> Any:
    """A model with code in it, which leaves a trace in `folder` when it runs."""
    trace = str(folder / "ran")
    return keras.Sequential(
        [
            layers.Input((4,)),
            layers.Lambda(lambda x: (open(trace, "w").close(), x)[1], output_shape=(4,)),
            layers.Dense(3),
        ]
    )


def expected(model: Any) -> np.ndarray:
    return softmax(model(ROWS, training=False).numpy().astype(np.float64))


class Linear(tf.Module):
    """A module of TensorFlow's own."""

    def __init__(self) -> None:
        self.weight = tf.Variable(np.random.default_rng(0).standard_normal((4, 3), dtype=np.float32) * 2)

    @tf.function(input_signature=FEATURES)
    def __call__(self, features: Any) -> Any:
        return features @ self.weight


class Several(tf.Module):
    """One that cannot be called but by its signatures."""

    def __init__(self) -> None:
        self.weight = tf.Variable(np.random.default_rng(0).standard_normal((4, 3), dtype=np.float32) * 2)

    @tf.function(input_signature=FEATURES)
    def one(self, features: Any) -> Any:
        return features @ self.weight

    @tf.function(input_signature=FEATURES)
    def both(self, features: Any) -> Any:
        return {"scores": features @ self.weight, "features": features}


class Writing(tf.Module):
    @tf.function(input_signature=FEATURES)
    def __call__(self, features: Any) -> Any:
        tf.io.write_file("/tmp/fo-onnx-must-not-be-written", "x")
        return features


class Python(tf.Module):
    @tf.function(input_signature=FEATURES)
    def __call__(self, features: Any) -> Any:
        return tf.numpy_function(lambda a: a, [features], tf.float32)


class Nothing(tf.Module):
    def __init__(self) -> None:
        self.weight = tf.Variable(1.0)


def test_a_keras_file(tmp_path: Path) -> None:
    model = dense()
    model.save(tmp_path / "model.keras")

    found = fo.generate(tmp_path / "model.keras", ROWS, runner="onnx")

    assert total_variation(expected(model), found.probs).max() < 1e-6


def test_code_in_a_keras_file_needs_trust(tmp_path: Path) -> None:
    with_lambda(tmp_path).save(tmp_path / "model.keras")
    (tmp_path / "ran").unlink(missing_ok=True)

    with pytest.raises(TrustError, match=r"model.keras holds code .a Lambda layer.*say trust=True \(--trust-pickle"):
        EXPORTER.load(tmp_path / "model.keras", trust=False)
    assert not (tmp_path / "ran").exists(), "nothing of the file may run"

    EXPORTER.load(tmp_path / "model.keras", trust=True)(ROWS)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("lambdas", [False, True])
def test_an_h5_file_needs_trust(tmp_path: Path, lambdas: bool) -> None:
    model = with_lambda(tmp_path) if lambdas else dense()
    (tmp_path / "ran").unlink(missing_ok=True)
    keras.saving.save_model(model, tmp_path / "model.h5")

    with pytest.raises(
        TrustError, match=r"model in HDF5, which Keras reads without its safe mode.*Safer: save.*as .keras"
    ):
        EXPORTER.load(tmp_path / "model.h5", trust=False)
    assert not (tmp_path / "ran").exists()

    loaded = EXPORTER.load(tmp_path / "model.h5", trust=True)
    np.testing.assert_array_equal(loaded(ROWS), model(ROWS))


def test_unknown_classes_are_named(tmp_path: Path) -> None:
    class Unregistered(layers.Layer):
        def call(self, x: Any) -> Any:
            return x * 2

    keras.Sequential([layers.Input((4,)), Unregistered(), layers.Dense(3)]).save(tmp_path / "model.keras")

    with pytest.raises(
        ModelError, match=r"'Unregistered', which is not known here: decorate the class with @keras.saving.reg"
    ):
        EXPORTER.load(tmp_path / "model.keras", trust=False)


def flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 0xFF
    return bytes(changed)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.keras", lambda c: c[:500], "is no .keras file, or is truncated"),
        ("model.keras", lambda c: b"hello", "is no .keras file, or is truncated"),
        ("model.keras", flipped, "reading the Keras model in .* failed: BadZipFile: Bad CRC-32"),
        ("model.h5", lambda c: c[:500], "is no HDF5 file, or is truncated"),
        ("model.weights.h5", lambda c: c, "holds weights, not a model: give the model as package.module:attribute"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, damage: Any, message: str) -> None:
    path = tmp_path / name
    model = dense()
    model.save_weights(path) if name == "model.weights.h5" else keras.saving.save_model(model, path)
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(ModelError, match=message):
        EXPORTER.load(path, trust=True)


def test_other_archives_and_missing_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("a", "b")
    with pytest.raises(ModelError, match="an archive without config.json, so it is no .keras file"):
        EXPORTER.load(tmp_path / "other.keras", trust=False)
    with pytest.raises(ModelNotFoundError, match="there is no such file or folder"):
        EXPORTER.load(tmp_path / "none.keras", trust=False)


def test_a_saved_model_of_keras(tmp_path: Path) -> None:
    model = dense()
    model.export(tmp_path / "saved", verbose=False)
    assert EXPORTER.opens(tmp_path / "saved")
    assert not EXPORTER.opens(tmp_path)

    found = fo.generate(tmp_path / "saved", ROWS, runner="onnx")

    assert total_variation(expected(model), found.probs).max() < 1e-6
    native = fo.generate(tmp_path / "saved", ROWS, runner="native")
    assert total_variation(expected(model), native.probs).max() < 1e-6


def test_a_saved_model_takes_the_columns_of_a_frame(tmp_path: Path) -> None:
    """Its signature declares (n, 1) for each, and a column is (n,)."""
    pd = pytest.importorskip("pandas")
    inputs = [keras.Input((1,), name=name) for name in ("second", "first")]
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.Concatenate()(inputs)))
    model.export(tmp_path / "saved", verbose=False)
    columns = {name: ROWS[:, i] for i, name in enumerate(("first", "second"))}
    expected = model.predict([columns["second"][:, None], columns["first"][:, None]], verbose=0)
    for data in (columns, pd.DataFrame(columns)):
        for runner in ("native", "onnx"):
            dists = fo.generate(tmp_path / "saved", data, runner=runner, progress=False)
            assert total_variation(expected, dists.probs).max() < 1e-6


def test_a_saved_model_of_a_module(tmp_path: Path) -> None:
    module = Linear()
    tf.saved_model.save(module, str(tmp_path / "saved"))

    found = fo.generate(tmp_path / "saved", {"features": ROWS}, runner="onnx")

    assert total_variation(softmax((ROWS @ module.weight.numpy()).astype(np.float64)), found.probs).max() < 1e-6
    first, again = (EXPORTER.load(tmp_path / "saved", trust=False) for _ in range(2))
    assert EXPORTER.fingerprint(first, {}) == EXPORTER.fingerprint(again, {})
    module.weight.assign(module.weight + 1e-3)
    tf.saved_model.save(module, str(tmp_path / "other"))
    assert EXPORTER.fingerprint(EXPORTER.load(tmp_path / "other", trust=False), {}) != EXPORTER.fingerprint(first, {})


def test_signatures_and_outputs_of_a_saved_model(tmp_path: Path) -> None:
    module = Several()
    one, both = module.one.get_concrete_function(), module.both.get_concrete_function()
    tf.saved_model.save(module, str(tmp_path / "several"), signatures={"one": one, "both": both})
    tf.saved_model.save(module, str(tmp_path / "default"), signatures={"serving_default": both, "one": one})

    with pytest.raises(
        ModelError, match=r"signatures 'one', 'both', none of which is 'serving_default'. Choose one: loaded = tf.saved"
    ):
        EXPORTER.load(tmp_path / "several", trust=False)
    with pytest.raises(fo.OutputError, match=r"say which one with output_name=.*Its outputs are .*scores \(20, 3\)"):
        fo.generate(tmp_path / "default", ROWS)
    found = fo.generate(tmp_path / "default", ROWS, output_name="scores", runner="onnx")
    assert total_variation(softmax((ROWS @ module.weight.numpy()).astype(np.float64)), found.probs).max() < 1e-6


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (Writing, TrustError, r"reads or writes files when it runs \(WriteFile\). If you trust"),
        (Python, ModelError, r"calls Python functions \(PyFunc\), which are not in it"),
        (Nothing, ModelError, "has no signature, and cannot be called"),
    ],
)
def test_refused_saved_models(tmp_path: Path, kind: Any, error: Any, message: str) -> None:
    tf.saved_model.save(kind(), str(tmp_path / "saved"))

    with pytest.raises(error, match=message):
        EXPORTER.load(tmp_path / "saved", trust=False)


def test_a_saved_model_of_tensorflow_1_says_how_it_is_used(tmp_path: Path) -> None:
    folder = str(tmp_path / "saved")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4])
        weight = tf.compat.v1.get_variable("weight", initializer=tf.ones([4, 3]), use_resource=True)
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.saved_model.simple_save(session, folder, {"x": x}, {"y": x @ weight})

    for trust in (False, True):
        with pytest.raises(ModelError, match=r"saved by TensorFlow 1.*load\(path\).signatures\['serving_default'\]"):
            EXPORTER.load(Path(folder), trust=trust)
    loaded = tf.saved_model.load(folder)
    found = fo.generate(loaded.signatures["serving_default"], ROWS, runner="onnx")
    assert found.probs.shape == (20, 3)


FEATURE = tf.TensorSpec([None, 4], tf.float32)


def summary_writer(path: str) -> Any:
    tf.raw_ops.CreateSummaryFileWriter(
        writer=tf.raw_ops.SummaryWriter(), logdir=path, max_queue=1, flush_millis=1, filename_suffix=""
    )


@pytest.mark.parametrize(
    ("operator", "what"),
    [
        ("CreateSummaryFileWriter", summary_writer),
        ("TextLineDataset", lambda path: next(iter(tf.data.TextLineDataset(path)))),
        ("TFRecordDataset", lambda path: next(iter(tf.data.TFRecordDataset(path)))),
        ("FixedLengthRecordDatasetV2", lambda path: next(iter(tf.data.FixedLengthRecordDataset(path, 1)))),
        ("CSVDatasetV2", lambda path: next(iter(tf.data.experimental.CsvDataset(path, ["x"])))),
        ("CacheDatasetV2", lambda path: next(iter(tf.data.Dataset.range(2).cache(path)))),
        ("SaveV2", lambda path: tf.raw_ops.SaveV2(prefix=path, tensor_names=["a"], shape_and_slices=[""], tensors=[1.0])),
        ("RestoreV2", lambda path: tf.raw_ops.RestoreV2(prefix=path, tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.int32])),
        ("MergeV2Checkpoints", lambda path: tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=[path], destination_prefix=path)),
        ("SaveSlices", lambda path: tf.raw_ops.SaveSlices(filename=path, tensor_names=["a"], shapes_and_slices=[""], data=[1.0])),
        ("DebugIdentityV2", lambda path: tf.raw_ops.DebugIdentityV2(input=1.0, debug_urls=["file://" + path])),
        ("WholeFileReaderV2", lambda path: tf.raw_ops.WholeFileReaderV2()),
        ("ImmutableConst", lambda path: tf.raw_ops.ImmutableConst(dtype=tf.uint8, shape=[1], memory_region_name=path)),
        ("DatasetFromGraph", lambda path: tf.raw_ops.DatasetFromGraph(graph_def=b"")),
    ],
)  # fmt: skip
def test_saved_models_that_touch_files_need_trust(tmp_path: Path, operator: str, what: Any) -> None:
    class Touching(tf.Module):
        @tf.function(input_signature=[FEATURE])
        def __call__(self, x: Any) -> Any:
            what(str(tmp_path / "touched"))
            return x

    tf.saved_model.save(Touching(), str(tmp_path / "saved"))

    with pytest.raises(TrustError, match=rf"reads or writes files when it runs \(.*{operator}\b"):
        EXPORTER.load(tmp_path / "saved", trust=False)
    EXPORTER.load(tmp_path / "saved", trust=True)
    assert [p.name for p in tmp_path.iterdir()] == ["saved"]


def copy_as_other(graph: Any, saver: Any) -> None:
    """A function that nothing calls, and that TensorFlow may put in the place of one with the same interface."""
    saver.attr["api_implements"].s = b"interface"
    other = graph.graph_def.library.function.add()
    other.CopyFrom(saver)
    other.signature.name = "__inference_other_1"
    del saver.attr["api_implements"]


def add_call(graph: Any, saver: Any) -> None:
    call = next(f for f in graph.graph_def.library.function if "__call__" in f.signature.name)
    call.node_def.add(name="saver", op="PartitionedCall").attr["f"].func.name = saver.signature.name


def add_string(graph: Any, saver: Any) -> None:
    """The name that the function gets when it is loaded: an argument of a function is not renamed."""
    call = next(f for f in graph.graph_def.library.function if "__call__" in f.signature.name)
    call.node_def[0].attr["f"].func.attr["g"].func.name = "__inference__traced_save_999"


def add_gradient(graph: Any, saver: Any) -> None:
    graph.graph_def.library.gradient.add(function_name="f", gradient_func=saver.signature.name)


def add_object(graph: Any, saver: Any) -> None:
    graph.object_graph_def.nodes.add().bare_concrete_function.concrete_function_name = saver.signature.name


def add_interface(graph: Any, saver: Any) -> None:
    saver.attr["api_implements"].s = b"interface"


@pytest.mark.parametrize("change", [copy_as_other, add_interface, add_call, add_string, add_gradient, add_object])
def test_savers_that_a_saved_model_can_run_need_trust(tmp_path: Path, change: Any) -> None:
    tf.saved_model.save(Linear(), str(tmp_path / "saved"))
    path = tmp_path / "saved" / "saved_model.pb"
    content = SavedModel.FromString(path.read_bytes())
    (graph,) = content.meta_graphs
    change(graph, next(f for f in graph.graph_def.library.function if "_traced_save" in f.signature.name))
    path.write_bytes(content.SerializeToString())

    with pytest.raises(TrustError, match=r"reads or writes files when it runs \(MergeV2Checkpoints, SaveV2\)"):
        EXPORTER.load(tmp_path / "saved", trust=False)


def test_damaged_saved_models(tmp_path: Path) -> None:
    dense().export(tmp_path / "saved", verbose=False)
    graph = tmp_path / "saved" / "saved_model.pb"
    content = graph.read_bytes()
    graph.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="is no SavedModel, or is truncated"):
        EXPORTER.load(tmp_path / "saved", trust=False)
    graph.write_bytes(content)
    next((tmp_path / "saved" / "variables").glob("*.index")).unlink()
    with pytest.raises(ModelError, match="reading the SavedModel .* failed"):
        EXPORTER.load(tmp_path / "saved", trust=False)


def test_weights(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    trained, model = dense(), dense()
    trained.set_weights([w + 1 for w in trained.get_weights()])
    trained.save_weights(tmp_path / "w.weights.h5")
    trained.save(tmp_path / "w.keras")
    save_file({w.path: w.numpy() for w in trained.weights}, tmp_path / "w.safetensors")
    untrained = model.get_weights()
    for name in ("w.weights.h5", "w.keras", "w.safetensors"):
        model.set_weights(untrained)
        EXPORTER.load_weights(model, tmp_path / name)
        np.testing.assert_array_equal(model.get_weights()[0], trained.get_weights()[0], err_msg=name)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    dense().save_weights(tmp_path / "w.weights.h5")
    save_file({w.path: w.numpy() for w in dense().weights}, tmp_path / "w.safetensors")
    wide = dense(inputs=5)
    before = wide.get_weights()
    with pytest.raises(
        ModelError, match=r"cannot be filled into the model classifier.*The model has .*kernel \(5, 3\)"
    ):
        EXPORTER.load_weights(wide, tmp_path / "w.weights.h5")
    with pytest.raises(ModelError, match=r"head/kernel has the shape \(4, 3\) instead of \(5, 3\)"):
        EXPORTER.load_weights(wide, tmp_path / "w.safetensors")
    np.testing.assert_array_equal(wide.get_weights()[0], before[0])
    with pytest.raises(ModelError, match="other/head/kernel is missing.*classifier/head/bias is not the model's"):
        EXPORTER.load_weights(dense(name="other"), tmp_path / "w.safetensors")
    (tmp_path / "w.txt").write_text("no weights")
    for name, message in (("w.txt", "is no file of weights: .h5"), ("none.h5", "there is no such file")):
        with pytest.raises(ModelError, match=message):
            EXPORTER.load_weights(wide, tmp_path / name)
    (tmp_path / "t.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match="is no safetensors file, or is truncated"):
        EXPORTER.load_weights(wide, tmp_path / "t.safetensors")
    with pytest.raises(ModelError, match="was never built"):
        EXPORTER.load_weights(keras.Sequential([layers.Dense(3)]), tmp_path / "w.weights.h5")
    with pytest.raises(ModelError, match="only Keras models take weights"):
        EXPORTER.load_weights(Linear(), tmp_path / "w.weights.h5")


def test_the_command_line_says_nothing_of_tensorflow(tmp_path: Path) -> None:
    dense().save(tmp_path / "model.keras")
    np.save(tmp_path / "rows.npy", ROWS)

    found = subprocess.run(
        [sys.executable, "-m", "fo_onnx", "generate", "model.keras", "--data", "rows.npy", "-o", "rows.parquet", "--runner", "onnx"],
        cwd=tmp_path, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip

    assert found.returncode == 0, found.stderr
    assert "runner   onnx on cpu" in found.stdout
    assert found.stderr == ""
    assert total_variation(expected(dense()), fo.load(tmp_path / "rows.parquet").probs).max() < 1e-6
