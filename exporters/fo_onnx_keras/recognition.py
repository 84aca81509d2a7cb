"""What is a model of Keras or TensorFlow, told without importing either."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from fo_onnx import introspection

_MODULES = ("keras", "keras.ops", "keras.activations", "tensorflow", "tensorflow.nn", "tensorflow.math")
"""Modules that a function over tensors has in its hands when it holds no model."""


def keras_module() -> ModuleType | None:
    """Keras, where somebody has imported it, whole."""
    return _imported("keras", "layers")


def tensorflow_module() -> ModuleType | None:
    """TensorFlow, where somebody has imported it, whole."""
    return _imported("tensorflow", "Module")


def is_layer(value: Any) -> bool:
    """Whether a value is a Keras model or layer, on whatever backend."""
    keras = keras_module()
    return keras is not None and isinstance(value, keras.layers.Layer)


def is_graph_function(value: Any) -> bool:
    """Whether a value is a ``tf.function``, or one with its signature chosen (a `ConcreteFunction`)."""
    tf = tensorflow_module()
    if tf is None:
        return False
    return isinstance(value, tf.types.experimental.PolymorphicFunction | tf.types.experimental.ConcreteFunction)


def is_trackable(value: Any) -> bool:
    """Whether a value is a ``tf.Module``, or what ``tf.saved_model.load`` gives; Keras' models are none."""
    tf = tensorflow_module()
    if tf is None or isinstance(value, type) or is_layer(value) or is_graph_function(value):
        return False
    return isinstance(value, tf.Module) or _is_loaded(value)


def is_model(value: Any) -> bool:
    """Whether a value is a model of Keras or TensorFlow that can be called by itself."""
    if is_layer(value) or is_graph_function(value):
        return True
    return is_trackable(value) and (callable(value) or bool(getattr(value, "signatures", None)))


def is_function_over_tensors(value: Any) -> bool:
    """Whether a value is a plain function that has a model, a tensor, Keras or TensorFlow in its hands."""
    if keras_module() is None and tensorflow_module() is None:
        return False
    return callable(value) and not isinstance(value, type) and any(map(_is_ours, introspection.held(value)))


def held_layers(model: Any) -> list[Any]:
    """The Keras layers that a model consists of, itself included, or that a function has in its hands; each once."""
    found: dict[int, Any] = {}
    for root in _roots(model):
        # Keras offers the layers of all depths under this name only; `layers` and `submodules` leave some out.
        for layer in root._flatten_layers():
            found.setdefault(id(layer), layer)
    return list(found.values())


def _roots(model: Any) -> Iterator[Any]:
    if is_layer(model):
        yield model
        return
    if is_graph_function(model):
        model = getattr(model, "python_function", model)
    for value in introspection.held(model):
        yield from (v for v in _members(value) if is_layer(v))


def _members(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()
    else:
        yield value


def _is_ours(value: Any) -> bool:
    if isinstance(value, ModuleType):
        return any(value is sys.modules.get(name) for name in _MODULES)
    tf, keras = tensorflow_module(), keras_module()
    if tf is not None and isinstance(value, tf.Tensor | tf.Variable):
        return True
    if keras is not None and isinstance(value, keras.Variable):
        return True
    return not isinstance(value, type) and is_model(value)


def _is_loaded(value: Any) -> bool:
    # Loaded objects are of a private class; their base is of TensorFlow's own, as that of a tf.Module is.
    return type(value).__module__ == "tensorflow.python.saved_model.load"


def _imported(name: str, attribute: str) -> ModuleType | None:
    # A module that is just being imported, by another thread say, lacks its names.
    found = sys.modules.get(name)
    return found if found is not None and hasattr(found, attribute) else None
