"""Fingerprints: the same for the same model in another process, and another for anything that changes a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fresh_python import run_python

from fo_onnx.contracts.options import ModelOptions, OutputOptions

keras = pytest.importorskip("keras")
import tensorflow as tf  # noqa: E402
from fo_onnx_keras.plugin import KerasExporter  # noqa: E402
from keras import layers  # noqa: E402


def fingerprint(net: Any) -> str:
    return KerasExporter().fingerprint(net, {})


class Scale(layers.Layer):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def call(self, x: Any) -> Any:
        return x * self.factor


class Shift(Scale):
    def call(self, x: Any) -> Any:
        return x + self.factor


class Option(layers.Layer):
    """An option that only the configuration tells."""

    def __init__(self, option: Any, name: str | None = None) -> None:
        super().__init__(name=name)
        self._option = option

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "option": self._option}

    def call(self, x: Any) -> Any:
        return x


class Calling(tf.Module):
    """Calls two functions that a SavedModel holds under the same name."""

    def __init__(self, call: Any, *functions: Any) -> None:
        super().__init__()
        self._call, self._functions = call, [tf.function(f) for f in functions]

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])
    def __call__(self, x: Any) -> Any:
        return self._call(x, *self._functions)


def model(*middle: Any, activation: str = "relu", seed: int = 0) -> Any:
    keras.utils.set_random_seed(seed)
    return keras.Sequential([layers.Input((4,)), layers.Dense(5, activation), *middle, layers.Dense(3)])


def residual(first: int, second: int) -> Any:
    """Two layers of equal weights, added to one or the other."""
    i = layers.Input((4,))
    parts = [layers.Dense(4, kernel_initializer="ones")(i)]
    parts.append(layers.Dense(4, kernel_initializer="ones")(parts[0]))
    return keras.Model(i, layers.Subtract()([parts[first], parts[second]]))


def with_constant(value: float) -> Any:
    tensor = tf.constant([value])
    return tf.function(lambda x: x * tensor)


def test_equal_models_are_equal_whatever_their_layers_are_called() -> None:
    known = fingerprint(model())
    layers.Dense(1)  # Keras counts on
    assert fingerprint(model()) == known
    compiled = model()
    compiled.compile("adam", "mse")
    assert fingerprint(compiled) == known, "how it is trained does not matter"
    assert fingerprint(model(layers.Dropout(0.5))) == fingerprint(model(layers.Dropout(0.5))), "nor do seeds"
    options = {fingerprint(model(layers.Softmax(), activation="softmax")) for _ in range(3)}
    assert len(options) == 1, "nor is an option taken for the name of a layer"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (lambda: model(), lambda: model(seed=1)),
        (lambda: model(), lambda: model(activation="tanh")),
        (lambda: model(Scale(2.0)), lambda: model(Scale(3.0))),
        (lambda: model(Scale(2.0)), lambda: model(Shift(2.0))),
        (lambda: model(layers.Lambda(lambda x: x * 2)), lambda: model(layers.Lambda(lambda x: x * 3))),
        (lambda: residual(0, 1), lambda: residual(1, 0)),
        (lambda: with_constant(1.0), lambda: with_constant(2.0)),
        (lambda: model(Option("level_1", "level_1")), lambda: model(Option("level_2", "level_2"))),
        (lambda: model(Option({("key", 1): True})), lambda: model(Option({("key", 1): False}))),
        (lambda: model(Option({"layers": 1})), lambda: model(Option({"layers": 2}))),
    ],
    ids=[
        "weights", "activation", "attribute", "code", "lambda", "graph", "captured tensor", "option like a name",
        "option with a tuple for its key", "option called layers",
    ],
)  # fmt: skip
def test_what_changes_a_row_changes_the_fingerprint(one: Any, other: Any) -> None:
    assert fingerprint(one()) == fingerprint(one())
    assert fingerprint(one()) != fingerprint(other())


class Holder(layers.Layer):
    """Holds something under a name, and computes with it."""

    def __init__(self, **held: Any) -> None:
        super().__init__()
        for name, value in held.items():
            setattr(self, name, value)

    def call(self, x: Any) -> Any:
        return x


class Part(tf.Module):
    def __init__(self, factor: Any) -> None:
        super().__init__()
        self._factor = factor

    def __call__(self, x: Any) -> Any:
        return x * self._factor


class Whole(tf.Module):
    def __init__(self, factor: Any) -> None:
        super().__init__()
        self.parts = [Part(factor)]

    @tf.function
    def __call__(self, x: Any) -> Any:
        return self.parts[0](x)


class Owner:
    """A plain class with a method that is a graph function."""

    def __init__(self, factor: float) -> None:
        self.layers = [dense(factor)]

    @tf.function
    def predict(self, x: Any) -> Any:
        return self.layers[0](x)


OWNERS: list[Any] = []
"""TensorFlow's bound methods do not keep their owners."""


