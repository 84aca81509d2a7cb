"""Rows into batches: the one place that cuts, stacks and counts rows, and says which row failed.

Sources give a stream of items, readable rows and unreadable ones, in order; what comes out are the batches of the
contract, whose borders are multiples of the size asked for.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..contracts.batch import Array, BadRow, Batch, OwnInputs, join_arrays
from ..contracts.options import OnError
from ..control.run_control import current
from ..errors import DataError
from .annotations import RowAnnotations


@dataclass(frozen=True)
class ReadRows:
    """Consecutive readable rows: arrays (n, …) by name, and the labels that they carry, (n, …), or ``None``."""

    inputs: dict[str, Array]
    labels: Array | None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def cut(self, start: int, stop: int) -> ReadRows:
        """Return rows `start` to `stop`, as views."""
        if start == 0 and stop == len(self):
            return self
        labels = None if self.labels is None else self.labels[start:stop]
        return ReadRows({k: a[start:stop] for k, a in self.inputs.items()}, labels)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of one row, by input."""
        return {name: a.shape[1:] for name, a in self.inputs.items()}


@dataclass(frozen=True)
class Unreadable:
    """One row that could not be read; after a `last` one nothing comes any more, whatever `on_error` says."""

    error: Exception
    last: bool = False


Item = ReadRows | Unreadable


