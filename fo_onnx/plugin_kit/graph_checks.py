"""Every node of a graph against ONNX's own list of operators.

Some converters do not raise on an operator that they lack: tf2onnx logs it and writes the node out under its foreign
name, which shows as an error when a session is opened, or not at all.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..contracts.spec import TensorSpec
from ..errors import ExportError

if TYPE_CHECKING:
    import onnx
    from google.protobuf.message import Message

T = TypeVar("T", bound="Message")


def messages_in(message: Any, kind: type[T]) -> Iterator[T]:
    """Yield the messages of one kind that lie in a protobuf message, at any depth: nodes, tensors, graphs.

    Notes within a graph (``metadata_props``), which nothing reads, are left out.
    """
    for name, is_single, is_wanted, is_way in _ways(message.DESCRIPTOR, kind.DESCRIPTOR):
        if is_single and not message.HasField(name):
            continue
        value = getattr(message, name)
        for inner in (value,) if is_single else value:
            if is_wanted:
                yield inner
            if is_way:
                yield from messages_in(inner, kind)


@functools.cache
def _ways(descriptor: Any, kind: Any) -> list[tuple[str, bool, bool, bool]]:
    """Return the fields of a message in which messages of a kind can lie, so that no others are walked.

    Args:
        descriptor: The message's.
        kind: The kind's; that of `Message` itself, ``None``, means all kinds.

    Returns:
        By field its name, and whether it is one message, of the kind, and can hold more of the kind.
    """
    ways = []
    for field in descriptor.fields:
        if field.message_type is None or field.name == "metadata_props":
            continue
        within = _kinds_in(field.message_type)
        is_wanted = kind in (None, field.message_type)
        is_way = bool(within) if kind is None else kind in within
        if is_wanted or is_way:
            ways.append((field.name, field.has_presence, is_wanted, is_way))
    return ways


@functools.cache
def _kinds_in(descriptor: Any) -> frozenset[Any]:
    """Return the descriptors of all messages that can lie in one."""
    kinds: set[Any] = set()
    waiting = [descriptor]
    while waiting:
        inner = {field.message_type for field in waiting.pop().fields} - kinds - {None}
        kinds |= inner
        waiting += inner
    return frozenset(kinds)


def tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    """Return a graph's input or output as a `TensorSpec`; an unknown shape is ``()``, an unusable type ``""``."""
    import onnx

    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type") or tensor.elem_type == onnx.TensorProto.STRING:
        return TensorSpec(value.name, "", ())
    dtype = str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    return TensorSpec(value.name, dtype, tuple(d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim))


def graph_inputs(proto: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """Return the inputs that a caller must feed: those that no initializer fills."""
    filled = {t.name for t in proto.graph.initializer}
    return tuple(tensor_spec(v) for v in proto.graph.input if v.name not in filled)


def unknown_operators(proto: onnx.ModelProto) -> list[str]:
    """Return the operators of a model that neither ONNX nor the model itself defines, each once, as ``"Erfinv (opset 18)"``."""
    import onnx

    versions = {o.domain or "ai.onnx": o.version for o in proto.opset_import}
    local = {(f.domain, f.name) for f in proto.functions}
    unknown: dict[str, None] = {}
    for node in messages_in(proto.graph, onnx.NodeProto):
        domain = node.domain if node.domain != "ai.onnx" else ""
        version = versions.get(domain or "ai.onnx")
        if (node.domain, node.op_type) in local or domain == "com.microsoft":
            # onnxruntime's own operators are in no list of ONNX; sessions refuse those that they lack.
            continue
        if version is None or not onnx.defs.has(node.op_type, version, domain):
            unknown[f"{f'{domain}.' if domain else ''}{node.op_type} (opset {version})"] = None
    return list(unknown)


def require_known_operators(proto: onnx.ModelProto, converter: str, model_name: str) -> None:
    """Raise an `ExportError` that names the operators of `proto` that ONNX lacks.

    Args:
        proto: What a converter made.
        converter: The converter's name.
        model_name: For the message.
    """
    unknown = unknown_operators(proto)
    if unknown:
        raise ExportError(f"{converter} cannot convert {model_name}: ONNX has no operator for {', '.join(unknown)}.")
