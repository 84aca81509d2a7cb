"""Two ways to run rows, timed in turns as a run would use them.

Turns (A B A B …) with a little rest between them are fair on a shared machine, which changes its speed: both of a turn see
the same machine. One after the other would not.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..contracts.batch import Batch, Inputs, count_rows, cut_padded
from ..contracts.runner import Runner
from ..control.run_control import current
from .opened import OpenedModel
from .workers import Failure, run_batches

MOST_TURNS, TURN_S, REST_S = 5, 0.1, 0.05
"""A turn is as many batches as take about this long, at least one for each runner."""
CLEAR = 1.1
"""Two turns in which one way is faster by this much are enough."""
MARGIN = 1.05
"""Ratios of one way against itself lay within 5 % of 1, and the medians of five within 3 % (2 cores, 50 ms of rest)."""


@dataclass(frozen=True)
class Workload:
    """One way to run rows: runners side by side, and at least one batch of the size that they get, run again and again."""

    runners: Sequence[Runner]
    batches: Sequence[Inputs]


def workload_of(opened: OpenedModel, inputs: Inputs) -> Workload:
    """Return how an open model runs such rows: in whole batches, on all of its runners."""
    return Workload(opened.runners, cut_padded(inputs, opened.plan.batch_size))


@dataclass(frozen=True)
class SpeedComparison:
    """Two ways in turns.

    Attributes:
        rates: Rows per second of the first and of the second way, turn by turn; at least one turn.
    """

    rates: tuple[tuple[float, float], ...]

    @property
    def ratios(self) -> list[float]:
        """Return how many times as fast the second way is, turn by turn."""
        return [second / first for first, second in self.rates]

    @property
    def ratio(self) -> float:
        """Return the median of the ratios."""
        return statistics.median(self.ratios)

    def is_faster(self, margin: float = MARGIN) -> bool:
        """Return whether the second way is faster: by the margin in the median, and in all turns but one of five."""
        return self.ratio >= margin and sum(ratio <= 1 for ratio in self.ratios) <= len(self.rates) // MOST_TURNS

    def is_clear(self) -> bool:
        """Return whether further turns would say nothing else."""
        return len(self.rates) > 1 and (min(self.ratios) > CLEAR or max(self.ratios) < 1 / CLEAR)


def compare_speed(first: Workload, second: Workload, budget_s: float = math.inf) -> SpeedComparison:
    """Time two ways in turns until it is clear which is faster, or another turn would not fit into the budget.

    Args:
        first: One way.
        second: Another.
        budget_s: Seconds for all of it; one turn is timed in any case.

    Raises:
        RunError, RunEnded: A runner failed, or the run is over.
    """
    ends_at_s = time.perf_counter() + budget_s
    calls = [_prepare(way) for way in (first, second)]
    comparison = SpeedComparison(())
    for seconds in iter_turns([run for run, _ in calls]):
        rates = tuple(rows / s for (_, rows), s in zip(calls, seconds, strict=True))
        comparison = SpeedComparison((*comparison.rates, (rates[0], rates[1])))
        is_over = time.perf_counter() + sum(seconds) > ends_at_s
        if is_over or comparison.is_clear() or len(comparison.rates) == MOST_TURNS:
            break
    return comparison


def iter_turns(ways: Sequence[Callable[[], object]]) -> Iterator[list[float]]:
    """Yield the seconds that each way takes, each called after a rest, turn by turn without end."""
    while True:
        seconds = []
        for run in ways:
            time.sleep(REST_S)
            begun = time.perf_counter()
            run()
            seconds.append(max(time.perf_counter() - begun, 1e-9))
        yield seconds


def _prepare(way: Workload) -> tuple[Callable[[], object], int]:
    """Return a call that runs the batches of a turn, and how many rows these are."""
    # The first time warms up, the second says how many batches make a turn.
    count = len(way.runners)
    _run(way, count)
    begun = time.perf_counter()
    _run(way, count)
    count *= max(int(TURN_S / max(time.perf_counter() - begun, 1e-6)), 1)
    rows = sum(map(count_rows, itertools.islice(itertools.cycle(way.batches), count)))
    return lambda: _run(way, count), rows


def _run(way: Workload, count: int) -> None:
    again = itertools.islice(itertools.cycle(way.batches), count)
    batches = (Batch(np.arange(count_rows(inputs)), dict(inputs), None, 0) for inputs in again)
    try:
        run_batches(way.runners, batches, lambda batch, output: None, current())
    except Failure as failure:
        raise failure.error from None
