"""Detection of models of Keras and TensorFlow, without importing either."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from fo_onnx.plugin_kit import digests
from fo_onnx.plugin_kit.captured import captured_values

TENSORFLOW = "tensorflow"
_MODULES = ("keras", "keras.ops", "keras.activations", "tensorflow", "tensorflow.nn", "tensorflow.math")
"""Modules that a function over tensors has at hand when it holds no model."""


def keras_module() -> ModuleType | None:
    """Return Keras, if it is imported and complete."""
    return _imported_module("keras", "layers")


def tensorflow_module() -> ModuleType | None:
    """Return TensorFlow, if it is imported and complete."""
    return _imported_module("tensorflow", "Module")


def is_tensor_or_variable(value: Any) -> bool:
    """Return whether a value is a tensor or variable of TensorFlow, or a variable of Keras on whatever backend."""
    tf, keras = tensorflow_module(), keras_module()
    is_tensorflows = tf is not None and isinstance(value, tf.Tensor | tf.Variable)
    return is_tensorflows or (keras is not None and isinstance(value, keras.Variable))


def is_layer(value: Any) -> bool:
    """Return whether a value is a Keras model or layer, on whatever backend."""
    keras = keras_module()
    return keras is not None and isinstance(value, keras.layers.Layer)


def is_legacy_layer(value: Any) -> bool:
    """Return whether a value is a model or layer of Keras 2 (the package ``tf_keras``); to TensorFlow it is a ``tf.Module``."""
    tf_keras = _imported_module("tf_keras", "layers")
    return tf_keras is not None and isinstance(value, tf_keras.layers.Layer)


def is_graph_function(value: Any) -> bool:
    """Return whether a value is a ``tf.function``, or one with its signature chosen (a `ConcreteFunction`)."""
    tf = tensorflow_module()
    if tf is None:
        return False
    return isinstance(value, tf.types.experimental.PolymorphicFunction | tf.types.experimental.ConcreteFunction)


def is_trackable(value: Any) -> bool:
    """Return whether a value is a ``tf.Module``, or what ``tf.saved_model.load`` returns; Keras' models are none."""
    tf = tensorflow_module()
    if tf is None or isinstance(value, type) or is_layer(value) or is_graph_function(value):
        return False
    # Loaded objects are of a private class; their base is of TensorFlow's own, as that of a tf.Module is.
    return isinstance(value, tf.Module) or type(value).__module__ == "tensorflow.python.saved_model.load"


def is_model(value: Any) -> bool:
    """Return whether a value is a model of Keras or TensorFlow that can be called by itself."""
    if is_layer(value) or is_graph_function(value):
        return True
    return is_trackable(value) and (callable(value) or bool(getattr(value, "signatures", None)))


def is_function_over_tensors(value: Any) -> bool:
    """Return whether a value is a plain function that has a model, a tensor, Keras or TensorFlow at hand."""
    if keras_module() is None and tensorflow_module() is None:
        return False
    return callable(value) and not isinstance(value, type) and any(map(_is_of_framework, captured_values(value)))


def layers_of(model: Any) -> list[Any]:
    """Return the Keras layers that a model consists of, itself included, or that a function has at hand; each once."""
    roots = [model] if is_layer(model) else filter(is_layer, values_at_hand(model))
    # Keras offers the layers of all depths under this name only; `layers` and `submodules` leave out a part.
    return list({id(layer): layer for root in roots for layer in root._flatten_layers()}.values())


def values_at_hand(function: Any) -> Iterator[Any]:
    """Yield what a function or object has at hand, with the items of lists and dicts and the attributes of own objects."""
    if is_graph_function(function):
        function = getattr(function, "python_function", function)
    for value in captured_values(function):
        value = value() if isinstance(value, weakref.ref) else value  # the owner of a method that is a graph function
        is_part = is_layer(value) or is_trackable(value) or not hasattr(value, "__dict__")
        if not is_part and not digests.is_library(type(value).__module__):
            value = vars(value)
        for member in _members_of(value):
            yield from _members_of(member)


def backend_of(model: Any) -> str:
    """Return the backend that the tensors of a model are of: ``"tensorflow"``, ``"torch"``, ``"jax"``, ``"numpy"``."""
    keras = keras_module()
    if keras is None or not (layers_of(model) or _has_keras_at_hand(keras, model)):
        return TENSORFLOW
    return str(keras.config.backend())


def _members_of(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else (value,)


def _has_keras_at_hand(keras: Any, model: Any) -> bool:
    values = captured_values(model) if callable(model) else ()
    return any(v is keras or v is keras.ops or isinstance(v, keras.Variable) for v in values)


def _is_of_framework(value: Any) -> bool:
    if isinstance(value, ModuleType):
        return any(value is sys.modules.get(name) for name in _MODULES)
    return is_tensor_or_variable(value) or (not isinstance(value, type) and is_model(value))


def _imported_module(name: str, attribute: str) -> ModuleType | None:
    # A module that is just being imported, by another thread say, lacks its names.
    module = sys.modules.get(name)
    return module if module is not None and hasattr(module, attribute) else None
