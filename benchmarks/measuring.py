"""Two paths in turns, and their ratio with its spread, for the questions of this folder; see `fo_onnx.bench.turns`."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from fo_onnx.bench.environment import describe_machine
from fo_onnx.bench.turns import Ratio, ratio_of, time_in_turns

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
    def ratio(self) -> Ratio:
        """Throughput of the first path over the second."""
        return ratio_of(self.a_s, self.b_s)

    def line(self, rows: int) -> str:
        """Return one line of a report; `rows` is the work of a run."""
        first, second = (rows / statistics.median(seconds) for seconds in (self.a_s, self.b_s))
        ratio = self.ratio
        spread = f"{ratio.median:5.3f}  ({ratio.low:.3f} to {ratio.high:.3f})"
        return f"{self.name:<46} {spread}  {first:>11,.0f} {second:>11,.0f} rows/s"


def take_turns(
    name: str, a: Callable[[], object], b: Callable[[], object], *, turns: int, warmups: int = 1
) -> Comparison:
    """Run two paths in turns A B A B …, each run after a rest; the first `warmups` turns do not count."""
    seconds = time_in_turns({"a": a, "b": b}, warmups + turns)
    return Comparison(name, tuple(seconds["a"][warmups:]), tuple(seconds["b"][warmups:]))


def environment() -> dict[str, object]:
    """Return what a result depends on: versions, processors, the commit."""
    import numpy as np
    import onnxruntime

    versions = {"python": platform.python_version(), "numpy": np.__version__, "onnxruntime": onnxruntime.__version__}
    return versions | describe_machine()


def write(name: str, comparisons: list[Comparison], **more: object) -> Path:
    """Write results as versioned JSON; return the file."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    body = {
        "schema": SCHEMA,
        "benchmark": name,
        "environment": environment(),
        **more,
        "comparisons": [asdict(c) | {"ratio": c.ratio.median} for c in comparisons],
    }
    path.write_text(json.dumps(body, indent=1) + "\n")
    return path
