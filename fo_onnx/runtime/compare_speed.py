"""Two sets of runners over the same batches, timed in turns, as a run would use them.

Turns (A B A B …) with a little rest between them are fair on a busy machine, where one after the other is not.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Sequence

import numpy as np

from ..contracts.batch import Batch, Inputs, count_rows
from ..contracts.runner import Runner
from ..control.run_control import current
from .workers import Failure, run_in_threads

TURNS = 5
TURN_S = 0.1
REST_S = 0.05
LEAST_GAIN = 1.05
"""Ratios of one set of runners against itself lay within 5 % of 1 (2 cores, 50 ms of rest)."""


def compare_speed(first: Sequence[Runner], second: Sequence[Runner], batches: Sequence[Inputs]) -> list[float]:
    """Return how many times as fast the second runners are, turn by turn.

    Args:
        first: Runners side by side.
        second: Others.
        batches: At least one, of the run's size; they are run again and again.

    Raises:
        RunError, RunEnded: A runner failed, or the run is over.
    """
    # The first time warms up, the second says how many batches a turn takes.
    count = 2 * max(len(first), len(second))
    _time(second, batches, count)
    _time(first, batches, count)
    count = max(count, int(count * TURN_S / max(_time(first, batches, count), 1e-6)))
    ratios = []
    for _ in range(TURNS):
        seconds = []
        for runners in (first, second):
            time.sleep(REST_S)
            seconds.append(_time(runners, batches, count))
        ratios.append(seconds[0] / max(seconds[1], 1e-9))
    return ratios


def is_faster(ratios: Sequence[float]) -> bool:
    """Return whether ratios are beyond noise: by 5 % in the median, and above 1 in all turns but one."""
    return statistics.median(ratios) >= LEAST_GAIN and sum(ratio > 1 for ratio in ratios) >= len(ratios) - 1


def _time(runners: Sequence[Runner], batches: Sequence[Inputs], count: int) -> float:
    """Return the seconds that `count` batches take."""
    again = itertools.islice(itertools.cycle(batches), count)
    work = (Batch(np.arange(count_rows(inputs)), dict(inputs), None, 0) for inputs in again)
    begun = time.perf_counter()
    try:
        run_in_threads(runners, work, lambda batch, output: None, current())
    except Failure as failure:
        raise failure.error from None
    return time.perf_counter() - begun
