"""Nodes in a TensorFlow graph that stand for given ONNX nodes.

Some operators of ONNX (LSTM, GRU, 3-D convolutions with groups, …) have no TensorFlow counterpart that tf2onnx would map
onto them. Whoever knows the ONNX nodes puts a *foreign operation* into the TensorFlow graph: a placeholder with
inputs, dtypes and shapes, which tf2onnx turns into exactly those nodes.

The placeholder is a ``PyFuncStateless`` node without a Python function behind its token: TensorFlow's optimiser keeps
it and cannot evaluate it, and frozen graphs carry it, attributes and all.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tf2onnx.handler import tf_op

from fo_onnx.errors import ExportError

Build = Callable[[Any, Sequence[str]], Sequence[str]]
"""Makes the ONNX nodes: takes the ``tf2onnx.graph.Graph`` and the names of the inputs, returns the names of the outputs."""

_PLACEHOLDER = "PyFuncStateless"
_TOKEN = "fo_onnx.foreign/"
_numbers = itertools.count()
_registered = threading.Lock()
_holders = 0


@dataclass
class _Conversion:
    """The foreign operations of one conversion, and what went wrong when they were built."""

    builds: dict[str, tuple[str, Build]] = field(default_factory=dict)
    failures: list[ExportError] = field(default_factory=list)


class _Current(threading.local):
    """The conversions that run in this thread, the innermost last."""

    def __init__(self) -> None:
        self.stack: list[_Conversion] = []


_current = _Current()


def foreign_op(
    inputs: Sequence[Any], outputs: Sequence[tuple[Any, Sequence[int | None]]], build: Build, *, name: str = "foreign"
) -> list[Any]:
    """Puts a placeholder for ONNX nodes into the TensorFlow graph that is being traced.

    Args:
        inputs: Tensors that the ONNX nodes read.
        outputs: The dtype (TensorFlow's or numpy's) and the shape of each output; None is a size known only at run time.
        build: Called as ``build(graph, input_names)`` when tf2onnx comes to the placeholder; it makes nodes by
            ``graph.make_node`` and ``graph.make_const`` and returns the names of the outputs, one for each of `outputs`.
        name: What the nodes are, for names and messages.

    Returns:
        One tensor for each of `outputs`, with its shape set.

    Raises:
        ExportError: Outside of `foreign_ops`: nothing would turn the placeholder into nodes.
    """
    if not _current.stack:
        raise ExportError(
            f"a foreign operation ({name}) was put into a TensorFlow graph outside of foreign_ops(); trace and convert "
            "the function inside of that context."
        )
    token = f"{_TOKEN}{next(_numbers)}"
    _current.stack[-1].builds[token] = (name, build)
    dtypes = [tf.as_dtype(dtype) for dtype, _ in outputs]
    found = tf.raw_ops.PyFuncStateless(input=list(inputs), token=token, Tout=dtypes, name=name)
    # A shape that is only set on the tensor is lost when the graph is frozen; a node keeps it.
    return [
        tf.ensure_shape(tensor, tf.TensorShape([d if isinstance(d, int) else None for d in shape]))
        for tensor, (_, shape) in zip(found, outputs, strict=True)
    ]


@contextlib.contextmanager
def foreign_ops() -> Iterator[None]:
    """Lets `foreign_op` be used, and tf2onnx convert it, in this thread until the context ends.

    The function has to be traced and converted inside. Contexts may be nested, and several threads may each have one.

    Raises:
        ExportError: What a ``build`` raised. ``tf2onnx.convert.from_function`` only logs it, goes on, and then misses the
            nodes with a message that says nothing of them.
    """
    conversion = _Conversion()
    _current.stack.append(conversion)
    _register()
    try:
        yield
    except Exception:
        if conversion.failures:
            raise conversion.failures[0] from conversion.failures[0].__cause__
        raise
    finally:
        _unregister()
        _current.stack.remove(conversion)
    if conversion.failures:
        raise conversion.failures[0]


def _register() -> None:
    global _holders
    with _registered:
        _holders += 1
        tf_op.register_handler(_convert, 1, [_PLACEHOLDER], "", {})


def _unregister() -> None:
    global _holders
    with _registered:
        _holders -= 1
        if not _holders:
            del tf_op.get_opsets()[""][1][_PLACEHOLDER]


def _convert(graph: Any, node: Any, **_: Any) -> None:
    """The tf2onnx handler: replaces a placeholder by its nodes."""
    conversion, name, build = _built_by(node)
    outputs = [(output, graph.get_dtype(output), graph.get_shape(output)) for output in node.output]
    inputs = list(node.input)
    graph.remove_node(node.name)
    try:
        found = list(build(graph, inputs))
        if len(found) != len(outputs):
            raise ValueError(f"it gave {len(found)} outputs instead of {len(outputs)}")
    except Exception as err:
        failure = ExportError(
            f"the ONNX nodes of the foreign operation {name} could not be made: {type(err).__name__}: {err}"
        )
        failure.__cause__ = err
        conversion.failures.append(failure)
        raise failure from err
    for made, (output, dtype, shape) in zip(found, outputs, strict=True):
        # Under the placeholder's names, so that graph outputs and loop bodies that name them still find them.
        graph.make_node("Identity", [made], outputs=[output], dtypes=[dtype], shapes=[shape])


def _built_by(node: Any) -> tuple[_Conversion, str, Build]:
    attribute = node.get_attr("token")
    token = np.asarray(attribute.s if attribute is not None else b"").item().decode()
    for conversion in reversed(_current.stack):
        if token in conversion.builds:
            return (conversion, *conversion.builds[token])
    raise ExportError(
        f"the node {node.name} calls a Python function (token {token!r}), which ONNX has no operator for; the model can "
        "only run natively."
    )