def bound(factor: float) -> Any:
    OWNERS.append(Owner(factor))
    return OWNERS[-1].predict


def held(**attributes: Any) -> Any:
    return keras.Sequential([layers.Input((4,)), Holder(**attributes)])


def dense(value: float) -> Any:
    layer = layers.Dense(3, kernel_initializer=keras.initializers.Constant(value))
    layer.build((None, 4))
    return layer


def named_activation(factor: float) -> Any:
    def own(x: Any) -> Any:
        return x * factor

    return keras.Sequential([layers.Input((4,)), layers.Dense(3, activation=own, kernel_initializer="ones")])


def with_default(factor: float) -> Any:
    def function(x: Any, by: float = factor) -> Any:
        return tf.nn.relu(x) * by

    return tf.function(function)


def over_list(value: float) -> Any:
    net = [dense(value)]
    return tf.function(lambda x: net[0](x))


@pytest.mark.parametrize(
    "make",
    [
        lambda v: held(_factor=v),
        lambda v: held(settings={"factor": v}),
        lambda v: held(function=(lambda x: x * 2) if v == 1.0 else (lambda x: x * 3)),
        lambda v: held(parts=[{"layer": dense(v)}]),
        lambda v: held(table=tf.constant([v])),
        named_activation,
        with_default,
        lambda v: Whole(v),
        lambda v: Whole(tf.Variable(v)),
        over_list,
        bound,
        lambda v: held(dtype_policy="float32" if v == 1.0 else "mixed_float16"),
    ],
    ids=[
        "argument", "dict", "lambda", "layer in a dict in a list", "tensor", "named activation", "default",
        "nested module", "nested variable", "list of layers", "bound method", "policy",
    ],
)  # fmt: skip
def test_weights_settings_and_code_count(make: Any) -> None:
    kept = [make(1.0)]  # two at a time have other numbers in their names
    assert fingerprint(kept[0]) == fingerprint(make(1.0))
    assert fingerprint(kept[0]) != fingerprint(make(2.0))


