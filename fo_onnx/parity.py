"""Whether an exported model gives the same distributions as the original: measured on real rows, in probability space.

Logits may differ by a constant and mean the same; what counts is the distance of the distributions. The report also
says how far the rows lie from their mean and from uniform, since a near-uniform model agrees with anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import FoOnnxError, OutputError
from .printable import escaped
from .probabilities import apply_head, check_raw_shape, kl_divergence, total_variation
from .protocols import Inputs, RawModel, Runner
from .spec import ModelSpec

DEFAULT_TOLERANCE = 1e-4
DETERMINISM_TOLERANCE = 1e-6
SMALL_ROWS = 8
SMALL_BATCHES = (1, 2, 3)
"""The small batch sizes that are tried too; 3 leaves a ragged last batch of 2 on 8 rows."""
_INFORMATIVE_SPREAD = 100
_NEAR_UNIFORM = 0.25
"""Total variation: the biases of a freshly made layer, up to 1/√n for n ≥ 4 inputs, alone take rows this far from uniform."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ParityReport:
    """How an exported model compares with the original.

    Distances are total variations, in [0, 1], in float64.

    Attributes:
        reference: What it was compared with.
        rows: Number of rows.
        batch_sizes: The batch sizes at which both were run.
        max_tv: The largest distance of a row.
        p99_tv: The 99th percentile.
        mean_tv: The mean.
        max_kl: The largest Kullback-Leibler divergence of a row, in nats.
        argmax_flips: Rows whose most probable class differs.
        tolerance: The largest `max_tv` that counts as the same.
        row_spread: The mean distance of the reference's rows from their mean.
        deterministic: Whether the original gives the same rows twice.
        original_gap: Where the original is of half precision: the largest distance between it and its float32 copy,
            which is the reference; else ``None``.
        problem: What kept the comparison from being made, if anything did.
        uniform_distance: The mean distance of the reference's rows from the uniform distribution; ``None`` in records of
            earlier versions, whose `row_spread` was a median over pairs of rows.
        unknown: Why this recorded comparison says nothing of what is run, for example since the file changed after it;
            ``None`` where it does.
    """

    reference: str
    rows: int
    batch_sizes: tuple[int, ...]
    max_tv: float
    p99_tv: float
    mean_tv: float
    max_kl: float
    argmax_flips: int
    tolerance: float
    row_spread: float
    deterministic: bool
    original_gap: float | None = None
    problem: str | None = None
    uniform_distance: float | None = None
    unknown: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the two are the same within the tolerance; not, where it is unknown."""
        return self.unknown is None and self.deterministic and self.problem is None and self.max_tv <= self.tolerance

    @property
    def informative(self) -> bool:
        """Whether agreement proves anything; it proves little where a file that ignores its input would agree as well.

        That is so where rows lie close to their mean (below 100 × tolerance) and close to uniform too (below 0.25), where
        biases alone may have put them: rows that are confident in one class owe it to their input, so that agreement on
        them counts.
        """
        if self.uniform_distance is None:
            return True  # not known
        return self.row_spread >= _INFORMATIVE_SPREAD * self.tolerance or self.uniform_distance >= _NEAR_UNIFORM

    def outcome(self) -> str:
        """The outcome in one word."""
        return "unknown" if self.unknown is not None else "passed" if self.passed else "FAILED"

    def verdict(self) -> str:
        """The outcome in one sentence."""
        if self.unknown is not None:
            return self.unknown
        if not self.deterministic:
            return "the model samples in evaluation mode: it gives other rows each time, so that there is nothing to compare with"
        if self.problem is not None:
            return self.problem
        if not self.passed:
            return (
                f"rows differ by a total variation of up to {self.max_tv:.2e} from {self.reference}, above the tolerance of "
                f"{self.tolerance:.0e} ({self.argmax_flips} of {self.rows} rows change their most probable class)"
            )
        if not self.informative:
            return (
                f"the rows agree, but they lie only {self.row_spread:.1e} from their mean and {self.uniform_distance:.1e} from "
                "uniform: a near-uniform model agrees with anything, so that this proves little"
            )
        return f"the rows agree with {self.reference} within {self.max_tv:.1e}"

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types, for the record."""
        passed = None if self.unknown is not None else self.passed
        return {**asdict(self), "batch_sizes": list(self.batch_sizes), "passed": passed}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ParityReport:
        """The report that a record of `to_dict` holds; what else is in the record is passed over.

        Raises:
            ValueError: A value is of another type than a report has.
            TypeError: One is missing.
        """
        known = {k: v for k, v in data.items() if k in cls.__dataclass_fields__}
        known["batch_sizes"] = tuple(data.get("batch_sizes", ()))
        kinds: dict[str, Any] = {"reference": str, "deterministic": bool, "batch_sizes": tuple}
        kinds |= dict.fromkeys(("problem", "unknown"), str | None)
        kinds |= dict.fromkeys(("original_gap", "uniform_distance"), float | int | None)
        for name, value in known.items():
            kind = kinds.get(name, float | int)
            if not isinstance(value, kind):
                raise ValueError(f"a recorded comparison has {name}={value!r:.100}; {kind} was expected")
        return cls(**known)

    def table(self) -> str:
        """The report as lines of text."""
        lines = [
            ("reference", self.reference),
            ("rows", f"{self.rows}, at batch sizes {', '.join(map(str, self.batch_sizes))}"),
            ("max total variation", f"{self.max_tv:.2e}  (tolerance {self.tolerance:.0e})"),
            ("99th percentile", f"{self.p99_tv:.2e}"),
            ("mean", f"{self.mean_tv:.2e}"),
            ("max KL divergence", f"{self.max_kl:.2e} nats"),
            ("argmax flips", str(self.argmax_flips)),
            ("spread of the rows", self._spread_text()),
            ("deterministic", "yes" if self.deterministic else "no"),
        ]
        if self.original_gap is not None:
            lines.append(("gap to half precision", f"{self.original_gap:.2e}"))
        lines.append(("verdict", f"{self.outcome()}: {self.verdict()}"))
        return "\n".join(f"{name:<22}{escaped(value)}" for name, value in lines)

    def _spread_text(self) -> str:
        if self.uniform_distance is None:
            return f"{self.row_spread:.3f}"
        return f"{self.row_spread:.3f} from their mean, {self.uniform_distance:.3f} from uniform"


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
    """Runs both on the same rows and compares their distributions.

    Args:
        raw: The original, without head.
        runner: The exported model; its spec says what the raw output means.
        inputs: The rows, at best 256 of the user's own.
        batch_size: The batch size of the run to come. The first 8 rows are run at 1, 2 and 3 as well.
        tolerance: The largest total variation that counts as the same.
        reference: What the original is called in the report.
        transform: Takes the head's place, as an ``output_transform`` does.
        known: What `raw` gives for `inputs` at this batch size, where that was run already.
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
    without = rows_with_nan(inputs) & ~np.isfinite(expected).all(axis=1)
    sizes, distances, problem = [], [], None
    small = {k: v[:SMALL_ROWS] for k, v in inputs.items()}
    alone = _reference_or_none(raw, spec, small, 1, transform)
    if deterministic and transform is None:
        problem = _mixed(expected, alone, tolerance)
    # Where rows do not depend on those beside them, those that were run alone hold at every batch size.
    independent = deterministic and transform is None and alone is not None and problem is None
    found = np.full_like(expected, np.nan)
    try:
        ran = _run_in_batches(runner, inputs, batch_size)
        distances.append(_distance(expected, ran)[~without])
        sizes.append(min(batch_size, rows))
        found = ran
        for size in SMALL_BATCHES:
            known_alone = size == 1 or independent
            wanted = alone if known_alone else _reference_or_none(raw, spec, small, size, transform)
            if wanted is not None:
                distances.append(_distance(wanted, _run_in_batches(runner, small, size))[~without[: len(wanted)]])
                sizes.append(size)
    except FoOnnxError as err:
        problem = f"the exported model failed on rows of the data: {str(err).rstrip('.')}"
    all_tv = np.concatenate(distances) if distances else np.ones(1)
    finite = np.isfinite(expected).all(axis=1) & np.isfinite(found).all(axis=1)
    return ParityReport(
        reference=reference,
        rows=rows,
        batch_sizes=tuple(dict.fromkeys(sizes)),
        max_tv=float(all_tv.max(initial=0.0)),
        p99_tv=float(np.percentile(all_tv, 99)) if len(all_tv) else 0.0,
        mean_tv=float(all_tv.mean()) if len(all_tv) else 0.0,
        max_kl=float(kl_divergence(expected[finite], found[finite]).max(initial=0.0)),
        argmax_flips=int((expected[finite].argmax(axis=1) != found[finite].argmax(axis=1)).sum()),
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
    """The original's distributions (n, k), with the head, or what replaces it, computed in float64.

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


