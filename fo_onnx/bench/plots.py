"""Plots of a benchmark as inline SVG, without any library: bars with a spread, and lines."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, BAR, GAP, LABEL, MARGIN = 720, 26, 8, 210, 90
LINE_HEIGHT, LEFT, RIGHT = 240, 80, WIDTH - 190
COLOURS = ("#2f6db3", "#d9822b", "#4c9a52", "#9b59b6", "#b33a3a", "#5d6d7e")
STYLE = "font: 12px system-ui, sans-serif"
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Bar:
    """A bar: a value, and the lowest and the highest that were measured.

    Attributes:
        label: What stands before it.
        value: Its length.
        low: The lowest; drawn as a line to `high`.
        high: The highest.
        group: Bars of a group have one colour.
    """

    label: str
    value: float
    low: float
    high: float
    group: int = 0


def draw_bars(bars: Sequence[Bar], *, mark: float | None = None, form: str = ",.0f") -> str:
    """Return horizontal bars; empty if there are none.

    Args:
        bars: The bars.
        mark: A value that is marked by a dashed line, if it lies within the plot.
        form: How values are written.
    """
    if not bars:
        return ""
    largest = max(bar.high for bar in bars) * 1.05
    scale = (WIDTH - LABEL - MARGIN) / largest
    parts = []
    for i, bar in enumerate(bars):
        y = i * (BAR + GAP) + GAP / 2
        middle = y + BAR / 2
        parts.append(
            f'<text x="{LABEL - 8}" y="{middle + 4}" text-anchor="end">{html.escape(bar.label)}</text>'
            f'<rect x="{LABEL}" y="{y}" width="{bar.value * scale:.1f}" height="{BAR}" fill="{_colour(bar.group)}"/>'
            f'<line x1="{LABEL + bar.low * scale:.1f}" x2="{LABEL + bar.high * scale:.1f}" y1="{middle}" y2="{middle}" '
            f'stroke="#111" stroke-width="2"/>'
            f'<text x="{LABEL + max(bar.high, bar.value) * scale + 6:.1f}" y="{middle + 4}">{bar.value:{form}}</text>'
        )
    height = len(bars) * (BAR + GAP)
    if mark is not None and mark < largest:
        x = LABEL + mark * scale
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}" stroke="#b33a3a" stroke-dasharray="4 3"/>')
    return _svg(height, parts)


def draw_lines(lines: Mapping[str, Points], *, is_log: bool = False) -> str:
    """Return lines over a logarithmic axis; empty if there are none.

    Args:
        lines: Points by label, ascending.
        is_log: Whether the values are on a logarithmic axis too.
    """
    if not lines:
        return ""
    places = sorted({x for points in lines.values() for x, _ in points})
    values = [y for points in lines.values() for _, y in points]
    low, high = (min(values) if is_log else 0.0), max(values)

    def x_of(x: float) -> float:
        span = math.log(places[-1] / places[0]) if len(places) > 1 else 1.0
        return LEFT + (RIGHT - LEFT) * math.log(x / places[0]) / span

    def y_of(y: float) -> float:
        share = math.log(y / low) / math.log(high / low) if is_log and high > low else y / high
        return LINE_HEIGHT - 30 - share * (LINE_HEIGHT - 50)

    parts = [
        f'<text x="{x_of(x):.0f}" y="{LINE_HEIGHT - 6}" text-anchor="middle">{x:,.0f}</text>' for x in _few(places)
    ]
    ticks = [low * (high / low) ** (i / 3) for i in range(4)] if is_log else [high * i / 4 for i in range(1, 5)]
    parts += [f'<text x="{LEFT - 10}" y="{y_of(y) + 4:.0f}" text-anchor="end">{y:,.3g}</text>' for y in ticks]
    # Labels of lines that end close to each other are moved apart.
    last = -math.inf
    for i, (label, points) in sorted(enumerate(lines.items()), key=lambda item: y_of(item[1][1][-1][1])):
        corners = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points)
        last = max(y_of(points[-1][1]), last + 14)
        parts.append(f'<polyline fill="none" stroke="{_colour(i)}" stroke-width="2" points="{corners}"/>')
        parts += [f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3" fill="{_colour(i)}"/>' for x, y in points]
        parts.append(f'<text x="{RIGHT + 12}" y="{last + 4:.1f}" style="fill:{_colour(i)}">{html.escape(label)}</text>')
    return _svg(LINE_HEIGHT, parts)


def _few(places: Sequence[float]) -> Sequence[float]:
    """Return so many of the places that their numbers do not run into each other."""
    return places[:: -(-len(places) // 8)]


def _colour(group: int) -> str:
    return COLOURS[group % len(COLOURS)]


def _svg(height: float, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" role="img" '
        f'style="{STYLE}">{"".join(parts)}</svg>'
    )
