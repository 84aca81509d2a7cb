"""How much of the best hand-written ONNX Runtime loop's throughput does `fo_onnx.generate` reach, for rows in memory?

The loop has its session open, its output preallocated, the best of the batch sizes 64, 256 and 1,024, and softmax in
numpy. `generate` opens the file anew in each run. The first line of each case is the loop against itself, which says how
far from 1 a ratio can lie by chance.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fo_onnx as fo
from fo_onnx.distributions.probabilities import softmax, total_variation

from . import cases
from .measuring import Comparison, take_turns, write

BATCHES = (64, 256, 1024)
LEAST_RATIO = 0.95


def plain_loop(model: Path, rows: NDArray[np.float32], batch: int) -> Callable[[], NDArray[np.float32]]:
    """The rival: a session, a preallocated output, a loop."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort

    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run() -> NDArray[np.float32]:
        out = np.empty((len(rows), 10), np.float32)
        for start in range(0, len(rows), batch):
            out[start : start + batch] = softmax(session.run(["logits"], {name: rows[start : start + batch]})[0])
        return out

    return run


def best_loop(model: Path, rows: NDArray[np.float32]) -> tuple[int, Callable[[], NDArray[np.float32]]]:
    """The loop at the batch size that was fastest, each measured twice in turns."""
    loops = {batch: plain_loop(model, rows, batch) for batch in BATCHES}
    seconds = dict.fromkeys(BATCHES, float("inf"))
    for _ in range(3):
        for batch, loop in loops.items():
            time.sleep(0.05)
            begun = time.perf_counter()
            loop()
            seconds[batch] = min(seconds[batch], time.perf_counter() - begun)
    best = min(BATCHES, key=lambda b: seconds[b])
    return best, loops[best]


def compare(case: cases.Case, turns: int, folder: Path) -> list[Comparison]:
    """Measures one case: null, `generate`, and an open `Engine`."""
    model = fo.export(case.net, case.rows[:256], folder / f"{len(case.rows)}.onnx")
    batch, loop = best_loop(model.path, case.rows)
    expected = loop()
    found = fo.generate(model, case.rows, progress=False).probs
    worst = float(total_variation(expected, found).max())
    if worst > 1e-5:
        sys.exit(f"{case.name}: the two paths differ by a total variation of {worst:.1e}; nothing was timed.")
    with fo.Engine(model) as engine:
        pairs: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
            (f"{case.name}: loop (batch {batch}) / itself", loop, plain_loop(model.path, case.rows, batch)),
            (f"{case.name}: fo.generate / loop", lambda: fo.generate(model, case.rows, progress=False), loop),
            (f"{case.name}: Engine.generate / loop", lambda: engine.generate(case.rows, progress=False), loop),
        ]
        found_all = []
        for name, a, b in pairs:
            found_all.append(take_turns(name, a, b, turns=turns))
            print(found_all[-1].line(len(case.rows)), flush=True)
    return found_all


def main() -> None:
    """Prints the ratios; exit code 1 where one is below the least that is promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    turns = parser.parse_args().turns
    print(f"{'throughput, first / second':<46} ratio  (min to max)           first      second")
    with tempfile.TemporaryDirectory() as folder:
        found = [c for case in (cases.mlp(), cases.cnn()) for c in compare(case, turns, Path(folder))]
    path = write("engine", found, turns=turns)
    print(f"written to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path.name}")
    low = [c.name for c in found if "fo.generate" in c.name and c.ratio < LEAST_RATIO]
    if low:
        sys.exit(f"below {LEAST_RATIO}: {', '.join(low)}")


if __name__ == "__main__":
    main()
