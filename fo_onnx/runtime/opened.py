"""What was chosen for a run: one frozen record, made complete at one place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..contracts.batch import Inputs
from ..contracts.batch_plan import BatchPlan
from ..contracts.options import OutputOptions
from ..contracts.parity_report import ParityReport
from ..contracts.precision_report import FLOAT32, PrecisionReport
from ..contracts.runner import CallTime, Runner, RunOutput
from ..contracts.spec import ModelSpec, TensorSpec
from ..models.class_names import choose_class_names
from .devices import Placement
from .native_runner import NativeRunner


@dataclass(frozen=True)
class OpenedModel:
    """The runners of a run, and what is recorded of them.

    Attributes:
        runners: Those that run batches side by side.
        spec: The model, with the decision on its output.
        plan: How the run is cut and spread.
        sha256: Digest of the model: of its file, or the fingerprint of a framework's.
        placement: Where the sessions run; ``None`` for native runners.
        cpu_nodes: Nodes that run on the CPU though another device was asked for.
        reason: Why the runner is not the first choice; ``None`` if it is.
        parity: How the exported model compared, if there was something to compare.
        path: The model's file, if it came from one.
        export_s: Seconds that the export and the comparison took.
        versions: Versions of the framework's packages.
        opset: The model's default operator set, if it runs in ONNX.
        fusions: How many nodes of each kind stand in place of several in the graph that the sessions run.
        session_opset: The default operator set of that graph, if it is no native runner.
        export_origin: ``"new"`` or ``"cached"`` if a framework's model was exported for this run.
        open_native: Opens the native runner that steps in if an ONNX runner fails, if there is one.
        original: The model in its own framework, if it is there and the runners are not it.
        provider_speedup: How many times as fast as ONNX Runtime's own kernels the provider was that took their place, if one did.
        precision: How the precision was chosen, if a lower one was allowed.
        original_time: How long its calls take, if that is known.
        speed: What the choice of the runner was made by, if it was made by speed; see ``meta["runner"]["speed"]``.
        most_rows: How many rows it was opened for, if runs of more rows are worth an export; ``None`` if it serves any.
        resources: Closed after the runners.
    """

    runners: tuple[Runner, ...]
    spec: ModelSpec
    plan: BatchPlan
    sha256: str
    placement: Placement | None = None
    cpu_nodes: int = 0
    reason: str | None = None
    parity: ParityReport | None = None
    path: Path | None = None
    export_s: float | None = None
    versions: dict[str, str] = field(default_factory=dict)
    opset: int | None = None
    fusions: dict[str, int] = field(default_factory=dict)
    session_opset: int | None = None
    export_origin: str | None = None
    open_native: Callable[[], Runner] | None = None
    original: NativeRunner | None = None
    provider_speedup: float | None = None
    precision: PrecisionReport | None = None
    original_time: CallTime | None = None
    speed: dict[str, float | None] | None = None
    most_rows: int | None = None
    resources: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def classes(self) -> int:
        """Return the number of classes."""
        assert self.spec.classes is not None
        return self.spec.classes

    @property
    def precision_name(self) -> str:
        """Return the precision that rows are in."""
        if self.precision is not None:
            return self.precision.choice
        return "tf32" if self.placement is not None and self.placement.tf32 else FLOAT32

    @property
    def tv_budget(self) -> float | None:
        """Return what rows may differ from float32 by, at the 99th percentile; ``None`` if they are float32."""
        return None if self.precision is None or self.precision.choice == FLOAT32 else self.precision.tv_budget

    def close(self) -> None:
        """Close the runners and remove temporary files."""
        for runner in self.runners:
            runner.close()
        self.resources.close()


def open_without_rows(classes: int, spec: ModelSpec | None, output: OutputOptions) -> OpenedModel:
    """Return no runner, for data without a row; what is known of the model is recorded all the same."""
    spec = spec or ModelSpec(inputs=(), output=TensorSpec("output", "float32", ()), framework="unknown")
    names = choose_class_names(output.class_names, replace(spec, classes=None))
    spec = replace(spec, classes=classes, class_names=names)
    return OpenedModel((_NoRunner(spec),), spec, BatchPlan(1, 1, 1, False, "no rows"), "")


class _NoRunner:
    """The runner of a run without rows."""

    device, kind = "none", "none"

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def run(self, inputs: Inputs) -> RunOutput:
        """Never called: there is no batch."""
        raise AssertionError("a run without rows has a batch")

    def close(self) -> None:
        """Free nothing."""
