"""The identity of a Keras or TensorFlow model, the same in every process: its weights, configuration and own code.

Keras numbers the layers of a process, so that the same model has other names in the next one: the numbers in names do
not count. Nothing is followed deeper than one level into what a function or a layer has at hand.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fo_onnx.plugin_kit import digests

from .detect import (
    is_graph_function,
    is_layer,
    is_legacy_layer,
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
_REFERENCES = ("keras_history", "input_layers", "output_layers")
"""Keys of a configuration under which layers are named that others are connected with."""
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
    """Return the configuration of a layer as JSON; empty if it has none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lambdas, which are not written to a file here
            config = layer.get_config()
    except (NotImplementedError, TypeError, ValueError, AttributeError, OSError):
        return b""
    return json.dumps(_comparable(config, {}), sort_keys=True).encode()


def _comparable(value: Any, places: Mapping[str, int], is_reference: bool = False) -> Any:
    """Return a configuration as JSON without seeds, code and the numbers in names, with references to layers by place."""
    if isinstance(value, list | tuple):
        return [_comparable(item, places, is_reference) for item in value]
    if not isinstance(value, Mapping):
        value = places.get(value, value) if is_reference and isinstance(value, str) else value
        return value if isinstance(value, int | float | str | None) else digests.sha256_of(digests.of_value(value))
    if value.get("class_name") == "__lambda__":
        # Marshalled code differs from process to process; the attributes of the layer have the function.
        return None
    layers = value.get("layers")
    if isinstance(layers, list):
        places = {str(layer.get("name")): i for i, layer in enumerate(layers) if isinstance(layer, Mapping)}
    return {
        str(key): _NUMBER.sub("", item)
        if key == "name" and isinstance(item, str)
        else _comparable(item, places, is_reference or key in _REFERENCES)
        for key, item in value.items()
        if key not in _NOT_OF_THE_MODEL
    }


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
    for name, value in sorted(digests.without_assigned(vars(holder), kind).items()):
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
    if is_legacy_layer(module):
        yield _config_of(module)
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
        functions = {f.signature.name: f.node_def for f in graph.library.function}
        # The names of functions are numbered anew in each process: they count by the order in which they are called.
        called: list[str] = []
        for nodes in itertools.chain([graph.node], (functions[name] for name in called)):
            yield f"{len(nodes)} nodes".encode()
            for node in nodes:
                attributes = sorted(node.attr.items())
                names = (node.op, *(f.name for _, value in attributes for f in (value.func, *value.list.func)))
                callees = [name for name in names if name in functions]
                called += [name for name in dict.fromkeys(callees) if name not in called]
                operator = "" if node.op in functions else node.op
                yield f"{operator} {[called.index(n) for n in callees]} {node.name} {list(node.input)}".encode()
                for name, value in attributes:
                    if not (name.startswith("_") or value.HasField("func") or value.list.func):
                        yield name.encode() + value.SerializeToString(deterministic=True)
        for tensor in (*concrete.variables, *concrete.captured_inputs):
            yield from _of_tensor(tensor)


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
