"""What tells one Keras or TensorFlow model from another across processes: structure, code and every weight.

Keras numbers the layers of a process, so that the same model has other names in the next one. Names that it gave are left
out therefore; what is connected with what is told by the order in which it is met.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from fo_onnx import digests

from .recognition import held_layers, is_graph_function, is_layer, is_trackable, keras_module, tensorflow_module

_LIBRARIES = ("keras", "tensorflow", "tf_keras", "torch", "jax", "jaxlib", "builtins")
"""Packages whose code is told by their versions."""
_SETTINGS = ("float32", 1e-7, "channels_last")
"""Keras' own settings, where nobody has imported it."""
_NAMES = frozenset({"name", "seed", "keras_history", "input_layers", "output_layers", "build_config"})
"""What of a configuration is another in each process, or tells how it was called."""
_OF_TRAINING = frozenset({
    "optimizer", "history", "stop_training", "stop_predicting", "_compiled_trainable_state", "_compile_config",
    "_eval_epoch_iterator",
})  # fmt: skip
"""Attributes of Keras models that ``compile`` and ``fit`` add."""
_OF_TRACKING = frozenset({
    "_self_unconditional_checkpoint_dependencies", "_self_unconditional_dependency_names",
    "_self_unconditional_deferred_dependencies", "_self_update_uid", "_self_name_based_restores",
    "_self_saveable_object_factories", "_self_setattr_tracking",
})  # fmt: skip
"""Attributes of objects that TensorFlow's checkpoints have seen."""


def fingerprint(model: Any) -> str:
    """A digest of a model's structure, of the code that is not Keras' or TensorFlow's own, and of all that both hold.

    Seeds of layers that are random in training do not count, nor does what `compile` and `fit` set. Keras' settings count:
    layers and functions ask for them when they are called.
    """
    digest = hashlib.sha256()
    keras = keras_module()
    settings = _SETTINGS
    if keras is not None:
        settings = (keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format())
    digest.update(repr(settings).encode())
    for layer in held_layers(model):
        # Of Keras' own layers, too, whose configuration does not always say it.
        digest.update(str(layer.compute_dtype).encode())
    for part in digests.of_object(model, _leaf, _OF_TRACKING):
        digest.update(part)
        digest.update(b"\0")
    return digest.hexdigest()


def _leaf(value: Any, walk: digests.Walk) -> Iterator[bytes] | None:
    """What is told of Keras' and TensorFlow's own objects."""
    keras, tf = keras_module(), tensorflow_module()
    if _is_tensor(value):
        return _of_tensor(value, walk)
    if is_layer(value):
        return _of_layer(value, walk)
    if keras is not None and isinstance(value, keras.Operation):
        return _of_operation(value, walk)
    if is_graph_function(value):
        return _of_graph_function(value, walk)
    if is_trackable(value):
        return _of_loaded(value, walk) if _is_loaded(value) else _of_module(value, walk)
    if keras is not None and isinstance(value, _of_no_account()):
        return walk(type(value))
    if tf is not None and isinstance(value, tf.__internal__.CompositeTensor):
        return walk(tf.nest.flatten(value, expand_composites=True))
    if inspect.isfunction(value) and "__original_wrapped__" in vars(value):
        # TensorFlow's decorators are rewritten when they are traced; what they were put around stays.
        return walk(vars(value)["__original_wrapped__"])
    kind = type(value)
    if not _is_library(kind.__module__):
        return None
    if isinstance(value, type):
        return iter([f"{value.__module__}.{value.__qualname__}".encode()]) if _is_library(value.__module__) else None
    if _is_library(getattr(value, "__module__", None)) and inspect.isfunction(value):
        return _of_library_function(value, walk)
    if kind.__module__ == "builtins":
        return None
    return _of_library_object(value, walk)


