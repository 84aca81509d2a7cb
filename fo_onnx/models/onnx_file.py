"""A model file's protobuf and its external data, checked before anything in them is believed or run: they may be anybody's.

Everything that a damaged or hostile file makes a parser raise becomes a `ModelError` that names the file.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, ModelNotFoundError, first_line, reading
from ..guards.limits import check_regular, check_unfolding, limit
from ..plugin_kit.graph_checks import messages_in
from .class_outputs import join_classes

if TYPE_CHECKING:
    import onnx

DOING = "opening the model"
_PROTOBUF_BYTES = 2**31 - 1
_FUNCTION_DEPTH = 200
_NODES_VARIABLE = "FO_ONNX_MAX_GRAPH_NODES"
_WHOLE = re.compile(r"[0-9]{1,18}")
_SHOWN_CHARACTERS = 100


def load_proto(path: Path) -> onnx.ModelProto:
    """Return the protobuf of a model file without its external data, of which it is checked that it may be read.

    Raises:
        ModelNotFoundError: No file there, or its external data is missing.
        ModelError: It is no ONNX file, damaged, would unfold to more than `fo_onnx.guards.limits` allow, or its external data
            lies outside of its folder or is not what the file says.
    """
    with reading(path, ModelError, DOING):
        proto = parse(path)
        if not proto.graph.output or not proto.graph.node or not proto.opset_import:
            raise ModelError(f"{DOING} {path}: it holds no graph with nodes and outputs, so it is no ONNX model.")
        _check_names(proto)
        _check_nodes(proto, path)
        _check_sparse_tensors(proto, path)
        _check_external_data(proto, path)
        join_classes(proto)
    return proto


def parse(path: Path) -> onnx.ModelProto:
    """Return the protobuf as it stands in the file, of which nothing is checked but that it is one.

    Raises:
        ModelNotFoundError: No file there.
        ModelError: It is no regular file, larger than a protobuf may be, or cannot be read as one.
    """
    import onnx

    if os.path.isdir(path) or not os.path.exists(path):
        what = "a folder" if os.path.isdir(path) else "nothing"
        raise ModelNotFoundError(f"{DOING} {path}: found {what}; an .onnx file was expected.")
    check_regular(path, ModelError, DOING)
    with reading(path, ModelError, DOING):
        size = path.stat().st_size
        if size > _PROTOBUF_BYTES:
            raise ModelError(
                f"{DOING} {path}: it has {size} bytes, and a protobuf has at most {_PROTOBUF_BYTES}; larger models keep "
                "their weights in external data. Export it again."
            )
        try:
            return onnx.load_model(path, load_external_data=False)
        except OSError:
            raise
        except Exception as err:
            said = first_line(err, with_kind=False)
            raise ModelError(
                f"{DOING} {path}: it is no ONNX file, or it is truncated ({said}). Copy or export it again."
            ) from err


def file_sha256(path: Path) -> str:
    """Return the digest of a file's content."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


# External data ---------------------------------------------------------------------------------------------------


def external_locations(proto: onnx.ModelProto) -> list[str]:
    """Return where a model's external data lie, relative to it: each location once, in order of first use."""
    return list(dict.fromkeys(_entries(tensor).get("location", "") for tensor in _external_tensors(proto)))


def external_files(proto: onnx.ModelProto, folder: Path) -> list[Path]:
    """Return the files of external data that a model in `folder` needs, each once, in order of first use."""
    return list(dict.fromkeys(folder / location for location in external_locations(proto)))


