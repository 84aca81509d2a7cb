"""Rows that a model refuses: an unknown category, an id past the table. Each is that row's fault, not its batch's.

A batch that fails is run in halves, and those in halves again, until the rows are known that fail on their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Inputs, count_rows
from ..contracts.runner import RunOutput
from ..errors import RunError
from .session import MemoryExhausted

T = TypeVar("T")
RowIndices = NDArray[np.int64]
MOST_REFUSED = 16
"""If the first rows that are tried alone are all refused, the model may be broken, or the data another model's."""


@dataclass(frozen=True)
class SplitRun(Generic[T]):
    """A batch that was run in parts.

    Attributes:
        parts: Rows of the batch by index, with what the model gave for them together.
        refused: What the model said, by the index of each row that it refuses.
    """

    parts: list[tuple[RowIndices, T]]
    refused: dict[int, RunError]

    @property
    def taken(self) -> RowIndices:
        """Return the indices of the rows that ran, in order."""
        return np.sort(np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in self.parts)]))


def run_without_refused(
    run: Callable[[Inputs], T], inputs: Inputs, error: RunError, known_row: Inputs | None = None
) -> SplitRun[T]:
    """Run a batch that has failed again, in halves, without the rows that fail on their own.

    Args:
        run: Runs a batch.
        inputs: The batch.
        error: What it raised for the whole batch.
        known_row: A row that the model takes. If no row runs it is run, since the fault may be the model's.

    Raises:
        RunError: No row runs, and neither does `known_row`, if there is one.
    """
    parts: list[tuple[RowIndices, T]] = []
    refused: dict[int, RunError] = {}

    def require_model() -> None:
        if known_row is None:
            raise error
        run(known_row)

    def split(rows: RowIndices, error: RunError) -> None:
        if isinstance(error, MemoryExhausted):
            raise error
        if len(rows) == 1:
            refused[int(rows[0])] = error
            if not parts and len(refused) == MOST_REFUSED:
                require_model()
            return
        for half in np.array_split(rows, 2):
            try:
                parts.append((half, run({name: array[half] for name, array in inputs.items()})))
            except RunError as err:
                split(half, err)

    rows = np.arange(count_rows(inputs))
    # Refused rows may stand together, at the beginning above all.
    split(rows if known_row is not None else np.random.default_rng(0).permutation(rows), error)
    if not parts:
        require_model()
    return SplitRun(parts, refused)


def run_sorted(run: Callable[[Inputs], RunOutput], inputs: Inputs, known_row: Inputs | None) -> RunOutput:
    """Run a batch; the rows that the model refuses are NaN, with its words, if it takes others.

    Raises:
        RunError: It takes none of the rows, nor `known_row`, or this is not known.
    """
    try:
        return run(inputs)
    except RunError as err:
        if known_row is None:
            raise
        split = run_without_refused(run, inputs, err, known_row)
    if not split.parts:
        # Their number of classes is that of another row.
        split.parts.append((np.empty(0, np.int64), run(known_row)))
    rows, first = count_rows(inputs), split.parts[0][1]
    probs = np.full((rows, first.probs.shape[1]), np.nan, np.float32)
    logits = None if first.logits is None else np.full_like(probs, np.nan)
    for indices, output in split.parts:
        probs[indices] = output.probs[: len(indices)]
        if logits is not None and output.logits is not None:
            logits[indices] = output.logits[: len(indices)]
    return RunOutput(probs, logits, {index: str(error) for index, error in split.refused.items()})
