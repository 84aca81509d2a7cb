"""The way of the data: source, runners, sink; each batch is read, run, checked and written once.

Bad rows are sorted out here, and a run that fails or is interrupted leaves its finished rows in the sink.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import BadRow, Batch
from ..contracts.options import DataOptions, OutputOptions, RunOptions
from ..contracts.runner import RunOutput
from ..contracts.sink import Sink
from ..contracts.source import Source
from ..contracts.spec import PROBABILITY_KINDS
from ..control.announcing import is_shown
from ..control.run_control import RunControl, begin
from ..errors import DataError, DeviceError, FoOnnxError, ParityError, RunError, append_sentence, warn_at_caller
from ..runtime.inputs import RowShapeError
from ..runtime.opened import OpenedModel
from ..runtime.original_rows import answer_invalid
from ..runtime.workers import Failure, run_batches, run_inline
from ..sources import read_ahead
from ..store import RunFolder
from .labels import LabelMapper, batch_positions, plain_id
from .resume import choose_resumed_runners
from .spot_checks import SpotChecks

log = logging.getLogger("fo_onnx.engine")


@dataclass
class RunStats:
    """What a run has done so far.

    Attributes:
        written: Rows that were handed to the sink.
        bad: Rows that could not be read or run.
        first_row_s: Seconds until the first rows were there; ``None`` if there were none.
        total_s: Seconds from the first batch read to the last one written.
        switched_at: Position from which on the native runner ran; ``None`` if it did not step in.
        reason: Why it did.
        spot_checks: The record of the rows that the original ran again; ``None`` if it was not at hand.
    """

    written: int = 0
    bad: int = 0
    first_row_s: float | None = None
    total_s: float = 0.0
    switched_at: int | None = None
    reason: str | None = None
    spot_checks: dict[str, Any] | None = None


class Pipeline:
    """One run over one source."""

    def __init__(
        self,
        opened: OpenedModel,
        source: Source,
        labels: LabelMapper,
        data: DataOptions,
        run: RunOptions,
        output: OutputOptions,
        folder: RunFolder | None = None,
        read_batches: Callable[[int, int], Iterator[Batch]] | None = None,
    ) -> None:
        """Set a run up.

        A `folder` that is resumed says where the run begins. `read_batches` gives the batches of a size from a position on, if
        that is not the source itself.
        """
        self._source, self._labels, self._data, self._run, self._folder = source, labels, data, run, folder
        self._runners, self._batch_size = choose_resumed_runners(folder, opened), opened.plan.batch_size
        self._read_batches = read_batches or source.batches
        self._no_rows, self._keeps_logits = np.empty((0, opened.classes), np.float32), output.keep_logits
        # If ONNX was asked for, a failure on the way is an error.
        self._open_native = None if run.runner == "onnx" else opened.open_native
        self._start = self._bad_before = 0
        if folder is not None:
            self._start, self._bad_before = folder.position, sum(folder.counts.values()) - folder.counts["written"]
        # What the model's output was taken for, if nobody said what it is.
        kind = opened.spec.output_kind
        self._assumed_kind = kind if output.output == "auto" and kind in PROBABILITY_KINDS else None
        self.stats = RunStats()
        self._original = opened.original if self._runners is opened.runners else None
        self.spot_checks = _open_spot_checks(opened) if self._runners is opened.runners else None

    def execute(self, sink: Sink) -> RunStats:
        """Run every row, until the deadline of the run that this belongs to (`fo_onnx.control.run_control`).

        Args:
            sink: Rows out.

        Raises:
            DataError: A row cannot be read or run (``on_error="fail"``), or there are more than ``max_errors`` of them.
            RunError: The model failed, or the time was up.
            KeyboardInterrupt: Ctrl-C. In all three cases what was finished before is in the sink.
        """
        self._sink = sink
        bar = _open_bar(self._run.progress, self._source.length, self._start)
        with begin(None) as control, bar as self._bar:
            self._begun = time.monotonic()
            batches, checks = self._read_batches(self._batch_size, self._start), self.spot_checks
            if not self._source.is_sliced:
                batches = read_ahead(batches)
            try:
                try:
                    run_batches(self._runners, batches, self._deliver, control)
                except Failure as failure:
                    self._switch_to_native(failure, batches, control)
                if self.spot_checks is not None:
                    self._check_spots(self.spot_checks.finish)
            finally:
                _close(batches)
                if checks is not None:
                    self.stats.spot_checks = checks.to_dict()
                self.stats.total_s = time.monotonic() - self._begun
            self._require_all_rows()
            return self.stats

    def _require_all_rows(self) -> None:
        """Raise a `DataError` if a source that says how many rows it has gave another number."""
        length, seen = self._source.length, self._start + self.stats.written + self.stats.bad
        if length is not None and seen != length:
            raise DataError(
                f"the data said that it has {length} rows, and gave {seen}, so that rows are missing or doubled. Look at its "
                "__len__, and at how it is split among workers; or give it as a plain iterable, which says no length."
            )

    def _switch_to_native(self, failure: Failure, batches: Iterator[Batch], control: RunControl) -> None:
        """Let the native runner continue from the batch on which another runner failed."""
        # Only a failure of the session itself, or of the shape it was exported for, is one that another runner may not have.
        position, error = failure.left[0].start, failure.error
        where = f"It happened on the batch of rows {position} to {failure.left[0].stop - 1}."
        is_shape = isinstance(error, RowShapeError) and self._open_native is not None
        if isinstance(error, DataError) and not is_shape:
            raise DataError(append_sentence(error, where), position=position) from error
        if not isinstance(error, RunError | RowShapeError):
            # An output_transform, say, which the native runner would call just as well.
            raise type(error)(append_sentence(error, where)) if isinstance(error, FoOnnxError) else error
        try:
            runner = None if self._open_native is None else self._open_native()
        except DeviceError:
            runner = None
        if runner is None:
            raise type(error)(append_sentence(error, where)) from error
        if is_shape:
            try:
                runner.run(failure.left[0].inputs)
            except FoOnnxError:
                raise DataError(append_sentence(error, where), position=position) from error

        # What the original runs need not be compared with it.
        self._original, self.spot_checks, finished = None, None, self.spot_checks
        if finished is not None:
            self._check_spots(finished.finish)
        # The switch is recorded before the first row after it.
        self.stats.switched_at, self.stats.reason = position, str(error)
        if self._folder is not None:
            self._folder.record_switch(position, str(error))
        warn_at_caller(f"the ONNX runner failed, and the native one continues from row {position}: {error}")
        rest: Iterator[Batch] = iter(failure.left) if failure.then is not None else chain(failure.left, batches)
        try:
            run_inline(runner, rest, self._deliver, control)
        except Failure as second:
            raise second.error from error
        if failure.then is not None:
            raise failure.then

    def _deliver(self, batch: Batch, output: RunOutput | None) -> None:
        """Hand the rows of one batch to the sink; bad ones are sorted out first."""
        if output is None:
            # No row of it could be read.
            labels = np.empty(0, np.int64) if self._source.has_labels else None
            self._write(batch.ids, self._no_rows, labels, self._no_rows if self._keeps_logits else None, batch.bad)
            return
        output, invalid = answer_invalid(output, batch.inputs, self._original)
        # What the original has answered agrees with it.
        if self.spot_checks is not None:
            self._check_spots(functools.partial(self.spot_checks.look_at, batch, output))
        ids, probs, logits = batch.ids, output.probs, output.logits
        labels = self._labels.map(batch)
        if len(invalid) == 0:
            self._write(ids, probs, labels, logits, batch.bad)
            return
        bad = _describe_bad_rows(batch, invalid, output.refused, self._assumed_kind)
        if self._data.on_error == "fail":
            before = slice(0, int(invalid[0]))
            self._write(ids[before], probs[before], _take(labels, before), _take(logits, before), ())
            raise DataError(
                f"row {bad[0].position} (id {bad[0].id!r}): {bad[0].reason}. Mend the row, or go past such rows with "
                "on_error='skip' or on_error='record'.",
                position=bad[0].position,
            )
        valid = np.ones(len(ids), bool)
        valid[invalid] = False
        in_order = tuple(sorted((*batch.bad, *bad), key=lambda b: b.position))
        self._write(ids[valid], probs[valid], _take(labels, valid), _take(logits, valid), in_order)

    def _check_spots(self, check: Callable[[], None]) -> None:
        """Check rows with the original. A difference is recorded, since a resumed run would not find it again."""
        try:
            check()
        except ParityError as err:
            if self._folder is not None:
                self._folder.record_difference(str(err))
            raise

    def _write(self, ids: NDArray[Any], probs: NDArray[np.float32], labels: NDArray[np.int64] | None,
               logits: NDArray[np.float32] | None, bad: tuple[BadRow, ...]) -> None:  # fmt: skip
        self._sink.append(ids, probs, labels, logits, bad)
        if self.stats.first_row_s is None and len(ids):
            self.stats.first_row_s = time.monotonic() - self._begun
        self.stats.written += len(ids)
        self.stats.bad += len(bad)
        if self._bar is not None:
            self._bar.update(len(ids) + len(bad))
        limit = self._run.max_errors
        count = self._bad_before + self.stats.bad
        if bad and limit is not None and count > limit:
            raise DataError(
                f"{count} rows could not be read or run, and max_errors={limit}; the last one: row "
                f"{bad[-1].position} (id {bad[-1].id!r}): {bad[-1].reason}. Mend the rows, or raise max_errors=.",
                position=bad[-1].position,
            )


def _open_bar(show: bool | None, rows: int | None, done: int) -> contextlib.AbstractContextManager[Any]:
    """Return the bar on standard error: rows done, rate, time left; ``None`` unless it is a terminal, or asked for."""
    if not is_shown(show):
        return contextlib.nullcontext()
    from tqdm import tqdm

    bar: contextlib.AbstractContextManager[Any] = tqdm(
        total=rows, initial=done, unit="row", unit_scale=True, desc="distributions", file=sys.stderr
    )
    return bar


def _open_spot_checks(opened: OpenedModel) -> SpotChecks | None:
    """Return the checks of a run in ONNX whose original is at hand, and whose rows depend on their input alone."""
    parity = opened.parity
    if opened.original is None or opened.original_time is None or parity is None or not parity.passed:
        return None
    return SpotChecks(opened.original, parity.tolerance, opened.original_time, opened.tv_budget)


def _close(batches: Iterator[Batch]) -> None:
    """End the reading of batches, and with it a thread that reads ahead."""
    close = getattr(batches, "close", None)
    if close is None:
        return
    try:
        close()
    except ValueError:
        # After an interrupt a worker may still be inside of the generator, which then cannot be closed from here; the
        # worker sees that the run has stopped, and the generator ends with it.
        log.info("the source was still being read when the run ended")


def _take(array: NDArray[Any] | None, rows: Any) -> Any:
    return None if array is None else array[rows]


def _describe_bad_rows(
    batch: Batch, invalid: NDArray[np.int64], refused: Mapping[int, str], assumed_kind: str | None
) -> list[BadRow]:
    positions = batch_positions(batch)
    reasons = ((i, refused.get(i) or _reason(batch, i, assumed_kind)) for i in invalid.tolist())
    return [BadRow(positions[i], plain_id(batch.ids[i]), reason.rstrip(".")) for i, reason in reasons]


def _reason(batch: Batch, row: int, assumed_kind: str | None) -> str:
    """Return what is wrong with a row whose output is no distribution."""
    for name, array in batch.inputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array[row]).all():
            what = "NaN" if np.isnan(array[row]).any() else "infinity"
            return f"its output is no distribution, and there is {what} in its input {name!r}"
    if assumed_kind is not None:
        return (
            f"its output is no distribution, though output='auto' took the model's output for {assumed_kind}, as that of the "
            "first rows was: one decision holds for a whole run. If the model gives logits, say output='logits'; if its output "
            "is not finite, look for NaN in its weights"
        )
    return (
        "its output is no distribution (not finite, negative, or without unit sum) though its input is finite, so look for "
        "NaN in the model's weights, and at what output= says"
    )
