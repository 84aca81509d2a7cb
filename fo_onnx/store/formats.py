"""The formats by suffix. A new one joins by an entry here, and by that in the contract suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import FoOnnxError, StoreError, reading
from ..limits import check_regular
from ..rows import Rows
from . import json_file, npy_file, npz_file, parquet_file, safetensors_file
from .file_rows import FileRows
from .files import OutputFile


@dataclass(frozen=True)
class Format:
    """How one kind of file is written and read.

    Attributes:
        suffix: With its dot.
        write: Writes all rows and meta into an open file, in passes over the rows.
        read: Rows, decoded when they are asked for as far as the format allows, and meta. `open` is its border.
        damage: Problems that reading all rows does not show, one text each; `find_damage` is its border.
        whole: Whether ids, labels and logits are kept, and not the distributions and meta alone.
    """

    suffix: str
    write: Callable[[Rows, Mapping[str, Any], OutputFile], None]
    read: Callable[[Path], tuple[Rows, dict[str, Any]]]
    damage: Callable[[Path], list[str]] | None = None
    whole: bool = True

    def open(self, path: Path) -> tuple[FileRows, dict[str, Any]]:
        """The rows of a file, and meta. Raises `StoreError`, which names the file, whatever is wrong with it."""
        rows = FileRows(path, self.read)
        return rows, rows.meta

    def find_damage(self, path: Path) -> list[str]:
        """Problems that reading all rows does not show. Raises `StoreError` as `open` does."""
        if self.damage is None:
            return []
        with reading(path, StoreError):
            check_regular(path, StoreError)
            return self.damage(path)


def _of(suffix: str, module: ModuleType, **more: Any) -> Format:
    return Format(suffix, module.write, module.read, **more)


FORMATS: dict[str, Format] = {
    f.suffix: f
    for f in (
        _of(".json", json_file),
        _of(".parquet", parquet_file),
        _of(".npz", npz_file, damage=npz_file.damage),
        _of(".npy", npy_file, whole=False),
        _of(".safetensors", safetensors_file),
    )
}
"""Formats of single files by suffix."""


def target_format(path: str | Path) -> Format | None:
    """The format that a path's suffix asks for; ``None`` for no suffix, which is a run folder.

    Raises:
        StoreError: For a suffix that is none of the known ones; lists them.
    """
    suffix = Path(path).suffix.lower()
    if suffix == "":
        return None
    if suffix not in FORMATS:
        raise StoreError(
            f"{path}: no format has the suffix {suffix!r}; the suffixes are {', '.join(FORMATS)}, and a name without "
            "a suffix "
            "is a run folder."
        )
    return FORMATS[suffix]


def is_result(path: Path) -> bool:
    """Whether a regular file, and no link, is a result whose meta says that fo-onnx wrote it. Raises nothing."""
    try:
        with reading(path, StoreError):
            form = target_format(path)
            if form is None or path.is_symlink() or not path.is_file():
                return False
            _, meta = form.open(path)
    except FoOnnxError:
        return False
    return isinstance(meta.get("fo_onnx"), str)
