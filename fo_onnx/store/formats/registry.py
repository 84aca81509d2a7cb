"""The formats by suffix. A new one joins by an entry here, and by that in the contract suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...distributions.columns import Rows
from ...errors import FoOnnxError, StoreError, reading
from ..files import OutputFile
from . import json, npy, npz, parquet, safetensors
from .file_rows import FileRows, Reader


@dataclass(frozen=True)
class Format:
    """One kind of file: its writer and its reader.

    Attributes:
        suffix: With its dot.
        write: Writes all rows and meta into an open file, in passes over the rows.
        read: Returns rows and meta; `open` is its border.
        keeps_everything: Whether labels and logits are kept, and not ids, distributions and meta alone.
    """

    suffix: str
    write: Callable[[Rows, Mapping[str, Any], OutputFile], None]
    read: Reader
    keeps_everything: bool = True

    def open(self, path: Path) -> tuple[FileRows, dict[str, Any]]:
        """Return the rows of a file, and meta. Raises `StoreError`, which names the file, whatever is wrong with it."""
        rows = FileRows(path, self.read)
        return rows, rows.meta


FORMATS: dict[str, Format] = {
    f.suffix: f
    for f in (
        Format(".json", json.write_result, json.read_result),
        Format(".parquet", parquet.write_result, parquet.read_result),
        Format(".npz", npz.write_result, npz.read_result),
        Format(".npy", npy.write_result, npy.read_result, keeps_everything=False),
        Format(".safetensors", safetensors.write_result, safetensors.read_result),
    )
}
"""Formats of single files by suffix."""


def target_format(path: str | Path) -> Format | None:
    """Return the format that a path's suffix asks for; ``None`` for no suffix, which is a run folder.

    Raises:
        StoreError: The suffix is none of the known ones; lists them.
    """
    suffix = Path(path).suffix.lower()
    if suffix == "":
        return None
    if suffix not in FORMATS:
        raise StoreError(
            f"{path}: no format has the suffix {suffix!r}; the suffixes are {', '.join(FORMATS)}, and a name without a "
            "suffix is a run folder."
        )
    return FORMATS[suffix]


def is_result(path: Path) -> bool:
    """Return whether a regular file, and no link, is a result whose meta says that fo-onnx wrote it."""
    try:
        with reading(path, StoreError):
            form = target_format(path)
            if form is None or path.is_symlink() or not path.is_file():
                return False
            _, meta = form.open(path)
    except FoOnnxError:
        return False
    return isinstance(meta.get("fo_onnx"), str)
