"""A benchmark in words: a Markdown table, one sentence to act on, and what differs between two results."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from .result import ENGINE, SAME_KEYS, BenchError, BenchResult, PathResult
from .turns import Ratio


def write_table(result: BenchResult) -> str:
    """Return the paths as a Markdown table, with the ratio of each to the quickest, and what was not timed below."""
    best = result.fastest.name if result.timed else None
    lines = [
        "| path | rows/s | of the quickest | batch | first row, ms | ready in, s | peak, MB | of the limit | total variation |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_row(result, path, best) for path in result.timed]
    lines += [f"\n{path.name} was not timed: {path.error}" for path in result.paths if path.error is not None]
    lines += [f"\n{name} was not tried: {why}" for name, why in result.not_tried.items()]
    if result.null is not None:
        lines.append(f"\nA path over itself: {result.null}. What lies within that is called the same.")
    return "\n".join(lines)


def advise(result: BenchResult) -> str:
    """Return one sentence to act on: the quickest way for this model here, by how much, from how many rows on, what was not tried."""
    if not result.timed:
        return "No path ran; the errors above say why."
    best = result.fastest
    same = [p.name for p in result.timed if p is not best and result.verdict(p.name, best.name) == "the same"]
    others = [p for p in result.timed if p is not best and p.name not in same]
    text = f"{' and '.join([best.name, *same])} {'is' if not same else 'are'} the quickest way to run this model here"
    if others:
        second = min(others, key=lambda p: statistics.median(p.seconds))
        text += f", {result.ratio(best.name, second.name).median:.2f} times as fast as {second.name}"
    paid = result.rows_until_paid()
    if best.name == ENGINE and paid is not None:
        text += f"; its export of {result.export_s:.1f} s has paid for itself from {round_rows(paid):,} rows on"
    left_out = [*(p.name for p in result.paths if p.error is not None), *result.not_tried]
    rest = f"Not timed: {', '.join(left_out)}." if left_out else "Nothing was left out."
    return f"{text}. {rest}"


def compare(old: BenchResult, new: BenchResult) -> str:
    """Return what differs between two results of the same model on the same machine, path by path, by rows per second.

    Raises:
        BenchError: They are of other machines, models or kinds of rows.
    """
    was, now = old.environment, new.environment
    unlike = [f"{key} ({was.get(key)!r} and {now.get(key)!r})" for key in SAME_KEYS if was.get(key) != now.get(key)]
    if unlike:
        raise BenchError(
            f"these results cannot be compared: they differ in {', '.join(unlike)}. Run both in the same way."
        )
    null = _wider(old.null, new.null)
    lines = ["| path | new over old | |", "|---|---|---|"]
    names = [p.name for p in new.timed if any(p.name == q.name for q in old.timed)]
    for name in names:
        ratio = _ratio_of_runs(_row_seconds(new, name), _row_seconds(old, name))
        lines.append(f"| {name} | {ratio} | {ratio.verdict(null)} |")
    only = sorted({p.name for p in old.timed} ^ {p.name for p in new.timed})
    if only:
        lines.append(f"\nOnly in one of them: {', '.join(only)}.")
    changed = {k: (old.environment["versions"].get(k), v) for k, v in new.environment["versions"].items()}
    lines += [f"\n{name}: {before} → {after}" for name, (before, after) in changed.items() if before != after]
    return "\n".join(lines)


def _row(result: BenchResult, path: PathResult, best: str | None) -> str:
    rate = path.rows_per_s(result.rows) or 0.0
    ratio = "1" if path.name == best or best is None else str(result.ratio(path.name, best))
    limit = "" if not result.limit_rows_per_s else f"{100 * rate / result.limit_rows_per_s:.0f} %"
    cells = (
        path.name, f"{rate:,.0f}", ratio, "" if path.batch_size is None else str(path.batch_size),
        "" if path.first_row_s is None else f"{1e3 * path.first_row_s:.2f}",
        "" if path.open_s is None else f"{path.open_s:.2f}",
        "" if path.peak_bytes is None else f"{path.peak_bytes / 2**20:,.0f}", limit,
        "" if path.max_tv is None else f"{path.max_tv:.1e}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _row_seconds(result: BenchResult, name: str) -> list[float]:
    return [seconds / result.rows for seconds in result.path(name).seconds]


def _ratio_of_runs(seconds: Sequence[float], others: Sequence[float]) -> Ratio:
    """Return the ratio of two sets of runs that took no turns: each run against the median of the others."""
    middle, other = statistics.median(seconds), statistics.median(others)
    low, high = min(others) / max(seconds), max(others) / min(seconds)
    return Ratio(other / middle, low, high)


def _wider(one: Ratio | None, other: Ratio | None) -> Ratio:
    ratios = [r for r in (one, other) if r is not None]
    return Ratio(1.0, min([1.0, *(r.low for r in ratios)]), max([1.0, *(r.high for r in ratios)]))


def round_rows(rows: float) -> int:
    """Return a number of rows to two digits."""
    return int(float(f"{rows:.2g}"))
