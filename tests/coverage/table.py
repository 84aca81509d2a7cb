"""What of each framework becomes ONNX, what runs natively and why: the table of ``make coverage``.

Every case is a classifier of a framework with rows that lie well apart. It goes through ``fo_onnx.generate`` twice, with
``runner="onnx"`` and with ``runner="auto"``, and both are compared with what the framework itself gives. Each framework's
cases run in a process of their own.

    python tests/coverage/table.py            prints the table
    python tests/coverage/table.py --write    and keeps it in docs/coverage.md
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"
FRAMEWORKS = ("torch", "keras", "jax", "sklearn")
LEAST_SPREAD = 0.05
"""Median total variation between different rows; rows closer together agree with anything."""
TOLERANCE = 1e-4
ROWS = 23


@dataclass(frozen=True)
class Prepared:
    """A case, ready to run.

    Attributes:
        model: What is given to `generate`.
        data: The rows.
        truth: The framework's own distributions (n, k), float64.
        options: Arguments of `generate` that the case needs.
        tolerance: The largest total variation that is right; above 1e-4 only for models that compute in half precision.
    """

    model: Any
    data: Any
    truth: np.ndarray
    options: dict[str, Any]
    tolerance: float = TOLERANCE


@dataclass(frozen=True)
class Result:
    """A line of the table.

    Attributes:
        framework: The framework.
        name: The case.
        onnx: Whether it ran in ONNX when that was asked for.
        auto: The way that was taken when the choice was free: ``"onnx"`` or ``"native"``; ``None`` where neither worked.
        max_tv: The largest total variation of any row of any of the ways, from what the framework itself gives.
        spread: The median total variation between different rows.
        tolerance: The largest `max_tv` that is right.
        seconds: What both runs took, the export included.
        why: Why ONNX was not possible, or not chosen.
    """

    framework: str
    name: str
    onnx: bool
    auto: str | None
    max_tv: float | None
    spread: float
    tolerance: float
    seconds: float
    why: str

    @property
    def right(self) -> bool:
        """Whether it ran in some way, to the right rows, and the rows prove it."""
        return (
            self.auto is not None
            and self.max_tv is not None
            and self.max_tv <= self.tolerance
            and self.spread >= LEAST_SPREAD
        )


def prepared_torch(name: str) -> Prepared:
    cases = importlib.import_module("torch_cases")
    case = cases.CASES[name]()
    nets = importlib.import_module("torch_nets")
    return Prepared(case.model, case.data, nets.truth(case), case.options, max(case.tolerance, TOLERANCE))


def prepared_jax(name: str) -> Prepared:
    case = importlib.import_module("jax_cases").CASES[name]
    function, inputs = case.make()
    data = inputs(ROWS)
    args = data if isinstance(data, tuple) else (data,)
    return Prepared(function, data, distributions(function(*args)), {}, max(case.tolerance, TOLERANCE))


def prepared_keras(name: str) -> Prepared:
    own = importlib.import_module("keras_truth")
    model, inputs = importlib.import_module("keras_cases").CASES[name].make()
    data = inputs(ROWS)
    # What is the same is told against float32, also of models in half precision.
    truth = own.in_float32(model, data) if name in own.MIXED else own.probs(model, data)
    return Prepared(model, data, truth, {})


def prepared_sklearn(name: str) -> Prepared:
    cases = importlib.import_module("sklearn_cases")
    model, data = cases.CASES[name](), cases.rows(ROWS, 7)
    return Prepared(model, data, model.predict_proba(data), {})


PREPARE: dict[str, Callable[[str], Prepared]] = {
    "torch": prepared_torch,
    "jax": prepared_jax,
    "keras": prepared_keras,
    "sklearn": prepared_sklearn,
}


def distributions(scores: Any) -> np.ndarray:
    """Logits as distributions; what are distributions already stays as it is."""
    scores = np.asarray(scores, np.float64)
    if (scores >= 0).all() and np.abs(scores.sum(axis=1) - 1).max() < 1e-3:
        return scores / scores.sum(axis=1, keepdims=True)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def median_distance(probs: np.ndarray, pairs: int = 2000) -> float:
    """The median total variation between different rows of (n, k), over some pairs of them."""
    from fo_onnx.distributions.probabilities import total_variation

    rng = np.random.default_rng(0)
    first = rng.integers(0, len(probs), pairs)
    second = (first + rng.integers(1, len(probs), pairs)) % len(probs)
    return float(np.median(total_variation(probs[first], probs[second])))


def run(framework: str, name: str) -> Result:
    """A case by both ways."""
    import fo_onnx as fo
    from fo_onnx.distributions.probabilities import total_variation
    from fo_onnx.errors import FoOnnxError

    case = PREPARE[framework](name)
    begun = time.monotonic()
    found: dict[str, fo.Distributions] = {}
    why: dict[str, str] = {}
    for runner in ("onnx", "auto"):
        try:
            found[runner] = fo.generate(
                case.model, case.data, runner=runner, batch_size=7, progress=False, **case.options
            )
        except FoOnnxError as err:
            why[runner] = str(err)
    seconds = time.monotonic() - begun
    runner = found["auto"].meta["runner"] if "auto" in found else {"kind": None, "reason": why["auto"]}
    return Result(
        framework,
        name,
        onnx="onnx" in found,
        auto=runner["kind"],
        max_tv=max((float(total_variation(case.truth, f.probs).max()) for f in found.values()), default=None),
        spread=median_distance(case.truth),
        tolerance=case.tolerance,
        seconds=seconds,
        why=runner["reason"] or why.get("onnx", ""),
    )


def names(framework: str) -> list[str]:
    return list(importlib.import_module(f"{framework}_cases").CASES)


def run_here(framework: str, only: list[str]) -> None:
    """Runs a framework's cases in this process, and prints a line of JSON for each."""
    from fo_onnx.engine import small_jobs

    # A few rows are a small job of any model, which says nothing of what becomes ONNX.
    small_jobs.expected_export_s = lambda framework: 0.0
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="fo-onnx-coverage-") as folder:
        os.environ["FO_ONNX_CACHE_DIR"] = folder
        for name in only or names(framework):
            try:
                line = asdict(run(framework, name))
            except Exception:
                line = {"name": name, "error": traceback.format_exc()}
            print("RESULT " + json.dumps(line), flush=True)


