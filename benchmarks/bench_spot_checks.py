"""How much of a run's time do its spot checks take, and do they find a fault that begins late?

The fault is planted: one row in a hundred from row 5,000 of 100,000 on, none of them among those that are compared before
the run, and at places that each trial draws anew.

The share of the time that the checks may take decides how many rows they reach. So the bound on the trials holds for a model
that is about as fast natively as in ONNX; one that is several times slower natively is printed beside it, without a bound.
"""

from __future__ import annotations

import os
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
    """A net whose original changes the signs of the logits of rows that begin with more than 100; its export does not."""
    import torch

    class Faulty(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Any) -> Any:
            logits = self.net(x)
            if torch.compiler.is_compiling():
                return logits
            return torch.where(x.flatten(1)[:, :1] > 100, -logits, logits)

    return Faulty().eval()


def time_shares() -> dict[str, list[dict[str, float]]]:
    """The record of each run's spot checks, with their share of its time, by case."""
    shares: dict[str, list[dict[str, float]]] = {}
    for case in (cases.mlp(), cases.deep_mlp(), cases.cnn(100_000), cases.transformer()):
        with fo.Engine(case.net, device="cpu", output="logits", runner="onnx") as engine:
            engine.generate(case.rows[: len(case.rows) // 10], progress=False)
            for _ in range(RUNS):
                meta = engine.generate(case.rows, progress=False).meta
                share = meta["spot_checks"]["seconds"] / meta["timing"]["total_s"]
                shares.setdefault(case.name, []).append({**meta["spot_checks"], "of": len(case.rows), "share": share})
    return shares


def count_found(case: cases.Case) -> int:
    """In how many trials the spot checks end the run."""
    compared = sample_positions(ROWS, 128, 128)
    candidates = np.setdiff1d(np.arange(START, ROWS), compared)
    first_column = case.rows.reshape(ROWS, -1)[:, 0]
    first_values = first_column.copy()
    found = 0
    with fo.Engine(with_fault(case.net), device="cpu", output="logits", runner="onnx") as engine:
        engine.generate(case.rows[:1000], progress=False)
        for seed in range(TRIALS):
            first_column[:] = first_values
            rng = np.random.default_rng(seed)
            first_column[rng.choice(candidates, (ROWS - START) // ONE_IN, replace=False)] = 101
            try:
                engine.generate(case.rows, progress=False)
            except fo.ParityError:
                found += 1
    return found


def main() -> None:
    """Prints both; exit code 1 where one is beyond its bound."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.environ["FO_ONNX_CACHE_DIR"] = folder
        shares = time_shares()
        even, slower = cases.transformer(ROWS), cases.deep_mlp(ROWS)
        found = {case.name: count_found(case) for case in (even, slower)}
    medians = {name: statistics.median(run["share"] for run in runs) for name, runs in shares.items()}
    for name, runs in shares.items():
        low, high = (100 * pick(run["share"] for run in runs) for pick in (min, max))
        checked = statistics.median(run["rows"] for run in runs)
        print(
            f"{name:<20} {100 * medians[name]:5.2f} %  ({low:.2f} to {high:.2f}), {checked:.0f} of {runs[0]['of']:,.0f} rows checked"
        )
    print(f"a fault of 1 row in {ONE_IN} from row {START:,} of {ROWS:,} on, found in so many of {TRIALS} trials:")
    for name, count in found.items():
        print(f"{name:<20} {count}")
    torch_version = TorchExporter().versions()["torch"]
    measuring.write("spot_checks", [], shares=shares, found=found, trials=TRIALS, torch=torch_version)
    if found[even.name] < LEAST_FOUND or max(medians.values()) > MOST_SHARE:
        sys.exit("beyond its bound")


if __name__ == "__main__":
    main()
