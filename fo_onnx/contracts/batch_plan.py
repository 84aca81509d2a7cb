"""The plan of a run, by which it is cut and spread, as it is recorded and given back by ``tuning=``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import OptionError

MOST = {"batch_size": 2**31, "sessions": 1024, "threads": 4096}
"""More than any run has."""
BY_RULE = "by rule"
"""How a plan was chosen that nothing but the rule decided on."""
_RECORDED = (*MOST, "spinning", "chosen", "measured")


@dataclass(frozen=True)
class MeasuredRate:
    """The rate at which rows ran, cut and spread in one way.

    Attributes:
        batch_size: Rows per run of the model.
        sessions: Sessions side by side.
        threads: Threads within each.
        spinning: Whether idle threads spin.
        rows_per_s: Rows per second of all sessions together.
    """

    batch_size: int
    sessions: int
    threads: int
    spinning: bool
    rows_per_s: float

    def is_of(self, plan: BatchPlan) -> bool:
        """Return whether it is the rate of a plan."""
        return all(getattr(self, name) == getattr(plan, name) for name in (*MOST, "spinning"))


@dataclass(frozen=True)
class BatchPlan:
    """The way in which a run is cut and spread.

    Attributes:
        batch_size: Rows per run of the model.
        sessions: Sessions side by side.
        threads: Threads within each.
        spinning: Whether threads within a session spin while they wait for work; with one thread there are none.
        reason: How it was chosen: ``"by rule"``, ``"measured"``, ``"as recorded"``, ``"batch size given"``, or what else
            fixes it.
        measured: The rates that were compared, if they were.
    """

    batch_size: int
    sessions: int
    threads: int
    spinning: bool
    reason: str
    measured: tuple[MeasuredRate, ...] = ()

    def to_record(self) -> dict[str, Any]:
        """Return the plan as JSON types, as ``meta["engine"]["tuning"]`` of a result holds it."""
        return {
            "batch_size": self.batch_size,
            "sessions": self.sessions,
            "threads": self.threads,
            "spinning": self.spinning,
            "chosen": self.reason,
            "measured": [vars(rate) for rate in self.measured],
        }


def plan_of_record(record: Any) -> BatchPlan:
    """Return the plan that a record fixes; how it was chosen then, and what was measured, does not count.

    Args:
        record: What `BatchPlan.to_record` gives. It may have been edited by hand.

    Raises:
        OptionError: It is no such record.

    Example:
        >>> plan_of_record({"batch_size": 4, "sessions": 2, "threads": 1, "spinning": False}).sessions
        2
    """
    expected = (
        "an object with batch_size, sessions, threads and spinning, as meta['engine']['tuning'] of a result holds it, or "
        "the path of a result, was expected"
    )
    if not isinstance(record, Mapping):
        raise OptionError(f"tuning={record!r:.100} is not usable: {expected}.")
    if unknown := [str(name) for name in record if name not in _RECORDED]:
        raise OptionError(f"tuning= holds {', '.join(map(repr, unknown))}, which is not known: {expected}.")
    if missing := [name for name in (*MOST, "spinning") if name not in record]:
        raise OptionError(f"tuning= lacks {', '.join(missing)}: {expected}.")
    for name, most in MOST.items():
        value = record[name]
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise OptionError(f"tuning= says {name}={value!r:.100}; a whole number from 1 to {most} was expected.")
    if not isinstance(record["spinning"], bool):
        raise OptionError(f"tuning= says spinning={record['spinning']!r:.100}; true or false was expected.")
    return BatchPlan(
        record["batch_size"], record["sessions"], record["threads"], record["spinning"], reason="as recorded"
    )
