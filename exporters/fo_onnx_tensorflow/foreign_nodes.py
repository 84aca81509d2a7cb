"""Nodes in a TensorFlow graph that stand for ONNX nodes of the caller.

Some operators of ONNX (3-D convolutions with groups, …) have no TensorFlow counterpart that tf2onnx would map onto
them. A caller that knows the ONNX nodes puts a *foreign operation* into the TensorFlow graph: a placeholder with
inputs, dtypes and shapes, which tf2onnx turns into exactly those nodes.

The placeholder is a ``PyFuncStateless`` node without a Python function behind its token: TensorFlow's optimiser keeps
it and cannot evaluate it, and frozen graphs carry it, attributes and all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np
import tensorflow as tf

from fo_onnx.errors import ExportError, first_line

from .handlers.nodes import Nodes
from .handlers.registry import register_handlers

Build = Callable[[Any, Sequence[str]], Sequence[str]]
"""Makes the ONNX nodes: takes the ``tf2onnx.graph.Graph`` and the names of the inputs, returns those of the outputs."""

_PLACEHOLDER = "PyFuncStateless"
_builds: ContextVar[dict[str, tuple[str, Build]] | None] = ContextVar("builds", default=None)
"""Names and builds of the conversion that runs in this thread, by token."""


def foreign_op(
    inputs: Sequence[Any], outputs: Sequence[tuple[Any, Sequence[int | None]]], build: Build, *, name: str = "foreign"
) -> list[Any]:
    """Put a placeholder for ONNX nodes into the TensorFlow graph that is being traced.

    Args:
        inputs: Tensors that the ONNX nodes read.
        outputs: The dtype (TensorFlow's or numpy's) and the shape of each output; None is a size known only at run
            time.
        build: Called as ``build(graph, input_names)`` when tf2onnx comes to the placeholder; it makes nodes by
            ``graph.make_node`` and ``graph.make_const`` and returns the names of the outputs, one for each of
            `outputs`.
        name: A name of the operation, for nodes and messages.

    Returns:
        One tensor for each of `outputs`, with its shape set.

    Raises:
        ExportError: Outside of `foreign_ops`: nothing would turn the placeholder into nodes.
    """
    builds = _builds.get()
    if builds is None:
        raise ExportError(
            f"a foreign operation ({name}) was put into a TensorFlow graph outside of foreign_ops(); trace and convert "
            "the function inside of that context."
        )
    token = f"fo_onnx.foreign/{len(builds)}"
    builds[token] = name, build
    dtypes = [tf.as_dtype(dtype) for dtype, _ in outputs]
    tensors = tf.raw_ops.PyFuncStateless(input=list(inputs), token=token, Tout=dtypes, name=name)
    # A shape that is only set on the tensor is lost when the graph is frozen; a node keeps it.
    return [
        tf.ensure_shape(tensor, tf.TensorShape([d if isinstance(d, int) else None for d in shape]))
        for tensor, (_, shape) in zip(tensors, outputs, strict=True)
    ]


@contextlib.contextmanager
def foreign_ops() -> Iterator[None]:
    """Let `foreign_op` be used in this thread, and tf2onnx convert it, until the context ends.

    The function has to be traced and converted inside. Not for several threads at once: the caller serialises
    conversions. What a ``build`` raises is logged by tf2onnx, like any failure of a node; see `.quiet.Records`.
    """
    builds: dict[str, tuple[str, Build]] = {}

    def convert(graph: Any, node: Any, **_: Any) -> None:
        attribute = node.get_attr("token")
        token = np.asarray(attribute.s if attribute is not None else b"").item().decode()
        if token not in builds:
            raise ExportError(
                f"the node {node.name} calls a Python function (token {token!r}), which ONNX has no operator for; the model can "
                "only run natively."
            )
        name, build = builds[token]
        nodes = Nodes(graph, node)
        try:
            results = list(build(graph, list(node.input)))
            if len(results) != len(node.output):
                raise ValueError(f"it gave {len(results)} outputs instead of {len(node.output)}")
        except Exception as err:
            raise ExportError(
                f"the ONNX nodes of the foreign operation {name} could not be made: {first_line(err)}"
            ) from err
        nodes.replace(*results)

    outer = _builds.set(builds)
    try:
        with register_handlers({_PLACEHOLDER: (1, convert)}):
            yield
    finally:
        _builds.reset(outer)
