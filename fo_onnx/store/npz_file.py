"""numpy's container: a zip, not compressed, of one .npy per column and one with meta as JSON text.

The members are written one after another in passes over the rows, and mapped into memory on reading; ``numpy.load``
reads them too, with ``allow_pickle=False``.
# source: PKWARE .ZIP File Format Specification (APPNOTE) 6.3.10, section 4.3.7, for where a member's bytes begin.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from ..errors import StoreError
from ..rows import Array, ArrayRows, Rows, chunks
from .files import OutputFile
from .npy_file import header, mapped, read_header
from .schema import Layout, check_against_rows, decode_meta, encode_meta

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ZIP64_EXTRA_BYTES = 20
_ALIGNMENT = 64
_PADDING_ID = 0xD935
"""Extra field that Android's zipalign uses for padding; readers skip what they do not know."""


def write(rows: Rows, meta: Mapping[str, Any], file: OutputFile) -> None:
    """Writes all columns, in a pass for each.

    Raises:
        StoreWriteError: Where the operating system refuses.
        StoreError: For ids that numpy's text cannot hold.
    """
    layout = Layout.of(rows)
    text = np.array(encode_meta(meta, "npz").decode())
    with zipfile.ZipFile(cast("IO[bytes]", file), "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with _member(archive, file, "meta.npy") as member:
            member.write(header(text.dtype, ()) + text.tobytes())
        for column in layout.columns:
            dtype = _dtype(rows, column)
            shape = (rows.length, rows.classes) if column in ("probs", "logits") else (rows.length,)
            with _member(archive, file, f"{column}.npy") as member:
                member.write(header(dtype, shape))
                for part in chunks(rows, (column,)):
                    values = np.ascontiguousarray(getattr(part, column).astype(dtype, copy=False))
                    member.write(values.reshape(-1).view(np.uint8).data)


def _dtype(rows: Rows, column: str) -> np.dtype[Any]:
    if column in ("probs", "logits"):
        return np.dtype("<f4")
    if column == "labels" or rows.id_kind == "int":
        return np.dtype("<i8")
    longest = 1
    for part in chunks(rows, ("ids",)):
        for text in cast(Array, part.ids).tolist():
            if text.endswith("\0"):
                raise StoreError(
                    f"Writing npz: numpy's text cannot hold the NUL at the end of the id {text!r}; use Parquet or JSON."
                )
            longest = max(longest, len(text))
    return np.dtype(f"<U{longest}")


def _member(archive: zipfile.ZipFile, file: OutputFile, name: str) -> IO[bytes]:
    """A member whose bytes begin at a multiple of 64, so that arrays mapped from it are aligned."""
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o600 << 16
    begin = file.tell() + _LOCAL_HEADER.size + len(name) + _ZIP64_EXTRA_BYTES + 4
    padding = -begin % _ALIGNMENT
    info.extra = struct.pack("<HH", _PADDING_ID, padding) + bytes(padding)
    return archive.open(info, "w", force_zip64=True)


def read(path: Path) -> tuple[Rows, dict[str, Any]]:
    """The rows, mapped into memory, and meta.

    Raises:
        StoreError: Where it is cut short, of another kind, or of a newer schema.
    """
    where = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if "meta" not in members or "probs" not in members or "ids" not in members:
                raise StoreError(
                    f"Reading {where}: an npz with {', '.join(members) or 'nothing'}; probs, ids and meta were "
                    "expected, so it is "
                    "no file of fo-onnx."
                )
            arrays = {name: _map_member(path, info) for name, info in members.items()}
    except (zipfile.BadZipFile, struct.error, NotImplementedError) as err:
        raise StoreError(
            f"Reading {where}: no readable npz ({err}). It is cut short, damaged or of another kind."
        ) from err
    if arrays["meta"].dtype.kind != "U" or arrays["meta"].shape != ():
        raise StoreError(f"Reading {where}: meta is no text. The file is damaged, or not of fo-onnx.")
    meta = decode_meta(str(arrays["meta"]), where)
    n = len(arrays["probs"]) if arrays["probs"].ndim else 0
    wanted: dict[str, tuple[str, int]] = {
        "probs": ("<f4", 2),
        "ids": ("<i8", 1),
        "labels": ("<i8", 1),
        "logits": ("<f4", 2),
    }
    for name, (dtype, rank) in wanted.items():
        array = arrays.get(name)
        text = name == "ids" and array is not None and array.dtype.kind == "U"
        if array is not None and (
            array.ndim != rank or len(array) != n or not (text or array.dtype == np.dtype(dtype))
        ):
            raise StoreError(
                f"Reading {where}: {name} of shape {array.shape} and dtype {array.dtype} beside {n} rows; {rank} axes "
                f"of {dtype} were expected."
            )
    rows = ArrayRows(arrays["probs"], arrays["ids"], arrays.get("labels"), arrays.get("logits"), where=where)
    check_against_rows(meta, rows)
    return rows, meta


def _map_member(path: Path, info: zipfile.ZipInfo) -> Array:
    where = f"{path}:{info.filename}"
    if info.compress_type != zipfile.ZIP_STORED:
        with zipfile.ZipFile(path) as archive, archive.open(info) as member:
            try:
                return cast(Array, np.load(cast(Any, member), allow_pickle=False))
            except ValueError as err:
                raise StoreError(f"Reading {where}: {err}.") from err
    with path.open("rb") as file:
        file.seek(info.header_offset)
        fields = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        if fields[0] != b"PK\x03\x04":
            raise zipfile.BadZipFile(f"no local header of {info.filename}")
        begin = info.header_offset + _LOCAL_HEADER.size + fields[-2] + fields[-1]
        file.seek(begin)
        dtype, shape, fortran = read_header(file, where)
        offset = file.tell()
    size_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if fortran or offset - begin + size_bytes != info.file_size or offset + size_bytes > path.stat().st_size:
        raise StoreError(
            f"Reading {where}: {info.file_size} bytes do not hold an array of shape {shape}, {dtype}. The file is "
            "damaged."
        )
    return mapped(path, dtype, shape, offset)


def damage(path: Path) -> list[str]:
    """What reading all rows does not find: members whose checksum does not match."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError) as err:
        return [f"no readable zip ({err})"]
    return [f"the checksum of {broken} does not match"] if broken else []
