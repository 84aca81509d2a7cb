"""A framework's model as the reference of a run: opened in its framework, and run on the first rows."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Inputs, count_rows, cut_inputs, first_row, join_inputs
from ..contracts.batch_plan import BatchPlan
from ..contracts.options import OutputOptions
from ..contracts.runner import CallTime, RawModel, one_thread
from ..distributions.probabilities import check_raw_shape
from ..errors import DataError, OutputError, RunError
from ..runtime.inputs import advise_transpose
from ..runtime.refused_rows import run_without_refused
from ..runtime.request import RunRequest
from ..runtime.turns import open_native_model
from .batch_effects import FEW_ROWS

QUICK_S = 0.05
"""A call that takes no longer may be made a few times more."""
MOST_CALLS, TIMING_S = 5, 0.02
"""A call is made and timed again while it was made less often, and took less in all."""
MOST_WARMING_S = 0.25
"""A single first call that took no longer is made again, to know what it takes once its shape is prepared."""
_SAY_WHICH = (
    "If it is a sample, give a sequence (with __len__ and __getitem__), a torch IterableDataset or pairs of sample and label; if it "
    "is a batch, give a torch DataLoader, a tf.data.Dataset with .batch(n), pairs of batch and labels, or one array."
)
_REFUSES_CHANNELS = re.compile(r"channel|depth|axis|axes|dimension|shape", re.IGNORECASE)
_REFUSES_AXES = re.compile(r"channel|depth|ax[ei]s|dim|shape|size|rank|feature|matri|column", re.IGNORECASE)
_TAKES_IDS = re.compile("scalar types: Long, Int")
"""How torch's tables refuse what is not int64."""
_TAKES_FIXED_ROWS = re.compile(r"Guard failed: .*\.size\(\)\[0\] == (\d+)")
"""How programs of torch.export refuse another number of rows than the one that is built in."""
_REFUSES_DTYPE = re.compile(
    r"dtype|(scalar|input|result|has) type|type promoting|not implemented for|floating", re.IGNORECASE
)
"""How layers of torch, TensorFlow and JAX refuse another kind of number than their weights."""


@dataclass(frozen=True)
class Reference:
    """A model in its own framework, with what it gives for some rows.

    Attributes:
        model: The model.
        inputs: The rows that it takes.
        raw: Its raw output for them; with an ``output_transform``, for the first batch of them.
        plan: The plan of a native run, whose batch size `raw` was run at.
        is_whole: Whether it takes all of the first rows, so that `inputs` begins with them.
        calls: How many rows each call for `raw` had, and its seconds.
    """

    model: RawModel
    inputs: Inputs
    raw: NDArray[Any]
    plan: BatchPlan
    is_whole: bool
    calls: tuple[tuple[int, float], ...]

    @property
    def row_s(self) -> float:
        """Return the seconds per row in the quickest of the calls: the first one of a shape prepares things."""
        return min(seconds / rows for rows, seconds in self.calls)

    @property
    def prepared_rows(self) -> int:
        """Return how many rows cost little in one call: as many as were run at a time if that is quick, else a few.

        Some frameworks compile each size of batch anew; JAX took 0.1 s for 128 rows of a small network, and 1.4 s for 16 of them.
        """
        rows = max(rows for rows, _ in self.calls)
        return rows if rows * self.row_s <= QUICK_S else min(rows, FEW_ROWS)


def open_reference(request: RunRequest) -> Reference:
    """Open the requested model in its own framework and run the first rows, without those that it refuses.

    If it refuses all of them, rows are run that are spread over the data.

    Raises:
        DataError: The model does not take the rows; elements of an iterable may be samples as well as batches.
        OutputError: It gives something else than one row per sample, and no ``output_transform`` takes care of that.
    """
    model, plan = open_native_model(request), request.plan_batches(is_native=True)
    try:
        inputs, raw, calls = _run_taken(model, request.example, plan.batch_size, request.output)
    except RunError as err:
        try:
            # A model that refuses the first rows may take others.
            inputs, raw, calls = _run_taken(model, request.read_spread(), plan.batch_size, request.output)
        except RunError:
            raise _refusal(request.example, err, request.assumed_batch) from err
    if request.assumed_batch is not None:
        _require_batches(model, request.assumed_batch, raw.shape[1:])
    reference = Reference(model, inputs, raw, plan, is_whole=inputs is request.example, calls=calls)
    return time_again(reference) if len(calls) == 1 and calls[0][1] <= MOST_WARMING_S else reference