def rows_with_nan(inputs: Inputs) -> NDArray[np.bool_]:
    """Which rows have NaN in one of their inputs (n,); others that are not finite may be meant, as -inf is in masks."""
    found = np.zeros(len(next(iter(inputs.values()))), np.bool_)
    for array in inputs.values():
        if array.dtype.kind != "f" or array.size == 0:
            continue
        with np.errstate(invalid="ignore"):
            # The minimum of an array with NaN is NaN, and quicker to have than one answer per value.
            there = np.isnan(array.min())
        if there:
            found |= np.isnan(array.reshape(len(array), -1)).any(axis=1)
    return found


def row_spread(probs: Floats) -> float:
    """The mean total variation of the rows of (n, k) from their mean; 0 where there are none."""
    return float(total_variation(probs, probs.mean(axis=0, keepdims=True)).mean()) if len(probs) else 0.0


def uniform_distance(probs: Floats) -> float:
    """The mean total variation of the rows of (n, k) from the uniform distribution; 0 where there are none."""
    uniform = np.full((1, probs.shape[1]), 1 / probs.shape[1])
    return float(total_variation(probs, uniform).mean()) if len(probs) else 0.0


def _distance(expected: Floats, found: Floats) -> Floats:
    """Total variation of each pair of rows; 0 where both are no distribution, 1 where one of them is none."""
    if expected.shape != found.shape:
        raise OutputError(
            f"it gives distributions of shape {found.shape}, and the original gives {expected.shape}; is it of another model?"
        )
    bad, worse = ~np.isfinite(expected).all(axis=1), ~np.isfinite(found).all(axis=1)
    return np.where(bad & worse, 0.0, np.where(bad | worse, 1.0, total_variation(expected, found)))


