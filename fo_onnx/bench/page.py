"""A benchmark as one HTML page with plots as inline SVG, which opens offline."""

from __future__ import annotations

import html
import statistics
from collections.abc import Sequence

from .report import advise, write_table
from .result import BenchResult

WIDTH, BAR, LABEL = 720, 26, 170
_COLOURS = ("#2f6db3", "#d9822b", "#4c9a52", "#9b59b6", "#b33a3a", "#5d6d7e")
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 960px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; } td, th { padding: .2em .7em; border-bottom: 1px solid #ddd; text-align: left; }
svg text { font: 12px system-ui, sans-serif; fill: #333; } figure { margin: 1.5em 0; overflow-x: auto; }
@media (prefers-color-scheme: dark) { body { background: #181a1b; color: #ddd; } svg text { fill: #ccc; } td, th { border-color: #444; } }
"""


def write_page(result: BenchResult, title: str) -> str:
    """Return the page: the sentence, the table, throughput with its spread, throughput by batch size, memory."""
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(advise(result))}</p>",
        _table(write_table(result)),
        _figure("Rows per second, median, lowest and highest turn", _throughput_bars(result)),
        _figure("Rows per second by batch size", _batch_lines(result)),
        _figure("Peak memory, MB", _memory_bars(result)),
        f"<p>{html.escape(_describe(result))}</p>",
    ]
    return (
        f'<!doctype html><!-- fo-onnx bench --><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>{''.join(parts)}</html>\n"
    )


def _throughput_bars(result: BenchResult) -> str:
    rows = [
        (p.name, result.rows / statistics.median(p.seconds), result.rows / max(p.seconds), result.rows / min(p.seconds))
        for p in result.timed
    ]
    return _bars(rows, limit=result.limit_rows_per_s)


def _memory_bars(result: BenchResult) -> str:
    sizes = [(p.name, p.peak_bytes / 2**20) for p in result.timed if p.peak_bytes is not None]
    return _bars([(name, size, size, size) for name, size in sizes])


def _bars(rows: Sequence[tuple[str, float, float, float]], limit: float | None = None) -> str:
    """Return horizontal bars: name, value, and the lowest and highest as a line; the limit is a dashed line if it is in view."""
    if not rows:
        return ""
    largest = max(high for _, _, _, high in rows) * 1.15
    scale = (WIDTH - LABEL - 90) / largest
    parts = []
    for i, (name, value, low, high) in enumerate(rows):
        y = i * (BAR + 8) + 4
        middle = y + BAR / 2
        parts.append(
            f'<text x="{LABEL - 8}" y="{middle + 4}" text-anchor="end">{html.escape(name)}</text>'
            f'<rect x="{LABEL}" y="{y}" width="{value * scale:.1f}" height="{BAR}" fill="{_COLOURS[i % len(_COLOURS)]}"/>'
            f'<line x1="{LABEL + low * scale:.1f}" x2="{LABEL + high * scale:.1f}" y1="{middle}" y2="{middle}" stroke="#111" '
            f'stroke-width="2"/><text x="{LABEL + high * scale + 6:.1f}" y="{middle + 4}">{value:,.0f}</text>'
        )
    height = len(rows) * (BAR + 8) + 8
    if limit is not None and limit < largest:
        x = LABEL + limit * scale
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height}" stroke="#b33a3a" stroke-dasharray="4 3"/>')
    return _svg(height, parts)


def _batch_lines(result: BenchResult) -> str:
    """Return throughput by batch size, both logarithmic by position, a line for each path."""
    paths = [p for p in result.timed if len(p.by_batch) > 1]
    if not paths:
        return ""
    sizes = sorted({int(size) for p in paths for size in p.by_batch})
    largest = max(rate for p in paths for rate in p.by_batch.values()) * 1.1
    height, left, right = 240, 70, WIDTH - 170
    x_of = {size: left + i * (right - left) / max(len(sizes) - 1, 1) for i, size in enumerate(sizes)}
    parts = [f'<text x="{x_of[size]:.0f}" y="{height - 6}" text-anchor="middle">{size}</text>' for size in sizes]
    parts += [
        f'<text x="{left - 10}" y="{_height_of(part * largest, largest, height) + 4:.0f}" text-anchor="end">{part * largest:,.0f}</text>'
        for part in (0.25, 0.5, 0.75, 1.0)
    ]
    for i, path in enumerate(paths):
        colour = _COLOURS[i % len(_COLOURS)]
        points = [
            (x_of[int(size)], _height_of(rate, largest, height))
            for size, rate in sorted(path.by_batch.items(), key=lambda item: int(item[0]))
        ]
        parts.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'
        )
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        parts.append(
            f'<text x="{right + 12}" y="{points[-1][1] + 4:.1f}" style="fill:{colour}">{html.escape(path.name)}</text>'
        )
    return _svg(height, parts)


def _height_of(value: float, largest: float, height: int) -> float:
    return height - 30 - value / largest * (height - 50)


def _svg(height: float, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" role="img">{"".join(parts)}</svg>'


def _figure(title: str, svg: str) -> str:
    return f"<figure><figcaption>{html.escape(title)}</figcaption>{svg}</figure>" if svg else ""


def _table(markdown: str) -> str:
    """Return a Markdown table as HTML, and what stands below it as paragraphs."""
    lines = [line for line in markdown.splitlines() if line and not set(line) <= set("|-")]
    rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    text = "".join(f"<p>{html.escape(line)}</p>" for line in lines if not line.startswith("|"))
    tags = ["th", *["td"] * (len(rows) - 1)]
    body = "".join(
        f"<tr>{''.join(f'<{tag}>{html.escape(cell.strip())}</{tag}>' for cell in row)}</tr>"
        for tag, row in zip(tags, rows, strict=True)
    )
    return f"<table>{body}</table>{text}"


def _describe(result: BenchResult) -> str:
    env = result.environment
    versions = ", ".join(f"{name} {version}" for name, version in env["versions"].items())
    return (
        f"{result.rows:,} rows a turn, on {env['cores']} cores of {env['processor']}, {env['precision']}; {versions}."
    )
