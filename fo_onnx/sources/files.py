"""Data in files: the border at which every error of one names it, and files of labels."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Array
from ..errors import DataError, DataNotFoundError, reading
from ..guards.array_files import read_npy
from ..guards.limits import check_regular, check_sparse
from .label_finder import LABEL_KEYS

LABEL_SUFFIXES = (".npy", ".json", ".txt", ".csv")
_HEADERS = (*LABEL_KEYS, "class", "classes")


@contextmanager
def reading_data(path: str | os.PathLike[str], doing: str = "Reading", position: int | None = None) -> Iterator[None]:
    """Do as `fo_onnx.errors.reading`, and name the file also in errors of its content, such as unusable labels.

    `position` is that of the row at fault, for errors that name none.
    """
    try:
        with reading(path, DataError, doing):
            yield
    except DataError as err:
        message = str(err.args[0])
        err.position = position if err.position is None else err.position
        if os.fspath(path) in message:
            raise
        raise type(err)(f"{doing} {path}: {message}", position=err.position) from err


def read_label_file(path: Path) -> Array:
    """Return the labels in a file as they stand there: numbers, or text as objects.

    Raises:
        DataNotFoundError: There is no such file.
        DataError: Another suffix, no regular file, or not one label per row.
        Exception: What `reading_data` catches, for a damaged file.
    """
    if not path.exists():
        raise DataNotFoundError(f"there is no file of labels at {path}.")
    suffix = path.suffix.lower()
    if suffix not in LABEL_SUFFIXES:
        raise DataError(f"labels cannot be read from {path}: {', '.join(LABEL_SUFFIXES)} were expected.")
    if suffix == ".npy":
        return read_npy(path, DataError, "Reading the labels")
    check_regular(path, DataError, "Reading the labels")
    check_sparse(path, DataError)
    if suffix == ".json":
        labels = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(labels, list):
            raise DataError(f"{path} holds a JSON {type(labels).__name__}; a list with one label per row was expected.")
        return np.array(labels, dtype=object)
    text = path.read_text(encoding="utf-8-sig")
    lines = _column_of_csv(path, text) if suffix == ".csv" else [line.strip() for line in text.splitlines()]
    empty = next((i for i, line in enumerate(lines) if not line), None)
    if empty is not None and suffix == ".txt":
        raise DataError(f"line {empty + 1} of {path} is empty; one label per line was expected.")
    return to_integers(lines) if all(map(_is_integer, lines)) else np.array(lines, dtype=object)


def _column_of_csv(path: Path, text: str) -> list[str]:
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    wide = next((i for i, row in enumerate(rows) if len(row) != 1), None)
    if wide is not None:
        raise DataError(f"line {wide + 1} of {path} has {len(rows[wide])} columns; one, of labels, was expected.")
    cells = [row[0].strip() for row in rows]
    # A header is a word that labels are called by, or the only cell that is no number.
    first, rest = cells[:1], cells[1:]
    if first and (first[0].lower() in _HEADERS or (rest and not _is_integer(first[0]) and all(map(_is_integer, rest)))):
        return rest
    return cells


def to_integers(texts: list[str]) -> NDArray[np.int64]:
    """Return integers that are written as Python reads them. Raise a `DataError` for one of more than 64 bits."""
    # Python refuses to make numbers of texts of thousands of digits.
    odd = next((i for i, t in enumerate(texts) if len(t.lstrip("0")) > 24 or not -(2**63) <= int(t) < 2**63), None)
    if odd is None:
        return np.array([int(text) for text in texts], dtype=np.int64)
    raise DataError(
        f"labels that are no class: row {odd} has the label {texts[odd][:40]}; an integer of 64 bits was expected.",
        position=odd,
    )


def _is_integer(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return text.isdecimal()  # of thousands of digits, which Python makes no number of
    return True
