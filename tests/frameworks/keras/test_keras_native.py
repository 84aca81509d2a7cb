"""Keras and TensorFlow models in TensorFlow: graphs, eager fallbacks, devices, strategies, precision."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.distributions.probabilities import softmax, total_variation
from fo_onnx.errors import DeviceError, ModelError, RunError

keras = pytest.importorskip("keras")
import tensorflow as tf  # noqa: E402
from fo_onnx_keras.plugin import KerasExporter  # noqa: E402
from keras import layers  # noqa: E402
from keras_cases import CASES  # noqa: E402
from keras_truth import in_float32, probs, state  # noqa: E402
from tensorflow.python.framework import ops  # noqa: E402

EXPORTER = KerasExporter()
ROWS = np.random.default_rng(0).standard_normal((20, 6), dtype=np.float32)
WEIGHT = np.random.default_rng(1).standard_normal((6, 3), dtype=np.float32)


def opened(model: Any, rows: Any = None, device: Any = "auto", output_name: str | None = None) -> Any:
    rows = ROWS if rows is None else rows
    inputs = rows if isinstance(rows, dict) else {"0": rows}
    return EXPORTER.native(model, inputs, device, ModelOptions(), OutputOptions(output_name=output_name))


def linear(*before: Any) -> Any:
    model = keras.Sequential([layers.Input((6,)), *before, layers.Dense(3)])
    model.layers[-1].set_weights([WEIGHT, np.zeros(3, np.float32)])
    return model


class Branching(layers.Layer):
    """Python that needs values, which no graph has."""

    def call(self, x: Any) -> Any:
        return x * 2 if float(keras.ops.max(x)) > 1e6 else x

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, x.dtype)


def test_a_numpy_function_within_a_model_runs_natively() -> None:
    model, rows_of = CASES["pyfunc"].make()
    rows = rows_of(20)

    with pytest.warns(fo.FallbackWarning, match="ONNX has no operator for PyFunc"):
        found = fo.generate(model, rows)

    assert found.meta["runner"]["kind"] == "native"
    assert total_variation(probs(model, rows), found.probs).max() < 1e-6
    with pytest.raises(fo.ExportError, match=r"PyFunc.*numpy_function"):
        fo.generate(model, rows, runner="onnx")


def test_a_lookup_runs_natively() -> None:
    keras.utils.set_random_seed(0)
    body = (layers.Discretization([-1.0, 0.0, 1.0]), layers.Embedding(5, 4), layers.Flatten())
    model = keras.Sequential([layers.Input((6,)), *body, layers.Dense(3)])

    with pytest.warns(fo.FallbackWarning, match="ONNX has no operator for Bucketize"):
        found = fo.generate(model, ROWS)

    assert total_variation(probs(model, ROWS), found.probs).max() < 1e-6


def test_what_cannot_be_traced_runs_eagerly() -> None:
    model = linear(Branching())

    raw = opened(model)

    for n in (1, 7, 20):
        np.testing.assert_allclose(raw.forward({"0": ROWS[:n]}), ROWS[:n] @ WEIGHT, atol=1e-5)


@pytest.mark.parametrize("policy", ["float16", "bfloat16"])
def test_weights_of_half_precision_are_computed_with_in_float32(policy: str) -> None:
    keras.mixed_precision.set_global_policy(policy)
    try:
        keras.utils.set_random_seed(0)
        body = (layers.Conv1D(4, 3), layers.BatchNormalization(), layers.Flatten(), layers.Dense(3, "softmax"))
        model = keras.Sequential([layers.Input((6, 4)), *body])
    finally:
        keras.mixed_precision.set_global_policy("float32")
    rows = np.random.default_rng(3).standard_normal((20, 6, 4), dtype=np.float32)
    config = keras.saving.serialize_keras_object(model)
    exact = keras.saving.deserialize_keras_object(json.loads(json.dumps(config).replace(f'"{policy}"', '"float32"')))
    for ours, theirs in zip(exact.variables, model.variables, strict=True):
        ours.assign(keras.ops.cast(theirs.value, "float32"))
    in_half = tf.cast(model(rows, training=False), tf.float32).numpy()

    found = fo.generate(model, rows, runner="onnx")

    gap = total_variation(exact(rows, training=False).numpy().astype(np.float64), in_half).max()
    assert gap > 1e-5, "the case must show the difference"
    assert total_variation(exact(rows, training=False).numpy(), found.probs).max() < 1e-5
    assert gap / 4 < found.meta["parity"]["original_gap"] < gap * 4
    assert {layer.dtype_policy.name for layer in model.layers} == {policy}
    assert {v.dtype for v in model.trainable_variables} == {policy}


@pytest.mark.parametrize("name", ["mixed_f16", "mixed_bf16"])
def test_half_precision_is_computed_in_float32_and_compared_with_itself(name: str) -> None:
    model, rows_of = CASES[name].make()
    rows = rows_of(20)
    in_half, before = probs(model, rows), state(model)

    found = fo.generate(model, rows, runner="onnx")

    gap = total_variation(in_float32(model, rows), in_half).max()
    assert 1e-6 < gap < 0.05, "the case must show the difference"
    assert abs(found.meta["parity"]["original_gap"] - gap) < 1e-4
    assert state(model) == before
    np.testing.assert_array_equal(probs(model, rows), in_half)


def test_policies_come_back_after_an_error() -> None:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = linear(Branching())
    finally:
        keras.mixed_precision.set_global_policy("float32")
    policies = [layer.dtype_policy.name for layer in model._flatten_layers()]
    with pytest.raises(fo.ExportError):
        fo.export(model, ROWS, "never.onnx")
    assert [layer.dtype_policy.name for layer in model._flatten_layers()] == policies
    assert "mixed_bfloat16" in policies


class Compiled(layers.Layer):
    """A layer whose method is a graph function."""

    def __init__(self) -> None:
        super().__init__(dtype="mixed_float16")
        self.inner = layers.Dense(3, dtype="mixed_float16")

    def build(self, shape: Any) -> None:
        self.inner.build(shape)

    @tf.function
    def call(self, x: Any) -> Any:
        return self.inner(x)


class CompiledModule(tf.Module):
    """A module that is called by a graph function."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    @tf.function
    def __call__(self, x: Any) -> Any:
        return self.net(x)


