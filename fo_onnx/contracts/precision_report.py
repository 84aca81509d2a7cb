"""What was tried of lower precisions, how fast and how far off it was, and what was chosen: as it is recorded and shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

FLOAT32 = "float32"


@dataclass(frozen=True)
class PrecisionTrial:
    """A lower precision that was tried. Distances are total variations from the float32 rows, in [0, 1].

    Attributes:
        name: The precision.
        speedup: How many times as many rows per second as in float32, the median over turns; ``None`` if it was not timed.
        p99_tv: The 99th percentile over the judged rows; ``None`` if it could not be run.
        max_tv: The largest distance, likewise.
        argmax_flips: Judged rows whose most probable class differs, likewise.
        is_faster: Whether it is faster than float32 beyond the noise of the timing.
        problem: Why it could not be tried.
    """

    name: str
    speedup: float | None = None
    p99_tv: float | None = None
    max_tv: float | None = None
    argmax_flips: int | None = None
    is_faster: bool = False
    problem: str | None = None

    def is_within(self, tv_budget: float) -> bool:
        """Return whether the 99th percentile is within the budget."""
        return self.p99_tv is not None and self.p99_tv <= tv_budget

    def describe(self) -> str:
        """Return the trial in one line."""
        if self.problem is not None or self.p99_tv is None:
            return f"{self.name}: {self.problem}"
        speed = "not timed" if self.speedup is None else f"{self.speedup:.2f} times float32"
        return (
            f"{self.name}: {speed}, 99th percentile of total variation {self.p99_tv:.1e} (max {self.max_tv:.1e}, "
            f"{self.argmax_flips} argmax flips)"
        )


@dataclass(frozen=True)
class PrecisionReport:
    """The choice of a precision.

    Attributes:
        asked: What was asked for: ``"auto"``, or the name of a precision.
        choice: What the run is in.
        tv_budget: The 99th percentile of total variation that was allowed.
        reason: Why the choice is what it is, in one sentence.
        calibrated_rows: Rows that ranges were measured on.
        judged_rows: Other rows, which the distances were measured on.
        trials: What was tried.
        sha256: Digest of the file in the chosen precision; ``None`` if that has no file of its own.
    """

    asked: str
    choice: str
    tv_budget: float
    reason: str
    calibrated_rows: int = 0
    judged_rows: int = 0
    trials: tuple[PrecisionTrial, ...] = ()
    sha256: str | None = None

    def lines(self) -> list[str]:
        """Return the report as lines of text: the choice and why, then what was tried."""
        return [f"{self.choice}: {self.reason}", *(f"tried {trial.describe()}" for trial in self.trials)]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types, for the record."""
        return {**asdict(self), "trials": [asdict(trial) for trial in self.trials]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PrecisionReport:
        """Return the report that a record of `to_dict` holds.

        Raises:
            ValueError: A value is of another type than a report has.
            TypeError: One is missing, or unknown.
        """
        trials = data.get("trials")
        if not isinstance(trials, list) or not all(isinstance(trial, dict) for trial in trials):
            raise ValueError("a recorded precision has no list of trials")
        report = cls(**{**data, "trials": tuple(PrecisionTrial(**trial) for trial in trials)})
        for item in (report, *report.trials):
            kinds = _KINDS_OF_REPORT if isinstance(item, cls) else _KINDS_OF_TRIAL
            for name, kind in kinds.items():
                if not isinstance(getattr(item, name), kind):
                    raise ValueError(
                        f"a recorded precision has {name}={getattr(item, name)!r:.100}; {kind} was expected"
                    )
        if not 0 < report.tv_budget <= 1:
            raise ValueError(f"a recorded precision has tv_budget={report.tv_budget!r}")
        return report


_KINDS_OF_REPORT: dict[str, Any] = {
    **dict.fromkeys(("asked", "choice", "reason"), str),
    **dict.fromkeys(("calibrated_rows", "judged_rows"), int),
    "tv_budget": float | int,
    "sha256": str | None,
}
_KINDS_OF_TRIAL: dict[str, Any] = {
    **dict.fromkeys(("speedup", "p99_tv", "max_tv"), float | int | None),
    "name": str,
    "argmax_flips": int | None,
    "is_faster": bool,
    "problem": str | None,
}
