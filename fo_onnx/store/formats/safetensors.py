"""safetensors: what Hugging Face's libraries map into memory without a copy.

Written here and not by the package of that name, which wants all tensors in memory at once; the format is a header and
the bytes.
# source: github.com/huggingface/safetensors, README, "Format".
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...distributions.columns import Array, Rows, read_chunks
from ...distributions.ids import to_object_array
from ...errors import StoreError
from ...guards.limits import limit
from ..files import OutputFile
from ..schema import META_KEY, decode_meta, encode_meta
from .file_rows import to_rows
from .npy import map_array

_HEADER_LIMIT_BYTES = 100_000_000
"""The longest header that readers of the format accept."""
_TYPES = {"probs": ("F32", "<f4"), "logits": ("F32", "<f4"), "ids": ("I64", "<i8"), "labels": ("I64", "<i8")}
_ORDER = ("ids", "labels", "probs", "logits")
"""Eight-byte types first, so that every tensor is aligned."""


def write_result(rows: Rows, meta: Mapping[str, Any], file: OutputFile) -> None:
    """Write all columns, in a pass for each. Raises `StoreError`, also for text ids that do not fit into a header."""
    import orjson

    layout = rows.layout
    metadata = {META_KEY: encode_meta(meta, "safetensors").decode()}
    if layout.id_kind == "str":
        ids = [i for part in read_chunks(rows, ("ids",)) for i in cast(Array, part.ids).tolist()]
        metadata["ids"] = orjson.dumps(ids).decode()
    # The header says where each tensor begins and ends.
    stored = [c for c in _ORDER if c in layout.columns and not (c == "ids" and layout.id_kind == "str")]
    header: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for column in stored:
        shape = layout.shape(column, rows.length)
        end = offset + math.prod(shape) * np.dtype(_TYPES[column][1]).itemsize
        header[column] = {"dtype": _TYPES[column][0], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = orjson.dumps(header)
    text += b" " * (-len(text) % 8)
    if len(text) > _HEADER_LIMIT_BYTES:
        raise StoreError(
            f"Writing safetensors: text ids and meta take {len(text)} bytes, the format allows {_HEADER_LIMIT_BYTES} "
            "in its header. Use Parquet."
        )
    file.write(len(text).to_bytes(8, "little") + text)
    for column in stored:
        for part in read_chunks(rows, (column,)):
            values = np.ascontiguousarray(getattr(part, column), dtype=_TYPES[column][1])
            file.write(values.reshape(-1).view(np.uint8))


def read_result(path: Path) -> tuple[Rows, dict[str, Any]]:
    """Return the rows, mapped into memory, and meta. Raises `StoreError`; `FileRows` is the border."""
    where = str(path)
    # The header holds meta, and the text ids if there are any; tensors follow it.
    header, begin = _read_header(path)
    metadata = header.pop("__metadata__", None)
    if not isinstance(metadata, dict) or META_KEY not in metadata or "probs" not in header:
        raise StoreError(
            f"Reading {where}: safetensors with {', '.join(list(header)[:10]) or 'nothing'} and without {META_KEY!r} in "
            "the metadata, so no file of fo-onnx."
        )
    meta = decode_meta(metadata[META_KEY], where)
    size_bytes = path.stat().st_size - begin
    # Each tensor in its place, one after another to the end of the file.
    places = {name: _locate_tensor(name, entry, size_bytes) for name, entry in header.items() if name in _TYPES}
    starts, stops = zip(*sorted(place[1:] for place in places.values()), strict=True)
    if stops[-1] != size_bytes or any(map(operator.lt, starts[1:], stops)):
        raise ValueError(f"tensors that overlap, or end at {stops[-1]} of {size_bytes} bytes")
    arrays = {n: map_array(path, np.dtype(_TYPES[n][1]), shape, begin + at) for n, (shape, at, _) in places.items()}
    if "ids" not in arrays:
        if not isinstance(values := json.loads(metadata.get("ids", "null")), list):
            raise ValueError("neither a tensor ids nor a list of text ids is there")
        arrays["ids"] = to_object_array(values)
    return to_rows(arrays, where), meta


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        # A length that is wrong would be read before anything else is known to be.
        if not 2 <= length <= path.stat().st_size - 8:
            raise ValueError("no safetensors header")
        if length > limit("FO_ONNX_MAX_HEADER_BYTES"):
            raise StoreError(
                f"Reading {path}: a safetensors header of {length} bytes; the format allows {_HEADER_LIMIT_BYTES}. If it "
                "is meant, raise the limit: FO_ONNX_MAX_HEADER_BYTES=…"
            )
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("its safetensors header is no object")
    return header, 8 + length


def _locate_tensor(name: str, entry: Any, size_bytes: int) -> tuple[tuple[int, ...], int, int]:
    """Return shape, first byte and end of a tensor, from its entry in the header; they must fit each other and the file."""
    kind, dtype = _TYPES[name]
    rank = 2 if kind == "F32" else 1
    with suppress(KeyError, TypeError, ValueError):
        shape, (start, stop) = entry["shape"], entry["data_offsets"]
        counts = len(shape) == rank and all(type(n) is int and 0 <= n < 2**62 for n in (*shape, start, stop))
        length = math.prod(shape) * np.dtype(dtype).itemsize if counts else None
        if entry["dtype"] == kind and stop - start == length and stop <= size_bytes:
            return tuple(shape), start, stop
    raise ValueError(
        f"{name} is said to be {str(entry)[:200]}; {kind} with {rank} axes within {size_bytes} bytes of tensors was "
        "expected"
    )
