"""The identity of a Keras or TensorFlow model, the same in every process: its weights, configuration and own code.

Keras numbers the layers of a process, so that the same model has other names in the next one: names of layers do not
count, but for those of the inputs. Nothing is followed deeper than one level into what a function or a layer has at
hand.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import warnings
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fo_onnx.contracts.batch import Array
from fo_onnx.plugin_kit import digests
from fo_onnx.plugin_kit.captured import captured_values

from .detect import is_graph_function, is_layer, is_trackable, keras_module, layers_of, members_of, tensorflow_module
from .graphs import functions_called
from .interface import signature_of

_DEFAULT_SETTINGS = ("float32", 1e-7, "channels_last")
"""Keras' own settings, if nobody has imported it."""
_NOT_OF_THE_MODEL = ("name", "seed", "build_config", "build_input_shape")
"""Keys of a configuration that differ in each process, or that say how a model was called."""
_REFERENCES = ("keras_history", "input_layers", "output_layers")
"""Keys of a configuration under which layers are named that others are connected with."""
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
    return digests.sha256_of(_parts(model))


def _parts(model: Any) -> Iterator[bytes]:
    keras = keras_module()
    settings = _DEFAULT_SETTINGS
    if keras is not None:
        settings = (keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format())
    signature = re.sub(r"(input_layer|keras_tensor)_\d+", r"\1", repr(signature_of(model)))
    yield f"{digests.qualified_name(type(model))} {settings} {signature}".encode()
    if is_trackable(model):
        yield from _of_module(model)
    elif not is_layer(model):
        yield from _of_function(model)
    yield from _of_layers(layers_of(model))


def _of_layers(layers: list[Any]) -> Iterator[bytes]:
    for layer in layers:
        yield f"{layer.compute_dtype} {layer.variable_dtype}".encode()
        yield _config_of(layer)
        if hasattr(layer, "get_vocabulary"):  # which adapt() sets, outside of the configuration
            yield repr([str(word) for word in layer.get_vocabulary()]).encode()
        yield from _of_object(layer)
    # Not `variables`, which count the state of random numbers, and metrics.
    for weight in {id(w): w for layer in layers for w in layer.weights}.values():
        yield from digests.of_array(_to_array(weight))