def rename_external_data(proto: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Let a model find its external data under other names: `names` has the new one by the old one."""
    for tensor in _external_tensors(proto):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = names.get(entry.value, entry.value)


def _check_external_data(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse external data that is missing, too short, or that lies outside the model's folder.

    ONNX Runtime loads hard links and followed links of older versions without a word; onnx's own loader refuses them
    since onnx 1.21, and so does this. A location that begins with ``*/`` is ONNX Runtime's own for an address in memory.
    """
    sizes: dict[str, int] = {}
    for tensor in _external_tensors(proto):
        entries = _entries(tensor)
        location = entries.get("location", "")
        if location not in sizes:
            sizes[location] = _checked_size(path, location)
        where = f"{DOING} {path}: the place of the tensor {_shown(tensor.name)} in its external data {_shown(location)}"
        offset, length = entries.get("offset", "0"), entries.get("length", str(_tensor_bytes(tensor)))
        if not (_WHOLE.fullmatch(offset) and _WHOLE.fullmatch(length)):
            raise ModelError(
                f"{where} is {_shown(offset)}, {_shown(length)}; two whole numbers of bytes were expected. Export it again."
            )
        if int(offset) + int(length) > sizes[location]:
            raise ModelError(
                f"{where} is {length} bytes from {offset} on, and the file has {sizes[location]}: it is truncated, or "
                "another model's. Copy or export both again."
            )


def _checked_size(path: Path, location: str) -> int:
    """Return the size of a file of external data that may be read."""
    shown = f"its external data {_shown(location)}"
    file = path.parent / location
    plain = bool(location) and "\0" not in location and not os.path.isabs(location) and not location.startswith("*")
    if not plain or not file.resolve().is_relative_to(path.parent.resolve()) or os.path.islink(file):
        raise ModelError(
            f"{DOING} {path}: {shown} lies outside the model's folder, or is a link there; such a file could make any file "
            "of this machine be read. Put the data beside the model."
        )
    if not os.path.exists(file):  # also for names that are too long
        raise ModelNotFoundError(f"{DOING} {path}: {shown} is missing. Copy it beside the model.")
    check_regular(file, ModelError, f"{DOING} {path}: {shown},")
    status = file.stat()
    if status.st_nlink > 1:
        raise ModelError(
            f"{DOING} {path}: {shown} is a hard link, which could lead outside the model's folder. Copy the data beside "
            "the model."
        )
    return status.st_size


def _entries(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _external_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    import onnx

    # Wherever they stand; onnx's own walk leaves some out.
    return (t for t in messages_in(proto, onnx.TensorProto) if t.data_location == onnx.TensorProto.EXTERNAL)


def _tensor_bytes(tensor: onnx.TensorProto | onnx.SparseTensorProto, data_type: int | None = None) -> int:
    """Return what a tensor of such a shape takes in memory."""
    import onnx

    if any(d < 0 for d in tensor.dims):
        raise ValueError(f"a tensor has a negative axis: {list(tensor.dims)}")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type if data_type is None else data_type)
    size: int = math.prod(tensor.dims) * dtype.itemsize
    return size


# What a small file may unfold to ---------------------------------------------------------------------------------


def _check_names(proto: onnx.ModelProto) -> None:
    """Raise a `ValueError` for a name that is no UTF-8, which protobuf hands out as bytes; notes are not read."""
    from google.protobuf.message import Message

    for message in chain((proto,), proto.metadata_props, messages_in(proto, Message)):
        for field in _name_fields(message.DESCRIPTOR):
            text = getattr(message, field)
            for name in (text,) if isinstance(text, str | bytes) else text:
                if isinstance(name, bytes):
                    raise ValueError(f"a name in it is no UTF-8: {name!r:.100}")


@functools.cache
def _name_fields(descriptor: Any) -> list[str]:
    return [f.name for f in descriptor.fields if f.type == f.TYPE_STRING and f.name not in ("doc_string", "denotation")]


def _check_nodes(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse functions that call each other until they are too many nodes; ONNX Runtime unfolds them all.

    It takes minutes for some 100,000 in a row.
    """
    import onnx

    if not proto.functions:
        return
    bodies: dict[tuple[str, str], list[onnx.NodeProto]] = {}
    for function in proto.functions:
        bodies.setdefault(_key(function.domain, function.name), []).extend(function.node)
    counts: dict[tuple[str, str], int] = {}

    def count_unfolded(nodes: Iterable[onnx.NodeProto], callers: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in (n for outer in nodes for n in (outer, *messages_in(outer, onnx.NodeProto))):
            key = _key(node.domain, node.op_type)
            if key not in bodies:
                total += 1
                continue
            if key in callers or len(callers) == _FUNCTION_DEPTH:
                what = "calls itself" if key in callers else f"is called {_FUNCTION_DEPTH} functions deep"
                raise ModelError(f"{DOING} {path}: its function {_shown(key[1])} {what}, which no model needs.")
            if key not in counts:
                counts[key] = count_unfolded(bodies[key], (*callers, key))
            total += counts[key]
        return total

    nodes, allowed = count_unfolded(proto.graph.node, ()), limit(_NODES_VARIABLE)
    if nodes > allowed:
        raise ModelError(
            f"{DOING} {path}: its graph unfolds to {nodes:.3g} nodes, more than the {allowed} that are allowed; such a file "
            f"is made to fill the memory. If it is meant, raise the limit: {_NODES_VARIABLE}=…"
        )


def _check_sparse_tensors(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse sparse tensors that are almost nothing but zeros; ONNX Runtime makes dense ones of them."""
    import onnx

    for tensor in messages_in(proto, onnx.SparseTensorProto):
        dense = _tensor_bytes(tensor, tensor.values.data_type)
        check_unfolding(path, dense, _tensor_bytes(tensor.values), ModelError, "a sparse tensor")


def _key(domain: str, name: str) -> tuple[str, str]:
    return ("" if domain == "ai.onnx" else domain, name)


def _shown(name: str) -> str:
    """Return a name from the file for a message: quoted, escaped and not longer than a line."""
    return repr(name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}…")
