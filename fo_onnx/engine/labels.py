"""Labels of the data as columns of the model: by name wherever the classes have names, else by the column's number.

The one rule, in docs/api.md: text is matched with the names of the model's classes, and so are integers if the data say what
they count (class folders, Hugging Face's `ClassLabel`), or if the names are whole numbers (`-1` and `1`). Other integers
count the columns; they are refused where the model was trained on text, unless `class_names=` states the order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Batch
from ..contracts.source import Source
from ..contracts.spec import ModelSpec
from ..errors import DataError
from ..runtime.opened import OpenedModel
from ..runtime.tuning import first_rows

Labels = NDArray[np.int64]
TRAINED_ON_NAMES = ("sklearn", "onnx")
"""Frameworks whose models name the classes that they were fitted on (`classes_`, ZipMap); those of others are named afterwards."""
CHECKED_ROWS = 1 << 16
"""Labels that are checked at a time before a run begins."""
MOST_COLUMNS_AHEAD = 1 << 16
"""Integers whose columns are looked up once for all rows."""


class LabelMapper:
    """Maps the labels of batches to columns."""

    def __init__(self, source: Source, spec: ModelSpec, *, order_stated: bool = False) -> None:
        """Take the class names of the data and of the model; `order_stated` says that the caller named the columns.

        Raises:
            DataError: The data has a class that the model has not.
        """
        assert spec.classes is not None
        self._spec, self._data_names = spec, source.class_names
        refuse_unknown_names(source.class_names, spec.class_names)
        names = spec.class_names or ()
        self._columns = {name: column for column, name in enumerate(names)}
        self._numbers = numbers_of_classes(names)
        self._refuses_integers = (
            bool(names) and self._numbers is None and spec.framework in TRAINED_ON_NAMES and not order_stated
        )

        # The columns of the first integers, for most labels of most data; −1 where one is no class.
        count = len(self._data_names or ()) or min(max(self._numbers or (spec.classes,)) + 1, MOST_COLUMNS_AHEAD)
        columns = [self._find_column(self._name_class(label)) for label in range(count)]
        self._table = np.array([-1 if column is None else column for column in columns], np.int64)

    def check(self, source: Source) -> None:
        """Map all labels that are known before the run begins, and those of the first rows.

        Raises:
            DataError: One is no class.
        """
        if not self._spec.classes:  # no row says how many there are
            return
        for batch in _annotated_batches(source):
            self.map(batch)
        self.map(first_rows(source))

    def map(self, batch: Batch) -> Labels | None:
        """Return the labels of a batch as columns (n,); ``None`` if it has none.

        Raises:
            DataError: One is no class; its row is named.
        """
        if batch.labels is None:
            return None
        if batch.labels.dtype.kind == "i" and self._are_within_table(batch.labels):
            return self._table[batch.labels]
        # Each label that occurs is looked up once.
        labels, rows, inverse = np.unique(batch.labels, return_index=True, return_inverse=True)
        classes = [self._name_class(label) for label in labels.tolist()]
        columns = [self._find_column(label) for label in classes]
        if None in columns:
            row, label = min(
                (r, c) for r, c, column in zip(rows.tolist(), classes, columns, strict=True) if column is None
            )
            raise DataError(
                f"row with id {plain_id(batch.ids[row])!r}: its label {label!r} is {self._say_why(label)}",
                position=batch_positions(batch)[row],
            )
        return np.asarray(columns, np.int64)[inverse]

    def _are_within_table(self, labels: Labels) -> bool:
        is_inside = (labels >= 0) & (labels < len(self._table))
        return bool(is_inside.all() and (self._table[labels] >= 0).all())

    def _name_class(self, label: int | str) -> int | str:
        """Return the name that the data have for a label, if they have one."""
        names = self._data_names
        return names[label] if names is not None and isinstance(label, int) and 0 <= label < len(names) else label

    def _find_column(self, label: int | str) -> int | None:
        if isinstance(label, int) and self._data_names is not None:
            return None  # it counts none of them
        if isinstance(label, str):
            if self._spec.class_names is not None:
                return self._columns.get(label)
            if not is_whole_number(label):
                return None
            label = int(label)
        if self._refuses_integers:
            return None
        if self._numbers is not None:
            return self._numbers.get(label)
        return label if 0 <= label < cast(int, self._spec.classes) else None

    def _say_why(self, label: int | str) -> str:
        """Return why a label is no class, and what to do."""
        spec, names = self._spec, self._spec.class_names
        if isinstance(label, str) and names is None and not is_whole_number(label):
            return (
                f"the name of a class, and {spec.name} does not name its {spec.classes}, so that which column is meant cannot be "
                "determined. Say it with class_names=, in the order of the columns, or leave the labels out with labels=False."
            )
        if isinstance(label, int) and self._data_names is not None:
            classes = f"the data has {len(self._data_names)} classes, 0 to {len(self._data_names) - 1}"
        elif isinstance(label, int) and self._refuses_integers:
            return (
                f"an integer, and {spec.name} was trained on classes that are called {_list_names(names)}, so that which one is "
                "meant cannot be determined. Give the labels by name; or, if they count the classes in this order, say so with "
                "class_names=; or leave them out with labels=False."
            )
        elif names is not None and (isinstance(label, str) or self._numbers is not None):
            classes = f"the model's classes are called {_list_names(names)}"
        else:
            classes = f"the model has {spec.classes} classes, 0 to {cast(int, spec.classes) - 1}"
        hint = " If it stands for no label, leave the labels out with labels=False."
        return f"no class; {classes}.{hint if label in (-1, '-1', '') else ''}"


def adopt_class_names(opened: OpenedModel, source: Source) -> OpenedModel:
    """Give a model that names no classes the names of the data's, if their order is that of columns.

    Raises:
        DataError: Which column is which cannot be known, or the data has a class that the model has not.
    """
    names, spec = source.class_names, opened.spec
    if names is None or not source.has_labels:
        return opened
    if spec.class_names is not None:
        refuse_unknown_names(names, spec.class_names)
        return opened
    if source.columns_named and spec.classes == len(names):
        return replace(opened, spec=replace(spec, class_names=names))
    if not source.columns_named and all(map(is_whole_number, names)):
        return opened  # numbers of columns, written as text
    raise DataError(
        f"the labels are names of {len(names)} classes ({_list_names(names)}), and {spec.name} does not name its {spec.classes}, so "
        "that which column is which cannot be determined. Say it with class_names=, in the order of the columns; or give the "
        "columns' numbers with labels=; or leave the labels out with labels=False."
    )


def is_whole_number(name: str) -> bool:
    """Return whether the name of a class, or a label, is a whole number in digits."""
    return name.isascii() and name.removeprefix("-").isdecimal() and len(name) < 20


def numbers_of_classes(names: tuple[str, ...]) -> dict[int, int] | None:
    """Return the column of each number that a class is called by; ``None`` unless all are called by numbers, or True and False."""
    truth = {"False": 0, "True": 1}
    if not names or not all(n in truth or is_whole_number(n) for n in names):
        return None
    numbers = {truth[n] if n in truth else int(n): column for column, n in enumerate(names)}
    return numbers if len(numbers) == len(names) else None


def refuse_unknown_names(data_names: tuple[str, ...] | None, model_names: tuple[str, ...] | None) -> None:
    """Raise a `DataError` if the data names a class that the model has not."""
    unknown = [n for n in data_names or () if n not in (model_names or data_names or ())]
    if unknown:
        raise DataError(
            f"the data has the class(es) {_list_names(tuple(unknown))}, which the model has not; its classes are "
            f"{_list_names(model_names)}. Name them alike with class_names=, in this order, or in the data."
        )


def _annotated_batches(source: Source) -> Iterator[Batch]:
    """Yield ids and labels that are known without reading a row, as batches without inputs."""
    for start in range(0, source.length or 0, CHECKED_ROWS):
        ids, labels = source.annotations(start, min(start + CHECKED_ROWS, source.length or 0))
        if labels is None:
            return
        yield Batch(ids, {}, labels, start)


def _list_names(names: tuple[str, ...] | None) -> str:
    return f"{', '.join(map(repr, (names or ())[:10]))}{', …' if len(names or ()) > 10 else ''}"


def plain_id(row_id: Any) -> int | str:
    """Return an id as Python's own type."""
    return cast("int | str", row_id.item() if isinstance(row_id, np.generic) else row_id)


def batch_positions(batch: Batch) -> list[int]:
    """Return the position of each row that a batch holds."""
    unreadable = {b.position for b in batch.bad}
    return [p for p in range(batch.start, batch.stop) if p not in unreadable]
