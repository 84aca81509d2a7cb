"""A path that is ready to be timed: opened, checked against the model's rows, at the best of its batch sizes."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..contracts.batch import Inputs, count_rows, first_row
from ..distributions.probabilities import total_variation
from .paths import BenchPath, Probs, RunningPath
from .result import PathResult

TOLERANCE = 1e-3
"""Total variation of a path's rows from those of the reference. Beyond it it computes something else, and is not timed."""
TURN_S, LONGEST_TURN_S = 0.5, 2.0
"""A turn of the quickest path lasts about this long, if the slowest takes no longer than the second; rows are repeated where the data
have too few."""
LEAST_BATCHES = 8
"""Whatever it takes, a turn has so many batches for each of the sessions of a path that chooses them itself, if there are as many rows:
with a few, the slowest core would decide."""


@dataclass(frozen=True)
class TimedPath:
    """A path that is ready to run.

    Attributes:
        running: What runs it; ``None`` if it failed.
        result: What is known of it, with its error if it failed.
        batch_sizes: The sizes to try; ``(None,)`` if it cuts batches itself.
    """

    running: RunningPath | None
    result: PathResult
    batch_sizes: tuple[int | None, ...]

    def call(self, inputs: Inputs) -> Callable[[], Probs]:
        """Return what runs all rows once."""
        assert self.running is not None, f"{self.result.name} failed: {self.result.error}"
        run, size = self.running.run, self.result.batch_size
        return lambda: run(inputs, size)

    def describe(self) -> Mapping[str, Any]:
        """Return how the path ran, if it decides on that itself."""
        return {} if self.running is None else self.running.describe()


def open_checked(
    path: BenchPath, rows: Inputs, expected: Probs, stack: contextlib.ExitStack, batch_sizes: Sequence[int]
) -> TimedPath:
    """Prepare a path and compare its rows; what it raises becomes its result.

    Args:
        path: The path.
        rows: The rows to compare.
        expected: What the model gives for them (n, k).
        stack: Closes the path.
        batch_sizes: The sizes to try, if the path does not cut batches itself.
    """
    sizes: tuple[int | None, ...] = tuple(batch_sizes) if path.takes_batches else (None,)
    result = PathResult(path.name, is_native=path.is_native, batch_size=sizes[0])
    begun = time.perf_counter()
    try:
        running = stack.enter_context(path.open())
        probs = running.run(rows, sizes[0])
    except Exception as err:
        # A framework, a compiler within it or the model may raise what they like; the other paths run all the same.
        return TimedPath(None, replace(result, error=f"{type(err).__name__}: {err}"), sizes)
    result = replace(result, open_s=time.perf_counter() - begun)
    if probs.shape != expected.shape:
        error = f"gives rows of shape {probs.shape}, not {expected.shape}"
        return TimedPath(None, replace(result, error=error), sizes)
    result = replace(result, max_tv=float(total_variation(expected, probs).max()))
    # A NaN on both sides is the model's own answer.
    if result.max_tv is not None and result.max_tv > TOLERANCE:
        error = f"its rows differ from the model's by a total variation of up to {result.max_tv:.1e}; it was not timed"
        return TimedPath(None, replace(result, error=error), sizes)
    one = first_row(rows)
    running.run(one, 1)
    return TimedPath(running, replace(result, first_row_s=_seconds(lambda: running.run(one, 1))), sizes)


def count_turn_rows(inputs: Inputs, paths: Sequence[TimedPath], largest: int, most: int) -> int:
    """Return how many rows make a turn: whole batches of the largest size, if they are not more than `most`."""
    # A few rows of a quick path take the time of the call alone.
    rows = largest
    while True:
        few = take_rows(inputs, rows)
        row_s = [min(_seconds(path.call(few)) for _ in range(3)) / rows for path in paths]
        if min(row_s) * rows >= TURN_S / 10 or max(row_s) * rows >= LONGEST_TURN_S / 10 or rows * 4 > most:
            break
        rows *= 4
    plans = [path.describe() for path in paths]
    least = max(LEAST_BATCHES * plan.get("batch_size", 0) * plan.get("sessions", 0) for plan in plans)
    rows_of_turn = max(min(TURN_S / min(row_s), LONGEST_TURN_S / max(row_s)), min(least, count_rows(inputs)))
    batches: int = math.ceil(rows_of_turn / largest)
    return min(max(batches, 1) * largest, most)


def take_rows(inputs: Inputs, rows: int) -> Inputs:
    """Return so many rows from the beginning on, which is returned to when there are fewer."""
    places = np.arange(rows) % count_rows(inputs)
    return {name: array[:rows] if rows <= len(array) else array[places] for name, array in inputs.items()}


def choose_batch_size(path: TimedPath, sample: Inputs) -> TimedPath:
    """Return the path with the quickest of its batch sizes, over as many rows as the largest has."""
    if path.batch_sizes == (None,):
        return path
    rates: dict[str, float] = {}
    for size in path.batch_sizes:
        sized = replace(path, result=replace(path.result, batch_size=size))
        _seconds(sized.call(sample))
        rates[str(size)] = count_rows(sample) / min(_seconds(sized.call(sample)) for _ in range(3))
    best = int(max(rates, key=lambda size: rates[size]))
    return replace(path, result=replace(path.result, batch_size=best, by_batch=rates))


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