@dataclass
class Batcher:
    """Makes batches of one stream of a source's items.

    Attributes:
        annotations: Ids, and labels that are known up front.
        on_error: As in `DataOptions`.
        first: The source's first readable row, whose names and dtypes the others take; ``None`` if there is none.
        allow_shape_change: Whether shapes may change between batches (loaders that pad each batch); else that is an error.
        hint: What to do about rows of unequal shape, for the message.
    """

    annotations: RowAnnotations
    on_error: OnError
    first: ReadRows | None
    allow_shape_change: bool = False
    hint: str = "Make them equal with transform=, or pad them."
    # The batch that is being filled: the position after its last row, that of the first it accounts for, and its rows.
    _position: int = 0
    _begin: int = 0
    _rows: list[tuple[int, ReadRows]] = field(default_factory=list)
    _bad: list[BadRow] = field(default_factory=list)

    def batches(
        self, items: Iterable[Item], size: int, *, position: int = 0, start: int = 0
    ) -> Generator[Batch, None, int]:
        """Yield the batches of a stream of items, and return the position after its last row.

        Args:
            items: The rows, in order.
            size: Batches end at multiples of it.
            position: The position of the first item's first row.
            start: Rows before it are left out; borders stay the same.
        """
        self._position = self._begin = position
        control = current()
        for item in items:
            control.check("while a row was being read")
            # A row that cannot be read ends the run, or is one of the batch's bad rows.
            if isinstance(item, Unreadable):
                if item.last or self.on_error == "fail":
                    yield from self._close()
                    raise self._row_error(item)
                if self._position >= start:
                    self._add_bad(self._position, describe_failure(item.error))
                self._advance(1)
                if self._position % size == 0:
                    yield from self._close()
                continue
            # Rows before the start are passed over; the others fill one batch after another.
            count = len(item)
            offset = min(count, max(0, start - self._position))
            self._advance(offset)
            if self.allow_shape_change and not self._fits(item):
                yield from self._close()
            while offset < count:
                stop = min(count, offset + size - self._position % size)
                self._rows.append((self._position, item.cut(offset, stop)))
                self._position += stop - offset
                offset = stop
                if self._position % size == 0:
                    yield from self._close()
        yield from self._close()
        return self._position

    def peek(self, items: Iterator[Item], n: int) -> Batch:
        """Return the first `n` readable rows; fewer if a row fails or, with `allow_shape_change`, if the shape changes."""
        batch = next(self.batches(take_rows(items, n), 1 << 62), None)
        # The model may work in place on inputs that are its own, and these are looked at again and again.
        return self._stack(0, [], []) if batch is None else replace(batch, inputs=dict(batch.inputs))

    def _stack(self, begin: int, rows: list[tuple[int, ReadRows]], bad: list[BadRow]) -> Batch:
        """Return the batch, which accounts for the rows from `begin` on, of rows that fit each other and of bad ones."""
        # A batch without rows has the names, dtypes and shapes of the first row.
        if not rows and self.first is not None:
            rows = [(begin, self.first.cut(0, 0))]
        positions = np.concatenate([np.empty(0, np.int64), *(np.arange(p, p + len(r)) for p, r in rows)])
        # Inputs of one piece are views, which may be the user's own arrays.
        inputs: dict[str, Array] = OwnInputs() if len(rows) > 1 else {}
        models = {} if self.first is None else self.first.inputs
        for name, array in rows[0][1].inputs.items() if rows else ():
            # `_find_misfit` has made sure that the first row's dtype holds every value.
            inputs[name] = join_arrays([part.inputs[name] for _, part in rows], models.get(name, array).dtype)
        labels = self.annotations.labels_at(positions, self._carried_labels(rows))
        return Batch(self.annotations.ids_at(positions), inputs, labels, begin, tuple(bad))

    def _carried_labels(self, rows: list[tuple[int, ReadRows]]) -> Array | None:
        if self.annotations.labels is not None or not rows:
            return None
        expected = self.first is not None and self.first.labels is not None
        labels = [part.labels for _, part in rows]
        for (position, _), label in zip(rows, labels, strict=True):
            if (label is not None) != expected:
                has, others_have = ("no label", "has one") if expected else ("a label", "has none")
                raise DataError(
                    f"{self._describe_row(position)} has {has}, while the first row {others_have}. Give a label for "
                    "every row, or labels=.",
                    position=position,
                )
            if label is not None and labels[0] is not None and label.shape[1:] != labels[0].shape[1:]:
                raise DataError(
                    f"{self._describe_row(position)} has a label of shape {label.shape[1:]} where the others have "
                    f"{labels[0].shape[1:]}; labels that are no class: one integer per row was expected.",
                    position=position,
                )
        return np.concatenate([label for label in labels if label is not None]) if expected else None

    def _row_error(self, item: Unreadable) -> DataError:
        message = f"{self._describe_row(self._position)}: {describe_failure(item.error)}"
        if item.last and not isinstance(item.error, DataError):
            message += (
                ". What has raised while it was iterated over cannot go on, whatever on_error= says; give data that "
                "can be indexed (with __getitem__ and __len__), or catch the error where the rows are made."
            )
        elif not isinstance(item.error, DataError) or item.error.__cause__ is not None:
            message = message.rstrip(".")
            message += ". Mend the row, or go past such rows with on_error='skip' or on_error='record'."
        error = DataError(message, position=self._position)
        error.__cause__ = item.error
        return error

    def _describe_row(self, position: int) -> str:
        """Return a row as messages call it."""
        try:
            return f"row {position} (id {self.annotations.id_at(position)!r})"
        except DataError:
            return f"row {position}"

    def _find_misfit(self, rows: ReadRows, shapes: Mapping[str, tuple[int, ...]]) -> str | None:
        """Return why `rows` cannot be stacked with rows of these shapes; ``None`` if they can."""
        if rows.inputs.keys() != shapes.keys():
            return f"has the inputs {', '.join(rows.inputs)} where the others have {', '.join(shapes)}"
        for name, array in rows.inputs.items():
            if array.shape[1:] != shapes[name]:
                what = "" if len(shapes) == 1 else f" in input {name!r}"
                return f"has the shape {array.shape[1:]}{what} where the others have {shapes[name]} (ragged rows)"
            if self.first is not None and name in self.first.inputs:
                dtype = self.first.inputs[name].dtype
                if not _holds_values(dtype, array):
                    return f"has the dtype {array.dtype} where the first row has {dtype}, which cannot hold it"
        return None

    # --- the batch whose rows wait

    def _advance(self, n: int) -> None:
        """Go on by `n` rows; a batch that holds none yet begins after them."""
        self._position += n
        if not self._rows and not self._bad:
            self._begin = self._position

    def _add_bad(self, position: int, reason: str) -> None:
        self._bad.append(BadRow(position, self.annotations.id_at(position), reason))

    def _fits(self, rows: ReadRows) -> bool:
        """Return whether rows have the shapes of those that wait."""
        shapes = self._rows[0][1].shapes if self._rows else {}
        return all(shape == shapes.get(name, shape) for name, shape in rows.shapes.items())

    def _close(self) -> Iterator[Batch]:
        """Yield the batch, unless it is empty, and begin the next one. Rows that do not fit are bad, or an error."""
        begin, rows, bad = self._begin, self._rows, self._bad
        if rows or bad:
            shapes = self._usual_shapes()
            fitting: list[tuple[int, ReadRows]] = []
            for position, part in rows:
                misfit = self._find_misfit(part, shapes)
                if misfit is None:
                    fitting.append((position, part))
                    continue
                reason = f"{misfit}. {self.hint}"
                if self.on_error == "fail" or len(part) > 1:
                    if fitting:
                        yield self._stack(begin, fitting, [b for b in bad if b.position < position])
                    raise DataError(f"{self._describe_row(position)} {reason}", position=position)
                self._add_bad(position, reason)
            self._rows, self._bad, self._begin = [], [], self._position
            yield self._stack(begin, fitting, sorted(bad, key=lambda b: b.position))

    def _usual_shapes(self) -> dict[str, tuple[int, ...]]:
        # If bad rows are left out, the odd one must not be the measure of the others just for coming first.
        first = self.first
        if first is not None and self.on_error != "fail" and any(part.shapes == first.shapes for _, part in self._rows):
            return first.shapes
        return self._rows[0][1].shapes if self._rows else {}


