"""Labels: one class per row, as integers, from wherever they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..array_files import read_npy
from ..errors import DataError, DataNotFoundError
from ..limits import check_regular, check_sparse
from ..protocols import Array
from .file_errors import naming

LABEL_SUFFIXES = (".npy", ".json", ".txt", ".csv")
_HEADERS = ("label", "labels", "y", "target", "targets", "class", "classes")


@dataclass(frozen=True)
class Labels:
    """Labels that are known up front.

    Attributes:
        values: (n,) int64, none below 0.
        class_names: What the numbers count, where labels were text: the names, sorted.
        what: How messages call them.
    """

    values: NDArray[np.int64]
    class_names: tuple[str, ...] | None = None
    what: str = "labels="

    def at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The labels of the rows at `positions`, which ascend."""
        if len(positions) and positions[-1] >= len(self.values):
            raise DataError(
                f"{self.what} has {len(self.values)} entries, but the data have more rows: one per row was expected.",
                position=len(self.values),
            )
        return self.values[positions]


def check_text(text: str, what: str, cure: str) -> None:
    """Raises a `DataError` for text that no file of results can hold: lone surrogates."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise DataError(f"{what} is no text in UTF-8, which results are written in; {cure}") from err


def _is_one_hot(values: Array) -> bool:
    if values.ndim != 2 or values.shape[1] < 2 or values.dtype.kind not in "biuf":
        return False
    return bool(((values == 0) | (values == 1)).all() and (values.sum(axis=1) == 1).all())


def class_labels(values: Array, positions: Array | None = None, *, streamed: bool = False) -> NDArray[np.int64]:
    """Labels as classes.

    Args:
        values: (n,) or (n, 1): integers, bools, or floats that are integral; or one-hot rows (n, k).
        positions: (n,) the rows' positions, for messages; counted from 0 where left out.
        streamed: Whether more labels follow, so that names cannot be numbered.

    Returns:
        (n,) int64.

    Raises:
        DataError: Soft labels, fractions, NaN, negative numbers, text; names the row.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    elif _is_one_hot(values):
        values = values.argmax(axis=1)
    if values.ndim != 1:
        raise DataError(
            f"labels that are no class: an array of shape {values.shape} was found, one integer per row was expected. "
            "For soft labels give labels=rows.argmax(axis=1), or leave them out with labels=False.",
            position=None if positions is None or not len(positions) else int(positions[0]),
        )
    if values.dtype.kind in "US" and streamed:
        advice = "Text can be numbered only when all labels are known: give labels=, or integers."
        raise _no_class(values, positions, 0, advice)
    if values.dtype.kind == "O":
        odd = next((i for i, v in enumerate(values) if not isinstance(v, int | float | np.number | np.bool_)), None)
        if odd is not None:
            raise _no_class(values, positions, odd)
        values = values.astype(np.float64)
    if values.dtype.kind not in "biuf":
        if len(values):
            raise _no_class(values, positions, 0)
        return np.empty(0, dtype=np.int64)
    with np.errstate(invalid="ignore"):
        classes = values.astype(np.int64)
    wrong = np.flatnonzero((classes != values) | (classes < 0))
    if len(wrong):
        raise _no_class(values, positions, int(wrong[0]))
    return classes


def _no_class(values: Array, positions: Array | None, i: int, advice: str = "") -> DataError:
    position = int(positions[i]) if positions is not None else i
    found = values[i].item() if isinstance(values[i], np.generic) else values[i]
    message = f"labels that are no class: row {position} has the label {found!r}; an integer from 0 on was expected."
    return DataError(f"{message} {advice}".rstrip(), position=position)


def known_labels(values: Array, what: str = "labels=") -> Labels:
    """Labels that are all known: integers as they are, text numbered by its sorted names.

    Args:
        values: (n,) or (n, 1).
        what: How messages call them.
    """
    flat = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if flat.ndim == 1 and len(flat) and (flat.dtype.kind == "U" or all(isinstance(v, str) for v in flat[:1])):
        odd = next((i for i, v in enumerate(flat.tolist()) if not isinstance(v, str)), None)
        if odd is not None:
            raise _no_class(flat, None, odd, "The labels before it are text.")
        if all(v.isascii() and v.isdecimal() for v in flat.tolist()):
            # Numbers as text are numbers: sorted as text, 10 would come before 2.
            return Labels(class_labels(_integers(flat)), None, what)
        # numpy's own text would make each label as wide as the longest.
        names = sorted(set(flat.tolist()))
        for name in names:
            check_text(name, f"{what} holds {name!r}, which", "give other names.")
        numbers = {name: i for i, name in enumerate(names)}
        codes = np.fromiter((numbers[v] for v in flat.tolist()), np.int64, len(flat))
        return Labels(codes, tuple(names), what)
    return Labels(class_labels(values), None, what)


