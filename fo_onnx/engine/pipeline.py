"""The way of the data: source, runners, sink; each batch is read, run and written once.

Here the rows that came to nothing are sorted out, labels are checked against the classes, and a run that fails or is
interrupted leaves its finished rows in the sink.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, DeviceError, FoOnnxError, RunError
from ..options import DataOptions, RunOptions
from ..probabilities import invalid_rows
from ..protocols import BadRow, Batch, Runner, RunOutput, Sink, Source
from ..run_control import RunControl, begin
from ..sources import read_ahead
from .binding import RowShapeError
from .fallback import warn_of_fallback
from .pool import Failure, run_in_threads, run_inline
from .progress import Progress

log = logging.getLogger("fo_onnx.engine")


@dataclass
class Outcome:
    """What a run came to.

    Attributes:
        written: Rows that were handed to the sink.
        bad: Rows that came to nothing.
        first_row_s: Seconds until the first rows were there; ``None`` where there were none.
        total_s: Seconds from the first batch read to the last one written.
        switched_at: Position from which on the native runner ran; ``None`` where it did not step in.
        reason: Why it did.
    """

    written: int = 0
    bad: int = 0
    first_row_s: float | None = None
    total_s: float = 0.0
    switched_at: int | None = None
    reason: str | None = None


class Pipeline:
    """One run over one source."""

    def __init__(
        self,
        runners: Sequence[Runner],
        source: Source,
        *,
        batch_size: int,
        start: int = 0,
        data: DataOptions,
        run: RunOptions,
        class_names: tuple[str, ...] | None = None,
        class_numbers: bool = False,
        bad_before: int = 0,
        native: Callable[[], Runner] | None = None,
        on_switch: Callable[[int, str], None] | None = None,
        progress: Progress | None = None,
        assumed: str | None = None,
        batches: Callable[[int, int], Iterator[Batch]] | None = None,
    ) -> None:
        """Sets a run up.

        Args:
            runners: Those that run batches, side by side.
            source: Rows in.
            batch_size: Rows per batch.
            start: Position of the first row to run.
            data: What happens to bad rows.
            run: Limits of the run.
            class_names: The model's, to which the source's labels are matched by name.
            class_numbers: Whether names that are numbers are those that the rows' labels count by, as scikit-learn's are.
            bad_before: Bad rows of the part of the run that is gone on with.
            native: Gives the native runner that steps in where an ONNX runner fails on the way.
            on_switch: Told the position and the reason when it does.
            progress: Told of finished rows.
            assumed: What the model's output was taken for, where nobody said what it is.
            batches: What gives the batches of a size from a position on, where that is not the source itself.
        """
        self._runners, self._source = runners, source
        self._read = batches or source.batches
        self._batch_size, self._start = batch_size, start
        self._data, self._run = data, run
        self._bad_before = bad_before
        self._native, self._on_switch, self._progress = native, on_switch, progress
        self._assumed = assumed
        self._recode = label_codes(source.class_names, class_names)
        # Labels that are numbers say a class by its number where the model's classes are called by numbers of their own.
        self._numbers = label_numbers(class_names) if class_numbers and source.class_names is None else None
        self.outcome = Outcome()

    def execute(self, sink: Sink) -> Outcome:
        """Runs every row, until the deadline of the run that this belongs to (`fo_onnx.run_control`).

        Args:
            sink: Rows out.

        Raises:
            DataError: A row cannot be read or run (``on_error="fail"``), or there are more than ``max_errors`` of them.
            RunError: The model failed, or the time was up.
            KeyboardInterrupt: Ctrl-C. In all three cases what was finished before is in the sink.
        """
        self._sink = sink
        with begin(None) as control:
            return self._execute(control)

    def _execute(self, control: RunControl) -> Outcome:
        self._begun = time.monotonic()
        batches = self._read(self._batch_size, self._start)
        if not self._source.in_memory:
            batches = read_ahead(batches)
        try:
            try:
                self._run_all(self._runners, batches, control)
            except Failure as failure:
                self._switch(failure, batches, control)
        finally:
            _end(batches)
            self.outcome.total_s = time.monotonic() - self._begun
        self._require_all_rows()
        return self.outcome

    def _require_all_rows(self) -> None:
        """A source that says how many rows it has must have given them."""
        length, seen = self._source.length, self._start + self.outcome.written + self.outcome.bad
        if length is not None and seen != length:
            raise DataError(
                f"the data said that it has {length} rows, and gave {seen}, so that rows are missing or doubled. Look at its "
                "__len__, and at how it is split among workers; or give it as a plain iterable, which says no length."
            )

    def _run_all(self, runners: Sequence[Runner], batches: Iterator[Batch], control: RunControl) -> None:
        if len(runners) == 1 and runners[0].kind == "native":
            run_inline(runners[0], batches, self._deliver, control)
        else:
            run_in_threads(runners, batches, self._deliver, control)

    def _switch(self, failure: Failure, batches: Iterator[Batch], control: RunControl) -> None:
        """Lets the native runner go on from the batch on which another one failed."""
        position, error = failure.left[0].start, failure.error
        where = f"It happened on the batch of rows {position} to {failure.left[0].stop - 1}."
        other_shape = isinstance(error, RowShapeError) and self._native is not None
        if isinstance(error, DataError) and not other_shape:
            raise DataError(f"{error} {where}", position=position) from error
        if not isinstance(error, RunError | RowShapeError):
            # Not the session: an output_transform, say, which the native runner would call just as well.
            raise type(error)(f"{error} {where}") if isinstance(error, FoOnnxError) else error
        try:
            runner = None if self._native is None else self._native()
        except DeviceError:
            runner = None
        if runner is None:
            raise type(error)(f"{error} {where}") from error
        if other_shape:
            try:
                runner.run(failure.left[0].inputs)
            except FoOnnxError:
                raise DataError(f"{error} {where}", position=position) from error
        self.outcome.switched_at, self.outcome.reason = position, str(error)
        if self._on_switch is not None:
            self._on_switch(position, str(error))
        warn_of_fallback(f"the ONNX runner failed, and the native one goes on from row {position}: {error}")
        rest: Iterator[Batch] = iter(failure.left) if failure.then is not None else chain(failure.left, batches)
        try:
            run_inline(runner, rest, self._deliver, control)
        except Failure as second:
            raise second.error from error
        if failure.then is not None:
            raise failure.then

    def _deliver(self, batch: Batch, output: RunOutput | None) -> None:
        """Hands the rows of one batch to the sink; the bad ones are sorted out first."""
        if output is None:
            self._write(batch.ids, np.empty((0, 0), np.float32), None, None, batch.bad)
            return
        ids, probs, logits = batch.ids, output.probs, output.logits
        labels = self._labels(batch, probs.shape[1])
        invalid = invalid_rows(probs)
        if len(invalid) == 0:
            self._write(ids, probs, labels, logits, batch.bad)
            return
        found = _as_bad_rows(batch, invalid, self._assumed)
        if self._data.on_error == "fail":
            upto = slice(0, int(invalid[0]))
            self._write(ids[upto], probs[upto], _cut(labels, upto), _cut(logits, upto), ())
            raise DataError(
                f"row {found[0].position} (id {found[0].id!r}): {found[0].reason}. Mend the row, or go past such rows with "
                "on_error='skip' or on_error='record'.",
                position=found[0].position,
            )
        kept = np.ones(len(ids), bool)
        kept[invalid] = False
        bad = tuple(sorted((*batch.bad, *found), key=lambda b: b.position))
        self._write(ids[kept], probs[kept], _cut(labels, kept), _cut(logits, kept), bad)

    def _write(self, ids: NDArray[Any], probs: NDArray[np.float32], labels: NDArray[np.int64] | None,
               logits: NDArray[np.float32] | None, bad: tuple[BadRow, ...]) -> None:  # fmt: skip
        self._sink.append(ids, probs, labels, logits, bad)
        if self.outcome.first_row_s is None and len(ids):
            self.outcome.first_row_s = time.monotonic() - self._begun
        self.outcome.written += len(ids)
        self.outcome.bad += len(bad)
        if self._progress is not None:
            self._progress.advance(len(ids) + len(bad))
        limit = self._run.max_errors
        count = self._bad_before + self.outcome.bad
        if bad and limit is not None and count > limit:
            raise DataError(
                f"{count} rows could not be read or run, and max_errors={limit}; the last one: row "
                f"{bad[-1].position} (id {bad[-1].id!r}): {bad[-1].reason}.",
                position=bad[-1].position,
            )

    def _numbered(self, batch: Batch, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """The columns of labels that are numbers of classes."""
        assert self._numbers is not None
        order = np.argsort(self._numbers)
        at = np.minimum(np.searchsorted(self._numbers, labels, sorter=order), len(order) - 1)
        columns: NDArray[np.int64] = order[at]
        wrong = np.flatnonzero(self._numbers[columns] != labels)
        if len(wrong):
            first = int(wrong[0])
            raise DataError(
                f"row with id {_plain(batch.ids[first])!r}: its label {int(labels[first])} is no class; the model's classes are "
                f"{', '.join(map(str, self._numbers))}.",
                position=_positions(batch)[first],
            )
        return columns

    def relabel(self, batch: Batch) -> NDArray[np.int64] | None:
        """The labels of a batch as columns of the model. Raises `DataError` for one that is no class."""
        classes = self._runners[0].spec.classes
        assert classes is not None
        return self._labels(batch, classes)

    def _labels(self, batch: Batch, classes: int) -> NDArray[np.int64] | None:
        labels = batch.labels
        if labels is None or len(labels) == 0:
            return labels
        if self._numbers is not None:
            labels = self._numbered(batch, labels)
        elif self._recode is not None:
            labels = self._recode[labels]
        if labels.max() >= classes:
            at = int(np.argmax(labels >= classes))
            raise DataError(
                f"row with id {_plain(batch.ids[at])!r}: its label {int(labels[at])} is no class; the model has {classes} classes, "
                f"0 to {classes - 1}.",
                position=_positions(batch)[at],
            )
        return labels


def _end(batches: Iterator[Batch]) -> None:
    """Ends the reading of batches, and with it a thread that reads ahead."""
    close = getattr(batches, "close", None)
    if close is None:
        return
    try:
        close()
    except ValueError:
        # After an interrupt a worker may still be inside of the generator, which then cannot be closed from here; the
        # worker sees that the run has stopped, and the generator ends with it.
        log.info("the source was still being read when the run ended")


def label_numbers(names: tuple[str, ...] | None) -> NDArray[np.int64] | None:
    """The numbers that a model's classes are called by, where all of them are, and where they are not just 0, 1, 2 and so on."""
    if names is None or not all(n.removeprefix("-").isdecimal() for n in names):
        return None
    numbers = np.asarray([int(n) for n in names], np.int64)
    return None if np.array_equal(numbers, np.arange(len(numbers))) else numbers


