"""Runs batches: what a runner, and a model in its own framework, must do."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .batch import Array, Inputs
from .spec import ModelSpec


@dataclass(frozen=True)
class RunOutput:
    """What one batch becomes.

    Attributes:
        probs: (n, k) float32. Rows that are no distribution are NaN.
        logits: (n, k) float32 where they were asked for, else ``None``.
        refused: Why, for rows of the batch that the model refuses, by their index; they are NaN.
    """

    probs: NDArray[np.float32]
    logits: NDArray[np.float32] | None = None
    refused: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CallTime:
    """How long calls of a model take.

    Attributes:
        rows: Rows of a call.
        seconds: Seconds of a call.
    """

    rows: int
    seconds: float


class Runner(Protocol):
    """Runs batches.

    Attributes:
        spec: The model.
        device: Where it runs.
        kind: ``"onnx"`` or ``"native"``.
    """

    spec: ModelSpec
    device: str
    kind: str

    def run(self, inputs: Inputs) -> RunOutput:
        """Return the distributions of one batch of any size, row by row in order. Do not change `inputs`."""

    def close(self) -> None:
        """Free what it holds. May be called twice."""


class RawModel(Protocol):
    """A model in its own framework, as arrays in and an array out. The core adds the probability head.

    Attributes:
        spec: The model; `ModelSpec.output_kind` is ``None``.
        device: Where it runs.
        original: The same model in its own precision, where `forward` runs a float32 copy of it; else ``None``.
    """

    spec: ModelSpec
    device: str

    @property
    def original(self) -> RawModel | None: ...

    def forward(self, inputs: Inputs) -> Array:
        """Return the raw output (n, …) of a batch of `n` rows, in evaluation mode. Raise `OutputError` for what is no array."""

    def close(self) -> None:
        """Free what it holds. May be called twice."""


@runtime_checkable
class LimitsThreads(Protocol):
    """A `RawModel` whose calls may run on one thread, so that they do not wait for others beside busy sessions."""

    def one_thread(self) -> AbstractContextManager[None]:
        """Let calls within run on one thread."""


def one_thread(model: RawModel) -> AbstractContextManager[None]:
    """Let calls of a model within run on one thread, if it offers that."""
    return model.one_thread() if isinstance(model, LimitsThreads) else nullcontext()
