"""Keras models of half precision, computed in float32 without a change to their weights.

A mixed policy keeps its weights in float32 and casts them with every call; it is the policy that says to what. ONNX
Runtime has no bfloat16 on the CPU, and tf2onnx takes it for float16, so the policies are lifted for the time of a
conversion. What a reference computes in float32 is computed in the same way.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from .detect import is_graph_function, is_layer, layers_of
from .interface import entry_point

HALVES = ("float16", "bfloat16")
_lifting = threading.RLock()
"""Policies belong to layers, which threads may share."""


def is_half(model: Any) -> bool:
    """Return whether a layer of a model computes in half precision."""
    return any(_computes_in_half(layer) for layer in layers_of(model))


@contextlib.contextmanager
def guard_layers(model: Any, *, in_float32: bool) -> Iterator[None]:
    """Put what a call leaves on the layers of a model back when the context ends; within, compute as is asked for.

    Activity regularisers keep their losses on the layer; those of a traced call are symbolic, and unusable later.

    Args:
        model: The model.
        in_float32: Whether layers of half precision compute in float32.
    """
    layers = layers_of(model)
    with _lifting if layers else contextlib.nullcontext():
        before = [(layer, list(layer._losses), set(layer._loss_ids)) for layer in layers]
        try:
            with _lift_to_float32(model) if in_float32 else contextlib.nullcontext():
                yield
        finally:
            for layer, losses, ids in before:
                layer._losses[:] = losses
                layer._loss_ids.clear()
                layer._loss_ids.update(ids)


@contextlib.contextmanager
def _lift_to_float32(model: Any) -> Iterator[None]:
    """Let every layer of a model that computes in half precision compute in float32 until the context ends.

    Weights stay as they are: a layer casts them to the dtype that its policy computes in (keras.DTypePolicy). Policies
    of quantised layers are left alone, since they say how the weights are stored.
    """
    layers = [layer for layer in layers_of(model) if _computes_in_half(layer)]
    # What is changed, with its value from before.
    before = [(layer, "_dtype_policy", layer._dtype_policy) for layer in layers]
    # A model within a model casts what it gets to the dtype that it was first called with, which its symbolic inputs
    # and its input layer keep.
    before += [
        (holder, "_dtype", holder._dtype)
        for layer in layers_of(model)
        for holder in (layer, *(getattr(layer, "inputs", None) or ()))
        if getattr(holder, "_dtype", None) in HALVES
    ]
    # Of a method that is a tf.function, too, the traces are the user's.
    graphs = [n for n in layers_of(model) if layers and is_graph_function(n.call) and "call" not in vars(n)]
    try:
        for layer in graphs:
            vars(layer)["call"] = retrace(layer.call)
        for holder, name, _ in before:
            # Not the public setter: of a DTypePolicyMap, which many layers share, it changes the map.
            setattr(holder, name, _in_float32(_policy_of(holder)) if name == "_dtype_policy" else "float32")
        yield
    finally:
        for layer in graphs:
            vars(layer).pop("call", None)
        for holder, name, value in before:
            setattr(holder, name, value)


def retrace(model: Any) -> Any:
    """Return a ``tf.function`` of the same Python code without traces, for a model that is one or is called by one.

    The user's own keeps its traces: one from before knows layers in their own precision, and one that is made while
    they compute in float32 would stay in it. ``None`` for all else.
    """
    function = model if is_layer(model) else entry_point(model)
    # A function that was loaded, and a graph without Python code, no layer can change.
    is_python = hasattr(function, "python_function") and not hasattr(function, "concrete_functions")
    if not is_graph_function(function) or not is_python:
        return None
    import tensorflow as tf

    return tf.function(
        function.python_function,
        input_signature=function.input_signature,
        autograph=getattr(function, "_autograph", True),
        jit_compile=getattr(function, "_jit_compile", None),
    )


def _computes_in_half(layer: Any) -> bool:
    return _policy_of(layer).quantization_mode is None and layer.compute_dtype in HALVES


def _policy_of(layer: Any) -> Any:
    """Return the policy of a layer, which it may have in a map."""
    policy = layer._dtype_policy
    if hasattr(policy, "default_policy"):
        policy = policy[layer.path] if layer.path else policy.default_policy
    return policy


def _in_float32(policy: Any) -> Any:
    """Return a policy that computes in float32 with variables as they are: Keras casts them when they are read."""
    import keras

    lifted = keras.DTypePolicy("float32")
    lifted._variable_dtype = policy.variable_dtype
    return lifted