def with_spread_rows(reference: Reference, request: RunRequest) -> Reference:
    """Return the reference with rows that are spread over the data, without those that it refuses."""
    spread = request.read_spread()
    if not spread:
        return reference
    model, output = reference.model, request.output
    try:
        spread, raw, _ = _run_taken(model, spread, reference.plan.batch_size, output)
    except RunError:
        return reference
    if output.output_transform is None:
        _require_one_shape([reference.raw, raw], model.spec.name)
        raw = np.concatenate([reference.raw, raw])
    else:
        raw = reference.raw
    return replace(reference, inputs=join_inputs(reference.inputs, spread), raw=raw)


def time_calls(reference: Reference) -> CallTime:
    """Return how long a call takes: of one row, unless a row takes less than half as long in a batch, or is refused alone."""
    batch = next(cut_inputs(reference.inputs, reference.prepared_rows))
    rows = count_rows(batch)
    with one_thread(reference.model):
        batch_s = _time(reference.model, batch)
        with contextlib.suppress(RunError):
            row_s = _time(reference.model, first_row(batch))
            if row_s <= 2 * batch_s / rows:
                return CallTime(1, row_s)
    return CallTime(rows, batch_s)


def time_again(reference: Reference) -> Reference:
    """Return the reference with its first call made and timed once more."""
    batch = next(cut_inputs(reference.inputs, reference.plan.batch_size))
    begun = time.perf_counter()
    reference.model.forward(batch)
    return replace(reference, calls=(*reference.calls, (count_rows(batch), time.perf_counter() - begun)))


def _time(model: RawModel, inputs: Inputs) -> float:
    """Return the seconds of a call; of a quick one the least of several: the first of its size prepares things, others may be disturbed."""
    calls: list[float] = []
    while len(calls) < MOST_CALLS and sum(calls) < TIMING_S:
        begun = time.perf_counter()
        model.forward(inputs)
        calls.append(time.perf_counter() - begun)
    return min(calls)


def _run_taken(
    model: RawModel, inputs: Inputs, size: int, output: OutputOptions
) -> tuple[Inputs, NDArray[Any], tuple[tuple[int, float], ...]]:
    """Return the rows that the model takes, the same object if it takes all, with its raw output for them.

    What is returned last is how many rows each call had, and its seconds.

    Raises:
        RunError: It takes none, or there are none.
    """
    if not inputs:
        raise RunError(f"{model.spec.name} was given no rows.")
    try:
        return inputs, *_run(model, inputs, size, output)
    except RunError as err:
        try:
            taken = run_without_refused(lambda batch: _run_batch(model, batch, output), inputs, err).taken
            rows = {name: array[taken] for name, array in inputs.items()}
            return rows, *_run(model, rows, size, output)
        except (RunError, OutputError):
            raise err from None


def _run(
    model: RawModel, inputs: Inputs, size: int, output: OutputOptions
) -> tuple[NDArray[Any], tuple[tuple[int, float], ...]]:
    """Return the raw output for some rows, and how many rows each call had, with its seconds."""
    parts, calls = [], []
    for batch in cut_inputs(inputs, size):
        begun = time.perf_counter()
        parts.append(_run_batch(model, batch, output))
        calls.append((count_rows(batch), time.perf_counter() - begun))
        if output.output_transform is not None:
            # It takes care of any output, so that one batch is enough.
            break
    if output.output_transform is None:
        _require_one_shape(parts, model.spec.name)
    return np.concatenate(parts), tuple(calls)


