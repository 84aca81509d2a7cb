"""The benchmark of one model on this machine: all its paths over the same rows, checked, then timed in turns."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..api import export, generate
from ..contracts.batch import Inputs, count_rows, cut_inputs, first_row
from ..contracts.options import DataOptions, ModelOptions, OutputOptions, positive_int
from ..contracts.spec import OutputKind
from ..distributions.probabilities import total_variation
from ..errors import FoOnnxError
from ..models import plugins
from ..models.onnx_model import OnnxModel, load_onnx
from ..models.resolve import ResolvedModel, resolve_model
from ..sources import open_source
from ..store import files
from .environment import describe_environment
from .limits import count_work, measure_machine
from .paths import BenchPath, Probs, RunsAll, as_data, engine_path, native_paths, onnx_runtime_path
from .result import BenchError, BenchResult, PathResult
from .turns import ratio_of, time_in_turns

TURNS = 7
BATCH_SIZES = (8, 32, 128)
"""Each path that does not cut batches itself gets the best of these."""
MOST_ROWS, CHECKED_ROWS = 65_536, 256
TOLERANCE = 1e-3
"""Total variation of a path's rows from those of the reference. Beyond it it computes something else, and is not timed."""
TURN_S = 0.5
"""A turn of the slowest path lasts about this long, if there are as many rows."""