def take_rows(items: Iterator[Item], n: int, *, count_unreadable: bool = False) -> Iterator[Item]:
    """Yield the first `n` rows of a stream, and read no further; unreadable ones count only with `count_unreadable`."""
    while n > 0 and (item := next(items, None)) is not None:
        if isinstance(item, Unreadable):
            yield item
            n -= count_unreadable
        else:
            yield item.cut(0, min(n, len(item)))
            n -= len(item)


def stack_like(first: ReadRows | None, items: Iterable[Item]) -> dict[str, Array]:
    """Return the inputs of those rows that have the names, shapes and dtypes of the first one; none if there are none."""
    control = current()
    fitting = []
    for item in items:
        control.check("while a row was being read")
        if first is None or not isinstance(item, ReadRows) or item.shapes != first.shapes:
            continue
        if all(_holds_values(first.inputs[name].dtype, array) for name, array in item.inputs.items()):
            fitting.append(item.inputs)
    if first is None or not fitting:
        return {}
    return {name: join_arrays([inputs[name] for inputs in fitting], a.dtype) for name, a in first.inputs.items()}


def describe_failure(error: Exception) -> str:
    """Return why a row could not be read, in the words of what was raised."""
    if isinstance(error, DataError):
        return str(error)
    # A loader's worker sends its whole traceback as the message; what was raised is its last line.
    message = str(error)
    if "Original Traceback" in message:
        message = message.strip().splitlines()[-1]
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _holds_values(dtype: np.dtype[Any], array: Array) -> bool:
    if array.dtype == dtype or np.can_cast(array.dtype, dtype, "safe") or array.dtype.kind == "U" == dtype.kind:
        return True
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        return False
    # Within integers a value may not fit; within floats a loss of precision is all that happens.
    return dtype.kind == "f" or np.array_equal(array.astype(dtype), array)
