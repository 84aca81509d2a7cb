"""Rows for which the original model is asked, though the run is in ONNX: those with NaN, and those of a batch that fails.

Kernels disagree on what NaN becomes: ONNX Runtime's max-pool passes over it where torch's hands it on, for example, so that
a row which the model itself gives no distribution would get one. Where a batch fails in ONNX, the original says which of its
rows it refuses too. A file on its own answers rows with NaN as its graph does.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Inputs, count_rows
from ..contracts.options import OutputOptions
from ..contracts.runner import RawModel, Runner, RunOutput
from ..distributions.probabilities import invalid_rows
from ..errors import RunError
from .native_runner import NativeRunner
from .opened import OpenedModel


def ask_original(opened: OpenedModel, original: RawModel, output: OutputOptions, known_row: Inputs) -> OpenedModel:
    """Return runners that ask the original, which they share; `known_row` is a row that it takes."""
    native = NativeRunner(
        original, opened.spec, keep_logits=output.keep_logits, transform=output.output_transform, known_row=known_row
    )
    runners = tuple(AskingRunner(runner, native) for runner in opened.runners)
    return replace(opened, runners=runners, original=native)


def rows_with_nan(inputs: Inputs) -> NDArray[np.bool_]:
    """Return which rows have NaN in one of their inputs (n,); infinity may be meant, as -inf is in masks."""
    has_nan = np.zeros(count_rows(inputs), np.bool_)
    for array in inputs.values():
        if array.dtype.kind not in "fc" or array.size == 0:
            continue
        with np.errstate(invalid="ignore"):
            # The minimum of an array with NaN is NaN, and quicker to have than one answer per value.
            there = np.isnan(array.min())
        if there:
            has_nan |= np.isnan(array.reshape(len(array), -1)).any(axis=1)
    return has_nan


class AskingRunner:
    """An ONNX runner that asks the original for rows with NaN in their input, and about the rows of a batch that fails."""

    kind = "onnx"

    def __init__(self, runner: Runner, original: NativeRunner) -> None:
        """Take a runner, which is closed with this one, and the original, which several of these may share."""
        self.spec, self.device = runner.spec, runner.device
        self._runner, self._original = runner, original

    def run(self, inputs: Inputs) -> RunOutput:
        """Return the distributions of one batch. A row that the original gives none, or refuses, is NaN.

        Raises:
            RunError: It fails in ONNX Runtime, and the original's refusals do not explain it.
        """
        try:
            output = self._runner.run(inputs)
        except RunError as err:
            return self._run_taken(inputs, err)
        rows = np.flatnonzero(rows_with_nan(inputs))
        return answer_by_original(output, inputs, rows, self._original) if len(rows) else output

    def close(self) -> None:
        """Free the session."""
        self._runner.close()

    def _run_taken(self, inputs: Inputs, error: RunError) -> RunOutput:
        """Run the rows of a failed batch that the original takes; if it takes all, the fault is not the rows'."""
        try:
            answer = self._original.run(inputs)
        except RunError:
            raise error from None
        if not answer.refused:
            raise error
        taken = np.setdiff1d(np.arange(count_rows(inputs)), list(answer.refused))
        if len(taken) == 0:
            return answer
        return _put(answer, taken, self.run(_take(inputs, taken)))


def answer_by_original(output: RunOutput, inputs: Inputs, rows: NDArray[np.int64], original: Runner) -> RunOutput:
    """Return `output` with what the original gives for some of the batch's rows; where it fails they are NaN."""
    answer = RunOutput(np.full((len(rows), output.probs.shape[1]), np.nan, np.float32))
    # Some models refuse such rows altogether.
    with contextlib.suppress(RunError):
        answer = original.run(_take(inputs, rows))
    return _put(output, rows, answer)


def answer_invalid(output: RunOutput, inputs: Inputs, original: Runner | None) -> tuple[RunOutput, NDArray[np.int64]]:
    """Return `output` with the original's answers for rows that are no distribution, and the rows that are none after it."""
    invalid = invalid_rows(output.probs)
    if len(invalid) and original is not None:
        output = answer_by_original(output, inputs, invalid, original)
        invalid = invalid_rows(output.probs)
    return output, invalid


def _take(inputs: Inputs, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    return {name: array[rows] for name, array in inputs.items()}


def _put(output: RunOutput, rows: NDArray[np.int64], answer: RunOutput) -> RunOutput:
    """Return `output` with its `rows` in the place of which `answer` is."""
    probs, logits = output.probs.copy(), None if output.logits is None else output.logits.copy()
    probs[rows] = answer.probs
    if logits is not None:
        logits[rows] = np.nan if answer.logits is None else answer.logits
    refused = {int(rows[index]): reason for index, reason in answer.refused.items()}
    return RunOutput(probs, logits, {**output.refused, **refused})
