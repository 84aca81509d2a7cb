"""A framework's model as the reference of a run: opened in its framework, and run on the first rows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Inputs
from ..contracts.exporter import Devices
from ..contracts.options import OutputOptions
from ..contracts.runner import RawModel
from ..distributions.probabilities import check_raw_shape
from ..errors import DataError, OutputError, RunError
from ..runtime.request import RunRequest
from ..runtime.tuning import BatchPlan
from ..runtime.turns import open_in_turn

CHANNELS = (1, 3, 4)
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


def open_native_model(request: RunRequest, device: Devices = "auto") -> RawModel:
    """Open the requested model in its own framework; its calls are made in turn."""
    assert request.plugin is not None
    return open_in_turn(
        request.plugin, request.model, request.example, device, request.model_options, request.output, request.turn
    )


def open_reference(request: RunRequest) -> Reference:
    """Open the requested model in its own framework and run the first rows.

    Raises:
        DataError: The model does not take the rows.
        OutputError: It gives something else than one row per sample, and no ``output_transform`` takes care of that.
    """
    model, plan = open_native_model(request), request.plan_batches()
    return Reference(model, run_first_rows(model, request.example, request.output, plan.batch_size), plan)


def run_first_rows(model: RawModel, example: Inputs, output: OutputOptions, batch_size: int) -> NDArray[Any]:
    """Return the model's raw output for the first rows, checked to be one row per sample; see `open_reference`."""
    rows = len(next(iter(example.values())))
    parts = []
    for start in range(0, max(rows, 1), batch_size):
        batch = {name: array[start : start + batch_size] for name, array in example.items()}
        parts.append(_run_batch(model, batch, output))
        if output.output_transform is not None:
            # It takes care of any output, so that one batch is enough.
            return parts[0]
    if len({part.shape[1:] for part in parts}) > 1:
        shapes = ", ".join(str(part.shape) for part in parts)
        raise OutputError(
            f"{model.spec.name} gives outputs of shapes {shapes} for batches of its first rows; one row of as many class scores "
            "for each was expected."
        )
    return np.concatenate(parts)


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
        rows = len(next(iter(batch.values())))
        check_raw_shape(raw.shape, None, rows, model.spec.name)
        if raw.dtype.kind in "iub" and raw.size == rows:
            raise OutputError(
                f"{model.spec.name} gives one {raw.dtype} number per sample, as a predicted class is; class scores, shape (n, "
                "classes), were expected. Leave out the argmax, or choose another output with output_name=."
            )
    return raw


def _advise(batch: Inputs, refusal: str) -> str:
    """Return what to do about rows that a model refuses, by what it says and by the rows' shapes."""
    for array in batch.values():
        if array.ndim == 4 and _REFUSES_CHANNELS.search(refusal):
            is_first, is_last = array.shape[1] in CHANNELS, array.shape[3] in CHANNELS
            if is_first != is_last:
                order, other, axes = (
                    ("first, NCHW", "last", "1, 2, 0") if is_first else ("last, NHWC", "first", "2, 0, 1")
                )
                return (
                    f"They look like images with their channels {order}. If the model takes them {other}, transpose them with "
                    f"transform=lambda x: x.transpose({axes}); if not, check their dtype."
                )
    return (
        "Check their axes (channels first or last, a missing axis) and their dtype, or say which part of a sample is the input "
        "with input_getter=."
    )
