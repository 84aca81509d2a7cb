"""Where OpenVINO's build of ONNX Runtime is installed: how does fo-onnx compare with OpenVINO on its own?

``python -m benchmarks.bench_openvino --python .venv-openvino/bin/python`` (``make bench-openvino``) exports the nets here, and measures
with that other Python, whose environment has ``fo-onnx[openvino,rivals]``. In turns, over the same rows:

- fo-onnx in float32, and with ``precision="auto", tv_budget=0.01``;
- OpenVINO with its defaults, which run one request after another, in bfloat16 where the processor has that;
- OpenVINO in float32 with its hint for throughput.

OpenVINO runs in the best of three batch sizes. The convolutional nets are trained on the digits, so that their precisions are judged on
rows that mean something.

The exit code is 1 if one of ours is slower than that of OpenVINO which it stands against.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fo_onnx as fo
from fo_onnx.bench.openvino_path import HINTS, open_in_openvino
from fo_onnx.bench.timed_path import LEAST_BATCHES
from fo_onnx.bench.turns import Ratio, ratio_of, time_in_turns
from fo_onnx.distributions.probabilities import total_variation
from fo_onnx.models.onnx_model import OnnxModel

from .bench_models import NETS
from .measuring import RESULTS, environment

LONG_RUN_S, TURN_S = 120.0, 1.0
BUDGET, LEAST_RATIO = 0.01, 0.98
OURS: dict[str, dict[str, Any]] = {"float32": {}, "auto": {"precision": "auto", "tv_budget": BUDGET}}
THEIRS: dict[str, tuple[str, dict[str, str]]] = {
    "float32": ("OpenVINO, float32", HINTS),
    "auto": ("OpenVINO, its defaults", {}),
}
"""What stands against each of ours: its name, and OpenVINO's hints."""


def export_nets(folder: Path, names: list[str]) -> None:
    """Write the nets of torch as files, with their rows."""
    from .nets import rows, torch_nets

    for name in names:
        count = min(NETS[name].count, 4096)
        if name in torch_nets.CONVOLUTIONAL:
            net, x = torch_nets.train_on_digits(name), rows.colour_digits(count, torch_nets.CONVOLUTIONAL[name][1])
        else:
            net, x = getattr(torch_nets, name), NETS[name].samples(count)
        fo.export(net, x[:64], folder / f"{name}.onnx", output="logits")
        np.save(folder / f"{name}.npy", x)


def best_openvino(path: Path, x: np.ndarray, sizes: tuple[int, ...], hints: dict[str, str]) -> Callable[[], np.ndarray]:
    """Return the way in the batches in which it is the fastest."""
    model = OnnxModel.open(path)
    run = open_in_openvino(model, "logits", 1.0, hints)
    inputs = {model.spec.inputs[0].name: x}
    ways: dict[str, Callable[[], np.ndarray]] = {str(size): partial(run, inputs, size) for size in sizes}
    for way in ways.values():
        way()
    seconds = time_in_turns(ways, 2)
    return ways[min(ways, key=lambda size: min(seconds[size]))]


def measure(path: Path, turns: int) -> dict[str, Any]:
    """Measure a file in this process."""
    x, net = np.load(path.with_suffix(".npy")), NETS[path.stem]
    begun = time.perf_counter()
    expected = fo.generate(path, x[: net.batch_sizes[-1]], progress=False).probs
    rate = len(expected) / (time.perf_counter() - begun)
    timed = fo.generate(path, x[: max(int(rate * TURN_S), len(expected))], progress=False)
    rate = timed.meta["timing"]["rows_per_s"]
    engines = {name: fo.Engine(path, **options) for name, options in OURS.items()}
    try:
        reports: dict[str, Any] = {}
        ways: dict[str, Callable[[], np.ndarray]] = {}
        for name, engine in engines.items():
            engine.plan(range(int(LONG_RUN_S * rate)), input_getter=lambda i: x[i % len(x)])
            meta = engine.generate(x[: net.batch_sizes[-1]], progress=False).meta
            reports[name] = meta["engine"] | {"precision_report": meta["precision"]}
        least = max(LEAST_BATCHES * report["batch_size"] * report["sessions"] for report in reports.values())
        x = x[: max(int(rate * TURN_S), net.batch_sizes[-1], least)]
        ways |= {name: partial(_run, engine, x) for name, engine in engines.items()}
        ways |= {name: best_openvino(path, x, net.batch_sizes, hints) for name, hints in THEIRS.values()}
        rows = {name: way() for name, way in ways.items()}
        distances = {name: float(np.percentile(total_variation(rows["float32"], r), 99)) for name, r in rows.items()}
        seconds = time_in_turns(ways, turns)
    finally:
        for engine in engines.values():
            engine.close()
    return {"rows": len(x), "seconds": seconds, "p99_tv": distances, "engines": reports}


def _run(engine: fo.Engine, x: np.ndarray) -> np.ndarray:
    return engine.generate(x, progress=False).probs


def ratios_of(result: Mapping[str, Any]) -> dict[str, Ratio]:
    """Return the throughput of each of our ways over that of OpenVINO which it stands against."""
    seconds = result["seconds"]
    return {ours: ratio_of(seconds[ours], seconds[other]) for ours, (other, _) in THEIRS.items()}


def line_of(name: str, result: Mapping[str, Any]) -> str:
    """Return a line of the report."""
    cells = [f"{name:<10}"]
    for ours, ratio in ratios_of(result).items():
        engine = result["engines"][ours]
        rate, other = result["rows"] / statistics.median(result["seconds"][ours]), THEIRS[ours][0]
        cells.append(
            f"{ours} {rate:,.0f} rows/s ({engine['device']}, {engine['precision']}, off by {result['p99_tv'][ours]:.4f}), "
            f"{ratio} of {other} (off by {result['p99_tv'][other]:.4f})"
        )
    return "; ".join(cells)


def main() -> None:
    """Print the ratios; exit code 1 where one of ours is slower."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, help="the Python of the environment with OpenVINO")
    parser.add_argument("--inside", type=Path, metavar="FOLDER", help="measure the files of a folder in this process")
    parser.add_argument("--net", choices=tuple(NETS), action="append", help="only this one; may be repeated")
    parser.add_argument("--turns", type=int, default=7)
    chosen = parser.parse_args()
    if chosen.inside is not None:
        for path in sorted(chosen.inside.glob("*.onnx")):
            print(json.dumps({path.stem: measure(path, chosen.turns)}), flush=True)
        return
    if chosen.python is None:
        parser.error("--python is needed: that of an environment with fo-onnx[openvino,rivals]")
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        export_nets(Path(folder), chosen.net or list(NETS))
        command = [
            str(chosen.python),
            "-m",
            "benchmarks.bench_openvino",
            "--inside",
            folder,
            "--turns",
            str(chosen.turns),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for text in process.stdout:
                for name, result in json.loads(text).items():
                    results[name] = result
                    print(line_of(name, result), flush=True)
    if process.returncode:
        sys.exit(process.returncode)
    if not chosen.net:
        path = RESULTS / "openvino.json"
        path.write_text(json.dumps({"environment": environment(), "nets": results}, indent=1) + "\n")
        print(f"written to {path}")
    worst = min(ratio.median for result in results.values() for ratio in ratios_of(result).values())
    sys.exit(worst < LEAST_RATIO)


if __name__ == "__main__":
    main()
