"""``fo-onnx generate --dry-run``: everything is opened and one batch is run, and the plan is told; nothing is written."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..engine import Engine
from ..engine.run import Run, Target
from ..engine.tuning import first_rows
from ..errors import DataError
from ..options import DataOptions, OutputOptions, RunOptions
from ..run_control import begin
from .output import class_text, cut_text, pairs, rate_text, size_text, time_text
from .parity_text import parity_line

BYTES_PER_VALUE = {".json": 13.0, ".parquet": 3.6}
"""Measured on rows of 10 and 1,000 classes; formats that are not named here keep the four bytes of a float32."""


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        rows: Rows to run; ``None`` where the data do not tell.
        classes: Number of classes.
        class_names: Their names.
        runner: ``"onnx"`` or ``"native"``.
        reason: Why, where it is not the first choice.
        device: Where it runs.
        batch_size: Rows per run of the model.
        sessions: Sessions side by side.
        threads: Threads in each.
        parity: How the export compared.
        out: The target.
        output_bytes: Its estimated size.
        read_s: Seconds to read a batch.
        run_s: Seconds to run a batch.
        total_s: Estimated seconds for all rows, from one batch.
        memory_bytes: The most memory that this process has held so far, with the model opened.
    """

    rows: int | None
    classes: int
    class_names: tuple[str, ...] | None
    runner: str
    reason: str | None
    device: str
    batch_size: int
    sessions: int
    threads: int
    parity: dict[str, Any] | None
    out: str | None
    output_bytes: int | None
    read_s: float
    run_s: float
    total_s: float | None
    memory_bytes: int | None

    @property
    def rows_per_s(self) -> float:
        """The estimated rate: reading and running go on side by side, and the slower one counts."""
        return self.batch_size / max(self.run_s / self.sessions, self.read_s, 1e-9)

    def document(self) -> dict[str, Any]:
        """JSON types."""
        return {"dry_run": True, **asdict(self), "rows_per_s": self.rows_per_s}

    def text(self) -> str:
        """Lines for people."""
        because = [f"because {self.reason}"] if self.reason else []
        slower = "reading" if self.read_s > self.run_s / self.sessions else "the model"
        about = "" if self.total_s is None else f"about {time_text(self.total_s)}, "
        lines = [
            ("plan", "nothing was written (--dry-run)"),
            ("rows", "not known before the end" if self.rows is None else self.rows),
            ("classes", class_text(self.classes, self.class_names)),
            ("runner", [f"{self.runner} on {self.device}, {cut_text(self.batch_size, self.sessions, self.threads)}", *because]),
            ("parity", parity_line(self.parity)),
            ("output", None if self.output_bytes is None else f"{self.out or 'in memory'}, about {size_text(self.output_bytes)}"),
            ("time", f"{about}{rate_text(self.rows_per_s)} by one batch; {slower} is the slower part"),
            ("memory", None if self.memory_bytes is None else f"{size_text(self.memory_bytes)} with the model opened"),
        ]  # fmt: skip
        return pairs(lines)


def dry_run(
    model: Any, data: Any, *, out: Path | None, resume: bool, overwrite: bool, labels: Any, ids: Any, limit: int | None, device: Any,
    engine: str, batch_size: Any, precision: str, num_workers: int, on_error: Any, max_errors: int | None,
    timeout_s: float | None, keep_logits: bool, progress: bool | None, output: str, output_name: str | None,
    temperature: float, class_names: list[str] | None, model_name: str | None, framework: str | None, trust: bool,
) -> Plan:  # fmt: skip
    """Opens everything as `fo_onnx.generate` with these arguments would, and runs one batch.

    Raises:
        FoOnnxError: What `fo_onnx.generate` would raise before its first row, or for the rows of the first batch.
        DataError: There are no rows to run.
    """
    run = RunOptions(
        device=device, engine=engine, batch_size=batch_size, precision=precision, max_errors=max_errors, timeout_s=timeout_s,
        progress=progress,
    )  # fmt: skip
    meaning = OutputOptions(
        output=output,
        output_name=output_name,
        temperature=temperature,
        keep_logits=keep_logits,
        class_names=class_names,
    )
    target = Target(None if out is None else out.expanduser(), overwrite, resume)
    opened = Engine(
        model, device=device, engine=engine, batch_size=batch_size, precision=precision, framework=framework, output=output,
        output_name=output_name, temperature=temperature, keep_logits=keep_logits, class_names=class_names,
        model_name=model_name, trust=trust,
    )  # fmt: skip
    with opened, begin(timeout_s):
        options = DataOptions(
            labels=labels, ids=ids, num_workers=num_workers, on_error=on_error, limit=limit, signature=opened.signature
        )
        source = opened.source(data, options)
        if len(first_rows(source)) == 0:
            raise DataError("planning the run: the data hold no row that could be run.")
        selection = Run(opened, source, options, run, meaning, target).prepare()
        size = selection.tuning.batch_size
        read_s, batch = _timed(lambda: source.peek(size))
        runner = selection.runners[0]
        run_s, _ = _timed(lambda: runner.run(batch.inputs))
        scale = size / len(batch)
        rows, classes = source.length, selection.spec.classes or 0
        plan = Plan(
            rows=rows, classes=classes, class_names=selection.spec.class_names or source.class_names, runner=runner.kind,
            reason=selection.reason, device=runner.device, batch_size=size, sessions=len(selection.runners),
            threads=selection.tuning.threads, parity=None if selection.parity is None else selection.parity.to_dict(),
            out=None if out is None else str(out),
            output_bytes=None if rows is None else _output_bytes(rows, classes, keep_logits, source.has_labels, out),
            read_s=read_s * scale, run_s=run_s * scale, total_s=None, memory_bytes=_peak_memory(),
        )  # fmt: skip
        return plan if rows is None else _with_time(plan, rows)


def _with_time(plan: Plan, rows: int) -> Plan:
    from dataclasses import replace

    return replace(plan, total_s=rows / plan.rows_per_s)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.perf_counter()
    found = call()
    return time.perf_counter() - begun, found


def _output_bytes(rows: int, classes: int, logits: bool, labels: bool, out: Path | None) -> int:
    suffix = ".parquet" if out is not None and out.suffix == "" else "" if out is None else out.suffix.lower()
    values = rows * classes * (2 if logits and suffix not in (".npy", ".json") else 1)
    beside = 0 if suffix == ".npy" else rows * 8 * (2 if labels else 1)
    return int(values * BYTES_PER_VALUE.get(suffix, np.dtype(np.float32).itemsize) + beside)


def _peak_memory() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
