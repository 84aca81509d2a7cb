"""Rows with NaN in their input: the original model answers them, since kernels disagree on what NaN becomes.

ONNX Runtime's max-pool passes over NaN where torch's hands it on, for example, so that a row which the model itself
gives no distribution would get one.
"""

from __future__ import annotations

import numpy as np

from ..errors import RunError
from ..parity import rows_with_nan
from ..protocols import Inputs, RunOutput
from .runners import NativeRunner, OnnxRunner


class NanRowsNative:
    """An ONNX runner that asks the original for rows with NaN in their input; all others are its own."""

    kind = "onnx"

    def __init__(self, runner: OnnxRunner, original: NativeRunner) -> None:
        """Takes both.

        Args:
            runner: The session; closed with this one.
            original: The model in its own framework, which several of these may share.
        """
        self.spec, self.device = runner.spec, runner.device
        self._runner, self._original = runner, original

    def run(self, inputs: Inputs) -> RunOutput:
        """Distributions of one batch. A row that the original gives none, or refuses, is NaN."""
        found = self._runner.run(inputs)
        rows = np.flatnonzero(rows_with_nan(inputs))
        if len(rows) == 0:
            return found
        answer = self._answer({name: array[rows] for name, array in inputs.items()})
        probs, logits = found.probs.copy(), None if found.logits is None else found.logits.copy()
        probs[rows] = np.nan if answer is None else answer.probs
        if logits is not None:
            logits[rows] = np.nan if answer is None else answer.logits
        return RunOutput(probs, logits)

    def _answer(self, inputs: Inputs) -> RunOutput | None:
        try:
            return self._original.run(inputs)
        except RunError:
            # Some refuse NaN altogether.
            return None

    def close(self) -> None:
        """Frees the session."""
        self._runner.close()
