"""The benchmark of one model on this machine: all its paths over the same rows, checked, then timed in turns."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..api import export
from ..contracts.batch import Inputs, count_rows, first_row, join_inputs
from ..contracts.options import DataOptions, ModelOptions, OutputOptions, positive_int
from ..distributions.probabilities import total_variation
from ..errors import DataError, FoOnnxError, first_line
from ..models import plugins
from ..models.onnx_model import OnnxModel, load_onnx
from ..models.resolve import ResolvedModel, resolve_model
from ..runtime.devices import cpu_cores
from ..sources import open_source
from ..store import files
from ..version import __version__
from .limits import Machine, count_work, measure_machine
from .paths import BenchPath, Probs, RunsAll, engine_path, native_paths, onnx_runtime_path
from .result import ENGINE, BenchError, BenchResult, PathResult
from .turns import Ratio, ratio_of, time_in_turns

TURNS = 7
BATCH_SIZES = (8, 32, 128)
"""Each path that takes batches gets the best of these."""
TOLERANCE = 1e-3
"""Total variation of a path's rows from those of the reference: above it it computes something else, and is not timed."""
TURN_S = 0.5
"""A turn of the quickest path lasts about this long, if there are as many rows."""


@dataclass
class _Opened:
    """A path that is ready to run."""

    path: BenchPath
    run: RunsAll
    result: PathResult


def run(
    model: Any,
    data: Any,
    *,
    rows: int | None = None,
    turns: int = TURNS,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    paths: Sequence[str] | None = None,
    framework: str | None = None,
    params: Any = None,
    trust: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> BenchResult:
    """Compare the ways to run a model on this machine.

    Args:
        model: As `fo_onnx.generate` takes it.
        data: Likewise; its first rows are run by each path.
        rows: Rows of a turn; ``None`` for about half a second of the quickest path, and no more than there are.
        turns: Turns that count.
        batch_sizes: The sizes that each path is tried with that does not choose itself.
        paths: Names of paths; ``None`` for all.
        framework: The model's framework, if it cannot be told.
        params: The model's parameters, if they are apart from it.
        trust: Whether model files may run code.
        say: Gets a line about what is being done.

    Returns:
        What was found. A path that fails has its error in it.

    Raises:
        BenchError: There are no rows, or `paths` names none that there is.
        FoOnnxError: The model or the data cannot be opened.
    """
    positive_int("turns", turns)
    for size in batch_sizes:
        positive_int("batch_sizes", size)
    options = ModelOptions(framework=framework, params=params, trust=trust)
    resolved = resolve_model(model, options, OutputOptions())
    inputs = _read_rows(data, resolved, rows)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(files.temporary_folder()))
        say("exporting the model")
        exported, export_s = _export(model, resolved, inputs, folder, options)
        ways = _choose_paths(resolved, exported, inputs, options, paths)
        opened, failed = [], []
        expected: Probs | None = None
        for way in ways:
            say(f"opening {way.name}")
            found = _open(way, inputs, expected, stack)
            if isinstance(found, PathResult):
                failed.append(found)
                continue
            opened.append(found[0])
            # The first path that runs is the reference of the others: the framework's plain one, if there is one.
            expected = found[1] if expected is None else expected
        null, timed = None, opened
        if opened:
            inputs = _cut_rows(inputs, opened, rows, max(batch_sizes))
            timed = [_with_batch_size(way, inputs, batch_sizes) for way in opened]
            say(f"timing {len(timed)} paths over {count_rows(inputs)} rows, {turns} turns")
            calls = {way.path.name: _call(way, inputs) for way in timed}
            first = next(iter(calls.values()))
            null = ratio_of(*time_in_turns({"one": first, "again": first}, turns).values())
            seconds = time_in_turns(calls, turns)
            timed = [replace(way, result=replace(way.result, seconds=tuple(seconds[way.path.name]))) for way in timed]
    results = {result.name: result for result in (*(way.result for way in timed), *failed)}
    work = None if exported is None else count_work(load_onnx(exported.path).proto, _row_shapes(exported, inputs))
    machine = measure_machine()
    return BenchResult(
        rows=count_rows(inputs),
        paths=tuple(results[way.name] for way in ways),
        null=null,
        export_s=export_s,
        flops_per_row=None if work is None else work.flops,
        limit_rows_per_s=None if work is None or work.flops == 0 else machine.flops_per_s / work.flops,
        environment=_describe_environment(resolved, machine),
    )


# Opening -----------------------------------------------------------------------------------------------------------


def _read_rows(data: Any, resolved: ResolvedModel, rows: int | None) -> Inputs:
    """Return the first rows of the data: as many as are asked for, else as take a turn at most."""
    options = DataOptions(signature=resolved.signature, labels=False)
    source = open_source(data, options, tuple(plugins.source_factories()))
    batch = source.peek(MOST_ROWS if rows is None else rows)
    if len(batch) == 0:
        raise BenchError("a benchmark needs rows; the data have none.")
    if rows is not None and len(batch) < rows:
        raise BenchError(f"{rows} rows were asked for, and the data have {len(batch)}.")
    return batch.inputs


def _export(
    model: Any, resolved: ResolvedModel, inputs: Inputs, folder: Path, options: ModelOptions
) -> tuple[OnnxModel | None, float | None]:
    """Return the model as a file, and how long its export took; a file is itself."""
    if resolved.onnx is not None:
        return resolved.onnx, None
    begun = time.perf_counter()
    try:
        exported = export(
            model, _as_data(inputs), folder / "model.onnx", framework=options.framework, params=options.params, trust=options.trust
        )  # fmt: skip
    except FoOnnxError:
        return None, None
    return exported, time.perf_counter() - begun
