"""What a runner is chosen for, as one frozen record."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ..contracts.batch import Inputs, cut_inputs
from ..contracts.batch_plan import BatchPlan, plan_of_record
from ..contracts.exporter import Exporter
from ..contracts.options import ModelOptions, OutputOptions, RunOptions
from ..contracts.runner import Runner
from ..contracts.spec import ModelSpec
from ..errors import OptionError
from ..models.class_names import choose_class_names
from ..models.onnx_model import LoadedOnnx, OnnxModel
from .devices import cpu_cores
from .tuning import plan_batches


@dataclass(frozen=True)
class RunRequest:
    """What a runner is chosen for.

    Attributes:
        model: A file, or a model of a framework.
        plugin: The framework's plugin; ``None`` for a file.
        example: The first rows of the data.
        rows: Number of rows to run, if it is known.
        model_options: How the model is opened and converted.
        output: What its output means.
        run: How it is run.
        recorded_plan: The plan of the run that is resumed.
        turn: A reentrant lock, held while a framework's model is called.
        assumed_batch: The inputs of the first element of an iterable, if only its number of axes says that it is a batch.
        earlier_rows: Rows that the engine has run of small jobs before this one.
        read_spread: Reads more rows to compare with, spread over the data; it may give none, as no input.
        read_held_out: Reads rows after the first ones, to calibrate and to judge lower precisions with; it may give none.
    """

    model: LoadedOnnx | OnnxModel | Any
    plugin: Exporter | None
    example: Inputs
    rows: int | None
    model_options: ModelOptions
    output: OutputOptions
    run: RunOptions
    recorded_plan: BatchPlan | None = None
    turn: Any = field(default_factory=threading.RLock)
    assumed_batch: Inputs | None = None
    earlier_rows: int = 0
    read_spread: Callable[[], Inputs] = dict
    read_held_out: Callable[[], Inputs] = dict

    def plan_batches(
        self, *, on_cpu: bool = True, model_bytes: int = 0, fixed_batch: int | None = None, is_native: bool = False
    ) -> BatchPlan:
        """Return the plan of this run, for a model of `model_bytes`: the recorded one, the one given, or that of the rule.

        Raises:
            OptionError: ``tuning=`` says another batch size than the one that is built into the model.
        """
        if self.recorded_plan is not None:
            return self.recorded_plan
        if self.run.tuning is not None:
            plan = plan_of_record(self.run.tuning)
            if fixed_batch not in (None, plan.batch_size):
                raise OptionError(
                    f"tuning= says batches of {plan.batch_size} rows, and the model takes batches of {fixed_batch}, which are "
                    "built into it. Leave tuning= out, or give that of a run of this model."
                )
            return plan if on_cpu else replace(plan, sessions=1, threads=1, spinning=False)
        return plan_batches(
            self.example, self.rows, on_cpu=on_cpu, cores=cpu_cores(), model_bytes=model_bytes,
            batch_size=self.run.batch_size, fixed_batch=fixed_batch, is_native=is_native,
        )  # fmt: skip


def with_class_count(spec: ModelSpec, runner: Runner, request: RunRequest, batch_size: int) -> ModelSpec:
    """Return `spec` with the classes counted on the first batch, if only a run tells, as with an ``output_transform``."""
    if spec.classes is not None and request.output.output_transform is None:
        return spec
    classes = runner.run(next(cut_inputs(request.example, batch_size))).probs.shape[1]
    spec = replace(spec, classes=classes, output_kind=None)
    return replace(spec, class_names=choose_class_names(request.output.class_names, spec))
