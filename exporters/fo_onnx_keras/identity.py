"""The identity of a Keras or TensorFlow model, the same in every process: its weights, configuration and own code.

Keras numbers the layers of a process, so that the same model has other names in the next one: the numbers in names do
not count. Nothing is followed deeper than one level into what a function or a layer has at hand.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from fo_onnx.plugin_kit import digests

from .detect import (
    is_graph_function,
    is_layer,
    is_tensor_or_variable,
    is_trackable,
    keras_module,
    layers_of,
    tensorflow_module,
    values_at_hand,
)
from .interface import signature_of

_NOT_OF_THE_MODEL = ("seed", "build_config", "build_input_shape")
"""Keys of a configuration that differ in each process, or that say how a model was called."""
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_NUMBER = re.compile(r"_\d+$")
_SET_BY_KERAS = frozenset({
    "name", "built", "compiled", "loss", "steps_per_execution", "unrolled_steps_per_execution", "stop_training",
    "stop_predicting", "stop_evaluating", "train_function", "test_function", "predict_function", "training",
})  # fmt: skip
"""Public attributes of models and layers that are set when they are named, built, compiled, trained and saved."""


def fingerprint(model: Any) -> str:
    """Return a digest of the weights of a model, its configuration, and the code of its own functions and classes.

    Seeds of layers that are random in training do not count, nor does what `compile` and `fit` set. Keras' settings
    count: layers and functions ask for them when they are called.
    """
    return digests.sha256_of(_of_model(model))


def _of_model(model: Any) -> Iterator[bytes]:
    keras = keras_module()
    settings = ("float32", 1e-7, "channels_last")  # Keras' own, if nobody has imported it
    if keras is not None:
        settings = (keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format())
    signature = re.sub(r"(input_layer|keras_tensor)_\d+", r"\1", repr(signature_of(model)))
    yield f"{digests.qualified_name(type(model))} {settings} {signature}".encode()
    if is_trackable(model):
        yield from _of_module(model)
    elif not is_layer(model):
        yield from _of_function(model)
    layers = layers_of(model)
    for layer in layers:
        yield f"{layer.compute_dtype} {layer.variable_dtype}".encode()
        yield _config_of(layer)
        if hasattr(layer, "get_vocabulary"):  # which adapt() sets, outside of the configuration
            yield repr([str(word) for word in layer.get_vocabulary()]).encode()
        yield from _of_object(layer)
    # Not `variables`, which count the state of random numbers, and metrics.
    for weight in {id(w): w for layer in layers for w in layer.weights}.values():
        yield from _of_tensor(weight)


def _config_of(layer: Any) -> bytes:
    """Return the configuration of a layer as JSON; empty if it has none, as with arguments that are no JSON.

    References to layers are by name, so the numbers in names become those of the order in the configuration.
    """
    names: dict[str, str] = {}

    def comparable(entry: dict[str, Any]) -> dict[str, Any] | None:
        name = entry.get("name")
        if isinstance(name, str):
            names.setdefault(name, f'"{_NUMBER.sub("", name)} {len(names)}"')
        # Marshalled code differs from process to process; the attributes of the layer have the function.
        is_code = entry.get("class_name") == "__lambda__"
        return None if is_code else {k: v for k, v in entry.items() if k not in _NOT_OF_THE_MODEL}

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lambdas, which are not written to a file here
            text = json.dumps(layer.get_config(), default=lambda v: digests.sha256_of(digests.of_value(v)))
    except (NotImplementedError, TypeError, ValueError, AttributeError, OSError):
        return b""
    text = json.dumps(json.loads(text, object_hook=comparable), sort_keys=True)
    return _TEXT.sub(lambda match: names.get(match[1], match[0]), text).encode()


def _of_object(holder: Any) -> Iterator[bytes]:
    """Yield the class of a layer or module with its own code, the functions that it holds, and its own constants."""
    kind = type(holder)
    yield digests.qualified_name(kind).encode()
    yield from digests.of_class_code(kind.__mro__)
    # Methods that are graph functions are no functions of Python.
    for base in kind.__mro__:
        for method in filter(is_graph_function, () if digests.is_library(base.__module__) else vars(base).values()):
            yield from digests.of_callable(method.python_function)
    is_own = not digests.is_library(kind.__module__)
    private = "_" if is_layer(holder) else "_self_"
    for name, value in sorted(vars(holder).items()):
        # Keras puts wrappers around methods of each layer, and functions for its training.
        if hasattr(kind, name) or name in _SET_BY_KERAS:
            continue
        if inspect.isroutine(value) or isinstance(value, functools.partial):
            yield name.encode()
            yield from digests.of_callable(value)
        elif is_own and not name.startswith(private):
            if _is_tensor(value):
                yield name.encode()
                yield from _of_tensor(value)
            elif digests.is_plain(value) or isinstance(value, np.ndarray):
                yield name.encode()
                yield from digests.of_value(value)


def _of_function(function: Any) -> Iterator[bytes]:
    """Yield the code of a function (its graphs if it has none), and tensors, variables and modules that it has at hand."""
    code = getattr(function, "python_function", None) if is_graph_function(function) else function
    if code is None:
        yield from _of_graphs(function)
        return
    yield f"{getattr(function, 'input_signature', None)} {getattr(function, '_jit_compile', None)}".encode()
    # Without the decorator of bound methods, which TensorFlow rewrites at tracing.
    yield from digests.of_callable(getattr(code, "__original_wrapped__", code))
    for value in values_at_hand(function):
        if _is_tensor(value):
            yield from _of_tensor(value)
        elif is_trackable(value):
            yield from _of_module(value)


def _of_module(module: Any) -> Iterator[bytes]:
    """Yield a ``tf.Module`` with the modules within it and their variables, or the functions of a SavedModel."""
    if hasattr(module, "submodules"):
        for part in (module, *module.submodules):
            yield from _of_object(part)
        for variable in module.variables:
            yield from _of_tensor(variable)
        return
    functions = {**getattr(module, "signatures", {}), "__call__": getattr(module, "__call__", None)}  # noqa: B004
    for name, function in sorted(functions.items()):
        if is_graph_function(function):
            yield name.encode()
            yield from _of_graphs(function)


def _of_graphs(function: Any) -> Iterator[bytes]:
    """Yield the graphs of a function without Python code: their nodes, and the values of all that they captured."""
    for concrete in getattr(function, "concrete_functions", None) or [function]:
        graph = concrete.graph.as_graph_def()
        names = {f.signature.name for f in graph.library.function}
        yield from _of_nodes(graph.node, names)
        # The names of functions are numbered anew in each process, and come in another order.
        yield from sorted(digests.sha256_of(_of_nodes(f.node_def, names)).encode() for f in graph.library.function)
        for tensor in (*concrete.variables, *concrete.captured_inputs):
            yield from _of_tensor(tensor)


def _of_nodes(nodes: Any, functions: set[str]) -> Iterator[bytes]:
    for node in nodes:
        yield f"{'' if node.op in functions else node.op} {node.name} {list(node.input)}".encode()
        for name, value in sorted(node.attr.items()):
            if not (name.startswith("_") or value.HasField("func") or value.list.func):
                yield name.encode() + value.SerializeToString(deterministic=True)


def _is_tensor(value: Any) -> bool:
    """Return whether a value is a tensor or variable of TensorFlow, of Keras, or of the backend that Keras runs on."""
    keras = keras_module()
    is_array = keras is not None and hasattr(type(value), "__array__") and keras.ops.is_tensor(value)
    return is_array or is_tensor_or_variable(value)


def _of_tensor(tensor: Any) -> Iterator[bytes]:
    """Yield the values of a tensor or variable; nothing of handles and symbolic tensors, which have none."""
    tf, keras = tensorflow_module(), keras_module()
    if keras is not None and isinstance(tensor, keras.Variable):
        tensor = tensor.value
    if tf is None or not isinstance(tensor, tf.Tensor | tf.Variable):
        yield from digests.of_array(np.asarray(keras.ops.convert_to_numpy(tensor)))  # type: ignore[union-attr]
    elif tensor.dtype not in (tf.resource, tf.variant) and hasattr(tensor, "numpy"):
        values = np.asarray(tensor.numpy())
        yield from digests.of_array(np.array([repr(v) for v in values.flat]) if values.dtype.hasobject else values)
