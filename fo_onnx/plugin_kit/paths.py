"""Ways to run a model for a benchmark: rows cut into batches, and the outputs joined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..contracts.batch import Array, Inputs, cut_inputs
from ..contracts.exporter import RunsRows


def in_batches(step: Callable[[Inputs], Any]) -> RunsRows:
    """Return what runs all rows by `step`, which runs a batch; outputs that are computed in the background are awaited last."""

    def run(inputs: Inputs, batch_size: int) -> Array:
        outputs = [step(batch) for batch in cut_inputs(inputs, batch_size)]
        return np.concatenate([np.asarray(output) for output in outputs])

    return run
