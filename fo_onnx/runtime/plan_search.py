"""The search for the fastest way to cut and spread a run. It decides; `measured_plan` measures.

Batch sizes are tried from one row up, in the sessions of the rule's plan, and the best of them in other sessions. What
comes near the best is then run in turns with the rule's plan. A plan takes its place only if it is clearly faster.
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
"""Batches up to four times those of the rule are tried: megabytes of inputs, and of activations many times more."""
NEAR = 0.9
"""A plan that reaches less than this of the best rate in its first turn has no second one."""
MOST_FINALISTS, LEAST_ROUNDS, MOST_ROUNDS = 3, 3, 5
MARGIN, HASTY_MARGIN = 1.05, 1.2
"""So many times as fast as the rule's plan another one must be, in the median of the rounds; and faster in each of them
but one of five. One loop against itself in turns gave medians of 0.97 to 1.01 on two idle cores, and of 0.96 to 1.07 on
two busy ones. The second holds where the budget was over before the third round."""

TimeBatches = Callable[[BatchPlan, int], float]
"""Runs so many batches of a plan, and returns the seconds that they took."""


@dataclass(frozen=True)
class PlanSearch:
    """The outcome of a search.

    Attributes:
        plan: The plan, with the rates that were compared.
        rule_rows_per_s: The rate of the rule's plan.
        rounds: How often the finalists took turns with it; as often as any if there were none.
    """

    plan: BatchPlan
    rule_rows_per_s: float
    rounds: int


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
        ratios = self._take_turns()
        rounds = min(map(len, ratios.values()), default=MOST_ROUNDS)
        return PlanSearch(self._choose(ratios), rule_rate, rounds)

    def _try_sizes(self) -> None:
        """Try batch sizes in the sessions of the rule: the smaller ones, and larger ones while they are the fastest."""
        size = 2
        while size < self._rule.batch_size and self._try_if_affordable(replace(self._rule, batch_size=size)):
            size *= 2
        size = 2 * self._rule.batch_size
        while size <= LARGEST_FACTOR * self._rule.batch_size and self._best().batch_size == size // 2:
            # Each session gets a few batches at least.
            if 4 * size * self._rule.sessions > self._rows:
                return
            if not self._try_if_affordable(replace(self._rule, batch_size=size)):
                return
            size *= 2

    def _try_sessions(self, others: list[BatchPlan], opening_s: float) -> None:
        """Try the best batch size in other sessions, and as many rows in fewer of them."""
        size = self._best().batch_size
        for other in others:
            spins = [p for p in self._rates if p.sessions == other.sessions and p.threads == other.threads]
            if spins and max(self._rates[p] for p in spins) < NEAR * self._rates[self._best()]:
                continue  # the same sessions are far behind, and spinning decides on less
            cost_s = opening_s * other.sessions
            for factor in dict.fromkeys((1, max(self._rule.sessions // other.sessions, 1))):
                if not self._try_if_affordable(replace(other, batch_size=size * factor), cost_s):
                    break
                cost_s = 0.0

    def _take_turns(self) -> dict[BatchPlan, list[float]]:
        """Run what comes near the best in turns with the rule's plan; return rates relative to it, by round."""
        rule, best_rate = self._rule, self._rates[self._best()]
        near = sorted((p for p in self._rates if p != rule), key=self._rates.__getitem__, reverse=True)
        finalists = [p for p in near if self._rates[p] >= max(NEAR * best_rate, self._rates[rule])][:MOST_FINALISTS]
        ratios: dict[BatchPlan, list[float]] = {plan: [] for plan in finalists}
        cost_s = sum(max(self._turn_s, p.sessions * p.batch_size / self._rates[p]) for p in (rule, *finalists))
        of_rule: list[float] = []
        while finalists and len(of_rule) < MOST_ROUNDS and self._is_affordable(cost_s):
            of_rule.append(self._time_turn(rule, self._rates[rule]))
            for plan in finalists:
                ratios[plan].append(self._time_turn(plan, self._rates[plan]) / of_rule[-1])
        if of_rule:
            self._rates[rule] = statistics.median([self._rates[rule], *of_rule])
        return ratios

    def _choose(self, ratios: dict[BatchPlan, list[float]]) -> BatchPlan:
        """Return the plan that is clearly the fastest, with all rates; a finalist's is relative to the rule's plan."""
        chosen, gain = self._rule, 1.0
        for plan, of_plan in ratios.items():
            is_hasty = len(of_plan) < LEAST_ROUNDS
            ratio = statistics.median([self._rates[plan] / self._rates[self._rule], *of_plan] if is_hasty else of_plan)
            self._rates[plan] = ratio * self._rates[self._rule]
            slower_rounds = sum(other <= 1 for other in of_plan)
            is_clear = ratio >= (HASTY_MARGIN if is_hasty else MARGIN) and slower_rounds <= len(of_plan) // MOST_ROUNDS
            if is_clear and ratio > gain:
                chosen, gain = plan, ratio
        measured = (
            MeasuredRate(p.batch_size, p.sessions, p.threads, p.spinning, float(f"{rate:.4g}"))
            for p, rate in self._rates.items()
        )
        return replace(chosen, reason="measured", measured=tuple(measured))

    def _best(self) -> BatchPlan:
        return max(self._rates, key=self._rates.__getitem__)

    def _is_affordable(self, cost_s: float) -> bool:
        return self._clock() - self._begun + cost_s <= self._budget_s

    def _try_if_affordable(self, plan: BatchPlan, more_s: float = 0.0) -> bool:
        """Measure a plan unless the budget is too small for it; return whether it was measured."""
        batch_s = plan.sessions * plan.batch_size / self._rates[self._best()]
        # One run to warm up and one that counts, if they are quick.
        cost_s = batch_s + max(batch_s, self._turn_s) if batch_s < QUICK_S else batch_s
        if not self._is_affordable(cost_s + more_s):
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
