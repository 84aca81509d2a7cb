"""numpy's own format: the distributions, and after them their ids and meta. Labels and logits are lost.

A file is arrays one after the other, as ``numpy.save`` writes them into one open file: ``probs``, which is all that
``numpy.load`` of the path reads, the ids unless they are 0 … n − 1, and the JSON text of meta as bytes. Mapped into memory
on reading, and never unpickled. An array that stands alone, of another program, is read too.
# source: NumPy Enhancement Proposal 1, "A Simple File Format for NumPy Arrays".
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...distributions.columns import Array, ArrayRows, Columns, Rows, read_chunks
from ...distributions.ids import are_consecutive, normalise_ids
from ...errors import StoreError
from ...guards.array_files import read_header
from ...guards.limits import check_sparse
from ..digest import RowDigest, seal_meta
from ..files import OutputFile
from ..schema import decode_meta, encode_meta, minimal_meta


def write_result(rows: Rows, meta: Mapping[str, Any], file: OutputFile) -> None:
    """Write the distributions with their ids, and meta that speaks of them alone.

    Raises `StoreWriteError`, and `StoreError` for ids that numpy's text cannot hold.
    """
    layout = replace(rows.layout, labels=False, logits=False)
    digest = RowDigest(layout)
    file.write(encode_header(np.dtype("<f4"), (rows.length, layout.classes)))
    start, are_positions = 0, layout.id_kind == "int"
    for part in read_chunks(rows, ("ids", "probs")):
        probs, ids = np.ascontiguousarray(part.probs, dtype="<f4"), cast(Array, part.ids)
        file.write(probs.reshape(-1).view(np.uint8))
        digest.update(Columns(ids, probs))
        are_positions = are_positions and are_consecutive(ids, start)
        start += len(probs)
    # Without an array of ids they are the positions.
    if not are_positions:
        dtype = choose_dtype(rows, "ids", "npy")
        file.write(encode_header(dtype, (rows.length,)))
        for part in read_chunks(rows, ("ids",)):
            file.write(np.ascontiguousarray(cast(Array, part.ids).astype(dtype, copy=False)).view(np.uint8))
    data = {**(meta.get("data") or {}), **layout.as_dict()}
    text = np.frombuffer(encode_meta(seal_meta({**meta, "data": data}, digest.result(), "npy"), "npy"), dtype=np.uint8)
    file.write(encode_header(text.dtype, text.shape) + text.tobytes())


def read_result(path: Path) -> tuple[Rows, dict[str, Any]]:
    """Return the rows, mapped into memory, and meta; a minimal one if another program wrote the file.

    Ids are 0 … n − 1 if the file has none. Raises `StoreError`; `FileRows` is the border.
    """
    size_bytes, where = path.stat().st_size, str(path)
    with path.open("rb") as file:
        dtype, shape, fortran = read_header(file, where, StoreError)
        offset = file.tell()
        if dtype != np.dtype("<f4") or len(shape) != 2 or fortran or shape[1] == 0:
            raise StoreError(
                f"Reading {path}: an array of shape {shape} and dtype {dtype}; (n, classes) of float32 was expected."
            )
        end = offset + 4 * math.prod(shape)
        if end > size_bytes:
            raise ValueError(f"{size_bytes - offset} bytes of rows, {end - offset} expected")
        probs, ids = map_array(path, np.dtype("<f4"), shape, offset), None
        # An array that ends where the file ends is another program's: it has no record.
        if end == size_bytes:
            rows = ArrayRows(probs, where=where)
            return rows, minimal_meta(rows.layout, rows.length, foreign=True)
        file.seek(end)
        dtype, after, _ = read_header(file, where, StoreError)
        if (dtype == np.dtype("<i8") or dtype.kind == "U") and after == shape[:1]:
            count_bytes = dtype.itemsize * shape[0]
            if count_bytes > size_bytes - file.tell():
                raise ValueError(f"{size_bytes - file.tell()} bytes of ids, {count_bytes} expected")
            check_sparse(path, StoreError)
            ids = np.frombuffer(file.read(count_bytes), dtype=dtype)
            dtype, after, _ = read_header(file, where, StoreError)
        rest_bytes = size_bytes - file.tell()
        if dtype != np.uint8 or after != (rest_bytes,):
            raise StoreError(
                f"Reading {path}: after its rows an array of shape {after} and dtype {dtype}; the {rest_bytes} bytes "
                "of meta were expected. It is cut short, damaged or of another kind."
            )
        meta = decode_meta(file.read(), where)
    if ids is not None:
        ids = normalise_ids(ids, f"Reading {path}", StoreError)
    return ArrayRows(probs, ids, where=where), meta


def choose_dtype(rows: Rows, column: str, suffix: str) -> np.dtype[Any]:
    """Return the dtype that a column is written in. Raises `StoreError` for ids that numpy's text cannot hold."""
    if column in ("probs", "logits"):
        return np.dtype("<f4")
    if column == "labels" or rows.layout.id_kind == "int":
        return np.dtype("<i8")
    # numpy's text has one width for all ids.
    longest = 1
    for part in read_chunks(rows, ("ids",)):
        for text in cast(Array, part.ids).tolist():
            if text.endswith("\0"):
                raise StoreError(
                    f"Writing {suffix}: numpy's text cannot hold the NUL at the end of the id {text!r}; use Parquet or JSON."
                )
            longest = max(longest, len(text))
    return np.dtype(f"<U{longest}")


def encode_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Return the bytes that come before an array's own, a multiple of 64 of them."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def map_array(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int) -> Array:
    """Return an array that lies in a file. It can be changed in memory; the file stays as it is."""
    if 0 in shape:
        return np.empty(shape, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="c", offset=offset, shape=shape).view(np.ndarray)