@pytest.mark.parametrize("kind", ["function", "module", "layer"])
@pytest.mark.parametrize("called_before", [False, True])
def test_traces_of_half_precision_stay_the_users_own(tmp_path: Path, kind: str, called_before: bool) -> None:
    net = Compiled()
    net.build(ROWS.shape)
    if kind != "layer":
        net = keras.Sequential([layers.Input((6,)), net.inner])
    (net.inner if kind == "layer" else net.layers[-1]).set_weights([WEIGHT, np.zeros(3, np.float32)])
    made = {
        "function": lambda: tf.function(lambda x: net(x)),
        "module": lambda: CompiledModule(net),
        "layer": lambda: net,
    }
    model = made[kind]()
    if called_before:
        assert model(tf.constant(ROWS)).dtype == tf.float16

    native = opened(model, {"x": ROWS})

    exact = ROWS @ WEIGHT
    assert np.abs(native.forward({"x": ROWS}) - exact).max() < 1e-5, "the reference is in float32"
    assert np.abs(native.original.forward({"x": ROWS}) - exact).max() > 1e-4, "the original is not"
    EXPORTER.export(model, {"x": ROWS}, tmp_path / "m.onnx", ModelOptions(), OutputOptions())
    assert model(tf.constant(ROWS)).dtype == tf.float16
    assert "call" not in vars(net)


def test_shared_and_nested_layers_of_half_precision() -> None:
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        keras.utils.set_random_seed(0)
        shared = layers.Dense(6, "tanh")
        inner = keras.Sequential([shared, layers.Dense(6, "tanh")])
        i = layers.Input((6,))
        model = keras.Model(i, layers.Dense(3, dtype="float32")(shared(inner(shared(i))) * 4))
    finally:
        keras.mixed_precision.set_global_policy("float32")

    found = fo.generate(model, ROWS, runner="onnx")

    x, (a, b), (c, d) = ROWS.astype(np.float64), shared.get_weights(), inner.layers[-1].get_weights()
    once = np.tanh(np.tanh(np.tanh(x @ a + b) @ a + b) @ c + d)
    e, f = model.layers[-1].get_weights()
    assert total_variation(softmax(np.tanh(once @ a + b) * 4 @ e + f), found.probs).max() < 1e-5


class Module(tf.Module):
    def __init__(self) -> None:
        self.weight = tf.Variable(WEIGHT)

    def __call__(self, x: Any) -> Any:
        return x @ self.weight


class Saved(Module):
    @tf.function(input_signature=[tf.TensorSpec((None, 6))])
    def __call__(self, x: Any) -> Any:
        return super().__call__(x)


MATRIX = tf.constant(WEIGHT)


