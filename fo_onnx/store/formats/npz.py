"""numpy's container: a zip, not compressed, of one .npy per column and one with meta as JSON text.

The members are written one after another in passes over the rows; ``numpy.load`` reads them with ``allow_pickle=False``.
The file is read whole: large results belong in other formats.
# source: PKWARE .ZIP File Format Specification (APPNOTE) 6.3.10, section 4.3.7, for where a member's bytes begin.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from ...distributions.columns import COLUMNS, Array, ArrayRows, Rows, read_chunks
from ...distributions.ids import normalise_ids
from ...errors import StoreError
from ...guards.array_files import read_npz
from ..files import OutputFile
from ..schema import FOR_LARGE_RESULTS, check_against_rows, decode_meta, encode_meta
from .npy import encode_header

_LOCAL_HEADER_BYTES = 30
_ZIP64_EXTRA_BYTES = 20
_RATIO = 100
"""An .npz is read whole. Distributions deflate to a half or a third, seldom below a hundredth."""
_ALIGNMENT = 64
_PADDING_ID = 0xD935
"""Extra field that Android's zipalign uses for padding; readers skip what they do not know."""


def write_result(rows: Rows, meta: Mapping[str, Any], file: OutputFile) -> None:
    """Write all columns, in a pass for each.

    Raises:
        StoreWriteError: The operating system refuses.
        StoreError: Ids that numpy's text cannot hold.
    """
    layout = rows.layout
    text = np.array(encode_meta(meta, "npz").decode())
    with zipfile.ZipFile(cast("IO[bytes]", file), "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with _open_member(archive, file, "meta.npy") as member:
            member.write(encode_header(text.dtype, ()) + text.tobytes())
        for column in layout.columns:
            dtype = _choose_dtype(rows, column)
            with _open_member(archive, file, f"{column}.npy") as member:
                member.write(encode_header(dtype, layout.shape(column, rows.length)))
                for part in read_chunks(rows, (column,)):
                    values = np.ascontiguousarray(getattr(part, column).astype(dtype, copy=False))
                    member.write(values.reshape(-1).view(np.uint8).data)


def _choose_dtype(rows: Rows, column: str) -> np.dtype[Any]:
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
                    f"Writing npz: numpy's text cannot hold the NUL at the end of the id {text!r}; use Parquet or JSON."
                )
            longest = max(longest, len(text))
    return np.dtype(f"<U{longest}")


def _open_member(archive: zipfile.ZipFile, file: OutputFile, name: str) -> IO[bytes]:
    """Open a member whose bytes begin at a multiple of 64, so that arrays can be mapped from it."""
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o600 << 16
    # The name and two extra fields stand between the header and the bytes.
    begin = file.tell() + _LOCAL_HEADER_BYTES + len(name) + _ZIP64_EXTRA_BYTES + 4
    padding = -begin % _ALIGNMENT
    info.extra = struct.pack("<HH", _PADDING_ID, padding) + bytes(padding)
    return archive.open(info, "w", force_zip64=True)


def read_result(path: Path) -> tuple[Rows, dict[str, Any]]:
    """Return the rows and meta. What else is in the container is left out.

    Raises:
        StoreError: It is cut short, of another kind, or of a newer schema; a checksum does not match.
    """
    where = str(path)
    arrays = read_npz(path, StoreError, advice=FOR_LARGE_RESULTS, ratio=_RATIO)
    if not {"meta", "probs", "ids"} <= arrays.keys():
        raise StoreError(
            f"Reading {where}: an npz with {', '.join(list(arrays)[:10]) or 'nothing'}; probs, ids and meta were expected, "
            "so it is no file of fo-onnx."
        )
    text, probs = arrays["meta"], arrays["probs"]
    if text.dtype.kind != "U" or text.shape != ():
        raise StoreError(f"Reading {where}: meta is no text. The file is damaged, or not of fo-onnx.")
    meta = decode_meta(str(text), where)
    columns = {name: arrays[name] for name in COLUMNS if name in arrays}
    # One row of each column for each row of probs; ids may be of several types, which `normalise_ids` knows.
    n, k = probs.shape if probs.ndim == 2 else (0, 0)
    for name, array in columns.items():
        is_wide = name in ("probs", "logits")
        dtype = array.dtype if name == "ids" else np.dtype("<f4" if is_wide else "<i8")
        if array.dtype != dtype or array.shape != ((n, k) if is_wide else (n,)) or k == 0:
            raise StoreError(
                f"Reading {where}: {name} of shape {array.shape} and dtype {array.dtype} beside probs of shape "
                f"{probs.shape}; {dtype} with one row for each row of (n, classes) was expected."
            )
    columns["ids"] = normalise_ids(columns["ids"], f"Reading {where}", StoreError)
    rows = ArrayRows(**columns, where=where)
    check_against_rows(meta, rows)
    return rows, meta
