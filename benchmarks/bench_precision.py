"""How much faster is ``precision="auto"`` with ``tv_budget=0.01`` than float32 on convolutional nets, and how far off are its rows?

The nets are trained on scikit-learn's digits first: the rows of a net that has learned nothing say little about a precision. Both run
as `fo_onnx.Engine` runs a file, in turns; the first line of each net is float32 against itself. The exit code is 1 if the geometric
mean is below what is promised for processors with integer dot products, or if a net is slower than in float32.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import fo_onnx as fo
from fo_onnx.distributions.probabilities import total_variation

from .measuring import Comparison, take_turns, write
from .nets import rows
from .nets.torch_nets import CONVOLUTIONAL, train_on_digits

ROWS = {"cnn": 20_000, "resnet18": 2_000, "resnet50": 800, "mobilenet": 2_000}
LONG_RUN_S = 120.0
"""Plans are chosen as for a run of about this length."""
BUDGET, LEAST_MEAN, LEAST_RATIO = 0.01, 1.7, 0.95


@contextmanager
def open_engine(path: Path, x: NDArray[np.float32], rows_per_s: float, **options: object) -> Iterator[fo.Engine]:
    """Open a file as for a long run over such rows."""
    with fo.Engine(path, **options) as engine:
        engine.plan(range(max(int(LONG_RUN_S * rows_per_s), len(x))), input_getter=lambda i: x[i % len(x)])
        yield engine


def compare(name: str, turns: int, folder: Path) -> tuple[list[Comparison], dict[str, object]]:
    """Train, export and measure a net."""
    begun = time.monotonic()
    net = train_on_digits(name)
    x = rows.colour_digits(ROWS[name], CONVOLUTIONAL[name][1])
    path = folder / f"{name}.onnx"
    fo.export(net, x[:64], path)
    print(f"{name}: trained and exported in {time.monotonic() - begun:.0f} s", flush=True)
    probs = fo.generate(path, x, progress=False)
    rows_per_s = probs.meta["timing"]["rows_per_s"]
    with (
        open_engine(path, x, rows_per_s) as float32,
        open_engine(path, x, rows_per_s, precision="auto", tv_budget=BUDGET) as lower,
    ):

        def run_in(engine: fo.Engine) -> Callable[[], fo.Distributions]:
            return lambda: engine.generate(x, progress=False)

        one, other = run_in(float32)(), run_in(lower)()
        distances = total_variation(one.probs, other.probs)
        found = [
            take_turns(f"{name}: float32 / itself", run_in(float32), run_in(float32), turns=turns),
            take_turns(f"{name}: auto / float32", run_in(lower), run_in(float32), turns=turns),
        ]
    report = other.meta["precision"]
    facts = {
        "choice": report["choice"],
        "p99_tv": float(np.percentile(distances, 99)),
        "max_tv": float(distances.max()),
        "flips": int((one.probs.argmax(1) != other.probs.argmax(1)).sum()),
        "rows": len(x),
        "trials": report["trials"],
    }
    for comparison in found:
        print(comparison.line(len(x)))
    print(
        f"  {facts['choice']}; over {len(x)} rows total variation {facts['p99_tv']:.4f} at the 99th percentile, at most "
        f"{facts['max_tv']:.4f}, {facts['flips']} flips",
        flush=True,
    )
    return found, facts


def has_integer_products() -> bool:
    """Return whether the processor multiplies and adds 8-bit integers in one instruction (VNNI, AMX), where that is known."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "vnni" in flags or "amx_int8" in flags


def main() -> None:
    """Print the ratios; exit code 1 where they are below what is promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--net", choices=tuple(CONVOLUTIONAL), action="append", help="only this one; may be repeated")
    chosen = parser.parse_args()
    found, facts = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen.net or CONVOLUTIONAL:
            comparisons, facts[name] = compare(name, chosen.turns, Path(folder))
            found += comparisons
    ratios = [c.ratio.median for c in found if "auto" in c.name]
    mean = statistics.geometric_mean(ratios)
    print(f"geometric mean {mean:.2f}")
    if not chosen.net:
        print(f"written to {write('precision', found, turns=chosen.turns, mean=mean, nets=facts)}")
    sys.exit(min(ratios) < LEAST_RATIO or (has_integer_products() and mean < LEAST_MEAN))


if __name__ == "__main__":
    main()