def _of_layer(layer: Any, walk: digests.Walk) -> Iterator[bytes]:
    """A layer's class, configuration, parts, weights and attributes, without Keras' bookkeeping."""
    yield from walk(type(layer))
    yield f"{layer.compute_dtype} {layer.variable_dtype} {layer.supports_masking}".encode()
    if hasattr(layer, "operations"):
        yield from _of_wiring(layer, walk)
    elif _is_library(type(layer).__module__) and not _is_sequential(layer):
        # A class of the user's own is told by its code and attributes; its configuration may name layers.
        yield from _of_config(_config(layer), walk)
    if hasattr(layer, "get_vocabulary"):
        yield from walk([str(v) for v in layer.get_vocabulary()])
    # Not `variables`, which count the state of random numbers, and metrics.
    yield from walk([*_parts(layer), *layer.weights])
    yield from _of_attributes(layer, walk, _bookkeeping())


def _of_operation(operation: Any, walk: digests.Walk) -> Iterator[bytes]:
    yield from walk(type(operation))
    if _is_library(type(operation).__module__):
        yield from _of_config(_config(operation), walk)
        yield from _of_attributes(operation, walk, frozenset({"name", "_inbound_nodes", "_outbound_nodes"}), plain=True)
    else:
        yield from _of_attributes(operation, walk, _bookkeeping())


def _parts(layer: Any) -> list[Any]:
    return [*getattr(layer, "_layers", ())]


def _of_wiring(model: Any, walk: digests.Walk) -> Iterator[bytes]:
    """A functional model's calls in order, with what goes into each; and the names that its inputs and outputs were given."""
    from keras import tree

    nodes = [node for _, nodes in sorted(model._nodes_by_depth.items(), reverse=True) for node in nodes]
    numbers = {id(t): f"tensor {i}.{j}" for i, node in enumerate(nodes) for j, t in enumerate(node.outputs)}

    def numbered(value: Any) -> Any:
        return tree.map_structure(lambda leaf: numbers.get(id(leaf), leaf), value)

    for node in nodes:
        yield from walk(node.operation)
        if not node.is_input:
            yield from walk([numbered(list(node.arguments.args)), numbered(dict(node.arguments.kwargs))])
    for ends in (model.input, model.output):
        yield from walk(numbered(ends))
        for tensor in tree.flatten(ends):
            operation = tensor._keras_history.operation
            yield f"{tensor.dtype} {tuple(tensor.shape)} {_given_name(operation)}".encode()


def _given_name(operation: Any) -> str:
    """The name that the user gave; empty for what Keras made of the class and a number (keras.src.utils.naming)."""
    name = re.sub(r"\W+", "", type(operation).__name__)
    name = re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()
    return "" if re.fullmatch(rf"({name}|keras_tensor)(_\d+)?", str(operation.name)) else str(operation.name)


def _is_sequential(layer: Any) -> bool:
    keras = keras_module()
    return keras is not None and isinstance(layer, keras.Sequential)


def _config(layer: Any) -> dict[str, Any]:
    """A layer's configuration; empty where its class has none, as subclasses with arguments of their own often do."""
    try:
        return dict(layer.get_config())
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        return {}


