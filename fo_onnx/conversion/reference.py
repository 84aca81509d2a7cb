"""A framework's model as the reference of a run: opened in its framework, and run on the first rows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Inputs, count_rows, cut_inputs
from ..contracts.options import OutputOptions
from ..contracts.runner import RawModel
from ..distributions.probabilities import check_raw_shape
from ..errors import DataError, OutputError, RunError
from ..runtime.inputs import advise_transpose
from ..runtime.request import RunRequest
from ..runtime.tuning import BatchPlan
from ..runtime.turns import open_native_model

_REFUSES_CHANNELS = re.compile(r"channel|depth|axis|axes|dimension|shape", re.IGNORECASE)


@dataclass(frozen=True)
class Reference:
    """A model in its own framework, with what it gives for the first rows.

    Attributes:
        model: The model.
        raw: Its raw output for the first rows; with an ``output_transform``, for the first batch of them.
        plan: The plan of a native run, whose batch size `raw` was run at.
    """

    model: RawModel
    raw: NDArray[Any]
    plan: BatchPlan


def open_reference(request: RunRequest) -> Reference:
    """Open the requested model in its own framework and run the first rows.

    Raises:
        DataError: The model does not take the rows.
        OutputError: It gives something else than one row per sample, and no ``output_transform`` takes care of that.
    """
    model, plan = open_native_model(request), request.plan_batches()
    batches = cut_inputs(request.example, plan.batch_size)
    if request.output.output_transform is not None:
        # It takes care of any output, so that one batch is enough.
        return Reference(model, _run_batch(model, next(batches), request.output), plan)
    parts = [_run_batch(model, batch, request.output) for batch in batches]
    if len({part.shape[1:] for part in parts}) > 1:
        shapes = ", ".join(str(part.shape) for part in parts)
        raise OutputError(
            f"{model.spec.name} gives outputs of shapes {shapes} for batches of its first rows; one row of as many class scores "
            "for each was expected."
        )
    return Reference(model, np.concatenate(parts), plan)


def _run_batch(model: RawModel, batch: Inputs, output: OutputOptions) -> NDArray[Any]:
    try:
        raw = model.forward(batch)
    except RunError as err:
        described = ", ".join(f"{name}: {array.dtype} {array.shape[1:]}" for name, array in batch.items())
        raise DataError(
            f"the model does not take the data: {str(err).rstrip('.')}. Rows of the data are {described}. "
            f"{_advise(batch, str(err))}",
        ) from err
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
    """Return what to do about rows that a model refuses, by what it says and by the rows' shapes."""
    for array in batch.values():
        if array.ndim == 4 and _REFUSES_CHANNELS.search(refusal) and (advice := advise_transpose(array.shape[1:])):
            return advice
    return (
        "Check their axes (channels first or last, a missing axis) and their dtype, or say which part of a sample is the input "
        "with input_getter=."
    )