def test_settings_of_keras_count() -> None:
    net, before = model(), fingerprint(model())
    known = keras.config.epsilon()
    try:
        keras.config.set_epsilon(1e-3)
        assert fingerprint(net) != before
    finally:
        keras.config.set_epsilon(known)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    "make",
    [
        lambda: model(Scale(2.0), layers.Dropout(0.5), layers.BatchNormalization()),
        lambda: held(_deep={"parts": [dense(1.0)]}),
        lambda: over_list(1.0),
        lambda: Whole(tf.Variable(1.0)),
        lambda: bound(1.0),
        lambda: named_activation(2.0),
    ],
)
def test_running_and_exporting_change_nothing(tmp_path: Path, make: Any) -> None:
    net, x = make(), np.ones((2, 4), np.float32)
    before = fingerprint(net)
    net(x)
    if isinstance(net, keras.Model):
        net.predict(x, verbose=0)
        net.export(tmp_path / "saved", verbose=False)
        net.compile("sgd", "mse", metrics=["mae"])
        net.evaluate(x, net(x), verbose=0)
    elif isinstance(net, tf.Module):
        tf.saved_model.save(net, str(tmp_path / "saved"), signatures=net.__call__.get_concrete_function(x))
    assert fingerprint(net) == before
    KerasExporter().export(net, {"x": x}, tmp_path / "m.onnx", ModelOptions(), OutputOptions())
    assert fingerprint(net) == before
    if isinstance(net, keras.Model):
        net.weights[0].assign(net.weights[0] + 1)
        assert fingerprint(net) != before


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_saved_models(tmp_path: Path) -> None:
    def saved(value: float, name: str) -> Any:
        i = layers.Input((6, 2))
        ones = keras.initializers.Constant(value)
        o = layers.GRU(3, kernel_initializer=ones, recurrent_initializer=ones)(i)
        keras.Model(i, o).export(tmp_path / name, verbose=False)
        return str(tmp_path / name)

    one, other = saved(0.1, "one"), saved(0.2, "other")
    found = [fingerprint(tf.saved_model.load(path)) for path in (one, one, other)]
    assert found[0] == found[1] != found[2]
    loaded = [tf.saved_model.load(path) for path in (one, one, other)]
    found = [fingerprint(m.signatures["serving_default"]) for m in loaded]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize(
    "call",
    [lambda x, f, g: f(x) - 3 * g(x), lambda x, f, g: tf.cond(tf.reduce_sum(x) > 0, lambda: f(x), lambda: g(x))],
    ids=["calls", "branches"],
)
def test_saved_models_with_their_functions_swapped(tmp_path: Path, call: Any) -> None:
    first, second = (lambda x: tf.nn.relu(x)), (lambda x: tf.tanh(x))
    tf.saved_model.save(Calling(call, first, second), str(tmp_path / "one"))
    tf.saved_model.save(Calling(call, second, first), str(tmp_path / "other"))

    found = [fingerprint(tf.saved_model.load(str(tmp_path / name))) for name in ("one", "one", "other")]
    assert found[0] == found[1] != found[2]


def test_an_adapted_vocabulary_counts() -> None:
    def lookup(words: list[str]) -> Any:
        layer = layers.StringLookup(output_mode="multi_hot")
        layer.adapt(np.array(words))
        return keras.Sequential([layers.Input((1,), dtype="string"), layer])

    assert fingerprint(lookup(["a", "b"])) == fingerprint(lookup(["a", "b"]))
    assert fingerprint(lookup(["a", "b"])) != fingerprint(lookup(["a", "c"]))


@pytest.mark.parametrize("name", ["mha", pytest.param("gru_bi", marks=pytest.mark.slow)])
def test_another_process_finds_the_same(name: str) -> None:
    from keras_cases import CASES

    # Weights that are the same in every bit: those of the cases are calculated.
    made = (
        f"model = CASES[{name!r}].make()[0]\nmodel.set_weights([np.full_like(w, 0.5) for w in model.get_weights()])\n"
    )
    names: dict[str, Any] = {"CASES": CASES, "np": np}
    exec(made, names)
    here = fingerprint(names["model"])
    program = (
        "import numpy as np\n"
        "from keras_cases import CASES, layers\n"
        "layers.Dense(1), layers.MultiHeadAttention(2, 2), layers.Input((3,))\n"
        "from fo_onnx_keras.plugin import KerasExporter\n"
        f"{made}print(KerasExporter().fingerprint(model, {{}}))\n"
    )
    assert run_python(program).strip() == here


def test_another_process_finds_the_same_of_functions_and_modules() -> None:
    models = (
        "with_constant(2.0)",
        "with_default(2.0)",
        "Whole(tf.Variable(1.0))",
        "over_list(1.0)",
        "bound(1.0)",
        "named_activation(2.0)",
    )
    here = [fingerprint(eval(model)) for model in models]
    program = (
        f"from {__name__} import *\n"
        "layers.Dense(1), tf.Variable(1.0)\n"
        f"for model in {models}:\n    print(fingerprint(eval(model)))\n"
    )
    assert run_python(program).split() == here


class Counting(keras.Model):
    """Counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.out, self.calls, self.factor = layers.Dense(3), 0, 2.0

    def call(self, x: Any) -> Any:
        self.calls += 1
        return self.out(x) * self.factor


def test_a_count_of_calls_does_not_count() -> None:
    net = Counting()
    net(np.zeros((2, 4), np.float32))
    known, calls = fingerprint(net), net.calls
    net(np.zeros((2, 4), np.float32))
    assert net.calls > calls
    assert fingerprint(net) == known
    net.factor = 3.0
    assert fingerprint(net) != known
