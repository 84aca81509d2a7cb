"""Runs batches in a session of ONNX Runtime, where the head is part of the graph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Inputs, count_rows, cut_inputs, pad_rows, restore_batch_axis
from ..contracts.runner import RunOutput
from ..contracts.spec import ModelSpec
from ..errors import OutputError, RunError
from .inputs import InputBinder
from .refused_rows import run_sorted
from .session import MemoryExhausted, Session
from .transform import Floats, Transform, apply_transform


class OnnxRunner:
    """Runs batches in one session; pads and slices if the file has a fixed batch size."""

    kind = "onnx"

    def __init__(
        self,
        session: Session,
        spec: ModelSpec,
        device: str,
        *,
        probs: str,
        logits: str | None,
        transform: Transform | None = None,
        known_row: Inputs | None = None,
    ) -> None:
        """Take a session.

        Args:
            session: The session; closed with the runner.
            spec: The model.
            device: Where the session runs.
            probs: The output with distributions; with a `transform`, the raw output.
            logits: The output with logits, if they are kept.
            transform: Replaces the head.
            known_row: A row that the model takes. With it, rows of a batch that fail alone are sorted out.
        """
        self.spec = spec
        self.device = device
        self._session: Session | None = session
        self._outputs = [probs] if logits is None else [probs, logits]
        self._binder = InputBinder(spec)
        self._transform = transform
        self._known_row = known_row

    @property
    def session(self) -> Session:
        """Return the session.

        Raises:
            RunError: The runner is closed.
        """
        if self._session is None:
            raise RunError(f"running {self.spec.name}: the engine is closed.")
        return self._session

    def run(self, inputs: Inputs) -> RunOutput:
        """Return the distributions of one batch."""
        return run_sorted(self._run_whole, inputs, self._known_row)

    def _run_whole(self, inputs: Inputs) -> RunOutput:
        rows, outputs = count_rows(inputs), self._run(inputs)
        if self._transform is not None:
            return RunOutput(apply_transform(self._transform, outputs[0], rows))
        probs = cast(Floats, outputs[0])
        if probs.shape[:1] != (rows,) or probs.ndim != 2:
            raise RunError(
                f"running {self.spec.name} in ONNX Runtime gave an output of shape {probs.shape} for {rows} rows; the model "
                "mixes rows, or lost a shape guard when it was exported."
            )
        return RunOutput(probs, cast(Floats, outputs[1]) if len(outputs) > 1 else None)

    def run_raw(self, inputs: Inputs) -> NDArray[Any]:
        """Return the first output of one batch as it is."""
        return self._run(inputs)[0]

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def _run(self, inputs: Inputs) -> list[NDArray[Any]]:
        feed, size = self._binder.bind(inputs), self.spec.fixed_batch
        if size is None:
            return self._run_in_halves(feed)
        # A model for batches of `size` rows gets such batches alone.
        return _join(self._run_padded(part, size) for part in cut_inputs(feed, size))

    def _run_in_halves(self, feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run a batch; in halves if the device has no room for the whole."""
        try:
            return self._run_session(feed)
        except MemoryExhausted:
            rows = count_rows(feed)
            if rows < 2:
                raise
        return _join(self._run_in_halves(half) for half in cut_inputs(feed, -(-rows // 2)))

    def _run_padded(self, feed: dict[str, NDArray[Any]], size: int) -> list[NDArray[Any]]:
        """Run up to `size` rows on a model for as many."""
        padded = {name: pad_rows(array, size) for name, array in feed.items()}
        outputs = self._run_session(padded)
        for output in outputs:
            if output.shape[:1] != (size,):
                raise OutputError(
                    f"{self.spec.name} gives an output of shape {output.shape} for a batch of {size}, which is built into it; one row "
                    f"per sample was expected, shape ({size}, …). Keep the batch axis when the model is exported."
                )
        return [output[: count_rows(feed)] for output in outputs]

    def _run_session(self, feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        rows = count_rows(feed)
        return [restore_batch_axis(output, rows) for output in self.session.run(self._outputs, feed)]


def _join(parts: Iterable[list[NDArray[Any]]]) -> list[NDArray[Any]]:
    return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]
