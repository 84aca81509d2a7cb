"""Rows of a run in ONNX that the original model runs again while the run goes on.

What the comparison before a run cannot see are values that come later. A few rows, at random places all over the data, are
kept with what ONNX gave for them, and run by the original in batches; a row that differs ends the run.
"""

from __future__ import annotations

import time

import numpy as np

from ..contracts.batch import Array, Batch
from ..contracts.runner import Runner, RunOutput
from ..conversion.batch_effects import row_distances
from ..errors import ParityError
from .labels import batch_positions, plain_id

TIME_SHARE = 0.015
"""Of the time of the run; the checks take less than 2 % of it also where the last one takes longer than expected."""
CHECK_S = 0.005
"""Rows are checked in batches that take about this long, so that calling the original costs little beside running it."""
MOST_ROWS = 256
ROWS_OF_BATCH = 8
"""Rows that are taken of one batch."""


class SpotChecks:
    """The checks of one run.

    Attributes:
        rows: Rows that were checked.
        max_tv: The largest total variation of one of them.
        seconds: How long all this took.
    """

    def __init__(self, original: Runner, tolerance: float, row_s: float) -> None:
        """Take the original, the largest total variation that counts as the same, and its seconds per row, about."""
        self.rows, self.max_tv, self.seconds = 0, 0.0, 0.0
        self._original, self._tolerance = original, tolerance
        self._rng = np.random.default_rng(0)
        self._plan_size(row_s)
        # The rows that wait: their inputs, distributions, ids and positions, in pieces.
        self._inputs: list[dict[str, Array]] = []
        self._probs: list[Array] = []
        self._names: list[tuple[int, int | str]] = []
        self._begun = time.perf_counter()

    def look_at(self, batch: Batch, output: RunOutput) -> None:
        """Take some rows of a batch, if there is time for them, and check those that wait once they are enough.

        Raises:
            ParityError: A row differs.
        """
        now = time.perf_counter()
        count = min(ROWS_OF_BATCH, self._size, len(batch))
        if self.seconds + (len(self._names) + count) * self._row_s > TIME_SHARE * (now - self._begun):
            return
        self._take(batch, output, np.sort(self._rng.choice(len(batch), count, replace=False)))
        if len(self._names) >= self._size:
            self._check()
        self.seconds += time.perf_counter() - now

    def finish(self) -> None:
        """Check the rows that wait. Raises `ParityError` if one differs."""
        now = time.perf_counter()
        if self._names:
            self._check()
        self.seconds += time.perf_counter() - now

    def to_dict(self) -> dict[str, int | float]:
        """Return the record of the checks, as JSON types."""
        return {"rows": self.rows, "max_tv": self.max_tv, "seconds": self.seconds}

    def _plan_size(self, row_s: float) -> None:
        self._row_s, self._size = row_s, int(min(max(CHECK_S / max(row_s, 1e-9), 1), MOST_ROWS))

    def _take(self, batch: Batch, output: RunOutput, indices: Array) -> None:
        inputs = {name: array[indices] for name, array in batch.inputs.items()}
        if self._inputs and any(a.shape[1:] != self._inputs[0][name].shape[1:] for name, a in inputs.items()):
            # Batches that are padded one by one differ in length.
            self._check()
        self._inputs.append(inputs)
        self._probs.append(output.probs[indices])
        positions = batch_positions(batch) if batch.bad else range(batch.start, batch.stop)
        self._names += [(positions[i], plain_id(batch.ids[i])) for i in indices.tolist()]

    def _check(self) -> None:
        begun = time.perf_counter()
        names, probs = self._names, np.concatenate(self._probs).astype(np.float64)
        inputs = {name: np.concatenate([part[name] for part in self._inputs]) for name in self._inputs[0]}
        self._inputs, self._probs, self._names = [], [], []
        expected = self._original.run(inputs).probs.astype(np.float64)
        distances = row_distances(expected, probs)
        self.rows += len(names)
        self.max_tv = max(self.max_tv, float(distances.max()))
        self._plan_size((time.perf_counter() - begun) / len(names))
        worst = int(distances.argmax())
        if distances[worst] > self._tolerance:
            position, row_id = names[worst]
            raise ParityError(
                f"row {position} (id {row_id!r}): the exported model differs from the original by a total variation of "
                f"{distances[worst]:.2e}, above the tolerance of {self._tolerance:.0e}, though the rows that were compared before "
                "the run agree. Rows before it may differ as well: begin again with runner='native' (--runner native)."
            )
