"""Fingerprints: the same for the same model in another process, and another for anything that changes a row."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras")
import tensorflow as tf  # noqa: E402
from fo_onnx_keras.export import KerasExporter  # noqa: E402
from keras import layers  # noqa: E402

fingerprint = KerasExporter().fingerprint


class Scale(layers.Layer):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def call(self, x: Any) -> Any:
        return x * self.factor


class Shift(Scale):
    def call(self, x: Any) -> Any:
        return x + self.factor


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
    ],
    ids=["weights", "activation", "attribute", "code", "lambda", "graph", "captured tensor"],
)
def test_what_changes_a_row_changes_the_fingerprint(one: Any, other: Any) -> None:
    assert fingerprint(one()) == fingerprint(one())
    assert fingerprint(one()) != fingerprint(other())


def test_an_adapted_vocabulary_counts() -> None:
    def lookup(words: list[str]) -> Any:
        layer = layers.StringLookup(output_mode="multi_hot")
        layer.adapt(np.array(words))
        return keras.Sequential([layers.Input((1,), dtype="string"), layer])

    assert fingerprint(lookup(["a", "b"])) == fingerprint(lookup(["a", "b"]))
    assert fingerprint(lookup(["a", "b"])) != fingerprint(lookup(["a", "c"]))


@pytest.mark.parametrize("name", ["mha", "gru_bi"])
def test_another_process_finds_the_same(name: str) -> None:
    folder = Path(__file__).parents[1] / "coverage"
    sys.path.insert(0, str(folder))
    from keras_cases import CASES

    # Weights that are the same in every bit: those of the cases are calculated.
    made = (
        f"model = CASES[{name!r}].make()[0]\nmodel.set_weights([np.full_like(w, 0.5) for w in model.get_weights()])\n"
    )
    names: dict[str, Any] = {"CASES": CASES, "np": np}
    exec(made, names)
    here = fingerprint(names["model"])
    program = (
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "import numpy as np\n"
        "from keras_cases import CASES, layers\n"
        "layers.Dense(1), layers.MultiHeadAttention(2, 2), layers.Input((3,))\n"
        "from fo_onnx_keras.export import KerasExporter\n"
        f"{made}print(KerasExporter().fingerprint(model))\n"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert there.stdout.strip() == here
