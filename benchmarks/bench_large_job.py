"""Are 20,000 rows of ResNet-50 at 64² done sooner by `fo_onnx.generate`, with nothing cached, than natively?

Natively is a plain loop in torch at the best of several batch sizes, chosen beforehand. Each runs once: it takes minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable

import fo_onnx as fo
from fo_onnx.distributions.probabilities import total_variation

from . import cases
from .bench_small_jobs import best_batch, plain_loop
from .measuring import Comparison, write
from .nets import rows
from .nets.torch_nets import resnet50

BATCHES = (8, 16, 32, 64, 128)


def seconds_of(run: Callable[[], object]) -> float:
    """Return what a call takes."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def main() -> None:
    """Print the seconds of both; exit code 1 if natively was sooner."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    count = parser.parse_args().rows
    x = rows.images(count, 64)
    case = cases.Case("ResNet-50 64²", resnet50, x)
    batch = best_batch(cases.Case(case.name, case.net, x[:256]), BATCHES)
    loop = plain_loop(case, batch)
    results = {}
    with tempfile.TemporaryDirectory() as cache:
        os.environ["FO_ONNX_CACHE_DIR"] = cache
        fo_s = seconds_of(lambda: results.update(fo_onnx=fo.generate(case.net, x, progress=False)))
        native_s = seconds_of(lambda: results.update(native=loop()))
    dists = results["fo_onnx"]
    worst = float(total_variation(dists.probs, results["native"]).max())
    comparison = Comparison(f"{case.name}: fo.generate / loop (batch {batch})", (fo_s,), (native_s,))
    print(comparison.line(count))
    print(
        f"{count} rows: fo.generate {fo_s:.0f} s, of these {fo_s - dists.meta['timing']['total_s']:.0f} s before the first row, "
        f"natively {native_s:.0f} s; runner {dists.meta['runner']['kind']}, {dists.meta['engine']['batch_size']} rows a batch, total "
        f"variation at most {worst:.1e}"
    )
    print(f"written to {write('large_job', [comparison], rows=count, worst_tv=worst)}")
    sys.exit(fo_s >= native_s or worst > 1e-4)


if __name__ == "__main__":
    main()
