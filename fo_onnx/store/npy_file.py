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
from typing import Any, BinaryIO, cast

import numpy as np

from ..errors import StoreError
from ..rows import Array, ArrayRows, Columns, Rows, chunks
from .digest import RowDigest, sealed
from .files import OutputFile
from .schema import Layout, check_against_rows, decode_meta, encode_meta, minimal_meta

_LARGEST = 2**62
"""More bytes than any array takes."""


def write(rows: Rows, meta: Mapping[str, Any], file: OutputFile) -> None:
    """Writes the distributions, and meta that speaks of them alone. Raises `StoreWriteError`."""
    layout = Layout(rows.classes, "int", labels=False, logits=False)
    digest = RowDigest(layout)
    file.write(header(np.dtype("<f4"), (rows.length, rows.classes)))
    start = 0
    for part in chunks(rows, ("probs",)):
        probs = np.ascontiguousarray(part.probs, dtype="<f4")
        file.write(probs.reshape(-1).view(np.uint8))
        digest.update(Columns(np.arange(start, start + len(probs)), probs))
        start += len(probs)
    data = {**(meta.get("data") or {}), **layout.as_dict()}
    text = np.frombuffer(encode_meta(sealed({**meta, "data": data}, digest.result(), "npy"), "npy"), dtype=np.uint8)
    file.write(header(text.dtype, text.shape) + text.tobytes())


def read(path: Path) -> tuple[Rows, dict[str, Any]]:
    """The rows, mapped into memory, with ids 0 … n − 1, and meta; the least there is where another program wrote it.

    Raises:
        StoreError: Where it is cut short, no .npy, or no (n, k) array of float32.
    """
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        dtype, shape, fortran = read_header(file, str(path))
        offset = file.tell()
        if dtype != np.dtype("<f4") or len(shape) != 2 or fortran or shape[1] == 0:
            raise StoreError(
                f"Reading {path}: an array of shape {shape} and dtype {dtype}; (n, classes) of float32 was expected."
            )
        end = offset + 4 * math.prod(shape)
        if end > size_bytes:
            raise StoreError(
                f"Reading {path}: {size_bytes - offset} bytes of rows, {end - offset} expected. It is cut short or "
                "damaged."
            )
        rows = ArrayRows(mapped(path, np.dtype("<f4"), shape, offset), where=str(path))
        if end == size_bytes:
            meta = minimal_meta(Layout.of(rows), rows.length, foreign=True)
        else:
            file.seek(end)
            meta = decode_meta(_read_text(file, size_bytes, str(path)), str(path))
    check_against_rows(meta, rows)
    return rows, meta


def _read_text(file: BinaryIO, size_bytes: int, where: str) -> bytes:
    dtype, shape, _ = read_header(file, where)
    if dtype != np.uint8 or shape != (size_bytes - file.tell(),):
        raise StoreError(
            f"Reading {where}: after its rows an array of shape {shape} and dtype {dtype}; the "
            f"{size_bytes - file.tell()} bytes of meta were expected. It is cut short, damaged or of another kind."
        )
    return file.read()


def header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The bytes that come before an array's own, a multiple of 64 of them."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def read_header(file: BinaryIO, where: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Type, shape and order of the array whose bytes begin where `file` then stands.

    Raises:
        StoreError: Where no array of numbers or text is said to be there, or a shape that no array has.
    """
    version = np.lib.format.read_magic(cast(Any, file))
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(cast(Any, file))
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(cast(Any, file))
    if dtype.hasobject:
        raise StoreError(
            f"Reading {where}: an array of Python objects, which only unpickling could read; that is never done."
        )
    counts = all(type(n) is int and n >= 0 for n in shape)
    # An axis of length 0 must not hide one that is larger than memory.
    if not counts or math.prod(max(n, 1) for n in shape) * max(dtype.itemsize, 1) > _LARGEST:
        raise StoreError(f"Reading {where}: an array of shape {str(shape)[:100]}; that is no shape. It is damaged.")
    return dtype, shape, bool(fortran)


def mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int) -> Array:
    """An array that lies in a file. It can be changed in memory; the file stays as it is."""
    if 0 in shape:
        return np.empty(shape, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="c", offset=offset, shape=shape).view(np.ndarray)
