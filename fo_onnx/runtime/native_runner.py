"""Runs batches in the model's own framework, and applies the head to its raw output."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Inputs, count_rows
from ..contracts.runner import RawModel, RunOutput, one_thread
from ..contracts.spec import ModelSpec
from ..distributions.probabilities import apply_head, check_raw_shape
from ..errors import OutputError
from .refused_rows import run_sorted
from .transform import Floats, Transform, apply_transform


class NativeRunner:
    """Runs batches in the model's own framework."""

    kind = "native"

    def __init__(
        self,
        raw: RawModel,
        spec: ModelSpec,
        *,
        keep_logits: bool = False,
        transform: Transform | None = None,
        precomputed: Sequence[tuple[Inputs, NDArray[Any]]] = (),
        known_row: Inputs | None = None,
    ) -> None:
        """Take a model.

        Args:
            raw: The model; closed with the runner.
            spec: The same with the decision on its output.
            keep_logits: Whether logits are kept.
            transform: Replaces the head.
            known_row: A row that the model takes.
            precomputed: Batches with their raw output, which are expected to come first.
        """
        self.spec = spec
        self.device = raw.device
        self._precomputed = list(precomputed)
        self._precomputed_lock = threading.Lock()
        self._raw = raw
        self._keep_logits = keep_logits
        self._transform = transform
        self._known_row = known_row

    def run(self, inputs: Inputs) -> RunOutput:
        """Return the distributions of one batch."""
        return run_sorted(self._run, inputs, self._known_row)

    def _run(self, inputs: Inputs) -> RunOutput:
        rows = count_rows(inputs)
        raw = self._forward(inputs)
        if self._transform is not None:
            return RunOutput(apply_transform(self._transform, raw, rows))
        check_raw_shape(raw.shape, self.spec.output_kind, rows, self.spec.name)
        assert self.spec.output_kind is not None
        probs, logits = apply_head(raw, self.spec.output_kind, self.spec.temperature)
        if self.spec.classes is not None and probs.shape[1] != self.spec.classes:
            raise OutputError(
                f"{self.spec.name} gives {probs.shape[1]} classes for a batch of {rows} rows, and gave {self.spec.classes} for the first "
                "one; the same classes were expected for each."
            )
        return RunOutput(
            cast(Floats, probs), cast(Floats, logits) if self._keep_logits and logits is not None else None
        )

    def one_thread(self) -> AbstractContextManager[None]:
        """Let calls within run on one thread, if the framework offers that."""
        return one_thread(self._raw)

    def close(self) -> None:
        """Free the model."""
        self._raw.close()

    def _forward(self, inputs: Inputs) -> NDArray[Any]:
        # The first rows were run already, to decide what the output means.
        with self._precomputed_lock:
            if self._precomputed:
                batch, out = self._precomputed.pop(0)
                if batch.keys() == inputs.keys() and all(np.array_equal(batch[k], inputs[k]) for k in batch):
                    return out
                self._precomputed = []
        return self._raw.forward(inputs)
