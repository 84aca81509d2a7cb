"""The two runners: a session of ONNX Runtime, and a model in its own framework.

Both give distributions for a batch; where the head stands differs. In ONNX it is fused into the graph; for native models,
and for an `output_transform`, it is applied here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import OutputError, RunError
from ..probabilities import apply_head, check_raw_shape
from ..protocols import Inputs, RawModel, RunOutput
from ..run_control import current
from ..spec import ModelSpec
from .binding import Binding
from .session import MemoryExhausted, Session

Floats = NDArray[np.float32]
Transform = Callable[[NDArray[Any]], Any]


class OnnxRunner:
    """Runs batches in one session; pads and slices where the file has a fixed batch size."""

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
        """Takes a session.

        Args:
            session: The session; closed with the runner.
            spec: The model.
            device: Where the session runs.
            probs: The output with distributions, or with the raw output where a `transform` is given.
            logits: The output with logits where they shall be kept.
            transform: Replaces the head.
        """
        self.spec = spec
        self.device = device
        self._session: Session | None = session
        self._outputs = [probs] if logits is None else [probs, logits]
        self._binding = Binding(spec)
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
        """Distributions of one batch."""
        feed = self._binding.feed(inputs)
        rows = len(next(iter(feed.values())))
        found = self._fixed(feed, rows, self.spec.fixed_batch) if self.spec.fixed_batch else self._fitting(feed, rows)
        if self._transform is not None:
            return RunOutput(transformed(self._transform, found[0], rows))
        probs = cast(Floats, found[0])
        if probs.shape[:1] != (rows,) or probs.ndim != 2:
            raise RunError(
                f"running {self.spec.name} in ONNX Runtime gave an output of shape {probs.shape} for {rows} rows; the model "
                "mixes rows, or lost a shape guard when it was exported."
            )
        return RunOutput(probs, cast(Floats, found[1]) if len(found) > 1 else None)

    def run_raw(self, inputs: Inputs) -> NDArray[Any]:
        """The first output of one batch as it is."""
        feed = self._binding.feed(inputs)
        rows = len(next(iter(feed.values())))
        size = self.spec.fixed_batch
        return (self._fixed(feed, rows, size) if size else self._fitting(feed, rows))[0]

    def close(self) -> None:
        """Frees the session."""
        self._session = None

    def _fitting(self, feed: dict[str, NDArray[Any]], rows: int) -> list[NDArray[Any]]:
        """Runs a batch, in halves where the device has no room for the whole."""
        try:
            return self.session.run(self._outputs, feed)
        except MemoryExhausted:
            if rows < 2:
                raise
            half = rows // 2
        parts = [
            self._fitting({k: v[s] for k, v in feed.items()}, n)
            for s, n in ((slice(half), half), (slice(half, None), rows - half))
        ]
        return [np.concatenate(pair) for pair in zip(*parts, strict=True)]

    def _fixed(self, feed: dict[str, NDArray[Any]], rows: int, size: int) -> list[NDArray[Any]]:
        """Runs a batch of any size on a model for `size` rows: the last slice is padded with its last row."""
        parts = []
        for start in range(0, rows, size):
            part = {k: v[start : start + size] for k, v in feed.items()}
            short = size - min(size, rows - start)
            if short:
                part = {k: np.concatenate([v, np.repeat(v[-1:], short, axis=0)]) for k, v in part.items()}
            parts.append([a[: size - short] for a in self.session.run(self._outputs, part)])
        return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]


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
        known: Sequence[tuple[Inputs, NDArray[Any]]] = (),
    ) -> None:
        """Takes a model.

        Args:
            raw: The model; closed with the runner.
            spec: The same with the decision on its output.
            keep_logits: Whether logits are kept.
            transform: Replaces the head.
            known: Batches whose raw output is known, which are expected to come first.
        """
        self.spec = spec
        self.device = raw.device
        self._known = list(known)
        self._known_lock = threading.Lock()
        self._raw = raw
        self._keep_logits = keep_logits
        self._transform = transform

    def run(self, inputs: Inputs) -> RunOutput:
        """Distributions of one batch."""
        rows = len(next(iter(inputs.values())))
        raw = self._forward(inputs)
        if self._transform is not None:
            return RunOutput(transformed(self._transform, raw, rows))
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

    def close(self) -> None:
        """Frees the model."""
        self._raw.close()

    def _forward(self, inputs: Inputs) -> NDArray[Any]:
        with self._known_lock:
            if self._known:
                batch, out = self._known.pop(0)
                if batch.keys() == inputs.keys() and all(np.array_equal(batch[k], inputs[k]) for k in batch):
                    return out
                self._known = []
        return self._raw.forward(inputs)


def transformed(transform: Transform, raw: NDArray[Any], rows: int) -> Floats:
    """What an ``output_transform`` makes of a raw output, checked.

    Raises:
        OutputError: It gives no (rows, k) array of numbers.
        RunEnded: The run that this is called for is over.
    """
    try:
        with current().calling("the call of output_transform="):
            probs = np.asarray(transform(raw), dtype=np.float32)
    except Exception as err:
        raise OutputError(
            f"output_transform= failed on a raw output of shape {raw.shape}: {type(err).__name__}: {err}"
        ) from err
    if probs.ndim != 2 or len(probs) != rows:
        raise OutputError(
            f"output_transform= gave an array of shape {probs.shape} for a raw output of shape {raw.shape}; distributions of "
            f"shape ({rows}, classes) were expected."
        )
    return cast(Floats, apply_head(probs, "probs")[0])
