"""Parity: an exported model gives the same distributions as the original, measured on real rows in probability space.

Logits may differ by a constant and mean the same; what counts is the distance of the distributions. The report also
says how far the rows lie from their mean and from uniform, since a near-uniform model agrees with anything.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Inputs, count_rows, cut_inputs
from ..contracts.parity_report import ParityReport
from ..contracts.runner import RawModel, Runner
from ..contracts.spec import ModelSpec
from ..distributions.probabilities import apply_head, check_raw_shape, kl_divergence, total_variation
from ..errors import FoOnnxError
from ..runtime.original_rows import rows_with_nan
from ..runtime.transform import Transform, apply_transform
from .batch_effects import NOISE_LIMIT, Floats, measure_batch_effects, row_distances, without_distribution
from .reference import Reference

DEFAULT_TOLERANCE = 1e-4
NOISE_FACTOR = 3
"""A file may differ from the model by this many times what the model differs by between batch sizes."""
SMALL_ROWS = 8
SMALL_BATCHES = (1, 2, 3)
"""The small batch sizes that are tried too; 3 leaves a ragged last batch of 2 on 8 rows."""
Head = Callable[[NDArray[Any], int], Floats]


@dataclass(frozen=True)
class Expectation:
    """Distributions that the original gives for the rows of a comparison, and what they depend on besides the rows.

    Attributes:
        probs: (n, k) its distributions.
        alone: (m, k) those of the first rows in batches of one; ``None`` if it does not take them, or samples.
        samples: Whether it gives other rows each time.
        dependence: What a row depends on besides its input, in one sentence; ``None`` if on nothing. `probs` hold at any
            batch size then.
        noise: What it differs by between batch sizes, as the largest total variation of a row.
    """

    probs: Floats
    alone: Floats | None
    samples: bool
    dependence: str | None
    noise: float


def expect_rows(
    reference: Reference, spec: ModelSpec, *, batch_size: int, transform: Transform | None = None
) -> Expectation:
    """Return what the exported model is to give for the rows of the reference.

    Args:
        reference: The original, the rows, and what it gives for them.
        spec: The exported model; it says what the raw output means.
        batch_size: The batch size that is planned for.
        transform: Takes the head's place, as an ``output_transform`` does.
    """
    raw, inputs, head = reference.model, reference.inputs, head_of(spec, transform)
    run = functools.partial(_run_original, raw, head)
    size = min(batch_size, reference.prepared_rows)
    effects = measure_batch_effects(lambda batch: run(batch, count_rows(batch)), inputs, size)
    dependence = effects.dependence
    # What was run already is not run again, unless it counts which rows were run together.
    is_known = transform is None and dependence is None
    probs = head(reference.raw, count_rows(inputs)) if is_known else run(inputs, batch_size)
    # The model itself at other batch sizes.
    small = next(cut_inputs(inputs, SMALL_ROWS))
    alone = None if effects.samples else _run_original_if_taken(raw, head, small, 1)
    noise = 0.0
    if dependence is None:
        few = _run_original_if_taken(raw, head, small, SMALL_ROWS) if alone is None else alone
        noise = max(_largest_distance(probs, effects.together), _largest_distance(probs, few))
        if noise > NOISE_LIMIT:
            dependence, noise = _describe_dependence(noise), 0.0
    return Expectation(probs, alone, effects.samples, dependence, noise)


def measure(
    reference: Reference,
    runner: Runner,
    *,
    batch_size: int,
    tolerance: float = DEFAULT_TOLERANCE,
    transform: Transform | None = None,
    expectation: Expectation | None = None,
) -> ParityReport:
    """Run both on the same rows and compare their distributions.

    Args:
        reference: The original, the rows, at best 256 of the user's own, and what it gives for them.
        runner: The exported model; its spec says what the raw output means.
        batch_size: The batch size of the run to come. The first 8 rows are run at 1, 2 and 3 as well.
        tolerance: The largest total variation that counts as the same.
        transform: Takes the head's place, as an ``output_transform`` does.
        expectation: What `expect_rows` gives, if it was asked already.
    """
    raw, inputs, head = reference.model, reference.inputs, head_of(runner.spec, transform)
    rows = count_rows(inputs)
    expectation = expectation or expect_rows(reference, runner.spec, batch_size=batch_size, transform=transform)
    expected, alone, dependence = expectation.probs, expectation.alone, expectation.dependence
    problem, gap = None, None
    if raw.original is not None:
        few = next(cut_inputs(inputs, batch_size))
        distances_of_original = total_variation(
            _run_original(raw.original, head, few, batch_size), expected[: count_rows(few)]
        )
        gap = float(np.nanmax(distances_of_original, initial=0.0))
    small = next(cut_inputs(inputs, SMALL_ROWS))
    tolerance = max(tolerance, NOISE_FACTOR * expectation.noise)

    # A row that has no distribution of its own cannot differ from one.
    is_without = rows_with_nan(inputs) & without_distribution(expected)
    sizes, distances = [], []
    # Where rows do not depend on those beside them, those that were run alone hold at every batch size.
    independent = alone is not None and dependence is None
    probs = np.full_like(expected, np.nan)
    try:
        outputs = _run_in_batches(runner, inputs, batch_size)
        distances.append(row_distances(expected, outputs)[~is_without])
        sizes.append(min(batch_size, rows))
        probs = outputs
        problem = _describe_missing_rows(expected, probs, is_without)
        for size in SMALL_BATCHES:
            known_alone = size == 1 or independent
            wanted = alone if known_alone else _run_original_if_taken(raw, head, small, size)
            if wanted is not None:
                distances.append(
                    row_distances(wanted, _run_in_batches(runner, small, size))[~is_without[: len(wanted)]]
                )
                sizes.append(size)
    except FoOnnxError as err:
        problem = f"the exported model failed on rows of the data: {str(err).rstrip('.')}"
    all_tv = np.concatenate(distances) if distances else np.ones(1)
    finite = np.isfinite(expected).all(axis=1) & np.isfinite(probs).all(axis=1)
    return ParityReport(
        reference=f"{raw.spec.framework}, native, on {raw.device}",
        rows=rows,
        batch_sizes=tuple(dict.fromkeys(sizes)),
        max_tv=float(all_tv.max(initial=0.0)),
        p99_tv=float(np.percentile(all_tv, 99)) if len(all_tv) else 0.0,
        mean_tv=float(all_tv.mean()) if len(all_tv) else 0.0,
        max_kl=float(kl_divergence(expected[finite], probs[finite]).max(initial=0.0)),
        argmax_flips=int((expected[finite].argmax(axis=1) != probs[finite].argmax(axis=1)).sum()),
        tolerance=tolerance,
        row_spread=row_spread(expected[finite]),
        uniform_distance=uniform_distance(expected[finite]),
        deterministic=not expectation.samples,
        original_gap=gap,
        problem=problem,
        noise=expectation.noise,
        row_dependence=dependence,
    )


def head_of(spec: ModelSpec, transform: Transform | None = None) -> Head:
    """Return what makes distributions (n, k), in float64, of the raw output of n rows: the head, or what replaces it."""

    def apply(raw: NDArray[Any], rows: int) -> Floats:
        if transform is not None:
            return apply_transform(transform, raw, rows).astype(np.float64)
        assert spec.output_kind is not None
        check_raw_shape(raw.shape, spec.output_kind, rows, spec.name)
        return apply_head(raw, spec.output_kind, spec.temperature, dtype=np.float64)[0]

    return apply


def _run_original(raw: RawModel, head: Head, inputs: Inputs, size: int) -> Floats:
    return np.concatenate([head(raw.forward(part), count_rows(part)) for part in cut_inputs(inputs, size)])


def _run_original_if_taken(raw: RawModel, head: Head, inputs: Inputs, size: int) -> Floats | None:
    """Return the original's rows at a small batch size, or ``None`` if it does not take such batches itself."""
    try:
        return _run_original(raw, head, inputs, size)
    except (FoOnnxError, RuntimeError, ValueError, IndexError, TypeError):
        return None