def collect(framework: str, only: list[str]) -> list[Result]:
    """Runs a framework's cases in a process of their own."""
    command = [sys.executable, __file__, "--framework", framework, "--here", *only]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    found = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.startswith("RESULT "):
                continue
            known = json.loads(line.removeprefix("RESULT "))
            if "error" in known:
                raise SystemExit(f"{framework} {known['name']} could not be run:\n{known['error']}")
            found.append(Result(**known))
            print(text_of(found[-1]), file=sys.stderr, flush=True)
    if process.returncode:
        raise SystemExit(f"the process of {framework}'s cases ended with {process.returncode}")
    return found


def text_of(result: Result) -> str:
    tv = "-" if result.max_tv is None else f"{result.max_tv:.1e}"
    right = "" if result.right else "  NOT RIGHT"
    return f"{result.framework:6} {result.name:24} {way(result):22} tv {tv}  {result.seconds:5.1f} s{right}"


def way(result: Result) -> str:
    if result.auto is None:
        return "none"
    if result.auto == "onnx":
        return "ONNX"
    return "natively, by choice" if result.onnx else "natively"


def page(results: list[Result], versions: str) -> str:
    """The table as Markdown, with the counts first."""
    lines = [
        "# What becomes ONNX",
        "",
        "Made by `make coverage`. Each case is a classifier of a framework, run by `fo_onnx.generate` with `runner=\"onnx\"` and with "
        "`runner=\"auto\"`; `tv` is the largest total variation of any of its rows, by either way, from what the framework itself "
        "gives, and `spread` the median total variation between different rows, so that agreement means something. *By choice*: ONNX "
        "gives the right rows too, but the framework's own runner is faster.",
        "",
        f"With {versions}.",
        "",
        "| framework | cases | ONNX possible | right by some way | wrong |",
        "|---|---|---|---|---|",
    ]  # fmt: skip
    for framework in dict.fromkeys(r.framework for r in results):
        own = [r for r in results if r.framework == framework]
        counts = sum(r.onnx for r in own), sum(r.right for r in own), sum(not r.right for r in own)
        lines.append(f"| {framework} | {len(own)} | {' | '.join(map(str, counts))} |")
    for framework in dict.fromkeys(r.framework for r in results):
        lines += ["", f"## {framework}", "", "| case | way | tv | spread | why not ONNX |", "|---|---|---|---|---|"]
        for r in results:
            if r.framework == framework:
                tv = "" if r.max_tv is None else f"{r.max_tv:.1e}"
                why = re.sub(r"\s+", " ", r.why).replace("|", "\\|")
                shown = why if len(why) <= 240 else why[:240] + " …"
                lines.append(
                    f"| {r.name} | {way(r)}{'' if r.right else ' (WRONG)'} | {tv} | {r.spread:.2f} | {shown} |"
                )
    return "\n".join(lines) + "\n"


def versions() -> str:
    from importlib.metadata import version

    packages = (
        "torch",
        "tensorflow",
        "keras",
        "tf2onnx",
        "jax",
        "flax",
        "equinox",
        "dm-haiku",
        "scikit-learn",
        "skl2onnx",
        "onnx",
        "onnxruntime",
    )
    return ", ".join(f"{p} {version(p)}" for p in packages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", choices=FRAMEWORKS, help="only this one's cases")
    parser.add_argument("--write", action="store_true", help=f"keep the table in docs/{PAGE.name}")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("cases", nargs="*", help="only these cases")
    args = parser.parse_args()
    if args.here:
        run_here(args.framework, args.cases)
        return
    chosen = [args.framework] if args.framework else FRAMEWORKS
    results = [r for framework in chosen for r in collect(framework, args.cases)]
    text = page(results, versions())
    print(text)
    if args.write:
        PAGE.write_text(text, encoding="utf-8")
    wrong = [f"{r.framework} {r.name}" for r in results if not r.right]
    if wrong:
        raise SystemExit(f"not right by any way: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
