"""Two paths in turns, and their ratio with its spread.

Machines are shared and change their speed; a pair of runs right after one another sees the same machine, so the ratio of
each pair is what is reported. Turns are A B A B with a rest between: A B B A was measured to favour one side.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

REST_S = 0.05
RESULTS = Path(__file__).parent / "results"
SCHEMA = 1


@dataclass(frozen=True)
class Comparison:
    """Two paths over the same work.

    Attributes:
        name: What was compared.
        a_s: Seconds of each counted run of the first path.
        b_s: Seconds of each counted run of the second path, in the same turns.
    """

    name: str
    a_s: tuple[float, ...]
    b_s: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Throughput of the first path over the second, turn by turn."""
        return sorted(b / a for a, b in zip(self.a_s, self.b_s, strict=True))

    @property
    def ratio(self) -> float:
        """The median of `ratios`."""
        return statistics.median(self.ratios)

    def line(self, rows: int) -> str:
        """One line of the report; `rows` is the work of a run."""
        low, high = self.ratios[0], self.ratios[-1]
        rate = rows / statistics.median(self.a_s), rows / statistics.median(self.b_s)
        return (
            f"{self.name:<46} {self.ratio:5.3f}  ({low:.3f} to {high:.3f})  {rate[0]:>11,.0f} {rate[1]:>11,.0f} rows/s"
        )


def take_turns(
    name: str, a: Callable[[], object], b: Callable[[], object], *, turns: int, warmups: int = 1
) -> Comparison:
    """Runs two paths in turns A B A B …, each run after a rest; the first `warmups` turns do not count."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(warmups + turns):
        for path, kept in zip((a, b), seconds, strict=True):
            time.sleep(REST_S)
            begun = time.perf_counter()
            path()
            if turn >= warmups:
                kept.append(time.perf_counter() - begun)
    return Comparison(name, tuple(seconds[0]), tuple(seconds[1]))


def environment() -> dict[str, object]:
    """What a result depends on: versions, processors, the commit."""
    import numpy as np
    import onnxruntime

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "processor": _processor(),
        "cores": len(__import__("os").sched_getaffinity(0)),
        "commit": commit.stdout.strip() or None,
    }


def write(name: str, comparisons: list[Comparison], **more: object) -> Path:
    """Writes results as versioned JSON; returns the file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    body = {
        "schema": SCHEMA,
        "benchmark": name,
        "environment": environment(),
        **more,
        "comparisons": [asdict(c) | {"ratio": c.ratio} for c in comparisons],
    }
    path.write_text(json.dumps(body, indent=1) + "\n")
    return path


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
