"""numpy's own format: the distributions, and after them meta. Ids, labels and logits are lost.

A file is two arrays one after the other, as ``numpy.save`` writes them into one open file: ``probs``, which is all that
``numpy.load`` of the path reads, and the JSON text of meta as bytes. Written in one pass, mapped into memory on reading,
and never unpickled. An array that stands alone, of another program, is read too.
# source: NumPy Enhancement Proposal 1, "A Simple File Format for NumPy Arrays".
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...distributions.columns import Array, ArrayRows, Columns, Layout, Rows, read_chunks
from ...errors import StoreError
from ...guards.array_files import read_header
from ..digest import RowDigest, seal_meta
from ..files import OutputFile
from ..schema import decode_meta, encode_meta, minimal_meta


def write_result(rows: Rows, meta: Mapping[str, Any], file: OutputFile) -> None:
    """Write the distributions, and meta that speaks of them alone. Raises `StoreWriteError`."""
    layout = Layout(rows.layout.classes, "int", labels=False, logits=False)
    digest = RowDigest(layout)
    file.write(encode_header(np.dtype("<f4"), (rows.length, layout.classes)))
    start = 0
    for part in read_chunks(rows, ("probs",)):
        probs = np.ascontiguousarray(part.probs, dtype="<f4")
        file.write(probs.reshape(-1).view(np.uint8))
        digest.update(Columns(np.arange(start, start + len(probs)), probs))
        start += len(probs)
    data = {**(meta.get("data") or {}), **layout.as_dict()}
    text = np.frombuffer(encode_meta(seal_meta({**meta, "data": data}, digest.result(), "npy"), "npy"), dtype=np.uint8)
    file.write(encode_header(text.dtype, text.shape) + text.tobytes())


def read_result(path: Path) -> tuple[Rows, dict[str, Any]]:
    """Return the rows, mapped into memory, with ids 0 … n − 1, and meta; a minimal one if another program wrote the file.

    Raises `StoreError`; `FileRows` is the border.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        dtype, shape, fortran = read_header(file, str(path), StoreError)
        offset = file.tell()
        if dtype != np.dtype("<f4") or len(shape) != 2 or fortran or shape[1] == 0:
            raise StoreError(
                f"Reading {path}: an array of shape {shape} and dtype {dtype}; (n, classes) of float32 was expected."
            )
        end = offset + 4 * math.prod(shape)
        if end > size_bytes:
            raise ValueError(f"{size_bytes - offset} bytes of rows, {end - offset} expected")
        rows = ArrayRows(map_array(path, np.dtype("<f4"), shape, offset), where=str(path))
        # An array that ends where the file ends is another program's: it has no record.
        if end == size_bytes:
            meta = minimal_meta(rows.layout, rows.length, foreign=True)
        else:
            file.seek(end)
            dtype, shape, _ = read_header(file, str(path), StoreError)
            rest_bytes = size_bytes - file.tell()
            if dtype != np.uint8 or shape != (rest_bytes,):
                raise StoreError(
                    f"Reading {path}: after its rows an array of shape {shape} and dtype {dtype}; the {rest_bytes} bytes "
                    "of meta were expected. It is cut short, damaged or of another kind."
                )
            meta = decode_meta(file.read(), str(path))
    return rows, meta


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
