"""Small jobs stay in the model's own framework: an export would take longer than their rows.

How long the rows take is predicted from the first ones, which have been run natively anyway. What an export costs is what
the last ones of the framework took on this machine.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any

from ..conversion.reference import Reference, time_again
from ..runtime.measurements import Measurements

SMALL_FACTOR = 3
"""A job is small if it takes less than this many times what an export costs: from there on an export pays for itself if ONNX
is at least 1.5 times as fast as the framework. It was 0.9 to 3 times as fast in a dozen nets on 2 cores."""
FIRST_COSTS_S = {"torch": 3.0, "jax": 3.0, "keras": 1.0, "sklearn": 0.3}
"""Until an export was measured. Of small nets on 2 cores the first of a process, which imports the converter, and later ones
took: torch 5.6 and 1.9 s, JAX 7.5 and 0.5, scikit-learn 0.7 and 0.05; Keras, with TensorFlow imported, 0.5."""
OTHER_COST_S = 1.0
"""Of other plugins."""
MOST_EXPORTS = 9
"""So many of the last exports are remembered; their median counts, since one large model says little of the next."""
MOST_TIMING_S = 2.0
"""A call that took longer is not made again to see what it takes once it is warm."""
_KIND = "export-cost"


@dataclass(frozen=True)
class SmallJob:
    """A job that stays native.

    Attributes:
        rows: Its rows.
        row_s: Seconds per row natively.
        export_s: What an export is expected to cost, in seconds.
        framework: The framework's name.
    """

    rows: int
    row_s: float
    export_s: float
    framework: str

    @property
    def most_rows(self) -> int:
        """Return how many rows are still a small job of this model."""
        return math.ceil(_limit_s(self.export_s) / max(self.row_s, 1e-12)) - 1

    @property
    def reason(self) -> str:
        """Return why it stays native."""
        rows = "1 row takes" if self.rows == 1 else f"{self.rows} rows take"
        return (
            f"a small job: {rows} {seconds_text(self.rows * self.row_s)} natively, an export of {self.framework} "
            f"{seconds_text(self.export_s)}"
        )

    @property
    def record(self) -> dict[str, float | None]:
        """Return what is recorded of it."""
        rate = 1 / max(self.row_s, 1e-12)
        return {"native_rows_per_s": rate, "onnx_rows_per_s": None, "ratio": None, "export_s": self.export_s}


def find_small_job(reference: Reference, rows: int, framework: str) -> SmallJob | None:
    """Return the job if its rows are predicted to take less than an export is worth; ``None`` if they take longer.

    Args:
        reference: The model, with what it gave for the first rows, and how long that took.
        rows: All rows of the job.
        framework: The name of the model's plugin.
    """
    export_s = expected_export_s(framework)
    # The first call of a shape takes longer than others. If it was the only one, and alone would make the job a large one, it
    # is made again.
    is_cold = len(reference.calls) == 1 and reference.calls[0][1] <= MOST_TIMING_S
    if is_cold and rows * reference.row_s >= _limit_s(export_s) > 0:
        reference = time_again(reference)
    if rows * reference.row_s >= _limit_s(export_s):
        return None
    return SmallJob(rows, reference.row_s, export_s, framework)


def expected_export_s(framework: str) -> float:
    """Return the seconds that an export of a framework is expected to take on this machine, its comparison included."""
    seconds = _read_costs(framework)
    return statistics.median(seconds) if seconds else FIRST_COSTS_S.get(framework, OTHER_COST_S)


def keep_export_s(framework: str, seconds: float) -> None:
    """Remember how long an export took."""
    last = [*_read_costs(framework), seconds][-MOST_EXPORTS:]
    Measurements.of_user().keep(_KIND, {"framework": framework}, {"seconds": last})


def seconds_text(seconds: float) -> str:
    """Return a duration in words."""
    if seconds < 0.1:
        return "less than 0.1 s"
    return f"about {seconds:.1f} s" if seconds < 10 else f"about {seconds:.0f} s"


def _read_costs(framework: str) -> list[float]:
    record: dict[str, Any] = Measurements.of_user().read(_KIND, {"framework": framework}) or {}
    return [float(s) for s in record.get("seconds", [])]


def _limit_s(export_s: float) -> float:
    return SMALL_FACTOR * export_s
