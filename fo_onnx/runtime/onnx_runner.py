"""Runs batches in a session of ONNX Runtime, where the head is part of the graph."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Inputs
from ..contracts.runner import RunOutput
from ..contracts.spec import ModelSpec
from ..errors import RunError
from .inputs import InputBinder
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
    ) -> None:
        """Take a session.

        Args:
            session: The session; closed with the runner.
            spec: The model.
            device: Where the session runs.
            probs: The output with distributions; with a `transform`, the raw output.
            logits: The output with logits, if they are kept.
            transform: Replaces the head.
        """
        self.spec = spec
        self.device = device
        self._session: Session | None = session
        self._outputs = [probs] if logits is None else [probs, logits]
        self._binder = InputBinder(spec)
        self._transform = transform

    @property
    def session(self) -> Session:
        """The session.

        Raises:
            RunError: The runner is closed.
        """
        if self._session is None:
            raise RunError(f"running {self.spec.name}: the engine is closed.")
        return self._session

    def run(self, inputs: Inputs) -> RunOutput:
        """Return the distributions of one batch."""
        feed = self._binder.bind(inputs)
        rows = len(next(iter(feed.values())))
        outputs = self._run(feed, rows)
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
        feed = self._binder.bind(inputs)
        rows = len(next(iter(feed.values())))
        return self._run(feed, rows)[0]

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def _run(self, feed: dict[str, NDArray[Any]], rows: int) -> list[NDArray[Any]]:
        size = self.spec.fixed_batch
        return self._run_padded(feed, rows, size) if size else self._run_in_halves(feed, rows)

    def _run_in_halves(self, feed: dict[str, NDArray[Any]], rows: int) -> list[NDArray[Any]]:
        """Run a batch; in halves if the device has no room for the whole."""
        try:
            return self.session.run(self._outputs, feed)
        except MemoryExhausted:
            if rows < 2:
                raise
            half = rows // 2
        parts = [
            self._run_in_halves({k: v[s] for k, v in feed.items()}, n)
            for s, n in ((slice(half), half), (slice(half, None), rows - half))
        ]
        return [np.concatenate(pair) for pair in zip(*parts, strict=True)]

    def _run_padded(self, feed: dict[str, NDArray[Any]], rows: int, size: int) -> list[NDArray[Any]]:
        """Run a batch of any size on a model for `size` rows: the last slice is padded with its last row."""
        parts = []
        for start in range(0, rows, size):
            part = {k: v[start : start + size] for k, v in feed.items()}
            short = size - min(size, rows - start)
            if short:
                part = {k: np.concatenate([v, np.repeat(v[-1:], short, axis=0)]) for k, v in part.items()}
            parts.append([a[: size - short] for a in self.session.run(self._outputs, part)])
        return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]
