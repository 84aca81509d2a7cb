"""The rule by which runs are cut and spread: rows per batch, sessions, threads per session.

The rule holds for short runs, and is where the search for a faster plan begins (`plan_search`). It comes from measurements
on CPUs: one-thread sessions side by side ran 1.0 to 1.3 times as fast as one session over the same threads, for a
multilayer perceptron and for convolutional nets, and batches of about a megabyte of input, which stay in the cache, were
within a few percent of the best size (``benchmarks/bench_models.py``). Of several sessions, those whose threads do not spin
while they wait ran 1.4 times as fast as spinning ones.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from ..contracts.batch import Batch, Inputs
from ..contracts.batch_plan import BY_RULE, BatchPlan
from ..contracts.source import Source

CPU_BATCH_BYTES, NATIVE_BATCH_BYTES = 1 << 20, 4 << 20
"""A framework's calls cost more each than those of ONNX Runtime: of eight nets on 2 cores the best batches were larger."""
GPU_BATCH_BYTES = 64 << 20
MOST_SESSIONS = 16
EXAMPLE_ROWS = 256
EXAMPLE_BYTES = 64 << 20
"""The first rows are kept for the comparison; of very large rows only as many as fit into this, and at least 16."""
LEAST_ROWS = 16
HELD_OUT_ROWS = 640
HELD_OUT_BYTES = 256 << 20
"""Rows that lower precisions are calibrated and judged with; of very large rows only as many as fit into this."""
WEIGHTS_LIMIT_BYTES = 2 << 30
"""Sessions side by side each hold the weights; together they take at most this."""


def first_rows(source: Source, rows: int = EXAMPLE_ROWS) -> Batch:
    """Return the first rows of a source, to trace and to compare with: up to `rows`, fewer if they are very large.

    If `spread_rows` gives others, they are half as many.
    """
    count = example_size(source, rows)
    return source.peek(count // 2 if _can_spread(source, count) else count)


def spread_rows(source: Source, rows: int = EXAMPLE_ROWS) -> Inputs:
    """Return the other half of the rows to compare with, spread over the data after `first_rows`.

    No input is returned if the data are that short, or cannot be read at any place.
    """
    count = example_size(source, rows)
    return source.sample(count - count // 2, count // 2) if _can_spread(source, count) else {}


def held_out_rows(source: Source, example: Batch) -> Inputs:
    """Return rows after those of the example, to calibrate and to judge lower precisions with.

    They are spread over the data; of data that are read in order they are those that come next. No input is returned if
    there are none.
    """
    start = len(example) + len(example.bad)
    count = min(HELD_OUT_ROWS, HELD_OUT_BYTES // max(row_bytes(example.inputs), 1))
    if not source.sequential:
        return source.sample(count, start)
    first = source.peek(start + count)
    return {name: array[len(example) :] for name, array in first.inputs.items()}


def example_size(source: Source, rows: int = EXAMPLE_ROWS) -> int:
    """Return how many rows of a source are taken at once: `rows`, fewer if they are very large."""
    first = source.peek(1)
    room = EXAMPLE_BYTES // max(row_bytes(first.inputs), 1) if len(first) else 0
    return min(rows, max(room, LEAST_ROWS))


def _can_spread(source: Source, count: int) -> bool:
    return not source.sequential and source.length is not None and source.length > count > 1


def row_bytes(inputs: Inputs) -> int:
    """Return the bytes of one row of a batch of inputs."""
    return sum(int(a.nbytes // max(len(a), 1)) for a in inputs.values())


def choose_batch_size(inputs: Inputs, *, on_cpu: bool, is_native: bool = False) -> int:
    """Return a power of two of rows: their inputs take about a megabyte (CPU), 4 (in a framework there) or 64 (GPU).

    They are 16 to 256 rows on the CPU, and to 1,024 elsewhere.
    """
    if all(np.issubdtype(a.dtype, np.integer) for a in inputs.values()):
        # Tokens: a few bytes in, thousands of activations out.
        return 32 if on_cpu else 128
    room = (NATIVE_BATCH_BYTES if is_native else CPU_BATCH_BYTES) if on_cpu else GPU_BATCH_BYTES
    rows = room // max(row_bytes(inputs), 1)
    return int(min(max(1 << max(rows.bit_length() - 1, 0), 16), 256 if on_cpu else 1024))


def plan_batches(
    inputs: Inputs,
    rows: int | None,
    *,
    on_cpu: bool,
    cores: int,
    model_bytes: int,
    batch_size: int | Literal["auto"],
    fixed_batch: int | None = None,
    is_native: bool = False,
) -> BatchPlan:
    """Choose batch size, sessions and threads.

    Args:
        inputs: Some rows, for their size.
        rows: How many rows there are, where that is known.
        on_cpu: Whether the run is on the CPU.
        cores: Processors that may be used.
        model_bytes: Size of the model's file with its external data.
        batch_size: Rows per run as the caller wants them, or ``"auto"``.
        fixed_batch: The batch size that is built into the model, if one is.
        is_native: Whether the run is in the model's own framework.
    """
    if fixed_batch is not None:
        size, reason = fixed_batch, "batch size built into the model"
    elif batch_size == "auto":
        size, reason = choose_batch_size(inputs, on_cpu=on_cpu, is_native=is_native), BY_RULE
    else:
        size, reason = batch_size, "batch size given"
    if not on_cpu:
        return BatchPlan(size, 1, 1, False, reason)
    batches = cores if rows is None else -(-rows // size)
    fitting = max(WEIGHTS_LIMIT_BYTES // max(model_bytes, 1), 1)
    sessions = max(min(cores, batches, fitting, MOST_SESSIONS), 1)
    threads = max(cores // sessions, 1)
    return BatchPlan(size, sessions, threads, sessions == 1 < threads, reason)
