"""numpy's container: a zip, not compressed, of one .npy per column and one with meta as JSON text.

The members are written one after another in passes over the rows; ``numpy.load`` reads them with ``allow_pickle=False``.
The file is read whole: large results belong in other formats.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from ...distributions.columns import COLUMNS, Rows, read_chunks
from ...errors import StoreError
from ...guards.array_files import read_npz
from ..files import OutputFile
from ..schema import FOR_LARGE_RESULTS, decode_meta, encode_meta
from .file_rows import to_rows
from .npy import choose_dtype, encode_header

_RATIO = 100
"""An .npz is read whole. Distributions deflate to a half or a third, seldom below a hundredth."""


def write_result(rows: Rows, meta: Mapping[str, Any], file: OutputFile) -> None:
    """Write all columns, in a pass for each. Raises `StoreError`, also for ids that numpy's text cannot hold."""
    layout = rows.layout
    text = np.array(encode_meta(meta, "npz").decode())
    with zipfile.ZipFile(cast("IO[bytes]", file), "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("meta.npy", "w", force_zip64=True) as member:
            member.write(encode_header(text.dtype, ()) + text.tobytes())
        for column in layout.columns:
            dtype = choose_dtype(rows, column, "npz")
            with archive.open(f"{column}.npy", "w", force_zip64=True) as member:
                member.write(encode_header(dtype, layout.shape(column, rows.length)))
                for part in read_chunks(rows, (column,)):
                    values = np.ascontiguousarray(getattr(part, column).astype(dtype, copy=False))
                    member.write(values.reshape(-1).view(np.uint8).data)


def read_result(path: Path) -> tuple[Rows, dict[str, Any]]:
    """Return the rows and meta; what else is in it is left out. Raises `StoreError`; `FileRows` is the border."""
    where = str(path)
    arrays = read_npz(path, StoreError, advice=FOR_LARGE_RESULTS, ratio=_RATIO)
    if not {"meta", "probs", "ids"} <= arrays.keys():
        raise StoreError(
            f"Reading {where}: an npz with {', '.join(list(arrays)[:10]) or 'nothing'}; probs, ids and meta were expected, "
            "so it is no file of fo-onnx."
        )
    text = arrays["meta"]
    if text.dtype.kind != "U" or text.shape != ():
        raise ValueError("meta is no text")
    meta = decode_meta(str(text), where)
    return to_rows({name: arrays[name] for name in COLUMNS if name in arrays}, where), meta