def _of_config(value: Any, walk: digests.Walk) -> Iterator[bytes]:
    """A configuration without names of layers, seeds, and code, which its holder's attributes tell."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__lambda__":
            # Marshalled code differs from process to process.
            return
        for key, inner in value.items():
            if key not in _NAMES:
                yield repr(key).encode()
                yield from _of_config(inner, walk)
    elif isinstance(value, list | tuple):
        yield f"[{len(value)}".encode()
        for inner in value:
            yield from _of_config(inner, walk)
    else:
        yield from walk(value)


def _of_attributes(
    holder: Any, walk: digests.Walk, bookkeeping: frozenset[str], *, plain: bool = False
) -> Iterator[bytes]:
    """The attributes that an object was given: of the libraries' classes those only that may hold the user's own."""
    library = not plain and _is_library(type(holder).__module__)
    left_out = bookkeeping | _OF_TRAINING | _OF_TRACKING
    cached = {n for k in type(holder).__mro__ for n, v in vars(k).items() if isinstance(v, functools.cached_property)}
    for name, value in sorted(vars(holder).items()):
        if name not in left_out and name not in cached and (not library or _may_be_own(value)):
            yield name.encode()
            yield from walk(value)


def _may_be_own(value: Any) -> bool:
    """Whether a value that an object of Keras or TensorFlow holds may say something that its configuration does not."""
    if isinstance(value, Mapping):
        return any(map(_may_be_own, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(_may_be_own, value))
    if callable(value) and (inspect.isroutine(value) or isinstance(value, functools.partial)):
        return True
    if _is_tensor(value) or isinstance(value, np.ndarray) or is_layer(value) or is_trackable(value):
        return True
    return is_graph_function(value) or not (isinstance(value, digests.PLAIN) or _is_library(type(value).__module__))


@functools.cache
def _bookkeeping() -> frozenset[str]:
    """The attributes that every layer or model has. Made with names, so that Keras does not count on."""
    import keras

    given = keras.Input((1,), name="bookkeeping")
    made: Iterable[Any] = (
        keras.layers.Layer(name="bookkeeping"),
        keras.Model(name="bookkeeping"),
        keras.Model(given, given, name="bookkeeping"),
        keras.Sequential(name="bookkeeping"),
    )
    return frozenset(name for holder in made for name in vars(holder))


@functools.cache
def _of_no_account() -> tuple[type, ...]:
    """Kinds whose state changes in training, and says nothing of a row."""
    import keras

    return (
        keras.metrics.Metric,
        keras.losses.Loss,
        keras.optimizers.Optimizer,
        keras.callbacks.Callback,
        keras.random.SeedGenerator,
    )


def _of_graph_function(function: Any, walk: digests.Walk) -> Iterator[bytes]:
    if hasattr(function, "graph"):
        yield from _of_graph(function, walk)
    elif hasattr(function, "concrete_functions"):  # of a SavedModel; its Python code only chooses among them
        for concrete in function.concrete_functions:
            yield from walk(concrete)
    else:
        yield f"{getattr(function, 'input_signature', None)} {getattr(function, '_jit_compile', None)}".encode()
        yield from walk(function.python_function)


def _of_module(module: Any, walk: digests.Walk) -> Iterator[bytes]:
    import tensorflow as tf

    yield from walk(type(module))
    yield from _of_attributes(module, walk, frozenset((*vars(tf.Module(name="bookkeeping")), "_name")))
    if _is_library(type(module).__module__):
        yield from walk(list(module.variables))


def _is_loaded(value: Any) -> bool:
    tf = tensorflow_module()
    return tf is not None and not isinstance(value, tf.Module)


def _of_loaded(model: Any, walk: digests.Walk) -> Iterator[bytes]:
    """A SavedModel: its signatures and functions, all that they captured, and the objects within it."""
    signatures = getattr(model, "signatures", None) or {}
    for name in sorted(signatures):
        yield name.encode()
        yield from walk(signatures[name])
    entry = getattr(type(model), "__call__", None)  # noqa: B004
    if is_graph_function(entry):
        yield from walk(entry)
    for name, value in sorted(vars(model).items()):
        if not name.startswith("_self_") and name != "signatures" and (is_graph_function(value) or _may_be_own(value)):
            yield name.encode()
            yield from walk(value)


def _of_graph(concrete: Any, walk: digests.Walk) -> Iterator[bytes]:
    """A graph's nodes and those of the functions that it calls, without their numbered names; and all that it captured."""
    graph = concrete.graph.as_graph_def()
    library = {f.signature.name: f for f in graph.library.function}
    numbers: dict[str, int] = {}

    def of_function(name: str) -> Iterator[bytes]:
        known = name in numbers
        yield b"function %d" % numbers.setdefault(name, len(numbers))
        if not known and name in library:
            yield repr(sorted(library[name].ret.items())).encode()
            yield from of_nodes(library[name].node_def)

    def of_nodes(nodes: Any) -> Iterator[bytes]:
        for node in nodes:
            yield f"{node.op if node.op not in library else ''} {node.name} {list(node.input)}".encode()
            if node.op in library:
                yield from of_function(node.op)
            for name, value in sorted(node.attr.items()):
                called = [value.func.name] if value.HasField("func") else [f.name for f in value.list.func]
                if name.startswith("_"):
                    continue
                yield name.encode()
                for function in called:
                    yield from of_function(function)
                if not called:
                    yield value.SerializeToString(deterministic=True)

    yield from of_nodes(graph.node)
    yield from walk(str(concrete.structured_input_signature))
    yield repr([t.name for t in concrete.graph.outputs]).encode()
    yield from walk(list(concrete.variables))
    yield from walk([tensor for tensor, _ in concrete.graph.captures])


