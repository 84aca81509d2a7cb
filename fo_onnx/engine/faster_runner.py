"""Never slower than what was given: the exported model and the original are timed on the first rows before a long run.

What was measured is kept for the same model on this machine, so that the same job is run by the same runner again.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..contracts.batch import Inputs, count_rows
from ..contracts.batch_plan import BY_RULE, BatchPlan
from ..contracts.runner import Runner
from ..errors import FoOnnxError, first_line
from ..runtime.compare_speed import SpeedComparison, Workload, compare_speed
from ..runtime.measurements import Measurements
from ..runtime.opened import OpenedModel

log = logging.getLogger("fo_onnx.engine")
LEAST_RUN_S = 2.0
"""Runs that are predicted to take less natively are not worth the time that the comparison takes."""
BUDGET_S, BUDGET_SHARE = 2.0, 0.05
"""The comparison takes no longer than this many seconds or this share of the run, whichever is more, but one turn is timed."""
MOST_GAIN = 1.5
"""Other batches than those of the rule made a framework up to so many times as fast, of nets that ONNX did not run far faster."""
CLEAR_LEAD = 1.4
"""If ONNX was so many times as fast while its plan was measured, both are not timed in turns."""
MARGIN = 1.03
"""ONNX is left for what is faster by more than noise: the medians of a path against itself came to 0.97 to 1.01."""
_KIND = "runner-speed"


@dataclass(frozen=True)
class RunnerSpeed:
    """How fast the original and the exported model are, in rows per second.

    Attributes:
        native_rows_per_s: The original's median.
        onnx_rows_per_s: The exported model's.
        ratio: The median of ONNX over native, turn by turn.
        turns: How often both were timed in turns; 0 if one was far faster when each was timed for another purpose.
        is_native_faster: Whether the original was faster by more than noise.
        native_batch_size: The batches in which the original ran.
    """

    native_rows_per_s: float
    onnx_rows_per_s: float
    ratio: float
    turns: int
    is_native_faster: bool
    native_batch_size: int

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


def describe_speed(comparison: SpeedComparison, native_batch_size: int) -> RunnerSpeed:
    """Return what a comparison of the exported model with the original comes to."""
    onnx, native = (statistics.median(rates) for rates in zip(*comparison.rates, strict=True))
    is_faster = comparison.is_faster(MARGIN)
    return RunnerSpeed(native, onnx, 1 / comparison.ratio, len(comparison.rates), is_faster, native_batch_size)


def find_clear_lead(onnx_plan: BatchPlan, native_plan: BatchPlan, native_row_s: float) -> RunnerSpeed | None:
    """Return what was measured on the way, if ONNX is that much faster that turns would say nothing else.

    Args:
        onnx_plan: That of the run in ONNX, with the rates that were measured for it.
        native_plan: That of a native run.
        native_row_s: The seconds per row that the first rows took natively.
    """
    rate = next((rate.rows_per_s for rate in onnx_plan.measured if rate.is_of(onnx_plan)), 0.0)
    if rate * native_row_s < CLEAR_LEAD:
        return None
    return RunnerSpeed(1 / native_row_s, rate, rate * native_row_s, 0, False, native_plan.batch_size)


def measure_speed(
    opened: OpenedModel, native: Runner, inputs: Inputs, plan: BatchPlan, native_s: float
) -> RunnerSpeed | None:
    """Time a few batches of both ways as the run would run them, the original in other batches too if that may decide.

    Args:
        opened: The exported model, with its sessions.
        native: The original.
        inputs: Rows of the data.
        plan: That of a native run.
        native_s: What the whole run is predicted to take natively.

    Returns:
        What was measured; ``None`` if a runner failed, which the run itself deals with.
    """
    budget_s = max(BUDGET_S, BUDGET_SHARE * native_s) / 2
    exported = Workload(opened.runners, [_first_rows(inputs, opened.plan.batch_size)])

    def in_batches(size: int) -> Workload:
        return Workload([native], [_first_rows(inputs, size)])

    try:
        size = plan.batch_size
        comparison = compare_speed(exported, in_batches(size), budget_s)
        if plan.reason == BY_RULE and comparison.ratio * MOST_GAIN > 1:
            row_s = statistics.median(1 / native_rate for _, native_rate in comparison.rates)
            for other in (plan.batch_size // 4, plan.batch_size * 4):
                # It is run at least three times.
                is_affordable = other >= 1 and 3 * other * row_s <= budget_s / 2
                if is_affordable and compare_speed(in_batches(size), in_batches(other), budget_s / 4).is_faster(MARGIN):
                    size = other
            if size != plan.batch_size:
                comparison = compare_speed(exported, in_batches(size), budget_s)
    except FoOnnxError as err:
        log.info("the exported model and the original cannot be compared in speed: %s", first_line(err))
        return None
    return describe_speed(comparison, size)


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


def _first_rows(inputs: Inputs, rows: int) -> Inputs:
    """Return the first rows, and from the beginning again if there are fewer."""
    indices = np.arange(rows) % count_rows(inputs)
    return {name: array[indices] for name, array in inputs.items()}
