"""How much of a run's time do its spot checks take, and do they find a fault that begins late?

The fault is planted: one row in a hundred from row 5,000 of 100,000 on, none of them among those that are compared before
the run, and at places that each trial draws anew.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import warnings
from typing import Any

import numpy as np
from fo_onnx_torch.plugin import TorchExporter

import fo_onnx as fo
from fo_onnx.sources.annotations import sample_positions

from . import cases, measuring

MOST_SHARE = 0.02
TRIALS, LEAST_FOUND = 100, 99
ROWS, START, ONE_IN = 100_000, 5_000, 100
RUNS = 5


def with_fault(net: Any) -> Any:
    """A net whose original reads rows that begin with more than 100 with their signs changed; its export does not."""
    import torch

    class Faulty(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Any) -> Any:
            if torch.compiler.is_compiling():
                return self.net(x)
            return self.net(torch.where(x[:, :1] > 100, -x, x))

    return Faulty().eval()


def time_shares() -> dict[str, list[dict[str, float]]]:
    """The record of each run's spot checks, with their share of its time, by case."""
    shares: dict[str, list[dict[str, float]]] = {}
    for case in (cases.mlp(), cases.deep_mlp(), cases.cnn(100_000)):
        with fo.Engine(case.net, device="cpu", output="logits") as engine:
            engine.generate(case.rows[: len(case.rows) // 10], progress=False)
            for _ in range(RUNS):
                meta = engine.generate(case.rows, progress=False).meta
                share = meta["spot_checks"]["seconds"] / meta["timing"]["total_s"]
                shares.setdefault(case.name, []).append({**meta["spot_checks"], "share": share})
    return shares


def count_found() -> int:
    """In how many trials the spot checks end the run."""
    case = cases.deep_mlp(ROWS)
    compared = sample_positions(ROWS, 128, 128)
    candidates = np.setdiff1d(np.arange(START, ROWS), compared)
    first_values = case.rows[:, 0].copy()
    found = 0
    with fo.Engine(with_fault(case.net), device="cpu", output="logits", runner="onnx") as engine:
        engine.generate(case.rows[:1000], progress=False)
        for seed in range(TRIALS):
            case.rows[:, 0] = first_values
            rng = np.random.default_rng(seed)
            case.rows[rng.choice(candidates, (ROWS - START) // ONE_IN, replace=False), 0] = 101
            try:
                engine.generate(case.rows, progress=False)
            except fo.ParityError:
                found += 1
    return found


def main() -> None:
    """Prints both; exit code 1 where one is beyond its bound."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import os

        os.environ["FO_ONNX_CACHE_DIR"] = folder
        shares, found = time_shares(), count_found()
    for name, runs in shares.items():
        share = [100 * run["share"] for run in runs]
        rows = statistics.median(run["rows"] for run in runs)
        print(
            f"{name:<16} {statistics.median(share):5.2f} %  ({min(share):.2f} to {max(share):.2f}), {rows:.0f} rows checked"
        )
    print(f"a fault of 1 row in {ONE_IN} from row {START:,} of {ROWS:,} on: found in {found} of {TRIALS} trials")
    measuring.write(
        "spot_checks", [], shares=shares, found=found, trials=TRIALS, torch=TorchExporter().versions()["torch"]
    )
    if found < LEAST_FOUND or any(statistics.median(r["share"] for r in runs) > MOST_SHARE for runs in shares.values()):
        sys.exit("beyond its bound")


if __name__ == "__main__":
    main()