def _of_library_function(function: Any, walk: digests.Walk) -> Iterator[bytes]:
    """A function of Keras or TensorFlow: its name, and what of the user's own it may have been made of."""
    yield f"{function.__module__}.{function.__qualname__}".encode()
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # a name that is not bound yet
            if _may_be_own(cell.cell_contents):
                yield from walk(cell.cell_contents)


def _of_library_object(value: Any, walk: digests.Walk) -> Iterator[bytes]:
    """Containers by their items, tables by their rows, what has a configuration by that, and all else by its class."""
    kind = type(value)
    yield f"{kind.__module__}.{kind.__qualname__}".encode()
    if isinstance(value, Mapping):
        yield from walk(dict(value))
    elif isinstance(value, list | tuple):
        yield from walk(list(value))
    elif isinstance(value, set | frozenset):
        yield from walk(set(value))
    elif kind.__name__ == "TfMethodTarget":  # the owner of a bound method that is a tf.function
        yield from walk(value.target)
        yield from walk(value.weakrefself_func__())
    elif kind.__name__ in ("DType", "TensorShape", "TensorSpec", "KerasTensor"):
        named = kind.__name__ in ("DType", "TensorShape")
        yield (repr(value) if named else f"{value.dtype} {value.shape}").encode()
    elif callable(getattr(value, "export", None)) and hasattr(value, "key_dtype"):
        with suppress(Exception):  # a table that a graph holds has no rows here
            keys, rows = (t.numpy() for t in value.export())
            yield from sorted(repr(pair).encode() for pair in zip(keys.tolist(), rows.tolist(), strict=True))
    elif hasattr(value, "get_config"):
        yield from _of_config(_config(value), walk)


def _is_tensor(value: Any) -> bool:
    tf, keras = tensorflow_module(), keras_module()
    if tf is not None and isinstance(value, tf.Tensor | tf.Variable):
        return True
    return keras is not None and (isinstance(value, keras.Variable) or bool(_is_backends(keras, value)))


def _is_backends(keras: Any, value: Any) -> bool:
    """Whether a value is a tensor of the backend that Keras runs on."""
    if isinstance(value, type) or not hasattr(type(value), "__array__") or isinstance(value, np.ndarray | np.generic):
        return False
    return not isinstance(value, keras.KerasTensor) and bool(keras.ops.is_tensor(value))


def _of_tensor(value: Any, walk: digests.Walk) -> Iterator[bytes]:
    yield f"{value.dtype} {tuple(value.shape) if value.shape is not None else ''}".encode()
    tf, keras = tensorflow_module(), keras_module()
    if keras is not None and isinstance(value, keras.Variable):
        value = value.value
    if tf is not None and isinstance(value, tf.Tensor | tf.Variable):
        # Handles have no bytes, and symbolic tensors no values.
        if value.dtype not in (tf.resource, tf.variant) and hasattr(value, "numpy"):
            yield from walk(np.asarray(value.numpy()))
    elif keras is not None:
        yield from walk(np.asarray(keras.ops.convert_to_numpy(value)))


def _is_library(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _LIBRARIES
