"""numpy's own format: the distributions alone. Ids, labels and meta are lost, and come back as their defaults.

Files are written in one pass, mapped into memory on reading, and never unpickled.
# source: NumPy Enhancement Proposal 1, "A Simple File Format for NumPy Arrays".
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import StoreError
from ..rows import Array, ArrayRows, Rows, chunks
from .files import OutputFile
from .schema import Layout, minimal_meta


def write(rows: Rows, meta: Mapping[str, Any], file: OutputFile) -> None:
    """Writes the distributions. Raises `StoreWriteError`."""
    file.write(header(np.dtype("<f4"), (rows.length, rows.classes)))
    for part in chunks(rows, ("probs",)):
        file.write(np.ascontiguousarray(part.probs, dtype="<f4").reshape(-1).view(np.uint8))


def read(path: Path) -> tuple[Rows, dict[str, Any]]:
    """The rows, mapped into memory, with ids 0 … n − 1 and minimal meta.

    Raises:
        StoreError: Where it is cut short, no .npy, or no (n, k) array of float32.
    """
    with path.open("rb") as file:
        dtype, shape, fortran = read_header(file, str(path))
        offset = file.tell()
    if dtype != np.dtype("<f4") or len(shape) != 2 or fortran or shape[1] == 0:
        raise StoreError(
            f"Reading {path}: an array of shape {shape} and dtype {dtype}; (n, classes) of float32 was expected."
        )
    size_bytes = path.stat().st_size - offset
    if size_bytes != 4 * shape[0] * shape[1]:
        raise StoreError(
            f"Reading {path}: {size_bytes} bytes of rows, {4 * shape[0] * shape[1]} expected. It is cut short or "
            "damaged."
        )
    rows = ArrayRows(mapped(path, np.dtype("<f4"), shape, offset), where=str(path))
    return rows, minimal_meta(Layout.of(rows), rows.length)


def damage(path: Path) -> list[str]:
    """What reading all rows does not find: nothing, since the format holds no checksum."""
    return []


def header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The bytes that come before an array's own, a multiple of 64 of them."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def read_header(file: BinaryIO, where: str) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Type, shape and order of the array whose bytes begin where `file` then stands."""
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    except ValueError as err:
        raise StoreError(
            f"Reading {where}: no .npy header ({err}). It is cut short, damaged or of another kind."
        ) from err
    if dtype.hasobject:
        raise StoreError(
            f"Reading {where}: an array of Python objects, which only unpickling could read; that is never done."
        )
    return dtype, shape, fortran


def mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], offset: int) -> Array:
    """An array that lies in a file. It can be changed in memory; the file stays as it is."""
    if 0 in shape:
        return np.empty(shape, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="c", offset=offset, shape=shape).view(np.ndarray)
