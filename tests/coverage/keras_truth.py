"""What Keras itself gives for rows, and everything of a model that a run must leave as it was."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras_cases import CASES

import fo_onnx as fo
from fo_onnx.conversion.parity import row_spread
from fo_onnx.distributions.probabilities import softmax, total_variation

ROWS = 20
MIXED = ("mixed_f16", "mixed_bf16")


def check_in_onnx(name: str) -> None:
    """A case gives in ONNX, at several batch sizes, what Keras gives, and is left as it was."""
    model, rows_of = CASES[name].make()
    rows = rows_of(ROWS)
    expected = in_float32(model, rows) if name in MIXED else probs(model, rows)
    assert row_spread(expected) >= 0.05, "rows this close together agree with anything"
    before = state(model)

    with fo.Engine(model, runner="onnx", batch_size=7) as engine:
        found = engine.generate(rows)
        alone, three = engine.predict(first(rows, 1)), engine.predict(first(rows, 3))

    assert found.meta["runner"] == {"kind": "onnx", "reason": None, "foreign": [], "switched_at": None, "speed": None}
    assert found.meta["parity"]["passed"]
    for got, n in ((found.probs, ROWS), (alone, 1), (three, 3)):
        assert total_variation(expected[:n], got).max() < 1e-5
    assert state(model) == before


def logits(model: Any, rows: Any) -> np.ndarray:
    """The first output for rows as fo-onnx takes them, in evaluation mode, float64."""
    found = model(list(rows) if isinstance(rows, tuple) else rows, training=False)
    found = next(iter(found.values())) if isinstance(found, dict) else found
    return np.asarray(keras.ops.stop_gradient(found)).astype(np.float64)


def probs(model: Any, rows: Any) -> np.ndarray:
    """Distributions, of a model that gives logits or ends in a softmax."""
    found = logits(model, rows)
    ends_in_softmax = found.min() >= 0 and np.allclose(found.sum(axis=1), 1, atol=1e-5)
    return found if ends_in_softmax else softmax(found)


def in_float32(model: Any, rows: Any) -> np.ndarray:
    """Distributions of a model of half precision with its own weights, computed in float32: by a copy made from its config."""
    config = keras.saving.serialize_keras_object(model)
    for layer in config["config"]["layers"]:
        if "dtype" in layer["config"] and layer["class_name"] != "InputLayer":
            layer["config"]["dtype"] = "float32"
    copy = keras.saving.deserialize_keras_object(config)
    copy.set_weights(model.get_weights())
    return probs(copy, rows)


def first(rows: Any, n: int) -> Any:
    """The first `n` rows, in the same structure."""
    if isinstance(rows, dict):
        return {k: v[:n] for k, v in rows.items()}
    return tuple(v[:n] for v in rows) if isinstance(rows, tuple) else rows[:n]


def state(model: Any) -> Any:
    """Weights, seeds, flags, policies, losses and the optimizer of a model."""
    layered = [
        (layer.name, layer.trainable, layer.built, layer.dtype_policy.name, list(map(id, layer._losses)))
        for layer in model._flatten_layers()
    ]
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer is not None else [])]
    held = [(v.path, str(v.dtype), v.trainable, v.numpy().tobytes()) for v in variables]
    return layered, held
