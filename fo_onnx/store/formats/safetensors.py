"""safetensors: what Hugging Face's libraries map into memory without a copy.

Written here and not by the package of that name, which wants all tensors in memory at once; the format is a header and
the bytes.
# source: github.com/huggingface/safetensors, README, "Format".
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...distributions.columns import Array, ArrayRows, Rows, read_chunks
from ...distributions.ids import normalise_ids
from ...errors import StoreError
from ...guards.limits import limit
from ..files import OutputFile
from ..schema import META_KEY, check_against_rows, decode_meta, encode_meta
from .npy import map_array

_HEADER_LIMIT_BYTES = 100_000_000
"""The longest header that readers of the format accept."""
_TYPES = {"probs": ("F32", "<f4"), "logits": ("F32", "<f4"), "ids": ("I64", "<i8"), "labels": ("I64", "<i8")}
_ORDER = ("ids", "labels", "probs", "logits")
"""Eight-byte types first, so that every tensor is aligned."""


def write_result(rows: Rows, meta: Mapping[str, Any], file: OutputFile) -> None:
    """Write all columns, in a pass for each.

    Raises:
        StoreWriteError: The operating system refuses.
        StoreError: Text ids take more room than a header may have.
    """
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
    """Return the rows, mapped into memory, and meta.

    Raises:
        StoreError: It is cut short, of another kind, or of a newer schema.
    """
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
    # Each tensor in its place, and nothing between or after them.
    places = {name: _locate_tensor(where, name, entry, size_bytes) for name, entry in header.items() if name in _TYPES}
    if (end := max(stop for _, _, stop in places.values())) != size_bytes:
        raise StoreError(f"Reading {where}: {size_bytes} bytes of tensors, {end} expected. It is cut short or damaged.")
    for (_, _, stop), (_, start, _) in pairwise(sorted(places.values(), key=lambda place: place[1:])):
        if start < stop:
            raise StoreError(f"Reading {where}: tensors that overlap. The file is damaged.")
    arrays = {n: map_array(path, np.dtype(_TYPES[n][1]), shape, begin + at) for n, (shape, at, _) in places.items()}
    if "ids" not in arrays:
        values = json.loads(metadata["ids"]) if "ids" in metadata else None
        if not isinstance(values, list):
            raise StoreError(
                f"Reading {where}: neither a tensor ids nor a list of text ids is there. The file is damaged."
            )
        arrays["ids"] = normalise_ids(values, f"Reading {where}", StoreError)
    # One row of each column for each row of probs.
    n = len(arrays["probs"])
    if any(len(a) != n for a in arrays.values()) or (
        "logits" in arrays and arrays["logits"].shape != arrays["probs"].shape
    ):
        shapes = ", ".join(f"{name} {a.shape}" for name, a in arrays.items())
        raise StoreError(f"Reading {where}: columns of different lengths: {shapes}. The file is damaged.")
    rows = ArrayRows(**arrays, where=where)
    check_against_rows(meta, rows)
    return rows, meta


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        # A length that is wrong would be read before anything else is known to be.
        longest = limit("FO_ONNX_MAX_HEADER_BYTES")
        if not 2 <= length <= path.stat().st_size - 8:
            raise StoreError(f"Reading {path}: no safetensors header. It is cut short, damaged or of another kind.")
        if length > longest:
            raise StoreError(
                f"Reading {path}: a safetensors header of {length} bytes; the format allows {_HEADER_LIMIT_BYTES}. If it "
                "is meant, raise the limit: FO_ONNX_MAX_HEADER_BYTES=…"
            )
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise StoreError(f"Reading {path}: its safetensors header is no object. The file is damaged.")
    return header, 8 + length


def _locate_tensor(where: str, name: str, entry: Any, size_bytes: int) -> tuple[tuple[int, ...], int, int]:
    """Return shape, first byte and end of a tensor, from its entry in the header; they must fit each other and the file."""
    kind, dtype = _TYPES[name]
    rank = 2 if kind == "F32" else 1
    if isinstance(entry, dict) and entry.get("dtype") == kind:
        shape, offsets = _to_counts(entry.get("shape"), rank), _to_counts(entry.get("data_offsets"), 2)
        if shape and offsets and min(shape[1:], default=1):
            start, end = offsets
            if start <= end <= size_bytes and end - start == math.prod(shape) * np.dtype(dtype).itemsize:
                return shape, start, end
    raise StoreError(
        f"Reading {where}: {name} is said to be {str(entry)[:200]}, but {size_bytes} bytes of tensors are there and "
        f"{kind} with {rank} axes was expected. The file is cut short, damaged or of another kind."
    )


def _to_counts(value: Any, length: int) -> tuple[int, ...] | None:
    """Return a list of `length` counts; ``None`` for anything else."""
    fits = isinstance(value, list) and len(value) == length and all(type(n) is int and 0 <= n < 2**62 for n in value)
    return tuple(value) if fits else None
