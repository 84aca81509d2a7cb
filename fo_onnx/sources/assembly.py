"""Rows into batches: the one place that cuts, stacks, counts, and tells a row's failure.

Sources give a stream of items, readable rows and unreadable ones, in order; what comes out are the batches of the
contract, whose borders are multiples of the size asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..options import OnError
from ..protocols import Array, BadRow, Batch, OwnInputs
from ..run_control import current
from .beside import Beside


@dataclass(frozen=True)
class Rows:
    """Consecutive readable rows: arrays (n, …) by name, and their labels as they were found, (n,), or ``None``."""

    inputs: dict[str, Array]
    labels: Array | None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def cut(self, start: int, stop: int) -> Rows:
        """Rows `start` to `stop`, as views."""
        if start == 0 and stop == len(self):
            return self
        labels = None if self.labels is None else self.labels[start:stop]
        return Rows({k: a[start:stop] for k, a in self.inputs.items()}, labels)


@dataclass(frozen=True)
class Unreadable:
    """One row that could not be read; after a `last` one nothing comes any more, whatever `on_error` says."""

    error: Exception
    last: bool = False


Item = Rows | Unreadable


@dataclass(frozen=True)
class Assembly:
    """How a source's items become batches.

    Attributes:
        beside: Ids, and labels given beside the data.
        on_error: As in `DataOptions`.
        first: The source's first readable row, whose names and dtypes the others take; ``None`` if there is none.
        may_cut: Whether shapes may change between batches (loaders that pad each batch); else that is an error.
        hint: What to do about rows of unequal shape, for the message.
    """

    beside: Beside
    on_error: OnError
    first: Rows | None
    may_cut: bool = False
    hint: str = "Make them equal with transform=, or pad them."

    def batches(
        self,
        items: Iterable[Item],
        size: int,
        *,
        position: int = 0,
        start: int = 0,
        finish: Callable[[int], None] | None = None,
    ) -> Iterator[Batch]:
        """The batches of a stream of items.

        Args:
            items: The rows, in order.
            size: Batches end at multiples of it.
            position: The position of the first item's first row.
            start: Rows before it are left out; borders stay the same.
            finish: Called at the end with the number of rows seen.
        """
        pending = _Pending(self, position)
        control = current()
        for item in items:
            control.check("while a row was being read")
            if isinstance(item, Unreadable):
                if item.last or self.on_error == "fail":
                    yield from pending.flush()
                    raise self._row_error(pending.position, item)
                if pending.position >= start:
                    pending.add_bad(_reason(item.error))
                else:
                    pending.skip(1)
                if pending.position % size == 0:
                    yield from pending.flush()
                continue
            n = len(item)
            offset = min(n, max(0, start - pending.position))
            pending.skip(offset)
            if self.may_cut and not pending.fits(item):
                yield from pending.flush()
            while offset < n:
                take = min(size - pending.position % size, n - offset)
                pending.add(item.cut(offset, offset + take))
                offset += take
                if pending.position % size == 0:
                    yield from pending.flush()
        yield from pending.flush()
        if finish is not None:
            finish(pending.position)

    def peek(self, items: Iterable[Item], n: int) -> Batch:
        """The first `n` readable rows of a stream, fewer where a row fails or, with `may_cut`, the shape changes."""
        found: list[Batch] = []
        try:
            found.extend(self.batches(_until(items, n), 1 << 62))
        except DataError:
            if not found:
                raise
        # These are looked at again and again.
        return replace(found[0], inputs=dict(found[0].inputs)) if found else self.empty(0)

    def empty(self, position: int) -> Batch:
        """A batch of no rows."""
        if self.first is None:
            return self.batch(position, np.empty(0, np.int64), {}, None, ())
        inputs = {k: a[:0] for k, a in self.first.inputs.items()}
        labels = None if self.first.labels is None else np.empty(0, np.int64)
        return self.batch(position, np.empty(0, np.int64), inputs, labels, ())

    def batch(
        self,
        begin: int,
        positions: NDArray[np.int64],
        inputs: dict[str, Array],
        labels: Array | None,
        bad: tuple[BadRow, ...],
    ) -> Batch:
        """A batch of the rows at `positions`, with their ids and labels."""
        return Batch(self.beside.ids.at(positions), inputs, self.beside.labels_at(positions, labels), begin, bad)

    def _row_error(self, position: int, item: Unreadable) -> DataError:
        message = f"{self.name(position)}: {_reason(item.error)}"
        if item.last and not isinstance(item.error, DataError):
            message += (
                ". What has raised while it was iterated over cannot go on, whatever on_error= says; give data that "
                "can be indexed (with __getitem__ and __len__), or catch the error where the rows are made."
            )
        elif not isinstance(item.error, DataError) or item.error.__cause__ is not None:
            message = message.rstrip(".")
            message += ". Mend the row, or go past such rows with on_error='skip' or on_error='record'."
        error = DataError(message, position=position)
        error.__cause__ = item.error
        return error

    def name(self, position: int) -> str:
        """A row as messages call it."""
        try:
            return f"row {position} (id {self.beside.ids.one(position)!r})"
        except DataError:
            return f"row {position}"

    def misfit(self, rows: Rows, like: Mapping[str, tuple[int, ...]]) -> str | None:
        """Why `rows` cannot be stacked with rows of the shapes `like`; ``None`` where they can."""
        if rows.inputs.keys() != like.keys():
            return f"has the inputs {', '.join(rows.inputs)} where the others have {', '.join(like)}"
        for name, array in rows.inputs.items():
            if array.shape[1:] != like[name]:
                what = "" if len(like) == 1 else f" in input {name!r}"
                return f"has the shape {array.shape[1:]}{what} where the others have {like[name]} (ragged rows)"
            if self.first is not None and name in self.first.inputs:
                dtype = self.first.inputs[name].dtype
                if not _castable(array, dtype):
                    return f"has the dtype {array.dtype} where the first row has {dtype}, which cannot hold it"
        return None


class _Pending:
    """Rows that wait for their batch to be full."""

    def __init__(self, assembly: Assembly, position: int) -> None:
        self.assembly = assembly
        self.position = position
        self.begin = position
        self.rows: list[tuple[int, Rows]] = []
        self.bad: list[BadRow] = []

    def skip(self, n: int) -> None:
        self.position += n
        if not self.rows and not self.bad:
            self.begin = self.position

    def add(self, rows: Rows) -> None:
        self.rows.append((self.position, rows))
        self.position += len(rows)

    def add_bad(self, reason: str) -> None:
        self.bad.append(self._bad(self.position, reason))
        self.position += 1

    def fits(self, rows: Rows) -> bool:
        if not self.rows:
            return True
        like = _shapes(self.rows[0][1])
        return all(a.shape[1:] == like.get(k, a.shape[1:]) for k, a in rows.inputs.items())

    def flush(self) -> Iterator[Batch]:
        rows, bad, begin = self.rows, self.bad, self.begin
        self.rows, self.bad, self.begin = [], [], self.position
        if not rows and not bad:
            return
        if not rows:
            empty = self.assembly.empty(begin)
            yield Batch(empty.ids, empty.inputs, empty.labels, begin, tuple(bad))
            return
        like = self._like(rows)
        good: list[tuple[int, Rows]] = []
        for position, part in rows:
            why = self.assembly.misfit(part, like)
            if why is None:
                good.append((position, part))
                continue
            reason = f"{why}. {self.assembly.hint}"
            if self.assembly.on_error == "fail" or len(part) > 1:
                if good:
                    yield self._stack(begin, good, [b for b in bad if b.position < position])
                raise DataError(f"{self.assembly.name(position)} {reason}", position=position)
            bad.append(self._bad(position, reason))
        yield self._stack(begin, good, sorted(bad, key=lambda b: b.position))

    def _like(self, rows: list[tuple[int, Rows]]) -> dict[str, tuple[int, ...]]:
        # Where bad rows are left out, the odd one must not be the measure of the others just for coming first.
        found = _shapes(rows[0][1])
        first = self.assembly.first
        if self.assembly.on_error != "fail" and first is not None:
            usual = _shapes(first)
            if any(_shapes(part) == usual for _, part in rows):
                return usual
        return found

    def _bad(self, position: int, reason: str) -> BadRow:
        return BadRow(position, self.assembly.beside.ids.one(position), reason)

    def _stack(self, begin: int, rows: list[tuple[int, Rows]], bad: list[BadRow]) -> Batch:
        assembly = self.assembly
        positions = np.concatenate([np.arange(p, p + len(r), dtype=np.int64) for p, r in rows])
        inputs: dict[str, Array] = {}
        for name, array in rows[0][1].inputs.items():
            dtype = assembly.first.inputs[name].dtype if assembly.first is not None else array.dtype
            pieces = [r.inputs[name] for _, r in rows]
            # same_kind is what `misfit` has already made sure of, value by value for integers
            joined = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, dtype=dtype, casting="unsafe")
            inputs[name] = joined.astype(dtype, copy=False)
        if len(rows) > 1:
            inputs = OwnInputs(inputs)
        return assembly.batch(begin, positions, inputs, _labels(assembly, rows), tuple(bad))


def _labels(assembly: Assembly, rows: list[tuple[int, Rows]]) -> Array | None:
    if assembly.beside.labels is not None:
        return None
    expected = assembly.first is not None and assembly.first.labels is not None
    for position, part in rows:
        if (part.labels is not None) != expected:
            found, others = ("no label", "has one") if expected else ("a label", "has none")
            raise DataError(
                f"{assembly.name(position)} has {found}, while the first row {others}. Give a label for every row, or "
                "labels=.",
                position=position,
            )
    if not expected:
        return None
    parts = [r.labels for _, r in rows if r.labels is not None]
    shape = parts[0].shape[1:]
    for (position, _), labels in zip(rows, parts, strict=True):
        if labels.shape[1:] != shape:
            raise DataError(
                f"{assembly.name(position)} has a label of shape {labels.shape[1:]} where the others have {shape}; "
                "labels that are no class: one integer per row was expected.",
                position=position,
            )
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _until(items: Iterable[Item], n: int) -> Iterator[Item]:
    left = n
    if left <= 0:
        return
    for item in items:
        if isinstance(item, Unreadable):
            yield item
            continue
        yield item.cut(0, min(left, len(item)))
        left -= len(item)
        if left <= 0:
            return


def _shapes(rows: Rows) -> dict[str, tuple[int, ...]]:
    return {name: a.shape[1:] for name, a in rows.inputs.items()}


def _castable(array: Array, dtype: np.dtype[Any]) -> bool:
    if array.dtype == dtype or np.can_cast(array.dtype, dtype, "safe"):
        return True
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        return False
    # Within integers a value may not fit; within floats a loss of precision is all that happens.
    return dtype.kind == "f" or np.array_equal(array.astype(dtype), array)


def _reason(error: Exception) -> str:
    if isinstance(error, DataError):
        return str(error)
    # A loader's worker sends its whole traceback as the message; what was raised is its last line.
    lines = str(error).strip().splitlines()
    said = lines[-1] if "Original Traceback" in str(error) else str(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
