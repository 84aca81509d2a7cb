"""A benchmark as one HTML page with plots as inline SVG, which opens offline."""

from __future__ import annotations

import html
import statistics

from .plots import Bar, Points, draw_bars, draw_lines
from .report import advise, write_table
from .result import ENGINE, BenchResult, PathResult

MARK = "<!-- fo-onnx bench -->"
"""What each page and table of a benchmark begins with."""
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 960px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; } td, th { padding: .2em .7em; border-bottom: 1px solid #ddd; text-align: left; }
svg text { fill: #333; } figure { margin: 1.5em 0; overflow-x: auto; }
@media (prefers-color-scheme: dark) {
  body { background: #181a1b; color: #ddd; } svg text { fill: #ccc; } svg line { stroke: #eee; } td, th { border-color: #444; }
}
"""


def write_page(result: BenchResult, title: str) -> str:
    """Return the page: the sentence, the table, and the plots."""
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(advise(result))}</p>",
        _table(write_table(result)),
        _figure(
            "Rows per second: median, lowest and highest turn. The dashed line is the machine's limit, if it is in view.",
            draw_bars(throughput_bars(result), mark=result.limit_rows_per_s),
        ),
        _figure("Rows per second by batch size", draw_lines(_rates_by_batch(result))),
        _figure("Peak memory of a process that runs the path alone, MB", draw_bars(memory_bars(result))),
        _figure(
            "Seconds for a number of rows, from the trained model on: opening, compiling, exporting, running",
            draw_lines(_seconds_by_rows(result), is_log=True),
        ),
        f"<p>{html.escape(describe(result))}</p>",
    ]
    return (
        f'<!doctype html>{MARK}<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style>{''.join(parts)}</html>\n"
    )


def throughput_bars(result: BenchResult) -> list[Bar]:
    """Return the throughput of each path that was timed, in rows per second."""
    return [
        Bar(
            p.name, result.rows / statistics.median(p.seconds), result.rows / max(p.seconds),
            result.rows / min(p.seconds), i,
        )
        for i, p in enumerate(result.timed)
    ]  # fmt: skip


def memory_bars(result: BenchResult) -> list[Bar]:
    """Return the peak memory of each path of which it was measured, in MB."""
    sizes = [(i, p.name, p.peak_bytes / 2**20) for i, p in enumerate(result.timed) if p.peak_bytes is not None]
    return [Bar(name, size, size, size, i) for i, name, size in sizes]


def describe(result: BenchResult) -> str:
    """Return what was measured on: rows, machine, versions, commit."""
    env = result.environment
    versions = ", ".join(f"{name} {version}" for name, version in env["versions"].items())
    commit = f"; commit {env['commit']}" if env.get("commit") else ""
    return (
        f"{result.rows:,} rows a turn, on {env['cores']} cores of {env['processor']}, {env['device']}, {env['precision']}; "
        f"{versions}{commit}."
    )


def _rates_by_batch(result: BenchResult) -> dict[str, Points]:
    return {
        p.name: sorted((float(size), rate) for size, rate in p.by_batch.items())
        for p in result.timed
        if len(p.by_batch) > 1
    }


def _seconds_by_rows(result: BenchResult) -> dict[str, Points]:
    """Return how long the best native path and fo-onnx take for so many rows, each with what comes before the first row."""
    native = [p for p in result.timed if p.is_native]
    own = next((p for p in result.timed if p.name == ENGINE), None)
    if not native or own is None:
        return {}
    best = min(native, key=lambda p: statistics.median(p.seconds))
    paid = result.rows_until_paid() or result.rows
    counts = [paid * 10.0**power for power in (-2, -1.5, -1, -0.5, 0, 0.5, 1)]

    def points(path: PathResult, before_s: float) -> Points:
        per_row = statistics.median(path.seconds) / result.rows
        return [(count, before_s + count * per_row) for count in counts]

    return {
        best.name: points(best, best.open_s or 0.0),
        ENGINE: points(own, (result.export_s or 0.0) + (own.open_s or 0.0)),
    }


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