def closed_over(x: Any) -> Any:
    return tf.linalg.matmul(x, MATRIX)


@pytest.mark.parametrize(
    "make",
    [
        lambda: closed_over,
        lambda: tf.function(closed_over),
        lambda: tf.function(closed_over).get_concrete_function(tf.TensorSpec([None, 6], tf.float32)),
        Module,
        lambda: tf.function(Module(), jit_compile=True),
        lambda: layers.Dense(3, kernel_initializer=keras.initializers.Constant(WEIGHT)),
        lambda: (lambda model: lambda x: keras.ops.multiply(model(x), 1.0))(linear()),
    ],
    ids=["function", "tf.function", "concrete", "module", "compiled", "layer", "closure over a model"],
)
def test_every_form_of_a_model(make: Any) -> None:
    model = make()
    if isinstance(model, layers.Layer):
        model(ROWS)
    assert EXPORTER.accepts(model)
    expected = softmax((ROWS @ WEIGHT).astype(np.float64))

    for runner in ("onnx", "native"):
        found = fo.generate(model, ROWS, runner=runner)
        assert total_variation(expected, found.probs).max() < 1e-5, runner
    wide = fo.generate(model, ROWS.astype(np.float64), runner="native")
    assert total_variation(expected, wide.probs).max() < 1e-5, "float64 rows are taken as float32"


def test_devices() -> None:
    assert opened(linear()).device == "cpu"
    assert opened(linear(), device="cpu").device == "cpu"
    for name in ("cuda:7", "tpu:0"):
        with pytest.raises(DeviceError, match=f"device='{name}' was asked for, but TensorFlow .* has only cpu"):
            opened(linear(), device=name)
    with pytest.raises(
        DeviceError, match=r"belong to no tf.distribute strategy.*MirroredStrategy\(\['/CPU:0', '/CPU:0'\]\)"
    ):
        opened(linear(), device=("cpu", "cpu:0"))


def test_what_lives_on_no_tpu_is_exported() -> None:
    assert EXPORTER.prefer_native(linear(), {"0": ROWS}) is None
    assert EXPORTER.prefer_native(closed_over, {"0": ROWS}) is None


class OnTpu(tf.Module):
    """Stands in for a module whose variable is on a device that is not here."""

    @property
    def variables(self) -> Any:
        return (SimpleNamespace(device="/job:worker/replica:0/task:0/device:TPU:3"),)

    def __call__(self, x: Any) -> Any:
        return x


class OfTpuStrategy(OnTpu):
    @property
    def variables(self) -> Any:
        strategy = type("TPUStrategyV2", (), {})()
        return (SimpleNamespace(device="/job:worker/replica:0/task:0/device:CPU:0", distribute_strategy=strategy),)


@pytest.mark.parametrize(("kind", "where"), [(OnTpu, "the device tpu:3"), (OfTpuStrategy, "a TPUStrategyV2")])
def test_what_lives_on_a_tpu_runs_natively(kind: Any, where: str) -> None:
    reason = EXPORTER.prefer_native(kind(), {"0": ROWS})
    assert reason == f"the model lives on {where}, and ONNX Runtime does not run on TPUs"


