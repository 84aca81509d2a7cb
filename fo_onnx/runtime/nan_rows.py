"""Rows with NaN in their input: the original model answers them, since kernels disagree on what NaN becomes.

ONNX Runtime's max-pool passes over NaN where torch's hands it on, for example, so that a row which the model itself
gives no distribution would get one. A file on its own answers such rows as its graph does.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Inputs, count_rows
from ..contracts.options import OutputOptions
from ..contracts.runner import RawModel, Runner, RunOutput
from ..errors import RunError
from .native_runner import NativeRunner
from .opened import OpenedModel


def route_nan_rows(opened: OpenedModel, original: RawModel, output: OutputOptions) -> OpenedModel:
    """Return runners that let the original answer rows with NaN in their input; they share it."""
    native = NativeRunner(original, opened.spec, keep_logits=output.keep_logits, transform=output.output_transform)
    return replace(opened, runners=tuple(NanRowRouter(runner, native) for runner in opened.runners))


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


class NanRowRouter:
    """An ONNX runner that asks the original for rows with NaN in their input; all others are its own."""

    kind = "onnx"

    def __init__(self, runner: Runner, original: NativeRunner) -> None:
        """Take a runner, which is closed with this one, and the original, which several of these may share."""
        self.spec, self.device = runner.spec, runner.device
        self._runner, self._original = runner, original

    def run(self, inputs: Inputs) -> RunOutput:
        """Return the distributions of one batch. A row that the original gives none, or refuses, is NaN."""
        output = self._runner.run(inputs)
        rows = np.flatnonzero(rows_with_nan(inputs))
        if len(rows) == 0:
            return output
        probs, logits = output.probs.copy(), None if output.logits is None else output.logits.copy()
        for array in (probs, logits) if logits is not None else (probs,):
            array[rows] = np.nan
        # Some models refuse NaN altogether.
        with contextlib.suppress(RunError):
            answer = self._original.run({name: array[rows] for name, array in inputs.items()})
            probs[rows] = answer.probs
            if logits is not None:
                logits[rows] = answer.logits
        return RunOutput(probs, logits)

    def close(self) -> None:
        """Free the session."""
        self._runner.close()