@dataclass(frozen=True)
class _Way:
    """A path that is ready to run."""

    run: RunsAll
    result: PathResult
    batch_sizes: tuple[int | None, ...]

    def call(self, inputs: Inputs) -> Callable[[], object]:
        """Return what runs all rows once."""
        return lambda: self.run(inputs, self.result.batch_size)


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
        data: Likewise. Its first rows are run by each path.
        rows: Rows of a turn; ``None`` for about half a second of the slowest path.
        turns: Turns that count.
        batch_sizes: The sizes that each path is tried with that does not cut batches itself.
        paths: Names of paths; ``None`` for all.
        framework: The model's framework, if it cannot be told.
        params: The model's parameters, if they are apart from it.
        trust: Whether model files may run code.
        say: Gets a line about what is being done.

    Returns:
        What was found. A path that fails has its error in it.

    Raises:
        BenchError: There are no rows, or fewer than asked for; `paths` names one that there is not.
        FoOnnxError: The model or the data cannot be opened.
    """
    positive_int("turns", turns)
    for size in batch_sizes:
        positive_int("batch_sizes", size)
    # The rows, what they must come to, and the ways to get there.
    options = ModelOptions(framework=framework, params=params, trust=trust)
    resolved = resolve_model(model, options, OutputOptions())
    inputs = _read_rows(data, resolved, rows)
    checked = next(cut_inputs(inputs, CHECKED_ROWS))
    with contextlib.ExitStack() as stack:
        say("running the reference")
        reference = _Reference.of(model, resolved, checked, options)
        say("exporting the model")
        exported, export_s, failure = _export(model, resolved, checked, stack, options)
        ways = _list_paths(resolved, exported, checked, options, reference, paths)
        # Each is opened and checked, then they take turns.
        found: dict[str, PathResult] = {}
        opened: list[_Way] = []
        for path in ways:
            say(f"opening {path.name}")
            way = _open(path, checked, reference.probs, stack, batch_sizes)
            found[path.name] = way.result
            if way.result.error is None:
                opened.append(way)
        null = None
        if opened:
            inputs = _cut_rows(inputs, opened, rows, max(batch_sizes))
            opened = [_choose_batch_size(way, inputs) for way in opened]
            say(f"timing {len(opened)} paths over {count_rows(inputs)} rows in {turns} turns")
            one = opened[0].call(inputs)
            null = ratio_of(*time_in_turns({"one": one, "again": one}, turns).values())
            seconds = time_in_turns({way.result.name: way.call(inputs) for way in opened}, turns)
            found |= {way.result.name: replace(way.result, seconds=tuple(seconds[way.result.name])) for way in opened}
        flops = _count_flops(exported, inputs)
    machine = measure_machine()
    return BenchResult(
        rows=count_rows(inputs),
        paths=tuple(found[path.name] for path in ways),
        null=null,
        export_s=export_s,
        flops_per_row=flops,
        limit_rows_per_s=machine.flops_per_s / flops if flops else None,
        environment=describe_environment(resolved, machine),
        not_tried={} if failure is None else {"onnxruntime": failure, "fo-onnx": failure},
    )


# Before anything is timed ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reference:
    """What the model gives for the rows that are checked, and what its output means."""

    probs: Probs
    kind: OutputKind
    temperature: float

    @classmethod
    def of(cls, model: Any, resolved: ResolvedModel, rows: Inputs, options: ModelOptions) -> _Reference:
        """Run the model in its own framework; a file as it is."""
        dists = generate(
            model, as_data(rows), runner="auto" if resolved.onnx is not None else "native", framework=options.framework,
            params=options.params, trust=options.trust, progress=False,
        )  # fmt: skip
        return cls(dists.probs, dists.meta["model"]["output"], dists.meta["model"]["temperature"])


def _read_rows(data: Any, resolved: ResolvedModel, rows: int | None) -> Inputs:
    """Return the first rows of the data as one batch."""
    options = DataOptions(signature=resolved.signature, labels=False)
    source = open_source(data, options, tuple(plugins.source_factories()))
    batch = source.peek(MOST_ROWS if rows is None else rows)
    if len(batch) == 0:
        raise BenchError("a benchmark needs rows, and the data have none.")
    if rows is not None and len(batch) < rows:
        raise BenchError(f"a benchmark over {rows} rows was asked for, and the data have {len(batch)}.")
    return batch.inputs


def _export(
    model: Any, resolved: ResolvedModel, rows: Inputs, stack: contextlib.ExitStack, options: ModelOptions
) -> tuple[OnnxModel | None, float | None, str | None]:
    """Return the model as a file, how long its export took, and why there is none; a file is itself."""
    if resolved.onnx is not None:
        return resolved.onnx, None, None
    target = Path(stack.enter_context(files.temporary_folder())) / "model.onnx"
    begun = time.perf_counter()
    try:
        exported = export(
            model, as_data(rows), target, framework=options.framework, params=options.params, trust=options.trust
        )
    except FoOnnxError as err:
        return None, None, str(err)
    return exported, time.perf_counter() - begun, None


def _list_paths(
    resolved: ResolvedModel,
    exported: OnnxModel | None,
    rows: Inputs,
    options: ModelOptions,
    reference: _Reference,
    names: Sequence[str] | None,
) -> list[BenchPath]:
    """Return the paths to run, native ones first."""
    ways = native_paths(resolved, rows, options, reference.kind, reference.temperature)
    if exported is not None:
        ways += [onnx_runtime_path(exported, reference.kind, reference.temperature), engine_path(exported)]
    known = [way.name for way in ways]
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise BenchError(f"there is no path {', '.join(map(repr, unknown))}; this model has {', '.join(known)}.")
    return ways if names is None else [way for way in ways if way.name in names]


def _open(
    path: BenchPath, rows: Inputs, expected: Probs, stack: contextlib.ExitStack, batch_sizes: Sequence[int]
) -> _Way:
    """Prepare a path, and compare its rows; what it raises is its result."""
    sizes: tuple[int | None, ...] = tuple(batch_sizes) if path.takes_batches else (None,)
    result = PathResult(path.name, batch_size=sizes[0])
    begun = time.perf_counter()
    try:
        call = stack.enter_context(path.open())
        probs = call(rows, sizes[0])
    except Exception as err:
        # A framework, a compiler within it or the model may raise what they like; the other paths run all the same.
        return _Way(_nothing, replace(result, error=f"{type(err).__name__}: {err}"), sizes)
    result = replace(result, open_s=time.perf_counter() - begun)
    if probs.shape != expected.shape:
        return _Way(_nothing, replace(result, error=f"gives rows of shape {probs.shape}, not {expected.shape}"), sizes)
    result = replace(result, max_tv=float(total_variation(expected, probs).max()))
    if not result.max_tv or result.max_tv <= TOLERANCE:
        call(first_row(rows), 1)
        begun = time.perf_counter()
        call(first_row(rows), 1)
        return _Way(call, replace(result, first_row_s=time.perf_counter() - begun), sizes)
    error = f"its rows differ from the model's by a total variation of up to {result.max_tv:.1e}; it was not timed"
    return _Way(_nothing, replace(result, error=error), sizes)


def _nothing(inputs: Inputs, batch_size: int | None) -> Probs:
    raise AssertionError("a path that failed is not run")


def _cut_rows(inputs: Inputs, ways: Sequence[_Way], rows: int | None, largest: int) -> Inputs:
    """Return as many whole batches as the slowest path runs in a turn, at least one of the largest size if there are as many."""
    if rows is not None:
        return inputs
    few = next(cut_inputs(inputs, largest))
    slowest = max(_seconds(way.call(few)) for way in ways) / count_rows(few)
    wanted = max(int(TURN_S / slowest) // largest, 1) * largest
    return next(cut_inputs(inputs, min(wanted, count_rows(inputs))))


def _choose_batch_size(way: _Way, inputs: Inputs) -> _Way:
    """Return the path with the quickest of its batch sizes."""
    if way.batch_sizes == (None,):
        return way
    some = next(cut_inputs(inputs, max(size or 1 for size in way.batch_sizes)))
    rates: dict[str, float] = {}
    for size in way.batch_sizes:
        sized = replace(way, result=replace(way.result, batch_size=size))
        _seconds(sized.call(some))
        rates[str(size)] = count_rows(some) / min(_seconds(sized.call(some)) for _ in range(3))
    best = int(max(rates, key=lambda size: rates[size]))
    return replace(way, result=replace(way.result, batch_size=best, by_batch=rates))


def _seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _count_flops(exported: OnnxModel | None, inputs: Inputs) -> float | None:
    if exported is None:
        return None
    shapes = [array.shape[1:] for array in inputs.values()]
    names = [tensor.name for tensor in exported.spec.inputs]
    return count_work(load_onnx(exported.path).proto, dict(zip(names, shapes, strict=True))).flops
