"""A job, and what is chosen for it: the runners, how the run is cut, and what is to be recorded of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..options import ModelOptions, OutputOptions, RunOptions
from ..parity import ParityReport
from ..protocols import Exporter, Inputs, Runner, RunOutput
from ..spec import ModelSpec, TensorSpec
from .decide import check_class_names
from .providers import Placement, cpu_cores
from .tuning import Tuning, plan


@dataclass
class Selection:
    """The runners of a job, and what is to be recorded of them.

    Attributes:
        runners: Those that run batches side by side.
        spec: The model, with the decision on its output.
        tuning: How the run is cut and spread.
        placement: Where the sessions run; ``None`` for native runners.
        cpu_nodes: Nodes that run on the CPU though another device was asked for.
        reason: Why the runner is not the first choice; ``None`` where it is.
        parity: How the exported model compared, where there was something to compare.
        path: The model's file, where it came from one.
        sha256: Digest of the model.
        export_s: Seconds that the export and the comparison took.
        versions: Versions of the framework's packages.
        opset: The model's default operator set, where it ran in ONNX.
        export: ``"new"`` or ``"cached"`` where a framework's model was exported for this run.
        native: Gives the native runner that steps in on the way, where there is one.
    """

    runners: list[Runner]
    spec: ModelSpec
    tuning: Tuning
    sha256: str
    placement: Placement | None = None
    cpu_nodes: int = 0
    reason: str | None = None
    parity: ParityReport | None = None
    path: Path | None = None
    export_s: float | None = None
    versions: dict[str, str] = field(default_factory=dict)
    opset: int | None = None
    export: str | None = None
    native: Callable[[], Runner] | None = None
    _stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def close(self) -> None:
        """Closes the runners and removes temporary files."""
        for runner in self.runners:
            runner.close()
        self._stack.close()


@dataclass(frozen=True)
class Job:
    """What a selection is made for.

    Attributes:
        model: The model.
        exporter: Its framework's exporter; ``None`` for ONNX files.
        example: The first rows of the data.
        rows: Number of rows to run, where it is known.
        model_options: How it is opened and converted.
        output: What its output means.
        run: How it is run.
        recorded: The plan of a run that is gone on with.
        turn: A reentrant lock, held while a framework's model is called.
    """

    model: Any
    exporter: Exporter | None
    example: Inputs
    rows: int | None
    model_options: ModelOptions
    output: OutputOptions
    run: RunOptions
    recorded: Tuning | None = None
    turn: Any = field(default_factory=threading.RLock)

    def tuning(self, model_bytes: int, placement: Placement | None, fixed_batch: int | None = None) -> Tuning:
        """The plan for a model of `model_bytes` at a placement; ``None`` is the native runner's."""
        if self.recorded is not None:
            return self.recorded
        cpu = placement is None or placement.provider == "CPUExecutionProvider"
        return plan(
            self.example,
            self.rows,
            cpu=cpu,
            cores=cpu_cores(),
            model_bytes=model_bytes,
            batch_size=self.run.batch_size,
            fixed_batch=fixed_batch,
        )


def counted(found: Selection, job: Job) -> Selection:
    """Counts the classes where only a run tells, as with an ``output_transform``."""
    if found.spec.classes is None or job.output.output_transform is not None:
        classes = found.runners[0].run(job.example).probs.shape[1]
        own = found.spec.class_names if found.spec.class_names and len(found.spec.class_names) == classes else None
        spec = replace(found.spec, classes=classes, output_kind=None, class_names=own)
        found.spec = replace(spec, class_names=check_class_names(job.output.class_names, spec))
    return found


def empty_selection(classes: int, spec: ModelSpec | None, output: OutputOptions) -> Selection:
    """No runner, for data without a row; what is known of the model is recorded all the same."""
    spec = spec or ModelSpec(inputs=(), output=TensorSpec("output", "float32", ()), framework="unknown")
    spec = replace(
        spec, classes=classes, class_names=check_class_names(output.class_names, replace(spec, classes=None))
    )
    return Selection([_NoRunner(spec)], spec, Tuning(1, 1, 1, "no rows"), "")


class _NoRunner:
    """The runner of a run without rows."""

    device, kind = "none", "none"

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def run(self, inputs: Inputs) -> RunOutput:
        """Never called: there is no batch."""
        raise AssertionError("a run without rows has a batch")

    def close(self) -> None:
        """Nothing to free."""