def given_labels(labels: Any, what: str = "labels=") -> Labels:
    """What the user gave as labels: an array, a sequence, or a file of them.

    Args:
        labels: An array or a sequence of integers or text, or the path of a `.npy`, `.json` (a list), `.txt` (one label
            per line) or `.csv` file (one column).
        what: How messages call them.

    Raises:
        DataNotFoundError: There is no such file.
        DataError: They are no labels.
    """
    if isinstance(labels, str | Path):
        path = Path(labels)
        with naming(path, "Reading the labels"):
            return known_labels(_read(path), what)
    if hasattr(labels, "detach"):
        labels = labels.detach().cpu()
    try:
        values = np.asarray(labels)
    except (ValueError, TypeError) as err:
        raise DataError(f"{what} cannot be made one array: {err}. One integer per row was expected.") from err
    if values.ndim == 0:
        raise DataError(f"{what} is a {type(labels).__name__}; one integer per row or a file's path was expected.")
    if isinstance(labels, list | tuple) and values.dtype.kind == "U":
        values = np.array(labels, dtype=object)  # numpy would have made text of integers among text
    return known_labels(values, what)


def _read(path: Path) -> Array:
    if not path.exists():
        raise DataNotFoundError(f"there is no file of labels at {path}.")
    suffix = path.suffix.lower()
    if suffix not in LABEL_SUFFIXES:
        raise DataError(f"labels cannot be read from {path}: {', '.join(LABEL_SUFFIXES)} were expected.")
    if suffix == ".npy":
        return read_npy(path, DataError, "Reading the labels")
    check_regular(path, DataError, "Reading the labels")
    check_sparse(path, DataError)
    return _from_json(path) if suffix == ".json" else _from_lines(path, suffix)


def _from_json(path: Path) -> Array:
    import json

    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, list):
        raise DataError(f"{path} holds a JSON {type(found).__name__}; a list with one label per row was expected.")
    return np.array(found, dtype=object)


def _from_lines(path: Path, suffix: str) -> Array:
    import csv
    import io

    text = path.read_text(encoding="utf-8-sig")
    if suffix == ".csv":
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
        wide = next((i for i, row in enumerate(rows) if len(row) != 1), None)
        if wide is not None:
            raise DataError(f"line {wide + 1} of {path} has {len(rows[wide])} columns; one, of labels, was expected.")
        lines = [row[0].strip() for row in rows]
        head, rest = lines[:1], lines[1:]
        if head and (head[0].lower() in _HEADERS or (rest and not _is_int(head[0]) and all(map(_is_int, rest)))):
            lines = rest
    else:
        lines = [line.strip() for line in text.splitlines()]
        empty = next((i for i, line in enumerate(lines) if not line), None)
        if empty is not None:
            raise DataError(f"line {empty + 1} of {path} is empty; one label per line was expected.")
    if all(map(_is_int, lines)):
        return _integers(np.array([int(line) for line in lines], dtype=object))
    return np.array(lines, dtype=object)


def _integers(values: Array) -> NDArray[np.int64]:
    """Python's integers, or text of them, as int64."""
    try:
        return values.astype(np.int64)
    except (OverflowError, ValueError) as err:
        odd, text = next((i, str(v)) for i, v in enumerate(values.tolist()) if not _fits_64_bits(str(v)))
        message = f"labels that are no class: row {odd} has the label {text[:40]}; an integer of 64 bits was expected."
        raise DataError(message, position=odd) from err


def _fits_64_bits(digits: str) -> bool:
    # Python refuses to make numbers of texts of thousands of digits.
    return len(digits.lstrip("0")) < 25 and -(2**63) <= int(digits) < 2**63


def _is_int(text: str) -> bool:
    try:
        int(text)
    except ValueError:
        return False
    return True
