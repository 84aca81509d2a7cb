"""numpy's container: a zip, not compressed, of one .npy per column and one with meta as JSON text.

The members are written one after another in passes over the rows, and mapped into memory on reading; ``numpy.load``
reads them too, with ``allow_pickle=False``.
# source: PKWARE .ZIP File Format Specification (APPNOTE) 6.3.10, section 4.3.7, for where a member's bytes begin.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import numpy as np

from ..errors import StoreError
from ..limits import check_unfolding
from ..rows import COLUMNS, Array, ArrayRows, Rows, chunks
from .files import OutputFile
from .npy_file import header, mapped, read_header
from .schema import Layout, check_against_rows, decode_meta, encode_meta, text_ids

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ZIP64_EXTRA_BYTES = 20
_ALIGNMENT = 64
_CHUNK_BYTES = 2**20
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
    with zipfile.ZipFile(path) as archive:
        arrays = {name: _read_member(path, archive, info) for name, info in _members(archive, where).items()}
    text, probs = arrays["meta"], arrays["probs"]
    if text.dtype.kind != "U" or text.shape != ():
        raise StoreError(f"Reading {where}: meta is no text. The file is damaged, or not of fo-onnx.")
    meta = decode_meta(str(text), where)
    k = probs.shape[1] if probs.ndim == 2 else 0
    for name, (dtype, *axes) in {
        "probs": ("<f4", k),
        "ids": ("<i8",),
        "labels": ("<i8",),
        "logits": ("<f4", k),
    }.items():
        array = arrays.get(name)
        if array is None:
            continue
        is_text = name == "ids" and array.dtype.kind == "U"
        if array.shape != (len(probs) if probs.ndim else 0, *axes) or k == 0 or not (is_text or array.dtype == dtype):
            raise StoreError(
                f"Reading {where}: {name} of shape {array.shape} and dtype {array.dtype} beside probs of shape "
                f"{probs.shape}; {dtype} with one row for each row of (n, classes) was expected."
            )
    rows = ArrayRows(probs, arrays["ids"], arrays.get("labels"), arrays.get("logits"), where=where)
    check_against_rows(meta, rows)
    if rows.id_kind == "str":
        for part in chunks(rows, ("ids",)):
            text_ids(cast(Array, part.ids).tolist(), where)
    return rows, meta


def _members(archive: zipfile.ZipFile, where: str) -> dict[str, zipfile.ZipInfo]:
    """The members that a reader needs, by column; what else is there is left alone."""
    members: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name in members:
            raise StoreError(f"Reading {where}: an npz that holds {name} twice. It is damaged.")
        members[name] = info
    if not {"meta", "probs", "ids"} <= members.keys():
        raise StoreError(
            f"Reading {where}: an npz with {', '.join(list(members)[:10]) or 'nothing'}; probs, ids and meta were expected, so it is no "
            "file of fo-onnx."
        )
    return {name: members[name] for name in ("meta", *COLUMNS) if name in members}


def _read_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    """The array in a member: mapped where it is stored, decoded where it is deflated, within limits."""
    where = f"{path}:{info.filename}"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise StoreError(
            f"Reading {where}: compressed in a way that numpy never uses. It is damaged, or not of fo-onnx."
        )
    check_unfolding(path, info.file_size, info.compress_size, StoreError, f"the member {info.filename}")
    # Opening it compares its local header with the directory, and refuses what is encrypted or overlaps another.
    with archive.open(info) as member:
        dtype, shape, fortran = read_header(cast(BinaryIO, member), where)
        begin = member.tell()
        size_bytes = math.prod(shape) * dtype.itemsize
        if begin + size_bytes != info.file_size:
            raise StoreError(
                f"Reading {where}: {info.file_size} bytes do not hold an array of shape {shape}, {dtype}. The file is "
                "damaged."
            )
        if info.compress_type != zipfile.ZIP_STORED or fortran:
            values = np.empty(shape, dtype, order="F" if fortran else "C")
            values.reshape(-1, order="A").view(np.uint8)[:] = np.frombuffer(member.read(), np.uint8)
            return values
    offset = _data_offset(path, info) + begin
    if offset + size_bytes > path.stat().st_size:
        raise StoreError(f"Reading {where}: its {size_bytes} bytes do not end within the file. It is cut short.")
    return mapped(path, dtype, shape, offset)


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member begin in the file."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        fields = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return info.header_offset + _LOCAL_HEADER.size + int(fields[-2]) + int(fields[-1])


def damage(path: Path) -> list[str]:
    """What reading all rows does not find: members whose checksum does not match."""
    problems = []
    with zipfile.ZipFile(path) as archive:
        for info in _members(archive, str(path)).values():
            check_unfolding(path, info.file_size, info.compress_size, StoreError, f"the member {info.filename}")
            try:
                with archive.open(info) as member:
                    while member.read(_CHUNK_BYTES):
                        pass
            except zipfile.BadZipFile:
                problems.append(f"the checksum of {info.filename} does not match")
    return problems
