"""The ratios of paths over the same work in the same turns, with their spread.

Turns are A B C A B C with a rest between: A B B A was measured to favour one side.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..runtime.compare_speed import iter_turns

Verdict = Literal["faster", "slower", "the same"]


@dataclass(frozen=True)
class Ratio:
    """The throughput of one path over that of another.

    Attributes:
        median: The median over the turns.
        low: The lowest of a turn.
        high: The highest of a turn.
    """

    median: float
    low: float
    high: float

    def verdict(self, null: Ratio) -> Verdict:
        """Return what the ratio says, if `null` is that of a path over itself: within its spread nothing does."""
        if null.low <= self.median <= null.high:
            return "the same"
        return "faster" if self.median > 1 else "slower"

    def to_dict(self) -> dict[str, float]:
        """Return the ratio as JSON types."""
        return {"median": self.median, "low": self.low, "high": self.high}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Ratio:
        """Return what `to_dict` gave."""
        return cls(float(values["median"]), float(values["low"]), float(values["high"]))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratio_of(seconds: Sequence[float], others: Sequence[float]) -> Ratio:
    """Return the throughput of one path over that of another, by the seconds of both in the same turns."""
    ratios = [other / own for own, other in zip(seconds, others, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def time_in_turns(paths: Mapping[str, Callable[[], object]], turns: int) -> dict[str, list[float]]:
    """Run each path once per turn, after a rest, and return the seconds of its runs."""
    timed = itertools.islice(iter_turns(list(paths.values())), turns)
    return {name: list(seconds) for name, seconds in zip(paths, zip(*timed, strict=True), strict=True)}