REPLICAS = """
import sys
import numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
import fo_onnx as fo
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx_keras.devices import home_of, strategy_of, tpu_of
from fo_onnx_keras.plugin import KerasExporter

rows = np.random.default_rng(0).standard_normal((23, 6), dtype=np.float32)
where = []

class Places(keras.layers.Layer):
    def call(self, x):
        context = tf.distribute.get_replica_context()
        where.append(int(tf.get_static_value(context.replica_id_in_sync_group)) if context else None)
        return x

strategy = tf.distribute.MirroredStrategy(["/CPU:0", "/CPU:1"])
with strategy.scope():
    model = keras.Sequential([keras.layers.Input((6,)), Places(), keras.layers.Dense(3)])
plain = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(3)])
plain.set_weights(model.get_weights())
expected = plain(rows).numpy()
exporter = KerasExporter()

def opened(model, device):
    return exporter.native(model, {"0": rows}, device, ModelOptions(), OutputOptions())

assert strategy_of(model) is strategy and strategy_of(plain) is None and tpu_of(model) is None
where.clear()
raw = opened(model, "auto")
assert raw.device == "cpu,cpu:1", raw.device
for n in (1, 2, 7, 22, 23):
    np.testing.assert_allclose(raw.forward({"0": rows[:n]}), expected[:n], atol=1e-6)
assert set(where) == {0, 1}, where
assert opened(model, ("cpu", "cpu:1")).device == "cpu,cpu:1"

for _ in range(4):
    raw = opened(plain, "auto")
    for n in (1, 7, 22):
        raw.forward({"0": rows[:n]})

one = opened(plain, "cpu:1")
assert one.device == "cpu:1"
np.testing.assert_allclose(one.forward({"0": rows}), expected, atol=1e-6)
assert home_of(plain) == "cpu", "copied, not moved"

for asked, message in (((("cpu", "cpu:2"),), "cpu:2"), ((("cpu",),), "say device='auto' to run on these")):
    try:
        opened(model, asked[0])
    except fo.DeviceError as err:
        assert message in str(err), err
    else:
        raise AssertionError(asked)

found = fo.generate(model, rows, runner="native", batch_size=5)
tv = np.abs(np.exp(expected) / np.exp(expected).sum(1, keepdims=True) - found.probs).sum(1) / 2
assert tv.max() < 1e-6
found = fo.generate(model, rows, runner="native", device=["cpu", "cpu:1"], batch_size=5)
assert (np.abs(np.exp(expected) / np.exp(expected).sum(1, keepdims=True) - found.probs).sum(1) / 2).max() < 1e-6
found = fo.generate(model, rows, batch_size=5, runner="onnx")
assert (np.abs(np.exp(expected) / np.exp(expected).sum(1, keepdims=True) - found.probs).sum(1) / 2).max() < 1e-5
assert found.meta["runner"]["kind"] == "onnx", found.meta["runner"]

keras.utils.set_random_seed(2)
with strategy.scope():
    model = keras.Sequential(
        [keras.layers.Input((6,)), keras.layers.BatchNormalization(momentum=0.5), keras.layers.Dense(3)])
    model.compile(optimizer="sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
lopsided = rows * np.where(np.arange(len(rows)) // 2 % 2, 1, 5)[:, None].astype(np.float32)
model.fit(lopsided[:20], np.arange(20) % 3, batch_size=4, epochs=2, shuffle=False, verbose=0)
copies = [v.value.values for v in model.non_trainable_variables if "moving" in v.path]
held = [[c.numpy() for c in cs] for cs in copies]
assert any(np.abs(a - b).max() > 0.01 for a, b in held), "the case must show the difference"
expected = model(rows, training=False).numpy()
np.testing.assert_allclose(opened(model, "auto").forward({"0": rows}), expected, atol=1e-5)
np.testing.assert_allclose(opened(model, "cpu").forward({"0": rows}), expected, atol=1e-5)
found = fo.generate(model, rows, runner="onnx")
assert found.meta["parity"]["max_tv"] < 1e-5, found.meta["parity"]
assert (np.abs(np.exp(expected) / np.exp(expected).sum(1, keepdims=True) - found.probs).sum(1) / 2).max() < 1e-5
for before, cs in zip(held, copies):
    for a, b in zip(before, cs):
        np.testing.assert_array_equal(a, b.numpy(), "the copies stay the replicas' own")
print("done")
"""


def test_a_strategy_spreads_batches_and_keeps_their_order() -> None:
    found = subprocess.run([sys.executable, "-c", REPLICAS], capture_output=True, text=True, timeout=200)
    assert found.stdout.strip().endswith("done"), found.stderr[-3000:]
    assert "triggered tf.function retracing" not in found.stderr


def test_functions_without_layers_run_at_a_time_in_threads() -> None:
    """Each waits for the other."""
    barrier = threading.Barrier(2, timeout=30)

    def function() -> Any:
        @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, 6], tf.float32)])
        def score(x: Any) -> Any:
            x = tf.numpy_function(lambda a: (barrier.wait(), a)[1], [x], tf.float32)
            return tf.ensure_shape(x, [None, 6]) @ WEIGHT

        return score

    models = [opened(function()) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda m: m.forward({"0": ROWS}), models):
            np.testing.assert_allclose(found, ROWS @ WEIGHT, atol=1e-5)


def test_errors_are_one_line() -> None:
    with pytest.raises(RunError) as caught:
        opened(linear()).forward({"0": ROWS[:, :5]})
    text = str(caught.value)
    assert text.startswith("running Sequential in TensorFlow on input: float32 (20, 5) failed: ")
    assert "\n" not in text
    assert "\x1b" not in text
    assert "expected axis -1 of input shape to have value 6" in text


def test_closed() -> None:
    raw = opened(linear())
    raw.close()
    raw.close()
    with pytest.raises(RunError, match="it was closed"):
        raw.forward({"0": ROWS})


