"""Does a small job cost what it costs natively, with nothing cached?

1. 1,000 rows of a small CNN: `fo_onnx.generate` against a plain loop in torch at its best batch size, in turns. The first
   line is the loop against itself, which says how far from 1 a ratio can lie by chance.
2. Five tiny nets over 540 rows, as folds of a cross-validation: seconds for all of them together.

Both are in one process after the imports, with an empty cache of exports.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

import fo_onnx as fo
from fo_onnx.distributions.probabilities import total_variation

from . import cases
from .measuring import take_turns, write

BATCHES = (32, 64, 128, 256, 1000)
MOST_RATIO, MOST_MORE_S = 1.15, 0.05
MOST_FOLDS_S = 2.0


def plain_loop(case: cases.Case, batch: int) -> Callable[[], NDArray[np.float32]]:
    """Returns what a user would write by hand in torch."""
    import torch

    def run() -> NDArray[np.float32]:
        with torch.inference_mode():
            parts = [
                torch.softmax(case.net(torch.from_numpy(case.rows[start : start + batch])), dim=1).numpy()
                for start in range(0, len(case.rows), batch)
            ]
        return np.concatenate(parts)

    return run


def best_batch(case: cases.Case, batches: Sequence[int] = BATCHES) -> int:
    """Returns the batch size whose loop is the fastest, each timed three times in turns."""
    seconds = dict.fromkeys(batches, float("inf"))
    for _ in range(3):
        for batch in batches:
            time.sleep(0.05)
            begun = time.perf_counter()
            plain_loop(case, batch)()
            seconds[batch] = min(seconds[batch], time.perf_counter() - begun)
    return min(seconds, key=seconds.__getitem__)


def time_folds(nets: int = 5, rows: int = 540) -> tuple[float, list[str]]:
    """Returns the seconds that tiny nets take over some rows, and the runner of each."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    models = [nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).eval() for _ in range(nets)]
    data = np.random.default_rng(0).standard_normal((rows, 64), dtype=np.float32)
    begun = time.perf_counter()
    runners = [fo.generate(model, data, progress=False).meta["runner"]["kind"] for model in models]
    return time.perf_counter() - begun, runners


def main() -> None:
    """Prints the figures; exit code 1 where one is worse than what is promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=9)
    turns = parser.parse_args().turns
    with tempfile.TemporaryDirectory() as cache:
        os.environ["FO_ONNX_CACHE_DIR"] = cache
        folds_s, runners = time_folds()
        print(f"five tiny nets over 540 rows, the first of the process: {folds_s:.2f} s, {', '.join(runners)}")
        case = cases.cnn(rows=1000)
        batch = best_batch(case)
        loop, expected = plain_loop(case, batch), plain_loop(case, batch)()

        def generate() -> fo.Distributions:
            return fo.generate(case.net, case.rows, progress=False)

        worst = float(total_variation(expected, generate().probs).max())
        if worst > 1e-5:
            sys.exit(f"the two paths differ by a total variation of {worst:.1e}; nothing was timed.")
        print(f"{'throughput, first / second':<46} ratio  (min to max)           first      second")
        found = [
            take_turns(f"{case.name}: loop (batch {batch}) / itself", loop, plain_loop(case, batch), turns=turns),
            take_turns(f"{case.name}: fo.generate / loop", generate, loop, turns=turns),
        ]
        for comparison in found:
            print(comparison.line(len(case.rows)))
        # Pair by pair: how far above what is allowed.
        more_s = statistics.median(a - MOST_RATIO * b for a, b in zip(found[1].a_s, found[1].b_s, strict=True))
        print(f"above {MOST_RATIO} times the loop: {more_s * 1000:.0f} ms (at most {MOST_MORE_S * 1000:.0f})")
    path = write("small_jobs", found, turns=turns, folds_s=folds_s, more_s=more_s)
    print(f"written to {path}")
    sys.exit(more_s > MOST_MORE_S or folds_s > MOST_FOLDS_S)


if __name__ == "__main__":
    main()
