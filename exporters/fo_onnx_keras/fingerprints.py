"""What tells one Keras or TensorFlow model from another across processes: structure, code and every weight.

Keras numbers the layers of a process, so that the same model has other names in the next one. Names are left out
therefore; what is connected with what is told by the layers' order.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np

from fo_onnx import digests, introspection

from .interfaces import entry_point
from .recognition import held_layers, is_graph_function, is_layer, is_trackable, tensorflow_module

_LIBRARIES = ("keras", "tensorflow", "tf_keras", "torch", "jax", "builtins")
"""Packages whose code is told by their versions."""
_COUNTED = re.compile(r"_\d+$")
_NUMBERED = re.compile(r"__(inference|forward|backward)_(.*?)_\d+")


def fingerprint(model: Any) -> str:
    """A digest of a model's structure, of the code that is not Keras' or TensorFlow's own, and of every weight.

    Seeds of layers that are random in training do not count, nor does what `compile` sets.
    """
    digest = hashlib.sha256()
    for part in _of_model(model, {id(model)}):
        digest.update(part)
        digest.update(b"\0")
    return digest.hexdigest()


def _of_model(model: Any, seen: set[int]) -> Iterator[bytes]:
    if is_layer(model):
        yield from _of_layers(model, seen)
    elif is_graph_function(model):
        yield from _of_graph_function(model, seen)
    elif is_trackable(model):
        yield from _of_trackable(model, seen)
    else:
        yield from digests.of_callable(model)
        yield from _of_held(model, seen)


def _of_layers(model: Any, seen: set[int]) -> Iterator[bytes]:
    layers = held_layers(model)
    numbers = _numbers(model, layers)
    yield from _without_names(_config(model), numbers)
    for layer in layers:
        yield _class_of(layer)
        yield from _of_own_code(layer)
        yield from _without_names({k: v for k, v in _config(layer).items() if k != "layers"}, numbers)
        if hasattr(layer, "get_vocabulary"):
            yield from digests.of_tree([str(v) for v in layer.get_vocabulary()])
        if callable(getattr(layer, "function", None)):
            yield from digests.of_callable(layer.function)
            yield from _of_held(layer.function, seen)
    # Not `variables`, which count the state of random numbers, and metrics.
    for weight in model.weights:
        yield from _of_array(weight.numpy() if hasattr(weight, "numpy") else np.asarray(weight))


def _config(layer: Any) -> dict[str, Any]:
    """A layer's configuration; empty where its class has none, as subclasses with arguments of their own often do."""
    try:
        return dict(layer.get_config())
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        return {}


def _numbers(model: Any, layers: list[Any]) -> dict[str, str]:
    """A number for each name of a layer, by the order of the layers."""
    named = [*layers, *getattr(model, "operations", ())]
    names = dict.fromkeys(str(layer.name) for layer in named if hasattr(layer, "name"))
    return {name: f"layer {i}" for i, name in enumerate(names)}


def _without_names(value: Any, numbers: Mapping[str, str]) -> Iterator[bytes]:
    """A configuration as bytes, with names of layers replaced by their numbers.

    They stand under ``"name"``, and in front of two integers where a layer's output is meant.
    """
    if isinstance(value, Mapping):
        if value.get("class_name") == "__lambda__":
            # Marshalled code differs from process to process; the function is told by itself.
            return
        for key, inner in value.items():
            if key == "name" and isinstance(inner, str):
                yield _number(inner, numbers)
            elif key != "seed":
                yield repr(key).encode()
                yield from _without_names(inner, numbers)
    elif isinstance(value, list | tuple):
        yield f"[{len(value)}".encode()
        if len(value) == 3 and [type(v) for v in value] == [str, int, int]:
            yield _number(value[0], numbers)
            value = value[1:]
        for inner in value:
            yield from _without_names(inner, numbers)
    else:
        yield from digests.of_tree(value)


def _number(name: str, numbers: Mapping[str, str]) -> bytes:
    # Of layers that others were made of, as those within Bidirectional, only the name is left.
    return numbers.get(name, _COUNTED.sub("", name)).encode()


