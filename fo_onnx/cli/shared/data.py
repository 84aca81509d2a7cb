"""DATA, ids and made-up rows on the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from ...errors import DataError, DataNotFoundError, OptionError
from ...guards.array_files import read_npy
from ...guards.limits import check_regular, check_sparse
from ...sources import ImageFolder
from ...sources.annotations import check_ids
from ...sources.files import LABEL_SUFFIXES, reading_data
from .references import DATA, is_reference, open_reference

RANDOM_ROWS = 64
_READING_IDS = "Reading the ids"
Shapes = Sequence[tuple[str | None, tuple[int, ...]]]
Dtypes = Sequence[tuple[str | None, str]]


def load_data(text: str, images: dict[str, Any]) -> Any:
    """Return what the verbs take as data: a path, a folder of `images` (the arguments of `fo_onnx.ImageFolder`), an object.

    Raises:
        DataError: There are no such data.
        OptionError: `images` for something else than a folder.
    """
    if os.path.isdir(text):
        return ImageFolder(text, **images)
    if images:
        raise OptionError(f"{', '.join(f'--{n}' for n in images)}: {text} is no folder of images, which these are for.")
    return open_reference(text, DATA) if is_reference(text) else Path(text)


def load_ids(path: Path | None) -> list[int] | list[str] | None:
    """Return one id per row from a file: ``.npy``, ``.json`` (a list), ``.txt`` or ``.csv`` (one per line).

    Lines are integers if all of them are written as Python writes integers, else text: ``007`` stays what it is.

    Raises:
        DataError: There is no such file, or it holds something else.
    """
    if path is None:
        return None
    suffix = path.suffix.lower()
    with reading_data(path, _READING_IDS):
        if not path.exists():
            raise DataNotFoundError(f"there is no file of ids at {path}.")
        if suffix not in LABEL_SUFFIXES:
            raise DataError(f"ids cannot be read from {path}: {', '.join(LABEL_SUFFIXES)} were expected.")
        # JSON keeps the type of ids; lines are numbers only if all of them are.
        if suffix == ".npy":
            ids: Any = read_npy(path, DataError, _READING_IDS).tolist()
        else:
            check_regular(path, DataError, _READING_IDS)
            check_sparse(path, DataError)
            text = path.read_text(encoding="utf-8" if suffix == ".json" else "utf-8-sig")
            ids = json.loads(text) if suffix == ".json" else _parse_lines(text.splitlines())
        if not isinstance(ids, list):
            raise DataError(f"it holds a {type(ids).__name__}; a list with one id per row was expected.")
        # What is no id is said here, where the file is known; the source would speak of ids=.
        check_ids(ids, "it")
        return ids


def _parse_lines(lines: list[str]) -> list[int] | list[str]:
    try:
        numbers = list(map(int, lines))
    except ValueError:
        return lines
    # 007 and 1_000 are numbers to Python, and would come back as other text.
    return numbers if list(map(str, numbers)) == lines else lines


def random_rows(shapes: Shapes, dtypes: Dtypes, rows: int = RANDOM_ROWS) -> Any:
    """Return made-up rows: normal numbers, integers from 0 to 9, or truth values; the same ones each time.

    `shapes` has the name, or ``None``, and the shape of a row of each input; `dtypes` likewise one dtype for all (float32 if
    left out), one per input in order, or some by name. The rows are one array (rows, …), a tuple, or a dict if there are names.
    """
    # With names the rows are a dict, so all or none must have one.
    names = [n for n, _ in shapes]
    if any(names) and (None in names or len(set(names)) < len(names)):
        raise click.UsageError("--input-shape: either every input has a name of its own, or none has.")
    rng = np.random.default_rng(0)
    arrays = []
    for (_, shape), dtype in zip(shapes, _dtype_per_input(names, dtypes), strict=True):
        kind, size = np.dtype(dtype).kind, (rows, *shape)
        values = rng.standard_normal(size) if kind == "f" else rng.integers(0, 2 if kind == "b" else 10, size)
        arrays.append(values.astype(dtype))
    if any(names):
        return dict(zip(names, arrays, strict=True))
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def _dtype_per_input(names: Sequence[str | None], dtypes: Dtypes) -> list[str]:
    by_name = {n: d for n, d in dtypes if n is not None}
    in_order = [d for n, d in dtypes if n is None] or ["float32"]
    unknown = sorted(set(by_name) - set(names))
    if unknown:
        raise click.UsageError(f"--input-dtype: no --input-shape has the name {unknown[0]!r}.")
    if len(in_order) not in (1, len(names)):
        raise click.UsageError(
            f"--input-dtype was given {len(in_order)} times; once, or {len(names)} times, was expected."
        )
    default = in_order if len(in_order) == len(names) else in_order * len(names)
    return [d if n is None else by_name.get(n, d) for n, d in zip(names, default, strict=True)]
