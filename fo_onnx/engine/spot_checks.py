"""Rows of a run in ONNX that the original model runs again while the run goes on.

What the comparison before a run cannot see are values that come later. Some rows, at random places all over the data, wait
with what ONNX gave for them until the original runs them together; a row that differs ends the run. In a lower precision rows
differ by design: there more rows beyond the budget than chance explains end it.

Beside running sessions a call of the original takes several times as long as alone, on one thread too. So the rows that wait are run while
the run goes on only if there is time for that, and those that are left after its last batch. How long a check takes is measured while it
runs: when its time is up, it ends with the rows that it has reached, which are any of those that waited.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Array, Batch, cut_padded, join_arrays
from ..contracts.runner import CallTime, RunOutput
from ..conversion.batch_effects import row_distances
from ..errors import ParityError, RunError, warn_at_caller
from ..runtime.native_runner import NativeRunner
from .labels import batch_positions, plain_id

TIME_SHARE = 0.019
"""Of the time of the run. The checks take less than 2 % of it also if the last call of one takes longer than those before it."""
COLD_S = 0.001
"""What the first call of a check takes beside, since the processor's caches hold what the sessions work on."""
CHECK_S = 0.005
"""Rows wait until they would take about this long alone, so that a call costs little beside its rows."""
BESIDE_SESSIONS = 4.0
"""How many times as long the first call beside running sessions is expected to take; later ones are measured."""
MOST_ROWS = 128
MOST_BYTES = 64 << 20
ROWS_OF_BATCH = 32
"""Rows that are taken of one batch, at most."""
ALLOWED_ROWS, ALLOWED_SHARE = 5, 0.02
"""So many rows, and this share of those that were checked, may be beyond the budget of a lower precision. It is the 99th
percentile: if 1 % of all rows are beyond it, more than these are found by chance once in 10,000 runs."""


@dataclass(frozen=True)
class _Waiting:
    """Some rows of one batch: their places in it, their inputs, and what ONNX gave for them."""

    batch: Batch
    indices: NDArray[np.int64]
    inputs: dict[str, Array]
    probs: NDArray[np.float32]


