"""Rows that are held out for the choice of a precision: some calibrate, others judge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..contracts.batch import Batch, Inputs, count_rows, cut_inputs
from ..contracts.runner import RunOutput
from ..control.run_control import current
from ..conversion.batch_effects import Floats, row_distances
from ..errors import RunError
from ..runtime.opened import OpenedModel
from ..runtime.original_rows import rows_with_nan
from ..runtime.request import RunRequest
from ..runtime.workers import Failure, run_in_threads

CALIBRATED_SHARE = 4
"""Of the rows that are held out every fourth one calibrates; the others judge."""
LEAST_JUDGED = 100
"""Of fewer rows none is the 99th percentile."""


@dataclass(frozen=True)
class HeldOut:
    """The rows of a choice. `expected` is what float32 gives for those that judge."""

    calibration: Inputs
    judged: Inputs
    expected: Floats


def hold_out(opened: OpenedModel, request: RunRequest) -> HeldOut | str:
    """Return the rows of a choice, or why there are none. Rows without a distribution and rows with NaN say nothing."""
    inputs = request.read_held_out()
    usable = np.empty(0, np.int64)
    if inputs and count_rows(inputs):
        try:
            expected = _run(opened, inputs)
        except RunError as err:
            return f"the rows to judge it with could not be run: {str(err).rstrip('.')}"
        usable = np.flatnonzero(np.isfinite(expected).all(axis=1) & ~rows_with_nan(inputs))
    judging = np.arange(len(usable)) % CALIBRATED_SHARE != 0
    if judging.sum() < LEAST_JUDGED:
        return (
            f"{judging.sum()} rows of the data are left to judge it with, after the first {count_rows(request.example)} and those that "
            f"calibrate, and at least {LEAST_JUDGED} are needed"
        )
    return HeldOut(_take(inputs, usable[~judging]), _take(inputs, usable[judging]), expected[usable[judging]])


def _take(inputs: Inputs, rows: Any) -> Inputs:
    return {name: array[rows] for name, array in inputs.items()}


def judge(opened: OpenedModel, rows: HeldOut) -> tuple[Floats, int]:
    """Return how far each judged row is from its float32 one, and how many change their most probable class."""
    probs = _run(opened, rows.judged)
    flips = int((probs.argmax(axis=1) != rows.expected.argmax(axis=1)).sum())
    return row_distances(rows.expected, probs), flips


def _run(opened: OpenedModel, inputs: Inputs) -> Floats:
    """Return the distributions of rows, run as the run will be.

    Raises:
        RunError: A runner failed.
    """
    size, parts = opened.plan.batch_size, []

    def deliver(batch: Batch, output: RunOutput | None) -> None:
        assert output is not None
        parts.append(output.probs.astype(np.float64))

    batches = (Batch(np.arange(count_rows(part)), part, None, 0) for part in cut_inputs(inputs, size))
    try:
        run_in_threads(opened.runners, batches, deliver, current())
    except Failure as failure:
        raise failure.error from None
    return np.concatenate(parts)
