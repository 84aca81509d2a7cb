"""The formats by suffix. A new one joins by an entry here, and by that in the contract suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import StoreError
from ..rows import Rows
from . import json_file, npy_file, npz_file, parquet_file, safetensors_file
from .files import OutputFile


@dataclass(frozen=True)
class Format:
    """How one kind of file is written and read.

    Attributes:
        suffix: With its dot.
        write: Writes all rows and meta into an open file, in passes over the rows.
        read: Rows, decoded when they are asked for as far as the format allows, and meta. Raises `StoreError`.
        damage: Problems that reading all rows does not show, one text each.
        whole: Whether ids, labels, logits and meta are kept, and not the distributions alone.
    """

    suffix: str
    write: Callable[[Rows, Mapping[str, Any], OutputFile], None]
    read: Callable[[Path], tuple[Rows, dict[str, Any]]]
    damage: Callable[[Path], list[str]]
    whole: bool = True


def _of(suffix: str, module: ModuleType, *, whole: bool = True) -> Format:
    return Format(suffix, module.write, module.read, module.damage, whole)


FORMATS: dict[str, Format] = {
    f.suffix: f
    for f in (
        _of(".json", json_file),
        _of(".parquet", parquet_file),
        _of(".npz", npz_file),
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