class SpotChecks:
    """The checks of one run.

    Attributes:
        rows: Rows that were checked.
        max_tv: The largest total variation of one of them.
        beyond: Rows beyond the budget of a lower precision.
        seconds: How long all this took.
        failure: Why there are no more checks: the original failed, out of memory for example; ``None`` if it did not.
    """

    def __init__(
        self, original: NativeRunner, tolerance: float, alone: CallTime, tv_budget: float | None = None
    ) -> None:
        """Take the original.

        Args:
            original: The original.
            tolerance: The largest total variation that counts as the same.
            alone: How long its calls take alone. Each call has as many rows as these, since some frameworks prepare each size anew.
            tv_budget: In a lower precision, what 99 % of the rows may differ by from float32.
        """
        self.rows, self.max_tv, self.seconds, self.beyond = 0, 0.0, 0.0, 0
        self._tv_budget = tv_budget
        self.failure: str | None = None
        self._original, self._tolerance, self._alone = original, tolerance, alone
        self._factor = BESIDE_SESSIONS
        self._rng = np.random.default_rng(0)
        most_calls = max(MOST_ROWS // alone.rows, 1)
        self._size = alone.rows * int(min(max(CHECK_S / max(alone.seconds, 1e-9), 1), most_calls))
        self._waiting: list[_Waiting] = []
        self._count = self._bytes = 0
        self._begun = time.perf_counter()

    def look_at(self, batch: Batch, output: RunOutput) -> None:
        """Take some rows of a batch if there is time for them, and check those that wait if there is time for that.

        Raises:
            ParityError: A row differs.
        """
        if self.failure is not None:
            return
        now = time.perf_counter()
        left_s = self._left_s(now)
        count = min(ROWS_OF_BATCH, self._size, len(batch))
        if self._seconds_alone(self._count + count) > left_s:
            return
        if self._bytes < MOST_BYTES:
            self._take(batch, output, self._rng.integers(len(batch), size=count))
        if self._count >= self._size and self._factor * self._seconds_alone(self._count) <= left_s:
            before, begun = self.rows, time.perf_counter()
            self._check()
            self._factor = (time.perf_counter() - begun) / self._seconds_alone(self.rows - before)
        self.seconds += time.perf_counter() - now

    def finish(self) -> None:
        """Check the rows that wait, while there is time; nothing runs beside now. Raises `ParityError` if one differs."""
        now = time.perf_counter()
        if self._waiting and self.failure is None:
            self._check()
        self.seconds += time.perf_counter() - now

    def to_dict(self) -> dict[str, Any]:
        """Return the record of the checks, as JSON types."""
        beyond = {} if self._tv_budget is None else {"beyond_budget": self.beyond}
        return {"rows": self.rows, "max_tv": self.max_tv, "seconds": self.seconds, "failure": self.failure} | beyond

    def _left_s(self, now: float) -> float:
        return TIME_SHARE * (now - self._begun) - self.seconds

    def _seconds_alone(self, rows: int) -> float:
        return COLD_S + -(-rows // self._alone.rows) * self._alone.seconds

    def _take(self, batch: Batch, output: RunOutput, indices: NDArray[np.int64]) -> None:
        inputs = {name: array[indices] for name, array in batch.inputs.items()}
        if self._waiting and any(a.shape[1:] != self._waiting[0].inputs[name].shape[1:] for name, a in inputs.items()):
            # Batches that are padded one by one differ in length.
            self._check()
        self._waiting.append(
            _Waiting(Batch(batch.ids, {}, None, batch.start, batch.bad), indices, inputs, output.probs[indices])
        )
        self._count += len(indices)
        self._bytes += sum(array.nbytes for array in inputs.values())

    def _check(self) -> None:
        now = time.perf_counter()
        until = now + self._left_s(now)
        waiting = self._waiting
        self._waiting, self._count, self._bytes = [], 0, 0
        self._rng.shuffle(waiting)
        probs = np.concatenate([rows.probs for rows in waiting]).astype(np.float64)
        inputs = {name: join_arrays([rows.inputs[name] for rows in waiting]) for name in waiting[0].inputs}
        try:
            with self._original.one_thread():
                outputs: list[NDArray[np.float32]] = []
                for part in cut_padded(inputs, self._alone.rows):
                    begun = time.perf_counter()
                    outputs.append(self._original.run(part).probs)
                    ended = time.perf_counter()
                    if ended + (ended - begun) / 2 > until:
                        break
        except RunError as err:
            # The rows of the run are ONNX's, which goes on.
            self.failure = str(err)
            warn_at_caller(f"no more rows of this run are spot-checked: {err}")
            return
        expected = np.concatenate(outputs)[: len(probs)].astype(np.float64)
        distances = row_distances(expected, probs[: len(expected)])
        self.rows += len(expected)
        self.max_tv = max(self.max_tv, float(distances.max()))
        if self._tv_budget is not None:
            self.beyond += int((distances > self._tv_budget + self._tolerance).sum())
            if self.beyond > ALLOWED_ROWS + ALLOWED_SHARE * self.rows:
                raise ParityError(
                    f"{self.beyond} of {self.rows} rows that the original ran again differ from it by a total variation above "
                    f"tv_budget={self._tv_budget:g}, though 99 % of the rows that judged the precision before the run do not: the "
                    "rows of the data are not alike. Begin again with precision='float32' (--precision float32)."
                )
        elif self.max_tv > self._tolerance:
            row = int(distances.argmax())
            position, row_id = _find_row(waiting, row)
            raise ParityError(
                f"row {position} (id {row_id!r}): the exported model differs from the original by a total variation of "
                f"{distances[row]:.2e}, above the tolerance of {self._tolerance:.0e}, though the rows that were compared before "
                "the run agree. Rows before it may differ as well: begin again with runner='native' (--runner native)."
            )


def _find_row(waiting: list[_Waiting], row: int) -> tuple[int, int | str]:
    """Return position and id of a row by its number among those that waited."""
    for rows in waiting:
        if row < len(rows.indices):
            index = int(rows.indices[row])
            return batch_positions(rows.batch)[index], plain_id(rows.batch.ids[index])
        row -= len(rows.indices)
    raise IndexError(row)
