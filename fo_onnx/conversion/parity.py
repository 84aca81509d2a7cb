"""Parity: an exported model gives the same distributions as the original, measured on real rows in probability space.

Logits may differ by a constant and mean the same; what counts is the distance of the distributions. The report also
says how far the rows lie from their mean and from uniform, since a near-uniform model agrees with anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Inputs
from ..contracts.parity_report import ParityReport
from ..contracts.runner import RawModel, Runner
from ..contracts.spec import ModelSpec
from ..distributions.probabilities import apply_head, check_raw_shape, kl_divergence, total_variation
from ..errors import FoOnnxError, OutputError
from ..runtime.nan_rows import rows_with_nan

DEFAULT_TOLERANCE = 1e-4
DETERMINISM_TOLERANCE = 1e-6
MIXING_TOLERANCE = 1e-5
"""Rows that are run alone differ by less than this from rounding, and by more if the model mixes rows."""
SMALL_ROWS = 8
SMALL_BATCHES = (1, 2, 3)
"""The small batch sizes that are tried too; 3 leaves a ragged last batch of 2 on 8 rows."""
Floats = NDArray[np.float64]


def measure(
    raw: RawModel,
    runner: Runner,
    inputs: Inputs,
    *,
    batch_size: int,
    tolerance: float = DEFAULT_TOLERANCE,
    reference: str | None = None,
    transform: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
    known: NDArray[Any] | None = None,
) -> ParityReport:
    """Run both on the same rows and compare their distributions.

    Args:
        raw: The original, without head.
        runner: The exported model; its spec says what the raw output means.
        inputs: The rows, at best 256 of the user's own.
        batch_size: The batch size of the run to come. The first 8 rows are run at 1, 2 and 3 as well.
        tolerance: The largest total variation that counts as the same.
        reference: What the original is called in the report.
        transform: Takes the head's place, as an ``output_transform`` does.
        known: What `raw` gives for `inputs` at this batch size, if that was run already.
    """
    spec = runner.spec
    reference = reference or f"{raw.spec.framework}, native, on {raw.device}"
    rows = len(next(iter(inputs.values())))
    if known is None or transform is not None:
        expected = reference_probs(raw, spec, inputs, batch_size, transform)
    else:
        assert spec.output_kind is not None
        expected = apply_head(known, spec.output_kind, spec.temperature, dtype=np.float64)[0]
    # The same batch again: a model may differ in its last bits from one batch size to another.
    few = {k: v[:batch_size] for k, v in inputs.items()}
    again = reference_probs(raw, spec, few, batch_size, transform)
    deterministic = bool(np.nanmax(np.abs(again - expected[: len(again)]), initial=0.0) <= DETERMINISM_TOLERANCE)
    gap = None
    if raw.original is not None:
        gap = float(
            np.nanmax(
                total_variation(
                    reference_probs(raw.original, spec, few, batch_size, transform), expected[: len(again)]
                ),
                initial=0.0,
            )
        )

    # A row that has no distribution of its own cannot differ from one.
    is_without = rows_with_nan(inputs) & ~np.isfinite(expected).all(axis=1)
    sizes, distances, problem = [], [], None
    small = {k: v[:SMALL_ROWS] for k, v in inputs.items()}
    alone = _reference_or_none(raw, spec, small, 1, transform)
    if deterministic and transform is None:
        problem = _describe_mixing(expected, alone, tolerance)
    # Where rows do not depend on those beside them, those that were run alone hold at every batch size.
    independent = deterministic and transform is None and alone is not None and problem is None
    probs = np.full_like(expected, np.nan)
    try:
        outputs = _run_in_batches(runner, inputs, batch_size)
        distances.append(_distance(expected, outputs)[~is_without])
        sizes.append(min(batch_size, rows))
        probs = outputs
        for size in SMALL_BATCHES:
            known_alone = size == 1 or independent
            wanted = alone if known_alone else _reference_or_none(raw, spec, small, size, transform)
            if wanted is not None:
                distances.append(_distance(wanted, _run_in_batches(runner, small, size))[~is_without[: len(wanted)]])
                sizes.append(size)
    except FoOnnxError as err:
        problem = f"the exported model failed on rows of the data: {str(err).rstrip('.')}"
    all_tv = np.concatenate(distances) if distances else np.ones(1)
    finite = np.isfinite(expected).all(axis=1) & np.isfinite(probs).all(axis=1)
    return ParityReport(
        reference=reference,
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
        deterministic=deterministic,
        original_gap=gap,
        problem=problem,
    )


def reference_probs(
    raw: RawModel,
    spec: ModelSpec,
    inputs: Inputs,
    batch_size: int,
    transform: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
) -> Floats:
    """Return the original's distributions (n, k), with the head, or what replaces it, computed in float64.

    Raises:
        OutputError: The raw output cannot be one row of class scores per sample.
    """
    parts = []
    for part in _slices(inputs, batch_size):
        rows = len(next(iter(part.values())))
        out = raw.forward(part)
        if transform is not None:
            parts.append(transform(out).astype(np.float64))
            continue
        assert spec.output_kind is not None
        check_raw_shape(out.shape, spec.output_kind, rows, spec.name)
        parts.append(apply_head(out, spec.output_kind, spec.temperature, dtype=np.float64)[0])
    return np.concatenate(parts)


def row_spread(probs: Floats) -> float:
    """Return the mean total variation of the rows of (n, k) from their mean; 0 if there are none."""
    return float(total_variation(probs, probs.mean(axis=0, keepdims=True)).mean()) if len(probs) else 0.0


def uniform_distance(probs: Floats) -> float:
    """Return the mean total variation of the rows of (n, k) from the uniform distribution; 0 if there are none."""
    uniform = np.full((1, probs.shape[1]), 1 / probs.shape[1])
    return float(total_variation(probs, uniform).mean()) if len(probs) else 0.0


def _distance(expected: Floats, probs: Floats) -> Floats:
    """Return the total variation of each pair of rows; 0 if neither is a distribution, 1 if only one is."""
    if expected.shape != probs.shape:
        raise OutputError(
            f"it gives distributions of shape {probs.shape}, and the original gives {expected.shape}; is it of another model?"
        )
    bad, worse = ~np.isfinite(expected).all(axis=1), ~np.isfinite(probs).all(axis=1)
    return np.where(bad & worse, 0.0, np.where(bad | worse, 1.0, total_variation(expected, probs)))


def find_row_mixing(raw: RawModel, spec: ModelSpec, inputs: Inputs, expected: Floats, tolerance: float) -> str | None:
    """Return what is wrong with a model whose rows depend on those that they are run with, or ``None``.

    Args:
        raw: The model, without head.
        spec: What its output means.
        inputs: Some rows, of which the first 8 are run alone.
        expected: Its distributions of the rows run together.
        tolerance: The largest total variation that counts as the same.
    """
    small = {k: v[:SMALL_ROWS] for k, v in inputs.items()}
    return _describe_mixing(expected, _reference_or_none(raw, spec, small, 1, None), tolerance)


def _describe_mixing(expected: Floats, alone: Floats | None, tolerance: float) -> str | None:
    if alone is None:
        return None
    apart = float(_distance(expected[: len(alone)], alone).max(initial=0.0))
    if apart <= max(tolerance, MIXING_TOLERANCE):
        return None
    return (
        f"the model mixes the rows of a batch: a row run alone differs by a total variation of up to {apart:.2e} from the same "
        "row run with others, so that it has no distribution of its own"
    )


def _reference_or_none(
    raw: RawModel, spec: ModelSpec, inputs: Inputs, size: int, transform: Callable[[NDArray[Any]], NDArray[Any]] | None
) -> Floats | None:
    """Return the original's rows at a small batch size, or ``None`` if it does not take such batches itself."""
    try:
        return reference_probs(raw, spec, inputs, size, transform)
    except (FoOnnxError, RuntimeError, ValueError, IndexError, TypeError):
        return None


def _run_in_batches(runner: Runner, inputs: Inputs, size: int) -> Floats:
    return np.concatenate([runner.run(part).probs for part in _slices(inputs, size)]).astype(np.float64)


def _slices(inputs: Inputs, size: int) -> Iterator[dict[str, NDArray[Any]]]:
    rows = len(next(iter(inputs.values())))
    for start in range(0, rows, size):
        yield {k: v[start : start + size] for k, v in inputs.items()}
