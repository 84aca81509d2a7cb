"""The search for the fastest way to cut and spread a run. It decides; `measured_plan` measures.

Batch sizes are tried from one row up, in the sessions of the rule's plan and then in others. The best of them and the rule's
plan then run in turns; those that fall behind are dropped.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from ..contracts.batch_plan import BatchPlan, MeasuredRate

LEAST_RUN_S = 2.0
"""A run that takes less than this by rule is cut by rule."""
LEAST_BUDGET_S, BUDGET_SHARE = 2.0, 0.05
"""The search may cost 5% of the run by rule, and 2 s in any case."""
SHORTEST_TURN_S, LONGEST_TURN_S, TURN_SHARE = 0.03, 0.2, 1 / 800
"""There are about 40 turns. One takes 1/800 of the run, within these bounds, and at least a batch in each session."""
QUICK_S = 0.25
"""A first run that is quicker than this only warms up, and is not counted."""
LARGEST_FACTOR = 4
"""Batches up to four times those of the rule are tried, and as many rows in fewer sessions: megabytes of inputs, and of activations
many times more."""
RISING = 0.97
"""Larger batches are tried while the last one reached this much of the best rate of its sessions."""
NEAR = 0.9
"""A plan that reaches less than this of the best rate takes no further turns."""
MOST_FINALISTS, LEAST_ROUNDS, MOST_ROUNDS = 2, 3, 5
MARGIN = 1.02
"""So many times as fast as the rule's plan another one must be in the median of the rounds. One loop against itself in turns gave
medians of 0.97 to 1.01 on two idle cores."""

TimeBatches = Callable[[BatchPlan, int], float]
"""Runs so many batches of a plan, and returns the seconds that they took."""


@dataclass(frozen=True)
class PlanSearch:
    """The outcome of a search.

    Attributes:
        plan: The plan, with the rates that were compared.
        rule_rows_per_s: The rate of the rule's plan.
        is_hasty: Whether the budget was over while several plans were near each other.
    """

    plan: BatchPlan
    rule_rows_per_s: float
    is_hasty: bool


def search_plan(
    rule: BatchPlan,
    rows: int,
    others: list[BatchPlan],
    time_batches: TimeBatches,
    *,
    opening_s: float = 0.0,
    left_s: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> PlanSearch | None:
    """Return the fastest plan of those that could be tried; ``None`` if the run is short, or has few batches.

    Args:
        rule: The rule's plan.
        rows: Rows to run.
        others: Other sessions to try, each as a plan whose batch size does not count; the more likely ones first.
        time_batches: Measures; it may open sessions before it does.
        opening_s: Seconds that opening a session takes.
        left_s: Seconds until the run has to end, if it has to.
        clock: Tells the time.
    """
    search = _Search(rule, rows, time_batches, clock)
    return search.find(others, opening_s, math.inf if left_s is None else left_s)


class _Search:
    def __init__(self, rule: BatchPlan, rows: int, time_batches: TimeBatches, clock: Callable[[], float]) -> None:
        self._rule, self._rows, self._time_batches, self._clock = rule, rows, time_batches, clock
        self._begun = clock()
        self._turn_s, self._budget_s = SHORTEST_TURN_S, math.inf
        self._rates: dict[BatchPlan, float] = {}

    def find(self, others: list[BatchPlan], opening_s: float, left_s: float) -> PlanSearch | None:
        # One row tells cheaply that a run is short, or that a few batches would be a large part of it.
        one_row_rate = self._try(replace(self._rule, batch_size=1))
        run_s = min(self._rows / one_row_rate, left_s)
        batch_s = self._rule.sessions * self._rule.batch_size / one_row_rate
        if run_s < LEAST_RUN_S or batch_s > max(LEAST_BUDGET_S, BUDGET_SHARE * run_s):
            return None
        rule_rate = self._try(self._rule)
        run_s = min(self._rows / rule_rate, left_s)
        if run_s < LEAST_RUN_S:
            return None
        self._budget_s = max(LEAST_BUDGET_S, BUDGET_SHARE * run_s)
        self._turn_s = min(max(run_s * TURN_SHARE, SHORTEST_TURN_S), LONGEST_TURN_S)

        self._try_sizes()
        self._try_sessions(others, opening_s)
        rounds, plans = self._take_turns()
        return PlanSearch(self._choose(rounds, plans), rule_rate, len(plans) > 1 and len(rounds) < LEAST_ROUNDS)

    def _try_sizes(self) -> None:
        """Try batch sizes in the sessions of the rule: the smaller ones, and larger ones while they are not slower."""
        size = 2
        while size < self._rule.batch_size and self._try_if_affordable(replace(self._rule, batch_size=size)):
            size *= 2
        self._try_larger(self._rule)

    def _try_sessions(self, others: list[BatchPlan], opening_s: float) -> None:
        """Try as many rows at a time in other sessions, and larger batches there while they are not slower."""
        for other in others:
            alike = [p for p in self._rates if p.sessions == other.sessions and p.threads == other.threads]
            if not alike:
                best = self._best()
                first = replace(other, batch_size=best.batch_size * max(best.sessions // other.sessions, 1))
                if self._try_if_affordable(first, opening_s * other.sessions):
                    self._try_larger(first)
            elif max(map(self._rates.__getitem__, alike)) >= NEAR * self._rates[self._best()]:
                # The same sessions, spinning or not.
                size = max(alike, key=self._rates.__getitem__).batch_size
                self._try_if_affordable(replace(other, batch_size=size), opening_s * other.sessions)

    def _try_larger(self, plan: BatchPlan) -> None:
        """Double the batches of a plan that was tried while they are not slower."""
        largest = LARGEST_FACTOR * self._rule.batch_size * max(self._rule.sessions // plan.sessions, 1)
        while plan.batch_size < largest:
            rates = [
                rate for p, rate in self._rates.items() if p.sessions == plan.sessions and p.spinning == plan.spinning
            ]
            plan, last_rate = replace(plan, batch_size=2 * plan.batch_size), self._rates[plan]
            # Each session gets a few batches at least.
            has_few = 4 * plan.batch_size * plan.sessions > self._rows
            if last_rate < RISING * max(rates) or has_few or not self._try_if_affordable(plan):
                return

    def _take_turns(self) -> tuple[list[dict[BatchPlan, float]], list[BatchPlan]]:
        """Run what comes near the best in turns; return the rates of each round, and the plans that are left.

        What falls behind is dropped. The rule's plan takes turns too, unless it is behind and there is no time for that.
        """
        rule, rounds = self._rule, list[dict[BatchPlan, float]]()
        best_rate = self._rates[self._best()]
        near = sorted((p for p, rate in self._rates.items() if rate >= NEAR * best_rate), key=self._rates.__getitem__)
        plans = near[::-1][:MOST_FINALISTS]
        turns_s = LEAST_ROUNDS * self._round_s([rule, *plans])
        if rule not in plans and (rule in near or self._is_affordable(turns_s)):
            plans.append(rule)
        while len(plans) > 1 and len(rounds) < MOST_ROUNDS and self._is_affordable(self._round_s(plans)):
            rounds.append({plan: self._time_turn(plan, self._rates[plan]) for plan in plans})
            timed = [self._rates, *rounds]
            best = max(plans, key=lambda plan: statistics.median(rates[plan] for rates in timed))
            # Behind each time: one turn may have been disturbed.
            plans = [plan for plan in plans if any(rates[plan] >= NEAR * rates[best] for rates in timed)]
        for plan in rounds[0] if rounds else ():
            self._rates[plan] = statistics.median(rates[plan] for rates in rounds if plan in rates)
        return rounds, plans

    def _choose(self, rounds: list[dict[BatchPlan, float]], plans: list[BatchPlan]) -> BatchPlan:
        """Return the fastest of the plans that are left, with all rates; the rule's plan unless it is clearly slower."""
        best = max(plans, key=self._rates.__getitem__)
        is_better = self._rule not in plans or self._is_clearly_faster(best, rounds)
        measured = (
            MeasuredRate(p.batch_size, p.sessions, p.threads, p.spinning, float(f"{rate:.4g}"))
            for p, rate in self._rates.items()
        )
        return replace(best if is_better else self._rule, reason="measured", measured=tuple(measured))

    def _is_clearly_faster(self, plan: BatchPlan, rounds: list[dict[BatchPlan, float]]) -> bool:
        if len(rounds) < LEAST_ROUNDS:
            return False
        return statistics.median(rates[plan] / rates[self._rule] for rates in rounds) >= MARGIN

    def _round_s(self, plans: list[BatchPlan]) -> float:
        """Return the seconds of a turn of each."""
        return sum(max(self._turn_s, plan.sessions * plan.batch_size / self._rates[plan]) for plan in plans)

    def _best(self) -> BatchPlan:
        return max(self._rates, key=self._rates.__getitem__)

    def _is_affordable(self, cost_s: float) -> bool:
        return self._clock() - self._begun + cost_s <= self._budget_s

    def _try_if_affordable(self, plan: BatchPlan, more_s: float = 0.0) -> bool:
        """Measure a plan unless the budget is too small for it and the turns after it; return whether it was measured."""
        batch_s = plan.sessions * plan.batch_size / self._rates[self._best()]
        # One run to warm up and one that counts, if they are quick.
        cost_s = batch_s + max(batch_s, self._turn_s) if batch_s < QUICK_S else batch_s
        turns_s = LEAST_ROUNDS * (1 + MOST_FINALISTS) * self._turn_s
        if not self._is_affordable(cost_s + more_s + turns_s):
            return False
        self._try(plan)
        return True

    def _try(self, plan: BatchPlan) -> float:
        """Measure a plan for the first time."""
        seconds = self._time_batches(plan, plan.sessions)
        rate = plan.sessions * plan.batch_size / seconds
        if seconds < QUICK_S:
            rate = self._time_turn(plan, rate)
        self._rates[plan] = rate
        return rate

    def _time_turn(self, plan: BatchPlan, rate: float) -> float:
        """Run batches for a turn, as many in each session, and return the rate; `rate` is the expected one."""
        batches = plan.sessions * max(round(self._turn_s * rate / (plan.sessions * plan.batch_size)), 1)
        return batches * plan.batch_size / self._time_batches(plan, batches)
