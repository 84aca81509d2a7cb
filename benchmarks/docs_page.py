"""Writes the results of the nets into docs/benchmarks.md, with plots beside it."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Sequence
from pathlib import Path

from fo_onnx.bench import BenchResult
from fo_onnx.bench.page import describe
from fo_onnx.bench.plots import Bar, draw_bars
from fo_onnx.bench.result import ENGINE

DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
Titled = tuple[str, BenchResult]


def write_docs(results: Sequence[Titled], table: str, command: str) -> Path:
    """Put a table and plots of results between the marks of docs/benchmarks.md; return the page.

    Args:
        results: Each with its title.
        table: All of them, in Markdown.
        command: What was run.
    """
    plots = {
        "throughput": (
            "Throughput of fo-onnx over the best native path",
            draw_bars(_ratio_bars(results), mark=1.0, form=".2f"),
        ),
        "memory": (
            "Peak memory, MB: the best native path, and fo-onnx on the exported file",
            draw_bars(_memory_bars(results)),
        ),
    }
    images = []
    for name, (title, svg) in plots.items():
        if svg:
            path = DOCS / "plots" / f"{name}.svg"
            path.parent.mkdir(exist_ok=True)
            path.write_text(svg + "\n", encoding="utf-8")
            images.append(f"![{title}](plots/{name}.svg)\n\n*{title}.*")
    today = datetime.date.today().isoformat()
    measured = f"`{command}`, {today}. {describe(results[0][1])}"
    page = DOCS / "benchmarks.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    page.write_text("\n\n".join([before + BEGIN, measured, table, *images, END]) + after, encoding="utf-8")
    return page


def _ratio_bars(results: Sequence[Titled]) -> list[Bar]:
    bars = []
    for i, (title, result) in enumerate(results):
        native = [path for path in result.timed if path.is_native]
        if native and ENGINE in [path.name for path in result.timed]:
            best = min(native, key=lambda path: statistics.median(path.seconds))
            ratio = result.ratio(ENGINE, best.name)
            bars.append(Bar(title, ratio.median, ratio.low, ratio.high, i))
    return bars


def _memory_bars(results: Sequence[Titled]) -> list[Bar]:
    bars = []
    for title, result in results:
        timed = [path for path in result.timed if path.peak_bytes is not None]
        native = [path for path in timed if path.is_native]
        chosen = [min(native, key=lambda path: statistics.median(path.seconds))] if native else []
        chosen += [path for path in timed if path.name == ENGINE]
        for path in chosen:
            size = (path.peak_bytes or 0) / 2**20
            bars.append(Bar(f"{title}: {path.name}", size, size, size, int(path.name == ENGINE)))
    return bars