def row_spread(probs: Floats) -> float:
    """Return the mean total variation of the rows of (n, k) from their mean; 0 if there are none."""
    return float(total_variation(probs, probs.mean(axis=0, keepdims=True)).mean()) if len(probs) else 0.0


def uniform_distance(probs: Floats) -> float:
    """Return the mean total variation of the rows of (n, k) from the uniform distribution; 0 if there are none."""
    uniform = np.full((1, probs.shape[1]), 1 / probs.shape[1])
    return float(total_variation(probs, uniform).mean()) if len(probs) else 0.0


def _largest_distance(expected: Floats, others: Floats | None) -> float:
    return 0.0 if others is None else float(row_distances(expected[: len(others)], others).max(initial=0.0))


def _describe_dependence(distance: float) -> str:
    return (
        f"the model's rows depend on the size of their batch: a row differs by a total variation of up to {distance:.2e} from "
        "itself in a batch of another size, so that it has no distribution of its own"
    )


def _describe_missing_rows(expected: Floats, probs: Floats, is_without: NDArray[np.bool_]) -> str | None:
    """Return in one sentence that one side gives no distribution where the other does; ``None`` if it is so nowhere."""
    bad, worse = without_distribution(expected) & ~is_without, without_distribution(probs) & ~is_without
    here, there = int((worse & ~bad).sum()), int((bad & ~worse).sum())
    if here:
        return f"the exported model gives no distribution (NaN) for {here} of {len(probs)} rows that have one in the original"
    if there:
        return f"the original gives no distribution (NaN) for {there} of {len(probs)} rows that have one in the exported model"
    return None


def _run_in_batches(runner: Runner, inputs: Inputs, size: int) -> Floats:
    return np.concatenate([runner.run(part).probs for part in cut_inputs(inputs, size)]).astype(np.float64)
