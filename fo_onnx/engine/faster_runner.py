"""Never slower than what was given: the exported model and the original are timed on the first rows before a long run.

Both run a few batches as the run would, in turns A B A B with a rest between: machines are shared and change their speed, and
a pair of runs right after one another sees the same machine. What was measured is kept for the same model on this machine, so
that the same job is run by the same runner again.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..contracts.batch import Batch, Inputs, count_rows
from ..contracts.runner import Runner, RunOutput
from ..control.run_control import current
from ..errors import RunError, first_line
from ..runtime.measurements import Measurements
from ..runtime.opened import OpenedModel
from ..runtime.workers import Failure, run_in_threads

log = logging.getLogger("fo_onnx.engine")
LEAST_RUN_S = 2.0
"""Runs that are predicted to take less natively are not worth the time that the comparison takes."""
BUDGET_S, BUDGET_SHARE = 2.0, 0.05
"""The comparison takes no longer than this many seconds or this share of the run, whichever is more, but one pair is timed."""
MOST_PAIRS, TURN_S, REST_S = 5, 0.1, 0.05
"""A turn is as many batches as take about this long, at least one for each session."""
CLEAR = 1.1
"""Two pairs in which one way is faster by this much are enough."""
MARGIN = 0.03
"""Differences up to this are noise: a path timed against itself in such turns came to 0.97 to 1.01."""
_KIND = "runner-speed"


@dataclass(frozen=True)
class RunnerSpeed:
    """How fast the original and the exported model are, in rows per second.

    Attributes:
        native_rows_per_s: The original's median.
        onnx_rows_per_s: The exported model's.
        ratio: The median of ONNX over native, pair by pair.
        pairs: Pairs of turns.
        is_native_faster: Whether the original was faster in every pair, and by more than the noise in the median.
    """

    native_rows_per_s: float
    onnx_rows_per_s: float
    ratio: float
    pairs: int
    is_native_faster: bool

    @property
    def reason(self) -> str:
        """Return why ONNX is left, in words."""
        return (
            f"it is faster: on the first rows of the data it ran {self.native_rows_per_s:.3g} rows/s and the exported model "
            f"{self.onnx_rows_per_s:.3g}, {self.ratio:.2f} times as many"
        )

    @property
    def record(self) -> dict[str, float | None]:
        """Return what is recorded of it."""
        return {
            "native_rows_per_s": self.native_rows_per_s,
            "onnx_rows_per_s": self.onnx_rows_per_s,
            "ratio": self.ratio,
            "export_s": None,
        }


def compare_pairs(pairs: list[tuple[float, float]]) -> RunnerSpeed:
    """Return what pairs of turns come to; a pair is the rows per second natively and in ONNX."""
    ratios = [onnx / native for native, onnx in pairs]
    ratio = statistics.median(ratios)
    native, onnx = (statistics.median(rates) for rates in zip(*pairs, strict=True))
    return RunnerSpeed(native, onnx, ratio, len(pairs), all(r < 1 for r in ratios) and ratio < 1 - MARGIN)


def take_turns(
    run_native: Callable[[], int], run_onnx: Callable[[], int], budget_s: float,
    *, clock: Callable[[], float] = time.perf_counter, rest: Callable[[float], None] = time.sleep,
) -> list[tuple[float, float]]:  # fmt: skip
    """Time two ways in turns, until another pair would not fit into the budget any more.

    Args:
        run_native: Runs some rows natively, and returns how many.
        run_onnx: Likewise in ONNX.
        budget_s: Seconds for all pairs. One pair is timed in any case.
        clock: Seconds from some time on.
        rest: Sleeps.

    Returns:
        Rows per second natively and in ONNX, pair by pair.
    """
    pairs: list[tuple[float, float]] = []
    begun = clock()
    while True:
        pair_begun, rates = clock(), []
        for run in (run_native, run_onnx):
            rest(REST_S)
            turn_begun = clock()
            rows = run()
            rates.append(rows / max(clock() - turn_begun, 1e-9))
        pairs.append((rates[0], rates[1]))
        now = clock()
        ratios = [rate / other for rate, other in pairs]
        is_clear = len(pairs) > 1 and (min(ratios) > CLEAR or max(ratios) < 1 / CLEAR)
        if is_clear or len(pairs) == MOST_PAIRS or (now - begun) + (now - pair_begun) > budget_s:
            return pairs


def measure_speed(
    opened: OpenedModel, native: Runner, inputs: Inputs, batch_size: int, native_s: float
) -> RunnerSpeed | None:
    """Time a few batches of both ways as the run would run them.

    Args:
        opened: The exported model, with its sessions.
        native: The original.
        inputs: Rows of the data.
        batch_size: That of a native run.
        native_s: What the whole run is predicted to take natively.

    Returns:
        What was measured; ``None`` if a runner failed, which the run itself deals with.
    """
    begun = time.perf_counter()
    sessions, onnx_batch = len(opened.runners), _as_batch(inputs, opened.plan.batch_size)
    native_batch = _as_batch(inputs, batch_size)

    def run_onnx(rounds: int) -> int:
        batches = [onnx_batch] * (rounds * sessions)
        run_in_threads(opened.runners, iter(batches), _drop, current())
        return len(onnx_batch) * len(batches)

    def run_native(rounds: int) -> int:
        for _ in range(rounds):
            native.run(native_batch.inputs)
        return len(native_batch) * rounds

    def rounds_of_turn(run: Callable[[int], int]) -> int:
        turn_begun = time.perf_counter()
        run(1)
        return max(int(TURN_S / max(time.perf_counter() - turn_begun, 1e-9)), 1)

    try:
        # The first round of each warms it up, and says how many make a turn.
        native_rounds, onnx_rounds = rounds_of_turn(run_native), rounds_of_turn(run_onnx)
        left_s = max(BUDGET_S, BUDGET_SHARE * native_s) - (time.perf_counter() - begun)
        return compare_pairs(take_turns(lambda: run_native(native_rounds), lambda: run_onnx(onnx_rounds), left_s))
    except (Failure, RunError):
        return None


def read_speed(key: Mapping[str, Any]) -> RunnerSpeed | None:
    """Return what was measured on this machine before, or ``None``."""
    record = Measurements.of_user().read(_KIND, key)
    try:
        return None if record is None else RunnerSpeed(**record)
    except TypeError as err:
        # Another version may have kept other figures.
        log.info("the speeds that were measured before are not usable: %s", first_line(err))
        return None


def keep_speed(key: Mapping[str, Any], speed: RunnerSpeed) -> None:
    """Keep what was measured, so that the same job is run by the same runner again."""
    Measurements.of_user().keep(_KIND, key, asdict(speed))


def _as_batch(inputs: Inputs, rows: int) -> Batch:
    """Return a batch of `rows` rows: the first ones, and from the beginning again if there are fewer."""
    indices = np.arange(rows) % count_rows(inputs)
    return Batch(indices, {name: array[indices] for name, array in inputs.items()}, None, 0)


def _drop(batch: Batch, output: RunOutput | None) -> None:
    """Take a result that is not needed."""
