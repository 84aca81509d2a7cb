"""Rows with NaN in their input: the original model answers them, since kernels disagree on what NaN becomes.

ONNX Runtime's max-pool passes over NaN where torch's hands it on, for example, so that a row which the model itself
gives no distribution would get one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Inputs
from ..contracts.options import OutputOptions
from ..contracts.runner import RawModel, Runner, RunOutput
from ..contracts.spec import ModelSpec
from ..errors import RunError
from .native_runner import NativeRunner
from .onnx_runner import OnnxRunner


def route_nan_rows(
    runners: Sequence[OnnxRunner], original: RawModel, spec: ModelSpec, output: OutputOptions
) -> tuple[Runner, ...]:
    """Return runners that let the original answer rows with NaN in their input; they share it."""
    native = NativeRunner(original, spec, keep_logits=output.keep_logits, transform=output.output_transform)
    return tuple(NanRowRouter(runner, native) for runner in runners)


def rows_with_nan(inputs: Inputs) -> NDArray[np.bool_]:
    """Return which rows have NaN in one of their inputs (n,); infinity may be meant, as -inf is in masks."""
    has_nan = np.zeros(len(next(iter(inputs.values()))), np.bool_)
    for array in inputs.values():
        if array.dtype.kind != "f" or array.size == 0:
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

    def __init__(self, runner: OnnxRunner, original: NativeRunner) -> None:
        """Take both.

        Args:
            runner: The session; closed with this one.
            original: The model in its own framework, which several of these may share.
        """
        self.spec, self.device = runner.spec, runner.device
        self._runner, self._original = runner, original

    def run(self, inputs: Inputs) -> RunOutput:
        """Return the distributions of one batch. A row that the original gives none, or refuses, is NaN."""
        output = self._runner.run(inputs)
        rows = np.flatnonzero(rows_with_nan(inputs))
        if len(rows) == 0:
            return output
        answer = self._answer({name: array[rows] for name, array in inputs.items()})
        probs, logits = output.probs.copy(), None if output.logits is None else output.logits.copy()
        probs[rows] = np.nan if answer is None else answer.probs
        if logits is not None:
            logits[rows] = np.nan if answer is None else answer.logits
        return RunOutput(probs, logits)

    def _answer(self, inputs: Inputs) -> RunOutput | None:
        try:
            return self._original.run(inputs)
        except RunError:
            # Some models refuse NaN altogether.
            return None

    def close(self) -> None:
        """Free the session."""
        self._runner.close()