def mixing(raw: RawModel, spec: ModelSpec, inputs: Inputs, expected: Floats, tolerance: float) -> str | None:
    """What is wrong with a model whose rows depend on those that they are run with, or ``None``.

    Args:
        raw: The model, without head.
        spec: What its output means.
        inputs: Some rows, of which the first 8 are run alone.
        expected: Its distributions of the rows run together.
        tolerance: The largest total variation that counts as the same.
    """
    small = {k: v[:SMALL_ROWS] for k, v in inputs.items()}
    return _mixed(expected, _reference_or_none(raw, spec, small, 1, None), tolerance)


def _mixed(expected: Floats, alone: Floats | None, tolerance: float) -> str | None:
    if alone is None:
        return None
    apart = float(_distance(expected[: len(alone)], alone).max(initial=0.0))
    if apart <= tolerance:
        return None
    return (
        f"the model mixes the rows of a batch: a row run alone differs by a total variation of up to {apart:.2e} from the same "
        "row run with others, so that it has no distribution of its own"
    )


def _reference_or_none(
    raw: RawModel, spec: ModelSpec, inputs: Inputs, size: int, transform: Callable[[NDArray[Any]], NDArray[Any]] | None
) -> Floats | None:
    """The original's rows at a small batch size, or ``None`` where it does not take such batches itself."""
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