def _config_of(layer: Any) -> bytes:
    """Return the configuration of a layer as JSON; empty if it has none, as with arguments that are no JSON."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lambdas, which are not written to a file here
            config = layer.get_config()
    except (NotImplementedError, TypeError, ValueError, AttributeError, OSError):
        return b""
    return json.dumps(_comparable(config, {}), sort_keys=True).encode()


def _comparable(value: Any, numbers: dict[str, int]) -> Any:
    """Return a configuration without names, seeds and code; references to layers by their numbers."""
    if isinstance(value, list | tuple):
        return [_comparable(item, numbers) for item in value]
    if not isinstance(value, Mapping):
        return value if isinstance(value, int | float | str | None) else digests.sha256_of(digests.of_value(value))
    if value.get("class_name") == "__lambda__":
        # Marshalled code differs from process to process; the attributes of the layer have the function.
        return None
    for layer in value.get("layers") or ():
        numbers[str(layer.get("name"))] = len(numbers)
    return {
        str(key): _numbered(item, numbers) if key in _REFERENCES else _comparable(item, numbers)
        for key, item in value.items()
        if key not in _NOT_OF_THE_MODEL
    }


def _numbered(reference: Any, numbers: dict[str, int]) -> Any:
    if isinstance(reference, str):
        return numbers.get(reference, reference)
    if isinstance(reference, Mapping):
        return [_numbered(item, numbers) for item in reference.items()]
    return [_numbered(i, numbers) for i in reference] if isinstance(reference, list | tuple) else reference


def _of_object(holder: Any) -> Iterator[bytes]:
    """Yield the class of a layer or module with its own code, the functions that it holds, and its own constants."""
    kind = type(holder)
    yield digests.qualified_name(kind).encode()
    yield from digests.of_class_code(kind.__mro__)
    # Methods that are graph functions are no functions of Python.
    for base in kind.__mro__:
        for method in filter(is_graph_function, () if digests.is_library(base.__module__) else vars(base).values()):
            yield from digests.of_callable(_undecorated(method))
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
            value = _to_array(value) if _is_tensor(value) else value
            if digests.is_plain(value) or isinstance(value, np.ndarray):
                yield name.encode()
                yield from digests.of_value(value)


def _of_function(function: Any) -> Iterator[bytes]:
    """Yield the code of a function (its graphs if it has none), and tensors, variables and modules that it has at hand.

    Its layers come with those of models. Of the user's own objects at hand their attributes count, too.
    """
    if is_graph_function(function) and not hasattr(function, "python_function"):
        yield from _of_graphs(function)
        return
    if is_graph_function(function):
        yield f"{function.input_signature} {getattr(function, '_jit_compile', None)}".encode()
        yield from digests.of_callable(_undecorated(function))
        function = function.python_function
    else:
        yield from digests.of_callable(function)
    for value in captured_values(function):
        value = value() if isinstance(value, weakref.ref) else value  # the owner of a method that is a graph function
        is_own = not digests.is_library(type(value).__module__)
        content = vars(value) if is_own and hasattr(value, "__dict__") else value
        for member in (m for item in members_of(content) for m in members_of(item)):
            if _is_tensor(member):
                yield from digests.of_array(_to_array(member))
            elif is_trackable(member):
                yield from _of_module(member)
            elif is_own and is_layer(member):
                yield from _of_layers(layers_of(member))


def _undecorated(function: Any) -> Any:
    """Return the Python function of a graph function, without the decorator that TensorFlow rewrites at tracing."""
    return getattr(function.python_function, "__original_wrapped__", function.python_function)


def _of_module(module: Any) -> Iterator[bytes]:
    """Yield a ``tf.Module`` with the modules within it and their variables, or the functions of a SavedModel."""
    if hasattr(module, "submodules"):
        for part in (module, *module.submodules):
            yield from _of_object(part)
        for variable in module.variables:
            yield from digests.of_array(_to_array(variable))
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
        called = functions_called(functions, graph.node)
        for node in (*graph.node, *(n for name in called for n in functions[name])):
            # The names of functions are numbered anew in each process.
            yield f"{'' if node.op in functions else node.op} {node.name} {list(node.input)}".encode()
            for name, value in sorted(node.attr.items()):
                if not (name.startswith("_") or value.HasField("func") or value.list.func):
                    yield name.encode() + value.SerializeToString(deterministic=True)
        for tensor in (*concrete.variables, *concrete.captured_inputs):
            yield from digests.of_array(_to_array(tensor))


def _is_tensor(value: Any) -> bool:
    """Return whether a value is a tensor or variable of TensorFlow, of Keras, or of the backend that Keras runs on."""
    tf, keras = tensorflow_module(), keras_module()
    if tf is not None and isinstance(value, tf.Tensor | tf.Variable):
        return True
    if keras is None or isinstance(value, type | np.ndarray | np.generic | keras.KerasTensor):
        return False
    return isinstance(value, keras.Variable) or (hasattr(type(value), "__array__") and bool(keras.ops.is_tensor(value)))


def _to_array(tensor: Any) -> Array:
    """Return the values of a tensor or variable; of handles and symbolic tensors, which have none, an empty array."""
    tf, keras = tensorflow_module(), keras_module()
    if keras is not None and isinstance(tensor, keras.Variable):
        tensor = tensor.value
    if tf is None or not isinstance(tensor, tf.Tensor | tf.Variable):
        return np.asarray(keras.ops.convert_to_numpy(tensor) if keras is not None else tensor)
    if tensor.dtype in (tf.resource, tf.variant) or not hasattr(tensor, "numpy"):
        return np.empty(0)
    values = np.asarray(tensor.numpy())
    return np.array([repr(v) for v in values.flat]) if values.dtype.hasobject else values