def _of_own_code(layer: Any) -> Iterator[bytes]:
    """The methods of a layer's classes that are not Keras' own, and the plain attributes that it was given."""
    own = [c for c in type(layer).__mro__ if c.__module__.partition(".")[0] not in _LIBRARIES]
    for kind in own:
        for name, member in sorted(vars(kind).items()):
            function = inspect.unwrap(member) if callable(member) else member
            if inspect.isfunction(function):
                yield name.encode()
                yield from digests.of_code(function.__code__)
    if own:
        given = {k: v for k, v in vars(layer).items() if k not in _bookkeeping() and not k.startswith("_")}
        yield from digests.of_attributes(given)
        for name, value in sorted(given.items()):
            if _is_tensor(value):
                yield name.encode()
                yield from _of_array(np.asarray(value))


@cache
def _bookkeeping() -> frozenset[str]:
    """The attributes that every layer or model has."""
    import keras

    return frozenset((*vars(keras.Model()), *vars(keras.layers.Layer())))


def _of_graph_function(function: Any, seen: set[int]) -> Iterator[bytes]:
    inner = getattr(function, "python_function", None)
    if inner is not None:
        yield from digests.of_callable(inner)
        yield from _of_held(inner, seen)
        return
    yield from _of_graph(function)


def _of_trackable(model: Any, seen: set[int]) -> Iterator[bytes]:
    yield _class_of(model) if not getattr(model, "signatures", None) else b"SavedModel"
    entry = entry_point(model)
    if is_graph_function(entry) and hasattr(entry, "graph"):
        yield from _of_graph(entry)
        return
    for concrete in getattr(entry, "concrete_functions", ()):
        yield from _of_graph(concrete)
    inner = getattr(entry, "python_function", entry)
    yield from digests.of_callable(inner)
    yield from digests.of_attributes({k: v for k, v in vars(model).items() if not k.startswith("_")})
    for variable in getattr(model, "variables", ()):
        yield from _of_array(variable.numpy())
    yield from _of_held(inner, seen)


def _of_graph(concrete: Any) -> Iterator[bytes]:
    """A graph's nodes and those of its functions, without the numbers in their names; and all that it captured."""
    graph = concrete.graph.as_graph_def()
    functions = sorted(graph.library.function, key=lambda f: _NUMBERED.sub(r"\1_\2", f.signature.name))
    for nodes in (graph.node, *(f.node_def for f in functions)):
        for node in nodes:
            yield f"{node.op} {node.name} {list(node.input)}".encode()
            for name, value in sorted(node.attr.items()):
                if not name.startswith("_"):
                    called = _NUMBERED.sub(r"\1_\2", value.func.name) if value.HasField("func") else None
                    yield name.encode() + (called.encode() if called else value.SerializeToString(deterministic=True))
    tf = tensorflow_module()
    assert tf is not None
    for variable in concrete.variables:
        yield from _of_array(variable.numpy())
    for tensor, _ in concrete.graph.captures:
        if tensor.dtype not in (tf.resource, tf.variant) and hasattr(tensor, "numpy"):
            yield from _of_array(np.asarray(tensor.numpy()))


def _of_held(function: Any, seen: set[int]) -> Iterator[bytes]:
    """The models, tensors and variables that a function has in its hands."""
    for value in introspection.held(function):
        if is_layer(value) or is_graph_function(value) or is_trackable(value):
            if id(value) not in seen:  # a method's owner holds the method
                seen.add(id(value))
                yield from _of_model(value, seen)
        elif _is_tensor(value):
            yield from _of_array(np.asarray(value))


def _is_tensor(value: Any) -> bool:
    tf = tensorflow_module()
    if tf is not None and isinstance(value, tf.Tensor | tf.Variable):
        return bool(value.dtype not in (tf.resource, tf.variant)) and hasattr(value, "numpy")
    return False


def _of_array(array: Any) -> Iterator[bytes]:
    array = np.asarray(array)
    yield f"{array.dtype} {array.shape}".encode()
    yield repr(array.tolist()).encode() if array.dtype == object else array.tobytes()


def _class_of(value: Any) -> bytes:
    return f"{type(value).__module__}.{type(value).__qualname__}".encode()
