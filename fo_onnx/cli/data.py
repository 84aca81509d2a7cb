"""DATA, ids and examples on the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from ..array_files import read_npy
from ..errors import DataError, DataNotFoundError, OptionError, reading
from ..limits import check_regular, check_sparse
from .objects import DATA, imported, is_reference, made

RANDOM_ROWS = 64
_LARGEST_INTEGER = 9
_SEED = 0
ID_SUFFIXES = (".npy", ".json", ".txt", ".csv")
Shapes = Sequence[tuple[str | None, tuple[int, ...]]]
Dtypes = Sequence[tuple[str | None, str]]


def load_data(text: str, images: dict[str, Any]) -> Any:
    """What the verbs take as data.

    Args:
        text: A file, a folder of images, or ``package.module:attribute``: data, or a class or function that makes them.
        images: How a folder of images is read, as `fo_onnx.ImageFolder` takes it.

    Raises:
        DataError: There are no such data.
        OptionError: `images` for something else than a folder.
    """
    if os.path.isdir(text):
        from ..sources import ImageFolder

        return ImageFolder(text, **images)
    if images:
        raise OptionError(f"{', '.join(f'--{n}' for n in images)}: {text} is no folder of images, which these are for.")
    if is_reference(text):
        return made(imported(text, DATA), text, DATA)
    return Path(text)


def load_ids(path: Path | None) -> list[int] | list[str] | None:
    """One id per row from a file: ``.npy``, ``.json`` (a list), ``.txt`` or ``.csv`` (one per line).

    Lines are integers where all of them are written as Python writes integers, else text: ``007`` stays what it is.

    Raises:
        DataError: There is no such file, or it holds something else.
    """
    if path is None:
        return None
    with reading(path, DataError, "Reading the ids"):
        return _read_ids(path)


def _read_ids(path: Path) -> list[int] | list[str]:
    from ..sources.beside import given_ids

    if not path.exists():
        raise DataNotFoundError(f"there is no file of ids at {path}.")
    suffix = path.suffix.lower()
    if suffix not in ID_SUFFIXES:
        raise DataError(f"ids cannot be read from {path}: {', '.join(ID_SUFFIXES)} were expected.")
    if suffix == ".npy":
        found: Any = read_npy(path, DataError, "Reading the ids").tolist()
    else:
        check_regular(path, DataError, "Reading the ids")
        check_sparse(path, DataError)
        if suffix == ".json":
            found = json.loads(path.read_text(encoding="utf-8"))
        else:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            found = [int(line) for line in lines] if all(map(_is_integer, lines)) else lines
    if not isinstance(found, list):
        raise DataError(f"{path} holds a {type(found).__name__}; a list with one id per row was expected.")
    # What is no id is said here, where the file is known; the source would speak of ids=.
    given_ids(found, f"Reading the ids {path}: it")
    return found


def random_rows(shapes: Shapes, dtypes: Dtypes, rows: int = RANDOM_ROWS) -> Any:
    """Made-up rows: normal numbers, integers from 0 to 9, or truth values; the same ones each time.

    Args:
        shapes: Name, or ``None``, and shape of one row, per input.
        dtypes: Likewise: one for all inputs, one per input in order, or by name. float32 where left out.
        rows: How many.

    Returns:
        One array (rows, …), a tuple of them, or a dict where the inputs have names.
    """
    names = [n for n, _ in shapes]
    if any(names) and (None in names or len(set(names)) < len(names)):
        raise click.UsageError("--input-shape: either every input has a name of its own, or none has.")
    rng = np.random.default_rng(_SEED)
    arrays = [_random(rng, (rows, *shape), d) for (_, shape), d in zip(shapes, _dtypes(names, dtypes), strict=True)]
    if any(names):
        return dict(zip(names, arrays, strict=True))
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def _random(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    kind = np.dtype(dtype).kind
    if kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2 if kind == "b" else _LARGEST_INTEGER + 1, shape).astype(dtype)


def _dtypes(names: Sequence[str | None], dtypes: Dtypes) -> list[str]:
    given = {n: d for n, d in dtypes if n is not None}
    plain = [d for n, d in dtypes if n is None]
    unknown = sorted(set(given) - set(names) - {None})
    if unknown:
        raise click.UsageError(f"--input-dtype: no --input-shape has the name {unknown[0]!r}.")
    if len(plain) > 1 and len(plain) != len(names):
        raise click.UsageError(
            f"--input-dtype was given {len(plain)} times; once, or {len(names)} times, was expected."
        )
    default = plain * len(names) if len(plain) == 1 else plain or ["float32"] * len(names)
    return [given.get(n, d) if n is not None else d for n, d in zip(names, default, strict=True)]


def _is_integer(text: str) -> bool:
    try:
        return str(int(text)) == text
    except ValueError:
        return False