def test_models_that_were_never_built() -> None:
    class Subclass(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    for model in (keras.Sequential([layers.Dense(3)]), Subclass(), layers.Dense(3)):
        for act in (EXPORTER.signature, opened):
            with pytest.raises(
                ModelError, match=r"was never built: it has no weights yet.*Load its weights, or train it"
            ):
                act(model)


def test_a_model_that_was_built_in_part() -> None:
    class Late(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.out = layers.Dense(3)

        def build(self, shape: Any) -> None:
            self.built = True

        def call(self, x: Any) -> Any:
            return self.out(x)

    model = Late()
    model.build((None, 6))
    with pytest.raises(ModelError, match="was built in part only: it made 2 new weights, with random values"):
        opened(model).forward({"0": ROWS})


def test_stateful_layers_are_refused() -> None:
    model = keras.Sequential([layers.Input(batch_shape=(4, 5, 6)), layers.LSTM(3, stateful=True, name="memory")])
    with pytest.raises(ModelError, match="the layer 'memory' is stateful.*stateful=False"):
        opened(model, np.zeros((4, 5, 6), np.float32))


def test_two_outputs_are_named() -> None:
    i = layers.Input((6,))
    model = keras.Model(i, [layers.Dense(3, name="classes")(i), layers.Dense(2, name="box")(i)])
    with pytest.raises(
        fo.OutputError, match=r"say which one with output_name=. Its outputs are classes \(20, 3\), box \(20, 2\)"
    ):
        opened(model).forward({"0": ROWS})

    found = fo.generate(model, ROWS, output_name="classes", runner="onnx")

    assert total_variation(softmax(model(ROWS)[0].numpy().astype(np.float64)), found.probs).max() < 1e-6


def test_inputs_by_other_names() -> None:
    model, rows_of = CASES["multi_in"].make()
    a, b = rows_of(20)
    with pytest.raises(RunError, match=r"it takes 2 inputs \(a, bb\), and the data have 1"):
        opened(model, {"a": a}).forward({"a": a})
    lone = opened(linear(), {"whatever": ROWS})
    np.testing.assert_allclose(lone.forward({"whatever": ROWS}), ROWS @ WEIGHT, atol=1e-5)
    np.testing.assert_array_equal(
        opened(model, {"bb": b, "a": a}).forward({"bb": b, "a": a}),
        opened(model, {"a": a, "bb": b}).forward({"a": a, "bb": b}),
    )


class Counting(layers.Layer):
    """A layer that counts its calls, and lets the count show in what it gives."""

    def build(self, shape: Any) -> None:
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x: Any) -> Any:
        self.calls.assign_add(1.0)
        return x * self.calls


class Failing(Counting):
    """A layer that fails after it has counted, in eager code."""

    def call(self, x: Any) -> Any:
        x = super().call(x)
        if float(keras.ops.max(x)) > 1e6:
            raise ValueError("too large")
        return x

    def compute_output_spec(self, x: Any) -> Any:
        return keras.KerasTensor(x.shape, x.dtype)


class Moving(layers.Layer):
    """Batch normalization that goes on moving its statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = layers.BatchNormalization()

    def call(self, x: Any) -> Any:
        return self.norm(x, training=True)


class CountingModule(Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = tf.Variable(0.0)

    @tf.function
    def __call__(self, x: Any) -> Any:
        self.calls.assign_add(1.0, read_value=False)
        return x @ self.weight


@pytest.mark.parametrize(
    "make",
    [lambda: linear(Counting()), lambda: linear(Moving()), lambda: linear(Failing()), CountingModule],
    ids=["counter", "batch statistics", "eager", "module"],
)
def test_a_run_leaves_variables_as_they_were(make: Any) -> None:
    model = make()
    before = [v.numpy() for v in model.variables]

    raw = opened(model)
    found = [raw.forward({"0": ROWS[:n]}) for n in (20, 7, 20)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fo.FallbackWarning)
        fo.generate(model, ROWS, runner="auto", batch_size=5)

    np.testing.assert_array_equal(found[0], found[2], "each batch starts from the values that the model has")
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value, variable.name)


def test_a_run_that_fails_leaves_variables_as_they_were() -> None:
    model = linear(Failing())
    raw = opened(model)
    raw.forward({"0": ROWS})
    with pytest.raises(RunError, match="ValueError: too large"):
        raw.forward({"0": ROWS * 1e7})
    assert model.layers[0].calls.numpy() == 0


@pytest.mark.parametrize("concrete", [False, True])
def test_a_signature_for_some_rows_runs_in_such_parts(concrete: bool) -> None:
    sizes = []

    @tf.function(input_signature=[tf.TensorSpec((8, 6))])
    def eight(x: Any) -> Any:
        tf.numpy_function(lambda a: sizes.append(len(a)), [x], [])
        return x @ MATRIX

    model = eight.get_concrete_function() if concrete else eight
    raw = opened(model, {"x": ROWS})
    for n in (1, 8, 20):
        np.testing.assert_allclose(raw.forward({"x": ROWS[:n]}), ROWS[:n] @ WEIGHT, atol=1e-5)
    assert sizes == [8] * 5

    with pytest.warns(fo.FallbackWarning, match=r"takes 8 rows at a time.*input_signature=\[tf.TensorSpec\(\[None"):
        found = fo.generate(model, ROWS, batch_size=7)
    assert total_variation(softmax((ROWS @ WEIGHT).astype(np.float64)), found.probs).max() < 1e-6


def test_a_signature_whose_owner_is_gone(tmp_path: Path) -> None:
    tf.saved_model.save(Saved(), str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    signature = loaded.signatures["serving_default"]
    assert opened(signature, {"x": ROWS}).forward({"x": ROWS}).shape == (20, 3)
    del loaded
    gc.collect()
    with pytest.raises(
        ModelError, match=r"variables of the TensorFlow function are gone.*loaded = tf.saved_model.load"
    ):
        fo.generate(signature, ROWS)


def test_a_list_of_inputs_is_no_batch() -> None:
    model, rows_of = CASES["multi_in"].make()
    a, b = rows_of(20)
    with pytest.raises(
        RunError, match=r"2 inputs \(a, bb\), and the data have 1. Give the arrays of several inputs as a tuple"
    ):
        fo.generate(model, [a, b[:, :1].repeat(8, 1)])


def test_always_on_dropout_samples() -> None:
    class Sampling(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = layers.Dropout(0.5, seed=0)

        def call(self, x: Any) -> Any:
            return self.dropout(x, training=True)

    model = linear(Sampling())
    before = [v.numpy() for v in model.variables]
    raw = opened(model)
    assert not np.array_equal(raw.forward({"0": ROWS}), raw.forward({"0": ROWS}))
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value, variable.path)


def test_a_gradient_is_in_tensorflows_registry_only_for_graphs_of_the_users(tmp_path: Path) -> None:
    registry = ops.gradient_registry._registry
    model, before = linear(layers.Dense(6, activation="silu")), set(registry)
    fo.export(model, ROWS, tmp_path / "model.onnx")
    opened(model).forward({"0": ROWS})
    assert set(registry) == before, "it refers to the weights, for as long as the process lives"

    # A function of the user's own may be traced by us first, and trained after.
    function = tf.function(lambda rows: tf.nn.silu(model(rows)))
    opened(function).forward({"0": ROWS})
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(function(tf.constant(ROWS)))
    assert all(g is not None for g in tape.gradient(loss, model.trainable_variables))


def test_rows_of_float64_reach_a_function_as_they_are() -> None:
    seconds = 1.7e9 + np.random.default_rng(0).integers(0, 600, (20, 6)).astype(np.float64)

    def phase(rows: Any) -> Any:
        return tf.cast(rows % 60 / 60, tf.float32) @ tf.constant(WEIGHT) * 3

    expected = softmax(phase(tf.constant(seconds)).numpy().astype(np.float64))
    rounded = softmax(phase(tf.constant(seconds.astype(np.float32))).numpy().astype(np.float64))
    assert total_variation(expected, rounded).max() > 0.1
    for model in (phase, tf.function(phase)):
        for runner in ("native", "onnx"):
            result = fo.generate(model, seconds, runner=runner)
            assert total_variation(expected, result.probs).max() < 1e-6
    # One that takes float32 alone gets that.
    function = tf.function(lambda rows: rows @ tf.constant(WEIGHT))
    result = fo.generate(function, ROWS.astype(np.float64), runner="onnx")
    assert total_variation(softmax((ROWS @ WEIGHT).astype(np.float64)), result.probs).max() < 1e-6


def test_a_layer_that_the_first_rows_would_build_is_refused() -> None:
    unbuilt = keras.layers.Dense(3)
    with pytest.raises(ModelError, match="was built in part only|never built"):
        fo.generate(lambda rows: unbuilt(rows), ROWS.astype(np.float64))