def label_codes(source: tuple[str, ...] | None, model: tuple[str, ...] | None) -> NDArray[np.int64] | None:
    """Maps the label numbers of a source that names its classes to the columns of a model that names its own.

    Raises:
        DataError: The source has a class that the model has not.
    """
    if source is None or model is None or source == model:
        return None
    unknown = [n for n in source if n not in model]
    if unknown:
        raise DataError(
            f"the data has the class(es) {', '.join(map(repr, unknown))}, which the model has not; its classes are "
            f"{', '.join(map(repr, model))}. Name them alike with class_names= or in the data."
        )
    return np.asarray([model.index(n) for n in source], np.int64)


def _plain(row_id: Any) -> int | str:
    """An id as Python's own type."""
    return cast("int | str", row_id.item() if isinstance(row_id, np.generic) else row_id)


def _cut(array: NDArray[Any] | None, where: Any) -> Any:
    return None if array is None else array[where]


def _positions(batch: Batch) -> list[int]:
    """The position of each row that a batch holds."""
    unreadable = {b.position for b in batch.bad}
    return [p for p in range(batch.start, batch.stop) if p not in unreadable]


def _as_bad_rows(batch: Batch, invalid: NDArray[np.int64], assumed: str | None) -> list[BadRow]:
    positions = _positions(batch)
    return [BadRow(positions[i], _plain(batch.ids[i]), _why(batch, int(i), assumed)) for i in invalid]


def _why(batch: Batch, row: int, assumed: str | None) -> str:
    """What a row whose output is no distribution looks like."""
    for name, array in batch.inputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array[row]).all():
            what = "NaN" if np.isnan(array[row]).any() else "infinity"
            return f"its output is no distribution, and there is {what} in its input {name!r}"
    if assumed is not None:
        return (
            f"its output is no distribution, though output='auto' took the model's output for {assumed}, as that of the first "
            "rows was: one decision holds for a whole run. If the model gives logits, say output='logits'; if its output is not "
            "finite, look for NaN in its weights"
        )
    return (
        "its output is no distribution (not finite, negative, or without unit sum) though its input is finite, so look for "
        "NaN in the model's weights, and at what output= says"
    )
