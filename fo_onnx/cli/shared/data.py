"""DATA, ids and made-up rows on the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, DataNotFoundError, OptionError, reading
from ...guards.array_files import read_npy
from ...guards.limits import check_regular, check_sparse
from ...sources import ImageFolder
from ...sources.annotations import check_ids
from .references import DATA, is_reference, open_reference

RANDOM_ROWS = 64
_LARGEST_INTEGER = 9
_SEED = 0
_READING_IDS = "Reading the ids"
ID_SUFFIXES = (".npy", ".json", ".txt", ".csv")
Shapes = Sequence[tuple[str | None, tuple[int, ...]]]
Dtypes = Sequence[tuple[str | None, str]]


def load_data(text: str, images: dict[str, Any]) -> Any:
    """Return what the verbs take as data.

    Args:
        text: A file, a folder of images, or ``package.module:attribute``: data, or a class or function that makes them.
        images: How a folder of images is read, as `fo_onnx.ImageFolder` takes it.

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
    with reading(path, DataError, _READING_IDS):
        if not path.exists():
            raise DataNotFoundError(f"there is no file of ids at {path}.")
        suffix = path.suffix.lower()
        if suffix not in ID_SUFFIXES:
            raise DataError(f"ids cannot be read from {path}: {', '.join(ID_SUFFIXES)} were expected.")
        # JSON keeps the type of ids; lines are numbers only if all of them are.
        if suffix == ".npy":
            ids: Any = read_npy(path, DataError, _READING_IDS).tolist()
        else:
            check_regular(path, DataError, _READING_IDS)
            check_sparse(path, DataError)
            text = path.read_text(encoding="utf-8" if suffix == ".json" else "utf-8-sig")
            ids = json.loads(text) if suffix == ".json" else _parse_lines(text.splitlines())
        if not isinstance(ids, list):
            raise DataError(f"{path} holds a {type(ids).__name__}; a list with one id per row was expected.")
        # What is no id is said here, where the file is known; the source would speak of ids=.
        check_ids(ids, f"{_READING_IDS} {path}: it")
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

    Args:
        shapes: Name, or ``None``, and shape of one row, per input.
        dtypes: Likewise: one for all inputs, one per input in order, or by name. float32 if left out.
        rows: How many.

    Returns:
        One array (rows, …), a tuple of them, or a dict if the inputs have names.
    """
    # With names the rows are a dict, so all or none must have one.
    names = [n for n, _ in shapes]
    if any(names) and (None in names or len(set(names)) < len(names)):
        raise click.UsageError("--input-shape: either every input has a name of its own, or none has.")
    rng = np.random.default_rng(_SEED)
    per_input = zip(shapes, _dtype_per_input(names, dtypes), strict=True)
    arrays = [_random_array(rng, (rows, *shape), dtype) for (_, shape), dtype in per_input]
    if any(names):
        return dict(zip(names, arrays, strict=True))
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def _random_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    kind = np.dtype(dtype).kind
    if kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2 if kind == "b" else _LARGEST_INTEGER + 1, shape).astype(dtype)


def _dtype_per_input(names: Sequence[str | None], dtypes: Dtypes) -> list[str]:
    by_name = {n: d for n, d in dtypes if n is not None}
    in_order = [d for n, d in dtypes if n is None]
    unknown = sorted(set(by_name) - set(names))
    if unknown:
        raise click.UsageError(f"--input-dtype: no --input-shape has the name {unknown[0]!r}.")
    if len(in_order) > 1 and len(in_order) != len(names):
        raise click.UsageError(
            f"--input-dtype was given {len(in_order)} times; once, or {len(names)} times, was expected."
        )
    default = in_order * len(names) if len(in_order) == 1 else in_order or ["float32"] * len(names)
    return [d if n is None else by_name.get(n, d) for n, d in zip(names, default, strict=True)]
