"""The benchmark of one model on this machine: all its paths over the same rows, checked, then timed in turns."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..api import export, generate
from ..contracts.batch import Inputs, count_rows, cut_inputs
from ..contracts.options import DataOptions, ModelOptions, OutputOptions, positive_int
from ..contracts.spec import OutputKind
from ..errors import FoOnnxError
from ..models import plugins
from ..models.onnx_model import OnnxModel, load_onnx
from ..models.resolve import ResolvedModel, resolve_model
from ..runtime.tuning import row_bytes
from ..sources import open_source
from ..store import files
from ..store.user_cache import FOLDER_VARIABLE
from .environment import describe_environment
from .limits import count_work, measure_machine
from .openvino_path import openvino_path
from .paths import ONNX_RUNTIME, BenchPath, Probs, as_data, engine_path, native_paths, onnx_runtime_path
from .result import ENGINE, BenchError, BenchResult, PathResult
from .timed_path import TimedPath, choose_batch_size, count_turn_rows, open_checked, take_rows
from .turns import ratio_of, time_in_turns

TURNS = 7
BATCH_SIZES = (8, 32, 128)
"""Each path that does not cut batches itself gets the best of these."""
MOST_BYTES, CHECKED_ROWS = 1 << 30, 256
"""Without a number of rows, no more than so many bytes of them are read, or repeated for a turn."""
COUNTED_BATCH = 32
LONG_RUN_S = 60.0
"""fo-onnx chooses as for a run that takes so long in the framework."""


def run(
    model: Any,
    data: Any,
    *,
    rows: int | None = None,
    turns: int = TURNS,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    paths: Sequence[str] | None = None,
    device: str = "cpu",
    output: str = "auto",
    output_name: str | None = None,
    framework: str | None = None,
    params: Any = None,
    trust: bool = False,
    keep_export: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> BenchResult:
    """Compare the ways to run a model on this machine.

    Args:
        model: As `fo_onnx.generate` takes it.
        data: Likewise. Its first rows are run by each path.
        rows: Rows of a turn; ``None`` for about half a second of the quickest path, with the data's rows repeated if they are fewer.
        turns: Turns that count.
        batch_sizes: The sizes that each path is tried with that does not cut batches itself.
        paths: Names of paths; ``None`` for all.
        device: Where ONNX Runtime runs the model; native paths run it where it is.
        output: What the model's output means, as `fo_onnx.generate` takes it.
        output_name: Which output is meant if there are several.
        framework: The model's framework, if it is not to be detected.
        params: The model's parameters, if they are apart from it.
        trust: Whether model files may run code.
        keep_export: Where the exported model is kept; ``None`` to remove it in the end.
        say: Gets a line about what is being done.

    Returns:
        What was measured. A path that fails has its error in it.

    Raises:
        BenchError: There are no rows, or fewer than asked for; `paths` names one that there is not.
        FoOnnxError: The model or the data cannot be opened.

    Example:
        >>> result = fo_onnx.bench.run(net, x)  # doctest: +SKIP
        >>> print(fo_onnx.bench.advise(result))  # doctest: +SKIP
    """
    positive_int("turns", turns)
    for size in batch_sizes:
        positive_int("batch_sizes", size)
    options = ModelOptions(framework=framework, params=params, trust=trust)
    meaning = OutputOptions(output=output, output_name=output_name)
    resolved = resolve_model(model, options, meaning)
    inputs = read_rows(data, resolved, rows)
    if rows is not None and count_rows(inputs) < rows:
        raise BenchError(f"a benchmark over {rows} rows was asked for, and the data have {count_rows(inputs)}.")
    checked = next(cut_inputs(inputs, CHECKED_ROWS))
    with contextlib.ExitStack() as stack:
        # What the rows must come to, and the ways to get there. An export from the user's cache would take no time.
        stack.enter_context(_private_cache(Path(stack.enter_context(files.temporary_folder()))))
        subject = _Subject(model, resolved, options, meaning)
        say("running the reference")
        expected, kind, temperature, rows_per_s = subject.run_reference(checked)
        long_rows = max(int(LONG_RUN_S * rows_per_s), len(expected))
        say("exporting the model")
        target = keep_export or Path(stack.enter_context(files.temporary_folder())) / "model.onnx"
        exported, export_s, failure = subject.export(checked, target)
        candidates = list_paths(subject, exported, checked, kind, temperature, device, long_rows)
        chosen = _choose_by_name(candidates, paths)

        # Each is opened and checked, then they take turns.
        results: dict[str, PathResult] = {}
        opened: list[TimedPath] = []
        for path in chosen:
            say(f"opening {path.name}")
            timed = open_checked(path, checked, expected, stack, batch_sizes)
            results[path.name] = timed.result
            if timed.result.error is None:
                opened.append(timed)
        null = None
        if opened:
            largest = max(batch_sizes)
            opened = [choose_batch_size(timed, take_rows(inputs, largest)) for timed in opened]
            if rows is None:
                inputs = take_rows(inputs, count_turn_rows(inputs, opened, largest, _most_rows(inputs)))
            say(f"timing {len(opened)} paths over {count_rows(inputs)} rows in {turns} turns")
            # The last is this package's own, and seldom the slowest.
            one = opened[-1].call(inputs)
            null = ratio_of(*time_in_turns({"one": one, "again": one}, turns).values())
            seconds = time_in_turns({timed.result.name: timed.call(inputs) for timed in opened}, turns)
            for timed in opened:
                name = timed.result.name
                results[name] = replace(timed.result, seconds=tuple(seconds[name]), details=timed.describe())
        say("measuring the machine")
        machine = measure_machine(device)
        work = None if exported is None else _count_work(exported, inputs, results.get(ENGINE))
    flops, size_bytes = (None, None) if work is None else work
    return BenchResult(
        rows=count_rows(inputs),
        paths=tuple(results[path.name] for path in chosen),
        null=null,
        export_s=export_s,
        flops_per_row=flops,
        bytes_per_row=size_bytes,
        limit_rows_per_s=None if flops is None or size_bytes is None else machine.limit_rows_per_s(flops, size_bytes),
        environment=describe_environment(resolved, inputs, machine, device),
        not_tried=_list_left_out(candidates, chosen, failure, device),
    )


def run_path_once(
    model: Any,
    data: Any,
    name: str,
    batch_size: int | None,
    *,
    rows: int,
    device: str = "cpu",
    output: str = "auto",
    output_name: str | None = None,
    **options: Any,
) -> None:
    """Run one path of a model once over the first rows, for the memory that it takes; nothing is checked or timed.

    Args:
        model: As `run` takes it.
        data: Likewise.
        name: The path.
        batch_size: Rows per run, if the path does not cut batches itself.
        rows: Rows that are run; those of the data are repeated if they are fewer.
        device: As `run` takes it.
        output: Likewise.
        output_name: Likewise.
        options: ``framework``, ``params`` and ``trust``, as `run` takes them.

    Raises:
        BenchError: There is no such path.
    """
    opening, meaning = ModelOptions(**options), OutputOptions(output=output, output_name=output_name)
    resolved = resolve_model(model, opening, meaning)
    inputs = take_rows(read_rows(data, resolved, rows), rows)
    subject = _Subject(model, resolved, opening, meaning)
    checked = next(cut_inputs(inputs, CHECKED_ROWS))
    # What the output means changes nothing about the memory.
    paths = list_paths(subject, resolved.onnx, checked, "logits", 1.0, device, rows)
    (path,) = _choose_by_name(paths, [name])
    with path.open() as running:
        running.run(inputs, batch_size)


def read_rows(data: Any, resolved: ResolvedModel, rows: int | None) -> Inputs:
    """Return the first rows of the data as one batch: so many, if there are, or as many as `MOST_BYTES` hold."""
    options = DataOptions(signature=resolved.signature, labels=False)
    source = open_source(data, options, tuple(plugins.source_factories()))
    inputs = source.peek(rows or CHECKED_ROWS).inputs
    if count_rows(inputs) == 0:
        raise BenchError("a benchmark needs rows, and the data have none.")
    return inputs if rows is not None else source.peek(_most_rows(inputs)).inputs


def _most_rows(inputs: Inputs) -> int:
    return max(MOST_BYTES // max(row_bytes(inputs), 1), CHECKED_ROWS)


@dataclass(frozen=True)
class _Subject:
    """The model that is measured, and how it is opened."""

    model: Any
    resolved: ResolvedModel
    options: ModelOptions
    meaning: OutputOptions

    @property
    def arguments(self) -> dict[str, Any]:
        """Return what the public verbs take beside the model."""
        return {
            "framework": self.options.framework, "params": self.options.params, "trust": self.options.trust,
            "output": self.meaning.output, "output_name": self.meaning.output_name,
        }  # fmt: skip

    def run_reference(self, rows: Inputs) -> tuple[Probs, OutputKind, float, float]:
        """Run the model in its own framework, a file as it is.

        Returns:
            The rows, what the output means, the temperature, and the rows per second.
        """
        runner = "auto" if self.resolved.onnx is not None else "native"
        dists = generate(self.model, as_data(rows), runner=runner, progress=False, **self.arguments)
        described = dists.meta["model"]
        return dists.probs, described["output"], described["temperature"], dists.meta["timing"]["rows_per_s"]

    def export(self, rows: Inputs, target: Path) -> tuple[OnnxModel | None, float | None, str | None]:
        """Return the model as a file, how long its export took, and why there is none; a file is itself."""
        if self.resolved.onnx is not None:
            return self.resolved.onnx, None, None
        begun = time.perf_counter()
        try:
            exported = export(self.model, as_data(rows), target, **self.arguments)
        except FoOnnxError as err:
            return None, None, str(err)
        return exported, time.perf_counter() - begun, None


def list_paths(
    subject: _Subject,
    exported: OnnxModel | None,
    rows: Inputs,
    kind: OutputKind,
    temperature: float,
    device: str,
    long_rows: int,
) -> list[BenchPath]:
    """Return the paths that this model has on this machine, native ones first."""
    paths = native_paths(subject.resolved, rows, subject.options, subject.meaning, kind, temperature)
    if exported is not None:
        paths.append(onnx_runtime_path(exported, kind, temperature, device))
        in_openvino = openvino_path(exported, kind, temperature) if device == "cpu" else None
        paths += [] if in_openvino is None else [in_openvino]
        paths.append(engine_path(subject.model, device, subject.arguments, long_rows))
    return paths


def _choose_by_name(paths: Sequence[BenchPath], names: Sequence[str] | None) -> list[BenchPath]:
    known = [path.name for path in paths]
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise BenchError(f"there is no path {', '.join(map(repr, unknown))}; this model has {', '.join(known)}.")
    return [path for path in paths if names is None or path.name in names]


def _list_left_out(
    candidates: Sequence[BenchPath], chosen: Sequence[BenchPath], failure: str | None, device: str
) -> dict[str, str]:
    """Return the paths that were not tried, with the reason."""
    left_out = {path.name: "it was not asked for" for path in candidates if path not in chosen}
    if failure is not None:
        left_out |= {ONNX_RUNTIME: failure, ENGINE: failure}
    elif "openvino" not in [path.name for path in candidates]:
        left_out["openvino"] = (
            "the package openvino is not installed" if device == "cpu" else "it is run on the CPU alone"
        )
    return left_out


def _count_work(exported: OnnxModel, inputs: Inputs, own: PathResult | None) -> tuple[float, float]:
    """Return the operations and the bytes of a row, in batches as this package's own path cuts them."""
    shapes = [array.shape[1:] for array in inputs.values()]
    names = [tensor.name for tensor in exported.spec.inputs]
    batch_size = COUNTED_BATCH if own is None else int(own.details.get("batch_size", COUNTED_BATCH))
    # Of a foreign file the output has to be named again.
    output_name = exported.spec.output.name if exported.probs_output is None else None
    proto = load_onnx(exported.path, output_name=output_name).proto
    work = count_work(proto, dict(zip(names, shapes, strict=True)), batch_size)
    row_bytes = sum(array.nbytes / len(array) for array in inputs.values())
    return work.flops, row_bytes + work.weight_bytes / batch_size


@contextlib.contextmanager
def _private_cache(folder: Path) -> Iterator[None]:
    """Let exports be kept in `folder` for a while."""
    before = os.environ.get(FOLDER_VARIABLE)
    os.environ[FOLDER_VARIABLE] = str(folder / "cache")
    try:
        yield
    finally:
        if before is None:
            del os.environ[FOLDER_VARIABLE]
        else:
            os.environ[FOLDER_VARIABLE] = before
