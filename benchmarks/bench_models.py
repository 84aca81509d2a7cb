"""How does each way to run a net compare, on nets that people use? Each case is one run of ``fo-onnx bench``, in a process of its own.

``python -m benchmarks.bench_models`` runs one framework per net; ``--all`` runs all that there are, with the memory of each path.
A case whose results are there, of this commit and this machine, is not run again. ``--docs`` writes the results into
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fo_onnx.bench import BenchError, BenchResult, read_result
from fo_onnx.bench.environment import describe_machine
from fo_onnx.bench.report import round_rows
from fo_onnx.bench.result import ENGINE

from .docs_page import write_docs
from .nets import rows

RESULTS = Path(__file__).parent / "results" / "models"


@dataclass(frozen=True)
class Net:
    """A net that is built in one framework or more.

    Attributes:
        title: What it is called.
        frameworks: The frameworks that have it; the first is the one of the short benchmark.
        samples: Makes so many rows, with channels first.
        batch_sizes: To try for paths that do not cut batches themselves.
        count: Rows that there are to run; a turn takes as many of them as it needs.
        on_gpu: Rows for a large GPU.
    """

    title: str
    frameworks: tuple[str, ...]
    samples: Callable[[int], Any]
    batch_sizes: tuple[int, ...]
    count: int
    on_gpu: int


NETS = {
    "mlp": Net("MLP 784-256-10, digits", ("jax", "torch", "keras"), rows.flat_digits, (64, 256, 1024), 60_000, 400_000),
    "cnn": Net("CNN 32², digits", ("keras", "torch", "jax"), rows.colour_digits, (8, 32, 128), 30_000, 200_000),
    "resnet18": Net("ResNet-18 64²", ("torch", "jax"), lambda n: rows.images(n, 64), (8, 32, 128), 2_000, 40_000),
    "resnet50": Net("ResNet-50 64²", ("keras", "torch"), lambda n: rows.images(n, 64), (4, 16, 64), 512, 20_000),
    "mobilenet": Net("MobileNetV2 96²", ("torch", "keras"), lambda n: rows.images(n, 96), (4, 16, 64), 2_000, 20_000),
    "vit": Net("ViT-Tiny 224²", ("torch", "keras", "jax"), lambda n: rows.images(n, 224), (2, 8, 32), 128, 10_000),
    "bert": Net("BERT-mini, 128 tokens", ("torch", "keras"), rows.tokens, (2, 8, 32), 256, 20_000),
    "lstm": Net("LSTM 50×64", ("torch", "keras"), rows.sequences, (8, 32, 128), 20_000, 100_000),
}


@dataclass(frozen=True)
class Case:
    """A net in a framework."""

    name: str
    framework: str

    @property
    def net(self) -> Net:
        """Return what the frameworks share."""
        return NETS[self.name]

    def path(self, device: str) -> Path:
        """Return the file of its results."""
        return RESULTS / f"{self.name}-{self.framework}{'' if device == 'cpu' else '-' + device}.json"


def list_cases(*, every: bool) -> list[Case]:
    """Return the cases: each net once, or in each framework that has it."""
    return [Case(n, f) for n, net in NETS.items() for f in (net.frameworks if every else net.frameworks[:1])]


def run_case(case: Case, *, device: str, memory: bool, turns: int, folder: Path) -> str | None:
    """Run a case in a process of its own; return the last line of its error if it failed."""
    samples = case.net.samples(case.net.count if device == "cpu" else case.net.on_gpu)
    if case.framework != "torch" and samples.ndim == 4:
        samples = rows.channels_last(samples)
    data = folder / "rows.npy"
    np.save(data, samples)
    out = case.path(device)
    out.parent.mkdir(parents=True, exist_ok=True)
    model = f"benchmarks.nets.{case.framework}_nets:{case.name}"
    command = [
        sys.executable,
        "-m",
        "fo_onnx",
        "bench",
        model,
        "--data",
        str(data),
        "--turns",
        str(turns),
        "-o",
        str(out),
    ]
    command += [word for size in case.net.batch_sizes for word in ("--batch-size", str(size))]
    command += ["--device", device, *(["--memory"] if memory else [])]
    completed = subprocess.run(command, text=True, capture_output=True, check=False)
    lines = completed.stderr.strip().splitlines()
    return None if completed.returncode == 0 else lines[-1] if lines else f"exit code {completed.returncode}"


def is_done(case: Case, device: str, *, memory: bool) -> bool:
    """Return whether the results of a case are there, of this commit and this machine."""
    try:
        result = read_result(case.path(device))
    except BenchError:
        return False
    machine = describe_machine()
    has_memory = any(path.peak_bytes is not None for path in result.paths)
    return all(result.environment.get(key) == value for key, value in machine.items()) and (has_memory or not memory)


RIVALS = ("best native", "plain native", "onnxruntime", "openvino")


def summarise(results: Sequence[tuple[Case, BenchResult]]) -> str:
    """Return the table of all cases: the throughput of fo-onnx, and its ratios to the other paths."""
    header = [
        "net",
        "framework",
        "fo-onnx, rows/s",
        "of the limit",
        *(f"/ {name}" for name in RIVALS),
        "export pays from",
    ]
    lines = [_line(header), _line(["---"] * len(header))]
    ratios: dict[str, list[float]] = {name: [] for name in RIVALS}
    for case, result in results:
        names = _rivals_of(result)
        if not names:
            reason = next((path.error for path in result.paths if path.name == ENGINE), None)
            lines.append(
                _line([case.net.title, case.framework, f"not timed: {reason or result.not_tried.get(ENGINE)}"])
            )
            continue
        for rival, name in names.items():
            ratios[rival].append(result.ratio(ENGINE, name).median)
        rate = result.path(ENGINE).rows_per_s(result.rows) or 0.0
        paid = result.rows_until_paid()
        lines.append(
            _line(
                [
                    case.net.title, case.framework, f"{rate:,.0f}",
                    f"{100 * rate / result.limit_rows_per_s:.0f} %" if result.limit_rows_per_s else "",
                    *(_ratio_cell(result, rival, names.get(rival)) for rival in RIVALS),
                    "" if paid is None else f"{round_rows(paid):,} rows",
                ]
            )
        )  # fmt: skip
    means = [f"{statistics.geometric_mean(values):.2f}" if values else "" for values in ratios.values()]
    return "\n".join([*lines, _line(["geometric mean", "", "", "", *means, ""])])


def _rivals_of(result: BenchResult) -> dict[str, str]:
    """Return the names of the paths that fo-onnx is compared with; none if it was not timed."""
    timed = [path.name for path in result.timed]
    native = [path for path in result.timed if path.is_native]
    if ENGINE not in timed:
        return {}
    rivals = {name: name for name in RIVALS if name in timed}
    if native:
        best = min(native, key=lambda path: statistics.median(path.seconds))
        rivals |= {"best native": best.name, "plain native": native[0].name}
    return rivals


def _ratio_cell(result: BenchResult, rival: str, name: str | None) -> str:
    if name is None:
        return ""
    return f"{result.ratio(ENGINE, name).median:.2f}" + (f" ({name})" if rival == "best native" else "")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run the cases and print the table; exit code 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="each net in each framework, with the memory of each path")
    parser.add_argument("--case", action="append", help="only this one: resnet18-torch; may be repeated")
    parser.add_argument("--again", action="store_true", help="also those whose results are there")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--docs", action="store_true", help="write the results into docs/benchmarks.md")
    parser.add_argument("--gpu", action="store_true", help="in ONNX Runtime on CUDA, with rows for one large GPU")
    chosen = parser.parse_args()
    device = "cuda" if chosen.gpu else "cpu"
    cases = list_cases(every=chosen.all or bool(chosen.case))
    if chosen.case:
        cases = [case for case in cases if f"{case.name}-{case.framework}" in chosen.case]
    failures = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            if not chosen.again and is_done(case, device, memory=chosen.all):
                continue
            print(f"{case.net.title}, {case.framework}", end=" ", flush=True)
            begun = time.monotonic()
            error = run_case(case, device=device, memory=chosen.all, turns=chosen.turns, folder=Path(folder))
            print(f"{time.monotonic() - begun:.0f} s{'' if error is None else ': ' + error}", flush=True)
            if error is not None:
                failures[case] = error
    results = [(case, read_result(case.path(device))) for case in cases if case not in failures]
    table = summarise(results)
    print(table)
    if chosen.docs and results:
        titled = [(f"{case.net.title}, {case.framework}", result) for case, result in results]
        print(f"written to {write_docs(titled, table, 'make bench-all' if chosen.all else 'make bench')}")
    if failures:
        sys.exit(f"failed: {', '.join(f'{case.name}-{case.framework}' for case in failures)}")


if __name__ == "__main__":
    main()
