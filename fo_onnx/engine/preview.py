"""A run before it is begun: everything is opened and one batch is run; nothing is written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..contracts.source import Source
from ..runtime.memory import peak_memory_bytes
from ..runtime.opened import OpenedModel

T = TypeVar("T")
BYTES_PER_VALUE = {".json": 13.0, ".parquet": 3.6}
"""Measured on rows of 10 and 1,000 classes; formats that are not named here take the four bytes of a float32."""


@dataclass(frozen=True)
class RunPlan:
    """What a run would do.

    Attributes:
        rows: Rows to run; ``None`` if the data do not say.
        classes: Number of classes.
        class_names: Their names.
        runner: ``"onnx"`` or ``"native"``.
        reason: Why, if it is not the first choice.
        device: Where it runs.
        batch_size: Rows per run of the model.
        sessions: Sessions side by side.
        threads: Threads in each.
        parity: How the export compared.
        precision: How the precision was chosen; ``None`` if float32 or TF32 was asked for.
        out: The target.
        output_bytes: Its estimated size.
        read_s: Seconds to read a batch.
        run_s: Seconds to run a batch.
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
    precision: dict[str, Any] | None
    out: str | None
    output_bytes: int | None
    read_s: float
    run_s: float
    memory_bytes: int | None

    @property
    def rows_per_s(self) -> float:
        """Return the estimated rate: reading and running go on side by side, and the slower one counts."""
        return self.batch_size / max(self.run_s / self.sessions, self.read_s, 1e-9)

    @property
    def total_s(self) -> float | None:
        """Return the estimated seconds for all rows, from one batch."""
        return None if self.rows is None else self.rows / self.rows_per_s


def plan_run(opened: OpenedModel, source: Source, out: Path | None, *, keep_logits: bool) -> RunPlan:
    """Time one batch of a run, and estimate the rest from it; the source has at least one row."""
    runner, size = opened.runners[0], opened.plan.batch_size
    read_s, batch = _time(lambda: source.peek(size))
    run_s, _ = _time(lambda: runner.run(batch.inputs))
    scale = size / len(batch)
    rows = source.length
    return RunPlan(
        rows=rows, classes=opened.classes, class_names=opened.spec.class_names, runner=runner.kind,
        reason=opened.reason, device=runner.device, batch_size=size, sessions=len(opened.runners), threads=opened.plan.threads,
        parity=None if opened.parity is None else opened.parity.to_dict(),
        precision=None if opened.precision is None else opened.precision.to_dict(), out=None if out is None else str(out),
        output_bytes=None if rows is None else _estimate_bytes(rows, opened.classes, keep_logits, source.has_labels, out),
        read_s=read_s * scale, run_s=run_s * scale, memory_bytes=peak_memory_bytes(),
    )  # fmt: skip


def _time(call: Callable[[], T]) -> tuple[float, T]:
    begun = time.perf_counter()
    result = call()
    return time.perf_counter() - begun, result


def _estimate_bytes(rows: int, classes: int, logits: bool, labels: bool, out: Path | None) -> int:
    suffix = ".parquet" if out is not None and out.suffix == "" else "" if out is None else out.suffix.lower()
    values = rows * classes * (2 if logits and suffix not in (".npy", ".json") else 1)
    id_bytes = 0 if suffix == ".npy" else rows * 8 * (2 if labels else 1)
    return int(values * BYTES_PER_VALUE.get(suffix, np.dtype(np.float32).itemsize) + id_bytes)
