"""Whether a model gives the rows that are finished: it runs the first of them again.

A model's fingerprint does not see all that decides a row (a global of its module, a dict or an object that it holds),
but its rows do. They are run in the batches of the run, so that rows that depend on their batch come out the same again.
Rows of a model that samples differ each time, and say nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np

from ..contracts.batch import Batch, Inputs, cut_inputs
from ..contracts.runner import Runner
from ..contracts.source import Source
from ..conversion.batch_effects import (
    FEW_ROWS,
    NOISE_LIMIT,
    SAMPLING_TOLERANCE,
    Floats,
    Run,
    measure_batch_effects,
    row_distances,
)
from ..conversion.parity import DEFAULT_TOLERANCE, NOISE_FACTOR, SMALL_ROWS
from ..distributions.columns import Columns
from ..errors import RunError
from ..runtime.opened import OpenedModel
from ..runtime.original_rows import answer_invalid
from ..runtime.tuning import example_size
from .labels import batch_positions, plain_id


def first_batches(source: Source, batch_size: int) -> Batch:
    """Return the first rows of a source as one batch: 256, fewer if they are very large, but whole batches of the run."""
    return source.peek(-(-example_size(source) // batch_size) * batch_size)


def describe_other_rows(opened: OpenedModel, runners: Sequence[Runner], first: Batch, finished: Columns) -> str | None:
    """Run the first rows again and compare those that are finished.

    Args:
        opened: The model.
        runners: Those that the rows to come are run by.
        first: The first rows of the data, as `first_batches` gives them.
        finished: Ids and distributions of the first finished rows.

    Returns:
        What differs, in words; ``None`` if nothing does, or if the model samples.
    """
    assert finished.ids is not None
    assert finished.probs is not None
    places = {row_id: place for place, row_id in enumerate(finished.ids.tolist())}
    place_of_row = np.array([places.get(row_id, -1) for row_id in first.ids.tolist()], dtype=np.int64)
    batch_of_row = np.asarray(batch_positions(first), dtype=np.int64) // opened.plan.batch_size
    original = opened.original if runners is opened.runners else None
    tolerance = DEFAULT_TOLERANCE if opened.parity is None else opened.parity.tolerance

    def run(inputs: Inputs) -> Floats:
        return answer_invalid(runners[0].run(inputs), inputs, original)[0].probs.astype(np.float64)

    distances = np.zeros(len(first))
    for number in np.unique(batch_of_row):
        # Rows that were bad, or are not finished, may fail.
        rows = np.flatnonzero((batch_of_row == number) & (place_of_row >= 0))
        if len(rows) == 0:
            continue
        inputs = {name: array[rows] for name, array in first.inputs.items()}
        probs = run(inputs)
        distances[rows] = row_distances(finished.probs[place_of_row[rows]].astype(np.float64), probs)
        if distances[rows].max() <= tolerance:
            continue
        # What a model differs by from itself does not count.
        if row_distances(probs, run(inputs)).max() > SAMPLING_TOLERANCE:
            return None
        tolerance = max(tolerance, NOISE_FACTOR * _measure_noise(run, inputs, probs))
        # Beside other rows than then a model that mixes gives others.
        is_whole = len(rows) == np.count_nonzero(batch_of_row == number)
        if not is_whole and measure_batch_effects(run, inputs, min(len(rows), FEW_ROWS)).dependence is not None:
            distances[rows] = 0.0
    changed = np.flatnonzero(distances > tolerance)
    if len(changed) == 0:
        return None
    row = int(changed[0])
    return (
        f"row {batch_positions(first)[row]} (id {plain_id(first.ids[row])!r}) differs by a total variation of "
        f"{distances[row]:.2e} from what is stored, above the tolerance of {tolerance:.0e} ({len(changed)} of "
        f"{np.count_nonzero(place_of_row >= 0)} compared rows differ). The model changed in what its fingerprint does not "
        "see, such as a global of its module, or a list, a dict or an object that it holds"
    )


def _measure_noise(run: Run, inputs: Inputs, probs: Floats) -> float:
    """Return how far a few rows of a batch are from themselves when they are run alone; 0 if that is no rounding."""
    noise = 0.0
    # Some models do not take a row alone.
    with contextlib.suppress(RunError):
        alone = np.concatenate([run(row) for row in cut_inputs(next(cut_inputs(inputs, SMALL_ROWS)), 1)])
        noise = float(row_distances(probs[: len(alone)], alone).max())
    return noise if noise <= NOISE_LIMIT else 0.0
