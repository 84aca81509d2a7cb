"""numpy's files of arrays, of anybody: read without unpickling, within limits, and each error names the file.

`numpy.load` believes what a header says: a shape of 2⁷⁰ or a member that unfolds to gigabytes takes the memory, or ends in
whichever error comes first.
# source: NumPy Enhancement Proposal 1, "A Simple File Format for NumPy Arrays".
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import FoOnnxError, reading
from .limits import check_regular, check_sparse, check_unfolding

Header = tuple[np.dtype[Any], tuple[int, ...], bool]
_LARGEST_BYTES = 2**62
"""More than any array takes."""
_PART_BYTES = 2**20


def read_npy(path: Path, error: type[FoOnnxError], doing: str = "Reading", *, mapped: bool = False) -> NDArray[Any]:
    """Return the array of a ``.npy`` file, mapped from it read-only if `mapped`; what comes after it is left alone.

    Raises:
        FoOnnxError: As `error` says: no regular file, cut short, damaged, of another kind, or of Python objects.
    """
    with reading(path, error, doing):
        check_regular(path, error, doing)
        with path.open("rb") as file:
            dtype, shape, fortran = read_header(file, str(path), error, doing)
            offset = file.tell()
            size_bytes = math.prod(shape) * dtype.itemsize
            _check_size(path.stat().st_size - offset, size_bytes, str(path), error, doing)
            if mapped and size_bytes:
                return np.memmap(path, dtype, "r", offset, shape, cast(Any, "F" if fortran else "C"))
            check_sparse(path, error)
            return _read_values(file, dtype, shape, fortran)


def read_npz(
    path: Path, error: type[FoOnnxError], doing: str = "Reading", *, advice: str = "", ratio: int | None = None
) -> dict[str, NDArray[Any]]:
    """Return the arrays of a ``.npz`` file by name, in memory; `advice` and `ratio` are those of `check_unfolding`.

    Raises:
        FoOnnxError: As `error` says, as for `read_npy`; or a member, or all of them, would unfold to much more than the
            file holds; two of one name.
    """
    with reading(path, error, doing):
        check_regular(path, error, doing)
        check_sparse(path, error, advice)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            unfolded = sum(m.file_size for m in members)
            check_unfolding(path, unfolded, path.stat().st_size, error, "an .npz file", advice, ratio=ratio)
            arrays: dict[str, NDArray[Any]] = {}
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name in arrays:
                    raise error(f"{doing} {path}: it holds {name} twice. It is damaged; save it again.")
                arrays[name] = _read_member(archive, member, f"{path}:{member.filename}", error, doing)
            return arrays


def _read_member(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str, error: type[FoOnnxError], doing: str
) -> NDArray[Any]:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # Python unfolds the other methods' data whole, whatever size the member is said to have.
        raise error(f"{doing} {where}: compressed in a way that numpy never uses. Save it again with numpy.savez.")
    with reading(where, error, doing), archive.open(member) as file:
        dtype, shape, fortran = read_header(cast(BinaryIO, file), where, error, doing)
        size_bytes = math.prod(shape) * dtype.itemsize
        _check_size(member.file_size - file.tell(), size_bytes, where, error, doing)
        values = _read_values(cast(BinaryIO, file), dtype, shape, fortran)
        # The checksum is compared where the member ends.
        while file.read(_PART_BYTES):
            pass
        return values


def read_header(file: BinaryIO, where: str, error: type[FoOnnxError], doing: str = "Reading") -> Header:
    """Return type, shape and order of the array whose bytes begin where `file` then stands.

    Raises:
        FoOnnxError: As `error` says, for an array of Python objects, or a shape that no array has. What `reading` catches,
            for what is no header.
    """
    version = np.lib.format.read_magic(cast(Any, file))
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(cast(Any, file))
    if dtype.hasobject:
        raise error(
            f"{doing} {where}: an array of Python objects, which only unpickling could read; that is never done. Save it "
            "as an array of numbers or of text."
        )
    counts = all(type(n) is int and n >= 0 for n in shape)
    # An axis of length 0 must not hide one that is larger than memory.
    if not counts or math.prod(max(n, 1) for n in shape) * max(dtype.itemsize, 1) > _LARGEST_BYTES:
        raise error(f"{doing} {where}: an array of shape {str(shape)[:100]}; that is no shape. It is damaged.")
    return dtype, shape, bool(fortran)


def _check_size(there: int, wanted: int, where: str, error: type[FoOnnxError], doing: str) -> None:
    if wanted > there:
        raise error(
            f"{doing} {where}: its header says that the array takes {wanted} bytes, and {there} are there. It is cut short "
            "or damaged."
        )


def _read_values(file: BinaryIO, dtype: np.dtype[Any], shape: tuple[int, ...], fortran: bool) -> NDArray[Any]:
    values = np.empty(math.prod(shape), dtype)
    if values.nbytes and cast(Any, file).readinto(values.view(np.uint8).data) != values.nbytes:
        raise EOFError(f"fewer than its {values.nbytes} bytes are there")
    return values.reshape(shape, order="F" if fortran else "C")