def _require_one_shape(parts: Sequence[NDArray[Any]], name: str) -> None:
    if len({part.shape[1:] for part in parts}) > 1:
        shapes = ", ".join(str(part.shape) for part in parts)
        raise OutputError(
            f"{name} gives outputs of shapes {shapes} for batches of its first rows; one row of as many class scores "
            "for each was expected."
        )


def _require_batches(model: RawModel, element: Inputs, row_shape: tuple[int, ...]) -> None:
    """Raise a `DataError` if the model takes a whole element as one row, too."""
    try:
        raw = model.forward({name: array[None] for name, array in element.items()})
    except RunError:
        return
    if raw.shape == (1, *row_shape):
        raise DataError(f"{_describe_assumption(element)}, and the model takes it as one sample, too. {_SAY_WHICH}")


def _describe_assumption(element: Inputs) -> str:
    shapes = ", ".join(f"{name}: {array.dtype} {array.shape}" for name, array in element.items())
    return f"an element of the data, {shapes}, is taken as a batch of {count_rows(element)} rows because of its axes"


def _refusal(inputs: Inputs, err: RunError, assumed_batch: Inputs | None) -> DataError:
    advice = _advise(inputs, str(err))
    if assumed_batch is not None:
        advice = f"It may be no batch: {_describe_assumption(assumed_batch)}. {_SAY_WHICH}"
    described = ", ".join(f"{name}: {array.dtype} {array.shape[1:]}" for name, array in inputs.items())
    return DataError(
        f"the model does not take the data: {str(err).rstrip('.')}. Rows of the data are {described}. {advice}"
    )


def _run_batch(model: RawModel, batch: Inputs, output: OutputOptions) -> NDArray[Any]:
    raw = model.forward(batch)
    if output.output_transform is None:
        rows = count_rows(batch)
        check_raw_shape(raw.shape, None, rows, model.spec.name)
        if raw.dtype.kind == "c":
            raise OutputError(
                f"{model.spec.name} gives complex numbers; class scores, real numbers (n, classes), were expected. End the model "
                "in what makes real scores of them, such as their absolute value."
            )
        if raw.dtype.kind in "iub" and raw.size == rows:
            raise OutputError(
                f"{model.spec.name} gives one {raw.dtype} number per sample, as a predicted class is; class scores, shape (n, "
                "classes), were expected. Leave out the argmax, or choose another output with output_name=."
            )
    return raw


def _advise(batch: Inputs, refusal: str) -> str:
    """Return what to do about rows that a model refuses, by what it says and by the rows' dtypes and shapes."""
    fixed_rows = _TAKES_FIXED_ROWS.search(refusal)
    if fixed_rows is not None:
        return (
            f"A part of the model is a program of torch.export for {fixed_rows[1]} rows: export it with a free batch axis, "
            "dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), or give the program itself as the model."
        )
    for pattern, kinds, dtype in ((_TAKES_IDS, "fiub", "int64"), (_REFUSES_DTYPE, "iub", "float32")):
        others = [name for name, array in batch.items() if array.dtype.kind in kinds and array.dtype != dtype]
        if others and pattern.search(refusal):
            return _advise_conversion(list(batch), others, dtype)
    for array in batch.values():
        if array.ndim == 4 and _REFUSES_CHANNELS.search(refusal) and (advice := advise_transpose(array.shape[1:])):
            return advice
    if _REFUSES_AXES.search(refusal):
        check = "Check their axes (channels first or last, a missing axis) and their dtype"
    else:
        check = "Give rows like those that the model was trained on"
    return f"{check}, or say which part of a sample is the input with input_getter=."


def _advise_conversion(names: list[str], others: list[str], dtype: str) -> str:
    """Return how to convert inputs of another dtype. It is left to the caller: pixels may have to be scaled."""
    scaled = ", scaled as the model was trained" if dtype == "float32" else ""
    if names == ["0"]:
        return f"Convert them, for example with transform=lambda x: np.asarray(x, {dtype!r}){scaled}."
    which = " or ".join(map(repr, others))
    return f"Convert {which} to {dtype}{scaled}, in the data or with transform=, which gets all inputs of a row."
