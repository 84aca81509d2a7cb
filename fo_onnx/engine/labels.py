"""Labels of the data as columns of the model: by name, by a class's own number, else by position."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Batch
from ..contracts.source import Source
from ..contracts.spec import ModelSpec
from ..errors import DataError
from ..runtime.opened import OpenedModel

Labels = NDArray[np.int64]


class LabelMapper:
    """Maps the labels of batches to columns."""

    def __init__(self, source: Source, spec: ModelSpec) -> None:
        """Compare the class names of the data with those of the model.

        Raises:
            DataError: The data has a class that the model has not.
        """
        assert spec.classes is not None
        self._classes = spec.classes
        self._columns = columns_of_names(source.class_names, spec.class_names)
        # Labels of scikit-learn say a class by its own number, if the classes are called by numbers.
        is_numbered = spec.framework == "sklearn" and source.class_names is None
        self._numbers = numbers_of_classes(spec.class_names) if is_numbered else None

    def map(self, batch: Batch) -> Labels | None:
        """Return the labels of a batch as columns (n,); ``None`` if it has none.

        Raises:
            DataError: One is no class; its row is named.
        """
        labels = columns = batch.labels
        if labels is None or len(labels) == 0:
            return labels
        if self._numbers is not None:
            order = np.argsort(self._numbers)
            nearest = np.minimum(np.searchsorted(self._numbers, labels, sorter=order), len(order) - 1)
            columns = order[nearest]
            is_wrong = self._numbers[columns] != labels
        else:
            labels = columns = labels if self._columns is None else self._columns[labels]
            is_wrong = labels >= self._classes
        if is_wrong.any():
            row = int(np.argmax(is_wrong))
            classes = f"the model has {self._classes} classes, 0 to {self._classes - 1}"
            if self._numbers is not None:
                classes = f"the model's classes are {', '.join(map(str, self._numbers))}"
            raise DataError(
                f"row with id {plain_id(batch.ids[row])!r}: its label {int(labels[row])} is no class; {classes}.",
                position=batch_positions(batch)[row],
            )
        return columns


def adopt_class_names(opened: OpenedModel, source: Source) -> OpenedModel:
    """Give a model that names no classes the names of the data's, if their order is that of columns.

    Raises:
        DataError: Which column is which cannot be known, or the data has a class that the model has not.
    """
    names, spec = source.class_names, opened.spec
    if names is None or spec.class_names is not None:
        columns_of_names(names, spec.class_names)
        return opened
    if not source.columns_named or spec.classes != len(names):
        raise DataError(
            f"the labels are names of {len(names)} classes ({', '.join(map(repr, names[:10]))}{', …' if len(names) > 10 else ''}), "
            f"and {spec.name} does not name its {spec.classes}, so that which column is which cannot be determined. Say it with "
            "class_names=, in the order of the columns."
        )
    return replace(opened, spec=replace(spec, class_names=names))


def numbers_of_classes(names: tuple[str, ...] | None) -> Labels | None:
    """Return the numbers that a model's classes are called by; ``None`` if they are texts, or just 0, 1, 2 and so on."""
    if names is None or not all(n.removeprefix("-").isdecimal() for n in names):
        return None
    numbers = np.asarray([int(n) for n in names], np.int64)
    return None if np.array_equal(numbers, np.arange(len(numbers))) else numbers


def columns_of_names(data_names: tuple[str, ...] | None, model_names: tuple[str, ...] | None) -> Labels | None:
    """Return the model's column for each class of the data; ``None`` if their order is the same, or one names none.

    Raises:
        DataError: The data has a class that the model has not.
    """
    if data_names is None or model_names is None or data_names == model_names:
        return None
    unknown = [n for n in data_names if n not in model_names]
    if unknown:
        raise DataError(
            f"the data has the class(es) {', '.join(map(repr, unknown))}, which the model has not; its classes are "
            f"{', '.join(map(repr, model_names))}. Name them alike with class_names= or in the data."
        )
    return np.asarray([model_names.index(n) for n in data_names], np.int64)


def plain_id(row_id: Any) -> int | str:
    """Return an id as Python's own type."""
    return cast("int | str", row_id.item() if isinstance(row_id, np.generic) else row_id)


def batch_positions(batch: Batch) -> list[int]:
    """Return the position of each row that a batch holds."""
    unreadable = {b.position for b in batch.bad}
    return [p for p in range(batch.start, batch.stop) if p not in unreadable]
